"""execute_order_atomic against the reference transaction: spread over accounts, replayed, and on one hot account."""

import argparse
import itertools
import random
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from benchmarks.rounds import ROUNDS, SLICE_SECONDS, Work, measure, report
from tests.kit.servers import MigratedTemplate, ScratchDatabase, TestServers

ACCOUNTS = 2000
QUOTE_SECONDS = 1.0
AIMS = {"execute_order_atomic": 0.75, "replay of a known key": 5.0}

type Account = tuple[UUID, UUID]


@contextmanager
def prepared_database() -> Iterator[ScratchDatabase]:
    """A migrated database on a server that syncs, whose EURUSD quote is kept fresh."""
    folder = Path(tempfile.mkdtemp(prefix="trading-bench-"))
    folder.chmod(0o711)
    servers = TestServers(folder, durable=True)
    stop = threading.Event()
    try:
        servers.start()
        database = MigratedTemplate.build(servers.postgres).clone()
        with database.connect() as owner:
            owner.execute((Path(__file__).parent / "reference_transaction.sql").read_bytes())
            owner.execute("UPDATE platform_settings SET trade_always = true")
        _record_quote(database)
        quoting = threading.Thread(target=_keep_quoting, args=(database, stop))
        quoting.start()
        yield database
        stop.set()
        quoting.join()
    finally:
        stop.set()
        servers.stop()
        shutil.rmtree(folder, ignore_errors=True)


def make_accounts(database: ScratchDatabase, count: int, position_mode: str = "hedging") -> list[Account]:
    """`count` funded accounts whose limits do not bind."""
    with database.connect() as owner:
        rows = owner.execute(
            "WITH p AS (INSERT INTO profiles (email, kyc_status, account_tier) "
            "SELECT format('bench-%%s@example.com', gen_random_uuid()), 'verified', 'gold' "
            "FROM generate_series(1, %s) RETURNING id), "
            "a AS (INSERT INTO accounts (user_id, currency, position_mode) SELECT id, 'USD', %s FROM p "
            "RETURNING user_id, id) "
            "INSERT INTO risk_settings (user_id, account_id, max_positions, max_position_size, daily_trade_limit, "
            "max_daily_loss) SELECT user_id, id, NULL, NULL, NULL, NULL FROM a RETURNING user_id, account_id",
            (count, position_mode),
        ).fetchall()
        owner.execute(
            "SELECT deposit(jsonb_build_object('version', 1, 'user_id', user_id, 'account_id', id, 'amount', 10000000, "
            "'reason', 'benchmark', 'idempotency_key', 'funding', 'actor', 'benchmark')) FROM accounts "
            "WHERE id = ANY(%s)",
            ([account_id for _, account_id in rows],),
        )
        return rows


def order_of(account: Account, key: str) -> dict[str, object]:
    """A market order of the smallest lot."""
    return {
        "version": 1,
        "user_id": str(account[0]),
        "account_id": str(account[1]),
        "symbol": "EURUSD",
        "order_type": "market",
        "side": "buy",
        "quantity": "0.01",
        "time_in_force": "gtc",
        "idempotency_key": key,
        "idempotency_key_days": 30,
        "request_hash": key,
        "request_id": key,
        "ip_address": "192.0.2.1",
        "user_agent": "benchmark",
        "email": "bench@example.com",
    }


def variants(
    database: ScratchDatabase, referred: list[Account], spread: list[Account], hot: Account
) -> dict[str, Work]:
    """What is compared; each works on a connection of its own."""
    url = database.url_for("function_trader")

    def on_connection(statement: str, parameters: Callable[[random.Random], tuple[object, ...]]) -> Work:
        def work(number: int) -> Callable[[], None]:
            connection = psycopg.connect(url, autocommit=True, prepare_threshold=None)
            chance = random.Random(number)
            query = sql.SQL(statement)  # pyright: ignore[reportArgumentType]
            return lambda: connection.execute(query, parameters(chance)) and None

        return work

    known = order_of(spread[0], str(uuid.uuid4()))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT execute_order_atomic(%s)", (Jsonb(known),))

    def reference(chance: random.Random) -> tuple[object, ...]:
        return (*chance.choice(referred), str(uuid.uuid4()))

    def spread_order(chance: random.Random) -> tuple[object, ...]:
        return (Jsonb(order_of(chance.choice(spread), str(uuid.uuid4()))),)

    def hot_order(_chance: random.Random) -> tuple[object, ...]:
        return (Jsonb(order_of(hot, str(uuid.uuid4()))),)

    call = "SELECT execute_order_atomic(%s)"
    return {
        "reference transaction": on_connection("SELECT reference_transaction(%s, %s, %s)", reference),
        "execute_order_atomic": on_connection(call, spread_order),
        "replay of a known key": on_connection(call, lambda _chance: (Jsonb(known),)),
        "one hot account": on_connection(call, hot_order),
    }


def main() -> None:
    """Entry of `python -m benchmarks.order_procedure`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SLICE_SECONDS)
    parser.add_argument("--clients", type=int, nargs="+", default=[4, 8])
    given = parser.parse_args()
    with prepared_database() as database:
        # The reference keeps no chain, so its accounts are its own.
        referred, spread = make_accounts(database, ACCOUNTS), make_accounts(database, ACCOUNTS)
        for clients in given.clients:
            (hot,) = make_accounts(database, 1, "netting")
            measured = measure(
                variants(database, referred, spread, hot), clients=clients, rounds=given.rounds, seconds=given.seconds
            )
            report(f"{clients} clients, {given.rounds} rounds", measured, "reference transaction", AIMS)
            report("  hot against spread", measured, "execute_order_atomic", {"one hot account": 0.40})


def _keep_quoting(database: ScratchDatabase, stop: threading.Event) -> None:
    for _ in itertools.count():
        if stop.wait(QUOTE_SECONDS):
            return
        _record_quote(database)


def _record_quote(database: ScratchDatabase) -> None:
    quote = {"symbol": "EURUSD", "bid": "1.1", "ask": "1.1002", "quoted_at": datetime.now(UTC).isoformat()}
    with database.connect() as owner:
        owner.execute("SELECT record_quotes(%s)", (Jsonb({"version": 1, "source": "manual", "quotes": [quote]}),))


if __name__ == "__main__":
    main()
