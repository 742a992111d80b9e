"""What a market order fills at and what it costs: the formulas that the procedure `price_order` books by.

Booked figures are computed in SQL; these serve previews and messages, and a property test holds the two equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal, localcontext
from hashlib import sha256

from trading.instruments import Instrument
from trading.orders import Side

# Wide enough that no product of ours is ever cut: PostgreSQL's numeric multiplies exactly.
EXACT = Context(prec=80, rounding=ROUND_HALF_UP)
FACTOR_PLACES = Decimal("0.000001")
DRAWS = 2**32
SECONDS_OF_A_DAY = 86400
MIDDLE_DRAW = Decimal("0.5")

COMMISSION_FACTOR_BY_TIER: Mapping[str, Decimal] = {
    "bronze": Decimal("1.0"),
    "silver": Decimal("0.9"),
    "gold": Decimal("0.8"),
    "platinum": Decimal("0.7"),
}


@dataclass(frozen=True, slots=True)
class MarketPrice:
    """A two-sided price with the present volatility, as a fraction of the price."""

    bid: Decimal
    ask: Decimal
    volatility: Decimal


@dataclass(frozen=True, slots=True)
class FillPrice:
    """What a market order fills at; `slippage` is the distance from the touched side, both in quote currency."""

    price: Decimal
    slippage: Decimal


def slippage_draw(seed: str) -> Decimal:
    """A draw in [0, 1] with six places, the same for the same seed: the first 32 bits of its SHA-256."""
    drawn = int.from_bytes(sha256(seed.encode()).digest()[:4])
    return _factor(Decimal(drawn) / DRAWS)


def fill_price(
    instrument: Instrument, market: MarketPrice, side: Side, quantity: Decimal, *, seed: str | None, after_hours: bool
) -> FillPrice:
    """The price of `quantity` lots at market, on the tick; without a seed as if the middle had been drawn.

    Slippage in pips = base x volatility factor x size factor x after-hours factor x variation by the seeded draw, at
    least the instrument's minimum, at most twice its maximum; a pip is worth `slippage_step`.
    """
    draw = MIDDLE_DRAW if seed is None else slippage_draw(seed)
    with localcontext(EXACT):
        pips = (
            instrument.slippage_base
            * _volatility_factor(instrument, market.volatility)
            * _size_factor(instrument, quantity)
            * (instrument.slippage_after_hours_multiplier if after_hours else 1)
            * (1 + instrument.slippage_variation * (2 * draw - 1))
        )
        pips = min(max(pips, instrument.slippage_min), 2 * instrument.slippage_max)
        touched = market.ask if side == "buy" else market.bid
        distance = pips * instrument.slippage_step
        price = round_to_tick(touched + distance if side == "buy" else touched - distance, instrument.tick_size)
        price = max(price, instrument.tick_size)
        return FillPrice(price, abs(price - touched))


def depth(instrument: Instrument) -> Decimal:
    """How many lots one quote gives an order with a limit: what is traded in a second of an average day."""
    with localcontext(EXACT):
        steps = instrument.daily_volume / SECONDS_OF_A_DAY / instrument.quantity_step
        return max(instrument.quantity_min, steps.to_integral_value(ROUND_FLOOR) * instrument.quantity_step)


def commission(instrument: Instrument, quantity: Decimal, tier: str) -> Decimal:
    """The commission of one fill in quote currency, not rounded: per unit, times the tier's factor, in its bounds."""
    if instrument.commission_per_unit == 0:
        return Decimal(0)
    factor = COMMISSION_FACTOR_BY_TIER[tier]
    wanted = instrument.commission_per_unit * quantity * factor
    return min(instrument.commission_max, max(instrument.commission_min, wanted))


def round_to_tick(price: Decimal, tick: Decimal) -> Decimal:
    """`price` rounded half-up to a multiple of `tick`."""
    with localcontext(EXACT):
        return (price / tick).quantize(Decimal(1), ROUND_HALF_UP) * tick


def _volatility_factor(instrument: Instrument, volatility: Decimal) -> Decimal:
    ratio = volatility * instrument.slippage_volatility_multiplier / instrument.volatility_average
    return max(Decimal(1), _factor(ratio))


def _size_factor(instrument: Instrument, quantity: Decimal) -> Decimal:
    """(size in percent of the daily volume / liquidity base) to the power of 1.5, at least 1."""
    ratio = _factor(quantity * 100 / (instrument.daily_volume * instrument.slippage_liquidity_base))
    return max(Decimal(1), _factor((ratio * ratio * ratio).sqrt()))


def _factor(value: Decimal) -> Decimal:
    return value.quantize(FACTOR_PLACES, ROUND_HALF_UP)
