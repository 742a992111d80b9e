"""How a run of the watch goes on when a step fails, time is short or a response cannot be made, by scripted answers.
What the database answers is proven in tests/integration/test_security_watch.py."""

from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from trading import security_watch
from trading.cache import Cache, CacheUnavailableError
from trading.errors import ErrorCode, TradingError
from trading.guarding.counted_events import CountedEvents
from trading.guarding.guard_copy import Truth
from trading.security_watch import TIME_LEFT_MS_MIN, SecurityReport, Watch
from trading.store.security import DueResponse, Evaluation, SecurityStore

ACCOUNT = uuid4()
COUNTED = CountedEvents(uuid4(), {"an event": 3}, {}, 0)
GONE = TradingError(ErrorCode.DATABASE_UNAVAILABLE, "gone")
ADDRESS = {"kind": "ip_block", "target": "203.0.113.7"}
SUSPENSION = {"kind": "account_suspension", "target": str(ACCOUNT)}


def due(target: str | None, response: str = "ip_block") -> DueResponse:
    return DueResponse("finding", "brute_force", "high", 12, 300, response, 3600, target)


@dataclass
class World:
    """Redis with what was counted, and the procedures of the watch; what fails is in `faults`, by procedure."""

    counted: CountedEvents | CacheUnavailableError | None = None
    responses: tuple[DueResponse, ...] = ()
    over: tuple[UUID, ...] = ()
    faults: dict[str, Exception] = field(default_factory=dict[str, Exception])
    interventions: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    calls: list[str] = field(default_factory=list[str])
    recorded: list[CountedEvents] = field(default_factory=list[CountedEvents])
    forgotten: list[UUID] = field(default_factory=list[UUID])
    started: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    notes: list[str] = field(default_factory=list[str])
    announced: list[UUID] = field(default_factory=list[UUID])
    failures: list[str] = field(default_factory=list[str])

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.faults:
            raise self.faults[name]

    def record(self, events: CountedEvents) -> dict[str, int]:
        self._call("record")
        self.recorded.append(events)
        return {"recorded": sum(events.counts.values()), "lost": 2}

    def evaluate(self) -> Evaluation:
        self._call("evaluate")
        return Evaluation(4, 5, self.responses)

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        self._call(f"start {request['target']}")
        self.started.append(request)
        return {"intervention": {"kind": request["kind"], "target": request["target"]}}

    def note_response(self, finding_id: str, note: str) -> None:
        self.notes.append(note)

    def expired(self, limit: int) -> tuple[UUID, ...]:
        self._call("expired")
        return self.over[:limit]

    def undo(self, request: dict[str, Any]) -> dict[str, Any]:
        self._call(f"undo {request['id']}")
        assert request["actor"] == "expiry"
        return {"intervention": self.interventions.get(str(request["id"]), ADDRESS)}

    def erase_old(self) -> dict[str, int]:
        self._call("erase")
        return {"erased": 6}

    def renew(self) -> Truth:
        self._call("renew")
        return Truth(1, None, {"203.0.113.7": 1, "203.0.113.8": 1})

    def run(self, monkeypatch: pytest.MonkeyPatch, *, time_left_ms: int = TIME_LEFT_MS_MIN) -> SecurityReport:
        def take(_cache: object, _batch_id: UUID) -> CountedEvents | None:
            if isinstance(self.counted, CacheUnavailableError):
                raise self.counted
            return self.counted

        monkeypatch.setattr(security_watch, "take_events", take)
        monkeypatch.setattr(security_watch, "forget_events", lambda _cache, batch_id: self.forgotten.append(batch_id))
        return Watch(
            cast("SecurityStore", self),
            cast("Cache", None),
            self.renew,
            self.announced.append,
            time_left_ms=lambda: time_left_ms,
            on_failure=lambda step, _: self.failures.append(step),
        ).run()


def test_a_run_reports_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    world = World(COUNTED, (due("203.0.113.7"), due(None)), (uuid4(),))
    # when
    report = world.run(monkeypatch)
    # then
    assert report == SecurityReport(3, 2, 4, 5, 1, 1, 1, 2, 6)
    assert (world.recorded, world.forgotten) == ([COUNTED], [COUNTED.batch_id])


def test_what_was_counted_is_not_forgotten_before_it_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(COUNTED, faults={"record": GONE})
    assert world.run(monkeypatch).failed == ["record"]
    assert world.forgotten == []


@pytest.mark.parametrize(("counted", "failed"), [(None, []), (CacheUnavailableError("gone"), ["record"])])
def test_what_the_database_counted_alone_is_recorded_all_the_same(
    monkeypatch: pytest.MonkeyPatch, counted: CacheUnavailableError | None, failed: list[str]
) -> None:
    report = (world := World(counted)).run(monkeypatch)

    assert [events.counts for events in world.recorded] == [{}]
    assert (report.failed, report.lost, world.forgotten) == (failed, 2, [])


@pytest.mark.parametrize(
    ("procedure", "step"),
    [
        ("record", "record"),
        ("evaluate", "judge"),
        ("expired", "expire"),
        ("renew", "guard"),
        ("erase", "erase"),
    ],
)
def test_a_step_that_fails_keeps_none_behind_it_from_its_work(
    monkeypatch: pytest.MonkeyPatch, procedure: str, step: str
) -> None:
    world = World(COUNTED, faults={procedure: RuntimeError("whatever it was")})

    report = world.run(monkeypatch)

    assert world.calls == ["record", "evaluate", "expired", "renew", "erase"]
    assert (report.failed, world.failures) == ([step], [step])


def test_no_step_is_begun_without_time(monkeypatch: pytest.MonkeyPatch) -> None:
    report = (world := World(COUNTED)).run(monkeypatch, time_left_ms=TIME_LEFT_MS_MIN - 1)

    assert world.calls == []
    assert report.late == ["record", "judge", "expire", "guard", "erase"]


def test_a_response_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(responses=(due("203.0.113.7"),))

    world.run(monkeypatch)

    assert world.started == [
        {
            "kind": "ip_block",
            "target": "203.0.113.7",
            "seconds": 3600,
            "reason": "brute_force: 12 in 300 seconds",
            "actor": "rule:brute_force",
            "rule": "brute_force",
            "finding_id": "finding",
        }
    ]


def test_a_response_that_cannot_be_made_is_noted_and_the_next_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = TradingError(ErrorCode.CONFLICT, "It is never blocked.")
    world = World(responses=(due(None), due("first"), due("second")), faults={"start first": refusal})

    report = world.run(monkeypatch)

    assert (report.responded, report.not_responded, report.failed) == (1, 2, [])
    assert world.notes == ["There is nobody to respond to.", "CONFLICT: It is never blocked."]


def test_without_the_database_no_response_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(responses=(due("first"), due("second")), faults={"start first": GONE})

    report = world.run(monkeypatch)

    assert (report.failed, report.responded, report.not_responded, world.notes) == (["judge"], 0, 0, [])


def test_who_is_suspended_or_no_more_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a suspension that is due, and of three interventions that are over one that cannot be taken back
    ids = tuple(uuid4() for _ in range(3))
    world = World(
        responses=(due("203.0.113.7"), due(str(ACCOUNT), "account_suspension")),
        over=ids,
        faults={f"undo {ids[0]}": GONE},
        interventions={str(ids[1]): SUSPENSION},
    )
    # when
    report = world.run(monkeypatch)
    # then the account is told twice, and of addresses nobody
    assert world.announced == [ACCOUNT, ACCOUNT]
    assert (report.expired, report.failed) == (2, [f"expire {ids[0]}"])
