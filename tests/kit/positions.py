"""Positions that are managed, through the procedures and as the function's role asks for it."""

from decimal import Decimal
from typing import Any

from tests.kit.builders import User
from tests.kit.orders import Market, Outcome, keyed_request, send


def change_request(user: User, position_id: object, *, version: int | None = None, **levels: object) -> dict[str, Any]:
    """A request of change_position, its numbers as text; with the key or hash that `levels` has among them."""
    given = {name: levels.pop(name) for name in ("idempotency_key", "request_hash", "request_id") if name in levels}
    request = keyed_request(user, position_id=str(position_id), levels=levels, **given)
    return request if version is None else request | {"expected_version": version}


def change(market: Market, user: User, position_id: object, **asked: Any) -> Outcome:
    """Change the levels of a position of `user`."""
    return send(market.trader, change_request(user, position_id, **asked), "change_position")


def levels_of(market: Market, user: User, position_id: object) -> tuple[Decimal | None, ...]:
    """Of a position's row: stop loss, take profit, trail distance, trail mark."""
    row = row_of(market, user, position_id)
    return row["stop_loss"], row["take_profit"], row["trail_distance"], row["trail_mark"]


def row_of(market: Market, user: User, position_id: object) -> dict[str, Any]:
    """A position's row."""
    (row,) = [row for row in market.rows("positions", user) if str(row["id"]) == str(position_id)]
    return row
