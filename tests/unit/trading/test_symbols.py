"""Which symbols a caller asks for."""

from typing import Any

import pytest

from trading.errors import ErrorCode, TradingError
from trading.symbols import SYMBOLS_MAX, read_symbols


@pytest.mark.parametrize(
    ("given", "symbols"),
    [
        ("EURUSD", ["EURUSD"]),
        ("EURUSD,AAPL", ["EURUSD", "AAPL"]),
        (" eurusd , aapl ", ["EURUSD", "AAPL"]),
        ("AAPL,EURUSD,aapl", ["AAPL", "EURUSD"]),
        (["EURUSD", "aapl"], ["EURUSD", "AAPL"]),
        (",".join(f"S{number}" for number in range(SYMBOLS_MAX)), [f"S{number}" for number in range(SYMBOLS_MAX)]),
        ("A_1", ["A_1"]),
    ],
)
def test_symbols_are_in_capitals_in_order_and_once(given: Any, symbols: list[str]) -> None:
    assert read_symbols(given, "symbols") == symbols


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        ",",
        "EURUSD,",
        [],
        {},
        7,
        [7],
        [None],
        [["EURUSD"]],
        "EUR/USD",
        "EURUSD;DROP",
        "ÄPFEL",
        "E" * 21,
        "EUR\nUSD",
        ",".join(f"S{number}" for number in range(SYMBOLS_MAX + 1)),
    ],
)
def test_what_names_no_symbols_is_refused_by_field(given: Any) -> None:
    with pytest.raises(TradingError) as caught:
        read_symbols(given, "symbols")

    assert caught.value.code is ErrorCode.VALIDATION_FAILED
    assert caught.value.details["field"] == "symbols"
