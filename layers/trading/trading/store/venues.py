"""The database's procedures of orders on their way to a venue, and the simulated venues' books."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from trading.brokers.book import Record, VenueMarket
from trading.brokers.protocol import VenueFill, VenueOrder
from trading.instruments import Instrument
from trading.orders import OrderStatus
from trading.pricing import MarketPrice
from trading.store.database import Database

REQUEST_VERSION = 1
PAGE_RECORDS_MAX = 1000

type RouteState = Literal["new", "unknown", "working"]
type Attempt = Literal["EXECUTED", "RECOVERED"]
type Ending = Literal["rejected", "canceled"]
type Step = Literal["submit", "look_up"]


@dataclass(frozen=True, slots=True)
class OrderId:
    """The key of an order."""

    user_id: UUID
    order_id: UUID


@dataclass(frozen=True, slots=True)
class RoutedOrder:
    """An order under lease. `state` is the one before the lease; `attempts` submissions were begun, this one included.

    `submitted_ms_ago` is the age of the last one; `told` that its owner knows that its outcome is not known; `stopped`
    that it would add exposure where the trading states do not allow that any more.
    """

    id: OrderId
    account_id: UUID
    venue: str
    order: VenueOrder
    status: OrderStatus
    state: RouteState
    attempts: int
    submitted_ms_ago: int
    told: bool
    fencing: int
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Booked:
    """What came of a fill or an end: whether it was news, and the order's state now."""

    news: bool
    status: OrderStatus


class VenueStore:
    """Procedures of the router. `holder` names this copy of it in its leases."""

    def __init__(self, database: Database, holder: UUID, *, lease_ms: int, request_id: str | None = None) -> None:
        self._database = database
        self._holder = holder
        self._lease_ms = lease_ms
        self._request_id = request_id

    def claim(self, orders: Sequence[OrderId] | None, *, limit: int) -> list[RoutedOrder]:
        """Lease up to `limit` unsettled orders: of `orders`, or of those that are due."""
        named = orders and [{"user_id": order.user_id, "order_id": order.order_id} for order in orders]
        request = {"holder": self._holder, "orders": named, "limit": limit, "lease_ms": self._lease_ms}
        return [_routed(row) for row in self._call("claim_venue_orders", request)]

    def record(
        self,
        routed: RoutedOrder,
        action: Attempt,
        *,
        retry_attempt: int,
        step: Step,
        error_code: str | None = None,
        venue_order_id: str | None = None,
        unresolved: bool = False,
    ) -> bool:
        """Audit an attempt and renew the lease; False when the lease is lost or the order settled: leave it alone.

        `unresolved` tells the order's owner that its outcome is not known.
        """
        request = {
            **self._leased(routed),
            "lease_ms": self._lease_ms,
            "action": action,
            "retry_attempt": retry_attempt,
            "step": step,
            "error_code": error_code,
            "venue_order_id": venue_order_id,
            "unresolved": unresolved,
            "request_id": self._request_id,
        }
        return self._call("record_venue_attempt", request)["recorded"]

    def book_fill(self, routed: RoutedOrder, venue_order_id: str, fill: VenueFill, retry_attempt: int) -> Booked:
        """Book a trade. CONFLICT for one that cannot be: it needs a person."""
        request = {
            **_key(routed),
            "venue": routed.venue,
            "venue_order_id": venue_order_id,
            "trade_id": fill.trade_id,
            "quantity": fill.quantity,
            "price": fill.price,
            "retry_attempt": retry_attempt,
            "request_id": self._request_id,
        }
        answer = self._call("book_venue_fill", request)
        return Booked(answer["outcome"] == "booked", answer["status"])

    def end(
        self,
        routed: RoutedOrder,
        status: Ending,
        *,
        code: str,
        reason: str,
        retry_attempt: int,
        venue_order_id: str | None = None,
    ) -> Booked:
        """End the order at its venue's word."""
        request = {
            **_key(routed),
            "status": status,
            "code": code,
            "reason": reason,
            "retry_attempt": retry_attempt,
            "venue_order_id": venue_order_id,
            "request_id": self._request_id,
        }
        answer = self._call("reject_venue_order", request)
        return Booked(answer["outcome"] == "ended", answer["status"])

    def release(self, routed: RoutedOrder, *, due_ms: int) -> None:
        """Give the lease back; the order is due again in `due_ms`."""
        self._call("release_venue_order", {**self._leased(routed), "due_ms": due_ms})

    def _leased(self, routed: RoutedOrder) -> dict[str, object]:
        return {**_key(routed), "holder": self._holder, "fencing": routed.fencing}

    def _call(self, procedure: str, request: Mapping[str, object]) -> Any:
        return self._database.call(procedure, {"version": REQUEST_VERSION, **request})


class DatabaseBook:
    """The book of a simulated venue in the database."""

    def __init__(self, database: Database, venue: str) -> None:
        self._database = database
        self._venue = venue

    def keep(self, name: str, record: Record) -> tuple[Record, bool]:
        """The record that stands under `name`, and whether it is this one."""
        request = {"version": REQUEST_VERSION, "venue": self._venue, "client_order_id": name, "record": dict(record)}
        kept = self._database.call("keep_venue_record", request)
        return kept["record"], kept["created"]

    def find(self, name: str) -> Record | None:
        """The record of `name`, or None."""
        request = {"version": REQUEST_VERSION, "venue": self._venue, "client_order_id": name}
        return self._database.call("find_venue_record", request)

    def records(self) -> Iterator[Record]:
        """All of them, page by page."""
        after: str | None = None
        while True:
            request = {"version": REQUEST_VERSION, "venue": self._venue, "after": after, "limit": PAGE_RECORDS_MAX}
            page = self._database.call("list_venue_records", request)
            yield from (row["record"] for row in page)
            if len(page) < PAGE_RECORDS_MAX:
                return
            after = page[-1]["client_order_id"]


def venue_market(database: Database, symbol: str) -> VenueMarket | None:
    """What a simulated venue trades `symbol` at now; None without a fresh quote."""
    row = database.fetch_one("SELECT get_venue_market(%s) AS market", (symbol,))
    market = row["market"] if row else None
    if market is None:
        return None
    price = MarketPrice(*(Decimal(market[name]) for name in ("bid", "ask", "volatility")))
    return VenueMarket(Instrument.from_row(market["instrument"]), price, market["after_hours"])


def _key(routed: RoutedOrder) -> dict[str, object]:
    return {"user_id": routed.id.user_id, "order_id": routed.id.order_id}


def _routed(row: Mapping[str, Any]) -> RoutedOrder:
    return RoutedOrder(
        id=OrderId(UUID(row["user_id"]), UUID(row["order_id"])),
        account_id=UUID(row["account_id"]),
        venue=row["venue"],
        order=VenueOrder(
            client_order_id=row["order_id"],
            symbol=row["symbol"],
            side=row["side"],
            order_type=row["order_type"],
            time_in_force=row["time_in_force"],
            quantity=Decimal(row["quantity"]),
            worst_price=None if row["worst_price"] is None else Decimal(row["worst_price"]),
        ),
        status=row["status"],
        state=row["state"],
        attempts=row["attempts"],
        submitted_ms_ago=row["submitted_ms_ago"],
        told=row["told"],
        fencing=row["fencing"],
        stopped=row["stopped"],
    )
