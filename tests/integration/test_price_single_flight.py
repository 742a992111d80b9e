"""Many callers miss the cache at once: one reads the database, the others get what it found."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.kit import ScratchDatabase, set_quote
from trading.cache import Cache
from trading.quotes.provider import Quote
from trading.quotes.single_flight import FOUND_MS, POLL_SECONDS, TURN_MS, WAIT_SECONDS, SingleFlight, turn_key
from trading.store.quotes import StoredQuote

ROOT = Path(__file__).parents[2]
PROCESSES, CALLERS = 5, 10
# Long enough that everybody has missed the cache before the first answer is there, shorter than a turn.
READ_SECONDS = 0.15


@dataclass
class Reads:
    """How often the database was asked for quotes, by whatever process: a sequence counts what no rollback undoes."""

    database: ScratchDatabase

    def watch(self, seconds: float) -> None:
        """Count every call of list_quotes, and let it take `seconds`."""
        with self.database.connect() as owner:
            owner.execute(
                f"""
                CREATE SEQUENCE reads;
                GRANT USAGE ON SEQUENCE reads TO trading_readers;
                ALTER FUNCTION list_quotes(text[]) RENAME TO list_quotes_unwatched;
                CREATE FUNCTION list_quotes(p_symbols text[]) RETURNS jsonb
                LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
                BEGIN
                    PERFORM nextval('reads'), pg_sleep({seconds});
                    RETURN list_quotes_unwatched(p_symbols);
                END
                $$;
                GRANT CREATE ON SCHEMA public TO trading_readers;
                ALTER FUNCTION list_quotes(text[]) OWNER TO trading_readers;
                REVOKE CREATE ON SCHEMA public FROM trading_readers;
                GRANT EXECUTE ON FUNCTION list_quotes(text[]) TO function_trader;
                """.encode()
            )

    def count(self) -> int:
        with self.database.connect() as owner:
            row = owner.execute("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM reads").fetchone()
        assert row is not None
        return row[0]


@pytest.fixture
def reads(database: ScratchDatabase) -> Reads:
    watched = Reads(database)
    watched.watch(READ_SECONDS)
    return watched


def ask_at_once(database: ScratchDatabase, redis_url: str, symbols: str) -> list[dict[str, Any]]:
    """What every caller of every process is answered, all let go at the same moment."""
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'layers' / 'trading'}",
        "DATABASE_URL": database.url_for("function_trader"),
        "REDIS_URL": redis_url,
    }
    command = [sys.executable, "-m", "tests.kit.price_reader", symbols, str(CALLERS)]
    processes = [
        subprocess.Popen(command, env=variables, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        answers: list[dict[str, Any]] = []
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            output, _ = process.communicate(timeout=60)
            answers += json.loads(output)
        return answers
    finally:
        for process in processes:
            process.kill()
            process.wait()


class TestManyCallers:
    def test_a_cold_cache_costs_one_read(self, database: ScratchDatabase, reads: Reads, redis_url: str) -> None:
        # given two symbols that the cache has not, and fifty callers in five processes
        set_quote(database, "EURUSD", "1.1000", "1.1002")
        set_quote(database, "AAPL", "149.98", "150.00")
        # when all ask at once
        answers = ask_at_once(database, redis_url, "EURUSD,AAPL")
        # then all have the prices
        assert len(answers) == PROCESSES * CALLERS
        assert all(answer["bids"] == {"EURUSD": "1.1000", "AAPL": "149.98"} for answer in answers)
        # and one of them read; a second only if the machine held that one up for longer than a turn lasts
        assert 1 <= reads.count() <= 2

    def test_stale_prices_and_missing_ones_are_read_once_too(
        self, database: ScratchDatabase, reads: Reads, redis_url: str
    ) -> None:
        # given a symbol whose quote is too old for the cache, and one that never had any
        set_quote(database, "EURUSD", "1.1", "1.2", datetime.now(UTC) - timedelta(minutes=1))
        # when all ask at once
        answers = ask_at_once(database, redis_url, "EURUSD,AAPL")
        # then one read serves them
        assert {answer["status"] for answer in answers} == {"stale"}
        assert all(answer["unavailable"] == ["AAPL"] for answer in answers)
        assert 1 <= reads.count() <= 2

    def test_without_redis_each_reads_for_itself(self) -> None:
        gone = Cache(lambda: "redis://127.0.0.1:9/0", timeout_ms=200)
        asked: list[str] = []

        started = time.monotonic()
        for _ in range(3):
            SingleFlight(gone, reading(asked)).quotes(["EURUSD"])

        # then nobody waited for anybody
        assert asked == ["EURUSD"] * 3
        assert time.monotonic() - started < WAIT_SECONDS


@dataclass
class Clock:
    """A clock that moves by sleeping, and what is to happen at the first sleep."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


QUOTE = Quote("EURUSD", Decimal("1.1"), Decimal("1.2"), datetime(2026, 1, 1, tzinfo=UTC), "test")


def reading(asked: list[str]) -> Any:
    """A read that notes what it was asked for, and finds every symbol."""

    def read(symbols: Sequence[str]) -> list[StoredQuote]:
        asked.extend(symbols)
        return [StoredQuote(symbol, QUOTE, 5000, stale=False) for symbol in symbols]

    return read


@pytest.fixture
def cache(redis_url: str) -> Iterator[Cache]:
    made = Cache(lambda: redis_url, timeout_ms=1000)
    yield made
    made.close()


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


class TestTurns:
    def test_a_holder_that_was_killed_is_followed_by_one_other(self, cache: Cache, server: redis.Redis) -> None:
        # given a turn whose holder will never end it
        server.set(turn_key("EURUSD"), "reading:of the dead", px=TURN_MS)
        asked: list[str] = []
        # when another asks
        started = time.monotonic()
        found = SingleFlight(cache, reading(asked)).quotes(["EURUSD"])
        took = time.monotonic() - started
        # then it reads once the turn has run out, within its wait
        assert found["EURUSD"].quote is not None
        assert asked == ["EURUSD"]
        assert took < WAIT_SECONDS + 0.2
        # and what it found serves the next without a read
        SingleFlight(cache, reading(asked)).quotes(["EURUSD"])
        assert asked == ["EURUSD"]

    def test_nobody_waits_for_ever(self, cache: Cache, server: redis.Redis) -> None:
        # given a turn that never runs out
        server.set(turn_key("EURUSD"), "reading:of another")
        asked: list[str] = []
        clock = Clock()
        # when another asks
        SingleFlight(cache, reading(asked), clock=clock, sleep=clock.sleep).quotes(["EURUSD"])
        # then it looks again and again for as long as it may, and reads by itself
        assert asked == ["EURUSD"]
        assert set(clock.slept) == {POLL_SECONDS}
        assert sum(clock.slept) == pytest.approx(WAIT_SECONDS, abs=2 * POLL_SECONDS)
        assert server.get(turn_key("EURUSD")) == "reading:of another"

    def test_only_what_others_do_not_read_is_read(self, cache: Cache, server: redis.Redis) -> None:
        # given that another reads one of two symbols
        server.set(turn_key("AAPL"), "reading:of another")
        asked: list[str] = []

        def end_the_other(_seconds: float) -> None:
            other = SingleFlight(cache, reading([]))
            server.delete(turn_key("AAPL"))
            other.quotes(["AAPL"])

        found = SingleFlight(cache, reading(asked), sleep=end_the_other).quotes(["AAPL", "EURUSD"])

        assert asked == ["EURUSD"]
        assert found.keys() == {"AAPL", "EURUSD"}

    def test_a_read_that_fails_gives_its_turn_up(self, cache: Cache, server: redis.Redis) -> None:
        def fail(_symbols: object) -> list[StoredQuote]:
            raise RuntimeError("no database")

        with pytest.raises(RuntimeError):
            SingleFlight(cache, fail).quotes(["EURUSD"])

        assert server.get(turn_key("EURUSD")) is None

    def test_a_turn_that_was_lost_is_not_ended(self, cache: Cache, server: redis.Redis) -> None:
        # given a reader that is so slow that another took its turn
        def slow(symbols: Sequence[str]) -> list[StoredQuote]:
            server.set(turn_key("EURUSD"), "reading:of another")
            return reading([])(symbols)

        SingleFlight(cache, slow).quotes(["EURUSD"])

        assert server.get(turn_key("EURUSD")) == "reading:of another"

    def test_what_was_found_is_soon_forgotten(self, cache: Cache, server: redis.Redis) -> None:
        SingleFlight(cache, reading([])).quotes(["EURUSD"])

        assert 0 < int(server.pttl(turn_key("EURUSD"))) <= FOUND_MS  # pyright: ignore[reportArgumentType]

    def test_an_unknown_symbol_is_found_to_be_unknown(self, cache: Cache) -> None:
        asked: list[str] = []

        def none(symbols: Sequence[str]) -> list[StoredQuote]:
            asked.extend(symbols)
            return []

        assert SingleFlight(cache, none).quotes(["NOSUCH"]) == {}
        assert SingleFlight(cache, none).quotes(["NOSUCH"]) == {}
        assert asked == ["NOSUCH"]


def test_a_slow_redis_does_not_hold_a_caller() -> None:
    # given a Redis that says nothing, which is found out by one timeout
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        cache = Cache(lambda: f"redis://127.0.0.1:{silent.getsockname()[1]}/0", timeout_ms=150)
        asked: list[str] = []
        started = time.monotonic()
        SingleFlight(cache, reading(asked)).quotes(["EURUSD"])
        took = time.monotonic() - started
        cache.close()

    assert asked == ["EURUSD"]
    assert took < WAIT_SECONDS
