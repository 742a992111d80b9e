"""The scheduled daily reset: the day of who holds something begins at its boundary, with the equity of then."""

from collections.abc import Callable
from dataclasses import dataclass

from trading.errors import TradingError
from trading.observability import logger
from trading.store.equity import EquityStore
from trading.store.financing import Holder

PAGE_ACCOUNTS_MAX = 1_000
# A run with more accounts than this whose day cannot begin has a fault of its own, and fails.
FAILURES_MAX = 10
# Nothing is begun with less time left: one statement may take as long (statement_timeout of the role).
TIME_LEFT_MS_MIN = 22_000


@dataclass(slots=True)
class DaysReport:
    """What a run did, in accounts; `complete` says that no day that has ended is left."""

    opened: int = 0
    failed: int = 0
    complete: bool = False


def open_days(store: EquityStore, *, time_left_ms: Callable[[], int]) -> DaysReport:
    """Begin the days of accounts that hold something and whose day has ended. Safe to run twice at once.

    Raises TradingError when the search itself is refused, or after FAILURES_MAX accounts whose day could not begin.
    """
    report = DaysReport()
    after: Holder | None = None
    while time_left_ms() >= TIME_LEFT_MS_MIN:
        ended = store.find_ended_days(accounts_max=PAGE_ACCOUNTS_MAX, after=after)
        for holder in ended:
            if time_left_ms() < TIME_LEFT_MS_MIN:
                return report
            _open(store, holder, report)
        if len(ended) < PAGE_ACCOUNTS_MAX:
            report.complete = report.failed == 0
            return report
        after = ended[-1]
    return report


def _open(store: EquityStore, holder: Holder, report: DaysReport) -> None:
    try:
        store.begin_day(holder)
        report.opened += 1
    except TradingError as error:
        report.failed += 1
        logger().error("day not begun", account_id=str(holder.account_id), exc_info=error)
        if report.failed >= FAILURES_MAX:
            raise
