"""Rates of financing made from interest rates, and what they charge: who is long in the higher rate earns."""

import io
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from database.financing_rates import read_rates, set_rates
from database.tools.build_financing_rates import financing_rates, interest_rates, write_rates
from tests.kit import MigratedTemplate
from tests.kit.financing import financed, financing_store, hold_schedules, roll, run_rollover
from tests.kit.orders import Market
from tests.kit.reference import recorded
from tests.kit.risk import opened

TERMS = {"valid_from": "2026-11-01", "valid_until": "2026-11-30", "markup": "0.5", "source": "test"}


@pytest.fixture
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        hold_schedules(market)
        yield market


def test_a_pair_carries_the_difference_and_anything_else_the_rate_of_its_currency() -> None:
    given = [
        {"LOCATION": place, "MEASURE": "PC_PA", "FREQUENCY": frequency, "TIME": month, "Value": value}
        for place, frequency, month, value in (
            ("USA", "M", "2019-06", "2.5"),
            ("JPN", "M", "2019-06", "-0.1"),
            ("JPN", "Q", "2019-06", "9"),
            ("GBR", "M", "2019-05", "9"),
            ("CHL", "M", "2019-06", "9"),
        )
    ]
    instruments = [
        {"symbol": "USDJPY", "asset_class": "forex", "base_currency": "USD", "quote_currency": "JPY"},
        {"symbol": "GBPUSD", "asset_class": "forex", "base_currency": "GBP", "quote_currency": "USD"},
        {"symbol": "AAPL", "asset_class": "stock", "base_currency": "AAPL", "quote_currency": "USD"},
    ]

    interest = interest_rates(given, "2019-06")

    assert interest == {"USD": Decimal("2.5"), "JPY": Decimal("-0.1")}
    assert [(row["symbol"], row["long_rate"], row["short_rate"]) for row in financing_rates(
        instruments, interest, TERMS
    )] == [("USDJPY", "2.6", "-2.6"), ("AAPL", "-2.5", "2.5")]  # fmt: skip


def test_rates_of_a_real_month_pay_who_is_long_in_the_higher_one(market: Market, tmp_path: Path) -> None:
    # given the rates of June 2019, when the dollar's stood above the yen's and the euro's
    built = io.StringIO()
    write_rates(recorded("short-term-interest.csv"), "2019-06", TERMS, built)
    (tmp_path / "rates.csv").write_text(built.getvalue())
    rates = read_rates(tmp_path / "rates.csv")
    assert set_rates(market.owner, rates, actor="tests", reason="a month") == len(rates) > 60
    users = {}
    for symbol in ("USDJPY", "EURUSD"):
        for side in ("buy", "sell"):
            users[symbol, side] = market.user()
            opened(market.trade(users[symbol, side], symbol=symbol, side=side))
        roll(market, symbol)

    with financing_store(market) as store:
        run_rollover(store)

    # then it is earned by who holds dollars against yen or euros, and paid by the other side
    signs = {key: [amount > 0 for _, _, amount in financed(market, user)] for key, user in users.items()}
    assert signs == {
        ("USDJPY", "buy"): [True],
        ("USDJPY", "sell"): [False],
        ("EURUSD", "buy"): [False],
        ("EURUSD", "sell"): [True],
    }
