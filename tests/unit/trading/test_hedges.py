"""What longs and shorts of one symbol need together."""

from decimal import Decimal

import pytest

from tests.kit.reference import worked_case
from trading.hedges import Sides
from trading.positions import PositionSide


def sides(percent: str, longs: tuple[str, str], shorts: tuple[str, str]) -> Sides:
    """(lots, margin) of either side."""
    return Sides(*map(Decimal, (percent, *longs, *shorts)))


NOTHING = ("0", "0")


@pytest.mark.parametrize(
    ("held", "credit"),
    [
        (sides("50", NOTHING, NOTHING), "0"),
        (sides("50", ("1", "1100.26"), NOTHING), "0"),
        (sides("50", ("1", "1100.26"), ("1", "1099.94")), "1100.10"),
        (sides("50", ("1", "1100.26"), ("0.4", "439.98")), "440.04"),
        (sides("50", ("0.4", "439.98"), ("1", "1100.26")), "440.04"),
        (sides("0", ("1", "1100.26"), ("1", "1099.94")), "2200.20"),
        (sides("100", ("1", "1100.26"), ("1", "1099.94")), "0"),
        # 0.005 is rounded up, once
        (sides("50", ("1", "0.01"), ("3", "0")), "0.01"),
    ],
)
def test_what_is_covered_needs_a_percent_of_both_sides(held: Sides, credit: str) -> None:
    assert held.credit("USD") == Decimal(credit)


def test_it_is_rounded_to_the_unit_of_its_currency() -> None:
    assert sides("50", ("1", "101"), ("1", "100")).credit("JPY") == 101


def test_the_worked_case() -> None:
    given, expected = worked_case("hedged-50")
    margins = [given[side] * given["contract"] / given["leverage"] for side in ("buy", "sell")]
    held = Sides(given["hedged_rate"] * 100, given["buy"], margins[0], given["sell"], margins[1])
    assert sum(margins) - held.credit("EUR") == expected["margin"]


@pytest.mark.parametrize(
    ("side", "more"),
    [
        ("long", sides("50", ("1.4", "1540.24"), ("2", "2199.88"))),
        ("short", sides("50", ("1", "1100.26"), ("2.4", "2639.86"))),
    ],
)
def test_more_and_less_of_a_side(side: PositionSide, more: Sides) -> None:
    held = sides("50", ("1", "1100.26"), ("2", "2199.88"))
    assert held.with_more(side, Decimal("0.4"), Decimal("439.98")) == more
    assert more.with_more(side, Decimal("-0.4"), Decimal("-439.98")) == held


def test_it_is_read_from_facts_by_their_names() -> None:
    fact = {
        "short_margin": "439.98",
        "short_quantity": "0.4",
        "long_margin": "1100.26",
        "long_quantity": "1",
        "percent": "25",
    }
    assert Sides.from_fact(fact) == sides("25", ("1", "1100.26"), ("0.4", "439.98"))


@pytest.mark.parametrize(("side", "lots"), [("long", "0.6"), ("short", "0")])
def test_what_is_not_covered(side: PositionSide, lots: str) -> None:
    assert sides("50", ("1", "1100.26"), ("0.4", "439.98")).uncovered(side) == Decimal(lots)
