"""What closing positions would come to now, computed by the formulas that book it; nothing is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from trading.accounts import Account, Worth
from trading.conversion import NoRateError, Rates
from trading.errors import ErrorCode, TradingError
from trading.hedges import Sides
from trading.instruments import Instrument
from trading.positions import Position, margin_after_reducing, realized_pnl, unrealized_pnl
from trading.previews.facts import (
    account_of,
    charged_commission,
    market_price_of,
    no_fresh_price,
    position_of,
    rates_of,
    refusal_of,
    worth_of,
)
from trading.pricing import FillPrice, fill_price
from trading.refusals import slippage_refusal

type Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CloseOutcome:
    """What closing a position would book: price and slippage in quote currency, the rest in account currency.

    `released` is the margin that it sets free, `pnl_change` what it adds to the unrealized P&L; that is None while the
    symbol has no quote.
    """

    fill: FillPrice
    commission: Decimal
    realized_pnl: Decimal
    released: Decimal
    pnl_change: Decimal | None


@dataclass(frozen=True, slots=True)
class PreviewedClose:
    """One position, and what closing `quantity` lots of it would come to.

    `refusal` is why it would not be closed; `outcome` is None where that is known before there is a price.
    """

    position_id: str
    symbol: str
    position: Position
    quantity: Decimal
    quoted_at: datetime | None
    outcome: CloseOutcome | None
    refusal: TradingError | None


@dataclass(frozen=True, slots=True)
class ClosePreview:
    """What closing would come to; `left` of the positions meant would stay as they are.

    `before` and `after` are None while something held has no quote. The sums are of what is not refused. `sides` is
    what the account holds of each symbol that is closed.
    """

    account_id: str
    account: Account
    balance: Decimal
    before: Worth | None
    sides: Mapping[str, Sides]
    closes: Sequence[PreviewedClose]
    left: int

    @property
    def outcomes(self) -> list[CloseOutcome]:
        """Of those that would be closed."""
        return [outcome for _, outcome in self._closed]

    @property
    def _closed(self) -> list[tuple[PreviewedClose, CloseOutcome]]:
        return [(close, close.outcome) for close in self.closes if close.outcome is not None and close.refusal is None]

    @property
    def commission(self) -> Decimal:
        """What all of it costs."""
        return sum((outcome.commission for outcome in self.outcomes), Decimal(0))

    @property
    def realized_pnl(self) -> Decimal:
        """What all of it gains or loses, before commission."""
        return sum((outcome.realized_pnl for outcome in self.outcomes), Decimal(0))

    @property
    def released(self) -> Decimal:
        """The margin that all of it sets free; below zero where what covered something needs more alone."""
        return sum((outcome.released for outcome in self.outcomes), Decimal(0)) - self._credit_lost

    @property
    def _credit_lost(self) -> Decimal:
        left, currency = dict(self.sides), self.account.currency
        for close, outcome in self._closed:
            left[close.symbol] = left[close.symbol].with_more(close.position.side, -close.quantity, -outcome.released)
        return sum((self.sides[symbol].credit(currency) - left[symbol].credit(currency) for symbol in left), Decimal(0))

    @property
    def after(self) -> Worth | None:
        """The account once all of it is closed."""
        changes = [outcome.pnl_change for outcome in self.outcomes]
        if self.before is None or None in changes:
            return None
        return Worth(
            self.before.balance + self.realized_pnl - self.commission,
            self.before.unrealized_pnl + sum(change for change in changes if change is not None),
            self.before.margin_used - self.released,
        )


def preview_close(answer: Facts, max_slippage: Decimal | None = None) -> ClosePreview:
    """What one request to close a position would come to, by the facts of preview_close or preview_close_by.

    A market's price is the touched side of the quote with the modelled slippage in the middle of its random part.
    Raises MARKET_DATA_UNAVAILABLE when a price that it takes is not fresh.
    """
    preview = _preview(answer, max_slippage)
    for close in preview.closes:
        if close.refusal is not None and close.refusal.code is ErrorCode.MARKET_DATA_UNAVAILABLE:
            raise close.refusal
    return preview


def preview_many(answer: Facts) -> ClosePreview:
    """What closing many positions would come to, by the facts of preview_close_all; each is refused by itself."""
    return _preview(answer, None)


def _preview(answer: Facts, max_slippage: Decimal | None) -> ClosePreview:
    facts, worth = answer["account"], answer["worth"]
    account = account_of(facts)
    rates = rates_of(answer)
    closes = [_close(fact, place == 0, account, rates, max_slippage) for place, fact in enumerate(answer["closings"])]
    before = worth_of(worth)
    sides = {symbol: Sides.from_fact(fact) for symbol, fact in answer["sides"].items()}
    left = answer["matched"] - sum(close.refusal is None for close in closes)
    return ClosePreview(facts["id"], account, Decimal(worth["balance"]), before, sides, closes, left)


def _close(fact: Facts, first: bool, account: Account, rates: Rates, max_slippage: Decimal | None) -> PreviewedClose:
    terms, position, quantity = fact["terms"], position_of(fact["position"]), Decimal(fact["quantity"])
    outcome, refusal = None, refusal_of(fact["refusal"])
    if refusal is None:
        try:
            outcome = _outcome(fact, first, position, quantity, account, rates)
            refusal = slippage_refusal(outcome.fill.slippage, max_slippage)
        except NoRateError as error:
            refusal = no_fresh_price(error.target)
        except TradingError as error:
            refusal = error
    quoted_at = terms and terms["quoted_at"] and datetime.fromisoformat(terms["quoted_at"])
    return PreviewedClose(fact["position_id"], fact["symbol"], position, quantity, quoted_at, outcome, refusal)


def _outcome(
    fact: Facts, first: bool, position: Position, quantity: Decimal, account: Account, rates: Rates
) -> CloseOutcome:
    """At the market, or at the price that two positions agree on: there all is realized on the one named first."""
    if not fact["fresh"]:
        raise no_fresh_price(fact["symbol"])
    instrument, currency = Instrument.from_row(fact["terms"]), account.currency
    charged = realized = Decimal(0)
    if fact["price"] is not None:
        fill = FillPrice(Decimal(fact["price"]), Decimal(0))
    else:
        side = "sell" if position.side == "long" else "buy"
        market = market_price_of(fact["terms"])
        fill = fill_price(instrument, market, side, quantity, seed=None, after_hours=not fact["market_open"])
        charged = charged_commission(instrument, quantity, fact["terms"]["account_tier"], currency, rates)
    if fact["price"] is None or first:
        realized = realized_pnl(position, quantity, fill.price, instrument, currency, rates)
    return CloseOutcome(
        fill,
        charged,
        realized,
        position.margin_used - margin_after_reducing(position, quantity, currency),
        _pnl_change(fact["terms"], position, quantity, instrument, currency, rates),
    )


def _pnl_change(
    terms: Facts, position: Position, quantity: Decimal, instrument: Instrument, currency: str, rates: Rates
) -> Decimal | None:
    if terms["bid"] is None:
        return None
    part = Position(position.side, quantity, position.entry_price, position.margin_used)
    return -unrealized_pnl(part, instrument, market_price_of(terms), currency, rates)
