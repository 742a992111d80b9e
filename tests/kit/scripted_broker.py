"""A venue that behaves by a script: what it does with each call, and what a caller hears of it."""

from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from trading.brokers.protocol import (
    OrderDesk,
    UnknownOrderError,
    VenueFill,
    VenueOrder,
    VenueRefusedError,
    VenueReport,
    VenueTimeoutError,
    VenueUnavailableError,
)

# What becomes of a submission: taken or lost, and whether the caller hears so.
type Submission = Literal[
    "fill", "part", "work", "refuse", "lose", "lose_500", "keep", "keep_500", "keep_part", "closed"
]
# What becomes of a look-up. late: the submission that was lost arrives only now.
type LookUp = Literal["tell", "timeout", "500", "late"]

PRICE = Decimal("150.00")


class ScriptedBroker(OrderDesk):
    """Behaviours are used up one a call; after the last it fills and tells.

    It takes one order a client id, unless it `reuses_ids`: then whatever is sent is traded, as at venues that know
    a client id only while its order works.
    """

    def __init__(
        self,
        submissions: Iterable[Submission] = (),
        look_ups: Iterable[LookUp] = (),
        *,
        reuses_ids: bool = False,
    ) -> None:
        self._reuses_ids = reuses_ids
        self._submissions = deque(submissions)
        self._look_ups = deque(look_ups)
        # How the time of a call passes.
        self.passing: Callable[[], None] = lambda: None
        self.submitted: list[VenueOrder] = []
        self.looked_up = 0
        self._late: dict[str, VenueOrder] = {}
        self._orders: dict[str, VenueOrder] = {}
        self._fills: dict[str, list[VenueFill]] = {}
        self._canceled: set[str] = set()

    def submit(self, order: VenueOrder) -> VenueReport:
        self.submitted.append(order)
        self.passing()
        behaviour = self._submissions.popleft() if self._submissions else "fill"
        match behaviour:
            case "closed":
                raise VenueUnavailableError("connection refused", sent=False)
            case "lose":
                self._late[order.client_order_id] = order
                raise VenueTimeoutError("no answer")
            case "lose_500":
                raise VenueUnavailableError("500")
            case "refuse":
                if order.client_order_id not in self._orders:
                    raise VenueRefusedError("not today")
            case _:
                self._take(order, behaviour)
        if behaviour.startswith("keep"):
            raise VenueUnavailableError("500") if behaviour == "keep_500" else VenueTimeoutError("no answer")
        return self._report(order.client_order_id)

    def status(self, client_order_id: str) -> VenueReport:
        self.looked_up += 1
        self.passing()
        behaviour = self._look_ups.popleft() if self._look_ups else "tell"
        if behaviour == "timeout":
            raise VenueTimeoutError("no answer")
        if behaviour == "500":
            raise VenueUnavailableError("500")
        if behaviour == "late" and client_order_id in self._late:
            self._take(self._late.pop(client_order_id), "fill")
        return self._report(client_order_id)

    def cancel(self, client_order_id: str) -> VenueReport:
        report = self._report(client_order_id)
        if report.state == "working":
            self._canceled.add(client_order_id)
        return self._report(client_order_id)

    def go_on(self, client_order_id: str) -> None:
        """Fill what is left."""
        order = self._orders[client_order_id]
        left = order.quantity - sum(fill.quantity for fill in self._fills[client_order_id])
        if left:
            self._trade(order, left)

    def traded(self, client_order_id: str) -> Decimal:
        """What was filled under a client id."""
        return sum((fill.quantity for fill in self._fills.get(client_order_id, [])), Decimal(0))

    def _take(self, order: VenueOrder, behaviour: str) -> None:
        if order.client_order_id in self._orders and not self._reuses_ids:
            return
        self._orders[order.client_order_id] = order
        self._fills.setdefault(order.client_order_id, [])
        if behaviour == "work":
            return
        self._trade(order, order.quantity / 2 if behaviour.endswith("part") else order.quantity)

    def _trade(self, order: VenueOrder, quantity: Decimal) -> None:
        fills = self._fills[order.client_order_id]
        fills.append(VenueFill(f"{order.client_order_id}-{len(fills) + 1}", quantity, PRICE, datetime.now(UTC)))

    def _report(self, client_order_id: str) -> VenueReport:
        order = self._orders.get(client_order_id)
        if order is None:
            raise UnknownOrderError(client_order_id)
        fills = self._fills[client_order_id]
        filled = sum(fill.quantity for fill in fills) == order.quantity
        state = "filled" if filled else "canceled" if client_order_id in self._canceled else "working"
        # A venue repeats itself: the first fill comes twice.
        return VenueReport(
            client_order_id, f"V-{client_order_id}", state, datetime.now(UTC), (*fills[:1], *fills), None
        )


class FakeTime:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
