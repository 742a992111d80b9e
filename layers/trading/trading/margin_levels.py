"""Margin levels: at which of them an account stands, and what is closed at the worst of them.

The database decides by the same rules; see `standing_level`, `margin_levels` and `stop_out_step`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from trading.accounts import AccountKind, Worth


class LevelAction(StrEnum):
    """What a level means, the mildest first: a warning, the margin call, the stop-out."""

    WARN = "warn"
    CALL = "call"
    STOP_OUT = "stop_out"


_SEVERITY = {LevelAction.STOP_OUT: 0, LevelAction.CALL: 1, LevelAction.WARN: 2}


@dataclass(frozen=True, slots=True)
class MarginLevel:
    """A level of an account's profile. `threshold` and `release_level` are percent of margin level.

    It begins below its threshold, a stop-out at it already, and is left at its release level. That lies a little above
    the threshold, so that a margin level which hovers there is one episode.
    """

    name: str
    action: LevelAction
    threshold: Decimal
    release_level: Decimal

    @classmethod
    def of(cls, name: str, action: LevelAction, threshold: Decimal, release_percent: Decimal) -> "MarginLevel":
        """A level as its profile has it; `release_percent` is percent of the threshold, at least 100."""
        if release_percent < 100:
            raise ValueError("a level that is left below its threshold would begin again at once")
        return cls(name, action, threshold, threshold * release_percent / 100)

    @property
    def order(self) -> tuple[Decimal, int]:
        """How bad it is; the worst sorts first."""
        return self.threshold, _SEVERITY[self.action]

    def begins_at(self, margin_level: Decimal) -> bool:
        """Whether an account comes to this level at `margin_level` (percent)."""
        return margin_level <= self.threshold if self.action is LevelAction.STOP_OUT else margin_level < self.threshold


class EpisodeChange(StrEnum):
    """What becomes of an account's episode below its margin levels."""

    ENTERED = "entered"
    ESCALATED = "escalated"
    EASED = "eased"
    LEFT = "left"


def standing_level(
    levels: Iterable[MarginLevel], margin_level: Decimal | None, at: MarginLevel | None = None
) -> MarginLevel | None:
    """The worst level at which an account stands, None above them all or while no margin is used.

    `at` is where it stood before, None outside of an episode. That level keeps the terms by which it began.
    """
    if margin_level is None:
        return None
    known = [level for level in levels if at is None or level.name != at.name] + ([at] if at else [])
    standing = (
        level
        for level in known
        if level.begins_at(margin_level)
        or (at is not None and level.order >= at.order and margin_level < level.release_level)
    )
    return min(standing, key=lambda level: level.order, default=None)


def episode_change(at: MarginLevel | None, standing: MarginLevel | None) -> EpisodeChange | None:
    """What is due of an account that stood `at` one level and stands at another; None where nothing changes."""
    if at is None:
        return None if standing is None else EpisodeChange.ENTERED
    if standing is None:
        return EpisodeChange.LEFT
    if standing.name == at.name:
        return None
    return EpisodeChange.ESCALATED if standing.order < at.order else EpisodeChange.EASED


class StopOutPolicy(StrEnum):
    """Which position a stop-out closes next, and how much of it."""

    LARGEST_LOSS_FIRST = "largest_loss_first"
    MOST_MARGIN_FIRST = "most_margin_first"
    FIFO = "fifo"
    SMALLEST_PARTIAL_STEP = "smallest_partial_step"


@dataclass(frozen=True, slots=True)
class ExposedPosition:
    """An open position as a stop-out looks at it; amounts are in account currency, `unrealized_pnl` not rounded.

    `closable` says that its market trades now (or the platform trades always) and its quote is fresh, `covered` that
    the other side of its symbol covers it whole and for less margin.
    """

    position_id: UUID
    unrealized_pnl: Decimal
    margin_used: Decimal
    opened_at: datetime
    closable: bool
    covered: bool = False


def judged_level(worth: Worth, open_positions: int) -> Decimal | None:
    """The margin level by which an account is judged, in percent; None while it holds nothing that needs margin.

    What is covered whole may need none: then it is 0 once the equity is below zero.
    """
    if worth.margin_used or not open_positions or worth.equity >= 0:
        return worth.margin_level
    return Decimal(0)


def stop_out_due(kind: AccountKind, stop_out_level: Decimal, margin_level: Decimal | None) -> bool:
    """Whether positions are to be closed at `margin_level` (percent, None while no margin is used).

    At the stop-out level and below it, equity at or below zero included. A cash account borrows nothing and is never
    stopped out.
    """
    return kind == "margin" and margin_level is not None and margin_level <= stop_out_level


def first_to_close(positions: Iterable[ExposedPosition], policy: StopOutPolicy) -> ExposedPosition | None:
    """The one of `positions` that a stop-out closes next, of equal ones the oldest, what is covered behind the rest.

    Those that cannot be closed now are passed over; None where none can.
    """

    def place(position: ExposedPosition) -> Decimal:
        match policy:
            case StopOutPolicy.FIFO:
                return Decimal(0)
            case StopOutPolicy.MOST_MARGIN_FIRST:
                return -position.margin_used
            case StopOutPolicy.LARGEST_LOSS_FIRST | StopOutPolicy.SMALLEST_PARTIAL_STEP:
                return position.unrealized_pnl

    closable = (position for position in positions if position.closable)
    return min(closable, key=lambda p: (p.covered, place(p), p.opened_at, p.position_id), default=None)
