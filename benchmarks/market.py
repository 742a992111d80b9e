"""What benchmarks trade on: a database that syncs each commit, funded accounts, a fresh quote, and the reference."""

import itertools
import random
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from benchmarks.rounds import Work
from tests.kit.builders import User
from tests.kit.servers import MigratedTemplate, ScratchDatabase, TestServers

QUOTE_SECONDS = 1.0
REFERENCE = "reference transaction"
# What a tier would limit.
UNBOUND = (
    "max_order_notional",
    "max_position_size",
    "max_positions",
    "max_working_orders",
    "daily_trade_limit",
    "max_daily_loss",
    "price_collar_percent",
)


@dataclass(frozen=True, slots=True)
class Market:
    """Servers with a migrated database, and the template of more; `folder` is for what a benchmark writes."""

    servers: TestServers
    template: MigratedTemplate
    database: ScratchDatabase

    @property
    def folder(self) -> Path:
        """Where files may be put."""
        return self.servers.folder


@contextmanager
def prepared_market() -> Iterator[Market]:
    """A PostgreSQL that syncs and a Redis, all markets open, whose EURUSD quote is kept fresh."""
    folder = Path(tempfile.mkdtemp(prefix="trading-bench-"))
    folder.chmod(0o711)
    servers = TestServers(folder, durable=True)
    stop = threading.Event()
    try:
        servers.start()
        template = MigratedTemplate.build(servers.postgres)
        database = template.clone()
        with database.connect() as owner:
            install_reference(owner)
            owner.execute("UPDATE platform_settings SET trade_always = true")
            _record_quote(owner)
        quoting = threading.Thread(target=_keep_quoting, args=(database, stop))
        quoting.start()
        yield Market(servers, template, database)
        stop.set()
        quoting.join()
    finally:
        stop.set()
        servers.stop()
        shutil.rmtree(folder, ignore_errors=True)


def install_reference(owner: psycopg.Connection[Any]) -> None:
    """Make `reference_transaction`, which function_trader may call."""
    owner.execute((Path(__file__).parent / "reference_transaction.sql").read_bytes())


def make_accounts(owner: psycopg.Connection[Any], count: int, position_mode: str = "hedging") -> list[User]:
    """`count` users with a funded account each, whose limits do not bind."""
    rows = owner.execute(
        "WITH p AS (INSERT INTO profiles (email, kyc_status, account_tier) "
        "SELECT format('bench-%%s@example.com', gen_random_uuid()), 'verified', 'platinum' "
        "FROM generate_series(1, %s) RETURNING id, email), "
        "a AS (INSERT INTO accounts (user_id, currency, position_mode) SELECT id, 'USD', %s FROM p "
        "RETURNING user_id, id), "
        "r AS (INSERT INTO risk_settings (user_id, account_id, unlimited) SELECT user_id, id, %s FROM a) "
        "SELECT a.user_id, a.id, p.email FROM a JOIN p ON p.id = a.user_id",
        (count, position_mode, list(UNBOUND)),
    ).fetchall()
    users = [User(*row) for row in rows]
    owner.execute(
        "SELECT deposit(jsonb_build_object('version', 1, 'user_id', user_id, 'account_id', id, 'amount', 10000000, "
        "'reason', 'benchmark', 'idempotency_key', 'funding', 'actor', 'benchmark')) FROM accounts "
        "WHERE id = ANY(%s)",
        ([user.account_id for user in users],),
    )
    return users


def on_connection(
    url: str, statement: str, parameters: Callable[[random.Random], tuple[object, ...]], expected: str | None = None
) -> Work:
    """Repeats `statement` on a connection of the client's own; with `expected`, that is what it has to answer."""

    def work(number: int) -> Callable[[], None]:
        connection = psycopg.connect(url, autocommit=True, prepare_threshold=None)
        chance = random.Random(number)
        query = statement.encode()

        def repeat() -> None:
            row = connection.execute(query, parameters(chance)).fetchone()
            if row is None or (expected is not None and row[0] != expected):
                raise RuntimeError(f"{statement} answered {row}")

        return repeat

    return work


def reference_work(url: str, accounts: Sequence[User]) -> Work:
    """Repeats the reference transaction on one of `accounts`; they are its own, because it keeps no chain."""

    def parameters(chance: random.Random) -> tuple[UUID, UUID, str]:
        user = chance.choice(accounts)
        return user.user_id, user.account_id, str(uuid.uuid4())

    return on_connection(url, "SELECT reference_transaction(%s, %s, %s)", parameters)


def _keep_quoting(database: ScratchDatabase, stop: threading.Event) -> None:
    for _ in itertools.count():
        if stop.wait(QUOTE_SECONDS):
            return
        with database.connect() as owner:
            _record_quote(owner)


def _record_quote(owner: psycopg.Connection[Any]) -> None:
    quote = {"symbol": "EURUSD", "bid": "1.1", "ask": "1.1002", "quoted_at": datetime.now(UTC).isoformat()}
    owner.execute("SELECT record_quotes(%s)", (Jsonb({"version": 1, "source": "manual", "quotes": [quote]}),))
