"""The database's own table of an order's steps is the layer's, and its guard lets no other step pass."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.kit import MigratedTemplate
from tests.kit.orders import Market
from trading.orders import TRANSITIONS, OrderStatus

KEPT: list[OrderStatus] = [status for status in TRANSITIONS if status != "initialized"]
# What a row must have in some of the states, whatever it had before.
COLUMNS = (
    "leaves_quantity = 0, filled_quantity = quantity, average_price = 1, executed_at = clock_timestamp(), "
    "failure_code = 'X'"
)


@pytest.fixture(scope="module")
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market:
            yield market
    finally:
        scratch.drop()


def test_the_tables_are_equal(market: Market) -> None:
    kept = set(market.execute("SELECT from_status, to_status FROM order_transitions"))
    words = market.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contypid = 'order_status'::regtype"
    )[0][0]

    assert kept == {(status, following) for status, followings in TRANSITIONS.items() for following in followings}
    assert all(f"'{status}'" in words for status in KEPT)


def test_the_guard_lets_pass_what_the_table_has_and_nothing_else(market: Market) -> None:
    # given an order that is in every state by turns, past the guard
    order_id = market.place(market.user())["order_id"]

    # when it is brought from there to every other one
    passed = {
        (before, after)
        for before in KEPT
        for after in KEPT
        if before != after and steps(market, order_id, before, after)
    }

    # then what the table has passes; a step to the same state is none
    legal = {(before, after) for before in KEPT for after in TRANSITIONS[before] if before != after}
    assert passed == legal


def steps(market: Market, order_id: str, before: OrderStatus, after: OrderStatus) -> bool:
    """Whether the guard lets an order step so; nothing of it stays."""
    with market.owner.transaction(force_rollback=True):
        market.execute("ALTER TABLE orders DISABLE TRIGGER legal_transition")
        market.execute(f"UPDATE orders SET status = %s, {COLUMNS} WHERE id = %s", (before, order_id))
        market.execute("ALTER TABLE orders ENABLE TRIGGER legal_transition")
        try:
            market.execute("UPDATE orders SET status = %s WHERE id = %s", (after, order_id))
        except psycopg.Error as error:
            if error.sqlstate != "TR008":
                raise
            return False
    return True
