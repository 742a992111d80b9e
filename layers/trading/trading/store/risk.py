"""The database's procedures of risk monitoring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, Protocol
from uuid import UUID

import psycopg

from trading.errors import ErrorCode, TradingError

type RecordedState = Literal["entered", "escalated", "eased", "left", "unchanged", "skipped"]
type StopOutState = Literal["recovered", "more", "done", "routed", "waiting", "skipped"]
type ProtectionState = Literal["protected", "unchanged"]


class Procedures(Protocol):
    """Calls a procedure by name with one JSON request; `Database` is one."""

    def call(self, procedure: str, request: Mapping[str, object]) -> Any:
        """The procedure's answer; TradingError for the faults that a caller is told about."""
        ...


@dataclass(frozen=True, slots=True)
class DueAccount:
    """An account whose episode below its margin levels changes, that is to be stopped out, or both."""

    user_id: UUID
    account_id: UUID
    margin_call: bool = True
    stop_out: bool = False


@dataclass(frozen=True, slots=True)
class MarginPage:
    """What one page of the scan found. `unpriced` holds the symbols and currency pairs without a usable quote.

    `last` is the key of the account that it came to, None where nobody is kept waiting behind it.
    """

    checked: int
    breached: int
    skipped: int
    unpriced: tuple[str, ...]
    due: tuple[DueAccount, ...]
    finished: bool
    last: tuple[UUID, UUID] | None = None


@dataclass(frozen=True, slots=True)
class StopOutStep:
    """What one step of a stop-out did; `sequence` is that of its event, None where nothing was done.

    recovered: nothing was due any more · skipped: not valued for want of a quote · waiting: nothing can be closed now ·
    more, done: a position was closed or sent to its venue, and another is due, or not · routed: what is on its way to a
    venue is enough, or all that there is. `position_id` is of what was closed, `sent_order_id` of an order that has
    still to be handed to its venue. `margin_level` is None where no margin is used.
    """

    state: StopOutState
    margin_level: Decimal | None
    position_id: UUID | None
    sent_order_id: UUID | None
    canceled_orders: int
    sequence: int | None


class RiskStore:
    """Scans margin levels, records margin calls, stops accounts out and protects their balances."""

    def __init__(self, procedures: Procedures) -> None:
        self._procedures = procedures

    def scan_margin(self, *, accounts_max: int, calls_max: int) -> MarginPage:
        """The next page of at most `accounts_max` accounts, cut short behind the `calls_max`-th that is due."""
        request = {"version": 1, "accounts_max": accounts_max, "calls_max": calls_max}
        return _page(self._procedures.call("monitor_margin", request))

    def scan_holders(
        self, symbols: Sequence[str], after: tuple[UUID, UUID] | None, *, accounts_max: int, calls_max: int
    ) -> MarginPage:
        """A page of the accounts that hold one of `symbols`, behind the one whose (user_id, account_id) is `after`."""
        request: dict[str, object] = {
            "version": 1,
            "symbols": list(symbols),
            "accounts_max": accounts_max,
            "calls_max": calls_max,
        }
        if after is not None:
            request |= {"after_user_id": str(after[0]), "after_account_id": str(after[1])}
        return _page(self._procedures.call("monitor_symbols", request))

    def record_margin_call(self, account: DueAccount, request_id: str) -> RecordedState:
        """Value `account` again under its lock and book what has come of its episode.

        Raises TradingError whatever went wrong, so that one account's fault can be told from the run's.
        """
        return self._settle("record_margin_call", account, request_id)["state"]

    def stop_out_step(self, account: DueAccount, request_id: str) -> StopOutStep:
        """Value `account` again under its lock and close the one position that a stop-out closes next, if one is due.

        Each step is a transaction of its own. Raises TradingError whatever went wrong, as record_margin_call does.
        """
        answer = self._settle("stop_out_step", account, request_id)
        sent = answer["venue"] is not None
        return StopOutStep(
            state=answer["state"],
            margin_level=answer["margin_level"],
            position_id=UUID(answer["position_id"]) if answer["position_id"] and not sent else None,
            sent_order_id=UUID(answer["order_id"]) if sent else None,
            canceled_orders=len(answer["canceled_orders"]),
            sequence=answer["sequence"],
        )

    def find_unprotected_balances(self, *, limit: int) -> tuple[DueAccount, ...]:
        """At most `limit` accounts whose negative balance protection is due."""
        answer = self._procedures.call("find_unprotected_balances", {"version": 1, "limit": limit})
        return tuple(
            DueAccount(UUID(each["user_id"]), UUID(each["account_id"]), margin_call=False)
            for each in answer["accounts"]
        )

    def protect_balance(self, account: DueAccount, request_id: str) -> ProtectionState:
        """Bring a negative balance to zero where `account` is protected and holds nothing any more.

        Raises TradingError whatever went wrong, as record_margin_call does.
        """
        return self._settle("protect_balance", account, request_id)["state"]

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


def _page(answer: Mapping[str, Any]) -> MarginPage:
    last = (answer.get("last_user_id"), answer.get("last_account_id"))
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
        last=(UUID(last[0]), UUID(last[1])) if last[0] and last[1] else None,
    )
