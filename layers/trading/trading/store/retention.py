"""The histories that have been kept for long enough."""

from dataclasses import dataclass

from trading.store.financing import Procedures

PURGED_ROWS_MAX = 5_000


@dataclass(frozen=True, slots=True)
class PurgedHistories:
    """Rows that went, by history."""

    roll_quotes: int
    price_outages: int


def purge_histories(procedures: Procedures) -> PurgedHistories:
    """Remove what is past its time, at most PURGED_ROWS_MAX rows of each history a call."""
    return PurgedHistories(**procedures.call("purge_histories", {"version": 1, "limit": PURGED_ROWS_MAX}))
