"""Financing on the local system: no rates of a market, the platform's markup alone, on whatever is held."""

from typing import Any

import psycopg

from database.financing_rates import set_rates

MARKUP_PERCENT = "2.5"


def load_demo_rates(connection: psycopg.Connection[Any]) -> None:
    """Let both sides of every financed instrument pay MARKUP_PERCENT a year, where nobody has said otherwise."""
    symbols = connection.execute(
        "SELECT symbol FROM instrument_financing WHERE symbol NOT IN (SELECT symbol FROM financing_rates)"
    ).fetchall()
    rate = {
        "valid_from": "2020-01-01",
        "valid_until": "2099-12-31",
        "long_rate": "0",
        "short_rate": "0",
        "markup": MARKUP_PERCENT,
        "basis": "percent_365",
        "source": "demo",
    }
    rates = [{"symbol": symbol} | rate for (symbol,) in symbols]
    set_rates(connection, rates, actor="local system", reason="demo rates")
