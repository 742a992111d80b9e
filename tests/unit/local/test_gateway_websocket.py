"""The limits of a WebSocket connection in time and bytes, on an ASGI client made of two queues."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from local.gateway.connections import OUTBOX_BYTES_MAX, Connection, Connections, OutboxFullError
from local.gateway.invocations import Kind, Outcome
from local.gateway.pools import Pool
from local.gateway.stack import WebSocketSpec
from local.gateway.websocket_api import WebSocketApi

SCOPE = {
    "type": "websocket",
    "path": "/realtime",
    "headers": [],
    "client": ("127.0.0.1", 1),
    "query_string": b"",
    "subprotocols": [],
}
SPEC = WebSocketSpec("Api", "realtime", ("type",), {"$default": "F"}, frozenset())


class AnsweringPool:
    """A function that answers each event with an empty result."""

    async def invoke(self, event: bytes, **limits: Any) -> Outcome:
        return Outcome(Kind.ANSWERED, b'{"statusCode": 200}')


async def serve(**limits: float) -> tuple[list[Mapping[str, Any]], Connections]:
    """What a silent client gets sent until the server lets it go."""
    connections = Connections()
    pools = {"F": cast(Pool, AnsweringPool())}
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: list[Mapping[str, Any]] = []
    inbox.put_nowait({"type": "websocket.connect"})

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "websocket.close":
            inbox.put_nowait({"type": "websocket.disconnect", "code": message["code"]})

    api = WebSocketApi(SPEC, pools, connections, **limits)
    await asyncio.wait_for(api(dict(SCOPE), inbox.get, send), 10)
    return sent, connections


@pytest.mark.parametrize("limits", [{"idle_seconds": 0.05}, {"connection_seconds": 0.05}])
def test_a_connection_that_is_idle_or_too_old_is_closed(limits: dict[str, float]) -> None:
    sent, connections = asyncio.run(serve(**limits))

    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert sent[-1]["code"] == 1001
    assert len(connections) == 0


def test_what_waits_for_a_client_is_bounded_in_bytes() -> None:
    async def story() -> None:
        connection = Connection(source_ip="", user_agent="")
        for _ in range(OUTBOX_BYTES_MAX // 1024):
            connection.post(b"x" * 1024)
        with pytest.raises(OutboxFullError):
            connection.post(b"x")
        data = await connection.next_message()
        assert data is not None
        connection.sent(data)
        connection.post(b"x" * 1024)

    asyncio.run(story())


def test_ids_are_unlike_and_safe_in_a_path() -> None:
    async def ids() -> list[str]:
        return [Connection(source_ip="", user_agent="").id for _ in range(100)]

    found = asyncio.run(ids())

    assert len(set(found)) == 100
    assert not any(set(name) & set("/+ ") for name in found)
