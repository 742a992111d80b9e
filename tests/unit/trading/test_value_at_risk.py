"""What positions lose in a bad day, by hand."""

from decimal import Decimal

import pytest

from trading.value_at_risk import historical_var, parametric_var, scenario_loss


def decimals(*numbers: str | int) -> list[Decimal]:
    return [Decimal(number) for number in numbers]


@pytest.mark.parametrize(
    ("losses", "level", "at_risk"),
    [
        (range(1, 101), "0.95", 95),
        (range(1, 101), "0.99", 99),
        (range(1, 21), "0.95", 19),
        (range(1, 20), "0.95", 19),  # 18.05 of 19 is more than 18
        ((7,), "0.95", 7),
        ((5, 3, 9), "0", 3),
        ((-5, -3), "0.99", 0),  # who gained on every day risks nothing, and no less
    ],
)
def test_of_the_past(losses: range | tuple[int, ...], level: str, at_risk: int) -> None:
    assert historical_var(decimals(*losses)[::-1], Decimal(level)) == at_risk


def test_without_a_past_there_is_none() -> None:
    assert historical_var([], Decimal("0.95")) is None


@pytest.mark.parametrize(
    ("value", "gained", "daily_return", "rate_return", "loss"),
    [
        ("1000", "0", "-0.02", "0", "20"),
        ("-1000", "0", "-0.02", "0", "-20"),
        ("1000", "50", "0", "-0.1", "5"),  # what was gained so far loses with its currency
        ("1000", "50", "-0.02", "-0.1", "23"),  # 18 of the day, 5 of the gain
    ],
)
def test_of_one_scenario(value: str, gained: str, daily_return: str, rate_return: str, loss: str) -> None:
    assert scenario_loss(*decimals(value, gained, daily_return, rate_return)) == Decimal(loss)


def test_without_history_all_go_against_the_account_at_once() -> None:
    assert parametric_var(decimals(1000, -500), decimals("0.01", "0.02"), Decimal(2)) == 40
    assert parametric_var([], [], Decimal(2)) == 0
