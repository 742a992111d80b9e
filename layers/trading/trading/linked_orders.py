"""Orders that depend on each other: what a caller asks for, and placing it.

`oco`: two orders of which one cancels the other. `oto`: a parent whose fills set its children to work. `bracket`: an
entry with a take profit and a stop loss, which close what it opens.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trading.errors import TradingError, validation_failed
from trading.execution import (
    Execution,
    Instruments,
    OrderProcedure,
    Origin,
    RelayWaker,
    check_against_instrument,
    origin_fields,
    settled,
)
from trading.instruments import INTERNAL, Instrument
from trading.order_entry import MARKET_TIMES_IN_FORCE, RESTING_TIMES_IN_FORCE, TIMED, TRAILING_TYPES, OrderEntry, Price

type LinkKind = Literal["oco", "oto", "bracket"]

CHILDREN_MAX = 5


class TakeProfit(BaseModel):
    """The exit of a bracket at a better price, in the instrument's quote currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit_price: Price


class StopLoss(BaseModel):
    """The exit of a bracket at a worse price; with `limit_price` it is filled there or better."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stop_price: Price
    limit_price: Price | None = None


@dataclass(frozen=True, slots=True)
class LinkedEntry:
    """A group of new orders, the parent or entry first; `places` says where the request has each of them.

    The key and the account of the group stand on each order. The exits are a bracket's, None otherwise.
    """

    kind: LinkKind
    orders: tuple[OrderEntry, ...]
    places: tuple[str, ...]
    take_profit: TakeProfit | None = None
    stop_loss: StopLoss | None = None


def place_linked(
    entry: LinkedEntry,
    origin: Origin,
    *,
    request_hash: str,
    key_days: int,
    instruments: Instruments,
    procedure: OrderProcedure,
    wake_relay: RelayWaker,
) -> Execution:
    """Check each order against its instrument, place all of them, and wake the relay.

    Raises what store.orders.place_linked_orders raises; a fault of one order names it: orders.1.quantity.
    """
    check_linked(entry, instruments)
    key = {"idempotency_key": entry.orders[0].idempotency_key}
    return settled(procedure(asked_of(entry) | key | origin_fields(origin, request_hash, key_days)), wake_relay)


def check_linked(entry: LinkedEntry, instruments: Instruments) -> None:
    """Each order fits its instrument and its place, all of them each other; VALIDATION_FAILED, UNKNOWN_SYMBOL."""
    _check_together(entry)
    for place, order in enumerate(entry.orders):
        with faults_at(entry.places[place]):
            instrument = check_against_instrument(order, instruments.find(order.symbol))
            _check_waiting(order)
            if place == 0 and entry.kind != "oco":
                _check_parent(order, instrument)
            elif order.post_only and entry.kind == "oto":
                raise validation_failed(
                    "post_only", order.post_only, "left out",
                    "A child may be filled in the moment in which its parent sets it to work: leave post_only out.",
                )  # fmt: skip
            elif order.order_type == "market":
                raise validation_failed(
                    "order_type", order.order_type, "an order that waits for a price",
                    "Send order_type as one that waits for a price, such as limit or stop.",
                )  # fmt: skip
        if entry.kind == "bracket":
            _check_exits(entry, order, instrument)


@contextmanager
def faults_at(place: str) -> Generator[None]:
    """A refusal inside names its field by where the request has it."""
    try:
        yield
    except TradingError as error:
        if "field" in error.details:
            error.details["field"] = f"{place}.{error.details['field']}"
        raise


def asked_of(entry: LinkedEntry) -> dict[str, object]:
    """What is asked for, without the key."""
    first = entry.orders[0]
    of_the_group = {"idempotency_key", "account_id"}
    asked: dict[str, object] = {
        "kind": entry.kind,
        "orders": [order.model_dump(mode="python", exclude_none=True, exclude=of_the_group) for order in entry.orders],
    }
    if first.account_id is not None:
        asked["account_id"] = first.account_id
    for name, exit_order in (("take_profit", entry.take_profit), ("stop_loss", entry.stop_loss)):
        if exit_order is not None:
            asked[name] = exit_order.model_dump(mode="python", exclude_none=True)
    return asked


def _check_together(entry: LinkedEntry) -> None:
    """Two of which one cancels the other are of one symbol and quantity: else what would be left of one is a guess."""
    if entry.kind != "oco":
        return
    first, second = entry.orders
    for field in ("symbol", "quantity"):
        if getattr(first, field) != getattr(second, field):
            raise validation_failed(
                f"{entry.places[1]}.{field}",
                getattr(second, field),
                f"the {field} of the other order",
                f"Send the same {field} for both orders: one cancels the other.",
            )


def _check_waiting(order: OrderEntry) -> None:
    """What is held for its parent waits for a price alone: for no time, no trail and no conditions."""
    if order.conditions is not None:
        raise validation_failed(
            "conditions",
            len(order.conditions),
            "left out",
            "Orders of a group have no conditions of their own: leave conditions out.",
        )
    if order.order_type in TRAILING_TYPES:
        raise validation_failed(
            "order_type",
            order.order_type,
            "an order that waits for a price of its own",
            "Orders of a group do not trail: send order_type as limit, stop, stop_limit or one that is if touched.",
        )
    taken = MARKET_TIMES_IN_FORCE - TIMED if order.order_type == "market" else RESTING_TIMES_IN_FORCE
    if order.time_in_force not in taken:
        raise validation_failed(
            "time_in_force",
            order.time_in_force,
            "day, gtc or gtd",
            "An order of a group waits: send time_in_force as day, gtc or gtd, or leave it out.",
        )


def _check_parent(order: OrderEntry, instrument: Instrument) -> None:
    """A market order that leaves for another venue comes back when its children have long been asked about."""
    if order.order_type == "market" and instrument.venue != INTERNAL:
        raise validation_failed(
            "order_type",
            order.order_type,
            "an order that waits for a price",
            f"Market orders in {order.symbol} go to another venue: send order_type as limit or stop.",
        )


def _check_exits(entry: LinkedEntry, order: OrderEntry, instrument: Instrument) -> None:
    """They lie on the tick, and the entry has none of its own beside them."""
    for field in ("stop_loss", "take_profit"):
        if getattr(order, field) is not None:
            raise validation_failed(
                f"{entry.places[0]}.{field}",
                getattr(order, field),
                "left out",
                f"Send {field} beside the entry, not in it.",
            )
    tick = f"a multiple of {instrument.tick_size:f}"
    for name, exit_order in (("take_profit", entry.take_profit), ("stop_loss", entry.stop_loss)):
        for field, price in exit_order.model_dump(exclude_none=True).items() if exit_order else ():
            if not instrument.takes_price(price):
                raise validation_failed(
                    f"{name}.{field}", price, tick, f"Prices of {order.symbol} have a tick: send {tick}."
                )
