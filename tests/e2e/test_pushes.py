"""What a trader's WebSocket is told: who may listen, what is said of an order, and that nothing is ever lost."""

import json
import time
import uuid
from collections.abc import Iterator
from decimal import Decimal
from threading import Event, Thread

import pytest
import redis

from tests.kit.gateway import eventually
from tests.kit.local_system import LocalSystem
from tests.kit.processes import workers_of
from tests.kit.traders import Arrival, Message, Stream, Trader, Traders, exact, is_event, of_type

PUSH_SECONDS_MAX = 0.5
MEASURED_ORDERS = 3
ORDERS_WHILE_KILLING_MAX = 600
ORDER_EVERY_SECONDS = 0.1
# Its lease of 5 s runs out, and another one starts, which takes a while on a busy machine.
RELAY_REPLACED_SECONDS = 30
KILLS = 3

UNAUTHENTICATED_CLOSES_AFTER = 10
CLOSE_UNAUTHENTICATED = 4401

# What a trader who follows everything hears of one executed order, in this order.
FRAMES_OF_AN_EXECUTION = ["order_update", "order_update", "order.filled", "position_update", "account_update"]


@pytest.fixture(scope="module", autouse=True)
def silent_stream(local_system: LocalSystem) -> Iterator[tuple[Stream, float]]:
    """A connection that never authenticates, opened first so that its time runs beside the other tests."""
    with Stream(local_system.websocket_url) as stream:
        yield stream, time.monotonic()


def words(frame: Message) -> str:
    return frame.get("type") or frame["event"]


def executed_order(trader: Trader, **fields: object) -> tuple[Message, float]:
    """The data of an order's answer, and when the answer was there on the monotonic clock."""
    response = trader.order(**fields)
    at = time.monotonic()
    assert response.status_code == 200, response.text
    return exact(response)["data"], at


def test_an_execution_is_pushed_in_order_within_half_a_second(traders: Traders) -> None:
    # given a trader who follows everything
    trader = traders.new()
    with trader.stream("orders", "positions", "account") as stream:
        delays: list[float] = []
        for sequence in range(2, 2 + MEASURED_ORDERS):
            # when an order is executed
            data, answered_at = executed_order(trader)
            # then all of it arrives
            last = stream.wait_for(of_type("account_update", sequence))
            delays.append(last.at - answered_at)
            frames = [frame for frame in stream.frames() if frame["sequence"] == sequence]
            assert [words(frame) for frame in frames] == FRAMES_OF_AN_EXECUTION
            check_frames(trader, data, frames)
        assert stream.sequences() == list(range(2, 2 + MEASURED_ORDERS))
    # and soon: other work on the machine may hold up one of them
    assert min(delays) < PUSH_SECONDS_MAX, delays


def check_frames(trader: Trader, data: Message, frames: list[Message]) -> None:
    pending, executed, filled, position, account = frames
    price = Decimal(data["execution_details"]["execution_price"])
    assert {frame["account_id"] for frame in frames} == {str(trader.account_id)}
    assert [one["data"]["status"] for one in (pending, executed)] == ["pending", "executed"]
    assert {one["data"]["order_id"] for one in (pending, executed)} == {filled["order_id"]} == {data["order_id"]}
    assert (executed["data"]["execution_price"], filled["price_at_fill"]) == (price, price)
    assert (filled["status"], filled["quantity_filled"]) == ("FILLED", Decimal("0.1"))
    assert position["data"]["position_id"] == data["position_id"]
    assert (position["data"]["side"], position["data"]["entry_price"]) == ("buy", price)
    assert account["data"]["balance"] == 100_000


def test_a_token_in_the_address_authenticates(local_system: LocalSystem, traders: Traders) -> None:
    # given a client that cannot send a first message
    trader = traders.new()
    with Stream(local_system.websocket_url, token=trader.token) as stream:
        # then it is acknowledged without one
        acknowledged = stream.wait_for(of_type("connection_acknowledged")).message
        assert acknowledged["user_id"] == str(trader.user_id)
        # and may subscribe
        assert stream.subscribe("positions")["channels"] == ["positions"]
        executed_order(trader)
        stream.wait_for(of_type("position_update", 2))
    # and the token is in no log
    logs = {path.name: path.read_text(errors="replace") for path in local_system.state.logs.iterdir()}
    assert logs["realtime.log"]
    assert [name for name, text in logs.items() if trader.token in text] == []


@pytest.mark.parametrize("token_in_address", [False, True], ids=["token in a message", "token in the address"])
def test_the_order_updates_protocol_needs_no_subscription(
    local_system: LocalSystem, traders: Traders, *, token_in_address: bool
) -> None:
    # given a client of that sub-protocol at the address of the order events
    trader = traders.new()
    address = local_system.websocket_url.removesuffix("/realtime") + "/ws/orders/events"
    query = {"token": trader.token} if token_in_address else {}
    with Stream(address, subprotocol="order-updates", **query) as stream:
        assert stream.connection.subprotocol == "order-updates"
        if not token_in_address:
            stream.send({"type": "auth", "token": trader.token})
        stream.wait_for(of_type("connection_acknowledged"))
        # when an order is executed
        data, _ = executed_order(trader)
        # then the trader hears of it, and of nothing but the order and what it did to the account
        filled = stream.wait_for(of_type("order.filled", 2)).message
        assert filled["order_id"] == data["order_id"]
        stream.wait_for(of_type("account_update", 2))
        assert {words(frame) for frame in stream.frames()} == {"order_update", "order.filled", "account_update"}


def test_a_wrong_token_is_refused_and_never_repeated(local_system: LocalSystem) -> None:
    # given
    with Stream(local_system.websocket_url) as stream:
        # when
        stream.send({"type": "auth", "token": "not-a-token"})
        # then
        error = stream.wait_for(of_type("error")).message
        assert error["code"] == "UNAUTHENTICATED"
        assert "not-a-token" not in str(error)
        # and it may not subscribe
        stream.send({"type": "subscribe", "channels": ["orders"]})
        stream.wait_for(lambda message: message.get("type") == "error" and message is not error)


def test_what_was_missed_comes_in_order_after_a_reconnect(traders: Traders) -> None:
    # given a trader who heard of one order and was cut
    trader = traders.new()
    with trader.stream("orders") as stream:
        executed_order(trader)
        stream.wait_for(of_type("order.filled", 2))
    for _ in range(4):
        executed_order(trader)
    # when they come back with the last sequence that they have
    with trader.stream("orders", since=2) as stream:
        # then exactly the missed ones come, in order
        stream.wait_for(of_type("order.filled", 6))
        assert stream.sequences() == [3, 4, 5, 6]
        # and then what is new
        executed_order(trader)
        stream.wait_for(of_type("account_update", 7))
        assert stream.sequences() == [3, 4, 5, 6, 7]
        identities = [(f["sequence"], words(f), str(f.get("data", {}).get("status"))) for f in stream.frames()]
        assert len(identities) == len(set(identities)) == 5 * 4


def test_prices_come_for_the_subscribed_symbols_alone(traders: Traders) -> None:
    # given a subscription to two symbols
    trader = traders.new()
    with trader.stream("market_data", symbols=["BTCUSD", "ETHUSD"]) as stream:
        # when prices of both came
        for symbol in ("BTCUSD", "ETHUSD"):
            stream.wait_for(lambda message, symbol=symbol: message.get("data", {}).get("symbol") == symbol)
        # then of no other, each two-sided and without a sequence
        prices = [message for message in stream.messages() if message.get("type") == "market_data"]
        assert {price["data"]["symbol"] for price in prices} == {"BTCUSD", "ETHUSD"}
        assert all(0 < price["data"]["bid"] < price["data"]["ask"] for price in prices)
        assert not any("sequence" in price for price in prices)
        # and a sign of life is answered
        stream.send({"type": "ping"})
        assert stream.wait_for(of_type("pong")).message == {"type": "pong"}


def test_an_event_reaches_its_own_trader_alone(traders: Traders) -> None:
    # given two traders who follow everything
    one, other = traders.new(), traders.new()
    with (
        one.stream("orders", "positions", "account", "risk") as ours,
        other.stream("orders", "positions", "account", "risk") as theirs,
    ):
        # when both trade
        executed_order(one)
        ours.wait_for(of_type("account_update", 2))
        executed_order(other)
        theirs.wait_for(of_type("account_update", 2))
        # then each heard of their own account alone
        assert {frame["account_id"] for frame in ours.frames()} == {str(one.account_id)}
        assert {frame["account_id"] for frame in theirs.frames()} == {str(other.account_id)}
        # and nobody may ask for another's
        theirs.send({"type": "subscribe", "channels": ["orders"], "account_id": str(one.account_id), "since": 0})
        assert theirs.wait_for(of_type("error")).message["code"] == "NOT_FOUND"


def test_the_redis_channel_carries_the_same_events(local_system: LocalSystem, traders: Traders) -> None:
    # given a consumer inside the network
    trader = traders.new()
    client = redis.Redis.from_url(local_system.redis_url)
    channel = client.pubsub(ignore_subscribe_messages=True)
    try:
        channel.subscribe(f"orders:{trader.user_id}")
        with trader.stream("orders", "positions", "account") as stream:
            # when
            executed_order(trader)
            stream.wait_for(of_type("account_update", 2))
            published: list[bytes] = []

            def all_published() -> bool:
                message = channel.get_message(timeout=0.1)
                published.extend([message["data"]] if message else [])
                return len(published) == len(FRAMES_OF_AN_EXECUTION)

            eventually(all_published, what="the events on the channel")
            # then it hears what the trader hears
            assert [exact_text(text) for text in published] == stream.frames()
    finally:
        channel.close()
        client.close()


def exact_text(text: bytes) -> Message:
    return json.loads(text, parse_float=Decimal)


def test_a_killed_relay_loses_nothing_and_keeps_the_order(local_system: LocalSystem, traders: Traders) -> None:
    # given a trader who listens while orders flow
    trader = traders.new()
    enough = Event()
    placed: list[int] = []

    def place_orders() -> None:
        while len(placed) < ORDERS_WHILE_KILLING_MAX and not enough.wait(ORDER_EVERY_SECONDS):
            response = trader.order(quantity="0.01")
            placed.append(response.status_code)

    with trader.stream("orders", "positions", "account") as stream:
        flow = Thread(target=place_orders)
        flow.start()
        try:
            for _ in range(KILLS):
                # when the relay is killed again and again, each time after another one delivered a later order
                sequence = 2 + len(placed) + 1
                stream.wait_for(of_type("order_update", sequence), seconds=RELAY_REPLACED_SECONDS)
                for worker in workers_of(local_system, "process-updates"):
                    worker.kill()
                    worker.wait()
            sequence = 2 + len(placed) + 1
            stream.wait_for(of_type("order_update", sequence), seconds=RELAY_REPLACED_SECONDS)
        finally:
            enough.set()
            flow.join()
        # then every order is told of
        assert set(placed) == {200}
        last = 1 + len(placed)
        stream.wait_for(of_type("account_update", last), seconds=RELAY_REPLACED_SECONDS)
        arrivals = list(stream.arrivals)
    check_no_gap([arrival for arrival in arrivals if is_event(arrival.message)], last)


def check_no_gap(arrivals: list[Arrival], last: int) -> None:
    """New sequences come one after the other; what is repeated is repeated word for word."""
    complete: dict[int, list[Message]] = {}
    newest = 1
    for arrival in arrivals:
        frame = arrival.message
        if frame["sequence"] > newest:
            assert frame["sequence"] == newest + 1
            newest = frame["sequence"]
        told = complete.setdefault(frame["sequence"], [])
        if frame not in told:
            told.append(frame)
    assert newest == last
    assert all([words(frame) for frame in told] == FRAMES_OF_AN_EXECUTION for told in complete.values())


def test_a_connection_that_stays_silent_is_dropped(silent_stream: tuple[Stream, float]) -> None:
    # given a connection that has not said who it is
    stream, opened_at = silent_stream
    # when its time is up, then it is told why, and cut
    closing = stream.wait_for(of_type("closing"), seconds=UNAUTHENTICATED_CLOSES_AFTER + 10)
    assert closing.message["code"] == CLOSE_UNAUTHENTICATED
    assert closing.at - opened_at > UNAUTHENTICATED_CLOSES_AFTER - 1
    stream.wait_until_closed()


def test_two_windows_hear_of_each_event_once_and_of_no_replay(traders: Traders) -> None:
    # given two windows of one trader
    trader = traders.new()
    with trader.stream("orders") as one, trader.stream("positions") as other:
        # when an order is sent
        key = str(uuid.uuid4())
        executed_order(trader, idempotency_key=key)
        executed_order(trader, idempotency_key=key)
        executed_order(trader)
        # then both hear of each event once, and a replay is none
        one.wait_for(of_type("account_update", 3))
        other.wait_for(of_type("account_update", 3))
        assert one.sequences() == other.sequences() == [2, 3]
        assert [words(frame) for frame in other.frames()] == ["position_update", "account_update"] * 2
