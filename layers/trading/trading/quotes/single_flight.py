"""One read of the database for all who miss the cache at once, in whatever processes they are.

`price_read:{symbol}` in Redis says who reads a symbol now, then for a moment what was found. Whoever makes the key
reads; the others look at it until the answer stands there. When it is gone without one, because its holder was
killed, the next to look takes the turn.
"""

import json
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from trading.cache import Cache, CacheUnavailableError, Script
from trading.quotes.provider import Quote
from trading.quotes.quote_cache import quote_facts, quote_of
from trading.store.quotes import StoredQuote

# A holder that says nothing for this long has lost its turn. Longer than a read takes, so that a slow one is not
# doubled at once; short enough that a waiter still has time to take over from a dead one.
TURN_MS = 300
# How long what was found stands for those who were waiting; also how often a symbol without a fresh quote is read.
FOUND_MS = 500
# After this a caller reads for itself, whoever holds the turn.
WAIT_SECONDS = 0.8
POLL_SECONDS = 0.02

_READING = "reading:"

# KEYS: the symbols' turns. ARGV: the caller's mark and TURN_MS. Answer: for each what stands there now.
TAKE = Script("""
local standing = {}
for i = 1, #KEYS do
    redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2], 'NX')
    standing[i] = redis.call('GET', KEYS[i])
end
return standing
""")

# Only the holder ends its turn, and one that has lost it changes nothing.
# KEYS: the symbols' turns. ARGV: the holder's mark, FOUND_MS, then what was found of each, or '' to give the turn up.
END = Script("""
for i = 1, #KEYS do
    if redis.call('GET', KEYS[i]) == ARGV[1] then
        if ARGV[i + 2] == '' then
            redis.call('DEL', KEYS[i])
        else
            redis.call('SET', KEYS[i], ARGV[i + 2], 'PX', ARGV[2])
        end
    end
end
""")

type Read = Callable[[Sequence[str]], list[StoredQuote]]


class SingleFlight:
    """Reads quotes by `read` once for all callers that ask at the same time.

    A caller waits WAIT_SECONDS at most, and not at all while Redis is gone; then it reads for itself.
    """

    def __init__(
        self,
        cache: Cache,
        read: Read,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._cache = cache
        self._read = read
        self._clock = clock
        self._sleep = sleep
        self._mark = _READING + secrets.token_hex(8)

    def quotes(self, symbols: Sequence[str]) -> dict[str, StoredQuote]:
        """The newest quotes of `symbols` as `read` gives them, by symbol; unknown symbols are left out."""
        found: dict[str, StoredQuote | None] = {}
        until = self._clock() + WAIT_SECONDS
        while missing := [symbol for symbol in symbols if symbol not in found]:
            try:
                mine = self._take(missing, found)
            except CacheUnavailableError:
                mine = missing
            if mine:
                found |= self._read_in_turn(mine)
            elif self._clock() >= until:
                found |= self._read_alone(missing)
            elif len(found) < len(symbols):
                self._sleep(POLL_SECONDS)
        return {symbol: quote for symbol, quote in found.items() if quote is not None}

    def _take(self, symbols: Sequence[str], found: dict[str, StoredQuote | None]) -> list[str]:
        """The symbols whose turn is now this caller's; what others have found goes into `found`."""
        keys = [turn_key(symbol) for symbol in symbols]
        standing: list[str] = self._cache.run_script(TAKE, keys, [self._mark, TURN_MS])
        mine: list[str] = []
        for symbol, value in zip(symbols, standing, strict=True):
            if value == self._mark:
                mine.append(symbol)
            elif not value.startswith(_READING):
                found[symbol] = _decoded(symbol, value)
        return mine

    def _read_in_turn(self, symbols: Sequence[str]) -> dict[str, StoredQuote | None]:
        try:
            read = self._read_alone(symbols)
        except BaseException:
            self._end(symbols, [""] * len(symbols))
            raise
        self._end(symbols, [_encoded(read[symbol]) for symbol in symbols])
        return read

    def _read_alone(self, symbols: Sequence[str]) -> dict[str, StoredQuote | None]:
        stored = {each.symbol: each for each in self._read(symbols)}
        return {symbol: stored.get(symbol) for symbol in symbols}

    def _end(self, symbols: Sequence[str], answers: Sequence[str]) -> None:
        try:
            self._cache.run_script(END, [turn_key(symbol) for symbol in symbols], [self._mark, FOUND_MS, *answers])
        except CacheUnavailableError:
            return  # the turn runs out by itself


def turn_key(symbol: str) -> str:
    """The key of a symbol's turn."""
    return f"price_read:{symbol}"


def _encoded(stored: StoredQuote | None) -> str:
    if stored is None:
        return json.dumps(None)
    quote = quote_facts(stored.quote) if stored.quote else None
    return json.dumps({"quote": quote, "age_ms_max": stored.age_ms_max, "stale": stored.stale})


def _decoded(symbol: str, value: str) -> StoredQuote | None:
    facts: dict[str, Any] | None = json.loads(value)
    if facts is None:
        return None
    quote: Quote | None = quote_of(symbol, facts["quote"]) if facts["quote"] else None
    return StoredQuote(symbol, quote, facts["age_ms_max"], facts["stale"])
