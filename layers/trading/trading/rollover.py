"""The scheduled financing of positions: each roll charges each position once, however late and often it runs."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from uuid import UUID

from trading.errors import TradingError
from trading.observability import logger
from trading.store.financing import FinancingStore, Holder, Roll, UnsettledRoll

PAGE_ACCOUNTS_MAX = 1_000
# One transaction holds the account's lock and its event one frame a position: what is more comes in the next one.
ENTRIES_MAX = 100
# After as many rounds an account makes way for the others; the next run goes on with it.
ROUNDS_MAX = 20
# A run with more accounts than this that cannot be charged has a fault of its own, and fails.
FAILURES_MAX = 10
# No page and no account is begun with less time left: one statement may take as long (statement_timeout of the role).
TIME_LEFT_MS_MIN = 22_000

type Announce = Callable[[UUID], None]
type TimeLeft = Callable[[], int]


@dataclass(slots=True)
class RolloverReport:
    """What a run did. `rolls_open` were not finished when it began, `rolls_finished` are since.

    `charged` counts entries, of `accounts`. `rates_missing` and `quotes_missing` are rolls that cannot be charged yet;
    `failed` counts accounts. `complete` says that the run came to the last account.
    """

    rolls_open: int = 0
    rolls_finished: int = 0
    accounts: int = 0
    charged: int = 0
    unconverted: int = 0
    failed: int = 0
    rates_missing: int = 0
    quotes_missing: int = 0
    complete: bool = False


def roll_positions(
    store: FinancingStore, announce: Announce, *, request_id: str, time_left_ms: TimeLeft
) -> RolloverReport:
    """Charge what the rolls that have come have left to charge, and finish those that have nothing left.

    `announce` is told each account that has a new event; it must not raise. Safe to run twice at once. Raises
    TradingError when the search itself is refused, or after FAILURES_MAX accounts that could not be charged.
    """
    run = _Run(store, announce, request_id, time_left_ms)
    rolls: Collection[Roll] = store.open_rolls()
    run.report.rolls_open = len(rolls)
    if not rolls:
        run.report.complete = True
        return run.report
    # A roll is finished when a whole pass has found nothing left of it, so that what was charged is looked at again.
    while True:
        charged_before = run.report.charged
        unsettled = run.pass_over_accounts()
        if unsettled is None:
            return run.report
        rolls = run.finish(rolls, unsettled)
        if run.report.charged == charged_before:
            run.count_missing(unsettled)
            run.report.complete = True
            return run.report


@dataclass(slots=True)
class _Run:
    """One run: what it calls, how long it may take, and what it has done so far."""

    store: FinancingStore
    announce: Announce
    request_id: str
    time_left_ms: TimeLeft
    report: RolloverReport = field(default_factory=RolloverReport)

    def has_time(self) -> bool:
        return self.time_left_ms() >= TIME_LEFT_MS_MIN

    def pass_over_accounts(self) -> set[UnsettledRoll] | None:
        """Charge page by page what is due; the rolls that had something to charge. None when time ran out."""
        unsettled: set[UnsettledRoll] = set()
        after: Holder | None = None
        while self.has_time():
            page = self.store.find_due(accounts_max=PAGE_ACCOUNTS_MAX, after=after)
            unsettled.update(page.unsettled)
            for holder in page.due:
                if not self.has_time():
                    return None
                self.charge(holder)
            if page.next_after is None:
                return unsettled
            after = page.next_after
        return None

    def charge(self, holder: Holder) -> None:
        """Charge one account; a fault of it is logged and counted."""
        try:
            for _ in range(ROUNDS_MAX):
                financed = self.store.finance(holder, entries_max=ENTRIES_MAX, request_id=self.request_id)
                self.report.charged += financed.booked
                self.report.accounts += financed.sequence is not None
                if financed.unconverted:
                    self.report.unconverted += 1
                    logger().error("no rate at the roll", pairs=financed.unconverted, account=str(holder.account_id))
                if financed.sequence is not None:
                    self.announce(holder.account_id)
                if not financed.more or not self.has_time():
                    return
        except TradingError as error:
            self.report.failed += 1
            logger().error("account not financed", account_id=str(holder.account_id), exc_info=error)
            if self.report.failed >= FAILURES_MAX:
                raise

    def finish(self, rolls: Collection[Roll], unsettled: set[UnsettledRoll]) -> set[Roll]:
        """Finish those of `rolls` that are settled; the others."""
        left = {found.roll for found in unsettled}
        settled = set(rolls) - left
        if settled:
            self.store.finish(settled)
            self.report.rolls_finished += len(settled)
        return left

    def count_missing(self, unsettled: set[UnsettledRoll]) -> None:
        """Report the rolls that wait for a rate or a quote; they are tried again in each run."""
        missing = sorted((found.roll, found.lacks) for found in unsettled if found.lacks is not None)
        self.report.rates_missing = sum(lacks == "rate" for _, lacks in missing)
        self.report.quotes_missing = sum(lacks == "quote" for _, lacks in missing)
        if missing:
            logger().error(
                "rolls that cannot be charged yet",
                rolls=[f"{roll.symbol} {roll.roll_date} lacks its {lacks}" for roll, lacks in missing],
            )
