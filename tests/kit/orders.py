"""Orders through the procedure, as the function's role sends them, and what they leave behind."""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from threading import Barrier
from typing import Any, Self

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from tests.kit.builders import User, make_user, order_request, set_quote
from tests.kit.servers import MigratedTemplate, ScratchDatabase

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


@dataclass(frozen=True, slots=True)
class Market:
    """A database that orders are sent to, with a connection of its owner and one of the function's role.

    Connections are kept, because a new one compiles the procedures again.
    """

    database: ScratchDatabase
    owner: psycopg.Connection[Any]
    trader: psycopg.Connection[Any]

    @classmethod
    @contextmanager
    def opened(cls, database: ScratchDatabase) -> Iterator[Self]:
        """The market on `database`, prepared."""
        with database.connect() as owner, database.connect("function_trader") as trader:
            market = cls(database, owner, trader)
            market.prepare()
            yield market

    @classmethod
    @contextmanager
    def checked(cls, migrated: MigratedTemplate) -> Iterator[Self]:
        """A market on a database of its own, whose books must hold in the end."""
        scratch = migrated.clone()
        try:
            with cls.opened(scratch) as market:
                yield market
                faults = market.book_faults()
                assert faults == [], faults
        finally:
            scratch.drop()

    def prepare(self) -> None:
        """All markets open, quotes good for a minute, and slippage without its random part: a hand can follow."""
        self.execute("UPDATE market_calendars SET always_open = true WHERE NOT always_open")
        self.execute(
            "UPDATE instruments SET slippage_variation = 0, quote_age_ms_max = %(age)s, trading_state = 'active' "
            "WHERE (slippage_variation, quote_age_ms_max, trading_state) <> (0, %(age)s, 'active')",
            {"age": QUOTE_AGE_MS_MAX},
        )
        self.execute(
            "UPDATE platform_settings SET trading_state = 'active', trade_always = false, reject_rate_percent = NULL"
        )
        # Prices in tests jump as they please.
        self.execute(
            "UPDATE symbol_breakers SET move_percent = NULL, spread_percent = NULL "
            "WHERE num_nonnulls(move_percent, spread_percent) > 0"
        )
        self.execute("DELETE FROM quotes")
        for symbol, (bid, ask) in QUOTES.items():
            self.quote(symbol, bid, ask)

    def execute(self, statement: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> list[Any]:
        """Run a statement as the owner; its rows."""
        cursor = self.owner.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []

    def quote(self, symbol: str, bid: str, ask: str, quoted_at: datetime | None = None) -> None:
        """Put a quote in place as it is, by default of now."""
        set_quote(self.owner, symbol, bid, ask, quoted_at)

    def close(self, calendar: str, opens_at: datetime | None = None) -> None:
        """Leave no session of `calendar` but perhaps one of eight hours that begins at `opens_at`."""
        self.execute("UPDATE market_calendars SET always_open = false WHERE name = %s", (calendar,))
        self.execute("DELETE FROM market_sessions WHERE calendar = %s", (calendar,))
        if opens_at is not None:
            closes_at = opens_at + timedelta(hours=8)
            self.execute("INSERT INTO market_sessions VALUES (%s, %s, %s)", (calendar, opens_at, closes_at))

    def user(self, **facts: Any) -> User:
        """A user as make_user makes them."""
        return make_user(self.owner, **facts)

    def trade(self, user: User, **overrides: object) -> Outcome:
        """An order of `user`, sent as the function sends it."""
        return send(self.trader, order_request(user, **overrides))

    def place(self, user: User, **overrides: object) -> Outcome:
        """An order of `user` that rests, by default to buy one lot of EURUSD at 1.0500."""
        return send(self.trader, resting_request(user, **overrides), "place_order")

    def cancel(self, user: User, order_id: object, **overrides: object) -> Outcome:
        """Cancel an order of `user`."""
        return send(self.trader, keyed_request(user, order_id=str(order_id), **overrides), "cancel_order")

    def cancel_all(self, user: User, **filters: object) -> Outcome:
        """Cancel the working orders of `user` that fit."""
        return send(self.trader, keyed_request(user, **filters), "cancel_orders")

    def replace(self, user: User, order_id: object, **changes: object) -> Outcome:
        """Replace an order of `user` by another one."""
        return send(self.trader, keyed_request(user, order_id=str(order_id), **changes), "replace_order")

    def close_out(self, user: User, position_id: object, **overrides: object) -> Outcome:
        """Close a position of `user`, or a part of it."""
        return send(self.trader, keyed_request(user, position_id=str(position_id), **overrides), "close_position")

    def rows(self, table: str, user: User) -> list[dict[str, Any]]:
        """All rows of `user` in `table`, in the order of their keys."""
        with self.owner.cursor(row_factory=dict_row) as cursor:
            cursor.execute(f"SELECT * FROM {table} WHERE user_id = %s ORDER BY 1, 2".encode(), (user.user_id,))
            return cursor.fetchall()

    def counts(self, user: User) -> dict[str, int]:
        """How many rows of `user` each table has."""
        counts = (f"(SELECT count(*) FROM {table} WHERE user_id = %(id)s)" for table in ORDER_TABLES)
        (found,) = self.execute("SELECT " + ", ".join(counts), {"id": user.user_id})
        return dict(zip(ORDER_TABLES, found, strict=True))

    def audit(self, user: User, order_id: object) -> list[dict[str, Any]]:
        """What the audit tells of an order of `user`, in the order of the chain."""
        rows = [row for row in self.rows("order_audit_log", user) if str(row["order_id"]) == str(order_id)]
        return sorted(rows, key=lambda row: row["version"])

    def last_payload(self, user: User) -> dict[str, Any]:
        """What the newest event of `user` tells, its numbers as Decimal."""
        statement = "SELECT payload::text FROM events WHERE user_id = %s ORDER BY sequence DESC LIMIT 1"
        return json.loads(self.execute(statement, (user.user_id,))[0][0], parse_float=Decimal)

    def last_event(self, user: User) -> dict[str, Any]:
        """The newest event of `user`."""
        return max(self.rows("events", user), key=lambda row: row["sequence"])

    def account(self, user: User) -> dict[str, Any]:
        """The user's account row."""
        (row,) = self.rows("accounts", user)
        return row

    def worth(self, user: User) -> dict[str, Any]:
        """The account valued now, as its owner is told; numbers as text."""
        row = self.trader.execute("SELECT get_account(%s, NULL)", (user.user_id,)).fetchone()
        assert row is not None
        return row[0]

    def book_faults(self) -> list[tuple[Any, ...]]:
        """What verify_books finds."""
        return self.execute("SELECT invariant, subject, problem FROM verify_books()")


def stale_time() -> datetime:
    """A time that makes a quote too old."""
    return datetime.now(UTC) - timedelta(milliseconds=QUOTE_AGE_MS_MAX + 1000)


def resting_request(user: User, **overrides: object) -> dict[str, object]:
    """A request of place_order: buy one lot of EURUSD at a limit of 1.0500. None takes a field out."""
    given = order_request(user, order_type="limit", limit_price="1.0500") | overrides
    return {name: value for name, value in given.items() if value is not None}


def keyed_request(user: User, **fields: object) -> dict[str, object]:
    """What the request of a change says beside its subject."""
    key = str(uuid.uuid4())
    return {
        "version": 1,
        "user_id": str(user.user_id),
        "idempotency_key": key,
        "idempotency_key_days": 30,
        "request_hash": f"hash of {key}",
        "request_id": f"test-{key}",
        "ip_address": "192.0.2.1",
        "user_agent": "tests",
        "email": user.email,
    } | fields


def send(
    connection: psycopg.Connection[Any], request: Mapping[str, object], procedure: str = "execute_order_atomic"
) -> Outcome:
    """Call `procedure` with `request`."""
    row = connection.execute(
        f"SELECT (a ->> 'replayed')::boolean, (a -> 'answer')::text FROM {procedure}(%s) AS a".encode(),
        (Jsonb(request),),
    ).fetchone()
    assert row is not None
    return Outcome(row[0], row[1])


def at_once[T](market: Market, calls: Sequence[Callable[[psycopg.Connection[Any]], T]]) -> list[T]:
    """What `calls` come to, each on a connection of the function's role of its own, started together."""
    start = Barrier(len(calls))

    def one(call: Callable[[psycopg.Connection[Any]], T]) -> T:
        with market.database.connect("function_trader") as connection:
            start.wait(30)
            return call(connection)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def told_at_once(market: Market, calls: Sequence[tuple[str, Mapping[str, object]]]) -> list[str]:
    """What racing (procedure, request) pairs are told: outcome, code of a denial, SQLSTATE of a fault, `replayed`."""

    def told(procedure: str, request: Mapping[str, object], connection: psycopg.Connection[Any]) -> str:
        try:
            outcome = send(connection, request, procedure)
        except psycopg.Error as error:
            return error.sqlstate or repr(error)
        return "replayed" if outcome.replayed else outcome.answer.get("code", outcome["outcome"])

    return at_once(market, [partial(told, procedure, request) for procedure, request in calls])


def deadlocks(market: Market) -> int:
    """How many deadlocks the database has seen."""
    return market.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0][0]


@contextmanager
def raises_sqlstate(sqlstate: str) -> Iterator[pytest.ExceptionInfo[psycopg.Error]]:
    """The block fails in PostgreSQL with that SQLSTATE; yields what pytest.raises does."""
    with pytest.raises(psycopg.Error) as caught:
        yield caught
    assert caught.value.sqlstate == sqlstate, caught.value


def details_of(error: psycopg.Error) -> dict[str, Any]:
    """The {field, value, constraint} that a business fault carries."""
    assert error.diag.message_detail is not None
    return json.loads(error.diag.message_detail)
