"""Counting requests in PostgreSQL, for the time that Redis is gone."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from trading.guarding.counted_events import NOBODY, Visitor
from trading.store.database import Database


class LimitedKey(Protocol):
    """A key and how often it may be counted in a window."""

    @property
    def key(self) -> str:
        """What is counted."""
        ...

    @property
    def limit(self) -> int:
        """Requests in a window."""
        ...

    @property
    def of(self) -> str:
        """What is limited."""
        ...


def take_rate_limits(
    database: Database, limits: Sequence[LimitedKey], window_seconds: int, visitor: Visitor = NOBODY
) -> Mapping[str, Any]:
    """Count one request of `visitor` against `limits` in their order.

    Answers {now_us, refused: index or None, seen: [{used, oldest_us}, ...], blocked_until_us, maintenance_until_us}, as
    of the first that refuses.
    """
    return database.call(
        "take_rate_limits",
        {
            "version": 1,
            "window_seconds": window_seconds,
            "limits": [{"key": limit.key, "limit": limit.limit, "of": limit.of} for limit in limits],
            "visitor": visitor.as_request(),
        },
    )
