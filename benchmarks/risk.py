"""The watch over margin: one pass over all accounts, and stop-outs.

A pass values every account and finds who is due. Accounts are in three currencies and hold three positions each, in
instruments of four quote currencies; one account in a hundred is below its margin call. The stop-outs are of accounts
with one position each.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg
from psycopg.types.json import Jsonb

from benchmarks.market import REFERENCE, Market, make_accounts, prepared_market, reference_work
from benchmarks.rounds import Work, measure, report, table
from tests.kit.builders import set_quote
from tests.kit.servers import MigratedTemplate, ScratchDatabase

ACCOUNTS = (10_000, 100_000)
POSITIONS_EACH = 3
PASS_SECONDS_MAX = 2.0
# Ten times the accounts may take this much longer than ten times as long.
LINEAR = 1.2
QUOTES = {
    "EURUSD": ("1.10000", "1.10020"),
    "GBPUSD": ("1.25000", "1.25040"),
    "USDJPY": ("150.000", "150.010"),
    "EURGBP": ("0.88000", "0.88020"),
    "AAPL": ("149.98", "150.00"),
}

STOP_OUT_CLIENTS = 4
STOP_OUT_ACCOUNTS = 40_000
STOPPED_OUT = "a stop-out"


@dataclass(frozen=True, slots=True)
class Pass:
    """How long a pass took, and the CPU time of the database's process in it, both in seconds."""

    wall: float
    cpu: float


def run(rounds: int, seconds: float) -> None:
    """Measure and print."""
    with prepared_market() as market:
        _run_passes(market.template, rounds)
        _run_stop_outs(market, rounds, seconds)


def _run_passes(template: MigratedTemplate, rounds: int) -> None:
    with ExitStack() as stack:
        works = {count: _pass(stack.enter_context(_held(template, count))) for count in ACCOUNTS}
        taken: dict[int, list[Pass]] = {count: [] for count in ACCOUNTS}
        for _ in range(rounds):
            for count, one in works.items():
                taken[count].append(one())
    small, large = ACCOUNTS
    median = statistics.median(each.wall for each in taken[large])
    grown = statistics.median(b.cpu / a.cpu for a, b in zip(taken[small], taken[large], strict=True)) / (large / small)
    aims = {small: "-", large: f"below {PASS_SECONDS_MAX:g} s: {'met' if median < PASS_SECONDS_MAX else 'MISSED'}"}
    table(
        f"One pass over all accounts, {POSITIONS_EACH} positions each, {rounds} rounds",
        ("accounts", "positions", "median s", "lowest–highest s", "database CPU s", "aim"),
        [
            (
                f"{count:,}",
                f"{count * POSITIONS_EACH:,}",
                f"{statistics.median(each.wall for each in passes):.2f}",
                f"{min(each.wall for each in passes):.2f}–{max(each.wall for each in passes):.2f}",
                f"{statistics.median(each.cpu for each in passes):.2f}",
                aims[count],
            )
            for count, passes in taken.items()
        ],
    )
    print(f"An account of {large:,} takes {grown:.2f} times the CPU of one of {small:,}; aim: at most {LINEAR:g}.")


@contextmanager
def _held(template: MigratedTemplate, count: int) -> Iterator[ScratchDatabase]:
    """A database of `count` accounts with their positions and quotes that stay fresh."""
    database = template.clone()
    try:
        with database.connect() as owner:
            owner.execute("UPDATE platform_settings SET trade_always = true")
            owner.execute("UPDATE market_calendars SET always_open = true")
            owner.execute("UPDATE instruments SET quote_age_ms_max = 3600000")
            for symbol, (bid, ask) in QUOTES.items():
                set_quote(owner, symbol, bid, ask)
            _hold(owner, count)
            owner.execute("VACUUM ANALYZE")
        yield database
    finally:
        database.drop()


def _hold(owner: psycopg.Connection[Any], count: int) -> None:
    """Accounts, each with as many positions as POSITIONS_EACH; one in a hundred has a fortieth of the balance."""
    owner.execute(
        """
        WITH numbered AS (
            INSERT INTO profiles (email, kyc_status, account_tier)
            SELECT format('held-%%s@example.com', n), 'verified', 'gold' FROM generate_series(1, %(count)s) AS n
            RETURNING id, substr(email, 6, position('@' IN email) - 6)::integer AS n
        ),
        opened AS (
            INSERT INTO accounts (user_id, currency, balance)
            SELECT id, (ARRAY['USD', 'EUR', 'GBP'])[1 + n %% 3], CASE n %% 100 WHEN 0 THEN 400 ELSE 16000 END
            FROM numbered
            RETURNING user_id, id
        )
        INSERT INTO risk_settings (user_id, account_id) SELECT user_id, id FROM opened
        """,
        {"count": count},
    )
    owner.execute(
        """
        WITH symbols AS (
            SELECT symbol, place, (bid + ask) / 2 AS price
            FROM quotes INNER JOIN unnest(%(symbols)s::text[]) WITH ORDINALITY AS s (symbol, place) USING (symbol)
        ),
        filled AS (
            INSERT INTO orders (
                user_id, account_id, symbol, order_type, side, quantity, status, filled_quantity, leaves_quantity,
                average_price, executed_at
            )
            SELECT
                a.user_id, a.id, s.symbol, 'market', CASE (a.place + n) %% 2 WHEN 0 THEN 'buy' ELSE 'sell' END, 0.5,
                'filled', 0.5, 0, s.price * (1 + ((a.place * 7 + n) %% 11 - 5) * 0.0002), clock_timestamp()
            FROM (SELECT user_id, id, row_number() OVER () AS place FROM accounts) AS a
            CROSS JOIN generate_series(1, %(each)s) AS n
            INNER JOIN symbols AS s ON s.place = 1 + (a.place + n) %% (SELECT count(*) FROM symbols)
            RETURNING user_id, account_id, id, symbol, side, average_price
        )
        INSERT INTO positions (
            user_id, account_id, order_id, symbol, side, quantity, opened_quantity, entry_price, margin_used
        )
        SELECT
            f.user_id, f.account_id, f.id, f.symbol, CASE f.side WHEN 'buy' THEN 'long' ELSE 'short' END, 0.5, 0.5,
            f.average_price, 550
        FROM filled AS f
        """,
        {"symbols": list(QUOTES), "each": POSITIONS_EACH},
    )


def _pass(database: ScratchDatabase) -> Callable[[], Pass]:
    """One pass, which has to look at every account and find who is due."""
    with database.connect() as owner:
        ((accounts,),) = owner.execute("SELECT count(*) FROM accounts").fetchall()
    request = {"version": 1, "symbols": list(QUOTES), "accounts_max": accounts + 1, "calls_max": accounts}

    def once() -> Pass:
        with database.connect("function_risk") as connection:
            connection.execute("SET statement_timeout = 0")
            server = psutil.Process(connection.info.backend_pid)
            begun, used = time.perf_counter(), sum(server.cpu_times()[:2])
            answer = _call(connection, "monitor_symbols", request)
            taken = Pass(time.perf_counter() - begun, sum(server.cpu_times()[:2]) - used)
        if (answer["checked"], answer["skipped"]) != (accounts, 0) or not 0 < len(answer["due"]) < accounts / 50:
            raise RuntimeError(f"checked {answer['checked']}, skipped {answer['skipped']}, due {len(answer['due'])}")
        return taken

    return once


def _run_stop_outs(market: Market, rounds: int, seconds: float) -> None:
    with market.database.connect() as owner:
        referred = make_accounts(owner, 1000)
        _sink(owner)
    compared = {
        REFERENCE: reference_work(market.database.url_for("function_trader"), referred),
        STOPPED_OUT: _stop_outs(market.database),
    }
    measured = measure(compared, clients=STOP_OUT_CLIENTS, rounds=rounds, seconds=seconds)
    report(f"Stop-outs of one position, {STOP_OUT_CLIENTS} clients", measured, REFERENCE, {})


def _sink(owner: psycopg.Connection[Any]) -> None:
    """STOP_OUT_ACCOUNTS accounts with a lot of EURUSD each that has lost all they have."""
    owner.execute(
        """
        WITH users AS (
            INSERT INTO profiles (email, kyc_status)
            SELECT format('sunk-%%s@example.com', n), 'verified' FROM generate_series(1, %(count)s) AS n
            RETURNING id
        ),
        opened AS (
            INSERT INTO accounts (user_id, currency, balance) SELECT id, 'USD', 10000 FROM users RETURNING user_id, id
        ),
        limited AS (
            INSERT INTO risk_settings (user_id, account_id) SELECT user_id, id FROM opened
        ),
        filled AS (
            INSERT INTO orders (
                user_id, account_id, symbol, order_type, side, quantity, status, filled_quantity, leaves_quantity,
                average_price, executed_at
            )
            SELECT user_id, id, 'EURUSD', 'market', 'buy', 1, 'filled', 1, 0, 1.2, clock_timestamp() FROM opened
            RETURNING user_id, account_id, id
        )
        INSERT INTO positions (
            user_id, account_id, order_id, symbol, side, quantity, opened_quantity, entry_price, margin_used
        )
        SELECT user_id, account_id, id, 'EURUSD', 'long', 1, 1, 1.2, 1200 FROM filled
        """,
        {"count": STOP_OUT_ACCOUNTS},
    )
    owner.execute("VACUUM ANALYZE")


def _stop_outs(database: ScratchDatabase) -> Work:
    """Repeats the step that stops one more account out; each client has accounts of its own."""

    def work(number: int) -> Callable[[], None]:
        with database.connect() as owner:
            rows = owner.execute(
                "SELECT user_id::text, account_id::text FROM positions WHERE status = 'open' AND margin_used = 1200 "
                "ORDER BY id LIMIT 20000"
            ).fetchall()
        mine = iter(rows[number::STOP_OUT_CLIENTS])
        connection = psycopg.connect(database.url_for("function_risk"), autocommit=True, prepare_threshold=None)

        def repeat() -> None:
            user_id, account_id = next(mine)
            request = {"version": 1, "user_id": user_id, "account_id": account_id, "request_id": "benchmark"}
            answer = _call(connection, "stop_out_step", request)
            if answer["state"] != "done":
                raise RuntimeError(f"stop_out_step answered {answer}")

        return repeat

    return work


def _call(connection: psycopg.Connection[Any], procedure: str, request: dict[str, object]) -> Any:
    row = connection.execute(f"SELECT {procedure}(%s)".encode(), (Jsonb(request),)).fetchone()
    assert row is not None
    return row[0]
