"""Rates of financing from a CSV of a liquidity provider into the database, all of them or none.

    DATABASE_URL=postgresql://... python -m database.financing_rates rates.csv

Columns as of database/data/financing_rates.csv: symbol, valid_from, valid_until (days, both included), long_rate,
short_rate, markup, basis (percent_360, percent_365 or points), source. Exit codes: 0 taken; 2 a value is wrong.
"""

import csv
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

COLUMNS = ("symbol", "valid_from", "valid_until", "long_rate", "short_rate", "markup", "basis", "source")
BASES = ("percent_360", "percent_365", "points")


class WrongRateError(ValueError):
    """A row of the file is wrong; the text says which and how."""


def read_rates(path: Path) -> list[dict[str, str]]:
    """The rates of a file, checked as far as that goes without a database; raises WrongRateError."""
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise WrongRateError(f"{path} needs the columns {', '.join(COLUMNS)}.")
        return [_checked(row, number) for number, row in enumerate(rows, 2)]


def _checked(row: Mapping[str | Any, str | Any], line: int) -> dict[str, str]:
    try:
        first, last = date.fromisoformat(row["valid_from"]), date.fromisoformat(row["valid_until"])
        rates = [Decimal(row[name]) for name in ("long_rate", "short_rate", "markup")]
    except (ValueError, InvalidOperation, TypeError) as error:
        raise WrongRateError(f"Line {line}: {error}") from None
    if last < first:
        raise WrongRateError(f"Line {line}: valid_until {last} is before valid_from {first}.")
    if not all(rate.is_finite() for rate in rates) or rates[2] < 0:
        raise WrongRateError(f"Line {line}: rates are numbers, and the markup is at least 0.")
    if row["basis"] not in BASES:
        raise WrongRateError(f"Line {line}: basis is one of {', '.join(BASES)}, not {row['basis']}.")
    return {name: row[name] for name in COLUMNS}


def set_rates(
    connection: psycopg.Connection[Any], rates: Sequence[Mapping[str, str]], *, actor: str, reason: str
) -> int:
    """Put `rates` into the database in one audited transaction; how many were new or changed.

    Raises WrongRateError for a symbol that is not known.
    """
    request = {"version": 1, "rates": [dict(rate) for rate in rates], "actor": actor, "reason": reason}
    try:
        row = connection.execute("SELECT set_financing_rates(%s)", (Jsonb(request),)).fetchone()
    except psycopg.Error as error:
        if error.sqlstate == "TR006" and error.diag.message_detail:
            raise WrongRateError(error.diag.message_detail) from None
        raise
    return row[0]["changed"] if row else 0


def main(arguments: Sequence[str]) -> int:
    """Entry of `python -m database.financing_rates`."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m database.financing_rates FILE\n")
        return 2
    try:
        rates = read_rates(Path(arguments[0]))
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
            changed = set_rates(connection, rates, actor="operator", reason=f"rates of {Path(arguments[0]).name}")
    except (OSError, WrongRateError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{changed} of {len(rates)} rates are new or changed.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
