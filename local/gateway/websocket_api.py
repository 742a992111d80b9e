"""The WebSocket API: connections in, events to functions, what is posted to connections out."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any

from local.gateway.connections import GOING_AWAY, Connection, Connections, OutboxFullError
from local.gateway.http_api import Receive, Scope, Send
from local.gateway.http_events import decode, encode, joined_headers, new_trace_id
from local.gateway.invocations import Kind, Outcome
from local.gateway.pools import Pool
from local.gateway.stack import WebSocketSpec
from local.gateway.websocket_events import (
    connect_event,
    disconnect_event,
    message_event,
    request_context,
    route_of,
)

FRAME_BYTES_MAX = 32 * 1024
IDLE_SECONDS_MAX = 600.0
CONNECTION_SECONDS_MAX = 7200.0
INTEGRATION_SECONDS_MAX = 29.0
NO_STATUS = 1005
ABNORMAL = 1006

# The same API under the path that a custom domain gives it. Clients there may name their protocol.
ALIAS = "/ws/orders/events"
ALIAS_PROTOCOL = "order-updates"

_REFUSAL = {401: "Unauthorized", 403: "Forbidden", 429: "Too Many Requests", 504: "Endpoint request timed out"}


class WebSocketApi:
    """An ASGI application for WebSocket scopes. `pools` are the functions by logical id."""

    def __init__(
        self,
        spec: WebSocketSpec,
        pools: Mapping[str, Pool],
        connections: Connections,
        *,
        idle_seconds: float = IDLE_SECONDS_MAX,
        connection_seconds: float = CONNECTION_SECONDS_MAX,
    ) -> None:
        self._spec = spec
        self._pools = pools
        self._connections = connections
        self._idle_seconds = idle_seconds
        self._connection_seconds = connection_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection from its handshake to its end."""
        await receive()
        if scope["path"].rstrip("/") not in {f"/{self._spec.stage}", ALIAS}:
            await _refuse(send, 403)
            return
        headers = joined_headers(scope["headers"])
        source = scope["client"][0] if scope["client"] else ""
        connection = Connection(source_ip=source, user_agent=headers.get("user-agent", ""))
        session = _Session(self._spec, self._pools, connection, headers.get("host", ""))
        status, protocol = await session.connect(scope)
        if status != 200:
            await _refuse(send, status)
            return
        code, reason = ABNORMAL, ""
        writer: asyncio.Task[None] | None = None
        try:
            await send({"type": "websocket.accept", "subprotocol": protocol})
            self._connections.add(connection)
            writer = asyncio.create_task(_write(connection, send))
            code, reason = await self._read(session, receive)
        except OSError:
            pass  # the client left before it was accepted
        finally:
            self._connections.remove(connection)
            if writer is not None:
                writer.cancel()
                await asyncio.wait([writer])
            await session.disconnect(code, reason)

    async def _read(self, session: "_Session", receive: Receive) -> tuple[int, str]:
        """Handle messages one after the other until the connection ends; its close code and reason."""
        loop = asyncio.get_running_loop()
        connection = session.connection
        end = loop.time() + self._connection_seconds
        while True:
            deadline = min(connection.last_active + self._idle_seconds, end, connection.close_deadline)
            try:
                async with asyncio.timeout_at(deadline) as connection.reading:
                    message = await receive()
            except TimeoutError:
                now = loop.time()
                if now >= connection.close_deadline:
                    return ABNORMAL, ""
                if now >= min(connection.last_active + self._idle_seconds, end):
                    connection.close(GOING_AWAY)
                    connection.touch()
                    end = connection.close_deadline
                continue
            finally:
                connection.reading = None
            if message["type"] == "websocket.disconnect":
                return message.get("code") or NO_STATUS, message.get("reason") or ""
            connection.touch()
            await session.message(message)


class _Session:
    """The functions' side of one connection."""

    def __init__(self, spec: WebSocketSpec, pools: Mapping[str, Pool], connection: Connection, domain: str) -> None:
        self.connection = connection
        self._spec = spec
        self._pools = pools
        self._domain = domain

    async def connect(self, scope: Scope) -> tuple[int, str | None]:
        """Ask $connect: 200 and the subprotocol, or the status of the refusal."""
        offered: list[str] = scope.get("subprotocols", [])
        chosen = ALIAS_PROTOCOL if ALIAS_PROTOCOL in offered and scope["path"].startswith(ALIAS) else None
        if "$connect" not in self._spec.routes:
            return 200, chosen
        event = connect_event(self._context("$connect", "CONNECT"), scope["headers"], scope["query_string"].decode())
        outcome = await self._invoke("$connect", event)
        status, headers = _connect_answer(outcome)
        named = headers.get("sec-websocket-protocol")
        return status, named if named in offered else chosen

    async def message(self, message: Mapping[str, Any]) -> None:
        """Send a message to its route's function; tell the client of a fault, and of an answer where one is set."""
        text: str | None = message.get("text")
        data: bytes = message.get("bytes") or b""
        if text is None:
            with contextlib.suppress(UnicodeDecodeError):
                text = data.decode()
        route = route_of(self._spec, text)
        context = self._context(route or "$default", "MESSAGE")
        if route is None:
            self._tell("Forbidden", context)
            return
        outcome = await self._invoke(route, message_event(context, text, data))
        if outcome.kind is not Kind.ANSWERED:
            self._tell("Internal server error", context)
        elif route in self._spec.answering:
            self._answer(outcome, context)

    async def disconnect(self, code: int, reason: str) -> None:
        """Tell $disconnect, once."""
        if "$disconnect" in self._spec.routes:
            context = self._context("$disconnect", "DISCONNECT")
            await self._invoke("$disconnect", disconnect_event(context, {"Host": self._domain}, code, reason))

    async def _invoke(self, route: str, event: Mapping[str, Any]) -> Outcome:
        pool = self._pools[self._spec.routes[route]]
        return await pool.invoke(encode(event), trace=new_trace_id(), seconds=INTEGRATION_SECONDS_MAX)

    def _context(self, route: str, event_type: str) -> dict[str, Any]:
        return request_context(self._spec, self.connection, route=route, event_type=event_type, domain=self._domain)

    def _answer(self, outcome: Outcome, context: Mapping[str, Any]) -> None:
        try:
            body = decode(outcome.body)["body"].encode()
        except (ValueError, TypeError, KeyError, AttributeError):
            self._tell("Internal server error", context)
            return
        with contextlib.suppress(OutboxFullError):
            self.connection.post(body)

    def _tell(self, message: str, context: Mapping[str, Any]) -> None:
        text = {"message": message, "connectionId": self.connection.id, "requestId": context["requestId"]}
        with contextlib.suppress(OutboxFullError):
            self.connection.post(json.dumps(text).encode())


def _connect_answer(outcome: Outcome) -> tuple[int, dict[str, str]]:
    """200 and the headers of an accepting $connect, else the status to refuse with."""
    if outcome.kind is Kind.TIMED_OUT:
        return 504, {}
    if outcome.kind is Kind.NO_ROOM:
        return 503, {}
    if outcome.kind is not Kind.ANSWERED:
        return 502, {}
    try:
        result = decode(outcome.body)
        status = int(result["statusCode"])
        headers = {str(name).lower(): str(value) for name, value in (result.get("headers") or {}).items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return 502, {}
    if 200 <= status < 300:
        return 200, headers
    return (status if 400 <= status < 600 else 502), {}


async def _write(connection: Connection, send: Send) -> None:
    """Send what is posted to the connection, in order, until it closes."""
    with contextlib.suppress(OSError):  # the client left; the reader hears of it
        while True:
            data = await connection.next_message()
            if data is None:
                assert connection.close_code is not None
                await send({"type": "websocket.close", "code": connection.close_code})
                return
            try:
                frame: dict[str, Any] = {"type": "websocket.send", "text": data.decode()}
            except UnicodeDecodeError:
                frame = {"type": "websocket.send", "bytes": data}
            await send(frame)
            connection.sent(data)


async def _refuse(send: Send, status: int) -> None:
    body = json.dumps({"message": _REFUSAL.get(status, "Internal server error")}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
