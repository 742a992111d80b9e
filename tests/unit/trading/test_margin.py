"""The margin that a position ties up."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.kit.instruments import AAPL, EURUSD, forex, instrument, rates
from tests.kit.reference import worked_case
from trading.accounts import Account, AccountKind, Worth, round_money
from trading.conversion import NoRateError
from trading.instruments import Instrument
from trading.margin import effective_leverage, required_margin

NO_RATES = rates()


def account(currency: str = "USD", leverage: str | Decimal = "100", kind: AccountKind = "margin") -> Account:
    return Account(currency, kind, Decimal(leverage))


def margin(of: Instrument, who: Account, quantity: str | Decimal, at: str | Decimal, by: Any = NO_RATES) -> Decimal:
    return required_margin(who, of, Decimal(quantity), Decimal(at), by)


def test_quote_equal_to_account_takes_the_open_price() -> None:
    assert margin(EURUSD, account(), "1", "1.10026") == Decimal("1100.26")


def test_base_equal_to_account_takes_no_rate() -> None:
    assert margin(EURUSD, account("EUR"), "1", "1.10026") == 1000
    assert margin(forex("USDJPY"), account(), "0.5", "150") == 500


def test_neither_converts_the_base_at_the_bid() -> None:
    assert margin(EURUSD, account("GBP"), "1", "1.1", rates(EURGBP=("0.8690", "0.8692"))) == 869
    crossed = rates(EURUSD=("1.1000", "1.1002"), GBPUSD=("1.2500", "1.2504"))
    assert margin(EURUSD, account("GBP"), "1", "1.1", crossed) == Decimal("879.72")  # 1100 / 1.2504


def test_other_classes_take_the_open_price_in_the_quote_currency() -> None:
    assert margin(AAPL, account(), "100", "150") == 750  # the instrument's leverage of 20
    assert margin(AAPL, account("EUR"), "100", "150", rates(EURUSD=("1.1000", "1.1002"))) == Decimal("681.69")


def test_a_metal_is_not_forex_whatever_its_symbol() -> None:
    gold = instrument(symbol="XAUUSD", asset_class="commodity", base_currency="XAU", contract_size="100")

    assert margin(gold, account(), "1", "2000") == 2000


def test_the_smaller_leverage_counts_and_cash_has_none() -> None:
    assert effective_leverage(account(leverage="100"), AAPL) == 20
    assert effective_leverage(account(leverage="5"), AAPL) == 5
    assert effective_leverage(account(leverage="100"), replace(AAPL, leverage_cap=Decimal(5))) == 5
    assert effective_leverage(account(leverage="3"), replace(AAPL, leverage_cap=Decimal(5))) == 3
    assert effective_leverage(account(leverage="100", kind="cash"), AAPL) == 1
    assert margin(AAPL, account(kind="cash", leverage="1"), "100", "150") == 15_000


def test_it_is_rounded_once_half_up() -> None:
    assert margin(EURUSD, account(), "0.01", "1.10050") == Decimal("11.01")  # 11.005
    assert margin(AAPL, account("EUR"), "1", "150.12", rates(EURUSD="1.2")) == Decimal("6.26")  # 6.255


def test_without_a_rate_there_is_no_margin() -> None:
    with pytest.raises(NoRateError):
        margin(AAPL, account("EUR"), "1", "150")


class TestWorkedCases:
    def test_pound_dollar(self) -> None:
        given, expected = worked_case("mt5-gbpusd-margin")
        pair = forex("GBPUSD", contract_size=given["contract"])
        who = account(leverage=given["leverage"])

        assert margin(pair, who, given["lots"], given["buy"]) == expected["buy_margin"]
        assert margin(pair, who, given["lots"], given["sell"]) == expected["sell_margin"]

    def test_dollar_franc(self) -> None:
        given, expected = worked_case("mt5-usdchf-margin")
        pair = forex("USDCHF", contract_size=given["contract"])

        assert margin(pair, account(leverage=given["leverage"]), given["lots"], "0.9") == expected["margin"]

    def test_percentages(self) -> None:
        _, expected = worked_case("mt5-pct-margin")

        assert margin(forex("GBPUSD"), account(leverage="20"), "1", "1.30") == expected["gbpusd_1lot_1_30_5pct"]
        assert margin(EURUSD, account(leverage="50"), "0.1", "1.15") == expected["eurusd_10k_1_15_2pct"]
        assert margin(EURUSD, account(leverage="400"), "0.1", "1.15") == expected["eurusd_0_1lot_1_15_400"]

    def test_an_initial_rate_is_a_leverage(self) -> None:
        given, expected = worked_case("nautilus-margin")
        pair = forex("AUDUSD", contract_size="1", leverage="100000")
        for name, leverage in (("standard", 1), ("leveraged_10", 10), ("leveraged_50", 50)):
            who = account(leverage=leverage / given["margin_init"])

            assert margin(pair, who, given["qty"], given["price"]) == expected[name]

    def test_retail_caps(self) -> None:
        given, expected = worked_case("esma-cfd")
        index = instrument(AAPL, asset_class="index", quote_currency="GBP")
        shares = given["stock_notional"] / 100

        assert margin(AAPL, account(leverage="5"), shares, "100") == expected["stock_init"]
        assert margin(index, account("GBP", "20"), "1", given["uk100_px"]) == expected["idx_init"]


class TestWorth:
    def test_by_hand(self) -> None:
        worth = Worth(Decimal(100_000), Decimal(-26), Decimal("1100.26"))

        assert worth.equity == 99_974
        assert worth.free_margin == Decimal("98873.74")
        assert worth.margin_level is not None
        assert round_money(worth.margin_level, "USD") == Decimal("9086.40")

    def test_no_level_without_margin(self) -> None:
        assert Worth(Decimal(5), Decimal(0), Decimal(0)).margin_level is None


@pytest.mark.parametrize(
    ("amount", "currency", "rounded"),
    [
        ("0.005", "USD", "0.01"),
        ("-0.005", "EUR", "-0.01"),  # away from zero
        ("0.0049999", "GBP", "0.00"),
        ("-0.001", "USD", "0.00"),
        ("0.5", "JPY", "1"),
        ("0.5", "KRW", "1"),
        ("0.5", "HUF", "1"),
        ("2.675", "USD", "2.68"),
    ],
)
def test_money(amount: str, currency: str, rounded: str) -> None:
    assert str(round_money(Decimal(amount), currency)) == rounded
