"""The scheduled watch over all accounts: who has come into a margin call, who has left one."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from trading.errors import TradingError
from trading.observability import logger
from trading.store.risk import DueAccount, MarginPage, RecordedState, RiskStore

# One run looks at this many accounts; the next one goes on behind them.
RUN_ACCOUNTS_MAX = 50_000
PAGE_ACCOUNTS_MAX = 5_000
PAGE_CALLS_MAX = 200
# A run with more accounts than this that cannot be recorded has a fault of its own, and fails.
FAILURES_MAX = 10
# No page and no account is begun with less time left: one statement may take as long (statement_timeout of the role).
TIME_LEFT_MS_MIN = 22_000

type Announce = Callable[[UUID], None]


@dataclass(slots=True)
class MarginReport:
    """What a run did, in accounts.

    `skipped` were not valued for want of a usable quote, `unchanged` had come right again when they were looked at
    under their lock, `failed` could not be recorded. `complete` says that the run came to the last account.
    """

    checked: int = 0
    breached: int = 0
    entered: int = 0
    left: int = 0
    skipped: int = 0
    unchanged: int = 0
    failed: int = 0
    complete: bool = False


def monitor_margin(
    store: RiskStore, announce: Announce, *, request_id: str, time_left_ms: Callable[[], int]
) -> MarginReport:
    """Scan accounts with open positions page by page, and open or close the margin calls that are due.

    `announce` is told each account that has a new event; it must not raise. Safe to run twice at once. Raises
    TradingError when the scan itself is refused, or after FAILURES_MAX accounts that could not be recorded.
    """
    report = MarginReport()
    while report.checked < RUN_ACCOUNTS_MAX and time_left_ms() >= TIME_LEFT_MS_MIN:
        page = store.scan_margin(accounts_max=PAGE_ACCOUNTS_MAX, calls_max=PAGE_CALLS_MAX)
        _count(report, page)
        for account in page.due:
            # Who is left out here is due again in the next scan.
            if time_left_ms() < TIME_LEFT_MS_MIN:
                return report
            _record(store, announce, account, request_id, report)
        if page.finished:
            report.complete = True
            break
    return report


def _count(report: MarginReport, page: MarginPage) -> None:
    report.checked += page.checked
    report.breached += page.breached
    report.skipped += page.skipped
    if page.unpriced:
        logger().warning("accounts left unvalued for want of quotes", unpriced=page.unpriced, accounts=page.skipped)


def _record(store: RiskStore, announce: Announce, account: DueAccount, request_id: str, report: MarginReport) -> None:
    try:
        state = store.record_margin_call(account, request_id)
    except TradingError as error:
        report.failed += 1
        logger().error("margin call not recorded", account_id=str(account.account_id), exc_info=error)
        if report.failed >= FAILURES_MAX:
            raise
        return
    _count_state(report, state)
    if state in {"entered", "left"}:
        logger().info("margin call", state=state, account_id=str(account.account_id))
        announce(account.account_id)


def _count_state(report: MarginReport, state: RecordedState) -> None:
    match state:
        case "entered":
            report.entered += 1
        case "left":
            report.left += 1
        case "unchanged":
            report.unchanged += 1
        case "skipped":
            report.skipped += 1
