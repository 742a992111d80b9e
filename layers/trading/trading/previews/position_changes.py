"""Where a change of a position's levels would leave them, and what would be made there; nothing is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from trading.instruments import Instrument
from trading.positions import Position
from trading.previews.facts import rates_of, realized_if_known

type Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Level:
    """A price, on the tick, and what closing the whole there books before commission, in account currency.

    `realized_pnl` is at the present rate; None without a fresh one.
    """

    price: Decimal
    realized_pnl: Decimal | None


@dataclass(frozen=True, slots=True)
class Levels:
    """Where a position is to end; `trailing_distance` in price, None while its stop stands still."""

    stop_loss: Level | None
    take_profit: Level | None
    trailing_distance: Decimal | None


@dataclass(frozen=True, slots=True)
class ChangePreview:
    """A position and its levels before and after a change; `mark` is None without a quote."""

    account_id: str
    currency: str
    position_id: str
    symbol: str
    version: int
    position: Position
    mark: Decimal | None
    quoted_at: datetime | None
    before: Levels
    after: Levels


def preview_change(answer: Facts) -> ChangePreview:
    """The change by the facts of preview_position_change, which raised what would refuse it."""
    held, account, quoted_at = answer["position"], answer["account"], answer["quoted_at"]
    entry_price = Decimal(answer["entry_price"])
    position = Position(held["side"], Decimal(held["quantity"]), entry_price, Decimal(held["margin_used"]))
    instrument = Instrument.from_row(answer["terms"]) if answer["terms"] else None
    rates = rates_of(answer)

    def level(text: str | None) -> Level | None:
        if text is None:
            return None
        price = Decimal(text)
        # What is not traded now has no terms to count by.
        made = realized_if_known(position, price, instrument, account["currency"], rates) if instrument else None
        return Level(price, made)

    def levels(fact: Facts) -> Levels:
        trail = fact["trailing_distance"]
        return Levels(level(fact["stop_loss"]), level(fact["take_profit"]), trail and Decimal(trail))

    return ChangePreview(
        account["id"],
        account["currency"],
        answer["position_id"],
        answer["symbol"],
        answer["version"],
        position,
        answer["current_price"] and Decimal(answer["current_price"]),
        quoted_at and datetime.fromisoformat(quoted_at),
        levels(answer["before"]),
        levels(answer["after"]),
    )
