"""Hedges: what longs and shorts of one symbol need together, by the formula of `hedged_margin_credit`.

Booked figures are computed in SQL; these serve previews, and a property test holds the two equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, localcontext
from typing import Any

from trading.accounts import round_money
from trading.positions import PositionSide
from trading.pricing import EXACT


@dataclass(frozen=True, slots=True)
class Sides:
    """What an account holds of one symbol on either side: lots, and their margin as booked, in account currency.

    `percent` is the instrument's `hedged_margin_percent`: what of the margin of both sides is held where they cover
    each other.
    """

    percent: Decimal
    long_quantity: Decimal
    long_margin: Decimal
    short_quantity: Decimal
    short_margin: Decimal

    @classmethod
    def from_fact(cls, fact: Mapping[str, Any]) -> "Sides":
        """The sides in facts of the database; numbers become Decimal."""
        return cls(*(Decimal(fact[field.name]) for field in fields(cls)))

    def with_more(self, side: PositionSide, quantity: Decimal, margin: Decimal) -> "Sides":
        """With so many lots more on `side`, and their margin; less where they are below zero."""
        longs, shorts = (1, 0) if side == "long" else (0, 1)
        return Sides(
            self.percent,
            self.long_quantity + longs * quantity,
            self.long_margin + longs * margin,
            self.short_quantity + shorts * quantity,
            self.short_margin + shorts * margin,
        )

    def uncovered(self, side: PositionSide) -> Decimal:
        """What of the lots on `side` the other side does not cover."""
        more = self.long_quantity - self.short_quantity
        return max(Decimal(0), more if side == "long" else -more)

    def credit(self, currency: str) -> Decimal:
        """What of the booked margin the account need not hold, rounded once; 0 without lots on one side.

        (long margin x covered / long lots + short margin x covered / short lots) x (100 - percent) / 100, of which
        covered are the lots of the smaller side.
        """
        larger = max(self.long_quantity, self.short_quantity)
        if not larger:
            return Decimal(0)
        with localcontext(EXACT):
            both = self.long_margin * self.short_quantity + self.short_margin * self.long_quantity
            return round_money(both * (100 - self.percent) / (100 * larger), currency)
