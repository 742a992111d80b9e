"""market_is_open and next_open over the committed sessions."""

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from tests.kit import ScratchDatabase


def ask(database: ScratchDatabase, function: str, calendar: str, at: str) -> Any:
    with database.connect() as connection:
        row = connection.execute(f"SELECT {function}(%s, %s)".encode(), (calendar, at)).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize(
    ("calendar", "at", "is_open"),
    [
        ("FX", "2026-11-20T21:59:59.999Z", True),
        ("FX", "2026-11-20T22:00:00Z", False),
        ("FX", "2026-11-21T12:00:00Z", False),
        ("FX", "2026-11-22T22:00:00Z", True),
        ("XNYS", "2026-11-27T14:29:59Z", False),
        ("XNYS", "2026-11-27T14:30:00Z", True),
        ("XNYS", "2026-11-27T18:00:00Z", False),
        ("XTKS", "2026-11-24T03:00:00Z", False),
        ("CRYPTO", "2026-11-21T12:00:00Z", True),
        ("CRYPTO", "1999-01-01T00:00:00Z", True),
        ("XNYS", "1999-01-01T15:00:00Z", False),
        ("NOSUCH", "2026-11-20T12:00:00Z", False),
    ],
)
def test_a_market_is_open_from_its_opening_to_just_before_its_close(
    database: ScratchDatabase, calendar: str, at: str, is_open: bool
) -> None:
    assert ask(database, "market_is_open", calendar, at) is is_open


@pytest.mark.parametrize(
    ("calendar", "at", "opens_at"),
    [
        ("FX", "2026-11-21T12:00:00Z", datetime(2026, 11, 22, 22, tzinfo=UTC)),
        ("FX", "2026-11-22T22:00:00Z", datetime(2026, 11, 29, 22, tzinfo=UTC)),
        ("XNYS", "2026-11-25T21:00:00Z", datetime(2026, 11, 27, 14, 30, tzinfo=UTC)),
        ("CRYPTO", "2026-11-21T12:00:00Z", None),
        ("XNYS", "2040-01-01T00:00:00Z", None),
        ("NOSUCH", "2026-11-21T12:00:00Z", None),
    ],
)
def test_the_next_opening(database: ScratchDatabase, calendar: str, at: str, opens_at: datetime | None) -> None:
    assert ask(database, "next_open", calendar, at) == opens_at


@pytest.mark.parametrize("role", ["function_trader", "function_prices", "compliance"])
def test_the_hours_are_for_the_procedures_to_ask(database: ScratchDatabase, role: str) -> None:
    with database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT market_is_open('FX', now())")
