"""The loop around the queue of triggers: what it does with each outcome, on a store that says what it is told."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from trading.errors import ErrorCode, TradingError
from trading.store.triggers import Executed, Trigger
from trading.triggering import execute_triggers

FIRST, SECOND = uuid.UUID(int=1), uuid.UUID(int=2)


def trigger(account_id: uuid.UUID, number: int) -> Trigger:
    return Trigger(account_id, uuid.UUID(int=number), account_id, "order", fencing=1, attempts=1)


@dataclass
class Queue:
    """Hands its claims out one after the other; what a subject comes to is in `outcomes`, else it is filled."""

    claims: list[Sequence[Trigger]]
    outcomes: Mapping[int, Executed | TradingError] = field(default_factory=dict[int, Executed | TradingError])
    executed: list[int] = field(default_factory=list[int])

    def claim(self, *, users: int, limit: int) -> list[Trigger]:
        return list(self.claims.pop(0)) if self.claims else []

    def execute(self, trigger: Trigger) -> Executed:
        self.executed.append(trigger.subject_id.int)
        outcome = self.outcomes.get(trigger.subject_id.int, Executed("filled", told=True))
        if isinstance(outcome, TradingError):
            raise outcome
        return outcome


def soon() -> float:
    return time.monotonic() + 60


def test_it_goes_on_until_nothing_is_queued_and_tells_each_account_once() -> None:
    queue = Queue([[trigger(FIRST, 1), trigger(SECOND, 2), trigger(FIRST, 3)], [trigger(SECOND, 4)]])
    told: list[uuid.UUID] = []

    report = execute_triggers(queue, told.append, lambda *_: None, until=soon())

    # an account's rows keep their order
    assert queue.executed == [1, 3, 2, 4]
    assert told == [FIRST, SECOND, SECOND]
    assert (report.claimed, report.states["filled"]) == (4, 4)


def test_what_came_to_nothing_is_not_told() -> None:
    queue = Queue([[trigger(FIRST, 1)]], {1: Executed("idle", told=False)})
    told: list[uuid.UUID] = []

    execute_triggers(queue, told.append, lambda *_: None, until=soon())

    assert told == []


def test_what_came_to_something_is_told_whatever_comes_behind_it() -> None:
    queue = Queue([[trigger(FIRST, 1), trigger(FIRST, 2)]], {2: Executed("idle", told=False)})
    told: list[uuid.UUID] = []

    execute_triggers(queue, told.append, lambda *_: None, until=soon())

    assert told == [FIRST]


@pytest.mark.parametrize(
    ("code", "waiting", "failed"), [(ErrorCode.MARKET_DATA_UNAVAILABLE, 1, 0), (ErrorCode.INTERNAL_ERROR, 0, 1)]
)
def test_what_fails_holds_up_no_other(code: ErrorCode, waiting: int, failed: int) -> None:
    queue = Queue([[trigger(FIRST, 1), trigger(FIRST, 2)]], {1: TradingError(code, "no")})
    told: list[uuid.UUID] = []

    report = execute_triggers(queue, told.append, lambda *_: None, until=soon())

    assert (report.waiting, report.failed, report.states["filled"]) == (waiting, failed, 1)
    assert told == [FIRST]


def test_without_the_database_it_ends() -> None:
    queue = Queue([[trigger(FIRST, 1)], [trigger(FIRST, 2)]], {1: TradingError(ErrorCode.DATABASE_UNAVAILABLE, "gone")})

    with pytest.raises(TradingError):
        execute_triggers(queue, lambda _: None, lambda *_: None, until=soon())

    assert queue.executed == [1]


def test_when_the_time_is_up_the_rest_stays_queued() -> None:
    queue = Queue([[trigger(FIRST, 1)]])

    report = execute_triggers(queue, lambda _: None, lambda *_: None, until=time.monotonic())

    assert (report.claimed, queue.executed) == (0, [])


def test_no_trigger_is_executed_after_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a clock that each look at moves by a second, of which there are three
    seconds = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(seconds)))
    queue = Queue([[trigger(FIRST, 1), trigger(FIRST, 2), trigger(FIRST, 3)]])
    told: list[uuid.UUID] = []

    execute_triggers(queue, told.append, lambda *_: None, until=3.0)

    # then what was executed before is told
    assert (queue.executed, told) == ([1, 2], [FIRST])


def test_what_is_to_be_closed_at_a_venue_is_handed_on() -> None:
    sent = uuid.UUID(int=77)
    queue = Queue([[trigger(FIRST, 1), trigger(FIRST, 2)]], {1: Executed("routed", told=True, sent_order_id=sent)})
    routed: list[tuple[uuid.UUID, uuid.UUID]] = []

    report = execute_triggers(queue, lambda _: None, lambda *order: routed.append(order), until=soon())

    assert (routed, report.states) == ([(trigger(FIRST, 1).user_id, sent)], {"routed": 1, "filled": 1})
