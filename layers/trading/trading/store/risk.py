"""The database's procedures of risk monitoring."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from uuid import UUID

import psycopg

from trading.errors import ErrorCode, TradingError

type RecordedState = Literal["entered", "left", "unchanged", "skipped"]


class Procedures(Protocol):
    """Calls a procedure by name with one JSON request; `Database` is one."""

    def call(self, procedure: str, request: Mapping[str, object]) -> Any:
        """The procedure's answer; TradingError for the faults that a caller is told about."""
        ...


@dataclass(frozen=True, slots=True)
class DueAccount:
    """An account whose margin call is to be opened or closed."""

    user_id: UUID
    account_id: UUID


@dataclass(frozen=True, slots=True)
class MarginPage:
    """What one page of the scan found. `unpriced` holds the symbols and currency pairs without a usable quote."""

    checked: int
    breached: int
    skipped: int
    unpriced: tuple[str, ...]
    due: tuple[DueAccount, ...]
    finished: bool


class RiskStore:
    """Scans margin levels and records margin calls."""

    def __init__(self, procedures: Procedures) -> None:
        self._procedures = procedures

    def scan_margin(self, *, accounts_max: int, calls_max: int) -> MarginPage:
        """The next page of at most `accounts_max` accounts, cut short behind the `calls_max`-th that is due."""
        answer = self._procedures.call(
            "monitor_margin", {"version": 1, "accounts_max": accounts_max, "calls_max": calls_max}
        )
        return MarginPage(
            checked=answer["checked"],
            breached=answer["breached"],
            skipped=answer["skipped"],
            unpriced=tuple(answer["unpriced"]),
            due=tuple(DueAccount(UUID(due["user_id"]), UUID(due["account_id"])) for due in answer["due"]),
            finished=answer["finished"],
        )

    def record_margin_call(self, account: DueAccount, request_id: str) -> RecordedState:
        """Value `account` again under its lock and book what has come of its margin call.

        Raises TradingError whatever went wrong, so that one account's fault can be told from the run's.
        """
        request = {
            "version": 1,
            "user_id": str(account.user_id),
            "account_id": str(account.account_id),
            "request_id": request_id,
        }
        try:
            answer = self._procedures.call("record_margin_call", request)
        except psycopg.Error as error:
            raise TradingError(ErrorCode.INTERNAL_ERROR, "The margin call could not be recorded.") from error
        return answer["state"]
