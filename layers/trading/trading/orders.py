"""Orders: the words for what they are and the states that they may pass through."""

from collections.abc import Mapping
from typing import Literal

type Side = Literal["buy", "sell"]
type OrderType = Literal[
    "market",
    "limit",
    "stop",
    "stop_limit",
    "market_if_touched",
    "limit_if_touched",
    "trailing_stop",
    "trailing_stop_limit",
]
type TimeInForce = Literal["day", "gtc", "gtd", "ioc", "fok", "opg", "cls"]
# What of a quote a condition looks at, and from where the price has to come to its level.
type QuoteSide = Literal["bid", "ask"]
type Direction = Literal["at_or_above", "at_or_below"]
# How an order depends on others; those of a bracket's entry are its exits.
type Contingency = Literal["oco", "oto_parent", "oto_child", "bracket_exit"]
type OrderStatus = Literal[
    "initialized",
    "pending_new",
    "new",
    "triggered",
    "partially_filled",
    "filled",
    "canceled",
    "expired",
    "replaced",
    "denied",
    "rejected",
]

# The same table stands in the database (order_transitions), whose guard refuses every other step; a test holds the
# two equal. An order is `initialized` before its first row. `denied` is said by our own checks before it worked,
# `rejected` by the venue, or by our checks when it triggers.
TRANSITIONS: Mapping[OrderStatus, frozenset[OrderStatus]] = {
    "initialized": frozenset({"denied", "pending_new", "rejected", "new", "canceled", "expired", "triggered"}),
    "pending_new": frozenset({"new", "rejected", "canceled", "partially_filled", "filled"}),
    "new": frozenset(
        {"rejected", "canceled", "triggered", "expired", "replaced", "partially_filled", "filled"},
    ),
    "triggered": frozenset({"rejected", "canceled", "expired", "replaced", "partially_filled", "filled"}),
    "partially_filled": frozenset({"canceled", "expired", "replaced", "partially_filled", "filled"}),
    # A fill that arrives after the cancel is booked; with nothing left the order is filled after all.
    "canceled": frozenset({"filled"}),
    "filled": frozenset(),
    "expired": frozenset(),
    "replaced": frozenset(),
    "denied": frozenset(),
    "rejected": frozenset(),
}

# Nothing is left to do on an order in one of these, though a late fill may still be booked to a canceled one.
CLOSED_STATUSES: frozenset[OrderStatus] = frozenset({"filled", "canceled", "expired", "replaced", "denied", "rejected"})
