"""The memory of a simulated venue: what it decided about each client id, once.

A venue outlives the process that asks it. A simulated one therefore decides an order when it first sees it, fills and
their times included, and keeps the decision where the next process finds it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from trading.brokers.protocol import VenueAccount, VenueFill, VenueOrder, VenuePosition, VenueReport
from trading.instruments import Instrument
from trading.pricing import MarketPrice

type Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VenueMarket:
    """What a venue trades a symbol at now."""

    instrument: Instrument
    price: MarketPrice
    after_hours: bool


type Markets = Callable[[str], VenueMarket | None]


class VenueBook(Protocol):
    """Records by name, each written once."""

    def keep(self, name: str, record: Record) -> tuple[Record, bool]:
        """The record that stands under `name`, and whether it is this one."""
        ...

    def find(self, name: str) -> Record | None:
        """The record of `name`, or None."""
        ...

    def records(self) -> Iterator[Record]:
        """All of them."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What a venue decided about an order. Fills count from their time on; `reason` is set when it was refused."""

    order: VenueOrder
    venue_order_id: str
    accepted_at: datetime
    fills: tuple[VenueFill, ...]
    quote_currency: str
    contract_size: Decimal
    reason: str | None = None

    def as_record(self) -> Record:
        """The decision as JSON; numbers are text."""
        return {
            "client_order_id": self.order.client_order_id,
            "symbol": self.order.symbol,
            "side": self.order.side,
            "order_type": self.order.order_type,
            "time_in_force": self.order.time_in_force,
            "quantity": str(self.order.quantity),
            "venue_order_id": self.venue_order_id,
            "accepted_at": self.accepted_at.isoformat(),
            "quote_currency": self.quote_currency,
            "contract_size": str(self.contract_size),
            "reason": self.reason,
            "fills": [
                {
                    "trade_id": fill.trade_id,
                    "quantity": str(fill.quantity),
                    "price": str(fill.price),
                    "time": fill.time.isoformat(),
                }
                for fill in self.fills
            ],
        }

    @classmethod
    def from_record(cls, record: Record) -> "Decision":
        """The decision in a record."""
        return cls(
            VenueOrder(
                record["client_order_id"],
                record["symbol"],
                record["side"],
                record["order_type"],
                record["time_in_force"],
                Decimal(record["quantity"]),
            ),
            record["venue_order_id"],
            datetime.fromisoformat(record["accepted_at"]),
            tuple(
                VenueFill(
                    fill["trade_id"],
                    Decimal(fill["quantity"]),
                    Decimal(fill["price"]),
                    datetime.fromisoformat(fill["time"]),
                )
                for fill in record["fills"]
            ),
            record["quote_currency"],
            Decimal(record["contract_size"]),
            record["reason"],
        )

    @property
    def is_final(self) -> bool:
        """Whether the order was over when it was decided, so that no cancel could reach it."""
        at_once = sum(fill.quantity for fill in self.fills if fill.time <= self.accepted_at)
        return self.reason is not None or at_once == self.order.quantity

    def report(self, now: datetime, canceled_at: datetime | None = None) -> VenueReport:
        """The order at `now`: with the fills until then, none of them after a cancel."""
        ends_at = now if canceled_at is None else min(now, canceled_at)
        fills = tuple(fill for fill in self.fills if fill.time <= ends_at)
        if self.reason is not None:
            state = "rejected"
        elif sum(fill.quantity for fill in fills) == self.order.quantity:
            state = "filled"
        else:
            state = "working" if canceled_at is None else "canceled"
        reason = "canceled on request" if state == "canceled" else self.reason
        return VenueReport(self.order.client_order_id, self.venue_order_id, state, self.accepted_at, fills, reason)


def cash_of(decisions: Sequence[tuple[Decision, VenueReport]]) -> dict[str, Decimal]:
    """What trades have brought and cost, by quote currency."""
    cash: dict[str, Decimal] = {}
    for decision, report in decisions:
        if not report.fills:
            continue
        sign = -1 if decision.order.side == "buy" else 1
        moved = sum((fill.quantity * fill.price for fill in report.fills), Decimal(0)) * decision.contract_size
        cash[decision.quote_currency] = cash.get(decision.quote_currency, Decimal(0)) + sign * moved
    return cash


def positions_of(decisions: Sequence[tuple[Decision, VenueReport]]) -> list[VenuePosition]:
    """What is held, by symbol, without what has come to nothing."""
    held: dict[str, Decimal] = {}
    for decision, report in decisions:
        sign = 1 if decision.order.side == "buy" else -1
        moved = sum((fill.quantity for fill in report.fills), Decimal(0))
        held[decision.order.symbol] = held.get(decision.order.symbol, Decimal(0)) + sign * moved
    return [VenuePosition(symbol, quantity) for symbol, quantity in sorted(held.items()) if quantity != 0]


def account_of(account_id: str, decisions: Sequence[tuple[Decision, VenueReport]]) -> VenueAccount:
    """The account that these decisions leave; it began with nothing."""
    return VenueAccount(account_id, cash_of(decisions))
