"""What a venue is: what it is asked, what it answers, and how it can fail.

Calls block. Each returns or raises within the time limit that its provider was made with; the caller sets no other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol

from trading.orders import OrderType, Side, TimeInForce

# working: accepted, and more may come; the others are ends.
type VenueState = Literal["working", "filled", "canceled", "rejected"]
type Callback = Callable[["VenueReport"], None]


@dataclass(frozen=True, slots=True)
class VenueOrder:
    """An order as a venue gets it. `client_order_id` is our order id: the venue takes one order under it.

    `quantity` is in lots. A fill at a price worse than `worst_price` is not wanted; None: any will do.
    """

    client_order_id: str
    symbol: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: Decimal
    worst_price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class VenueFill:
    """A trade: `quantity` lots at `price` (quote currency); `trade_id` names it at its venue for ever."""

    trade_id: str
    quantity: Decimal
    price: Decimal
    time: datetime


@dataclass(frozen=True, slots=True)
class VenueReport:
    """An order as its venue sees it now, with every fill so far; `reason` says why it was rejected or canceled."""

    client_order_id: str
    venue_order_id: str
    state: VenueState
    accepted_at: datetime
    fills: tuple[VenueFill, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class VenueAccount:
    """Our account at a venue: what each currency stands at after all trades."""

    account_id: str
    cash: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class VenuePosition:
    """What we hold at a venue: `quantity` lots, below zero when short."""

    symbol: str
    quantity: Decimal


class VenueError(Exception):
    """A venue did not do what it was asked; `code` is what the audit calls it."""

    code = "VENUE_ERROR"


class VenueTimeoutError(VenueError):
    """No answer within the time limit. Whether it was done is not known."""

    code = "TIMEOUT"


class VenueUnavailableError(VenueError):
    """The venue failed (5xx, a broken connection): whether it was done is not known, unless `sent` is False."""

    code = "UNAVAILABLE"

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class VenueRefusedError(VenueError):
    """The venue refused the order, for good; `reason` is its own."""

    code = "REFUSED"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnknownOrderError(VenueError):
    """The venue has no order under this client id. A submission still on its way may yet arrive."""

    code = "UNKNOWN_ORDER"


class OrderDesk(Protocol):
    """What a venue does with orders, over an open connection."""

    def submit(self, order: VenueOrder) -> VenueReport:
        """Hand `order` in. An order that the venue has under the same client id is reported, not executed again.

        Raises VenueRefusedError, VenueTimeoutError and VenueUnavailableError.
        """
        ...

    def cancel(self, client_order_id: str) -> VenueReport:
        """End what is left of an order; the order as it is then.

        Raises UnknownOrderError, VenueTimeoutError and VenueUnavailableError.
        """
        ...

    def status(self, client_order_id: str) -> VenueReport:
        """The order as it is now. Raises UnknownOrderError, VenueTimeoutError and VenueUnavailableError."""
        ...


class Broker(OrderDesk, Protocol):
    """A connection to one venue. Every call but `connect` needs it to be open."""

    def connect(self) -> None:
        """Open it; VenueUnavailableError with sent=False when that fails."""
        ...

    def disconnect(self) -> None:
        """Close it; nothing happens when it is closed."""
        ...

    def is_connected(self) -> bool:
        """Whether it is open."""
        ...

    def ping(self) -> float:
        """The seconds that an answer takes. Raises VenueTimeoutError and VenueUnavailableError."""
        ...

    def account(self) -> VenueAccount:
        """Our account there. Raises VenueTimeoutError and VenueUnavailableError."""
        ...

    def positions(self) -> list[VenuePosition]:
        """What we hold there, by symbol. Raises VenueTimeoutError and VenueUnavailableError."""
        ...

    def subscribe(self, callback: Callback) -> None:
        """Have `callback` told each order that changes while the connection is open. It must not raise."""
        ...
