"""Prices through the only way in for quotes, and the work that they make for the triggers' function."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import psycopg
from psycopg.types.json import Jsonb

from tests.kit.orders import Market

HOLDER = uuid.UUID(int=1)


@dataclass(frozen=True, slots=True)
class Ticker:
    """Records quotes as the feed does, and executes what they touch as a worker does."""

    market: Market
    prices: psycopg.Connection[Any]
    triggers: psycopg.Connection[Any]

    @classmethod
    @contextmanager
    def opened(cls, market: Market) -> Iterator[Self]:
        """On the connections of the two roles."""
        database = market.database
        with database.connect("function_prices") as prices, database.connect("function_triggers") as triggers:
            yield cls(market, prices, triggers)

    def record(self, *quotes: tuple[str, str, str, datetime]) -> dict[str, Any]:
        """One batch of (symbol, bid, ask, time)."""
        batch = [
            {"symbol": symbol, "bid": bid, "ask": ask, "quoted_at": at.isoformat()} for symbol, bid, ask, at in quotes
        ]
        return call(self.prices, "record_quotes", {"source": "test", "quotes": batch})

    def touch(self, symbol: str, bid: str, ask: str) -> int:
        """A quote of now; how much it touched."""
        return self.record((symbol, bid, ask, datetime.now(UTC)))["touched"]

    def tick(self, symbol: str, bid: str, ask: str) -> list[str]:
        """A quote of now and all that follows from it; the states of what it touched."""
        self.touch(symbol, bid, ask)
        return self.work()

    def until_touched(self, symbol: str, bid: str, ask: str, seconds: float = 10) -> list[str]:
        """Quotes of now until something comes of one; the states that it came to."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            if states := self.tick(symbol, bid, ask):
                return states
        return []

    def claim(self, holder: uuid.UUID = HOLDER, *, users: int = 100, lease_ms: int = 5000) -> list[dict[str, Any]]:
        """Lease what is queued."""
        request = {"holder": str(holder), "users": users, "limit": 1000, "lease_ms": lease_ms}
        return call(self.triggers, "claim_triggers", request)

    def work(self) -> list[str]:
        """Execute all that is queued; the states that it came to."""
        return [self.execute(claimed)["state"] for claimed in self.claim()]

    def execute(self, claimed: dict[str, Any], holder: uuid.UUID = HOLDER) -> dict[str, Any]:
        """Execute one claimed row."""
        return call(self.triggers, "execute_trigger", execution_request(claimed, holder))

    def reads(self, table: str) -> int:
        """How many rows of a table were read so far, by scans of it and by its indexes."""
        for connection in (self.prices, self.triggers, self.market.owner):
            connection.execute("SELECT pg_stat_force_next_flush()")
        (found,) = self.market.execute(
            "SELECT (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = %(table)s) + sum(idx_tup_read) "
            "FROM pg_stat_user_indexes WHERE relname = %(table)s",
            {"table": table},
        )
        return int(found[0])

    def queued(self) -> int:
        """How many rows wait."""
        return self.market.execute("SELECT count(*) FROM trigger_queue")[0][0]


def execution_request(claimed: dict[str, Any], holder: uuid.UUID = HOLDER) -> dict[str, Any]:
    """The request of execute_trigger for a claimed row."""
    names = ("user_id", "subject_id", "account_id", "fencing")
    return {"version": 1, "holder": str(holder), "request_id": "test-trigger"} | {name: claimed[name] for name in names}


def call(connection: psycopg.Connection[Any], procedure: str, request: dict[str, Any]) -> Any:
    """The answer of a procedure."""
    row = connection.execute(f"SELECT {procedure}(%s)".encode(), (Jsonb({"version": 1, **request}),)).fetchone()
    assert row is not None
    return row[0]
