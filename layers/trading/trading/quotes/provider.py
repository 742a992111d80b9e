"""What a source of prices is, and what it gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Quote:
    """The two sides of a symbol at `time` (aware), in the quote currency, as `source` gave them."""

    symbol: str
    bid: Decimal
    ask: Decimal
    time: datetime
    source: str


@dataclass(frozen=True, slots=True)
class FeedInstrument:
    """What a feed knows of an instrument.

    `volatility` is the mean absolute return of a day; `age_ms_max` the age at which a quote is stale; `bid` and `ask`
    are the newest recorded ones, None before the first.
    """

    symbol: str
    asset_class: str
    base_currency: str
    quote_currency: str
    tick_size: Decimal
    reference_price: Decimal
    reference_spread: Decimal
    volatility: Decimal
    age_ms_max: int
    bid: Decimal | None = None
    ask: Decimal | None = None


class QuoteProvider(Protocol):
    """A source of prices."""

    @property
    def name(self) -> str:
        """What the quotes of this source are marked with."""
        ...

    def quotes(self, symbols: Sequence[str], now: datetime) -> list[Quote]:
        """The newest quote of each of `symbols` that this source has; `now` is the aware time of asking."""
        ...

    def set_by_hand(self, symbol: str, bid: Decimal, ask: Decimal) -> None:
        """An operator holds `symbol` at these prices for now; a source that models prices goes on from them."""
        ...
