"""The procedures that make and change orders."""

from collections.abc import Mapping
from typing import Any

from trading.store.database import Database

REQUEST_VERSION = 1


def execute_order_atomic(database: Database, request: Mapping[str, object]) -> dict[str, Any]:
    """Execute a market order in one transaction: {replayed, answer}, the answer as the procedure documents it.

    Raises NOT_FOUND, UNKNOWN_SYMBOL, IDEMPOTENCY_KEY_REUSED, MARKET_DATA_UNAVAILABLE, CONFLICT, VALIDATION_FAILED and
    DATABASE_UNAVAILABLE; then nothing is kept and the key is free, but for the last, where the outcome is unknown
    until the same key is sent again.
    """
    return database.call("execute_order_atomic", {"version": REQUEST_VERSION, **request})


def accept_order(database: Database, request: Mapping[str, object]) -> dict[str, Any]:
    """Accept a market order for another venue: {replayed, answer}; errors as of execute_order_atomic."""
    return database.call("accept_order", {"version": REQUEST_VERSION, **request})
