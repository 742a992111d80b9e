"""Accounts: balance, equity, margin and what is free of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

type AccountKind = Literal["margin", "cash"]

MINOR_UNIT_BY_CURRENCY: Mapping[str, Decimal] = {"JPY": Decimal(1), "KRW": Decimal(1), "HUF": Decimal(1)}
MINOR_UNIT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Account:
    """The terms of an account: its currency, its own leverage, and whether it may borrow."""

    currency: str
    kind: AccountKind
    leverage: Decimal


@dataclass(frozen=True, slots=True)
class Worth:
    """What an account is worth at the present quotes, in its currency."""

    balance: Decimal
    unrealized_pnl: Decimal
    margin_used: Decimal

    @property
    def equity(self) -> Decimal:
        """Balance plus unrealized P&L."""
        return self.balance + self.unrealized_pnl

    @property
    def free_margin(self) -> Decimal:
        """Equity less used margin."""
        return self.equity - self.margin_used

    @property
    def margin_level(self) -> Decimal | None:
        """Equity / used margin x 100, in percent; None while no margin is used."""
        return self.equity * 100 / self.margin_used if self.margin_used else None


def round_money(amount: Decimal, currency: str) -> Decimal:
    """`amount` rounded half-up (away from zero) to the minor unit of `currency`."""
    return amount.quantize(MINOR_UNIT_BY_CURRENCY.get(currency, MINOR_UNIT), ROUND_HALF_UP) + 0  # never -0.00
