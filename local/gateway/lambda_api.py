"""Lambda's Invoke over the local workers: a function run by hand, as `aws lambda invoke` does it."""

import asyncio
import json
import re
from collections.abc import Iterable, Mapping

from local.gateway.asynchronous import invoke_asynchronously
from local.gateway.http_events import decode
from local.gateway.invocations import Kind, Outcome
from local.gateway.pools import Pool
from local.gateway.queues import Queue

_PATH = re.compile(r"/2015-03-31/functions/(?P<name>[^/]+)/invocations")

type Answer = tuple[int, dict[str, str], bytes]


class LambdaApi:
    """The one operation, on functions by name or ARN."""

    def __init__(self, pools: Iterable[Pool], queues: Mapping[str, Queue]) -> None:
        self._pools = {known: pool for pool in pools for known in (pool.spec.name, pool.spec.arn)}
        self._queues = queues
        self._runs: set[asyncio.Task[Outcome]] = set()

    @staticmethod
    def serves(method: str, path: str) -> bool:
        """Whether a call is for it."""
        return method == "POST" and _PATH.fullmatch(path) is not None

    async def call(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Status, headers and body of the answer to one call."""
        found = _PATH.fullmatch(path)
        assert found is not None
        pool = self._pools.get(found["name"])
        if pool is None:
            return _refusal(404, "ResourceNotFoundException", f"Function not found: {found['name']}")
        event = body or b"{}"
        try:
            decode(event)
        except ValueError as error:
            message = f"Could not parse request body into json: {error}"
            return _refusal(400, "InvalidRequestContentException", message)
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
