"""The database's procedures of risk monitoring."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, Protocol
from uuid import UUID

import psycopg

from trading.errors import ErrorCode, TradingError

type RecordedState = Literal["entered", "left", "unchanged", "skipped"]
type StopOutState = Literal["recovered", "more", "done", "waiting", "skipped"]


class Procedures(Protocol):
    """Calls a procedure by name with one JSON request; `Database` is one."""

    def call(self, procedure: str, request: Mapping[str, object]) -> Any:
        """The procedure's answer; TradingError for the faults that a caller is told about."""
        ...


@dataclass(frozen=True, slots=True)
class DueAccount:
    """An account whose margin call is to be opened or closed, that is to be stopped out, or both."""

    user_id: UUID
    account_id: UUID
    margin_call: bool = True
    stop_out: bool = False


@dataclass(frozen=True, slots=True)
class MarginPage:
    """What one page of the scan found. `unpriced` holds the symbols and currency pairs without a usable quote."""

    checked: int
    breached: int
    skipped: int
    unpriced: tuple[str, ...]
    due: tuple[DueAccount, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class StopOutStep:
    """What one step of a stop-out did; `sequence` is that of its event, None where nothing was done.

    recovered: nothing was due any more · skipped: not valued for want of a quote · waiting: nothing can be closed now ·
    more, done: a position was closed, and another is due, or not.
    """

    state: StopOutState
    margin_level: Decimal | None
    position_id: UUID | None
    canceled_orders: int
    sequence: int | None


class RiskStore:
    """Scans margin levels, records margin calls and stops accounts out."""

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
            due=tuple(
                DueAccount(
                    UUID(due["user_id"]), UUID(due["account_id"]), due["state"] is not None, stop_out=due["stop_out"]
                )
                for due in answer["due"]
            ),
            finished=answer["finished"],
        )

    def record_margin_call(self, account: DueAccount, request_id: str) -> RecordedState:
        """Value `account` again under its lock and book what has come of its margin call.

        Raises TradingError whatever went wrong, so that one account's fault can be told from the run's.
        """
        return self._settle("record_margin_call", account, request_id)["state"]

    def stop_out_step(self, account: DueAccount, request_id: str) -> StopOutStep:
        """Value `account` again under its lock and close the one position that a stop-out closes next, if one is due.

        Each step is a transaction of its own. Raises TradingError whatever went wrong, as record_margin_call does.
        """
        answer = self._settle("stop_out_step", account, request_id)
        return StopOutStep(
            state=answer["state"],
            margin_level=answer["margin_level"],
            position_id=UUID(answer["position_id"]) if answer["position_id"] else None,
            canceled_orders=len(answer["canceled_orders"]),
            sequence=answer["sequence"],
        )

    def _settle(self, procedure: str, account: DueAccount, request_id: str) -> Any:
        request = {
            "version": 1,
            "user_id": str(account.user_id),
            "account_id": str(account.account_id),
            "request_id": request_id,
        }
        try:
            return self._procedures.call(procedure, request)
        except psycopg.Error as error:
            raise TradingError(ErrorCode.INTERNAL_ERROR, f"{procedure} failed for an account.") from error
