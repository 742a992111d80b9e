"""The retry policy of routing, on a clock that nobody waits for."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.kit.scripted_broker import PRICE, FakeTime, LookUp, ScriptedBroker, Submission
from trading.brokers.protocol import VenueFill, VenueOrder
from trading.errors import ErrorCode, TradingError
from trading.routing import RetryPolicy, Router, RoutingReport
from trading.settings import ConfigurationError
from trading.store.venues import Attempt, Booked, Ending, OrderId, RoutedOrder, Step, VenueStore

ACCOUNT = uuid4()
ORDER = OrderId(uuid4(), uuid4())
# Longer than there are attempts.
SILENT: list[Submission] = ["lose", "lose", "lose", "lose"]
PLENTY = 1_000_000.0


def routed_order(**facts: Any) -> RoutedOrder:
    order = VenueOrder(str(ORDER.order_id), "AAPL", "buy", "market", "gtc", Decimal(10))
    plain = RoutedOrder(ORDER, ACCOUNT, "mock", order, "pending_new", "new", 1, 0, False, 1)
    return replace(plain, **facts)


class MemoryStore(VenueStore):
    """The procedures of routing on one order in memory, as far as the router sees them."""

    def __init__(self, routed: RoutedOrder | None) -> None:
        self.routed = routed
        self.audit: list[tuple[str, str | None, int]] = []
        self.fills: dict[str, VenueFill] = {}
        self.ended: tuple[str, str, str] | None = None
        self.told = 0
        self.released: list[int] = []
        self.lost = False

    def claim(self, orders: Sequence[OrderId] | None, *, limit: int) -> list[RoutedOrder]:
        claimed, self.routed = self.routed, None
        return [claimed] if claimed and limit else []

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
        if self.lost:
            return False
        self.audit.append((action, error_code, retry_attempt))
        self.told += int(unresolved)
        return True

    def book_fill(self, routed: RoutedOrder, venue_order_id: str, fill: VenueFill, retry_attempt: int) -> Booked:
        news = fill.trade_id not in self.fills
        if news:
            self.audit.append(("FILLED", None, retry_attempt))
        self.fills[fill.trade_id] = fill
        whole = sum(fill.quantity for fill in self.fills.values()) == routed.order.quantity
        return Booked(news, "filled" if whole else "partially_filled")

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
        self.ended = (status, code, reason)
        return Booked(True, status)

    def release(self, routed: RoutedOrder, *, due_ms: int) -> None:
        self.released.append(due_ms)


class World:
    def __init__(self, submissions: Sequence[Submission] = (), look_ups: Sequence[LookUp] = (), **facts: Any) -> None:
        self.store = MemoryStore(routed_order(**facts))
        self.venue = ScriptedBroker(submissions, look_ups)
        self.time = FakeTime()
        self.announced: list[UUID] = []

    def route(self, *, until: float = PLENTY, policy: RetryPolicy | None = None) -> RoutingReport:
        return self.router(policy).route([ORDER], until=until)

    def router(self, policy: RetryPolicy | None = None) -> Router:
        return Router(
            self.store,
            lambda _: self.venue,
            policy or RetryPolicy(),
            self.announced.append,
            clock=self.time.clock,
            sleep=self.time.sleep,
        )


class TestSubmission:
    def test_an_answer_is_booked_at_once(self) -> None:
        world = World()
        assert world.route() == RoutingReport(claimed=1, settled=1)
        assert world.store.audit == [("EXECUTED", None, 0), ("FILLED", None, 0)]
        assert world.time.waits == []
        assert world.announced == [ACCOUNT]

    def test_our_order_id_is_the_client_id(self) -> None:
        world = World(["lose", "fill"])
        world.route()
        assert {order.client_order_id for order in world.venue.submitted} == {str(ORDER.order_id)}

    def test_a_refusal_is_final(self) -> None:
        world = World(["refuse"])
        assert world.route().settled == 1
        assert world.store.ended == ("rejected", "VENUE_REJECTED", "not today")
        assert world.announced == [ACCOUNT]
        assert (len(world.venue.submitted), world.time.waits) == (1, [])

    def test_nothing_is_done_about_an_order_that_another_copy_has(self) -> None:
        world = World()
        world.store.routed = None
        assert world.route() == RoutingReport()
        assert world.venue.submitted == []


class TestSilence:
    def test_a_lost_submission_is_looked_up_before_it_is_sent_again(self) -> None:
        world = World(["lose", "fill"])
        assert world.route().settled == 1
        assert world.store.audit == [
            ("EXECUTED", "TIMEOUT", 0),
            ("RECOVERED", None, 1),
            ("FILLED", None, 1),
        ]
        assert (world.venue.looked_up, len(world.venue.submitted), world.time.waits) == (1, 2, [1.0])

    @pytest.mark.parametrize(("kept", "code"), [("keep", "TIMEOUT"), ("keep_500", "UNAVAILABLE")])
    def test_one_that_arrived_is_found_and_not_sent_again(self, kept: Submission, code: str) -> None:
        world = World([kept])
        assert world.route().settled == 1
        assert world.store.audit == [("EXECUTED", code, 0), ("RECOVERED", None, 1), ("FILLED", None, 1)]
        assert len(world.venue.submitted) == 1

    def test_the_waits_double(self) -> None:
        world = World(SILENT)
        world.route()
        assert world.time.waits == [1.0, 2.0, 4.0]
        assert len(world.venue.submitted) == 4

    def test_a_venue_that_cannot_be_reached_is_tried_again(self) -> None:
        world = World(["closed", "closed", "fill"])
        assert world.route().settled == 1
        assert world.store.audit[:3] == [
            ("EXECUTED", "UNAVAILABLE", 0),
            ("EXECUTED", "UNAVAILABLE", 1),
            ("RECOVERED", None, 2),
        ]

    def test_without_an_answer_to_the_look_up_nothing_is_sent_again(self) -> None:
        world = World(["keep"], ["timeout", "500", "tell"])
        assert world.route().settled == 1
        assert len(world.venue.submitted) == 1
        assert world.store.audit[:4] == [
            ("EXECUTED", "TIMEOUT", 0),
            ("EXECUTED", "TIMEOUT", 1),
            ("EXECUTED", "UNAVAILABLE", 2),
            ("RECOVERED", None, 3),
        ]

    def test_after_the_last_attempt_comes_one_more_look_up(self) -> None:
        world = World(["lose", "lose", "lose", "keep"])
        assert world.route().settled == 1
        assert (len(world.venue.submitted), world.venue.looked_up) == (4, 4)
        assert world.store.audit[-2:] == [("RECOVERED", None, 4), ("FILLED", None, 4)]

    def test_what_stays_unknown_stays_in_flight_and_is_told(self) -> None:
        world = World(SILENT)
        assert world.route() == RoutingReport(claimed=1, in_flight=1)
        assert (world.store.told, world.store.ended) == (1, None)
        assert world.announced == [ACCOUNT]
        assert world.store.released == [20_000]

    def test_no_repeat_where_none_is_allowed(self) -> None:
        world = World(["lose"])
        world.route(policy=RetryPolicy(attempts_max=0))
        assert (len(world.venue.submitted), world.venue.looked_up, world.time.waits) == (1, 1, [])


class TestTakingOver:
    def test_who_takes_over_looks_first(self) -> None:
        # given an order that the copy before may have sent, and had
        world = World(["fill"], state="unknown", attempts=1)
        world.venue.submit(routed_order().order)
        # when / then
        assert world.route().settled == 1
        assert world.store.audit == [("RECOVERED", None, 1), ("FILLED", None, 1)]
        assert (len(world.venue.submitted), world.time.waits) == (1, [])

    def test_who_finds_nothing_sends_it(self) -> None:
        world = World(state="unknown", attempts=1)
        assert world.route().settled == 1
        assert (world.venue.looked_up, len(world.venue.submitted)) == (1, 1)

    def test_when_the_attempts_are_used_up_it_only_looks(self) -> None:
        world = World(state="unknown", attempts=5, told=True, submitted_ms_ago=29_999)
        assert world.route().in_flight == 1
        assert (world.venue.looked_up, world.venue.submitted, world.store.told) == (1, [], 0)

    def test_what_the_venue_does_not_know_long_after_is_over(self) -> None:
        world = World(state="unknown", attempts=5, told=True, submitted_ms_ago=30_000)
        assert world.route().settled == 1
        assert world.store.ended is not None
        assert world.store.ended[:2] == ("rejected", "VENUE_UNAVAILABLE")

    def test_what_was_sent_again_just_now_may_still_arrive(self) -> None:
        # given an order that was sent long ago, and is sent again without an answer
        world = World(SILENT, state="unknown", attempts=1, submitted_ms_ago=10**9)
        assert world.route().in_flight == 1
        assert len(world.venue.submitted) == 3
        assert world.store.ended is None

    def test_a_venue_that_does_not_answer_ends_no_order(self) -> None:
        world = World([], ["timeout"], state="unknown", attempts=5, told=True, submitted_ms_ago=10**9)
        assert world.route().in_flight == 1
        assert world.store.ended is None

    def test_a_lease_that_is_lost_ends_the_run(self) -> None:
        world = World(["lose"])
        world.store.lost = True
        assert world.route().in_flight == 1
        assert (len(world.venue.submitted), world.store.released) == (1, [])


class TestWorking:
    def test_a_part_is_booked_and_the_rest_is_waited_for(self) -> None:
        world = World(["part"])
        world.route()
        assert [fill.quantity for fill in world.store.fills.values()] == [5]
        assert (world.venue.looked_up, world.time.waits) == (3, [1.0, 2.0, 4.0])
        # and later
        world.venue.go_on(str(ORDER.order_id))
        world.store.routed = routed_order(state="working", status="partially_filled")
        assert world.route().settled == 1
        assert {(fill.quantity, fill.price) for fill in world.store.fills.values()} == {(5, PRICE)}
        assert len(world.venue.submitted) == 1

    def test_an_order_canceled_here_is_called_back(self) -> None:
        world = World(["part"], state="working", status="canceled")
        world.venue.submit(routed_order().order)
        assert world.route().settled == 1
        assert world.store.ended is not None
        assert world.store.ended[:2] == ("canceled", "VENUE_CANCELED")

    def test_a_known_order_is_never_sent_again(self) -> None:
        world = World(state="working")
        assert world.route().in_flight == 1
        assert world.venue.submitted == []


class TestLimits:
    def test_a_step_that_would_not_end_in_time_is_left_to_the_next_run(self) -> None:
        # given time for the first step, but not for a wait and another
        world = World(["lose"])
        assert world.route(until=world.time.now + RetryPolicy().step_seconds).in_flight == 1
        assert (len(world.venue.submitted), world.time.waits, world.store.released) == (1, [], [0])

    def test_without_time_nothing_is_sent(self) -> None:
        world = World()
        world.route(until=world.time.now + 1)
        assert (world.venue.submitted, world.store.released) == ([], [0])

    def test_a_lease_outlasts_every_pause_between_renewals(self) -> None:
        policy = RetryPolicy()
        assert policy.lease_ms / 1000 > max(policy.waits) + 2 * policy.venue_timeout

    def test_a_whole_run_fits_into_the_functions_time(self) -> None:
        # given four submissions and four look-ups that take all of their time
        world = World(SILENT)
        policy = RetryPolicy()
        world.venue.passing = lambda: world.time.sleep(policy.venue_timeout)
        # when the function has 70 s, a second of it for its end
        started_at = world.time.now
        world.route(until=started_at + 69)
        # then all of them are made
        assert (len(world.venue.submitted), world.venue.looked_up, world.store.told) == (4, 4, 1)


class TestSweep:
    def test_it_follows_what_is_due_until_there_is_no_more(self) -> None:
        world = World()
        assert world.router().sweep(until=PLENTY) == RoutingReport(claimed=1, settled=1)
        assert len(world.venue.submitted) == 1

    def test_it_claims_nothing_that_it_has_no_time_for(self) -> None:
        world = World()
        assert world.router().sweep(until=world.time.now + RetryPolicy().step_seconds - 0.1) == RoutingReport()
        assert world.store.routed is not None


class TestFaults:
    @pytest.mark.parametrize(
        "fault", [TradingError(ErrorCode.CONFLICT, "an overfill"), ConfigurationError("no such venue")]
    )
    def test_an_order_that_cannot_be_followed_is_left_for_later(
        self, fault: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World()

        def fail(*_: object) -> Booked:
            raise fault

        monkeypatch.setattr(world.store, "book_fill", fail)
        assert world.route() == RoutingReport(claimed=1, failed=1)
        assert world.store.released == [20_000]

    def test_a_database_that_is_gone_ends_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World()

        def fail(*_: object) -> Booked:
            raise TradingError(ErrorCode.DATABASE_UNAVAILABLE, "gone")

        monkeypatch.setattr(world.store, "book_fill", fail)
        with pytest.raises(TradingError):
            world.route()
