"""What the paper and the mock venue share: one decision an order, told again whenever it is asked for."""

from collections.abc import Callable
from datetime import datetime

from trading.brokers.book import Decision, Markets, VenueBook, account_of, positions_of
from trading.brokers.protocol import (
    Callback,
    UnknownOrderError,
    VenueAccount,
    VenueOrder,
    VenuePosition,
    VenueRefusedError,
    VenueReport,
    VenueUnavailableError,
)

# Beside a decision under its client id: that the order was canceled, and when.
CANCEL_SUFFIX = "/cancel"


class SimulatedBroker:
    """A venue in this process with its memory in `book`; `decide` says what becomes of an order that is new there."""

    def __init__(self, name: str, book: VenueBook, markets: Markets, clock: Callable[[], datetime]) -> None:
        self.name = name
        self._book = book
        self._markets = markets
        self._clock = clock
        self._connected = False
        self._callbacks: list[Callback] = []

    def decide(self, order: VenueOrder, now: datetime) -> Decision:
        """What becomes of an order that is seen for the first time."""
        raise NotImplementedError

    def connect(self) -> None:
        """Open the connection."""
        self._connected = True

    def disconnect(self) -> None:
        """Close it and forget who listens."""
        self._connected = False
        self._callbacks.clear()

    def is_connected(self) -> bool:
        """Whether it is open."""
        return self._connected

    def ping(self) -> float:
        """No time at all: the venue is here."""
        self._require_connection()
        return 0.0

    def submit(self, order: VenueOrder) -> VenueReport:
        """As the protocol says: the first decision under a client id stands."""
        self._require_connection()
        report = self.take(order)
        if report.state == "rejected":
            raise VenueRefusedError(report.reason or "refused")
        return report

    def take(self, order: VenueOrder) -> VenueReport:
        """Have `order` decided and kept, unless one is kept under its client id; the order as it is now."""
        record, created = self._book.find(order.client_order_id), False
        if record is None:
            # Whoever is first of two at once has decided for both.
            decision = self.decide(order, self._clock())
            record, created = self._book.keep(order.client_order_id, decision.as_record())
        report = self._report(Decision.from_record(record))
        if created:
            self._tell(report)
        return report

    def cancel(self, client_order_id: str) -> VenueReport:
        """As the protocol says."""
        before = self.status(client_order_id)
        if before.state != "working":
            return before
        self._book.keep(client_order_id + CANCEL_SUFFIX, {"canceled_at": self._clock().isoformat()})
        report = self.status(client_order_id)
        self._tell(report)
        return report

    def status(self, client_order_id: str) -> VenueReport:
        """As the protocol says."""
        self._require_connection()
        record = self._book.find(client_order_id)
        if record is None:
            raise UnknownOrderError(f"{self.name} has no order {client_order_id}")
        return self._report(Decision.from_record(record))

    def account(self) -> VenueAccount:
        """As the protocol says."""
        return account_of(self.name, self._decisions())

    def positions(self) -> list[VenuePosition]:
        """As the protocol says."""
        return positions_of(self._decisions())

    def subscribe(self, callback: Callback) -> None:
        """As the protocol says."""
        self._require_connection()
        self._callbacks.append(callback)

    def _decisions(self) -> list[tuple[Decision, VenueReport]]:
        self._require_connection()
        found = [Decision.from_record(record) for record in self._book.records() if "venue_order_id" in record]
        return [(decision, self._report(decision)) for decision in found]

    def _report(self, decision: Decision) -> VenueReport:
        canceled = None if decision.is_final else self._book.find(decision.order.client_order_id + CANCEL_SUFFIX)
        canceled_at = None if canceled is None else datetime.fromisoformat(canceled["canceled_at"])
        return decision.report(self._clock(), canceled_at)

    def _tell(self, report: VenueReport) -> None:
        for callback in self._callbacks:
            callback(report)

    def _require_connection(self) -> None:
        if not self._connected:
            raise VenueUnavailableError(f"{self.name} is not connected", sent=False)
