"""The scheduled snapshots of what accounts are worth, once an hour."""

from collections.abc import Callable
from dataclasses import dataclass

from trading.store.equity import EquityStore

PAGE_ACCOUNTS_MAX = 2_000
# No page is begun with less time left: one statement may take as long (statement_timeout of the role).
TIME_LEFT_MS_MIN = 22_000


@dataclass(slots=True)
class SnapshotReport:
    """What a run did, in accounts; `complete` says that this hour's snapshots are all there."""

    checked: int = 0
    taken: int = 0
    complete: bool = False


def take_snapshots(store: EquityStore, *, time_left_ms: Callable[[], int]) -> SnapshotReport:
    """Take the snapshots that this hour still lacks, page by page. Safe to run twice at once."""
    report = SnapshotReport()
    while time_left_ms() >= TIME_LEFT_MS_MIN and not report.complete:
        page = store.take_snapshots(accounts_max=PAGE_ACCOUNTS_MAX)
        report.checked += page.checked
        report.taken += page.taken
        report.complete = page.finished
    return report
