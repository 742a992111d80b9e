"""Margin calls: when one begins, when it ends; stop-out: when it is due, and which position goes first.

The database decides by the same rules; see `margin_levels` and `stop_out_step`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from trading.accounts import AccountKind


class MarginCall(StrEnum):
    """What becomes of an account's margin call."""

    ENTERED = "entered"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class MarginCallTerms:
    """The level below which a call begins, and the level at which it ends. Both are percent.

    The release level lies a little above the threshold, so that a level which hovers at the threshold is one
    episode. An open call keeps the terms that it began with.
    """

    threshold: Decimal
    release_level: Decimal

    @classmethod
    def of(cls, threshold: Decimal, release_percent: Decimal) -> "MarginCallTerms":
        """Terms from an account's settings; `release_percent` is percent of the threshold, at least 100."""
        if release_percent < 100:
            raise ValueError("a margin call that ends below its threshold would begin again at once")
        return cls(threshold, threshold * release_percent / 100)


def margin_call_due(terms: MarginCallTerms, margin_level: Decimal | None, *, is_open: bool) -> MarginCall | None:
    """What is due at `margin_level` (percent, None while no margin is used), or None where nothing changes."""
    if is_open:
        ended = margin_level is None or margin_level >= terms.release_level
        return MarginCall.LEFT if ended else None
    below = margin_level is not None and margin_level < terms.threshold
    return MarginCall.ENTERED if below else None


@dataclass(frozen=True, slots=True)
class ExposedPosition:
    """An open position as a stop-out looks at it; `unrealized_pnl` is in account currency, not rounded.

    `closable` says that its market trades now (or the platform trades always) and its quote is fresh.
    """

    position_id: UUID
    unrealized_pnl: Decimal
    opened_at: datetime
    closable: bool


def stop_out_due(kind: AccountKind, stop_out_level: Decimal, margin_level: Decimal | None) -> bool:
    """Whether positions are to be closed at `margin_level` (percent, None while no margin is used).

    At the stop-out level and below it, equity at or below zero included. A cash account borrows nothing and is never
    stopped out.
    """
    return kind == "margin" and margin_level is not None and margin_level <= stop_out_level


def first_to_close(positions: Iterable[ExposedPosition]) -> ExposedPosition | None:
    """The one of `positions` that a stop-out closes next: the largest loss, of equal ones the oldest.

    Those that cannot be closed now are passed over; None where none can.
    """
    closable = (position for position in positions if position.closable)
    return min(closable, key=lambda p: (p.unrealized_pnl, p.opened_at, p.position_id), default=None)
