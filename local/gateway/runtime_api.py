"""The Lambda Runtime API as one worker sees it: a bare HTTP protocol on a port of the worker's own.

A port a worker tells them apart, so that no worker can answer for another and a dead one's port is simply closed.
"""

import asyncio
import select
from typing import Protocol, cast

import httptools

RESPONSE_BYTES_MAX = 6 * 1024 * 1024
_ACCEPTED = b'HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"status":"OK"}\n'


class RuntimeEvents(Protocol):
    """What a worker hears from its process. Each that returns a text refuses the call with that error type."""

    def polled(self, connection: "RuntimeConnection") -> str | None:
        """The process asks for its next invocation; it is answered later by `deliver`."""

    def answered(self, invocation_id: str, body: bytes) -> str | None:
        """The process posted the result of an invocation."""

    def failed(self, invocation_id: str, body: bytes) -> str | None:
        """The process posted the error of an invocation."""

    def overflowed(self, invocation_id: str, size: int) -> None:
        """The process posted a result that is too large."""

    def init_failed(self, body: bytes) -> None:
        """The process posted an error of its start."""

    def hung_up(self, connection: "RuntimeConnection") -> None:
        """A connection is closed; a poll on it can no longer be answered."""


class RuntimeConnection(asyncio.Protocol):
    """One connection of the runtime client."""

    def __init__(self, events: RuntimeEvents) -> None:
        self._events = events
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._body: list[bytes] = []
        self._size = 0
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the worker that nothing can be written here any more."""
        self._transport = None
        self._lost = self._lost or isinstance(exc, ConnectionError)
        self._events.hung_up(self)

    def eof_received(self) -> None:
        """Note a reset behind the end: it came if something was written to a socket that was closed already."""
        self._lost = self.undelivered()
        self._events.hung_up(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the methods below."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_message_begin(self) -> None:
        """Start a request."""
        self._url, self._body, self._size = b"", [], 0

    def on_url(self, url: bytes) -> None:
        """Collect the target."""
        self._url += url

    def on_body(self, body: bytes) -> None:
        """Collect the body, up to its limit."""
        self._size += len(body)
        if self._size <= RESPONSE_BYTES_MAX:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Do what the request asks."""
        parts = self._url.decode("ascii", "replace").split("/")
        match [self._parser.get_method(), *parts[1:]]:
            case [b"GET", "2018-06-01", "runtime", "invocation", "next"]:
                refusal = self._events.polled(self)
                if refusal is not None:
                    self._refuse(403, refusal)
            case [b"POST", "2018-06-01", "runtime", "invocation", invocation, "response"]:
                self._result(invocation)
            case [b"POST", "2018-06-01", "runtime", "invocation", invocation, "error"]:
                self._reply(self._events.failed(invocation, b"".join(self._body)))
            case [b"POST", "2018-06-01", "runtime", "init", "error"]:
                self._events.init_failed(b"".join(self._body))
                self._reply(None)
            case _:
                self._refuse(404, "NotFound")

    def deliver(self, invocation_id: str, event: bytes, *, deadline_ms: int, arn: str, trace: str) -> None:
        """Answer the poll on this connection with an invocation."""
        if self._transport is None or self._transport.is_closing():
            self._lost = True
            return
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Lambda-Runtime-Aws-Request-Id: {invocation_id}\r\nLambda-Runtime-Deadline-Ms: {deadline_ms}\r\n"
            f"Lambda-Runtime-Invoked-Function-Arn: {arn}\r\nLambda-Runtime-Trace-Id: {trace}\r\n"
            f"Content-Length: {len(event)}\r\n\r\n"
        )
        self._transport.write(head.encode() + event)

    def undelivered(self) -> bool:
        """Whether the process, now dead, did not read all that was written here, so that its handler never began.

        TCP tells: a socket that is closed with bytes unread, or written to after its close, is reset.
        """
        if self._lost or self._transport is None:
            return self._lost
        state = select.poll()
        state.register(self._transport.get_extra_info("socket").fileno(), 0)
        return any(event & select.POLLERR for _, event in state.poll(0))

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def _result(self, invocation: str) -> None:
        if self._size > RESPONSE_BYTES_MAX:
            self._events.overflowed(invocation, self._size)
            self._refuse(413, "RequestEntityTooLarge")
        else:
            self._reply(self._events.answered(invocation, b"".join(self._body)))

    def _reply(self, refusal: str | None) -> None:
        if refusal is not None:
            self._refuse(400, refusal)
        elif self._transport is not None:
            self._transport.write(_ACCEPTED)

    def _refuse(self, status: int, error_type: str) -> None:
        body = b'{"errorType":"%s"}' % error_type.encode()
        head = f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        if self._transport is not None:
            self._transport.write(head.encode() + body)
