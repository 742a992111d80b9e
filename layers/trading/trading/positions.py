"""Positions: what they gain or lose, and how fills change them."""

from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Literal

from trading.accounts import round_money
from trading.conversion import Rates
from trading.instruments import Instrument
from trading.pricing import EXACT, MarketPrice

type PositionSide = Literal["long", "short"]


@dataclass(frozen=True, slots=True)
class Position:
    """An open position of `quantity` lots; `margin_used` is in account currency."""

    side: PositionSide
    quantity: Decimal
    entry_price: Decimal
    margin_used: Decimal


def mark(side: PositionSide, market: MarketPrice) -> Decimal:
    """The price at which a position could be closed now: longs at bid, shorts at ask."""
    return market.bid if side == "long" else market.ask


def pnl(side: PositionSide, quantity: Decimal, entry: Decimal, leave: Decimal, contract_size: Decimal) -> Decimal:
    """Profit or loss between two prices in quote currency, not rounded."""
    with localcontext(EXACT):
        return (leave - entry if side == "long" else entry - leave) * quantity * contract_size


def in_account_currency(amount: Decimal, instrument: Instrument, currency: str, rates: Rates) -> Decimal:
    """`amount` of the instrument's quote currency in `currency`, not rounded; raises NoRateError."""
    return rates.convert(amount, instrument.quote_currency, currency)


def unrealized_pnl(
    position: Position, instrument: Instrument, market: MarketPrice, currency: str, rates: Rates
) -> Decimal:
    """What the position would gain or lose if closed now, in account currency, not rounded."""
    leave = mark(position.side, market)
    gained = pnl(position.side, position.quantity, position.entry_price, leave, instrument.contract_size)
    return in_account_currency(gained, instrument, currency, rates)


def realized_pnl(
    position: Position, quantity: Decimal, price: Decimal, instrument: Instrument, currency: str, rates: Rates
) -> Decimal:
    """What closing `quantity` lots at `price` books, in account currency, rounded once."""
    gained = pnl(position.side, quantity, position.entry_price, price, instrument.contract_size)
    return round_money(in_account_currency(gained, instrument, currency, rates), currency)


def margin_after_reducing(position: Position, quantity: Decimal, currency: str) -> Decimal:
    """The margin left when `quantity` lots are closed: released in proportion, rounded once."""
    with localcontext(EXACT):
        left = position.margin_used * (position.quantity - quantity) / position.quantity
        return round_money(left, currency)
