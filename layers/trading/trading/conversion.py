"""Amounts of one currency in another, at two-sided rates."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext

from trading.pricing import EXACT, MarketPrice

CROSS_CURRENCY = "USD"


class NoRateError(LookupError):
    """Neither a pair nor a cross through USD is quoted."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Quotes by symbol, such as EURUSD."""

    quotes: Mapping[str, MarketPrice]

    def rate(self, source: str, target: str, *, positive: bool) -> Decimal:
        """What one unit of `source` is in `target`: a positive amount takes the bid, a negative one the ask.

        Directly, or by one cross through USD; raises NoRateError.
        """
        if source == target:
            return Decimal(1)
        direct = self._pair(source, target, positive=positive)
        if direct is not None:
            return direct
        first = self._pair(source, CROSS_CURRENCY, positive=positive)
        second = self._pair(CROSS_CURRENCY, target, positive=positive)
        if first is None or second is None:
            raise NoRateError(f"no rate from {source} to {target}")
        with localcontext(EXACT):
            return first * second

    def _pair(self, source: str, target: str, *, positive: bool) -> Decimal | None:
        if (quote := self.quotes.get(source + target)) is not None:
            return quote.bid if positive else quote.ask
        if (quote := self.quotes.get(target + source)) is not None:
            with localcontext(EXACT):
                return 1 / (quote.ask if positive else quote.bid)
        return None
