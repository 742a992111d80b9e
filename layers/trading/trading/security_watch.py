"""The watch over security, once a minute: counted events become rows, rules judge them, and what they ask for is done.

Each step stands alone: one that fails does not keep the next from its work, and is told at the end.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from trading.cache import Cache, CacheUnavailableError
from trading.errors import ErrorCode, TradingError
from trading.guarding.counted_events import CountedEvents, forget_events, take_events
from trading.guarding.guard_copy import Truth
from trading.store.security import DueResponse, SecurityStore

EXPIRED_PER_RUN_MAX = 100
# The last step is begun no later than this before the function's end.
TIME_LEFT_MS_MIN = 5_000

# Who takes back what is over, in the words of the procedures.
EXPIRY = "expiry"

type Step = Callable[[], None]


@dataclass(slots=True)
class SecurityReport:
    """What one run did. `failed` names the steps that did not end well, `late` those that there was no time for."""

    recorded: int = 0
    lost: int = 0
    opened: int = 0
    ended: int = 0
    responded: int = 0
    not_responded: int = 0
    expired: int = 0
    blocked: int = 0
    erased: int = 0
    failed: list[str] = field(default_factory=list[str])
    late: list[str] = field(default_factory=list[str])


class Watch:
    """One run. `renew_guard` makes Redis's copy say what the tables say; `announce` is told each account with news, and
    must not raise; `on_failure` is told which step failed how.
    """

    def __init__(
        self,
        store: SecurityStore,
        cache: Cache,
        renew_guard: Callable[[], Truth],
        announce: Callable[[UUID], None],
        *,
        time_left_ms: Callable[[], int],
        on_failure: Callable[[str, Exception], None],
    ) -> None:
        self._store = store
        self._cache = cache
        self._renew_guard = renew_guard
        self._announce = announce
        self._time_left_ms = time_left_ms
        self._on_failure = on_failure
        self._report = SecurityReport()

    def run(self) -> SecurityReport:
        """Record, judge and respond, take back what is over, put the guard's copy right, erase what is too old."""
        steps: dict[str, Step] = {
            "record": self._record,
            "judge": self._judge,
            "expire": self._expire,
            "guard": self._guard,
            "erase": self._erase,
        }
        for name, step in steps.items():
            if self._time_left_ms() < TIME_LEFT_MS_MIN:
                self._report.late.append(name)
                continue
            self._try(name, step)
        return self._report

    def _try(self, name: str, step: Step) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001
            # Whatever it was: the next step guards against something else.
            self._report.failed.append(name)
            self._on_failure(name, error)

    def _record(self) -> None:
        """What Redis counted; without Redis, or with nothing there, what the database counted alone."""
        try:
            taken = take_events(self._cache, uuid4())
        except CacheUnavailableError:
            self._keep(CountedEvents(uuid4(), {}, {}, 0))
            raise
        self._keep(taken or CountedEvents(uuid4(), {}, {}, 0))
        if taken is not None:
            forget_events(self._cache, taken.batch_id)

    def _keep(self, events: CountedEvents) -> None:
        kept = self._store.record(events)
        self._report.recorded += int(kept["recorded"])
        self._report.lost += int(kept["lost"])

    def _judge(self) -> None:
        found = self._store.evaluate()
        self._report.opened, self._report.ended = int(found.opened), int(found.ended)
        for due in found.due:
            self._respond(due)

    def _respond(self, due: DueResponse) -> None:
        """Do what the rule asks for. What cannot be done is noted once, and left to people."""
        if due.target is None:
            self._store.note_response(due.finding_id, "There is nobody to respond to.")
            self._report.not_responded += 1
            return
        try:
            started = self._store.start(
                {
                    "kind": due.response,
                    "target": due.target,
                    "seconds": due.seconds,
                    "reason": f"{due.rule}: {due.observed} in {due.window_seconds} seconds",
                    "actor": f"rule:{due.rule}",
                    "rule": due.rule,
                    "finding_id": due.finding_id,
                }
            )
            self._report.responded += 1
            self._tell(started["intervention"])
        except TradingError as error:
            if error.code is ErrorCode.DATABASE_UNAVAILABLE:
                raise
            self._store.note_response(due.finding_id, f"{error.code}: {error.message}")
            self._report.not_responded += 1

    def _expire(self) -> None:
        for intervention_id in self._store.expired(EXPIRED_PER_RUN_MAX):
            self._try(f"expire {intervention_id}", partial(self._take_back, intervention_id))

    def _take_back(self, intervention_id: UUID) -> None:
        undone = self._store.undo({"id": intervention_id, "actor": EXPIRY, "reason": "its time is over"})
        self._report.expired += 1
        self._tell(undone["intervention"])

    def _tell(self, intervention: Mapping[str, Any]) -> None:
        """Whoever is suspended, or is no more, hears of it at once."""
        if intervention["kind"] == "account_suspension":
            self._announce(UUID(intervention["target"]))

    def _guard(self) -> None:
        self._report.blocked = len(self._renew_guard().blocks)

    def _erase(self) -> None:
        self._report.erased = int(self._store.erase_old()["erased"])
