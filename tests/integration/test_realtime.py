"""The WebSocket's routes as API Gateway calls them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.kit.builders import User, make_user
from tests.kit.functions import Context, function_environment, load_function, make_token
from tests.kit.realtime import ConnectionsApi, RelayWorld, in_seconds, soon
from tests.kit.servers import ScratchDatabase
from trading import queue, sockets
from trading.messages import MESSAGE_BYTES_MAX, SYMBOLS_MAX
from trading.subscriptions import CONNECTIONS_PER_USER_MAX

type Message = dict[str, Any]


class Socket:
    """One client: events as API Gateway makes them, and what was posted back."""

    def __init__(self, world: "Realtime", connection_id: str) -> None:
        self.world = world
        self.id = connection_id
        self._read = 0

    def open(self, *, token: str | None = None, protocols: str | None = None) -> dict[str, Any]:
        event = self._event("$connect")
        event["headers"] = {"Host": "example.com"} | ({"Sec-WebSocket-Protocol": protocols} if protocols else {})
        if token is not None:
            event["queryStringParameters"] = {"token": token}
        return self.world.invoke(event)

    def send(self, message: object) -> list[Message]:
        """What comes back to `message`, which is text or something to be made JSON."""
        text = message if isinstance(message, str) else json.dumps(message)
        route = message.get("type", "$default") if isinstance(message, dict) else "$default"
        self.world.invoke(self._event(str(route)) | {"body": text})
        return self.heard()

    def heard(self) -> list[Message]:
        """What was posted since the last look."""
        posted = self.world.api.posted[self.id]
        new = posted[self._read :]
        self._read = len(posted)
        return new

    def close(self) -> None:
        self.world.invoke(self._event("$disconnect"))

    def _event(self, route: str) -> dict[str, Any]:
        return {
            "requestContext": {
                "routeKey": route,
                "connectionId": self.id,
                "requestId": "r",
                "identity": {"sourceIp": "203.0.113.7"},
            },
            "isBase64Encoded": False,
        }


class Realtime(RelayWorld):
    """The realtime function and its queues."""

    handler: Callable[[dict[str, Any], Any], dict[str, Any]]
    sqs: Any
    relay_queue: str
    task_queue: str

    def invoke(self, event: dict[str, Any]) -> dict[str, Any]:
        return self.handler(event, Context())

    def socket(self, connection_id: str = "c") -> Socket:
        return Socket(self, connection_id)

    def tasks(self) -> list[dict[str, Any]]:
        """Messages for the realtime function that are due now, taken from their queue."""
        return self._received(self.task_queue)

    def hints(self) -> list[dict[str, Any]]:
        """Messages for the relay, taken from their queue."""
        return self._received(self.relay_queue)

    def delayed(self) -> int:
        """Tasks that are not due yet."""
        name = "ApproximateNumberOfMessagesDelayed"
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.task_queue, AttributeNames=[name])
        return int(attributes["Attributes"][name])

    def do(self, **task: object) -> dict[str, Any]:
        """Hand the function a task as its queue does."""
        return self.invoke(
            {
                "Records": [
                    {
                        "messageId": "m0",
                        "receiptHandle": "r",
                        "body": json.dumps(task),
                        "attributes": {},
                        "messageAttributes": {},
                        "md5OfBody": "",
                        "eventSource": "aws:sqs",
                        "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:AuthenticationTimeoutQueue",
                        "awsRegion": "eu-west-1",
                    }
                ]
            }
        )

    def _received(self, url: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while messages := self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                found.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def world(
    database: ScratchDatabase, redis_url: str, aws: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Realtime]:
    api = ConnectionsApi()
    api.start()
    world = Realtime(database, redis_url, api)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", aws)
    world.sqs = boto3.client("sqs")
    world.relay_queue = world.sqs.create_queue(QueueName=f"relay-{database.name}")["QueueUrl"]
    world.task_queue = world.sqs.create_queue(QueueName=f"tasks-{database.name}")["QueueUrl"]
    with function_environment(
        monkeypatch,
        tmp_path,
        database=database,
        redis_url=redis_url,
        role="function_relay",
        CONNECTIONS_ENDPOINT=api.endpoint,
        RELAY_QUEUE_URL=world.relay_queue,
        AUTHENTICATION_TIMEOUT_QUEUE_URL=world.task_queue,
    ):
        sockets.sockets.cache_clear()
        queue._client.cache_clear()
        world.handler = load_function("realtime")
        yield world
        sockets.sockets.cache_clear()
        queue._client.cache_clear()
    world.close()
    api.stop()


@pytest.fixture
def trader(world: Realtime) -> User:
    return make_user(world.database, balance=0)


def authenticated(world: Realtime, user: User, connection_id: str = "c") -> Socket:
    """A connection of `user` that has heard that it is in."""
    socket = world.socket(connection_id)
    socket.open()
    socket.send({"type": "auth", "token": make_token(user)})
    return socket


def test_connecting_is_accepted_and_given_ten_seconds(world: Realtime) -> None:
    # when
    answer = world.socket().open()

    # then
    assert answer == {"statusCode": 200}
    assert world.value("SELECT host(source_ip) FROM connections") == "203.0.113.7"
    assert (world.tasks(), world.delayed()) == ([], 1)


def test_a_token_as_the_first_message(world: Realtime, trader: User) -> None:
    # given
    sequence = world.happen(trader)
    socket = world.socket()
    socket.open()

    # when
    (answer,) = socket.send({"type": "auth", "token": make_token(trader)})

    # then
    assert answer == {
        "type": "connection_acknowledged",
        "connection_id": "c",
        "user_id": str(trader.user_id),
        "accounts": [{"account_id": str(trader.account_id), "sequence": sequence}],
    }


def test_a_token_while_connecting_is_acknowledged_by_a_task(world: Realtime, trader: User) -> None:
    # given
    socket = world.socket()

    # when
    answer = socket.open(token=make_token(trader))
    before = socket.heard()
    (task,) = world.tasks()
    world.do(**task)
    world.do(**task)

    # then nothing was written before the handshake was over, and a task that comes twice has its effect once
    assert answer == {"statusCode": 200}
    assert before == []
    assert [message["type"] for message in socket.heard()] == ["connection_acknowledged"]


def test_a_handshake_that_takes_long_is_waited_for(world: Realtime, trader: User) -> None:
    # given a connection that looks gone until its handshake is over
    socket = world.socket()
    socket.open(token=make_token(trader))
    world.api.gone("c")
    (task,) = world.tasks()

    # when
    world.do(**task)
    again = world.delayed()
    del world.api.answers["c"]
    world.do(**(task | {"attempt": 2}))

    # then
    assert again == 1
    assert [message["type"] for message in socket.heard()] == ["connection_acknowledged"]


def test_a_client_that_does_not_wait_is_acknowledged_first(world: Realtime, trader: User) -> None:
    # given
    socket = world.socket()
    socket.open(token=make_token(trader))

    # when
    answers = socket.send({"type": "subscribe", "channels": ["orders"]})
    (task,) = world.tasks()
    world.do(**task)

    # then
    assert [answer["type"] for answer in answers] == ["connection_acknowledged", "subscribed"]
    assert socket.heard() == []


@pytest.mark.parametrize(
    "token", [None, "nonsense", "expired", "nobody"], ids=["of nothing", "nonsense", "expired", "of a stranger"]
)
def test_a_wrong_token_while_connecting_refuses_the_handshake(world: Realtime, trader: User, token: str | None) -> None:
    # given
    from uuid import uuid4

    tokens = {"expired": make_token(trader, exp=1), "nobody": make_token(uuid4()), None: ""}

    # when
    answer = world.socket().open(token=tokens.get(token, token or ""))

    # then
    assert answer == {"statusCode": 401}
    assert world.value("SELECT count(*) FROM connections") == 0


def test_a_wrong_token_as_a_message_is_an_error_and_another_try(world: Realtime, trader: User) -> None:
    # given
    socket = world.socket()
    socket.open()

    # when
    (refused,) = socket.send({"type": "auth", "token": make_token(trader, aud="somebody else")})
    (accepted,) = socket.send({"type": "auth", "token": make_token(trader)})

    # then
    assert (refused["type"], refused["code"]) == ("error", "UNAUTHENTICATED")
    assert accepted["type"] == "connection_acknowledged"


def test_tokens_are_never_logged(world: Realtime, trader: User, capsys: pytest.CaptureFixture[str]) -> None:
    # given
    good, bad = make_token(trader), make_token(trader, exp=1)

    # when
    world.socket("a").open(token=good)
    world.socket("b").open(token=bad)
    socket = world.socket("d")
    socket.open()
    socket.send({"type": "auth", "token": bad})
    socket.send({"type": "auth", "token": good, "padding": "x" * MESSAGE_BYTES_MAX})

    # then
    output = capsys.readouterr()
    for token in (good, bad):
        assert token.rpartition(".")[2] not in output.out + output.err
    assert token.rpartition(".")[2] not in json.dumps(socket.heard())


def test_a_newer_token_of_the_same_user_extends_the_connection(world: Realtime, trader: User) -> None:
    # given
    socket = authenticated(world, trader)
    before = world.value("SELECT token_expires_at FROM connections")

    # when
    (own,) = socket.send({"type": "auth", "token": make_token(trader, exp=4_000_000_000)})
    (foreign,) = socket.send({"type": "auth", "token": make_token(make_user(world.database))})

    # then
    assert own["type"] == "connection_acknowledged"
    assert foreign["code"] == "FORBIDDEN"
    assert world.value("SELECT token_expires_at FROM connections") > before
    assert world.value("SELECT user_id FROM connections") == trader.user_id


@pytest.mark.parametrize("message", [{"type": "subscribe", "channels": ["orders"]}, {"type": "unsubscribe"}])
def test_nothing_is_subscribed_before_the_token(world: Realtime, message: Message) -> None:
    # given
    socket = world.socket()
    socket.open()

    # when
    (answer,) = socket.send(message)

    # then
    assert (answer["type"], answer["code"]) == ("error", "UNAUTHENTICATED")
    assert "auth" in answer["message"]


def test_a_subscription_is_answered_before_its_first_event(world: Realtime, trader: User) -> None:
    # given
    socket = authenticated(world, trader)
    for _ in range(3):
        world.happen(trader)

    # when
    (answer,) = socket.send(
        {"type": "subscribe", "channels": ["positions", "orders", "market_data"], "symbols": ["EURUSD"], "since": 1}
    )
    hints = world.hints()
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    assert answer == {
        "type": "subscribed",
        "channels": ["market_data", "orders", "positions"],
        "symbols": ["EURUSD"],
        "sequence": 1,
        "accounts": [{"account_id": str(trader.account_id), "sequence": 1}],
    }
    assert hints == [{"account_id": str(trader.account_id)}]
    events = socket.heard()
    assert [event["sequence"] for event in events] == [2] * 4 + [3] * 4
    assert {event.get("type", event.get("event")) for event in events} == {
        "order_update",
        "order.filled",
        "position_update",
    }


def test_a_subscription_from_now_on_wakes_nobody(world: Realtime, trader: User) -> None:
    # given
    world.happen(trader)
    socket = authenticated(world, trader)

    # when
    (answer,) = socket.send({"type": "subscribe", "channels": ["orders"]})

    # then
    assert answer["sequence"] == 1
    assert world.hints() == []


def test_nobody_hears_of_another_users_account(world: Realtime, trader: User) -> None:
    # given
    other = make_user(world.database)
    socket = authenticated(world, trader)

    # when
    (refused,) = socket.send({"type": "subscribe", "channels": ["orders"], "account_id": str(other.account_id)})
    socket.send({"type": "subscribe", "channels": ["orders"], "since": 0})
    world.happen(other)
    world.relay().sweep(until=in_seconds(5))

    # then
    assert refused["code"] == "NOT_FOUND"
    assert socket.heard() == []


def test_several_accounts_need_a_name_for_since(world: Realtime, trader: User) -> None:
    # given
    with world.database.connect() as connection:
        connection.execute("INSERT INTO accounts (user_id, currency) VALUES (%s, 'EUR')", (trader.user_id,))
    socket = authenticated(world, trader)

    # when
    (refused,) = socket.send({"type": "subscribe", "channels": ["orders"], "since": 0})
    (both,) = socket.send({"type": "subscribe", "channels": ["orders"]})
    (one,) = socket.send(
        {"type": "subscribe", "channels": ["orders"], "since": 0, "account_id": str(trader.account_id)}
    )

    # then
    assert (refused["code"], refused["details"]["field"]) == ("VALIDATION_FAILED", "account_id")
    assert (len(both["accounts"]), both["sequence"]) == (2, None)
    assert [account["account_id"] for account in one["accounts"]] == [str(trader.account_id)]


def test_symbols_are_known_and_bounded(world: Realtime, trader: User) -> None:
    # given
    socket = authenticated(world, trader)
    with world.database.connect() as connection:
        names = [row[0] for row in connection.execute("SELECT symbol FROM instruments ORDER BY symbol LIMIT 5")]
        connection.execute(
            "UPDATE connections SET symbols = ARRAY(SELECT 'X' || n FROM generate_series(1, %s) n)", (SYMBOLS_MAX - 2,)
        )

    # when
    (unknown,) = socket.send({"type": "subscribe", "channels": ["market_data"], "symbols": ["EURUSD", "NOPE"]})
    (too_many,) = socket.send({"type": "subscribe", "channels": ["market_data"], "symbols": names})

    # then
    assert (unknown["code"], unknown["details"]["value"]) == ("UNKNOWN_SYMBOL", "NOPE")
    assert (too_many["code"], too_many["details"]["field"]) == ("VALIDATION_FAILED", "symbols")
    assert world.value("SELECT channels FROM connections") == []


def test_unsubscribing_ends_the_frames(world: Realtime, trader: User) -> None:
    # given
    socket = authenticated(world, trader)
    socket.send({"type": "subscribe", "channels": ["orders", "account", "market_data"], "symbols": ["EURUSD"]})

    # when
    (some,) = socket.send({"type": "unsubscribe", "channels": ["orders"]})
    world.happen(trader)
    world.relay().deliver([trader.account_id], until=in_seconds(5))
    frames = socket.heard()
    (symbols,) = socket.send({"type": "unsubscribe", "symbols": ["EURUSD"]})
    (all_,) = socket.send({"type": "unsubscribe"})
    world.happen(trader)
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    assert some["channels"] == ["account", "market_data"]
    assert [frame["type"] for frame in frames] == ["account_update"]
    assert (symbols["channels"], symbols["symbols"]) == (["account"], [])
    assert all_ == {"type": "unsubscribed", "channels": [], "symbols": []}
    assert socket.heard() == []


def test_who_wants_prices_is_listed_for_the_feed(world: Realtime, trader: User) -> None:
    # given
    authenticated(world, trader, "some").send({"type": "subscribe", "channels": ["market_data"], "symbols": ["EURUSD"]})
    authenticated(world, trader, "all").send({"type": "subscribe", "channels": ["market_data"]})
    authenticated(world, trader, "none").send({"type": "subscribe", "channels": ["orders"]})

    # when
    with world.database.connect("function_prices") as connection:
        row = connection.execute("""SELECT list_market_data_connections('{"version": 1, "limit": 10}')""").fetchone()

    # then
    assert row == ([{"connection_id": "all", "symbols": []}, {"connection_id": "some", "symbols": ["EURUSD"]}],)


def test_ping_is_answered_at_any_time(world: Realtime, trader: User) -> None:
    # given
    socket = world.socket()
    socket.open()

    # when / then
    assert socket.send({"type": "ping"}) == [{"type": "pong"}]
    socket.send({"type": "auth", "token": make_token(trader)})
    assert socket.send({"type": "ping"}) == [{"type": "pong"}]


@pytest.mark.parametrize(
    "message",
    ["", "not json", "[1]", {"type": "dance"}, {"no": "type"}, {"type": 7}, {"type": ["auth"]}, "x" * 40_000],
    ids=["empty", "no json", "list", "unknown", "no type", "number", "list as type", "huge"],
)
def test_a_message_that_is_none_is_told_what_to_send(world: Realtime, message: Message | str) -> None:
    # given
    socket = world.socket()
    socket.open()

    # when
    (answer,) = socket.send(message)

    # then
    assert answer["type"] == "error"
    assert answer["code"] in {"VALIDATION_FAILED", "PAYLOAD_TOO_LARGE"}
    assert '{"type":"auth","token":"..."}' in answer["message"]


def test_silence_is_ended_after_ten_seconds(world: Realtime, trader: User) -> None:
    # given
    silent, speaking = world.socket("silent"), authenticated(world, trader, "speaking")
    silent.open()
    speaking.heard()

    # when their tasks come, the first twice
    for connection_id in ("silent", "silent", "speaking"):
        world.do(connection_id=connection_id, task="time_out", attempt=1)

    # then
    assert world.api.cut == ["silent", "silent"]
    assert [message["type"] for message in silent.heard()] == ["closing"]
    assert speaking.heard() == []
    assert world.value("SELECT array_agg(connection_id) FROM connections") == ["speaking"]


def test_an_unknown_task_fails_alone(world: Realtime) -> None:
    assert world.do(connection_id="c", task="dance") == {"batchItemFailures": [{"itemIdentifier": "m0"}]}


@pytest.mark.parametrize("message", [{"type": "ping"}, {"type": "subscribe", "channels": ["orders"]}])
def test_an_expired_token_ends_the_connection_with_a_reason(world: Realtime, trader: User, message: Message) -> None:
    # given
    socket = authenticated(world, trader)
    socket.heard()
    with world.database.connect() as connection:
        connection.execute("UPDATE connections SET token_expires_at = clock_timestamp()")

    # when
    (closing,) = socket.send(message)

    # then
    assert (closing["type"], closing["code"]) == ("closing", 4403)
    assert world.api.cut == ["c"]
    assert world.value("SELECT count(*) FROM connections") == 0


def test_a_connection_that_is_not_known_any_more_is_told_to_come_again(world: Realtime, trader: User) -> None:
    # given
    socket = authenticated(world, trader)
    socket.heard()
    world.connections.drop(["c"])

    # when
    (closing,) = socket.send({"type": "ping"})

    # then
    assert (closing["type"], closing["code"]) == ("closing", 4404)
    assert world.api.cut == ["c"]


def test_an_answer_that_finds_nobody_forgets_the_connection(world: Realtime, trader: User) -> None:
    # given
    socket = authenticated(world, trader)
    world.api.gone("c")

    # when
    socket.send({"type": "ping"})

    # then
    assert world.value("SELECT count(*) FROM connections") == 0


def test_leaving_forgets_the_connection_and_its_cursors(world: Realtime, trader: User) -> None:
    # given
    socket = authenticated(world, trader)
    socket.send({"type": "subscribe", "channels": ["orders"]})

    # when
    socket.close()
    socket.close()

    # then
    assert world.value("SELECT count(*) FROM connections") == 0
    assert world.value("SELECT count(*) FROM connection_streams") == 0


def test_a_user_has_a_limited_number_of_connections(world: Realtime, trader: User) -> None:
    # given
    with world.database.connect() as connection:
        connection.execute(
            "INSERT INTO connections (connection_id, user_id, authenticated_at, token_expires_at) "
            "SELECT 'x' || n, %s, clock_timestamp(), clock_timestamp() + interval '1 hour' "
            "FROM generate_series(1, %s) n",
            (trader.user_id, CONNECTIONS_PER_USER_MAX),
        )

    # when
    refused = world.socket("early").open(token=make_token(trader))
    socket = world.socket("late")
    socket.open()
    (answer,) = socket.send({"type": "auth", "token": make_token(trader)})

    # then
    assert refused == {"statusCode": 429}
    assert answer["code"] == "RATE_LIMIT_EXCEEDED"


def test_the_order_updates_protocol_needs_no_subscription(world: Realtime, trader: User) -> None:
    # given
    socket = world.socket()

    # when
    answer = socket.open(token=make_token(trader), protocols="graphql-ws, order-updates")
    (task,) = world.tasks()
    world.do(**task)
    world.happen(trader)
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    assert answer == {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "order-updates"}}
    heard = socket.heard()
    assert [message.get("type") or message["event"] for message in heard] == [
        "connection_acknowledged",
        "order_update",
        "order_update",
        "order.filled",
    ]


def test_a_lost_database_is_said_and_refuses_new_connections(world: Realtime, trader: User) -> None:
    # given
    socket = authenticated(world, trader)
    socket.heard()
    world.database.drop()

    # when
    (answer,) = socket.send({"type": "ping"})

    # then
    assert answer["code"] == "DATABASE_UNAVAILABLE"
    assert world.socket("new").open() == {"statusCode": 503}


def test_a_hint_that_cannot_be_sent_is_only_logged(
    world: Realtime, trader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:9")
    queue._client.cache_clear()
    socket = authenticated(world, trader)
    world.happen(trader)
    socket.heard()

    # when
    (answer,) = socket.send({"type": "subscribe", "channels": ["orders"], "since": 0})

    # then the sweep finds what the hint would have said
    assert answer["type"] == "subscribed"
    relay = world.relay()
    soon(lambda: relay.sweep(until=in_seconds(5)) == 0)
    assert [message["sequence"] for message in socket.heard()] == [1, 1, 1]


def test_orders_tell_the_relay_unless_they_saw_it_awake_just_now(world: Realtime, trader: User) -> None:
    import time

    # given
    now = time.perf_counter()

    # when it was awake a moment ago, asleep, and awake too long ago
    queue.notify_relay_unless_awake(trader.account_id, relay_awake=True, started_at=now)
    seen_awake = world.hints()
    queue.notify_relay_unless_awake(trader.account_id, relay_awake=False, started_at=now)
    asleep = world.hints()
    queue.notify_relay_unless_awake(
        trader.account_id, relay_awake=True, started_at=now - queue.RELAY_TRUST_SECONDS - 0.1
    )
    long_ago = world.hints()

    # then
    told = [{"account_id": str(trader.account_id)}]
    assert (seen_awake, asleep, long_ago) == ([], told, told)
