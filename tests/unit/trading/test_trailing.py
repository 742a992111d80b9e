"""Where a stop stands that trails the market, by hand."""

from decimal import Decimal

import pytest

from tests.kit.instruments import price
from trading.orders import Side
from trading.trailing import Trail, price_of_trailing, trailing_level

TICK = Decimal("0.25")
QUOTE = price("100.00", "100.50")


def by_amount(amount: str) -> Trail:
    return Trail(Decimal(amount), None)


def by_percent(percent: str) -> Trail:
    return Trail(None, Decimal(percent))


@pytest.mark.parametrize(
    ("side", "trail", "level"),
    [
        ("sell", by_amount("2.5"), "97.5"),
        ("buy", by_amount("2.5"), "102.5"),
        # between two ticks the farther from the mark: 97.6, 102.4
        ("sell", by_amount("2.4"), "97.5"),
        ("buy", by_amount("2.4"), "102.5"),
        ("sell", by_percent("3"), "97"),
        ("buy", by_percent("3"), "103"),
        ("sell", by_percent("50"), "50"),
        ("sell", by_percent("0.1"), "99.75"),
        ("buy", by_percent("0.1"), "100.25"),
    ],
)
def test_it_stays_behind_its_mark_on_the_tick(side: Side, trail: Trail, level: str) -> None:
    assert trailing_level(side, Decimal(100), trail, TICK) == Decimal(level)


@pytest.mark.parametrize(
    ("side", "offset", "judged_at"),
    [
        ("sell", None, "98"),  # of the bid
        ("buy", None, "102.5"),  # of the ask
        ("sell", "0.5", "97.5"),
        ("buy", "0.5", "103"),
        ("sell", "0", "98"),
    ],
)
def test_a_new_one_is_judged_at_its_limit_or_at_its_level(side: Side, offset: str | None, judged_at: str) -> None:
    limit_offset = None if offset is None else Decimal(offset)
    assert price_of_trailing(side, QUOTE, by_amount("2"), limit_offset, TICK) == Decimal(judged_at)
