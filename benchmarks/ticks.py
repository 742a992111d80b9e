"""What a batch of quotes costs while orders wait and positions are open, and how fast what it touches is executed.

A batch has one quote of every instrument, as the feed's has, and touches nothing. The orders and the exits of the
positions that wait are all of one instrument, at levels around its price: half of them on either side.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from benchmarks.market import REFERENCE, Market, make_accounts, prepared_market, reference_work
from benchmarks.rounds import Work, measure, report
from tests.kit.builders import User
from tests.kit.servers import MigratedTemplate, ScratchDatabase

ACCOUNTS = 1000
WAITING = (0, 10_000, 100_000)
POSITIONS = 100_000
NOTHING = "no order waits"
SYMBOL, BID, ASK = "EURUSD", "1.10000", "1.10020"
TRIGGERS = 40_000
TRIGGER_CLIENTS = 4
TRIGGER_ACCOUNTS = 4000
TRIGGERED = "a triggered order"
CLAIM_ROWS = 50
# One untriggered batch may cost a fifth more with 100,000 orders than with none.
FLAT = 1 / 1.2


def run(rounds: int, seconds: float) -> None:
    """Measure and print."""
    with prepared_market() as market:
        with ExitStack() as stack:
            variants: dict[str, Work] = {}
            for waiting in WAITING:
                name = f"{waiting:,} orders wait" if waiting else NOTHING
                variants[name] = _ticks(stack.enter_context(_filled(market.template, waiting, positions=0)))
            exits = stack.enter_context(_filled(market.template, WAITING[-1], positions=POSITIONS))
            variants[f"{WAITING[-1]:,} orders wait, {POSITIONS:,} positions"] = _ticks(exits)
            measured = measure(variants, clients=1, rounds=rounds, seconds=seconds)
        title = f"Batches of quotes that touch nothing, one feed, {rounds} rounds of {seconds:g} s"
        report(title, measured, NOTHING, dict.fromkeys(list(variants)[1:], FLAT))
        _run_triggers(market, rounds, seconds)


@contextmanager
def _filled(template: MigratedTemplate, waiting: int, *, positions: int) -> Iterator[ScratchDatabase]:
    """A database in which `waiting` orders and `positions` with both exits wait for levels around the price."""
    database = template.clone()
    try:
        with database.connect() as owner:
            owner.execute("UPDATE platform_settings SET trade_always = true")
            make_accounts(owner, ACCOUNTS)
            _rest(owner, waiting)
            _open(owner, positions)
            owner.execute("VACUUM ANALYZE")
        yield database
    finally:
        database.drop()


def _rest(owner: psycopg.Connection[Any], count: int) -> None:
    owner.execute(
        """
        INSERT INTO orders (
            user_id, account_id, symbol, order_type, side, quantity, limit_price, status, leaves_quantity,
            trigger_watch, trigger_price
        )
        SELECT a.user_id, a.id, %(symbol)s, 'limit', l.side, 1, l.level, 'new', 1, l.watch, l.level
        FROM (SELECT user_id, id, row_number() OVER () - 1 AS place FROM accounts) AS a
        INNER JOIN generate_series(0, %(count)s - 1) AS n ON n %% %(accounts)s = a.place
        CROSS JOIN LATERAL (
            SELECT
                CASE n %% 2 WHEN 0 THEN 'buy' ELSE 'sell' END AS side,
                CASE n %% 2 WHEN 0 THEN 'ask_falls' ELSE 'bid_rises' END AS watch,
                1.1 + CASE n %% 2 WHEN 0 THEN -0.01 ELSE 0.01 END * (1 + (n %% 1000) * 0.001) AS level
        ) AS l
        """,
        {"symbol": SYMBOL, "count": count, "accounts": ACCOUNTS},
    )


def _open(owner: psycopg.Connection[Any], count: int) -> None:
    owner.execute(
        """
        WITH opened AS (
            INSERT INTO orders (
                user_id, account_id, symbol, order_type, side, quantity, status, filled_quantity, leaves_quantity,
                average_price, executed_at
            )
            SELECT a.user_id, a.id, %(symbol)s, 'market', 'buy', 1, 'filled', 1, 0, 1.1, clock_timestamp()
            FROM accounts AS a CROSS JOIN generate_series(1, %(each)s)
            RETURNING user_id, id, account_id
        )
        INSERT INTO positions (
            user_id, account_id, order_id, symbol, side, quantity, opened_quantity, entry_price, margin_used, stop_loss,
            take_profit
        )
        SELECT o.user_id, o.account_id, o.id, %(symbol)s, 'long', 1, 1, 1.1, 11, 1.05, 1.15 FROM opened AS o
        """,
        {"symbol": SYMBOL, "each": count // ACCOUNTS},
    )


def _ticks(database: ScratchDatabase) -> Work:
    """Repeats a batch of all instruments that touches nothing."""

    def work(_number: int) -> Callable[[], None]:
        connection = psycopg.connect(database.url_for("function_prices"), autocommit=True, prepare_threshold=None)
        with database.connect() as owner:
            symbols = [row[0] for row in owner.execute("SELECT symbol FROM instruments WHERE is_active").fetchall()]

        def repeat() -> None:
            at = datetime.now(UTC).isoformat()
            quotes = [{"symbol": symbol, "bid": BID, "ask": ASK, "quoted_at": at} for symbol in symbols]
            answer = _call(connection, "record_quotes", {"source": "simulated", "quotes": quotes})
            if (answer["accepted"], answer["touched"]) != (len(symbols), 0):
                raise RuntimeError(f"record_quotes answered {answer}")

        return repeat

    return work


def _run_triggers(market: Market, rounds: int, seconds: float) -> None:
    database = market.database
    with database.connect() as owner:
        referred = make_accounts(owner, ACCOUNTS)
        users = make_accounts(owner, TRIGGER_ACCOUNTS)
        _touch(owner, users)
    compared = {
        REFERENCE: reference_work(database.url_for("function_trader"), referred),
        TRIGGERED: _triggers(database),
    }
    measured = measure(compared, clients=TRIGGER_CLIENTS, rounds=rounds, seconds=seconds)
    report(f"Orders triggered, {TRIGGER_CLIENTS} workers", measured, REFERENCE, {})


def _touch(owner: psycopg.Connection[Any], users: list[User]) -> None:
    """TRIGGERS limit orders that a quote has touched, the same number of each user."""
    owner.execute(
        """
        WITH placed AS (
            INSERT INTO orders (
                user_id, account_id, symbol, order_type, side, quantity, limit_price, status, leaves_quantity,
                trigger_watch, trigger_price
            )
            SELECT a.user_id, a.id, %(symbol)s, 'limit', 'buy', 0.01, 1.2, 'new', 0.01, 'ask_falls', 1.2
            FROM accounts AS a CROSS JOIN generate_series(1, %(each)s)
            WHERE a.id = ANY (%(accounts)s)
            RETURNING user_id, id, account_id
        )
        INSERT INTO trigger_queue (user_id, subject_id, account_id, kind, bid, ask, quoted_at, source, touched_at)
        SELECT p.user_id, p.id, p.account_id, 'order', 1.1, 1.1002, clock_timestamp(), 'manual', clock_timestamp()
        FROM placed AS p
        """,
        {"symbol": SYMBOL, "each": TRIGGERS // len(users), "accounts": [user.account_id for user in users]},
    )
    owner.execute("VACUUM ANALYZE")


def _triggers(database: ScratchDatabase) -> Work:
    """Repeats the execution of one queued row; a client claims what it needs, as a worker does."""

    def work(_number: int) -> Callable[[], None]:
        connection = psycopg.connect(database.url_for("function_triggers"), autocommit=True, prepare_threshold=None)
        holder = str(uuid.uuid4())
        claimed: list[dict[str, Any]] = []

        def repeat() -> None:
            give_up = time.monotonic() + 10
            while not claimed and time.monotonic() < give_up:
                request = {"holder": holder, "users": CLAIM_ROWS // 10, "limit": CLAIM_ROWS, "lease_ms": 3_600_000}
                claimed.extend(_call(connection, "claim_triggers", request))
            row = claimed.pop()
            names = ("user_id", "subject_id", "account_id", "fencing")
            asked = {"holder": holder, "request_id": "benchmark"} | {name: row[name] for name in names}
            answer = _call(connection, "execute_trigger", asked)
            if answer["state"] != "filled":
                raise RuntimeError(f"execute_trigger answered {answer}")

        return repeat

    return work


def _call(connection: psycopg.Connection[Any], procedure: str, request: dict[str, Any]) -> Any:
    row = connection.execute(f"SELECT {procedure}(%s)".encode(), (Jsonb({"version": 1, **request}),)).fetchone()
    if row is None:
        raise RuntimeError(f"{procedure} answered nothing")
    return row[0]
