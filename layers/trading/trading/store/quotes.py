"""The database's quotes: what feeds record and what prices are read from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from trading.quotes.provider import FeedInstrument, Quote
from trading.store.database import Database

REQUEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write a feed. A batch under an older `fence` than the newest is refused."""

    name: str
    fence: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a batch: why some were refused, by symbol, and (bid, ask, source) where one is held.

    `triggers_due`: something that prices have touched waits for a worker.
    """

    accepted: int
    ignored: int
    triggers_due: bool
    refused: dict[str, str]
    held: dict[str, tuple[Decimal, Decimal, str]]


@dataclass(frozen=True, slots=True)
class StoredQuote:
    """A known symbol's newest quote, None before the first, and how old (ms) it may become.

    `stale` is the database's judgement at the time of reading.
    """

    symbol: str
    quote: Quote | None
    age_ms_max: int
    stale: bool


def record_quotes(database: Database, source: str, quotes: Sequence[Quote], lease: Lease | None = None) -> Recorded:
    """Record `quotes` of one source; TradingError CONFLICT when `lease` has gone to another copy."""
    request: dict[str, object] = {
        "version": REQUEST_VERSION,
        "source": source,
        "quotes": [
            {
                "symbol": quote.symbol,
                "bid": format(quote.bid, "f"),
                "ask": format(quote.ask, "f"),
                "quoted_at": quote.time.isoformat(),
            }
            for quote in quotes
        ],
    }
    if lease is not None:
        request["lease"] = {"name": lease.name, "fence": lease.fence}
    answer = database.call("record_quotes", request)
    return Recorded(
        accepted=answer["accepted"],
        ignored=answer["ignored"],
        triggers_due=answer["due"],
        refused={each["symbol"]: each["reason"] for each in answer["refused"]},
        held={each["symbol"]: (Decimal(each["bid"]), Decimal(each["ask"]), each["source"]) for each in answer["held"]},
    )


def list_quotes(database: Database, symbols: Sequence[str]) -> list[StoredQuote]:
    """The newest quotes of `symbols`, ordered by symbol; unknown symbols are left out."""
    row = database.fetch_one("SELECT list_quotes(%s::text[]) AS quotes", (list(symbols),))
    return [_stored(each) for each in row["quotes"]] if row else []


def list_feed_instruments(database: Database) -> list[FeedInstrument]:
    """All active instruments, ordered by symbol, each with its newest recorded prices."""
    row = database.fetch_one("SELECT list_feed_instruments() AS instruments")
    return [_feed_instrument(each) for each in row["instruments"]] if row else []


def acquire_lease(database: Database, name: str) -> Lease | None:
    """The lease to write the feed `name`, or None while another copy has it. It runs out unless batches renew it."""
    answer = database.call("acquire_feed_lease", {"version": REQUEST_VERSION, "name": name})
    return Lease(name, answer["fence"]) if answer["granted"] else None


def lease_is_awaited(database: Database, lease: Lease) -> bool:
    """Whether another copy waits for `lease`, or did a few seconds ago."""
    return database.call("feed_lease_awaited", {"version": REQUEST_VERSION, "name": lease.name})["awaited"]


def feed_provider(database: Database, feed: str, running: str | None) -> str | None:
    """The provider that an intervention wants `feed` to take, None for its own; `running` is what it took before."""
    request = {"version": REQUEST_VERSION, "feed": feed, "running": running}
    return database.call("get_feed_provider", request)["provider"]


def release_lease(database: Database, lease: Lease) -> None:
    """Give `lease` back at once; nothing happens when another copy has it already."""
    request = {"version": REQUEST_VERSION, "name": lease.name, "fence": lease.fence}
    database.call("release_feed_lease", request)


def list_market_data_connections(database: Database, limit: int) -> dict[str, frozenset[str] | None]:
    """The symbols that each connection wants prices of, by connection id; None for every symbol."""
    answer = database.call("list_market_data_connections", {"version": REQUEST_VERSION, "limit": limit})
    return {row["connection_id"]: frozenset[str](row["symbols"]) or None for row in answer}


def _stored(row: dict[str, Any]) -> StoredQuote:
    quote = None
    if row["bid"] is not None:
        quote = Quote(
            row["symbol"],
            Decimal(row["bid"]),
            Decimal(row["ask"]),
            datetime.fromisoformat(row["quoted_at"]),
            row["source"],
        )
    return StoredQuote(row["symbol"], quote, row["age_ms_max"], row["stale"])


def _feed_instrument(row: dict[str, Any]) -> FeedInstrument:
    return FeedInstrument(
        symbol=row["symbol"],
        asset_class=row["asset_class"],
        base_currency=row["base_currency"],
        quote_currency=row["quote_currency"],
        tick_size=Decimal(row["tick_size"]),
        reference_price=Decimal(row["reference_price"]),
        reference_spread=Decimal(row["reference_spread"]),
        volatility=Decimal(row["volatility_average"]),
        age_ms_max=row["age_ms_max"],
        bid=Decimal(row["bid"]) if row["bid"] is not None else None,
        ask=Decimal(row["ask"]) if row["ask"] is not None else None,
    )
