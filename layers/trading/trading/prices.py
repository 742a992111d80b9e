"""Prices for display: from the cache while it has them, else from the database. Never traded on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from trading.cache import Cache, CacheUnavailableError
from trading.errors import ErrorCode, TradingError
from trading.quotes.provider import Quote
from trading.quotes.quote_cache import read_quotes, write_quotes
from trading.quotes.single_flight import SingleFlight
from trading.store.database import Database
from trading.store.quotes import StoredQuote, list_quotes

RETRY_SECONDS = 1

type CacheStatus = Literal["hit", "miss", "stale"]


@dataclass(frozen=True, slots=True)
class Price:
    """A symbol's newest quote; `stale` when it is older than the instrument allows for trading."""

    quote: Quote
    stale: bool


@dataclass(frozen=True, slots=True)
class Prices:
    """What was asked for, in that order.

    `unavailable` are known symbols that never had a quote. `status`: `hit` when the cache had all of it, `stale` when
    a price is stale or missing, else `miss`.
    """

    prices: list[Price]
    unavailable: list[str]
    status: CacheStatus


def current_prices(symbols: Sequence[str], now: datetime, *, cache: Cache, database: Database) -> Prices:
    """The newest prices of `symbols` at `now`.

    What the cache lacks one caller reads for all who lack it. UNKNOWN_SYMBOL names the first symbol that there is
    not; MARKET_DATA_UNAVAILABLE when none of them ever had a quote. Without Redis everything comes from the database.
    """
    cached = _cached(cache, symbols)
    missing = [symbol for symbol in symbols if symbol not in cached]
    stored = SingleFlight(cache, partial(list_quotes, database)).quotes(missing) if missing else {}
    _refuse_unknown(symbols, known=cached.keys() | stored.keys())
    _keep(cache, stored, now)

    prices = {symbol: Price(quote, stale=False) for symbol, quote in cached.items()}
    prices |= {each.symbol: Price(each.quote, each.stale) for each in stored.values() if each.quote is not None}
    if not prices:
        raise _unavailable(symbols)
    found = [prices[symbol] for symbol in symbols if symbol in prices]
    unavailable = [symbol for symbol in symbols if symbol not in prices]
    return Prices(found, unavailable, _status(missing, stale=bool(unavailable) or any(each.stale for each in found)))


def _cached(cache: Cache, symbols: Sequence[str]) -> dict[str, Quote]:
    try:
        return read_quotes(cache, symbols)
    except CacheUnavailableError:
        return {}


def _keep(cache: Cache, stored: dict[str, StoredQuote], now: datetime) -> None:
    """Save the next caller the way to the database."""
    fresh = [each.quote for each in stored.values() if each.quote is not None and not each.stale]
    if not fresh:
        return
    try:
        write_quotes(cache, fresh, {each.symbol: each.age_ms_max for each in stored.values()}, now, replace=False)
    except CacheUnavailableError:
        return


def _refuse_unknown(symbols: Sequence[str], known: set[str]) -> None:
    for symbol in symbols:
        if symbol not in known:
            raise TradingError(
                ErrorCode.UNKNOWN_SYMBOL,
                f"There is no instrument {symbol}. Check the spelling.",
                {"field": "symbol", "value": symbol, "constraint": "a known instrument"},
            )


def _unavailable(symbols: Sequence[str]) -> TradingError:
    return TradingError(
        ErrorCode.MARKET_DATA_UNAVAILABLE,
        "There is no price yet. Ask again in a moment.",
        {"field": "symbol", "value": ",".join(symbols)[:100], "constraint": "a quote"},
        retry_after=RETRY_SECONDS,
    )


def _status(missing: Sequence[str], *, stale: bool) -> CacheStatus:
    if stale:
        return "stale"
    return "miss" if missing else "hit"
