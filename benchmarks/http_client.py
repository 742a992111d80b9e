"""A client so lean that its own cost can be left out of account: one kept connection, blocking, no headers read.

A client library takes about as long for a request as the handler does, on the same cores. Here a request is bytes
made beforehand, and the answer is read by httptools, a parser in C.
"""

import socket
import uuid
from urllib.parse import urlsplit

from httptools import HttpResponseParser

ANSWER_SECONDS_MAX = 60.0
EXECUTE_ORDER = "/functions/v1/execute-order"
_RECEIVE_BYTES = 65536


class KeptConnection:
    """Sends one request after the other to `url`."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        self._socket = socket.create_connection((address.hostname, address.port), ANSWER_SECONDS_MAX)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = HttpResponseParser(self)
        self._body = b""
        self._complete = False

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to `request`; ConnectionError when there is none."""
        self._body, self._complete = b"", False
        self._socket.sendall(request)
        while not self._complete:
            received = self._socket.recv(_RECEIVE_BYTES)
            if not received:
                raise ConnectionError("the server hung up")
            self._parser.feed_data(received)
        return self._parser.get_status_code(), self._body

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body += body

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._complete = True


class OrderClient:
    """Orders the smallest lot of EURUSD for the holder of `token`."""

    def __init__(self, url: str, token: str) -> None:
        self._connection = KeptConnection(url)
        self._head = (
            f"POST {EXECUTE_ORDER} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nUser-Agent: benchmark/1.0\r\nAccept: */*\r\n"
        ).encode()

    def order(self) -> bytes:
        """Have one order executed; the body of the answer. RuntimeError for any other outcome."""
        body = (
            '{"symbol":"EURUSD","order_type":"market","side":"buy","quantity":0.01,"stop_loss":0.5,'
            f'"idempotency_key":"{uuid.uuid4()}"}}'
        ).encode()
        status, answer = self._connection.ask(self._head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        if status != 200 or b'"status":"executed"' not in answer:
            raise RuntimeError(f"the order was not executed: {status} {answer.decode(errors='replace')}")
        return answer
