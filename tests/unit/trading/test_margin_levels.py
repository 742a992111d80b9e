"""Where an account stands among its margin levels; when a stop-out is due, and what it closes."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from trading.accounts import Worth
from trading.margin_levels import (
    EpisodeChange,
    ExposedPosition,
    LevelAction,
    MarginLevel,
    StopOutPolicy,
    episode_change,
    first_to_close,
    judged_level,
    standing_level,
    stop_out_due,
)

RELEASE = Decimal(105)
WARNING = MarginLevel.of("warning", LevelAction.WARN, Decimal(100), RELEASE)
CALL = MarginLevel.of("margin_call", LevelAction.CALL, Decimal(50), RELEASE)
STOP_OUT = MarginLevel.of("stop_out", LevelAction.STOP_OUT, Decimal(20), RELEASE)
LEVELS = (CALL, STOP_OUT, WARNING)


def test_terms_put_the_release_above_the_threshold() -> None:
    assert (CALL.threshold, CALL.release_level) == (50, Decimal("52.5"))


def test_a_release_below_the_threshold_is_refused() -> None:
    assert MarginLevel.of("margin_call", LevelAction.CALL, Decimal(50), Decimal(100)).release_level == 50
    with pytest.raises(ValueError, match="begin again"):
        MarginLevel.of("margin_call", LevelAction.CALL, Decimal(50), Decimal("99.99"))


@pytest.mark.parametrize(
    ("margin_level", "at", "standing", "change"),
    [
        ("100", None, None, None),
        ("99.9999999999999999", None, WARNING, EpisodeChange.ENTERED),
        ("50", None, WARNING, EpisodeChange.ENTERED),
        ("20.01", None, CALL, EpisodeChange.ENTERED),
        ("20", None, STOP_OUT, EpisodeChange.ENTERED),
        ("-340.5", None, STOP_OUT, EpisodeChange.ENTERED),
        ("104.99", WARNING, WARNING, None),
        ("105", WARNING, None, EpisodeChange.LEFT),
        ("50", WARNING, WARNING, None),
        ("49.99", WARNING, CALL, EpisodeChange.ESCALATED),
        ("12", WARNING, STOP_OUT, EpisodeChange.ESCALATED),
        ("52.49", CALL, CALL, None),
        ("52.5", CALL, WARNING, EpisodeChange.EASED),
        ("104.99", CALL, WARNING, EpisodeChange.EASED),
        ("105", CALL, None, EpisodeChange.LEFT),
        ("20.01", CALL, CALL, None),
        ("20.99", STOP_OUT, STOP_OUT, None),
        ("21", STOP_OUT, CALL, EpisodeChange.EASED),
        ("52.49", STOP_OUT, CALL, EpisodeChange.EASED),
        ("60", STOP_OUT, WARNING, EpisodeChange.EASED),
        ("1000", STOP_OUT, None, EpisodeChange.LEFT),
        (None, None, None, None),
        (None, CALL, None, EpisodeChange.LEFT),
    ],
)
def test_where_an_account_stands(
    margin_level: str | None, at: MarginLevel | None, standing: MarginLevel | None, change: EpisodeChange | None
) -> None:
    now = standing_level(LEVELS, None if margin_level is None else Decimal(margin_level), at)
    assert (now, episode_change(at, now)) == (standing, change)


def test_a_level_keeps_the_terms_by_which_it_began() -> None:
    # given a margin call of 50 percent, whose profile has changed to 40 since
    changed = (MarginLevel.of("margin_call", LevelAction.CALL, Decimal(40), RELEASE), STOP_OUT)
    # when / then
    assert standing_level(changed, Decimal("52.49"), CALL) == CALL
    assert standing_level(changed, Decimal("52.5"), CALL) is None
    assert standing_level(changed, Decimal(45)) is None
    # given one to 60 percent
    raised = (MarginLevel.of("margin_call", LevelAction.CALL, Decimal(60), RELEASE), STOP_OUT)
    # when / then
    assert standing_level(raised, Decimal(55), CALL) is None
    assert standing_level(raised, Decimal(55)) == raised[0]


def test_a_threshold_of_zero_still_calls_negative_equity() -> None:
    zero = (MarginLevel.of("margin_call", LevelAction.CALL, Decimal(0), RELEASE),)
    assert standing_level(zero, Decimal("-0.01")) == zero[0]
    assert standing_level(zero, Decimal(0)) is None


def test_of_two_levels_at_one_threshold_the_stop_out_is_worse() -> None:
    call = MarginLevel.of("margin_call", LevelAction.CALL, Decimal(20), RELEASE)
    assert standing_level((call, STOP_OUT), Decimal(19)) == STOP_OUT
    assert standing_level((call, STOP_OUT), Decimal(19), call) == STOP_OUT


@pytest.mark.parametrize(
    ("level", "due"), [("20.0000000000000001", False), ("20", True), ("19.99", True), ("0", True), ("-340.5", True)]
)
def test_a_stop_out_is_due_at_its_level_and_below(level: str, due: bool) -> None:
    assert stop_out_due("margin", Decimal(20), Decimal(level)) is due


def test_nothing_is_stopped_out_without_margin_or_on_cash() -> None:
    assert not stop_out_due("margin", Decimal(20), None)
    assert not stop_out_due("cash", Decimal(20), Decimal(-5))


@pytest.mark.parametrize(
    ("equity", "margin", "positions", "level"),
    [
        ("10", "40", 1, "25"),
        ("-10", "40", 1, "-25"),
        ("10", "0", 2, None),
        ("0", "0", 2, None),
        ("-0.01", "0", 2, "0"),
        ("-0.01", "0", 0, None),
    ],
)
def test_what_needs_no_margin_is_judged_by_its_equity(
    equity: str, margin: str, positions: int, level: str | None
) -> None:
    worth = Worth(Decimal(equity), Decimal(0), Decimal(margin))
    assert judged_level(worth, positions) == (None if level is None else Decimal(level))


def test_a_level_of_zero_stops_out_what_has_no_equity_left() -> None:
    assert stop_out_due("margin", Decimal(0), Decimal(0))
    assert not stop_out_due("margin", Decimal(0), Decimal("0.01"))


def exposed(number: int, pnl: str, margin: str = "10", *, minute: int = 0, **facts: bool) -> ExposedPosition:
    opened_at = datetime(2026, 11, 26, 12, minute, tzinfo=UTC)
    return ExposedPosition(UUID(int=number), Decimal(pnl), Decimal(margin), opened_at, **({"closable": True} | facts))


@pytest.mark.parametrize("policy", [StopOutPolicy.LARGEST_LOSS_FIRST, StopOutPolicy.SMALLEST_PARTIAL_STEP])
@pytest.mark.parametrize(
    ("positions", "first"),
    [
        ([exposed(1, "-5"), exposed(2, "-7.01"), exposed(3, "-7")], 2),
        ([exposed(1, "3"), exposed(2, "0.5")], 2),
        ([exposed(1, "-7", minute=2), exposed(2, "-7", minute=1)], 2),
        ([exposed(2, "-7"), exposed(1, "-7")], 1),
        ([exposed(1, "-9", closable=False), exposed(2, "-1")], 2),
        ([exposed(1, "-9", covered=True), exposed(2, "-1"), exposed(3, "-8", covered=True)], 2),
        ([exposed(1, "-8", covered=True), exposed(2, "-9", covered=True)], 2),
        ([exposed(1, "-9", covered=True), exposed(2, "-10", closable=False)], 1),
    ],
    ids=[
        "largest loss",
        "smallest gain",
        "oldest of equals",
        "first made of equals",
        "what can be closed",
        "what is not covered",
        "largest loss of what is covered",
        "what can be closed, though covered",
    ],
)
def test_the_largest_loss_goes_next(policy: StopOutPolicy, positions: list[ExposedPosition], first: int) -> None:
    chosen = first_to_close(positions, policy)
    assert chosen is not None
    assert chosen.position_id == UUID(int=first)


@pytest.mark.parametrize(
    ("policy", "first"),
    [
        (StopOutPolicy.LARGEST_LOSS_FIRST, 1),
        (StopOutPolicy.MOST_MARGIN_FIRST, 2),
        (StopOutPolicy.FIFO, 3),
        (StopOutPolicy.SMALLEST_PARTIAL_STEP, 1),
    ],
)
def test_each_policy_has_its_own_first(policy: StopOutPolicy, first: int) -> None:
    held = [exposed(1, "-9", "5", minute=2), exposed(2, "-1", "50", minute=1), exposed(3, "-2", "10")]
    chosen = first_to_close(held, policy)
    assert chosen is not None
    assert chosen.position_id == UUID(int=first)


@pytest.mark.parametrize("policy", StopOutPolicy)
def test_nothing_goes_where_nothing_can(policy: StopOutPolicy) -> None:
    assert first_to_close([], policy) is None
    assert first_to_close([exposed(1, "-9", closable=False)], policy) is None
