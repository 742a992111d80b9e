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


def place_order(database: Database, request: Mapping[str, object]) -> dict[str, Any]:
    """Let a limit, stop or stop limit order rest: {replayed, answer}; raises as execute_order_atomic."""
    return database.call("place_order", {"version": REQUEST_VERSION, **request})


def place_linked_orders(database: Database, request: Mapping[str, object]) -> dict[str, Any]:
    """Place orders that depend on each other, all or none: {replayed, answer}; raises as execute_order_atomic."""
    return database.call("place_linked_orders", {"version": REQUEST_VERSION, **request})


def cancel_order(database: Database, request: Mapping[str, object]) -> dict[str, Any]:
    """Cancel a working order: {replayed, answer}.

    Raises NOT_FOUND, IDEMPOTENCY_KEY_REUSED, ORDER_NOT_CANCELABLE, whose details name the state that the order is in,
    RISK_LIMIT_VIOLATION for a stop loss that is required, and DATABASE_UNAVAILABLE as execute_order_atomic.
    """
    return database.call("cancel_order", {"version": REQUEST_VERSION, **request})


def cancel_orders(database: Database, request: Mapping[str, object]) -> dict[str, Any]:
    """Cancel the working orders of an account, or some of them: {replayed, answer}.

    Raises NOT_FOUND, UNKNOWN_SYMBOL, IDEMPOTENCY_KEY_REUSED, VALIDATION_FAILED where the account has to be named, and
    DATABASE_UNAVAILABLE as execute_order_atomic.
    """
    return database.call("cancel_orders", {"version": REQUEST_VERSION, **request})


def replace_order(database: Database, request: Mapping[str, object]) -> dict[str, Any]:
    """Replace a working order: {replayed, answer}.

    Raises NOT_FOUND, IDEMPOTENCY_KEY_REUSED, MARKET_DATA_UNAVAILABLE, VALIDATION_FAILED, CONFLICT for another version
    or a client_order_id that is taken, ORDER_NOT_CANCELABLE for an order that does not work, each with the `order` as
    it is in its details but for the client_order_id, and DATABASE_UNAVAILABLE as execute_order_atomic.
    """
    return database.call("replace_order", {"version": REQUEST_VERSION, **request})


def close_position(database: Database, request: Mapping[str, object]) -> dict[str, Any]:
    """Close a position or a part of it at the market: {replayed, answer}.

    Raises NOT_FOUND, IDEMPOTENCY_KEY_REUSED, MARKET_DATA_UNAVAILABLE, VALIDATION_FAILED, CONFLICT when it is not open
    any more, and DATABASE_UNAVAILABLE as execute_order_atomic.
    """
    return database.call("close_position", {"version": REQUEST_VERSION, **request})


def accept_order(database: Database, request: Mapping[str, object]) -> dict[str, Any]:
    """Accept a market order for another venue: {replayed, answer}; errors as of execute_order_atomic."""
    return database.call("accept_order", {"version": REQUEST_VERSION, **request})
