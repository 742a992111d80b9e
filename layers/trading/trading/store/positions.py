"""The procedures that manage open positions; store.orders closes one."""

from collections.abc import Mapping
from typing import Any

from trading.store.database import Database
from trading.store.orders import REQUEST_VERSION


def change_position(database: Database, request: Mapping[str, object]) -> dict[str, Any]:
    """Change the levels at which a position is to end: {replayed, answer}.

    Raises NOT_FOUND, IDEMPOTENCY_KEY_REUSED, MARKET_DATA_UNAVAILABLE, VALIDATION_FAILED for a level that does not fit
    the market, CONFLICT when it is not open any more or, with `position` in its details, has another version, and
    DATABASE_UNAVAILABLE as execute_order_atomic.
    """
    return database.call("change_position", {"version": REQUEST_VERSION, **request})


def plan_closes(database: Database, request: Mapping[str, object]) -> dict[str, Any]:
    """Choose the positions that a request closes, once for its key: {replayed, answer}.

    Raises NOT_FOUND, UNKNOWN_SYMBOL, IDEMPOTENCY_KEY_REUSED, VALIDATION_FAILED and DATABASE_UNAVAILABLE.
    """
    return database.call("plan_closes", {"version": REQUEST_VERSION, **request})


def close_planned(database: Database, request: Mapping[str, object]) -> dict[str, Any]:
    """Close one position of a plan, once for the plan's key: {replayed, answer}.

    The answer is an order's, or a refusal with the SQLSTATE that close_position would have raised. Raises NOT_FOUND and
    DATABASE_UNAVAILABLE.
    """
    return database.call("close_planned", {"version": REQUEST_VERSION, **request})


def close_by(database: Database, request: Mapping[str, object]) -> dict[str, Any]:
    """Close a position and an opposite one against each other: {replayed, answer}.

    Raises NOT_FOUND, IDEMPOTENCY_KEY_REUSED, MARKET_DATA_UNAVAILABLE without a rate to convert by, VALIDATION_FAILED
    for what is no such pair, CONFLICT when one of them is not open any more, and DATABASE_UNAVAILABLE.
    """
    return database.call("close_by", {"version": REQUEST_VERSION, **request})
