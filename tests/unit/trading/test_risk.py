"""When a margin call begins and ends; when a stop-out is due, and what it closes."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from trading.risk import (
    ExposedPosition,
    MarginCall,
    MarginCallTerms,
    first_to_close,
    margin_call_due,
    stop_out_due,
)

TERMS = MarginCallTerms.of(Decimal(50), Decimal(105))


def test_terms_put_the_release_above_the_threshold() -> None:
    assert (TERMS.threshold, TERMS.release_level) == (50, Decimal("52.5"))


def test_a_release_below_the_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="begin again"):
        MarginCallTerms.of(Decimal(50), Decimal("99.99"))


@pytest.mark.parametrize(
    ("level", "due"),
    [
        ("50.01", None),
        ("50", None),
        ("49.9999999999999999", MarginCall.ENTERED),
        ("0", MarginCall.ENTERED),
        ("-12.5", MarginCall.ENTERED),
    ],
)
def test_a_call_begins_below_the_threshold(level: str, due: MarginCall | None) -> None:
    assert margin_call_due(TERMS, Decimal(level), is_open=False) == due


@pytest.mark.parametrize(
    ("level", "due"),
    [
        ("-12.5", None),
        ("50", None),
        ("52.4999999999999999", None),
        ("52.5", MarginCall.LEFT),
        ("1000", MarginCall.LEFT),
    ],
)
def test_a_call_ends_at_the_release_level(level: str, due: MarginCall | None) -> None:
    assert margin_call_due(TERMS, Decimal(level), is_open=True) == due


def test_without_margin_used_no_call_begins_and_an_open_one_ends() -> None:
    assert margin_call_due(TERMS, None, is_open=False) is None
    assert margin_call_due(TERMS, None, is_open=True) == MarginCall.LEFT


def test_a_threshold_of_zero_still_calls_negative_equity() -> None:
    terms = MarginCallTerms.of(Decimal(0), Decimal(105))
    assert margin_call_due(terms, Decimal("-0.01"), is_open=False) == MarginCall.ENTERED
    assert margin_call_due(terms, Decimal(0), is_open=False) is None


@pytest.mark.parametrize(
    ("level", "due"), [("20.0000000000000001", False), ("20", True), ("19.99", True), ("0", True), ("-340.5", True)]
)
def test_a_stop_out_is_due_at_its_level_and_below(level: str, due: bool) -> None:
    assert stop_out_due("margin", Decimal(20), Decimal(level)) is due


def test_nothing_is_stopped_out_without_margin_or_on_cash() -> None:
    assert not stop_out_due("margin", Decimal(20), None)
    assert not stop_out_due("cash", Decimal(20), Decimal(-5))


def test_a_level_of_zero_stops_out_what_has_no_equity_left() -> None:
    assert stop_out_due("margin", Decimal(0), Decimal(0))
    assert not stop_out_due("margin", Decimal(0), Decimal("0.01"))


def exposed(number: int, pnl: str, *, minute: int = 0, closable: bool = True) -> ExposedPosition:
    return ExposedPosition(UUID(int=number), Decimal(pnl), datetime(2026, 11, 26, 12, minute, tzinfo=UTC), closable)


@pytest.mark.parametrize(
    ("positions", "first"),
    [
        ([exposed(1, "-5"), exposed(2, "-7.01"), exposed(3, "-7")], 2),
        ([exposed(1, "3"), exposed(2, "0.5")], 2),
        ([exposed(1, "-7", minute=2), exposed(2, "-7", minute=1)], 2),
        ([exposed(2, "-7"), exposed(1, "-7")], 1),
        ([exposed(1, "-9", closable=False), exposed(2, "-1")], 2),
    ],
    ids=["largest loss", "smallest gain", "oldest of equals", "first made of equals", "what can be closed"],
)
def test_what_a_stop_out_closes_next(positions: list[ExposedPosition], first: int) -> None:
    chosen = first_to_close(positions)
    assert chosen is not None
    assert chosen.position_id == UUID(int=first)


def test_nothing_goes_where_nothing_can() -> None:
    assert first_to_close([]) is None
    assert first_to_close([exposed(1, "-9", closable=False)]) is None
