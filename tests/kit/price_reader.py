"""Callers of prices in a process of their own: `python -m tests.kit.price_reader SYMBOLS CALLERS`.

DATABASE_URL and REDIS_URL say where. It writes a line when all are connected, lets them go at once on a line, and
writes their answers as one JSON list of {symbol: bid} and cache status.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier

from trading.cache import Cache
from trading.prices import current_prices
from trading.store.database import Database


def ask(symbols: list[str], ready: Barrier, go: Barrier) -> dict[str, object]:
    """One caller with connections of its own, as an execution environment has them."""
    cache = Cache(lambda: os.environ["REDIS_URL"], timeout_ms=2000)
    database = Database(lambda: os.environ["DATABASE_URL"])
    cache.run(lambda client: client.ping())
    database.fetch_one("SELECT 1 AS one")
    ready.wait()
    go.wait()
    try:
        found = current_prices(symbols, datetime.now(UTC), cache=cache, database=database)
    finally:
        cache.close()
        database.close()
    return {
        "bids": {price.quote.symbol: str(price.quote.bid) for price in found.prices},
        "unavailable": found.unavailable,
        "status": found.status,
    }


def main(symbols: list[str], callers: int) -> None:
    """Entry of the process."""
    ready, go = Barrier(callers + 1), Barrier(callers + 1)
    with ThreadPoolExecutor(callers) as pool:
        asked = [pool.submit(ask, symbols, ready, go) for _ in range(callers)]
        ready.wait()
        say("ready")
        sys.stdin.readline()
        go.wait()
        say(json.dumps([each.result() for each in asked]))


def say(line: str) -> None:
    """A line for the process that started this one."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1].split(","), int(sys.argv[2]))
