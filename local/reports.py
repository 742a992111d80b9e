"""Reports for people out of a database: margin, an order's life, measurements, realized P&L, the execution report.

They read as the role compliance: of the local system, or of DATABASE_URL where the environment names one.
"""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

import psycopg

from database.run_query import Table, run_query, streamed_query
from local.diagnosis import diagnosis_lines
from local.environment import State, role_url
from local.replay import replay_agrees, replay_lines
from local.tokens import unknown_address

ROLE = "compliance"
MEASUREMENTS = ("measurement_task_completion", "measurement_error_rate", "measurement_latency", "query_analysis")
ALWAYS = {"from": "-infinity", "to": "infinity"}
_WHERE_ORDERS_ARE = (
    " `make execution-report FROM= TO=` and GET /api/v1/orders list ids; DATABASE_URL names another database."
)


class WrongReportError(Exception):
    """A day, a file or an order given on the command line is wrong; the text is the one line that the caller gets."""


def report_url(state: State, variables: Mapping[str, str]) -> str:
    """The database to report on: DATABASE_URL of `variables`, else the local system's as compliance; StartError."""
    given = variables.get("DATABASE_URL")
    return given or role_url(state.read_env()["DATABASE_URL"], ROLE, state.secret(f"{ROLE}.password"))


def diagnose(connection: psycopg.Connection[Any], email: str) -> None:
    """Print why orders of the user with that address are refused for margin; UnknownAddressError."""
    row = connection.execute("SELECT diagnose_margin(%s)", (email,)).fetchone()
    if row is None or row[0] is None:
        raise unknown_address(connection, email)
    for line in diagnosis_lines(row[0]):
        print(line)


def account_risk(connection: psycopg.Connection[Any], email: str) -> None:
    """Print what the accounts of the user with that address risk; UnknownAddressError."""
    (found,) = run_query(connection, "account_risk", {"email": email})
    if not found.rows:
        raise unknown_address(connection, email)
    for _account_id, risk in found.rows:
        print(risk)


def replay(connection: psycopg.Connection[Any], order: str) -> bool:
    """Print an order's life by the audit; whether the tables agree with it. WrongReportError for no known order id."""
    try:
        order_id = UUID(order.strip())
    except ValueError:
        raise WrongReportError(f"Say which order: ORDER=its id, a UUID, not {order!r}.{_WHERE_ORDERS_ARE}") from None
    # As text, so that no figure passes through a float.
    row = connection.execute("SELECT replay_order(%s)::text", (order_id,)).fetchone()
    if row is None or row[0] is None:
        raise WrongReportError(f"Neither table nor audit knows an order {order_id}.{_WHERE_ORDERS_ARE}")
    found = json.loads(row[0], parse_float=Decimal)
    for line in replay_lines(found):
        print(line)
    return replay_agrees(found)


def measure(connection: psycopg.Connection[Any], first: str, last: str, email: str) -> None:
    """Print each measurement of those days, empty for all, and how a user's orders are found; WrongReportError."""
    variables = _bounds(first, last) | {"email": email}
    for name in MEASUREMENTS:
        for table in run_query(connection, name, variables):
            print(f"\n{name}")
            for line in _table_lines(table):
                print(f"  {line}")


def realized_pnl(connection: psycopg.Connection[Any], first: str, last: str) -> None:
    """Print what netting accounts realized on those days by FIFO, beside what is booked; WrongReportError."""
    (table,) = run_query(connection, "realized_pnl_fifo", _bounds(first, last))
    for line in _table_lines(table):
        print(line)


def execution_report(connection: psycopg.Connection[Any], first: str, last: str, out: str) -> None:
    """Write what happened to the orders of the days from `first` to `last` as CSV to the file `out`, "" for stdout.

    The form is RFC 4180 with a header. Raises WrongReportError; both days are needed.
    """
    if not first or not last:
        raise WrongReportError("Say which days: FROM=2026-11-01 TO=2026-11-30, both of them included, in UTC.")
    with streamed_query(connection, "execution_report", _bounds(first, last)) as rows:
        if not out:
            _write_csv(sys.stdout, rows)
            return
        try:
            with _whole_file(Path(out)) as file:
                _write_csv(file, rows)
        except OSError as error:
            raise WrongReportError(f"OUT {out} cannot be written: {error.strerror}.") from None


def _bounds(first: str, last: str) -> dict[str, str]:
    """From the start of the first day up to the end of the last, in UTC; an empty day does not bound."""
    bounds = dict(ALWAYS)
    if first:
        bounds["from"] = _start_of("FROM", first).isoformat()
    if last:
        bounds["to"] = _start_of("TO", last, days_later=1).isoformat()
    if first and last and bounds["from"] >= bounds["to"]:
        raise WrongReportError(f"FROM {first} is after TO {last}.")
    return bounds


def _start_of(name: str, text: str, *, days_later: int = 0) -> datetime:
    try:
        day = date.fromisoformat(text.strip()) + timedelta(days=days_later)
    except (ValueError, OverflowError):
        raise WrongReportError(f"{name} is a day such as 2026-11-30, not {text!r}.") from None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _write_csv(file: TextIO, rows: Iterable[tuple[Any, ...]]) -> None:
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerows(rows)


@contextmanager
def _whole_file(path: Path) -> Iterator[TextIO]:
    """A file that is there under its name only when all of it is written."""
    fresh = path.with_name(path.name + ".new")
    try:
        with fresh.open("w", encoding="utf-8", newline="") as file:
            yield file
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _table_lines(table: Table) -> Iterator[str]:
    cells = [table.columns, *(tuple("-" if cell is None else str(cell) for cell in row) for row in table.rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(table.columns))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
