"""What a position costs or earns over a roll, by hand, and which rolls a calendar has."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from tests.kit.instruments import EURUSD, price, rates
from trading.financing import FinancingRate, RateBasis, RolledPosition, RollSchedule, financing_amount
from trading.positions import PositionSide

QUOTE = price("1.1000", "1.1002")
RATES = rates(EURUSD=("1.1000", "1.1002"))


def booked(
    side: PositionSide, basis: RateBasis, *, days: int = 1, currency: str = "USD", markup: str = "0.5", lots: str = "1"
) -> Decimal:
    """Of EURUSD, whose longs pay 3 and whose shorts earn 2 before the markup."""
    rate = FinancingRate(Decimal(-3), Decimal(2), Decimal(markup), basis)
    return financing_amount(RolledPosition(side, Decimal(lots)), EURUSD, QUOTE, rate, days, currency, RATES)


@pytest.mark.parametrize(
    ("side", "basis", "amount"),
    [
        ("long", "percent_360", "-10.69"),  # 110,000 x -3.5 / 100 / 360 = -10.6944, at the bid
        ("long", "percent_365", "-10.55"),  # -10.5479
        ("short", "percent_360", "4.58"),  # 110,020 x 1.5 / 100 / 360 = 4.5842, at the ask
        ("long", "points", "-3.50"),  # 100,000 x 0.00001 x -3.5, whatever the price
        ("short", "points", "1.50"),
    ],
)
def test_each_side_by_each_basis(side: PositionSide, basis: RateBasis, amount: str) -> None:
    assert booked(side, basis) == Decimal(amount)


def test_days_and_lots_multiply_before_it_is_rounded() -> None:
    assert booked("long", "percent_360", days=3) == Decimal("-32.08")  # -32.0833
    assert booked("long", "percent_360", lots="0.3") == Decimal("-3.21")  # -3.20833
    assert booked("long", "points", days=3) == Decimal("-10.50")
    assert booked("long", "percent_360", days=0) == 0


def test_a_markup_makes_who_earned_pay() -> None:
    assert booked("short", "points", markup="2.25") == Decimal("-0.25")


def test_it_is_converted_like_a_profit_or_a_loss() -> None:
    assert booked("long", "points", currency="EUR", days=100) == Decimal("-318.18")  # -350 / 1.1000
    assert booked("short", "points", currency="EUR", days=1000) == Decimal("1363.39")  # 1,500 / 1.1002


NEW_YORK = RollSchedule(
    time(17), ZoneInfo("America/New_York"), (1, 1, 3, 1, 1, 0, 0), {date(2026, 11, 26): 0, date(2026, 11, 28): 2}
)


@pytest.mark.parametrize(
    ("roll_date", "days"),
    [
        (date(2026, 11, 23), 1),
        (date(2026, 11, 25), 3),  # a Wednesday
        (date(2026, 11, 26), 0),  # a holiday
        (date(2026, 11, 28), 2),  # a Saturday that is charged
        (date(2026, 11, 29), 0),
    ],
)
def test_the_days_that_a_roll_charges(roll_date: date, days: int) -> None:
    assert NEW_YORK.days_of(roll_date) == days


def test_a_roll_keeps_its_wall_clock_when_the_clocks_change() -> None:
    assert NEW_YORK.rolled_at(date(2026, 10, 31)) == datetime(2026, 10, 31, 21, tzinfo=UTC)
    assert NEW_YORK.rolled_at(date(2026, 11, 1)) == datetime(2026, 11, 1, 22, tzinfo=UTC)


def test_the_rolls_of_a_span_include_its_begin_and_not_its_end() -> None:
    begin, end = (datetime(2026, 11, day, 22, tzinfo=UTC) for day in (24, 26))

    assert list(NEW_YORK.rolls(begin, end)) == [
        (date(2026, 11, 24), begin),
        (date(2026, 11, 25), datetime(2026, 11, 25, 22, tzinfo=UTC)),
    ]
    assert list(NEW_YORK.rolls(begin, begin)) == []
    assert list(NEW_YORK.rolls(end, end + timedelta(hours=1))) == [(date(2026, 11, 26), end)]
