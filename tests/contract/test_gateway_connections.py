"""The @connections API as boto3's client knows it, with each of its errors."""

import json
import socket as sockets
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.kit.gateway import RunningGateway, running_gateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningGateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def api(gateway: RunningGateway) -> Generator[Any]:
    client = gateway.client("apigatewaymanagementapi", f"{gateway.aws['AWS_ENDPOINT_URL']}/realtime")
    yield client
    client.close()


@pytest.fixture
def socket(gateway: RunningGateway) -> Generator[ClientConnection]:
    with connect(gateway.websocket_url, open_timeout=20) as opened:
        yield opened


def identity(socket: ClientConnection) -> str:
    socket.send('{"type": "push"}')
    return json.loads(socket.recv(timeout=20))["event"]["requestContext"]["connectionId"]


def flood(api: Any, name: str) -> None:
    """Write far more than the buffers between hold."""
    for _ in range(1000):
        api.post_to_connection(ConnectionId=name, Data=b"x" * 128 * 1024)


def test_a_post_arrives_as_it_is(api: Any, socket: ClientConnection) -> None:
    name = identity(socket)
    longest = "x" * 128 * 1024

    answer = api.post_to_connection(ConnectionId=name, Data="grüße".encode())
    api.post_to_connection(ConnectionId=name, Data=longest.encode())

    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert socket.recv(timeout=20) == "grüße"
    assert socket.recv(timeout=20) == longest


def test_a_connection_is_described(api: Any, socket: ClientConnection) -> None:
    told = api.get_connection(ConnectionId=identity(socket))

    assert told["Identity"]["SourceIp"] == "127.0.0.1"
    assert "websockets" in told["Identity"]["UserAgent"]
    assert datetime.now(UTC) - told["ConnectedAt"] < timedelta(minutes=1)
    assert told["ConnectedAt"] <= told["LastActiveAt"]


def test_a_deleted_connection_is_closed_and_gone(api: Any, socket: ClientConnection) -> None:
    name = identity(socket)
    api.post_to_connection(ConnectionId=name, Data=b"the last word")

    answer = api.delete_connection(ConnectionId=name)

    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert socket.recv(timeout=20) == "the last word"
    with pytest.raises(ConnectionClosed):
        socket.recv(timeout=20)
    with pytest.raises(api.exceptions.GoneException):
        api.post_to_connection(ConnectionId=name, Data=b"more")


@pytest.mark.parametrize("call", ["post_to_connection", "get_connection", "delete_connection"])
def test_a_connection_that_never_was_is_gone(api: Any, call: str) -> None:
    data = {"Data": b"x"} if call == "post_to_connection" else {}

    with pytest.raises(api.exceptions.GoneException) as gone:
        getattr(api, call)(ConnectionId="L0SM9cOFvHcCIhw=", **data)

    assert gone.value.response["ResponseMetadata"]["HTTPStatusCode"] == 410


def test_more_than_128_kb_is_too_large(api: Any, socket: ClientConnection) -> None:
    with pytest.raises(api.exceptions.PayloadTooLargeException) as refused:
        api.post_to_connection(ConnectionId=identity(socket), Data=b"x" * (128 * 1024 + 1))

    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_a_client_that_does_not_read_is_refused_and_can_still_be_dropped(api: Any, gateway: RunningGateway) -> None:
    # given a client that stops reading
    raw = sockets.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])))
    with connect(gateway.websocket_url, sock=raw, open_timeout=20, max_queue=1) as socket:
        name = identity(socket)

        # when it is written to without end
        with pytest.raises(api.exceptions.LimitExceededException) as refused:
            flood(api, name)

        # then the writer is told, and the connection is gone as soon as it is dropped
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        api.delete_connection(ConnectionId=name)
        with pytest.raises(api.exceptions.GoneException):
            api.get_connection(ConnectionId=name)
        raw.shutdown(sockets.SHUT_RDWR)
