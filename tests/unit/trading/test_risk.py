"""When a margin call begins and ends."""

from decimal import Decimal

import pytest

from trading.risk import MarginCall, MarginCallTerms, margin_call_due

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
