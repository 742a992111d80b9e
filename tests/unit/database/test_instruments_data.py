"""The instruments file: complete, consistent, and convertible from every account currency."""

import csv
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "database" / "data"
ACCOUNT_CURRENCIES = ("USD", "EUR", "GBP")

with (DATA / "instruments.csv").open() as _file:
    INSTRUMENTS = {row["symbol"]: row for row in csv.DictReader(_file)}


def decimal(row: dict[str, str], column: str) -> Decimal:
    return Decimal(row[column])


def reachable(source: str, target: str) -> bool:
    """Whether a conversion finds a rate: none needed, one pair, or one cross through USD."""

    def quoted(one: str, other: str) -> bool:
        return one == other or one + other in INSTRUMENTS or other + one in INSTRUMENTS

    return quoted(source, target) or (quoted(source, "USD") and quoted("USD", target))


def test_every_class_is_there_with_the_symbols_that_are_asked_for() -> None:
    classes = Counter(row["asset_class"] for row in INSTRUMENTS.values())

    assert len(INSTRUMENTS) >= 60
    assert classes.keys() == {"forex", "stock", "etf", "index", "commodity", "crypto", "bond"}
    assert INSTRUMENTS.keys() >= {
        *("EURUSD", "GBPUSD", "USDJPY", "USDCHF", "NZDCAD", "AUDCAD", "USDTRY", "USDRUB"),
        *("AAPL", "MSFT", "TSLA", "GOOGL", "SPY", "QQQ", "US500", "US100", "UK100", "GER40"),
        *("XAUUSD", "XAGUSD", "WTIUSD", "BRENTUSD", "BTCUSD", "ETHUSD", "XRPUSD", "US10Y"),
    }


def test_no_symbol_comes_twice() -> None:
    symbols = (DATA / "instruments.csv").read_text().splitlines()[1:]
    assert len(symbols) == len(INSTRUMENTS)


def offenders(right: Callable[[dict[str, str]], bool]) -> list[str]:
    return [symbol for symbol, row in INSTRUMENTS.items() if not right(row)]


def test_money_in_each_converts_from_every_account_currency() -> None:
    unreachable = [
        (symbol, have, want)
        for symbol, row in INSTRUMENTS.items()
        for have in ACCOUNT_CURRENCIES
        for want in {row["quote_currency"]} | ({row["base_currency"]} if row["asset_class"] == "forex" else set())
        if not reachable(have, want)
    ]
    assert unreachable == []


@pytest.mark.parametrize("column", ["reference_price", "reference_spread", "slippage_step"])
def test_prices_and_steps_lie_on_the_tick(column: str) -> None:
    assert offenders(lambda row: decimal(row, column) % decimal(row, "tick_size") == 0) == []


@pytest.mark.parametrize("column", ["quantity_min", "quantity_max"])
def test_limits_of_quantity_lie_on_the_step(column: str) -> None:
    assert offenders(lambda row: decimal(row, column) % decimal(row, "quantity_step") == 0) == []


def test_the_spread_is_a_small_part_of_the_price() -> None:
    # The widest are a penny on a stock of 4 pounds, and the rouble.
    assert (
        offenders(lambda row: 0 < decimal(row, "reference_spread") / decimal(row, "reference_price") < Decimal("0.01"))
        == []
    )


def test_slippage_starts_within_its_bounds() -> None:
    def right(row: dict[str, str]) -> bool:
        ordered = decimal(row, "slippage_min") <= decimal(row, "slippage_base") <= decimal(row, "slippage_max")
        return ordered and row["slippage_liquidity_base"] in {"10", "5", "2", "0.5"}

    assert offenders(right) == []
    assert {row["slippage_variation"] for row in INSTRUMENTS.values()} == {"0.1"}


def test_only_stocks_and_etfs_pay_commission() -> None:
    columns = ("commission_per_unit", "commission_min", "commission_max")
    terms = {True: ("0.02", "1", "50"), False: ("0", "0", "0")}
    assert (
        offenders(lambda row: tuple(row[column] for column in columns) == terms[row["asset_class"] in {"stock", "etf"}])
        == []
    )


def test_quotes_age_faster_where_the_market_does() -> None:
    limits = {True: "5000", False: "10000"}
    assert offenders(lambda row: row["quote_age_ms_max"] == limits[row["asset_class"] in {"forex", "crypto"}]) == []


def test_forex_symbols_are_their_currencies() -> None:
    forex = [row for row in INSTRUMENTS.values() if row["asset_class"] == "forex"]
    assert [row["symbol"] for row in forex] == [row["base_currency"] + row["quote_currency"] for row in forex]
    assert {row["contract_size"] for row in forex} == {"100000"}


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("EURUSD", {"tick_size": "0.00001", "slippage_step": "0.0001", "leverage": "500", "quantity_max": "1000"}),
        ("USDJPY", {"tick_size": "0.001", "leverage": "500", "maintenance_margin_percent": "2"}),
        ("GBPUSD", {"slippage_base": "0.3", "slippage_max": "0.6"}),
        ("AUDUSD", {"leverage": "400"}),
        ("NZDCAD", {"leverage": "300", "maintenance_margin_percent": "5", "quantity_max": "500"}),
        ("USDTRY", {"leverage": "100", "maintenance_margin_percent": "10", "slippage_liquidity_base": "0.5"}),
        ("AAPL", {"contract_size": "1", "leverage": "20", "maintenance_margin_percent": "25", "quantity_min": "0.1"}),
        ("TSLA", {"slippage_max": "0.2", "slippage_volatility_multiplier": "2.5"}),
        ("SPY", {"leverage": "20", "calendar": "XNYS"}),
        ("US500", {"leverage": "200", "tick_size": "0.1", "slippage_base": "0.5"}),
        ("UK100", {"quote_currency": "GBP", "calendar": "XLON", "slippage_base": "1"}),
        ("GER40", {"quote_currency": "EUR", "calendar": "XETR"}),
        ("XAUUSD", {"contract_size": "100", "leverage": "500", "slippage_base": "0.3"}),
        ("XAGUSD", {"contract_size": "5000", "quantity_min": "1", "quantity_max": "10000"}),
        ("WTIUSD", {"contract_size": "1000", "tick_size": "0.01"}),
        ("BTCUSD", {"leverage": "5", "maintenance_margin_percent": "15", "slippage_base": "30", "calendar": "CRYPTO"}),
        ("XRPUSD", {"quantity_min": "1", "quantity_max": "1000000"}),
        ("US10Y", {"leverage": "50", "maintenance_margin_percent": "3", "tick_size": "0.001"}),
    ],
)
def test_the_broker_s_terms(symbol: str, expected: dict[str, str]) -> None:
    row = INSTRUMENTS[symbol]
    assert {column: row[column] for column in expected} == expected


def test_crosses_agree_with_their_pairs_against_the_dollar() -> None:
    def in_usd(currency: str) -> Decimal:
        if currency + "USD" in INSTRUMENTS:
            return decimal(INSTRUMENTS[currency + "USD"], "reference_price")
        return 1 / decimal(INSTRUMENTS["USD" + currency], "reference_price")

    crosses = [
        row
        for row in INSTRUMENTS.values()
        if row["asset_class"] == "forex" and "USD" not in (row["base_currency"], row["quote_currency"])
    ]
    for row in crosses:
        implied = in_usd(row["base_currency"]) / in_usd(row["quote_currency"])
        assert abs(decimal(row, "reference_price") / implied - 1) < Decimal("0.001"), row["symbol"]
    assert len(crosses) > 10


def test_every_calendar_of_an_instrument_is_described() -> None:
    with (DATA / "market_calendars.csv").open() as file:
        calendars = {row["name"] for row in csv.DictReader(file)}
    assert {row["calendar"] for row in INSTRUMENTS.values()} == calendars
