"""The relay delivers every event to every connection and to Redis, in order, from wherever each of them stands."""

from collections.abc import Iterator
from decimal import Decimal

import pytest
from psycopg.types.json import Jsonb

from tests.kit.builders import make_user, order_request, set_quote
from tests.kit.realtime import ConnectionsApi, RelayWorld, in_seconds, soon
from tests.kit.servers import ScratchDatabase
from trading.relay import EVENTS_PER_READ_MAX, STREAMS_AT_ONCE_MAX


@pytest.fixture
def world(database: ScratchDatabase, redis_url: str) -> Iterator[RelayWorld]:
    api = ConnectionsApi()
    api.start()
    world = RelayWorld(database, redis_url, api)
    yield world
    world.close()
    api.stop()


def test_an_event_reaches_each_connection_of_its_user(world: RelayWorld) -> None:
    # given
    trader, other = make_user(world.database), make_user(world.database)
    world.connect("all", trader)
    world.connect("positions", trader, channels=("positions",))
    world.connect("risk", trader, channels=("risk",))
    world.connect("stranger", other)
    sequence = world.happen(trader)

    # when
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    assert world.api.types("all") == [
        "order_update",
        "order_update",
        "order.filled",
        "position_update",
        "account_update",
    ]
    assert world.api.types("positions") == ["position_update", "account_update"]
    assert world.api.types("risk") == ["sequence"]
    assert world.api.posted["stranger"] == []
    assert world.api.sequences("all") == [sequence]
    assert world.sent("all") == world.sent("risk") == sequence


def test_the_deposit_procedure_speaks_the_relays_language(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database, balance="250.50")
    world.connect("c", trader, since=0)

    # when
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    (told,) = world.api.posted["c"]
    assert told["type"] == "account_update"
    assert told["data"]["balance"] == Decimal("250.50")


def test_the_order_procedure_speaks_the_relays_language(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database)
    set_quote(world.database, "BTCUSD", "60000.00", "60010.00")
    world.connect("c", trader)
    with world.database.connect("function_trader") as connection:
        answers = [
            connection.execute(
                "SELECT execute_order_atomic(%s)",
                (Jsonb(order_request(trader, symbol="BTCUSD", quantity=quantity)),),
            ).fetchone()
            for quantity in ("0.5", "100")
        ]

    # when
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then the first is told as pending and executed, the second, for which there is no margin, as failed
    told = world.api.posted["c"]
    assert world.api.types("c") == [
        "order_update",
        "order_update",
        "order.filled",
        "position_update",
        "account_update",
        "order_update",
    ], answers
    assert [message["data"]["status"] for message in (told[0], told[1], told[5])] == ["pending", "executed", "failed"]
    assert told[2]["price_at_fill"] == told[1]["data"]["execution_price"] == told[3]["data"]["entry_price"]
    assert told[3]["data"]["side"] == "buy"
    assert told[4]["data"]["margin_used"] == told[3]["data"]["margin_used"] > 0
    assert told[5]["data"]["failure_code"]


def test_the_channel_in_redis_gets_the_same_messages(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    world.happen(trader)
    world.happen(trader)

    # when
    with world.listening(trader) as heard:
        world.relay().deliver([trader.account_id], until=in_seconds(5))
        soon(lambda: len(heard) == 10)

    # then
    assert heard == world.api.posted["c"]
    assert world.pushed(trader) == world.last(trader)


def test_since_sends_again_what_came_after_it(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database, balance=0)
    for _ in range(5):
        world.happen(trader)
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # when
    world.connect("all", trader, since=0)
    world.connect("some", trader, since=3)
    world.connect("none", trader)
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    assert world.api.sequences("all") == [1, 2, 3, 4, 5]
    assert world.api.sequences("some") == [4, 5]
    assert world.api.sequences("none") == []


def test_a_long_way_to_catch_up_holds_nobody_up(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database, balance=0)
    with world.database.connect() as connection:
        connection.execute(
            "INSERT INTO events (user_id, account_id, sequence, event_type, payload, created_at) "
            "SELECT %s, %s, n, 'account.deposited', '{}', clock_timestamp() FROM generate_series(1, %s) n",
            (trader.user_id, trader.account_id, 2 * EVENTS_PER_READ_MAX + 50),
        )
        connection.execute(
            "UPDATE accounts SET last_sequence = %s WHERE id = %s",
            (2 * EVENTS_PER_READ_MAX + 50, trader.account_id),
        )
    world.connect("live", trader)
    world.connect("late", trader, since=0)
    newest = world.happen(trader)
    order: list[str] = []
    for name in ("live", "late"):
        world.api.answers[name] = lambda message, name=name: order.append(f"{name} {message['sequence']}") or 200

    # when
    world.relay().deliver([trader.account_id], until=in_seconds(10))

    # then
    assert world.api.sequences("late") == list(range(1, newest + 1))
    assert world.api.sequences("live") == [newest]
    assert order.index(f"live {newest}") < order.index(f"late {EVENTS_PER_READ_MAX + 1}")


def test_subscribing_again_neither_skips_nor_repeats(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database, balance=0)
    world.connect("c", trader, channels=("orders",))
    world.happen(trader)

    # when it adds a channel while an event is still on its way to it
    world.connect("c", trader, channels=("positions",))
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    assert world.api.types("c") == ["order_update", "order_update", "order.filled", "position_update", "account_update"]


def test_a_push_under_way_does_not_move_a_cursor_that_was_placed_anew(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database, balance=0)
    world.happen(trader)
    world.connect("c", trader)
    world.happen(trader)
    world.api.answers["c"] = lambda message: (
        (world.connect("c", trader, since=0) if not world.api.posted["c"] else None) or 200
    )

    # when
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    assert world.api.sequences("c") == [2, 1, 2]
    assert world.sent("c") == 2


def test_a_subscription_that_is_not_answered_yet_is_left_alone(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database, balance=0)
    world.happen(trader)
    world.connect("c", trader)
    world.connections.subscribe(
        "c", channels=("orders",), symbols=(), since=0, account_id=None, symbols_max=100, hold_ms=60_000
    )

    # when
    world.relay().deliver([trader.account_id], until=in_seconds(5))
    before = list(world.api.posted["c"])
    world.connections.release("c")
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    assert before == []
    assert world.api.sequences("c") == [1]


def test_more_accounts_than_are_served_at_once(world: RelayWorld) -> None:
    # given
    traders = [make_user(world.database, balance=0) for _ in range(STREAMS_AT_ONCE_MAX + 3)]
    for number, trader in enumerate(traders):
        world.connect(f"c{number}", trader)
        world.happen(trader)

    # when
    world.relay().deliver([trader.account_id for trader in traders], until=in_seconds(10))

    # then
    assert [world.api.sequences(f"c{number}") for number in range(len(traders))] == [[1]] * len(traders)


def test_the_sweep_finds_what_nobody_was_told_of(world: RelayWorld) -> None:
    # given
    trader, idle = make_user(world.database, balance=0), make_user(world.database, balance=0)
    world.connect("c", trader)
    world.connect("idle", idle)
    world.happen(trader)

    # when
    relay = world.relay()
    found = [relay.sweep(until=in_seconds(5)), relay.sweep(until=in_seconds(5))]

    # then
    assert found == [1, 0]
    assert world.api.sequences("c") == [1]
    assert world.api.posted["idle"] == []


def test_nothing_is_sent_after_the_token_has_expired(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database, balance=0)
    world.connect("c", trader, token_seconds=600)
    with world.database.connect() as connection:
        connection.execute("UPDATE connections SET token_expires_at = clock_timestamp()")
    world.happen(trader)
    relay = world.relay()

    # when
    found = [relay.sweep(until=in_seconds(5)), relay.sweep(until=in_seconds(5))]

    # then the event is published, and the cursor that stays behind is not work
    assert world.api.posted["c"] == []
    assert world.pushed(trader) == 1
    assert found == [1, 0]


def test_no_transaction_is_open_while_events_are_pushed(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    world.happen(trader)
    seen: list[int] = []
    world.api.answers["c"] = lambda _message: (
        seen.append(
            world.value(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = 'function_relay' AND xact_start IS NOT NULL "
                "AND datname = current_database()"
            )
        )
        or 200
    )

    # when
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    assert seen == [0] * 5
