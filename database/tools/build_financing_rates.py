"""Rates of financing from interest rates: a file for `make financing-rates`, on standard output.

    python -m database.tools.build_financing_rates INTEREST.csv MONTH FIRST_DAY LAST_DAY MARKUP > rates.csv

INTEREST.csv is an export of the OECD's short-term interest rates (columns LOCATION, MEASURE, FREQUENCY, TIME, Value;
percent a year); MONTH as 2020-05. A long position in a currency pair earns the rate of its base currency and pays that
of the other one, a short one the other way round; a long position in anything else pays the rate of the currency that
it is quoted in, a short one earns it. Instruments whose currencies have no rate in that month are left out.
"""

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TextIO

from database.financing_rates import COLUMNS

INSTRUMENTS = Path(__file__).parents[1] / "data" / "instruments.csv"
CURRENCY_OF_LOCATION = {
    "AUS": "AUD", "CAN": "CAD", "CHE": "CHF", "CZE": "CZK", "EA19": "EUR", "GBR": "GBP", "HUN": "HUF", "IND": "INR",
    "JPN": "JPY", "MEX": "MXN", "NOR": "NOK", "NZL": "NZD", "POL": "PLN", "RUS": "RUB", "SWE": "SEK", "USA": "USD",
    "ZAF": "ZAR",
}  # fmt: skip
# Their money markets count 365 days to a year, the others 360.
FULL_YEAR = frozenset({"AUD", "CAD", "GBP", "INR", "NZD", "PLN", "ZAR"})


def interest_rates(rows: Iterable[Mapping[str, str]], month: str) -> dict[str, Decimal]:
    """The rate of each currency in `month`, percent a year."""
    return {
        CURRENCY_OF_LOCATION[row["LOCATION"]]: Decimal(row["Value"])
        for row in rows
        if row["LOCATION"] in CURRENCY_OF_LOCATION
        and (row["MEASURE"], row["FREQUENCY"], row["TIME"]) == ("PC_PA", "M", month)
    }


def financing_rates(
    instruments: Iterable[Mapping[str, str]],
    interest: Mapping[str, Decimal],
    terms: Mapping[str, str],
) -> Iterator[dict[str, str]]:
    """A row of `COLUMNS` for each instrument whose currencies have a rate; `terms` are the columns that all share."""
    for row in instruments:
        base, quote = row["base_currency"], row["quote_currency"]
        forex = row["asset_class"] == "forex"
        if quote not in interest or (forex and base not in interest):
            continue
        earned = interest[base] - interest[quote] if forex else -interest[quote]
        yield {
            **terms,
            "symbol": row["symbol"],
            "long_rate": f"{earned}",
            "short_rate": f"{-earned}",
            "basis": "percent_365" if quote in FULL_YEAR else "percent_360",
        }


def write_rates(rows: Iterable[Mapping[str, str]], month: str, terms: Mapping[str, str], out: TextIO) -> None:
    """The whole file, from the `rows` of interest rates."""
    with INSTRUMENTS.open(newline="") as instruments:
        writer = csv.DictWriter[str](out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(financing_rates(csv.DictReader(instruments), interest_rates(rows, month), terms))


def main(arguments: list[str]) -> int:
    """Entry of `python -m database.tools.build_financing_rates`."""
    if len(arguments) != 5:
        sys.stderr.write("usage: build_financing_rates INTEREST.csv MONTH FIRST_DAY LAST_DAY MARKUP\n")
        return 2
    source, month, first, last, markup = arguments
    terms = {"valid_from": first, "valid_until": last, "markup": markup, "source": f"interest rates of {month}"}
    with Path(source).open(newline="") as rates:
        write_rates(csv.DictReader(rates), month, terms, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
