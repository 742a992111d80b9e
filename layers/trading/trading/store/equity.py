"""The database's procedures of equity snapshots and of accounts' days."""

from dataclasses import dataclass
from uuid import UUID

import psycopg

from trading.errors import ErrorCode, TradingError
from trading.store.financing import Holder, Procedures


@dataclass(frozen=True, slots=True)
class SnapshotPage:
    """What one page of accounts came to; `finished` says that this hour's snapshots are all there."""

    checked: int
    taken: int
    finished: bool


class EquityStore:
    """Appends what accounts are worth, hour by hour."""

    def __init__(self, procedures: Procedures) -> None:
        self._procedures = procedures

    def take_snapshots(self, *, accounts_max: int) -> SnapshotPage:
        """Take this hour's snapshots of the next page of at most `accounts_max` accounts."""
        answer = self._procedures.call("take_equity_snapshots", {"version": 1, "accounts_max": accounts_max})
        return SnapshotPage(answer["checked"], answer["taken"], answer["finished"])

    def find_ended_days(self, *, accounts_max: int, after: Holder | None) -> tuple[Holder, ...]:
        """At most `accounts_max` accounts behind `after` that hold something and whose day has ended."""
        request: dict[str, object] = {"version": 1, "accounts_max": accounts_max}
        if after is not None:
            request |= {"after_user_id": str(after.user_id), "after_account_id": str(after.account_id)}
        answer = self._procedures.call("find_ended_days", request)
        return tuple(Holder(UUID(ended["user_id"]), UUID(ended["account_id"])) for ended in answer["ended"])

    def begin_day(self, holder: Holder) -> None:
        """Begin the account's day where it has ended, in a transaction of its own.

        Raises TradingError whatever went wrong, so that one account's fault can be told from the run's.
        """
        request = {"version": 1, "user_id": str(holder.user_id), "account_id": str(holder.account_id)}
        try:
            self._procedures.call("begin_account_day", request)
        except psycopg.Error as error:
            raise TradingError(ErrorCode.INTERNAL_ERROR, "begin_account_day failed for an account.") from error
