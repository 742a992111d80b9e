"""Orders that depend on each other, through the procedure, as the function's role sends them."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg

from tests.kit.builders import User
from tests.kit.orders import Market, Outcome, keyed_request, send
from tests.kit.ticks import call, execution_request

type Racer = Callable[[psycopg.Connection[Any]], str]


def leg(**overrides: object) -> dict[str, object]:
    """An order of a group: buy one lot of EURUSD at a limit of 1.0950. None takes a field out."""
    given = {
        "symbol": "EURUSD",
        "order_type": "limit",
        "side": "buy",
        "quantity": "1",
        "limit_price": "1.0950",
        "time_in_force": "gtc",
    }
    return {name: value for name, value in (given | overrides).items() if value is not None}


def stop_leg(**overrides: object) -> dict[str, object]:
    """An order of a group without a limit: buy one lot of EURUSD at 1.1050 or above."""
    return leg(**{"order_type": "stop", "limit_price": None, "stop_price": "1.1050"} | overrides)


def linked_request(user: User, kind: str, *orders: dict[str, object], **fields: object) -> dict[str, object]:
    """A request of place_linked_orders."""
    return keyed_request(user, kind=kind, orders=list(orders), **fields)


def bracket_request(user: User, entry: dict[str, object], **fields: object) -> dict[str, object]:
    """A request for an entry whose exits stand at 1.0900 and 1.1100."""
    exits = {"take_profit": {"limit_price": "1.1100"}, "stop_loss": {"stop_price": "1.0900"}}
    return linked_request(user, "bracket", entry, **exits | fields)


def place_linked(market: Market, request: dict[str, object]) -> Outcome:
    """What the procedure answers."""
    return send(market.trader, request, "place_linked_orders")


def placed(market: Market, request: dict[str, object]) -> list[UUID]:
    """The orders of a group that was accepted, in the order of its answer."""
    outcome = place_linked(market, request)
    assert outcome["outcome"] == "placed", outcome.text
    return [UUID(order["order_id"]) for order in outcome["orders"]]


def states(market: Market, user: User, ids: list[UUID]) -> list[tuple[Any, ...]]:
    """Status, what is filled, what is left and how much of that is held, of each order."""
    rows = {row["id"]: row for row in market.rows("orders", user)}
    names = ("status", "filled_quantity", "leaves_quantity", "held_quantity")
    return [tuple(rows[order_id][name] for name in names) for order_id in ids]


def events(market: Market, user: User) -> list[str]:
    """The names of the user's events, in their order."""
    return [row["event_type"] for row in sorted(market.rows("events", user), key=lambda row: row["sequence"])]


def executing(market: Market, claimed: dict[str, Any]) -> Racer:
    """A worker, on a connection of its own, with a row that it has claimed; told the state that it came to."""

    def execute(_: psycopg.Connection[Any]) -> str:
        with market.database.connect("function_triggers") as connection:
            return call(connection, "execute_trigger", execution_request(claimed))["state"]

    return execute


def canceling(user: User, order_id: UUID) -> Racer:
    """A caller who cancels an order; told the outcome or the SQLSTATE."""

    def cancel(connection: psycopg.Connection[Any]) -> str:
        try:
            return send(connection, keyed_request(user, order_id=str(order_id)), "cancel_order")["outcome"]
        except psycopg.Error as error:
            return error.sqlstate or ""

    return cancel
