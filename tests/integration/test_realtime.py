"""The WebSocket's routes as API Gateway calls them."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer
from psycopg.types.json import Jsonb

from tests.kit.builders import User, make_user, set_quote
from tests.kit.functions import (
    SOURCE_IP,
    Answer,
    Context,
    bearer,
    call,
    function_environment,
    http_event,
    load_function,
    make_token,
)
from tests.kit.realtime import ConnectionsApi, RelayWorld, filled_order, in_seconds, soon
from tests.kit.servers import ScratchDatabase
from trading import queue, settings, sockets
from trading.edge.gate import admit_address
from trading.edge.http import Response, http_handler
from trading.edge.socket_gate import CONNECTION_MESSAGES_PER_MINUTE
from trading.guarding.counted_events import take_events
from trading.guarding.guard_copy import GuardCopy
from trading.messages import MESSAGE_BYTES_MAX, SYMBOLS_MAX
from trading.store.connections import ConnectionStore
from trading.store.security import read_guard
from trading.subscriptions import CONNECTIONS_PER_USER_MAX

type Message = dict[str, Any]


class Socket:
    """One client: events as API Gateway makes them, and what was posted back."""

    def __init__(self, world: "Realtime", connection_id: str) -> None:
        self.world = world
        self.id = connection_id
        self._read = 0

    def open(
        self, *, token: str | None = None, protocols: str | None = None, source_ip: str = SOURCE_IP
    ) -> dict[str, Any]:
        event = self._event("$connect", source_ip)
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

    def _event(self, route: str, source_ip: str = SOURCE_IP) -> dict[str, Any]:
        return {
            "requestContext": {
                "routeKey": route,
                "connectionId": self.id,
                "requestId": "r",
                "identity": {"sourceIp": source_ip},
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

    def causes(self) -> list[str | None]:
        """The request ids that messages for the relay carry, which are taken from their queue."""
        attributes = [message.get("MessageAttributes", {}) for message in self._taken(self.relay_queue)]
        return [one["request_id"]["StringValue"] if "request_id" in one else None for one in attributes]

    def _received(self, url: str) -> list[dict[str, Any]]:
        return [json.loads(message["Body"]) for message in self._taken(url)]

    def _taken(self, url: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        wanted = {"QueueUrl": url, "MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"]}
        while messages := self.sqs.receive_message(**wanted).get("Messages"):
            for message in messages:
                found.append(message)
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
    assert [event["sequence"] for event in events] == [2] * 5 + [3] * 5
    assert {event.get("type", event.get("event")) for event in events} == {
        "order_update",
        "order.filled",
        "position_update",
        "account_update",
    }


def test_the_usual_channels_bring_all_that_an_execution_changes_and_every_alert(world: Realtime, trader: User) -> None:
    # given
    socket = authenticated(world, trader)
    socket.send({"type": "subscribe", "channels": ["positions", "orders", "market_data"]})

    # when an order is executed, and a margin call begins
    world.happen(trader)
    account = filled_order()["account"]
    alert = {"type": "margin_call", "state": "entered", "margin_level": "49.99", "threshold": "50"}
    world.happen(trader, account=account, risk=alert)
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    assert [message.get("type") or message["event"] for message in socket.heard()] == [
        "order_update",
        "order_update",
        "order.filled",
        "position_update",
        "account_update",
        "account_update",
        "risk_alert",
    ]


def test_a_sequence_that_the_account_has_not_reached_is_refused(world: Realtime, trader: User) -> None:
    # given an account whose last sequence is 1, as after a restore
    world.happen(trader)
    socket = authenticated(world, trader)
    socket.heard()

    # when
    (ahead,) = socket.send({"type": "subscribe", "channels": ["orders"], "since": 2})
    nothing_changed = world.value("SELECT channels FROM connections"), world.sent("c")
    (level,) = socket.send({"type": "subscribe", "channels": ["orders"], "since": 1})

    # then
    assert (ahead["type"], ahead["code"]) == ("error", "VALIDATION_FAILED")
    assert ahead["details"] == {"field": "since", "value": "2", "constraint": "at most 1"}
    assert "anew" in ahead["message"]
    assert nothing_changed == ([], None)
    assert (level["type"], level["sequence"]) == ("subscribed", 1)


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


def test_who_comes_while_prices_are_stale_is_told(world: Realtime, trader: User) -> None:
    # given an outage that somebody has noticed
    set_quote(world.database, "BTCUSD", "1", "2", datetime.now(UTC) - timedelta(minutes=1))
    with world.database.connect() as connection:
        connection.execute("UPDATE instruments SET is_active = symbol = 'BTCUSD'")
    assert world.do(task="watch_prices") == {"batchItemFailures": []}
    socket = authenticated(world, trader)

    # when a connection subscribes to prices
    socket.send({"type": "subscribe", "channels": ["orders", "market_data"]})
    (task,) = world.tasks()[-1:]
    world.do(**task)

    # then
    assert task == {"task": "watch_prices"}
    (told,) = socket.heard()
    assert told["type"] == "prices_stale"
    assert told["data"] == {"state": "entered", "symbols": ["BTCUSD"], "timestamp": told["data"]["timestamp"]}
    assert datetime.fromisoformat(told["data"]["timestamp"]) > datetime.now(UTC) - timedelta(minutes=1)
    # and with a fresh price, that it is back
    set_quote(world.database, "BTCUSD", "1", "2")
    world.do(**task)
    assert [one["data"]["state"] for one in socket.heard()] == ["left"]
    # and who subscribes when there is nothing to tell starts nothing
    socket.send({"type": "subscribe", "channels": ["market_data"]})
    assert world.tasks() == []


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
    [
        "",
        "not json",
        "[1]",
        {"type": "dance"},
        {"no": "type"},
        {"type": 7},
        {"type": ["auth"]},
        "x" * 40_000,
        {"type": "\ud800"},
        {"type": "subscribe", "channels": ["\ud800"]},
        {"type": "subscribe", "channels": ["orders"], "symbols": ["\ud800"]},
        {"type": "subscribe", "channels": ["orders"], "account_id": "\ud800"},
        '{"type": "ping", "type": "ping"}',
        '{"type": "ping", "at": NaN}',
        '{"type": "ping", "at": ' + "[" * 3000 + "]" * 3000 + "}",
    ],
    ids=[
        "empty",
        "no json",
        "list",
        "unknown",
        "no type",
        "number",
        "list as type",
        "huge",
        "surrogate as type",
        "surrogate as channel",
        "surrogate as symbol",
        "surrogate as account",
        "a name twice",
        "not a number",
        "deep",
    ],
)
def test_a_message_that_is_none_is_told_what_to_send(world: Realtime, trader: User, message: Message | str) -> None:
    # given
    socket = authenticated(world, trader)
    socket.heard()

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
        "account_update",
    ]


def test_nothing_is_lost_between_the_acknowledgement_and_the_first_event(
    world: Realtime, trader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an order that executes just after the client heard that it is in
    socket = world.socket()
    socket.open(token=make_token(trader), protocols="order-updates")
    acknowledge = ConnectionStore.acknowledge

    def acknowledge_then_trade(store: ConnectionStore, connection_id: str) -> None:
        acknowledge(store, connection_id)
        world.happen(trader)

    monkeypatch.setattr(ConnectionStore, "acknowledge", acknowledge_then_trade)

    # when
    (task,) = world.tasks()
    world.do(**task)
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    assert [message.get("type") or message["event"] for message in socket.heard()] == [
        "connection_acknowledged",
        "order_update",
        "order_update",
        "order.filled",
        "account_update",
    ]


@pytest.fixture(params=["redis", "postgresql"])
def counted(request: pytest.FixtureRequest, world: Realtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Limits counted in Redis, and in PostgreSQL while Redis is gone; two requests an address and minute."""
    monkeypatch.setenv("IP_REQUESTS_PER_MINUTE", "2")
    settings.settings.cache_clear()
    if request.param == "postgresql":
        (tmp_path / "secret-redis").write_text("redis://127.0.0.1:9/0")


@pytest.mark.usefixtures("counted")
def test_an_address_connects_within_its_limit(world: Realtime, trader: User) -> None:
    # when, the last one with a token that is not even looked at
    answers = [world.socket(f"c{number}").open() for number in range(3)]
    answers.append(world.socket("t").open(token="nonsense"))
    elsewhere = world.socket("elsewhere").open(source_ip="203.0.113.8")

    # then what is refused is not registered
    assert [answer["statusCode"] for answer in answers] == [200, 200, 429, 429]
    assert elsewhere == {"statusCode": 200}
    assert world.value("SELECT count(*) FROM connections") == 3


@pytest.mark.parametrize("redis_gone", [False, True])
def test_a_blocked_address_neither_connects_nor_goes_on(
    world: Realtime, trader: User, tmp_path: Path, *, redis_gone: bool
) -> None:
    # given a connection whose address is blocked then
    if redis_gone:
        (tmp_path / "secret-redis").write_text("redis://127.0.0.1:9/0")
    socket = authenticated(world, trader)
    with world.database.connect() as owner:
        owner.execute(
            "SELECT start_intervention(%s)",
            (
                Jsonb(
                    {"version": 1, "kind": "ip_block", "target": SOURCE_IP, "seconds": 60, "reason": "x", "actor": "y"}
                ),
            ),
        )
    if not redis_gone:
        GuardCopy(world.cache(), lambda: read_guard(world.relay_database)).renew()
    socket.heard()
    # when it sends, then it is told why and cut, and what it sent is not looked at
    told = socket.send({"type": "subscribe", "channels": ["orders"]})
    assert [(message["type"], message["code"]) for message in told] == [("closing", 4423)]
    assert world.value("SELECT cardinality(channels) FROM connections") == 0
    # and no other is opened from there
    assert world.socket("c2").open(token=make_token(trader))["statusCode"] == 403
    assert world.socket("c3").open(source_ip="203.0.113.8")["statusCode"] == 200


def test_bad_tokens_are_counted_by_address(world: Realtime) -> None:
    # when one is shown while connecting, and one after it
    assert world.socket("c1").open(token="nonsense")["statusCode"] == 401
    socket = world.socket("c2")
    socket.open()
    socket.send({"type": "auth", "token": "nonsense"})
    socket.send({"type": "subscribe", "channels": ["orders"]})
    # then both are counted, and that somebody did not authenticate yet is not
    taken = take_events(world.cache(), uuid4())
    assert taken is not None
    counts = {field.partition("|")[2]: count for field, count in taken.counts.items()}
    assert counts == {f"authentication_failure|signature|{SOURCE_IP}|": 2}


@pytest.mark.usefixtures("counted")
def test_connections_and_requests_of_an_address_are_counted_together(world: Realtime) -> None:
    # given an HTTP route that needs no token
    def read(request: Any) -> Response:
        admit_address(request)
        return Response()

    def get() -> Answer:
        return call(http_handler({"GET /health": read}), http_event("GET /health"))

    # when
    first = get()
    connected = world.socket().open()
    second = get()

    # then
    assert (first.status, connected["statusCode"], second.status) == (200, 200, 429)


def test_a_connection_may_send_so_many_messages_a_minute(world: Realtime) -> None:
    # given two connections, one of which has sent all that it may
    socket, other = world.socket("c"), world.socket("o")
    socket.open()
    other.open()
    taken = [socket.send({"type": "ping"}) for _ in range(CONNECTION_MESSAGES_PER_MINUTE)]

    # when
    (refused,) = socket.send({"type": "ping"})
    (unread,) = socket.send("not json")
    (allowed,) = other.send({"type": "ping"})

    # then
    assert taken == [[{"type": "pong"}]] * CONNECTION_MESSAGES_PER_MINUTE
    assert (refused["type"], refused["code"]) == ("error", "RATE_LIMIT_EXCEEDED")
    assert "Try again in" in refused["message"]
    assert unread["code"] == "RATE_LIMIT_EXCEEDED"
    assert allowed == {"type": "pong"}


def test_messages_are_counted_without_redis_too(
    world: Realtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # given
    (tmp_path / "secret-redis").write_text("redis://127.0.0.1:9/0")
    monkeypatch.setattr("trading.edge.socket_gate.CONNECTION_MESSAGES_PER_MINUTE", 1)
    socket = world.socket()
    socket.open()

    # when
    answers = [socket.send({"type": "ping"}) for _ in range(2)]

    # then
    assert [answer.get("code", answer["type"]) for (answer,) in answers] == ["pong", "RATE_LIMIT_EXCEEDED"]


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
    assert [message["sequence"] for message in socket.heard()] == [1, 1, 1, 1]


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


def test_a_hint_carries_the_request_that_caused_it(world: Realtime, trader: User) -> None:
    import time

    # when
    queue.notify_relay(trader.account_id, "request-1")
    queue.notify_relay(trader.account_id)
    queue.notify_relay_unless_awake(
        trader.account_id, relay_awake=False, started_at=time.perf_counter(), request_id="request-2"
    )

    # then
    assert sorted(world.causes(), key=str) == [None, "request-1", "request-2"]


def test_an_order_tells_the_relay_of_its_request(
    world: Realtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # given the function that executes orders, with the same queue
    trader = make_user(world.database)
    set_quote(world.database, "BTCUSD", "60000.00", "60010.00")
    body = {"symbol": "BTCUSD", "order_type": "market", "side": "buy", "quantity": 0.1, "idempotency_key": "key-1"}
    headers = bearer(make_token(trader)) | {"X-Request-ID": "request-7"}
    event = http_event("POST /functions/v1/execute-order", headers=headers, body=json.dumps(body))

    # when
    with function_environment(
        monkeypatch,
        tmp_path,
        database=world.database,
        redis_url=world.redis_url,
        RELAY_QUEUE_URL=world.relay_queue,
    ):
        answer = call(load_function("execute_order"), event)

    # then the message names it, and so does each frame
    assert answer.status == 200, answer.text
    assert world.causes() == ["request-7"]
    world.connect("c", trader, since=1)
    world.relay().deliver([trader.account_id], until=in_seconds(5))
    assert {message["request_id"] for message in world.api.posted["c"]} == {"request-7"}
    assert len(world.api.posted["c"]) == 5
