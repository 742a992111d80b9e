"""The minute's watch over circuit breakers, on a store that says what it is told."""

import uuid
from dataclasses import dataclass, field
from decimal import Decimal

from trading.circuit_breakers import BreakerReport, watch_breakers
from trading.store.circuit_breakers import BreakerPage, LosingAccount

FIRST, SECOND = (LosingAccount(uuid.UUID(int=n), uuid.UUID(int=n)) for n in (1, 2))


@dataclass
class Script:
    """Trips the accounts in `losing`."""

    page: BreakerPage
    losing: set[LosingAccount]
    asked: list[str] = field(default_factory=list[str])

    def watch(self, *, within_s: int, accounts_max: int) -> BreakerPage:
        return self.page

    def trip(self, account: LosingAccount, request_id: str) -> bool:
        self.asked.append(request_id)
        return account in self.losing


def test_each_account_that_has_tripped_is_told() -> None:
    script = Script(BreakerPage(platform_tripped=False, reject_rate=None, due=(FIRST, SECOND)), {SECOND})
    told: list[uuid.UUID] = []

    report = watch_breakers(script, told.append, request_id="risk-1")

    assert report == BreakerReport(platform_tripped=False, accounts_tripped=1, reject_rate=None)
    assert (told, script.asked) == ([SECOND.account_id], ["risk-1", "risk-1"])


def test_the_platform_s_is_reported_with_its_figure() -> None:
    script = Script(BreakerPage(platform_tripped=True, reject_rate=Decimal("62.50"), due=()), set())

    report = watch_breakers(script, lambda _: None, request_id="risk-1")

    assert (report.platform_tripped, report.reject_rate) == (True, Decimal("62.50"))
