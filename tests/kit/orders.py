"""Orders through the procedure, as the function's role sends them, and what they leave behind."""

import json
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.kit.builders import User, order_request, set_quote
from tests.kit.servers import ScratchDatabase

# What an order may write, keyed by user_id; accounts is compared by its row.
ORDER_TABLES = (
    "orders",
    "fills",
    "positions",
    "ledger_entries",
    "order_audit_log",
    "audit_pii",
    "events",
    "idempotency_keys",
    "client_order_ids",
)
QUOTES = {
    "EURUSD": ("1.1000", "1.1002"),
    "GBPUSD": ("1.2500", "1.2504"),
    "USDJPY": ("150.000", "150.010"),
    "AAPL": ("149.98", "150.00"),
}
QUOTE_AGE_MS_MAX = 60_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the procedure answered; `text` is the stored answer as jsonb writes it."""

    replayed: bool
    text: str

    @property
    def answer(self) -> dict[str, Any]:
        return json.loads(self.text, parse_float=Decimal)

    def __getitem__(self, name: str) -> Any:
        return self.answer[name]


def prepare_market(database: ScratchDatabase) -> None:
    """All markets open, a quote good for a minute, and slippage without its random part, so that a hand can follow."""
    with database.connect() as connection:
        connection.execute("UPDATE market_calendars SET always_open = true")
        connection.execute(
            "UPDATE instruments SET slippage_variation = 0, quote_age_ms_max = %s, trading_state = 'active'",
            (QUOTE_AGE_MS_MAX,),
        )
        connection.execute("UPDATE platform_settings SET trading_state = 'active', trade_always = false")
        connection.execute("DELETE FROM quotes")
    for symbol, (bid, ask) in QUOTES.items():
        set_quote(database, symbol, bid, ask)


def close_market(database: ScratchDatabase, calendar: str, opens_at: datetime | None = None) -> None:
    """No session of `calendar` but perhaps one that begins at `opens_at`."""
    with database.connect() as connection:
        connection.execute("UPDATE market_calendars SET always_open = false WHERE name = %s", (calendar,))
        connection.execute("DELETE FROM market_sessions WHERE calendar = %s", (calendar,))
        if opens_at is not None:
            connection.execute(
                "INSERT INTO market_sessions VALUES (%s, %s, %s)", (calendar, opens_at, opens_at + timedelta(hours=8))
            )


def stale_time() -> datetime:
    """A time that makes a quote too old."""
    return datetime.now(UTC) - timedelta(milliseconds=QUOTE_AGE_MS_MAX + 1000)


def send(connection: psycopg.Connection[Any], request: Mapping[str, object]) -> Outcome:
    """Call the procedure with `request`."""
    row = connection.execute(
        "SELECT (a ->> 'replayed')::boolean, (a -> 'answer')::text FROM execute_order_atomic(%s) AS a",
        (Jsonb(request),),
    ).fetchone()
    assert row is not None
    return Outcome(row[0], row[1])


def trade(database: ScratchDatabase, user: User, **overrides: object) -> Outcome:
    """An order of `user` over a connection of the function's role."""
    with database.connect("function_trader") as connection:
        return send(connection, order_request(user, **overrides))


@contextmanager
def raises_sqlstate(sqlstate: str):
    """The block fails in PostgreSQL with that SQLSTATE; yields what pytest.raises does."""
    with pytest.raises(psycopg.Error) as caught:
        yield caught
    assert caught.value.sqlstate == sqlstate, caught.value


def details_of(error: psycopg.Error) -> dict[str, Any]:
    """The {field, value, constraint} that a business fault carries."""
    assert error.diag.message_detail is not None
    return json.loads(error.diag.message_detail)


def rows(database: ScratchDatabase, table: str, user: User) -> list[dict[str, Any]]:
    """All rows of `user` in `table`, in the order of their keys."""
    with database.connect() as connection:
        cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
        return cursor.execute(
            f"SELECT * FROM {table} WHERE user_id = %s ORDER BY 1, 2".encode(), (user.user_id,)
        ).fetchall()


def counts(database: ScratchDatabase, user: User) -> dict[str, int]:
    """How many rows of `user` each table has."""
    with database.connect() as connection:
        return {
            table: connection.execute(
                f"SELECT count(*) FROM {table} WHERE user_id = %s".encode(), (user.user_id,)
            ).fetchall()[0][0]
            for table in ORDER_TABLES
        }


def account(database: ScratchDatabase, user: User) -> dict[str, Any]:
    """The user's account row."""
    (row,) = rows(database, "accounts", user)
    return row


def worth(database: ScratchDatabase, user: User) -> dict[str, Any]:
    """The account valued now, as its owner is told."""
    with database.connect("function_trader") as connection:
        row = connection.execute("SELECT get_account(%s, NULL)", (user.user_id,)).fetchone()
    assert row is not None
    return row[0]


def book_faults(database: ScratchDatabase) -> list[tuple[Any, ...]]:
    """What verify_books finds."""
    with database.connect("compliance") as connection:
        return connection.execute("SELECT invariant, subject, problem FROM verify_books()").fetchall()
