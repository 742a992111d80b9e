"""The checker checked: take away what the books rest on, one part at a time, and the same load makes it go red.

What commits rest on is taken away in test_postgres_faults.py.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest

from tests.kit.builders import order_request
from tests.kit.fault_runs import MARKET_ORDER, RESTING_ORDER, FaultRun, Operation, pair
from tests.kit.mutations import definition_of, distort, remove_text, replace_body, swallow
from tests.kit.orders import keyed_request
from trading.errors import TradingError

CALLERS = 8
LARGE = "20"  # lots of EURUSD: about 22,600 with the spread's loss, so that four are carried
# Where an order takes its account's lock.
LOCKING = ("execute_order_atomic", "lock_account")
LOCK = "FOR NO KEY UPDATE"

type Mutation = Callable[[psycopg.Connection[Any]], None]


def no_key_gate(connection: psycopg.Connection[Any]) -> None:
    replace_body(connection, "replayed_answer", "BEGIN RETURN NULL; END")
    connection.execute("ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_pkey")


def no_account_lock(connection: psycopg.Connection[Any]) -> None:
    """The numbers that are unique in an account would catch it too, as an error to the caller: they go as well."""
    locking = [name for name in LOCKING if LOCK in definition_of(connection, name)]
    assert locking
    for name in locking:
        remove_text(connection, name, LOCK)
    connection.execute("ALTER TABLE events DROP CONSTRAINT events_user_id_account_id_sequence_key")
    connection.execute("ALTER TABLE order_audit_log DROP CONSTRAINT order_audit_log_user_id_account_id_version_key")
    connection.execute("ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_user_id_account_id_entry_number_key")


def no_outbox_row(connection: psycopg.Connection[Any]) -> None:
    swallow(connection, "events", "NEW.event_type = 'order.filled'")


def no_last_audit_row(connection: psycopg.Connection[Any]) -> None:
    swallow(connection, "order_audit_log", "NEW.action = 'FILLED'")


def no_margin_check(connection: psycopg.Connection[Any]) -> None:
    replace_body(connection, "margin_refusal", "BEGIN RETURN NULL; END")


def no_fill_in_the_ledger(connection: psycopg.Connection[Any]) -> None:
    swallow(connection, "ledger_entries", "NEW.entry_type = 'commission'")


def another_order(connection: psycopg.Connection[Any]) -> None:
    distort(connection, "orders", "total_cost", "NEW.total_cost + 0.01")


def another_position(connection: psycopg.Connection[Any]) -> None:
    distort(connection, "positions", "opened_quantity", "NEW.opened_quantity + 1")


def another_balance_told(connection: psycopg.Connection[Any]) -> None:
    distort(connection, "order_audit_log", "details", """NEW.details || '{"balance_after": 1}'""")


def no_look_at_what_is_replaced(connection: psycopg.Connection[Any]) -> None:
    """The index that one order is replaced once would catch it too, as an error to the caller: it goes as well."""
    replace_body(connection, "check_replaceable", "BEGIN RETURN; END")
    connection.execute("DROP INDEX orders_replacing")


def no_audit_of_what_is_replaced(connection: psycopg.Connection[Any]) -> None:
    swallow(connection, "order_audit_log", "NEW.action = 'REPLACED'")


def nothing_taken_off_the_other(connection: psycopg.Connection[Any]) -> None:
    replace_body(connection, "settle_linked", "BEGIN RETURN p_order; END")


def no_audit_of_what_is_taken_off(connection: psycopg.Connection[Any]) -> None:
    swallow(connection, "order_audit_log", "NEW.action = 'CANCELED'")


def another_level(connection: psycopg.Connection[Any]) -> None:
    distort(connection, "orders", "stop_price", "NEW.stop_price + 0.0001")


def no_event_of_a_replacement(connection: psycopg.Connection[Any]) -> None:
    swallow(connection, "events", "NEW.event_type = 'order.replaced'")


def nothing(_connection: psycopg.Connection[Any]) -> None:
    """The load alone."""


@pytest.mark.parametrize(
    ("mutation", "invariants"),
    [
        pytest.param(nothing, set(), id="nothing"),
        pytest.param(no_key_gate, {"I1"}, id="the key gate"),
        pytest.param(no_account_lock, {"I2", "I4", "I6", "I7"}, id="the account's lock"),
        pytest.param(no_outbox_row, {"I3", "I7"}, id="the outbox row"),
        pytest.param(no_last_audit_row, {"I2", "I3", "I6"}, id="one audit row"),
        pytest.param(no_margin_check, {"I4"}, id="the margin check"),
        pytest.param(no_fill_in_the_ledger, {"I2", "I3"}, id="the ledger entry"),
        pytest.param(another_order, {"I3"}, id="a figure of the order's row"),
        pytest.param(another_position, {"I2"}, id="a figure of the position's row"),
        pytest.param(another_balance_told, {"I2", "I6"}, id="the balance in the audit"),
    ],
)
def test_what_is_taken_away_is_missed(run: FaultRun, mutation: Mutation, invariants: set[str]) -> None:
    # given procedures without that part
    with run.database.connect() as connection:
        mutation(connection)

    # when callers race under one key, and others for one account's margin
    race(run)

    # then the checker names what is broken
    found = run.execute("SELECT invariant, account_id, subject, problem FROM verify_books()")
    assert {invariant for invariant, *_ in found} >= invariants, found
    assert bool(found) == bool(invariants), found


@pytest.mark.parametrize(
    ("mutation", "invariants"),
    [
        pytest.param(nothing, set(), id="nothing"),
        pytest.param(nothing_taken_off_the_other, {"I3"}, id="what a fill takes off the other order"),
        pytest.param(no_audit_of_what_is_taken_off, {"I3", "I6"}, id="the other order's audit row"),
        pytest.param(another_level, {"I3"}, id="the level of a stop that trailed"),
    ],
)
def test_what_is_taken_from_the_triggers_is_missed(run: FaultRun, mutation: Mutation, invariants: set[str]) -> None:
    # given procedures without that part, two orders that cancel each other and a stop that trails
    with run.database.connect() as connection:
        mutation(connection)
    user = run.user()
    client = run.client(user, [])
    assert client.send("pair", Operation("place_linked_orders", pair))
    trailing = {"order_type": "trailing_stop", "trail_amount": "0.0005", "side": "sell", "quantity": "0.1"}
    assert client.send("stop", Operation("place_order", lambda client: order_request(client.user, **trailing)))

    # when prices touch both of the two, and the stop
    for bid, ask in (("1.0988", "1.0990"), ("1.1013", "1.1015")):
        run.record("EURUSD", bid, ask)
        run.execute_touched()

    # then the checker names what is broken
    found = run.execute("SELECT invariant, account_id, subject, problem FROM verify_books()")
    assert {invariant for invariant, *_ in found} >= invariants, found
    assert bool(found) == bool(invariants), found


@pytest.mark.parametrize(
    ("mutation", "invariants"),
    [
        pytest.param(nothing, set(), id="nothing"),
        pytest.param(no_look_at_what_is_replaced, {"I3"}, id="the look at the old order"),
        pytest.param(no_audit_of_what_is_replaced, {"I3", "I6"}, id="the old order's audit row"),
        pytest.param(no_event_of_a_replacement, {"I3", "I7"}, id="the outbox row"),
    ],
)
def test_what_is_taken_from_a_replacement_is_missed(run: FaultRun, mutation: Mutation, invariants: set[str]) -> None:
    # given procedures without that part, and an order that rests
    with run.database.connect() as connection:
        mutation(connection)
    user = run.user()
    client = run.client(user, [RESTING_ORDER])
    placed = client.attempt("placed", 0)
    assert placed is not None

    # when callers race to replace it, each for reasons of their own
    requests = [keyed_request(user, order_id=placed["order_id"], quantity="0.2") for _ in range(CALLERS)]
    clients = [run.client(user) for _ in range(CALLERS)]
    with run.held(user) as calls:
        calls.begin(
            *(
                partial(client.database.call, "replace_order", request)
                for client, request in zip(clients, requests, strict=True)
            )
        )

    # then the checker names what is broken
    found = run.execute("SELECT invariant, account_id, subject, problem FROM verify_books()")
    assert {invariant for invariant, *_ in found} >= invariants, found
    assert bool(found) == bool(invariants), found


def race(run: FaultRun) -> None:
    """Orders that race under one key, and orders that race for the margin of four, past their first look already."""
    warm, one, spender = run.user(), run.user(), run.user()
    clients = [run.client(warm, [MARKET_ORDER]) for _ in range(CALLERS)]
    for number, client in enumerate(clients):
        client.attempt(f"warm-{number}", number)
    same = [order_request(one, symbol="AAPL", quantity="10")] * CALLERS
    large = [order_request(spender, quantity=LARGE) for _ in range(CALLERS)]
    for user, requests in ((one, same), (spender, large)):
        with run.held(user) as calls:
            calls.begin(
                *(
                    partial(client.database.call, "execute_order_atomic", request)
                    for client, request in zip(clients, requests, strict=True)
                )
            )
        for outcome in calls.outcomes:
            assert isinstance(outcome, dict | TradingError | psycopg.Error), outcome
