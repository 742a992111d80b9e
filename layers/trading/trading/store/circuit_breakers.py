"""The database's procedures of the circuit breakers that no quote trips."""

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from trading.store.database import Database

REQUEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class LosingAccount:
    """An account that has lost as often in a row as its limit allows."""

    user_id: UUID
    account_id: UUID


@dataclass(frozen=True, slots=True)
class BreakerPage:
    """Whether the platform's breaker has tripped, the refused share of orders in percent, and the accounts due."""

    platform_tripped: bool
    reject_rate: Decimal | None
    due: tuple[LosingAccount, ...]


class CircuitBreakerStore:
    """Calls as the role function_risk; raises DATABASE_UNAVAILABLE."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def watch(self, *, within_s: int, accounts_max: int) -> BreakerPage:
        """Trip the platform's breaker if it is due; the accounts that are, of those that have changed lately."""
        answer = self._database.call(
            "watch_breakers", {"version": REQUEST_VERSION, "within_s": within_s, "accounts_max": accounts_max}
        )
        due = tuple(LosingAccount(UUID(row["user_id"]), UUID(row["account_id"])) for row in answer["due"])
        return BreakerPage(answer["tripped"], answer["reject_rate"], due)

    def trip(self, account: LosingAccount, request_id: str) -> bool:
        """Look at the account again under its lock; whether its breaker has tripped."""
        return self._database.call(
            "trip_account_breaker",
            {
                "version": REQUEST_VERSION,
                "user_id": account.user_id,
                "account_id": account.account_id,
                "request_id": request_id,
            },
        )["tripped"]
