"""The database's record of prices that are stale, and of who has been told."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from trading.store.database import Database

REQUEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class PriceState:
    """What a look at all prices found: symbols whose outage began or ended with it, and how many are in one.

    `untold`: a connection that hears prices has yet to be told.
    """

    entered: tuple[str, ...]
    left: tuple[str, ...]
    stale: int
    untold: bool


@dataclass(frozen=True, slots=True)
class PriceNotice:
    """What a connection has yet to be told at `at`: symbols whose prices are stale, and are not any more.

    `stale` are all that it knows to be stale once it has been told.
    """

    connection_id: str
    entered: tuple[str, ...]
    left: tuple[str, ...]
    stale: tuple[str, ...]
    at: datetime


def watch_prices(database: Database) -> PriceState:
    """Record the outages of prices that begin or end now. Safe to repeat and to run twice at once."""
    answer = database.call("watch_prices", {"version": REQUEST_VERSION})
    return PriceState(tuple(answer["entered"]), tuple(answer["left"]), answer["stale"], answer["untold"])


def claim_price_notices(database: Database, *, limit: int, claim_ms: int) -> list[PriceNotice]:
    """Take up to `limit` connections that have to be told; nobody else gets them for `claim_ms`."""
    request = {"version": REQUEST_VERSION, "limit": limit, "claim_ms": claim_ms}
    return [
        PriceNotice(
            row["connection_id"],
            tuple(row["entered"]),
            tuple(row["left"]),
            tuple(row["stale"]),
            datetime.fromisoformat(row["at"]),
        )
        for row in database.call("claim_price_notices", request)
    ]


def record_price_notices(database: Database, told: Sequence[PriceNotice]) -> None:
    """Note that these connections have been told."""
    rows = [{"connection_id": notice.connection_id, "stale": list(notice.stale)} for notice in told]
    database.call("record_price_notices", {"version": REQUEST_VERSION, "told": rows})
