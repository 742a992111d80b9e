"""Invented prices for systems that have no market: a seeded random walk around each reference price."""

import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from trading.quotes.provider import FeedInstrument, Quote

SECONDS_A_DAY = 86_400
# A distance from the reference price halves in about four hours.
PULL_A_DAY = Decimal(4)
# From the mean absolute return to the standard deviation of a normal law: the square root of pi / 2.
DEVIATION_FROM_MEAN = Decimal("1.2533141")
# Mid prices are kept this much finer than the tick, so that small steps add up.
FINENESS = 10_000

SPREAD_SECONDS = 30
SPREAD_FACTORS = (Decimal("0.8"), Decimal("0.9"), Decimal(1), Decimal(1), Decimal("1.1"), Decimal("1.3"))

DRAW_BITS = 16
DRAWS = 4
DRAW_MASK = (1 << DRAW_BITS) - 1
# The sum of four even draws is close to normal; less its middle and over its deviation, it is a standard draw.
DRAW_MIDDLE = DRAWS * DRAW_MASK // 2
DRAW_DEVIATION = (Decimal((1 << 2 * DRAW_BITS) - 1) * DRAWS / 12).sqrt()
TWO = Decimal(2)


class SimulatedProvider:
    """Prices that move as the instruments' volatility says, on the tick, around a realistic spread.

    Given the same seed, starting prices and times, the quotes are the same. A forex cross follows its two pairs with
    USD, so that no circle of conversions gains. Goes on from the recorded quotes where there are any.
    """

    def __init__(self, instruments: Sequence[FeedInstrument], *, seed: int, quotes_per_second: int) -> None:
        self._instruments = {each.symbol: each for each in sorted(instruments, key=lambda each: each.symbol)}
        self._seed = seed
        self._rate = quotes_per_second
        step_days = Decimal(1) / (quotes_per_second * SECONDS_A_DAY)
        self._pull = PULL_A_DAY * step_days
        self._deviation = step_days.sqrt() * DEVIATION_FROM_MEAN
        self._mids = {each.symbol: _starting_mid(each) for each in self._instruments.values()}
        self._crosses = _crosses(self._instruments)
        self._spreads: dict[str, Decimal] = {}
        self._spreads_of: int | None = None

    @property
    def name(self) -> str:
        """The mark of invented prices."""
        return "simulated"

    def quotes(self, symbols: Sequence[str], now: datetime) -> list[Quote]:
        """One step of the walk; the new quotes of `symbols`, unknown ones left out."""
        step = int(now.timestamp() * self._rate)
        self._walk(step)
        self._renew_spreads(step // (SPREAD_SECONDS * self._rate))
        return [self._quote(self._instruments[symbol], now) for symbol in symbols if symbol in self._instruments]

    def set_by_hand(self, symbol: str, bid: Decimal, ask: Decimal) -> None:
        """Stand at these prices, so that the crosses agree and the walk goes on from here."""
        self._mids[symbol] = (bid + ask) / TWO

    def _walk(self, step: int) -> None:
        # One draw for each instrument there is, whatever was asked for, so that every walk is its own.
        draws = random.Random(f"{self._seed}:{step}")  # noqa: S311 - made to be repeatable, guards nothing
        for symbol, instrument in self._instruments.items():
            bits = draws.getrandbits(DRAW_BITS * DRAWS)
            if symbol not in self._crosses:
                self._mids[symbol] = self._moved(instrument, self._mids[symbol], _standard_draw(bits))
        for symbol, (base, quote) in self._crosses.items():
            self._mids[symbol] = self._in_usd(base) / self._in_usd(quote)

    def _moved(self, instrument: FeedInstrument, mid: Decimal, draw: Decimal) -> Decimal:
        pull = (instrument.reference_price - mid) * self._pull
        moved = mid + pull + mid * instrument.volatility * self._deviation * draw
        return moved.quantize(instrument.tick_size / FINENESS, ROUND_HALF_UP)

    def _in_usd(self, currency: str) -> Decimal:
        direct = self._mids.get(f"{currency}USD")
        return direct if direct is not None else 1 / self._mids[f"USD{currency}"]

    def _renew_spreads(self, period: int) -> None:
        # Now and then, not with each quote: a spread that flickers would look like a moving price.
        if period == self._spreads_of:
            return
        draws = random.Random(f"{self._seed}:spreads:{period}")  # noqa: S311
        for symbol, instrument in self._instruments.items():
            spread = _on_tick(instrument.reference_spread * draws.choice(SPREAD_FACTORS), instrument.tick_size)
            self._spreads[symbol] = max(spread, instrument.tick_size)
        self._spreads_of = period

    def _quote(self, instrument: FeedInstrument, now: datetime) -> Quote:
        tick = instrument.tick_size
        spread = self._spreads[instrument.symbol]
        bid = max(_on_tick(self._mids[instrument.symbol] - spread / TWO, tick), tick)
        return Quote(instrument.symbol, bid, bid + spread, now, self.name)


def _starting_mid(instrument: FeedInstrument) -> Decimal:
    if instrument.bid is None or instrument.ask is None:
        return instrument.reference_price
    return (instrument.bid + instrument.ask) / TWO


def _crosses(instruments: Mapping[str, FeedInstrument]) -> dict[str, tuple[str, str]]:
    """The forex pairs without USD whose two currencies are both quoted against it."""

    def quoted(currency: str) -> bool:
        return f"{currency}USD" in instruments or f"USD{currency}" in instruments

    pairs = {
        each.symbol: (each.base_currency, each.quote_currency)
        for each in instruments.values()
        if each.asset_class == "forex"
    }
    return {
        symbol: (base, quote)
        for symbol, (base, quote) in pairs.items()
        if "USD" not in (base, quote) and quoted(base) and quoted(quote)
    }


def _standard_draw(bits: int) -> Decimal:
    total = sum((bits >> (DRAW_BITS * place)) & DRAW_MASK for place in range(DRAWS))
    return (total - DRAW_MIDDLE) / DRAW_DEVIATION


def _on_tick(price: Decimal, tick: Decimal) -> Decimal:
    return (price / tick).quantize(Decimal(1), ROUND_HALF_UP) * tick
