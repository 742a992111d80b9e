"""Amounts of one currency in another, at two-sided rates."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext

from trading.pricing import EXACT, MarketPrice

CROSS_CURRENCY = "USD"


class NoRateError(LookupError):
    """Neither a pair nor a cross through USD is quoted."""

    def __init__(self, source: str, target: str) -> None:
        super().__init__(f"no rate from {source} to {target}")
        self.target = target


@dataclass(frozen=True, slots=True)
class Rates:
    """Quotes by symbol, such as EURUSD."""

    quotes: Mapping[str, MarketPrice]

    def convert(self, amount: Decimal, source: str, target: str) -> Decimal:
        """`amount` of `source` in `target`, not rounded: a positive amount takes the bid, a negative one the ask.

        Directly, or by one cross through USD; raises NoRateError. A quote of the other way round divides, because its
        reciprocal need not end and would lose a tie.
        """
        multiplier, divisor = self._fraction(source, target, positive=amount > 0)
        with localcontext(EXACT):
            return amount * multiplier / divisor

    def _fraction(self, source: str, target: str, *, positive: bool) -> tuple[Decimal, Decimal]:
        if source == target:
            return Decimal(1), Decimal(1)
        direct = self._pair(source, target, positive=positive)
        if direct is not None:
            return direct
        first = self._pair(source, CROSS_CURRENCY, positive=positive)
        second = self._pair(CROSS_CURRENCY, target, positive=positive)
        if first is None or second is None:
            raise NoRateError(source, target)
        with localcontext(EXACT):
            return first[0] * second[0], first[1] * second[1]

    def _pair(self, source: str, target: str, *, positive: bool) -> tuple[Decimal, Decimal] | None:
        if (quote := self.quotes.get(source + target)) is not None:
            return (quote.bid if positive else quote.ask), Decimal(1)
        if (quote := self.quotes.get(target + source)) is not None:
            return Decimal(1), (quote.ask if positive else quote.bid)
        return None
