"""Instruments and quotes for tests of the formulas."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

from trading.conversion import Rates
from trading.instruments import Instrument
from trading.pricing import MarketPrice

EURUSD = Instrument(
    symbol="EURUSD",
    asset_class="forex",
    base_currency="EUR",
    quote_currency="USD",
    contract_size=Decimal(100_000),
    quantity_min=Decimal("0.01"),
    quantity_max=Decimal(1000),
    quantity_step=Decimal("0.01"),
    tick_size=Decimal("0.00001"),
    leverage=Decimal(500),
    slippage_base=Decimal("0.2"),
    slippage_min=Decimal(0),
    slippage_max=Decimal("0.6"),
    slippage_volatility_multiplier=Decimal(3),
    slippage_step=Decimal("0.0001"),
    slippage_liquidity_base=Decimal(10),
    slippage_after_hours_multiplier=Decimal(2),
    slippage_variation=Decimal(0),
    volatility_average=Decimal("0.004"),
    daily_volume=Decimal(2_500_000),
    commission_per_unit=Decimal(0),
    commission_min=Decimal(0),
    commission_max=Decimal(0),
)
AAPL = replace(
    EURUSD,
    symbol="AAPL",
    asset_class="stock",
    base_currency="AAPL",
    contract_size=Decimal(1),
    quantity_min=Decimal("0.1"),
    quantity_max=Decimal(100_000),
    quantity_step=Decimal("0.1"),
    tick_size=Decimal("0.01"),
    leverage=Decimal(20),
    slippage_base=Decimal("0.05"),
    slippage_min=Decimal("0.03"),
    slippage_max=Decimal("0.15"),
    slippage_volatility_multiplier=Decimal(2),
    slippage_step=Decimal("0.01"),
    volatility_average=Decimal("0.012"),
    daily_volume=Decimal(50_000_000),
    commission_per_unit=Decimal("0.02"),
    commission_min=Decimal(1),
    commission_max=Decimal(50),
)


def instrument(of: Instrument = EURUSD, **facts: Any) -> Instrument:
    """`of` with other facts; text becomes a number where one is kept."""
    texts = ("symbol", "asset_class", "base_currency", "quote_currency", "venue")
    return replace(of, **{name: fact if name in texts else Decimal(fact) for name, fact in facts.items()})


def forex(pair: str, **facts: Any) -> Instrument:
    """A currency pair in lots of 100,000."""
    return instrument(symbol=pair, base_currency=pair[:3], quote_currency=pair[3:], **facts)


def price(bid: str, ask: str | None = None, volatility: str = "0.004") -> MarketPrice:
    """A quote; `ask` is the bid unless given."""
    return MarketPrice(Decimal(bid), Decimal(ask or bid), Decimal(volatility))


def rates(**quotes: tuple[str, str] | str) -> Rates:
    """Rates by symbol, two-sided or one for both."""
    return Rates({symbol: price(*([sides] if isinstance(sides, str) else sides)) for symbol, sides in quotes.items()})
