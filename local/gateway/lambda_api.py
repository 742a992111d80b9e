"""Lambda over the local workers: a function run by hand, and how many copies of it are reserved."""

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from local.gateway.asynchronous import invoke_asynchronously
from local.gateway.http_events import decode
from local.gateway.invocations import Kind, Outcome
from local.gateway.pools import Pool
from local.gateway.queues import Queue

_INVOKE = re.compile(r"/2015-03-31/functions/(?P<name>[^/]+)/invocations")
_GET_CONCURRENCY = re.compile(r"/2019-09-30/functions/(?P<name>[^/]+)/concurrency")
_PUT_CONCURRENCY = re.compile(r"/2017-10-31/functions/(?P<name>[^/]+)/concurrency")
_PATHS = {"POST": _INVOKE, "GET": _GET_CONCURRENCY, "PUT": _PUT_CONCURRENCY}

type Answer = tuple[int, dict[str, str], bytes]


class LambdaApi:
    """Invoke, GetFunctionConcurrency and PutFunctionConcurrency, on functions by name or ARN."""

    def __init__(self, pools: Iterable[Pool], queues: Mapping[str, Queue]) -> None:
        self._pools = {known: pool for pool in pools for known in (pool.spec.name, pool.spec.arn)}
        self._queues = queues
        self._runs: set[asyncio.Task[Outcome]] = set()

    @staticmethod
    def serves(method: str, path: str) -> bool:
        """Whether a call is for it."""
        return method in _PATHS and _PATHS[method].fullmatch(path) is not None

    async def call(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Status, headers and body of the answer to one call."""
        found = _PATHS[method].fullmatch(path)
        assert found is not None
        pool = self._pools.get(found["name"])
        if pool is None:
            return _refusal(404, "ResourceNotFoundException", f"Function not found: {found['name']}")
        try:
            given = decode(body or b"{}")
        except ValueError as error:
            message = f"Could not parse request body into json: {error}"
            return _refusal(400, "InvalidRequestContentException", message)
        match method:
            case "GET":
                return _concurrency(pool)
            case "PUT":
                return _reserve(pool, given)
            case _:
                return await self._invoke(pool, headers, body or b"{}")

    async def _invoke(self, pool: Pool, headers: Mapping[str, str], event: bytes) -> Answer:
        match headers.get("x-amz-invocation-type", "RequestResponse"):
            case "RequestResponse":
                return _answer(await pool.invoke(event))
            case "Event":
                run = asyncio.create_task(invoke_asynchronously(pool, event, self._queues))
                self._runs.add(run)
                run.add_done_callback(self._runs.discard)
                return 202, {}, b""
            case "DryRun":
                return 204, {}, b""
            case kind:
                message = f"{kind} is no InvocationType: RequestResponse, Event or DryRun."
                return _refusal(400, "InvalidParameterValueException", message)

    def stop(self) -> None:
        """Wait for no run that nobody waits for."""
        for run in self._runs:
            run.cancel()


def _concurrency(pool: Pool) -> Answer:
    told = {} if pool.reserved is None else {"ReservedConcurrentExecutions": pool.reserved}
    return 200, {"content-type": "application/json"}, json.dumps(told).encode()


def _reserve(pool: Pool, given: Any) -> Answer:
    wanted = cast("dict[str, Any]", given).get("ReservedConcurrentExecutions") if isinstance(given, dict) else None
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 0:
        return _refusal(400, "InvalidParameterValueException", "ReservedConcurrentExecutions must be 0 or more.")
    pool.reserve(wanted)
    return _concurrency(pool)


def _answer(outcome: Outcome) -> Answer:
    if outcome.kind is Kind.NO_ROOM:
        return _refusal(429, "TooManyRequestsException", "Rate Exceeded.")
    headers = {"content-type": "application/json", "x-amz-executed-version": "$LATEST"}
    if outcome.kind is not Kind.ANSWERED:
        headers["x-amz-function-error"] = "Unhandled"
    return 200, headers, outcome.body


def _refusal(status: int, name: str, message: str) -> Answer:
    headers = {"content-type": "application/json", "x-amzn-errortype": name}
    return status, headers, json.dumps({"Type": "User", "Message": message}).encode()
