"""The database's procedures of financing."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, Protocol
from uuid import UUID

import psycopg

from trading.errors import ErrorCode, TradingError


class Procedures(Protocol):
    """Calls a procedure by name with one JSON request; `Database` is one."""

    def call(self, procedure: str, request: Mapping[str, object]) -> Any:
        """The procedure's answer; TradingError for the faults that a caller is told about."""
        ...


@dataclass(frozen=True, slots=True)
class Holder:
    """An account, by its key."""

    user_id: UUID
    account_id: UUID


@dataclass(frozen=True, slots=True, order=True)
class Roll:
    """One roll of one instrument."""

    symbol: str
    roll_date: date


@dataclass(frozen=True, slots=True)
class UnsettledRoll:
    """A roll with something left to charge; `lacks` is what it cannot be charged without yet."""

    roll: Roll
    lacks: Literal["rate", "quote"] | None


@dataclass(frozen=True, slots=True)
class FinancingPage:
    """What a page of accounts has left to charge; `next_after` is where the next page begins, None behind the last."""

    checked: int
    due: tuple[Holder, ...]
    unsettled: tuple[UnsettledRoll, ...]
    next_after: Holder | None


@dataclass(frozen=True, slots=True)
class Financed:
    """What was booked for an account; `sequence` is that of its event, None where nothing was booked.

    `more` is due than was asked for; `unconverted` are currency pairs that had no rate at the roll.
    """

    booked: int
    more: bool
    unconverted: tuple[str, ...]
    sequence: int | None


class FinancingStore:
    """Opens rolls, finds what they have to charge, charges it account by account, and closes them."""

    def __init__(self, procedures: Procedures) -> None:
        self._procedures = procedures

    def open_rolls(self) -> tuple[Roll, ...]:
        """The rolls that are not finished, those that have come since the last call included."""
        answer = self._procedures.call("open_rolls", {"version": 1})
        return tuple(_roll(roll) for roll in answer["rolls"])

    def find_due(self, *, accounts_max: int, after: Holder | None) -> FinancingPage:
        """The page of at most `accounts_max` accounts behind `after`, the first one where that is None."""
        request: dict[str, object] = {"version": 1, "accounts_max": accounts_max}
        if after is not None:
            request |= {"after_user_id": str(after.user_id), "after_account_id": str(after.account_id)}
        answer = self._procedures.call("find_due_financing", request)
        return FinancingPage(
            checked=answer["checked"],
            due=tuple(_holder(due) for due in answer["due"]),
            unsettled=tuple(UnsettledRoll(_roll(roll), roll["lacks"]) for roll in answer["unsettled"]),
            next_after=_holder(answer["next"]) if answer["next"] else None,
        )

    def finance(self, holder: Holder, *, entries_max: int, request_id: str) -> Financed:
        """Charge the account what is due, at most `entries_max` entries, in a transaction of its own.

        Raises TradingError whatever went wrong, so that one account's fault can be told from the run's.
        """
        request = {
            "version": 1,
            "user_id": str(holder.user_id),
            "account_id": str(holder.account_id),
            "entries_max": entries_max,
            "request_id": request_id,
        }
        try:
            answer = self._procedures.call("finance_account", request)
        except psycopg.Error as error:
            raise TradingError(ErrorCode.INTERNAL_ERROR, "finance_account failed for an account.") from error
        return Financed(answer["booked"], answer["more"], tuple(answer["unconverted"]), answer["sequence"])

    def finish(self, rolls: Collection[Roll]) -> None:
        """Mark `rolls` as finished: nothing of them is left to charge."""
        named = [{"symbol": roll.symbol, "roll_date": roll.roll_date.isoformat()} for roll in sorted(rolls)]
        self._procedures.call("finish_rolls", {"version": 1, "rolls": named})


def _roll(answer: Mapping[str, Any]) -> Roll:
    return Roll(answer["symbol"], date.fromisoformat(answer["roll_date"]))


def _holder(answer: Mapping[str, Any]) -> Holder:
    return Holder(UUID(answer["user_id"]), UUID(answer["account_id"]))
