"""Margin calls: when one begins, when it ends. The database decides by the same rules; see `margin_levels`."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum


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
