"""Routing: hands orders to their venues, and finds out what became of them when a venue does not say.

A venue's silence is not a refusal. An order whose submission was not answered is looked up by our own id before it is
sent again under the same id, and stays in flight until the venue has said what it is.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

from trading.brokers.protocol import (
    OrderDesk,
    UnknownOrderError,
    VenueError,
    VenueRefusedError,
    VenueReport,
)
from trading.errors import ErrorCode, TradingError
from trading.observability import MetricUnit, logger, metrics
from trading.settings import ConfigurationError
from trading.store.venues import Attempt, Ending, OrderId, RoutedOrder, Step, VenueStore

SWEEP_ORDERS_MAX = 100
# What a step takes beside the venue's own time: the database's.
STEP_SECONDS = 2.0
# An order that is not settled is looked at again after this.
RECHECK_MS = 20_000

REJECTED = "VENUE_REJECTED"
CANCELED = "VENUE_CANCELED"
LOST = "VENUE_UNAVAILABLE"
STOPPED = "TRADING_HALTED"

type Brokers = Callable[[str], OrderDesk]
type Announce = Callable[[UUID], None]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often a venue is asked. Times in seconds; a call takes at most `venue_timeout`.

    `lost_after`: a submission this old that the venue does not know has not arrived and will not.
    """

    attempts_max: int = 3
    first_wait: float = 1.0
    venue_timeout: float = 5.0
    lost_after: float = 30.0

    @property
    def waits(self) -> list[float]:
        """The pause before each repeat: 1, 2, 4 ..."""
        return [self.first_wait * 2**number for number in range(self.attempts_max)]

    @property
    def step_seconds(self) -> float:
        """What a look-up and a submission after it may take together."""
        return 2 * self.venue_timeout + STEP_SECONDS

    @property
    def lease_ms(self) -> int:
        """Longer than the longest time between two renewals."""
        return int((max(self.waits, default=0.0) + self.step_seconds + STEP_SECONDS) * 1000)


@dataclass(slots=True)
class RoutingReport:
    """What a run did, in orders. `failed` could not be followed: our fault, or an impossible word of a venue."""

    claimed: int = 0
    settled: int = 0
    in_flight: int = 0
    failed: int = 0


class LeaseLostError(Exception):
    """Another copy has the order now."""


class OutOfTimeError(Exception):
    """The next step might not end in time; the next run goes on from here."""


class Router:
    """One copy of the router. Any number may run at once; an order is followed by one of them at a time."""

    def __init__(
        self,
        store: VenueStore,
        brokers: Brokers,
        policy: RetryPolicy,
        announce: Announce,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._brokers = brokers
        self._policy = policy
        self._announce = announce
        self._clock = clock
        self._sleep = sleep

    def route(self, orders: Sequence[OrderId], *, until: float) -> RoutingReport:
        """Follow `orders` until they are settled, or attempts or time are used up; leave alone what another copy has.

        `until` is on the monotonic clock. Raises TradingError when the database is gone: leases run out, and the sweep
        finds what is left.
        """
        return self._follow_all(self._store.claim(orders, limit=len(orders)), until)

    def sweep(self, *, until: float) -> RoutingReport:
        """Follow whatever is due, one order at a time, while there is time for another."""
        report = RoutingReport()
        while report.claimed < SWEEP_ORDERS_MAX and self._has_time(until):
            claimed = self._store.claim(None, limit=1)
            if not claimed:
                break
            found = self._follow_all(claimed, until)
            for name, count in asdict(found).items():
                setattr(report, name, getattr(report, name) + count)
        return report

    def _follow_all(self, claimed: Sequence[RoutedOrder], until: float) -> RoutingReport:
        report = RoutingReport(claimed=len(claimed))
        for routed in claimed:
            try:
                settled = self._following(routed, until).run()
            except (TradingError, ConfigurationError) as error:
                if isinstance(error, TradingError) and error.code is ErrorCode.DATABASE_UNAVAILABLE:
                    raise
                report.failed += 1
                logger().error("an order cannot be followed", order_id=str(routed.id.order_id), exc_info=error)
                self._store.release(routed, due_ms=RECHECK_MS)
                continue
            report.settled += int(settled)
            report.in_flight += int(not settled)
        return report

    def _following(self, routed: RoutedOrder, until: float) -> "Following":
        pause = Pause(until - self._policy.step_seconds, self._clock, self._sleep)
        return Following(self._store, self._brokers(routed.venue), self._policy, self._announce, routed, pause)

    def _has_time(self, until: float) -> bool:
        return self._clock() + self._policy.step_seconds <= until


@dataclass(frozen=True, slots=True)
class Pause:
    """Waiting, as long as another step still ends in time: the last one begins at `last_start` at the latest."""

    last_start: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]

    def __call__(self, seconds: float) -> None:
        """Wait. Raises OutOfTimeError instead when no step would fit behind it."""
        if self.clock() + seconds > self.last_start:
            raise OutOfTimeError
        if seconds > 0:
            self.sleep(seconds)


class Following:
    """One order under lease, from where the last run left it."""

    def __init__(
        self,
        store: VenueStore,
        broker: OrderDesk,
        policy: RetryPolicy,
        announce: Announce,
        routed: RoutedOrder,
        pause: Pause,
    ) -> None:
        self._store = store
        self._broker = broker
        self._policy = policy
        self._announce = announce
        self._routed = routed
        self._pause = pause
        # The venue has said that the order is there.
        self._known = routed.state == "working"
        # Of a known order the attempt that reached the venue, else the next one.
        self._attempt = {"new": 0, "unknown": routed.attempts, "working": routed.attempts - 1}[routed.state]
        self._submitted = False
        self._silence = UnknownOrderError.code

    def run(self) -> bool:
        """Whether the order is settled; what is not is due again later."""
        try:
            if self._first_step():
                return True
            for wait in self._waits_left():
                self._pause(wait)
                if self._look_or_submit():
                    return True
            if self._last_look():
                return True
        except OutOfTimeError:
            self._store.release(self._routed, due_ms=0)
            return False
        except LeaseLostError:
            return False
        self._store.release(self._routed, due_ms=RECHECK_MS)
        return False

    def _first_step(self) -> bool:
        self._pause(0)
        if self._routed.state == "new":
            if self._routed.stopped:
                return self._end("rejected", STOPPED, "Trading was stopped before the order left for its venue.")
            return self._submit("EXECUTED")
        if self._known or self._attempt <= self._policy.attempts_max:
            return self._look_or_submit()
        return False

    def _waits_left(self) -> list[float]:
        # A known order is looked at as often as an unknown one is tried.
        return self._policy.waits[0 if self._known else self._attempt - 1 :]

    def _look_or_submit(self) -> bool:
        """One round: the look-up comes first, and only an order that the venue does not have is sent again."""
        report = self._look_up()
        if report is not None:
            return self._take(report)
        if self._known:
            return False
        # What may not trade any more is not sent again: it has arrived, or will be found lost.
        if self._silence == UnknownOrderError.code and not self._routed.stopped:
            return self._submit("RECOVERED")
        self._record("EXECUTED", "look_up", error_code=self._silence)
        self._attempt += 1
        return False

    def _look_up(self) -> VenueReport | None:
        """The order at its venue, None when there is none or no answer: `_silence` says which."""
        try:
            return self._broker.status(self._routed.order.client_order_id)
        except VenueError as error:
            self._silence = error.code
            return None

    def _submit(self, action: Attempt) -> bool:
        self._submitted = True
        try:
            report = self._broker.submit(self._routed.order)
        except VenueRefusedError as error:
            return self._end("rejected", REJECTED, error.reason)
        except VenueError as error:
            self._silence = error.code
            self._record("EXECUTED", "submit", error_code=error.code)
            self._attempt += 1
            return False
        self._record(action, "submit", venue_order_id=report.venue_order_id)
        self._known = True
        return self._book(report)

    def _take(self, report: VenueReport) -> bool:
        """A report that a look-up brought."""
        if not self._known:
            self._record("RECOVERED", "look_up", venue_order_id=report.venue_order_id)
            self._known = True
        if self._routed.status == "canceled" and report.state == "working":
            # Canceled here while it was on its way: its rest is called back.
            try:
                report = self._broker.cancel(self._routed.order.client_order_id)
            except VenueError as error:
                self._silence = error.code
        return self._book(report)

    def _book(self, report: VenueReport) -> bool:
        status = self._routed.status
        for fill in report.fills:
            booked = self._store.book_fill(self._routed, report.venue_order_id, fill, self._attempt)
            status = booked.status
            if booked.news:
                self._announce(self._routed.account_id)
        if report.state in ("canceled", "rejected"):
            code = REJECTED if report.state == "rejected" else CANCELED
            return self._end(report.state, code, report.reason or f"{report.state} by the venue", report.venue_order_id)
        if report.state == "filled" and status != "filled":
            logger().error("a venue says filled and tells of less", order_id=str(self._routed.id.order_id))
            metrics().add_metric(name="VenueFillsMissing", unit=MetricUnit.Count, value=1)
        return status == "filled"

    def _last_look(self) -> bool:
        """After the last attempt; what is still not known is told to the order's owner, once, and looked up later."""
        if self._known:
            return False
        self._pause(0)
        report = self._look_up()
        if report is not None:
            return self._take(report)
        if self._is_lost():
            return self._give_up()
        if not self._routed.told:
            self._record("EXECUTED", "look_up", error_code=self._silence, unresolved=True)
            self._announce(self._routed.account_id)
        return False

    def _is_lost(self) -> bool:
        """Whether the venue answers, and a submission that it does not know is too old to be still on its way."""
        old = self._routed.submitted_ms_ago >= self._policy.lost_after * 1000
        return self._silence == UnknownOrderError.code and old and not self._submitted

    def _give_up(self) -> bool:
        """Ask the venue to cancel what it should not have; only when it knows of nothing then is the order over."""
        try:
            report = self._broker.cancel(self._routed.order.client_order_id)
        except UnknownOrderError:
            return self._end("rejected", LOST, "The order did not reach its venue. Send a new one.")
        except VenueError as error:
            self._silence = error.code
            return False
        return self._take(report)

    def _end(self, status: Ending, code: str, reason: str, venue_order_id: str | None = None) -> bool:
        ended = self._store.end(
            self._routed,
            status,
            code=code,
            reason=reason,
            retry_attempt=self._attempt,
            venue_order_id=venue_order_id,
        )
        if ended.news:
            self._announce(self._routed.account_id)
        return True

    def _record(
        self,
        action: Attempt,
        step: Step,
        *,
        error_code: str | None = None,
        venue_order_id: str | None = None,
        unresolved: bool = False,
    ) -> None:
        """Audit this attempt. Raises LeaseLostError when another copy has the order, or it is settled."""
        recorded = self._store.record(
            self._routed,
            action,
            retry_attempt=self._attempt,
            step=step,
            error_code=error_code,
            venue_order_id=venue_order_id,
            unresolved=unresolved,
        )
        if not recorded:
            raise LeaseLostError
