"""The watch over what no quote and no single order shows: many refused orders, and accounts that lose and lose."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol
from uuid import UUID

from trading.observability import logger
from trading.store.circuit_breakers import BreakerPage, LosingAccount

# Ten runs of the minute: what a few of them miss is still found.
CHANGED_WITHIN_S = 600
ACCOUNTS_MAX = 500

type Announce = Callable[[UUID], None]


class Store(Protocol):
    """`store.circuit_breakers.CircuitBreakerStore`."""

    def watch(self, *, within_s: int, accounts_max: int) -> BreakerPage:
        """What is due."""
        ...

    def trip(self, account: LosingAccount, request_id: str) -> bool:
        """Whether it has tripped."""
        ...


@dataclass(frozen=True, slots=True)
class BreakerReport:
    """What has tripped; `reject_rate` in percent, None where there are too few orders to say."""

    platform_tripped: bool
    accounts_tripped: int
    reject_rate: Decimal | None


def watch_breakers(store: Store, announce: Announce, *, request_id: str) -> BreakerReport:
    """Trip what is due. `announce` is told each account that has a new event; it must not raise.

    Safe to run twice at once. Raises TradingError DATABASE_UNAVAILABLE.
    """
    page = store.watch(within_s=CHANGED_WITHIN_S, accounts_max=ACCOUNTS_MAX)
    if page.platform_tripped:
        logger().error("the platform's circuit breaker has tripped", extra={"reject_rate": str(page.reject_rate)})
    tripped = 0
    for account in page.due:
        if store.trip(account, request_id):
            tripped += 1
            logger().warning("an account's circuit breaker has tripped", extra={"account_id": str(account.account_id)})
            announce(account.account_id)
    return BreakerReport(page.platform_tripped, tripped, page.reject_rate)
