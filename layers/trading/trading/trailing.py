"""Stops that trail the market: the formulas of the procedures' `level_of_mark`, for previews.

The booked level is computed in SQL; a property test holds the two equal.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

from trading.orders import Side
from trading.pricing import EXACT, MarketPrice

HUNDRED = Decimal(100)


@dataclass(frozen=True, slots=True)
class Trail:
    """How far a stop stays behind its mark: `amount` in price, or `percent` of the mark; one of the two."""

    amount: Decimal | None
    percent: Decimal | None


def trailing_level(side: Side, mark: Decimal, trail: Trail, tick_size: Decimal) -> Decimal:
    """The price that triggers an order of `side` at `mark`, on the tick; between two the farther from the mark."""
    with localcontext(EXACT):
        distance = trail.amount if trail.percent is None else mark * trail.percent / HUNDRED
        assert distance is not None
        level = mark - distance if side == "sell" else mark + distance
        return (level / tick_size).to_integral_value(ROUND_FLOOR if side == "sell" else ROUND_CEILING) * tick_size


def price_of_trailing(
    side: Side, market: MarketPrice, trail: Trail, limit_offset: Decimal | None, tick_size: Decimal
) -> Decimal:
    """What a new trailing order is judged at: its limit, or its level where it has none, as the market stands."""
    level = trailing_level(side, market.bid if side == "sell" else market.ask, trail, tick_size)
    offset = limit_offset or Decimal(0)
    return level - offset if side == "sell" else level + offset
