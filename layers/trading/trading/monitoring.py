"""The watch over margin: accounts that come below a level or leave it, that have to be stopped out, or protected.

Each minute over all accounts, and after batches of prices over those that hold the symbols.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from trading.errors import TradingError
from trading.observability import logger
from trading.store.risk import DueAccount, MarginPage, RecordedState, RiskStore, StopOutStep

# One run looks at this many accounts; the next one goes on behind them.
RUN_ACCOUNTS_MAX = 500_000
PAGE_ACCOUNTS_MAX = 25_000
PAGE_CALLS_MAX = 200
# A run closes this many positions of one account, twice as many as its default limit lets it hold; what is left waits
# for the next run, so that one account cannot take a run's time from all others.
STOP_OUT_STEPS_MAX = 20
PROTECTED_MAX = 200
# A run with more accounts than this that cannot be recorded has a fault of its own, and fails.
FAILURES_MAX = 10
# No page, no account and no step is begun with less time left: one statement may take as long (statement_timeout of
# the role).
TIME_LEFT_MS_MIN = 22_000

type Announce = Callable[[UUID], None]
# Of a user's order; it must not raise.
type StartRouting = Callable[[UUID, UUID], None]
type TimeLeft = Callable[[], int]


@dataclass(slots=True)
class MarginReport:
    """What a run did, in accounts where nothing else is said.

    `skipped` were not valued for want of a usable quote, `unchanged` had come right again when they were looked at
    under their lock, `failed` could not be recorded. `stopped_out` had positions closed (`positions_closed`) or orders
    canceled (`orders_canceled`), or closing orders sent to a venue (`orders_sent`); `routed` wait for one to fill them,
    `waiting` have nothing that can be closed now, `unfinished` more to close than the run allowed. `protected` had a
    negative balance brought to zero. `complete` says that the run came to the last account.
    """

    checked: int = 0
    breached: int = 0
    entered: int = 0
    escalated: int = 0
    eased: int = 0
    left: int = 0
    stopped_out: int = 0
    positions_closed: int = 0
    orders_canceled: int = 0
    orders_sent: int = 0
    routed: int = 0
    waiting: int = 0
    unfinished: int = 0
    protected: int = 0
    skipped: int = 0
    unchanged: int = 0
    failed: int = 0
    complete: bool = False


def monitor_margin(
    store: RiskStore, announce: Announce, route: StartRouting, *, request_id: str, time_left_ms: TimeLeft
) -> MarginReport:
    """Scan accounts with open positions page by page; record what has come of them and close the positions due.

    `announce` is told each account that has a new event, `route` each order that a venue is to fill; neither may raise.
    Safe to run twice at once. Raises TradingError when the scan itself is refused, or after FAILURES_MAX accounts that
    could not be recorded.
    """
    watch = _Watch(store, announce, route, request_id, time_left_ms)
    # First, because what a run left has waited for a minute already.
    watch.protect_balances()
    watch.scan(lambda _: store.scan_margin(accounts_max=PAGE_ACCOUNTS_MAX, calls_max=PAGE_CALLS_MAX))
    return watch.report


def monitor_holders(
    store: RiskStore,
    symbols: Sequence[str],
    announce: Announce,
    route: StartRouting,
    *,
    request_id: str,
    time_left_ms: TimeLeft,
) -> MarginReport:
    """Do the same for the accounts that hold one of `symbols`, whose prices have moved."""
    watch = _Watch(store, announce, route, request_id, time_left_ms)
    watch.scan(lambda last: store.scan_holders(symbols, last, accounts_max=PAGE_ACCOUNTS_MAX, calls_max=PAGE_CALLS_MAX))
    return watch.report


@dataclass(slots=True)
class _Watch:
    """One run: what it calls, how long it may take, and what it has done so far."""

    store: RiskStore
    announce: Announce
    route: StartRouting
    request_id: str
    time_left_ms: TimeLeft
    report: MarginReport = field(default_factory=MarginReport)

    def has_time(self) -> bool:
        return self.time_left_ms() >= TIME_LEFT_MS_MIN

    def scan(self, next_page: Callable[[tuple[UUID, UUID] | None], MarginPage]) -> None:
        """Settle who is due, page by page; `next_page` is given the key that the page before came to."""
        last = None
        while self.report.checked < RUN_ACCOUNTS_MAX and self.has_time():
            page = next_page(last)
            last = page.last
            self._count_page(page)
            for account in page.due:
                # Who is left out here is due again in the next scan.
                if not self.has_time():
                    return
                self._settle(account)
            if page.finished:
                self.report.complete = True
                break
        if self.report.positions_closed:
            self.protect_balances()

    def protect_balances(self) -> None:
        """Bring the balances to zero that nobody is to owe."""
        if not self.has_time():
            return
        for account in self.store.find_unprotected_balances(limit=PROTECTED_MAX):
            if self.has_time():
                self._guarded(account, self._protect)

    def _count_page(self, page: MarginPage) -> None:
        self.report.checked += page.checked
        self.report.breached += page.breached
        self.report.skipped += page.skipped
        if page.unpriced:
            logger().warning("accounts left unvalued for want of quotes", unpriced=page.unpriced, accounts=page.skipped)

    def _guarded(self, account: DueAccount, settle: Callable[[DueAccount], None]) -> None:
        """A fault of one account is logged and counted."""
        try:
            settle(account)
        except TradingError as error:
            self.report.failed += 1
            logger().error("account not settled", account_id=str(account.account_id), exc_info=error)
            if self.report.failed >= FAILURES_MAX:
                raise

    def _settle(self, account: DueAccount) -> None:
        self._guarded(account, self._call_and_stop_out)

    def _call_and_stop_out(self, account: DueAccount) -> None:
        """Record what has come of the account's episode, then stop it out."""
        if account.margin_call and self._record_margin_call(account) == "skipped":
            return
        # A close may have brought the level back, which moves or ends the episode. Without time the next scan sees to
        # it.
        if account.stop_out and self._stop_out(account) and self.has_time():
            self._record_margin_call(account)

    def _record_margin_call(self, account: DueAccount) -> RecordedState:
        state = self.store.record_margin_call(account, self.request_id)
        match state:
            case "entered":
                self.report.entered += 1
            case "escalated":
                self.report.escalated += 1
            case "eased":
                self.report.eased += 1
            case "left":
                self.report.left += 1
            case "unchanged":
                self.report.unchanged += 1
            case "skipped":
                self.report.skipped += 1
        if state not in {"unchanged", "skipped"}:
            logger().info("margin call", state=state, account_id=str(account.account_id))
            self.announce(account.account_id)
        return state

    def _stop_out(self, account: DueAccount) -> bool:
        """Step until nothing more is due; whether a position was closed."""
        closed_before = self.report.positions_closed
        changed = False
        for _ in range(STOP_OUT_STEPS_MAX):
            if not self.has_time():
                break
            step = self.store.stop_out_step(account, self.request_id)
            self.report.stopped_out += step.sequence is not None and not changed
            changed = changed or step.sequence is not None
            self._count_step(account, step)
            if step.state != "more":
                return self.report.positions_closed > closed_before
        self.report.unfinished += 1
        return self.report.positions_closed > closed_before

    def _count_step(self, account: DueAccount, step: StopOutStep) -> None:
        self.report.positions_closed += step.position_id is not None
        self.report.orders_canceled += step.canceled_orders
        self.report.routed += step.state == "routed"
        self.report.waiting += step.state == "waiting"
        self.report.skipped += step.state == "skipped"
        if step.sequence is not None:
            logger().warning(
                "stop-out",
                state=step.state,
                account_id=str(account.account_id),
                position_id=str(step.position_id),
                canceled_orders=step.canceled_orders,
            )
            self.announce(account.account_id)
        if step.sent_order_id is not None:
            self.report.orders_sent += 1
            self.route(account.user_id, step.sent_order_id)

    def _protect(self, account: DueAccount) -> None:
        if self.store.protect_balance(account, self.request_id) == "protected":
            self.report.protected += 1
            logger().warning("negative balance protected", account_id=str(account.account_id))
            self.announce(account.account_id)
