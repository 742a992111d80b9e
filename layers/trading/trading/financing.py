"""Financing: what a position that is held over a roll costs or earns, and which rolls a calendar has.

The database books by the same rules; see `financing_amount`, `rolls_between` and `roll_days`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, localcontext
from typing import Literal
from zoneinfo import ZoneInfo

from trading.accounts import round_money
from trading.conversion import Rates
from trading.instruments import Instrument
from trading.positions import PositionSide, mark
from trading.pricing import EXACT, MarketPrice

type RateBasis = Literal["percent_360", "percent_365", "points"]

DAYS_OF_YEAR: Mapping[RateBasis, int] = {"percent_360": 360, "percent_365": 365}


@dataclass(frozen=True, slots=True)
class FinancingRate:
    """What each side earns (negative: pays) before `markup`, which both pay: percent a year, or points a day."""

    long_rate: Decimal
    short_rate: Decimal
    markup: Decimal
    basis: RateBasis

    def of(self, side: PositionSide) -> Decimal:
        """What `side` earns in the end."""
        return (self.long_rate if side == "long" else self.short_rate) - self.markup


@dataclass(frozen=True, slots=True)
class RolledPosition:
    """A position as it was open when its instrument was rolled; `quantity` in lots."""

    side: PositionSide
    quantity: Decimal


def financing_amount(
    position: RolledPosition,
    instrument: Instrument,
    market: MarketPrice,
    rate: FinancingRate,
    days: int,
    currency: str,
    rates: Rates,
) -> Decimal:
    """What one roll of `days` days books, in account currency, rounded once; negative is charged. Raises NoRateError.

    Percent: lots x contract size x closing price x rate / 100 x days / days of the year, in quote currency. Points:
    lots x contract size x tick size x rate x days. `market` and `rates` are of the last quotes before the roll.
    Sources: MQL5 Reference, ENUM_SYMBOL_SWAP_MODE, SYMBOL_SWAP_MODE_INTEREST_CURRENT (a year of 360 days) and
    SYMBOL_SWAP_MODE_POINTS; OANDA, "Financing fees" (size x rate x days / 365 x conversion rate). The rate of a
    currency pair is the difference of its interest rates: a long position in the currency of the higher one earns.
    """
    points = rate.basis == "points"
    with localcontext(EXACT):
        price = instrument.tick_size if points else mark(position.side, market)
        amount = position.quantity * instrument.contract_size * price * rate.of(position.side) * days
        # Divided last: what ends as a tie then is one.
        converted = rates.convert(amount, instrument.quote_currency, currency)
        return round_money(converted / (1 if points else 100 * DAYS_OF_YEAR[rate.basis]), currency)


@dataclass(frozen=True, slots=True)
class RollSchedule:
    """When positions are rolled, and how many days each roll charges.

    `roll_time` is of the clock in `time_zone`; `days` are those of Monday to Sunday, none is no roll; `holidays` says
    otherwise for single dates.
    """

    roll_time: time
    time_zone: ZoneInfo
    days: tuple[int, ...]
    holidays: Mapping[date, int] = field(default_factory=dict[date, int])

    def days_of(self, roll_date: date) -> int:
        """The days that the roll of `roll_date` charges."""
        return self.holidays.get(roll_date, self.days[roll_date.weekday()])

    def rolled_at(self, roll_date: date) -> datetime:
        """The instant of the roll of `roll_date`, in UTC."""
        return datetime.combine(roll_date, self.roll_time, self.time_zone).astimezone(UTC)

    def rolls(self, begin: datetime, end: datetime) -> Iterator[tuple[date, datetime]]:
        """Dates and instants of the rolls from `begin` to just before `end`, those that charge nothing included."""
        roll_date = begin.astimezone(self.time_zone).date()
        while roll_date <= end.astimezone(self.time_zone).date():
            rolled_at = self.rolled_at(roll_date)
            if begin <= rolled_at < end:
                yield roll_date, rolled_at
            roll_date += timedelta(days=1)
