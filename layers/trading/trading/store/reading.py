"""The reading functions: what a user sees of their own orders, positions and account."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from trading.store.database import Database


@dataclass(frozen=True, slots=True)
class OrderFilters:
    """Which orders are asked for, in the words of the inside; None does not narrow.

    created_from <= created_at < created_to, both aware.
    """

    account_id: UUID | None = None
    statuses: tuple[str, ...] | None = None
    symbol: str | None = None
    side: str | None = None
    order_type: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    client_order_id: str | None = None


class ReadingStore:
    """Calls the reading functions. Facts have the words of the inside, decimals as text, times as UTC text."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def orders(self, user_id: UUID, filters: OrderFilters, *, before: UUID | None, limit: int) -> dict[str, Any]:
        """A page {orders, next}, newest first."""
        return self._answer(
            "SELECT find_orders(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) AS answer",
            (
                user_id,
                filters.account_id,
                None if filters.statuses is None else list(filters.statuses),
                filters.symbol,
                filters.side,
                filters.order_type,
                filters.created_from,
                filters.created_to,
                filters.client_order_id,
                before,
                limit,
            ),
        )

    def order(self, user_id: UUID, order_id: UUID) -> dict[str, Any] | None:
        """An order with its fills; None when the user has no such order."""
        return self._answer("SELECT get_order(%s, %s) AS answer", (user_id, order_id))

    def order_audit(self, user_id: UUID, order_id: UUID) -> list[dict[str, Any]] | None:
        """What happened to an order; None when the user has no such order."""
        return self._answer("SELECT get_order_audit(%s, %s) AS answer", (user_id, order_id))

    def order_owner(self, order_id: UUID) -> UUID | None:
        """The user whose order it is."""
        return self._answer("SELECT get_order_owner(%s) AS answer", (order_id,))

    def positions(self, user_id: UUID, account_id: UUID | None) -> list[dict[str, Any]]:
        """The open positions with mark and unrealized P&L."""
        return self._answer("SELECT list_positions(%s, %s) AS answer", (user_id, account_id))

    def position_page(
        self, user_id: UUID, account_id: UUID | None, *, with_open: bool, before: UUID | None, limit: int
    ) -> dict[str, Any]:
        """A page {positions, next} of the closed positions, or of all, newest first."""
        return self._answer(
            "SELECT page_positions(%s, %s, %s, %s, %s) AS answer", (user_id, account_id, with_open, before, limit)
        )

    def position_summary(self, user_id: UUID, account_id: UUID | None) -> list[dict[str, Any]]:
        """What is held of each symbol on each account."""
        return self._answer("SELECT summarize_positions(%s, %s) AS answer", (user_id, account_id))

    def profile(self, user_id: UUID) -> dict[str, Any] | None:
        """The user with their accounts and limits; None when there is no such user."""
        return self._answer("SELECT get_profile(%s) AS answer", (user_id,))

    def account(self, user_id: UUID, account_id: UUID | None) -> dict[str, Any]:
        """An account and its worth now; NOT_FOUND when the user has no such account."""
        return self._answer("SELECT get_account(%s, %s) AS answer", (user_id, account_id))

    def preview_facts(self, user_id: UUID, account_id: UUID | None, order: Mapping[str, object], /) -> dict[str, Any]:
        """By what `order` would be judged and priced now, as the function documents it; numbers as Decimal.

        Raises NOT_FOUND, UNKNOWN_SYMBOL, CONFLICT and VALIDATION_FAILED.
        """
        return self._answer("SELECT preview_facts(%s, %s, %s) AS answer", (user_id, account_id, Jsonb(order)))

    def preview_replacement(self, user_id: UUID, asked: Mapping[str, object]) -> dict[str, Any]:
        """The order that replace_order would make of what is `asked`, with its account_id; numbers as Decimal.

        Raises NOT_FOUND, VALIDATION_FAILED, CONFLICT and ORDER_NOT_CANCELABLE as replace_order.
        """
        return self._answer("SELECT preview_replacement(%s, %s) AS answer", (user_id, Jsonb(asked)))

    def preview_close(self, user_id: UUID, asked: Mapping[str, object], /) -> dict[str, Any]:
        """By what closing a position would be judged and priced now, as the function documents it.

        Raises NOT_FOUND, VALIDATION_FAILED and CONFLICT as close_position.
        """
        return self._answer("SELECT preview_close(%s, %s) AS answer", (user_id, Jsonb(asked)))

    def preview_close_by(self, user_id: UUID, asked: Mapping[str, object], /) -> dict[str, Any]:
        """The same of closing two positions against each other; raises what close_by does before it books."""
        return self._answer("SELECT preview_close_by(%s, %s) AS answer", (user_id, Jsonb(asked)))

    def preview_close_all(self, user_id: UUID, asked: Mapping[str, object], /) -> dict[str, Any]:
        """The same of closing many positions; raises what plan_closes does."""
        return self._answer("SELECT preview_close_all(%s, %s) AS answer", (user_id, Jsonb(asked)))

    def preview_cancel(self, user_id: UUID, asked: Mapping[str, object], /) -> dict[str, Any]:
        """What canceling an order would end, as the function documents it; raises what cancel_order raises of it."""
        return self._answer("SELECT preview_cancel(%s, %s) AS answer", (user_id, Jsonb(asked)))

    def preview_cancel_all(self, user_id: UUID, asked: Mapping[str, object], /) -> dict[str, Any]:
        """The same of many; raises what cancel_orders raises."""
        return self._answer("SELECT preview_cancel_all(%s, %s) AS answer", (user_id, Jsonb(asked)))

    def preview_group(self, user_id: UUID, asked: Mapping[str, object], /) -> dict[str, Any]:
        """How a group of orders would be judged, as the function documents it; raises what place_linked_orders does."""
        return self._answer("SELECT preview_group(%s, %s) AS answer", (user_id, Jsonb(asked)))

    def preview_position_change(self, user_id: UUID, asked: Mapping[str, object], /) -> dict[str, Any]:
        """Where a change would leave a position's levels; raises what change_position raises of it."""
        return self._answer("SELECT preview_position_change(%s, %s) AS answer", (user_id, Jsonb(asked)))

    def account_risk(self, user_id: UUID, account_id: UUID | None) -> dict[str, Any]:
        """An account's exposure, value at risk and drawdown; NOT_FOUND when the user has no such account."""
        return self._answer("SELECT get_account_risk(%s, %s) AS answer", (user_id, account_id))

    def risk_settings(self, user_id: UUID, account_id: UUID | None) -> dict[str, Any]:
        """What binds an account; NOT_FOUND without such an account, VALIDATION_FAILED where it has to be named."""
        return self._answer("SELECT get_risk_settings(%s, %s) AS answer", (user_id, account_id))

    def ledger(self, user_id: UUID, account_id: UUID | None, *, before: int | None, limit: int) -> dict[str, Any]:
        """A page {entries, next} of an account's ledger, newest first; NOT_FOUND without such an account."""
        return self._answer(
            "SELECT list_ledger_entries(%s, %s, %s, %s) AS answer", (user_id, account_id, before, limit)
        )

    def _answer(self, statement: str, parameters: Sequence[object]) -> Any:
        row = self._database.fetch_one(statement, parameters)
        return row["answer"] if row else None


def probe_health(database: Database) -> dict[str, int | None]:
    """How the price feed stands: {open, fresh, newest_age_ms}."""
    row = database.fetch_one("SELECT probe_health() AS answer")
    assert row is not None
    return row["answer"]
