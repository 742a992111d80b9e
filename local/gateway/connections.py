"""Open WebSocket connections, and the @connections API through which functions reach them."""

import asyncio
import base64
import json
import os
from datetime import UTC, datetime
from typing import Any

MESSAGE_BYTES_MAX = 128 * 1024
OUTBOX_BYTES_MAX = 512 * 1024
CLOSE_SECONDS_MAX = 5.0
GOING_AWAY = 1001
NORMAL = 1000


class OutboxFullError(Exception):
    """The client reads more slowly than it is written to."""


class Connection:
    """One client. What is posted to it waits in `outbox`, bounded in bytes, until its writer sends it."""

    def __init__(self, *, source_ip: str, user_agent: str) -> None:
        self.id = base64.urlsafe_b64encode(os.urandom(11)).decode()
        self.source_ip = source_ip
        self.user_agent = user_agent
        self.connected_at = datetime.now(UTC)
        self.last_active_at = self.connected_at
        self.last_active = asyncio.get_running_loop().time()
        self._outbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._outbox_bytes = 0
        self.close_code: int | None = None
        self.close_deadline = float("inf")
        self.reading: asyncio.Timeout | None = None

    def touch(self) -> None:
        """Something was sent or received just now."""
        self.last_active_at = datetime.now(UTC)
        self.last_active = asyncio.get_running_loop().time()

    def post(self, data: bytes) -> None:
        """Queue a message for the client; OutboxFullError when too much waits already."""
        if self._outbox_bytes + len(data) > OUTBOX_BYTES_MAX:
            raise OutboxFullError
        self._outbox_bytes += len(data)
        self._outbox.put_nowait(data)

    def close(self, code: int) -> None:
        """Close behind what is queued, or without it when the client does not take it soon."""
        if self.close_code is not None:
            return
        self.close_code = code
        self._outbox.put_nowait(None)
        self.close_deadline = asyncio.get_running_loop().time() + CLOSE_SECONDS_MAX
        if self.reading is not None and not self.reading.expired():
            self.reading.reschedule(self.close_deadline)

    async def next_message(self) -> bytes | None:
        """What to send next, None to close. Call `sent` when it is written."""
        return await self._outbox.get()

    def sent(self, data: bytes) -> None:
        """Free the room that `data` took."""
        self._outbox_bytes -= len(data)
        self.touch()


class Connections:
    """The connections that are open, by id."""

    def __init__(self) -> None:
        self._open: dict[str, Connection] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> None:
        """From now on it can be posted to."""
        self._open[connection.id] = connection

    def remove(self, connection: Connection) -> None:
        """From now on it is gone."""
        self._open.pop(connection.id, None)

    def call(self, method: str, connection_id: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to one call of the @connections API."""
        connection = self._open.get(connection_id)
        if connection is None or connection.close_code is not None:
            return _error(410, "GoneException")
        match method:
            case "POST":
                return self._post(connection, body)
            case "GET":
                return 200, {"content-type": "application/json"}, json.dumps(_described(connection)).encode()
            case "DELETE":
                connection.close(NORMAL)
                self.remove(connection)
                return 204, {}, b""
        return _error(403, "ForbiddenException")

    def _post(self, connection: Connection, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if len(body) > MESSAGE_BYTES_MAX:
            return _error(413, "PayloadTooLargeException")
        try:
            connection.post(body)
        except OutboxFullError:
            return _error(429, "LimitExceededException")
        return 200, {}, b""


def _described(connection: Connection) -> dict[str, Any]:
    return {
        "connectedAt": _text(connection.connected_at),
        "identity": {"sourceIp": connection.source_ip, "userAgent": connection.user_agent},
        "lastActiveAt": _text(connection.last_active_at),
    }


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _error(status: int, name: str) -> tuple[int, dict[str, str], bytes]:
    headers = {"content-type": "application/json", "x-amzn-errortype": name}
    return status, headers, json.dumps({"message": name}).encode()
