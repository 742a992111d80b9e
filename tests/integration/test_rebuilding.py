"""Orders, positions and balances rebuilt from audit and ledger alone: equal to the tables, and every column is held."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.test_venue_procedures import take_from_position
from tests.integration.test_verification import (
    CANCELED,
    CUT,
    DENIED,
    HELD,
    ICEBERG,
    LAST_ORDER,
    RESTING,
    TIMED,
    TRAILING,
    TRIGGERED,
    World,
    populate,
    tampered,
    users,
)
from tests.kit import MigratedTemplate
from tests.kit.orders import Market, keyed_request, send
from tests.kit.positions import change
from tests.kit.venues import STOCK, VenueWorld

# What the audit does not tell of an order: counters of its row, what nothing writes yet, and defaults.
NOT_OF_ORDERS = {
    "version",
    "updated_at",
    "linked_order_ids",
    # What it waits for now follows from its type, its prices and its state.
    "trigger_watch",
    "trigger_price",
    # books_linked holds it.
    "contingency",
    "position_size_check",
    "rolled_back_at",
    "rolled_back_reason",
}
# A trail's mark moves without it.
NOT_OF_POSITIONS = {"version", "updated_at", "trail_mark"}

ANOTHER_ACCOUNT = (
    "INSERT INTO accounts (user_id, id, currency) SELECT user_id, '00000000-0000-7000-8000-000000000001', 'USD' "
    "FROM accounts WHERE user_id = %(netter)s"
)
# column -> (the order whose row is changed, the change)
ORDER_CHANGES = {
    "client_order_id": (LAST_ORDER, "'mine'"),
    "parent_order_id": (LAST_ORDER, "uuidv7()"),
    "replaces_order_id": (LAST_ORDER, "id"),
    "symbol": (LAST_ORDER, "'GBPUSD'"),
    "order_type": (RESTING, "'limit', stop_price = NULL"),
    "side": (LAST_ORDER, "'buy'"),
    "quantity": (RESTING, "2"),
    "limit_price": (RESTING, "1.22"),
    "stop_price": (RESTING, "1.19"),
    "stop_loss": (RESTING, "1.11"),
    "take_profit": (RESTING, "1.5"),
    "time_in_force": (LAST_ORDER, "'ioc'"),
    "expires_at": (RESTING, "clock_timestamp()"),
    "active_at": (TIMED, "active_at + interval '1 microsecond'"),
    "display_quantity": (ICEBERG, "0.2"),
    "display_variance": (ICEBERG, "0.1"),
    "post_only": (ICEBERG, "false"),
    "trail_amount": (TRIGGERED, "0.3"),
    "trail_percent": (TRAILING, "2"),
    "limit_offset": (TRIGGERED, "0.1"),
    "triggered_at": (RESTING, "clock_timestamp()"),
    "max_slippage": (LAST_ORDER, "0.1"),
    "reduce_only": (LAST_ORDER, "true"),
    "execution_instructions": (LAST_ORDER, '\'{"urgency": "high"}\''),
    "strategy_id": (LAST_ORDER, "'mine'"),
    "signal_id": (LAST_ORDER, "'mine'"),
    "component_name": (LAST_ORDER, "'mine'"),
    "metadata": (LAST_ORDER, "'{}'"),
    "conditions": (RESTING, "'[]'"),
    "idempotency_key": (LAST_ORDER, "'another'"),
    "request_id": (LAST_ORDER, "'another'"),
    "created_at": (LAST_ORDER, "created_at + interval '1 microsecond'"),
    "status": (CANCELED, "'expired'"),
    "filled_quantity": (RESTING, "0.5"),
    "leaves_quantity": (RESTING, "0.5"),
    "canceled_quantity": (CUT, "0.5"),
    "held_quantity": (HELD, "0.5"),
    "last_price": (LAST_ORDER, "last_price + 0.00001"),
    "average_price": (LAST_ORDER, "average_price + 0.00001"),
    "slippage": (LAST_ORDER, "slippage + 0.00001"),
    "commission": (LAST_ORDER, "commission + 0.01"),
    "total_cost": (LAST_ORDER, "total_cost + 0.01"),
    "position_id": (LAST_ORDER, "uuidv7()"),
    "transaction_id": (LAST_ORDER, "'another'"),
    "executed_at": (LAST_ORDER, "executed_at + interval '1 microsecond'"),
    "venue_order_id": (LAST_ORDER, "'another'"),
    "failure_code": (DENIED, "'INSUFFICIENT_FUNDS'"),
    "failure_reason": (CANCELED, "'because'"),
}
POSITION_CHANGES = {
    "order_id": LAST_ORDER,
    "symbol": "'GBPUSD'",
    "side": "'short'",
    "quantity": "0.5",
    "opened_quantity": "2",
    "entry_price": "1.2",
    "margin_used": "margin_used - 0.01",
    "stop_loss": "0.5",
    "take_profit": "1.5",
    "trail_distance": "0.002, trail_mark = 1.1, stop_loss = 1.098",
    "commission_paid": "commission_paid + 0.01",
    "realized_pnl": "realized_pnl - 0.01",
    "status": "'closed', quantity = 0, margin_used = 0, closed_at = created_at",
    "transaction_id": "'another'",
    "created_at": "created_at - interval '1 microsecond'",
}


@pytest.fixture(scope="module")
def world(migrated: MigratedTemplate) -> Iterator[World]:
    """One world for the module; every change is rolled back."""
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market:
            yield populate(market)
    finally:
        scratch.drop()


@pytest.fixture(scope="module")
def venues(migrated: MigratedTemplate) -> Iterator[VenueWorld]:
    """A market whose stock is traded at a venue."""
    scratch = migrated.clone()
    try:
        with VenueWorld.opened(scratch) as world:
            world.market.quote(STOCK, "149.98", "150.00")
            yield world
    finally:
        scratch.drop()


def columns(market: Market, relation: str) -> list[str]:
    cursor = market.owner.execute(f"SELECT * FROM {relation} LIMIT 0".encode())
    return [column.name for column in cursor.description or ()]


def both(market: Market, table: str) -> tuple[list[Any], list[Any]]:
    """The rows of a table and those that are rebuilt, in the columns of the latter."""
    names = ", ".join(columns(market, f"rebuilt_{table}()"))
    stored, rebuilt = (
        market.execute(f"SELECT {names} FROM {relation} ORDER BY user_id, id")
        for relation in (table, f"rebuilt_{table}()")
    )
    return stored, rebuilt


class TestRebuilding:
    @pytest.mark.parametrize("table", ["orders", "positions"])
    def test_what_is_rebuilt_is_the_table(self, world: World, table: str) -> None:
        stored, rebuilt = both(world.market, table)

        assert len(stored) > 3
        assert rebuilt == stored

    def test_what_its_owner_changed_is_rebuilt(self, migrated: MigratedTemplate) -> None:
        # given positions with levels, with a trail, and closed against each other
        scratch = migrated.clone()
        try:
            with Market.opened(scratch) as market:
                user = market.user()
                levels, trail = (market.trade(user)["position_id"] for _ in range(2))
                change(market, user, levels, stop_loss_amount="500", take_profit="1.2")
                change(market, user, trail, trailing_distance="0.002")
                short = market.trade(user, side="sell", quantity="0.4")["position_id"]
                pair = keyed_request(user, position_id=levels, opposite_position_id=short)
                send(market.trader, pair, "close_by")

                for table in ("orders", "positions"):
                    stored, rebuilt = both(market, table)
                    assert rebuilt == stored
        finally:
            scratch.drop()

    def test_fills_in_parts_add_up(self, venues: VenueWorld) -> None:
        # given seven shares bought in parts whose average ends nowhere
        user = venues.market.user(position_mode="netting")
        bought = venues.sent(user, quantity="7")
        for quantity, price in (("2", "150.01"), ("1", "150.02"), ("4", "150.05")):
            venues.fill(bought, quantity, price)
        # and seven sold in one trade that finds four left, which it turns round
        sold = venues.sent(user, side="sell", quantity="7")
        take_from_position(venues, user, "3")
        venues.fill(sold, "7", "149.90")

        orders, positions = both(venues.market, "orders"), both(venues.market, "positions")

        assert [len(rows) for rows in (*orders, *positions)] == [3, 3, 2, 2]
        for stored, rebuilt in (orders, positions):
            assert rounded(rebuilt) == rounded(stored)
        assert venues.market.book_faults() == []

    def test_balances_are_those_of_the_ledger_and_of_the_audit(self, world: World) -> None:
        stored = world.market.execute("SELECT id, balance FROM accounts ORDER BY id")

        by_ledger = world.market.execute("SELECT account_id, sum(amount) FROM ledger_entries GROUP BY 1 ORDER BY 1")
        by_audit = world.market.execute(
            "SELECT DISTINCT ON (account_id) account_id, (details ->> 'balance_after')::numeric FROM order_audit_log "
            "WHERE details ? 'balance_after' ORDER BY account_id, version DESC"
        )

        assert len(stored) == 8
        assert by_ledger == stored
        assert by_audit == stored

    @pytest.mark.parametrize(("table", "left_out"), [("orders", NOT_OF_ORDERS), ("positions", NOT_OF_POSITIONS)])
    def test_every_column_is_rebuilt_or_left_out_by_name(self, world: World, table: str, left_out: set[str]) -> None:
        assert set(columns(world.market, f"rebuilt_{table}()")) == set(columns(world.market, table)) - left_out


def rounded(rows: list[Any]) -> list[tuple[Any, ...]]:
    """Rows with their averages to the eight places to which they are compared."""
    return [tuple(round(cell, 8) if isinstance(cell, Decimal) else cell for cell in row) for row in rows]


class TestEveryColumnIsHeld:
    """Whatever column of a table is changed, verify_books names it."""

    def test_the_changes_below_are_of_every_column(self, world: World) -> None:
        keys = {"user_id", "id", "account_id"}
        assert set(ORDER_CHANGES) == set(columns(world.market, "rebuilt_orders()")) - keys
        assert set(POSITION_CHANGES) == set(columns(world.market, "rebuilt_positions()")) - keys - {"closed_at"}

    @pytest.mark.parametrize("column", ORDER_CHANGES)
    def test_of_orders(self, world: World, column: str) -> None:
        order, value = ORDER_CHANGES[column]

        with tampered(world.market, f"UPDATE orders SET {column} = {value} WHERE id = {order}", **users(world)):
            assert named(world, "I3", "the audit tells another order: ", column)

    @pytest.mark.parametrize("column", POSITION_CHANGES)
    def test_of_positions(self, world: World, column: str) -> None:
        statement = f"UPDATE positions SET {column} = {POSITION_CHANGES[column]} WHERE user_id = %(netter)s"

        with tampered(world.market, statement, **users(world)):
            assert named(world, "I2", "the audit tells another position: ", column)

    def test_of_closed_positions(self, world: World) -> None:
        statement = "UPDATE positions SET closed_at = created_at WHERE user_id = %(rester)s AND status = 'closed'"

        with tampered(world.market, statement, **users(world)):
            assert named(world, "I2", "the audit tells another position: ", "closed_at")

    @pytest.mark.parametrize(
        ("table", "row", "invariant"),
        [("orders", LAST_ORDER, "I3"), ("positions", "(SELECT id FROM positions WHERE user_id = %(netter)s)", "I2")],
    )
    def test_of_whose_account_it_is(self, world: World, table: str, row: str, invariant: str) -> None:
        moved = f"UPDATE {table} SET account_id = '00000000-0000-7000-8000-000000000001' WHERE id = {row}"

        with tampered(world.market, ANOTHER_ACCOUNT, moved, **users(world)):
            assert named(world, invariant, "the audit tells another ", "account_id")

    def test_an_order_that_is_gone(self, world: World) -> None:
        with tampered(world.market, f"DELETE FROM orders WHERE id = {DENIED}", **users(world)):
            faults = world.market.book_faults()

        assert "the audit tells another order: the table has none" in {said for _, _, said in faults}

    def test_an_order_that_the_audit_does_not_know(self, world: World) -> None:
        forgotten = f"DELETE FROM order_audit_log WHERE order_id = {RESTING}"

        with tampered(world.market, forgotten, **users(world)):
            faults = world.market.book_faults()

        assert "the audit tells another order: it has none" in {said for _, _, said in faults}

    def test_what_the_caller_wrote_is_not_repeated(self, world: World) -> None:
        secret = f'UPDATE orders SET metadata = \'{{"note": "call Ann"}}\' WHERE id = {LAST_ORDER}'

        with tampered(world.market, secret, **users(world)):
            faults = world.market.book_faults()

        assert [said for _, _, said in faults] == [
            "the audit tells another order: metadata is not shown, by the audit not shown"
        ]

    @pytest.mark.parametrize(
        ("statements", "problem"),
        [
            (
                (
                    "UPDATE order_audit_log SET details = details || '{\"balance_after\": 1}' "
                    "WHERE user_id = %(netter)s AND action = 'FILLED'",
                ),
                "the audit's balance after is 1, its movements sum to ",
            ),
            (
                (
                    "INSERT INTO ledger_entries (user_id, account_id, entry_number, entry_type, amount, balance_after, "
                    "currency, created_at) SELECT user_id, id, ledger_version + 1, 'financing', -1, balance - 1, "
                    "currency, clock_timestamp() FROM accounts WHERE user_id = %(netter)s",
                    "UPDATE accounts SET balance = balance - 1, ledger_version = ledger_version + 1 "
                    "WHERE user_id = %(netter)s",
                ),
                "by the audit ",
            ),
        ],
    )
    def test_of_balances(self, world: World, statements: tuple[str, ...], problem: str) -> None:
        with tampered(world.market, *statements, **users(world)):
            faults = world.market.book_faults()

        assert any(invariant == "I2" and problem in said for invariant, _, said in faults), faults


def named(world: World, invariant: str, problem: str, column: str) -> bool:
    """Whether verify_books finds that problem and says of which column."""
    faults = [said for broken, _, said in world.market.book_faults() if broken == invariant]
    return any(said.startswith(problem) and f"{column} is " in said for said in faults)
