"""Instruments: what is traded, in which lots and ticks, at which costs."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Literal

# The venue of what is executed here, by our own procedures.
INTERNAL = "internal"

type AssetClass = Literal["forex", "stock", "etf", "index", "commodity", "crypto", "bond"]


@dataclass(frozen=True, slots=True)
class Instrument:
    """One row of `instruments`.

    Quantities are in lots of `contract_size` units; `tick_size` and commissions are in `quote_currency`; slippage is
    in pips of `slippage_step`; `volatility_average` is a fraction of the price. Orders are executed at `venue`.
    `leverage_cap` is what the leverage profile of the account at hand allows here; None where nothing caps it.
    """

    symbol: str
    asset_class: AssetClass
    base_currency: str
    quote_currency: str
    contract_size: Decimal
    quantity_min: Decimal
    quantity_max: Decimal
    quantity_step: Decimal
    tick_size: Decimal
    leverage: Decimal
    slippage_base: Decimal
    slippage_min: Decimal
    slippage_max: Decimal
    slippage_volatility_multiplier: Decimal
    slippage_step: Decimal
    slippage_liquidity_base: Decimal
    slippage_after_hours_multiplier: Decimal
    slippage_variation: Decimal
    volatility_average: Decimal
    daily_volume: Decimal
    commission_per_unit: Decimal
    commission_min: Decimal
    commission_max: Decimal
    venue: str = INTERNAL
    leverage_cap: Decimal | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Instrument":
        """An instrument from a row that has at least its columns; numbers become Decimal."""
        texts = ("symbol", "asset_class", "base_currency", "quote_currency", "venue")
        cap = row.get("leverage_cap")
        values: dict[str, Any] = {
            field.name: row[field.name] if field.name in texts else Decimal(row[field.name])
            for field in fields(cls)
            if field.name != "leverage_cap"
        }
        return cls(**values, leverage_cap=None if cap is None else Decimal(cap))

    def takes_quantity(self, quantity: Decimal) -> bool:
        """Whether `quantity` lots are within the bounds and a multiple of the step."""
        return self.quantity_min <= quantity <= self.quantity_max and quantity % self.quantity_step == 0

    def takes_price(self, price: Decimal) -> bool:
        """Whether `price` lies on the tick."""
        return price > 0 and price % self.tick_size == 0
