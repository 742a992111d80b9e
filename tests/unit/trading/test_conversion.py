"""Amounts in another currency: which side of which quote."""

from decimal import Decimal

import pytest

from tests.kit.instruments import rates
from tests.kit.reference import worked_case
from trading.conversion import NoRateError

QUOTES = rates(EURUSD=("1.1000", "1.1002"), USDJPY=("150.00", "150.02"), GBPUSD=("1.2500", "1.2504"))


@pytest.mark.parametrize(
    ("amount", "source", "target", "converted"),
    [
        ("7", "EUR", "EUR", "7"),
        ("100", "EUR", "USD", "110.00"),  # a profit takes the bid
        ("-100", "EUR", "USD", "-110.02"),  # a loss the ask
        ("110.02", "USD", "EUR", "100"),  # the other way round: divided by the ask
        ("-110", "USD", "EUR", "-100"),  # and by the bid
        ("100", "EUR", "JPY", "16500"),  # crossed through the dollar at both bids
        ("-100", "EUR", "JPY", "-16505.2004"),  # 100 x 1.1002 x 150.02, at both asks
        ("16505.2004", "JPY", "EUR", "100"),
        ("0", "JPY", "EUR", "0"),
        ("0.5", "EUR", "USD", "0.55"),  # however small
    ],
)
def test_an_amount(amount: str, source: str, target: str, converted: str) -> None:
    assert QUOTES.convert(Decimal(amount), source, target) == Decimal(converted)


def test_a_direct_quote_comes_before_a_cross() -> None:
    quotes = rates(EURGBP="0.9", EURUSD="1.1", GBPUSD="1.25")

    assert quotes.convert(Decimal(100), "EUR", "GBP") == 90


def test_a_reciprocal_that_never_ends_loses_no_tie() -> None:
    assert rates(EURUSD="1.2").convert(Decimal("121.206"), "USD", "EUR") == Decimal("101.005")


@pytest.mark.parametrize(("source", "target"), [("CHF", "USD"), ("USD", "CHF"), ("CHF", "JPY"), ("EUR", "CHF")])
def test_no_way_from_one_to_the_other(source: str, target: str) -> None:
    with pytest.raises(NoRateError):
        QUOTES.convert(Decimal(1), source, target)


def test_the_worked_case_of_a_profit_in_a_third_currency() -> None:
    inputs, expected = worked_case("oanda-crossccy-pl")
    gained = inputs["units"] * (inputs["close"] - inputs["open"])

    assert rates(GBPUSD=str(inputs["quote_home"])).convert(gained, "GBP", "USD") == expected["pl"]
