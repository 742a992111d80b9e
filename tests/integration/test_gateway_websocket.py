"""WebSocket connections through the gateway to real workers and back."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.kit.gateway import Reports, RunningGateway, running_gateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningGateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def reports(gateway: RunningGateway) -> Generator[Reports]:
    opened = Reports(gateway)
    yield opened
    opened.close()


@contextmanager
def connected(url: str, **options: Any) -> Generator[ClientConnection]:
    with connect(url, open_timeout=20, **options) as socket:
        yield socket


def say(socket: ClientConnection, **what: Any) -> Any:
    socket.send(json.dumps(what))
    return json.loads(socket.recv(timeout=20))


def test_a_message_reaches_the_route_it_names_and_the_function_can_answer(gateway: RunningGateway) -> None:
    with connected(gateway.websocket_url) as socket:
        answer = say(socket, type="push", text="grüße")

    told = answer["event"]["requestContext"]
    assert answer["route"] == told["routeKey"] == "push"
    assert told["eventType"] == "MESSAGE"
    assert told["stage"] == "realtime"
    assert told["identity"]["sourceIp"] == "127.0.0.1"
    assert told["messageId"] == told["requestId"]
    assert f"http://{told['domainName']}" == gateway.url
    assert json.loads(answer["event"]["body"]) == {"type": "push", "text": "grüße"}


@pytest.mark.parametrize(
    "text", ['{"type": "unheard-of"}', '{"type": 7}', "{}", "[]", "no json", '{"type": "$connect"}']
)
def test_a_message_that_names_no_route_goes_to_default(gateway: RunningGateway, text: str) -> None:
    with connected(gateway.websocket_url) as socket:
        socket.send(text)
        answer = json.loads(socket.recv(timeout=20))

    assert answer["route"] == "$default"
    assert answer["event"]["body"] == text


def test_a_return_value_is_sent_only_where_the_route_has_a_response(gateway: RunningGateway) -> None:
    with connected(gateway.websocket_url) as socket:
        socket.send('{"type": "ask"}')
        assert socket.recv(timeout=20) == "answer of ask"
        # the push route returns a body too, and only its push arrives before the next answer
        assert say(socket, type="push")["route"] == "push"
        socket.send('{"type": "ask"}')
        assert socket.recv(timeout=20) == "answer of ask"


def test_a_function_that_fails_is_told_to_the_client_and_the_connection_stays(gateway: RunningGateway) -> None:
    with connected(gateway.websocket_url) as socket:
        answer = say(socket, type="fail")
        following = say(socket, type="push")

    assert answer["message"] == "Internal server error"
    assert answer["connectionId"] == following["event"]["requestContext"]["connectionId"]


@pytest.mark.parametrize(("query", "status"), [("refuse=401", 401), ("refuse=403", 403), ("crash=1", 502)])
def test_a_refused_connect_is_that_http_status(gateway: RunningGateway, query: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused, connected(f"{gateway.websocket_url}?{query}"):
        pass

    assert refused.value.response.status_code == status


def test_another_path_is_no_websocket(gateway: RunningGateway) -> None:
    with pytest.raises(InvalidStatus) as refused, connected(gateway.websocket_url + "/more"):
        pass

    assert refused.value.response.status_code == 403


def test_the_alias_is_the_same_api_and_takes_its_subprotocol(gateway: RunningGateway) -> None:
    url = gateway.url.replace("http://", "ws://") + "/ws/orders/events"

    with connected(url, subprotocols=["order-updates"]) as socket:
        assert socket.subprotocol == "order-updates"
        assert say(socket, type="push")["route"] == "push"
    with connected(url) as socket:
        assert socket.subprotocol is None


def test_disconnect_is_told_with_its_code(gateway: RunningGateway, reports: Reports) -> None:
    with connected(gateway.websocket_url) as socket:
        told = say(socket, type="push")["event"]["requestContext"]
        socket.close(code=4321, reason="enough")

    expected = {"disconnected": told["connectionId"], "code": 4321, "event_type": "DISCONNECT"}
    reports.until(lambda seen: expected in seen)


def test_a_connection_is_gone_for_posts_once_it_is_closed(gateway: RunningGateway, reports: Reports) -> None:
    # given a connection that was open
    api = gateway.client("apigatewaymanagementapi", f"{gateway.url}/realtime")
    with connected(gateway.websocket_url) as socket:
        identity = say(socket, type="push")["event"]["requestContext"]["connectionId"]
        api.post_to_connection(ConnectionId=identity, Data=b"while open")
        assert socket.recv(timeout=20) == "while open"
    reports.until(lambda seen: any(report.get("disconnected") == identity for report in seen))

    # when a post follows, then it is told so
    with pytest.raises(api.exceptions.GoneException):
        api.post_to_connection(ConnectionId=identity, Data=b"too late")
    api.close()


@pytest.mark.parametrize("size", [32 * 1024 + 1, 128 * 1024 + 1])
def test_a_frame_above_32_kb_closes_the_connection(gateway: RunningGateway, size: int) -> None:
    with connected(gateway.websocket_url) as socket:
        socket.send("x" * size)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=20)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def send_and_receive(socket: ClientConnection, frames: list[str]) -> str | bytes:
    """What answers a message in frames; the gateway may close already while they are sent."""
    socket.send(frames)
    return socket.recv(timeout=20)


def test_a_message_in_frames_may_be_128_kb_and_no_more(gateway: RunningGateway) -> None:
    fits = ["x" * 32 * 1024] * 4
    with connected(gateway.websocket_url) as socket:
        # it arrives whole, too large though to be pushed back with its envelope
        assert json.loads(send_and_receive(socket, fits))["message"] == "Internal server error"
        with pytest.raises(ConnectionClosed) as closed:
            send_and_receive(socket, [*fits, "x"])

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_messages_of_one_connection_are_handled_in_order(gateway: RunningGateway) -> None:
    with connected(gateway.websocket_url) as socket:
        for number in range(10):
            socket.send(json.dumps({"type": "push", "number": number}))
        answers = [json.loads(json.loads(socket.recv(timeout=20))["event"]["body"])["number"] for _ in range(10)]

    assert answers == list(range(10))
