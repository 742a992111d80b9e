"""The HTTP API: requests in, events to functions, their results out."""

import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from local.gateway.cors import preflight, response_headers
from local.gateway.http_events import (
    HttpResponse,
    build_event,
    encode,
    joined_headers,
    message_response,
    new_request_id,
    new_trace_id,
    response_of,
)
from local.gateway.logs import AccessLog
from local.gateway.pools import Pool
from local.gateway.routes import RouteTable
from local.gateway.stack import Cors, HttpRoute

BODY_BYTES_MAX = 10 * 1024 * 1024
HEADER_BYTES_MAX = 10_240

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class HttpApi:
    """An ASGI application. `pools` are the functions by logical id."""

    def __init__(self, routes: RouteTable, cors: Cors | None, pools: Mapping[str, Pool], access: AccessLog) -> None:
        self._routes = routes
        self._cors = cors
        self._pools = pools
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and log it."""
        started = time.perf_counter()
        request_id = new_request_id()
        headers = joined_headers(scope["headers"])
        found = self._routes.match(scope["method"], scope["path"])
        response = await self._answer(scope, receive, headers, found, request_id)
        body = b"" if scope["method"] == "HEAD" else response.body
        lines = [*response.headers, (b"apigw-requestid", request_id.encode())]
        if response.status not in {204, 304}:
            lines.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": lines})
        await send({"type": "http.response.body", "body": body})
        self._access.write(
            requestId=request_id,
            time=int(time.time() * 1000),
            sourceIp=scope["client"][0] if scope["client"] else "",
            method=scope["method"],
            route=found[0].key if found else None,
            path=scope["path"],
            status=response.status,
            responseBytes=len(body),
            latencyMs=round((time.perf_counter() - started) * 1000, 2),
        )

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        headers: Mapping[str, str],
        found: tuple[HttpRoute, Mapping[str, str]] | None,
        request_id: str,
    ) -> HttpResponse:
        if self._cors is None:
            return await self._invoke(scope, receive, headers, found, request_id)
        allowed = preflight(self._cors, scope["method"], headers)
        if allowed is not None:
            return HttpResponse(204, allowed, b"")
        response = await self._invoke(scope, receive, headers, found, request_id)
        own = [(name, value) for name, value in response.headers if not name.startswith(b"access-control-")]
        return response._replace(headers=own + response_headers(self._cors, headers))

    async def _invoke(
        self,
        scope: Scope,
        receive: Receive,
        headers: Mapping[str, str],
        found: tuple[HttpRoute, Mapping[str, str]] | None,
        request_id: str,
    ) -> HttpResponse:
        if found is None:
            return message_response(404, "Not Found")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES_MAX:
            return message_response(431, "Request Header Fields Too Large")
        body = await read_body(headers, receive, BODY_BYTES_MAX)
        if body is None:
            return message_response(413, "Request Entity Too Large")
        route, parameters = found
        trace = headers.get("x-amzn-trace-id") or new_trace_id()
        event = build_event(
            scope,
            headers,
            body,
            route_key=route.key,
            parameters=parameters,
            request_id=request_id,
            trace=trace,
        )
        text = encode(event)
        outcome = await self._pools[route.function].invoke(text, trace=_safe_trace(trace), seconds=route.seconds)
        return response_of(outcome)


def _safe_trace(trace: str) -> str:
    """A caller's trace id goes into a header of the Runtime API: only if it cannot break out of it."""
    return trace if trace.isascii() and trace.isprintable() else new_trace_id()


async def read_body(headers: Mapping[str, str], receive: Receive, bytes_max: int) -> bytes | None:
    """The whole body of a request, None when it is longer than `bytes_max` or its sender left before its end."""
    if "content-length" not in headers and "transfer-encoding" not in headers:
        return b""
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > bytes_max:
        return None
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None  # half a body must not pass for a whole one
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > bytes_max:
            return None
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
