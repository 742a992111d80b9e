"""Quotes in Redis, for display: `quote:{symbol}` holds the newest one for as long as it is fresh."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from trading.cache import Cache, Script
from trading.quotes.provider import Quote

if TYPE_CHECKING:
    from redis import Redis

MILLISECOND = timedelta(milliseconds=1)

# A script, because a pipeline of a hundred SETs costs the client almost twice as much.
# KEYS: the quotes'. ARGV: NX or nothing, then a value and its time to live in ms for each key.
WRITE = Script("""
for i = 1, #KEYS do
    if ARGV[1] == 'NX' then
        redis.call('SET', KEYS[i], ARGV[2 * i], 'PX', ARGV[2 * i + 1], 'NX')
    else
        redis.call('SET', KEYS[i], ARGV[2 * i], 'PX', ARGV[2 * i + 1])
    end
end
""")


def key_of(symbol: str) -> str:
    """The key of a symbol's quote."""
    return f"quote:{symbol}"


def write_quotes(
    cache: Cache, quotes: Sequence[Quote], age_ms_max: Mapping[str, int], now: datetime, *, replace: bool = True
) -> None:
    """Put `quotes` into the cache, in one round trip, each until it is as old as it may become.

    Only a feed may `replace` what is there: what another read a moment ago may be older. CacheUnavailableError when
    Redis does not answer.
    """
    keys: list[str] = []
    arguments: list[str | int] = ["" if replace else "NX"]
    for quote in quotes:
        # Never longer than a quote of now, whatever this machine's clock says.
        left_ms = age_ms_max[quote.symbol] - max(0, (now - quote.time) // MILLISECOND)
        if left_ms > 0:
            keys.append(key_of(quote.symbol))
            arguments += (json.dumps(quote_facts(quote)), left_ms)
    if keys:
        cache.run_script(WRITE, keys, arguments)


def read_quotes(cache: Cache, symbols: Sequence[str]) -> dict[str, Quote]:
    """The cached quotes of `symbols` that there are, by symbol; CacheUnavailableError when Redis does not answer."""

    def read(client: "Redis") -> Any:
        return client.mget([key_of(symbol) for symbol in symbols])

    values: list[str | None] = cache.run(read)
    return {
        symbol: quote_of(symbol, json.loads(value))
        for symbol, value in zip(symbols, values, strict=True)
        if value is not None
    }


def quote_facts(quote: Quote) -> dict[str, str]:
    """`quote` but for its symbol, as Redis keeps it: prices with all their digits, the time in ISO 8601."""
    return {
        "bid": format(quote.bid, "f"),
        "ask": format(quote.ask, "f"),
        "time": quote.time.isoformat(),
        "source": quote.source,
    }


def quote_of(symbol: str, facts: Mapping[str, str]) -> Quote:
    """The quote of `symbol` that `quote_facts` wrote."""
    return Quote(
        symbol, Decimal(facts["bid"]), Decimal(facts["ask"]), datetime.fromisoformat(facts["time"]), facts["source"]
    )
