"""What an order would come to now, computed by the formulas that book one; nothing is written."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from trading.accounts import Account, Worth
from trading.conversion import NoRateError, Rates
from trading.errors import TradingError, validation_failed
from trading.execution import Instruments, check_order
from trading.hedges import Sides
from trading.instruments import Instrument
from trading.margin import required_margin
from trading.order_entry import TIMED, TRAILING_TYPES, OrderEntry
from trading.orders import Side
from trading.positions import Position, PositionSide, margin_after_reducing, realized_pnl, unrealized_pnl
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
from trading.pricing import FillPrice, MarketPrice, depth, fill_price, round_to_tick
from trading.refusals import margin_refusal, slippage_refusal
from trading.trailing import Trail, price_of_trailing

# These wait for a better price, and the present one may be it.
TOUCHED_FROM_BEYOND = frozenset({"limit", "market_if_touched", "limit_if_touched"})


class ReadFacts(Protocol):
    """`preview_facts` on the database at hand."""

    def __call__(self, user_id: UUID, account_id: UUID | None, order: Mapping[str, object], /) -> dict[str, Any]:
        """The facts as the function documents them; NOT_FOUND, UNKNOWN_SYMBOL, CONFLICT, VALIDATION_FAILED."""
        ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What an order is judged and priced by, at one moment.

    `quantity` is what would be filled of the order: one that may only reduce is cut to what is held. `sides` is what a
    hedging account holds of the symbol, None without, and `lots_ahead` what orders in flight to its venue open on its
    side before it does. `worth` is None while something held has no quote at all,
    `margin_reserved` is kept for orders in flight to a venue.
    `stale_position` names a symbol held whose quote is too old, and `position_currencies` are those of what is held.
    """

    account_id: str
    account: Account
    worth: Worth | None
    margin_reserved: Decimal
    instrument: Instrument
    tier: str
    market: MarketPrice
    quoted_at: datetime
    market_open: bool
    position: Position | None
    sides: Sides | None
    lots_ahead: Decimal
    quantity: Decimal
    reduces: bool
    rates: Rates
    stale_position: str | None
    position_currencies: tuple[str, ...]
    refusal: TradingError | None
    limit_refusal: TradingError | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a fill would book, in account currency: what it closes of a position, and what it opens.

    `released` is the margin that the closing sets free, `margin` what the opening is booked with, and
    `hedged_margin_credit` what less the account has to hold because it covers something; `closing_change` and
    `opening_pnl` are what they add to the unrealized P&L.
    """

    commission: Decimal
    released: Decimal
    realized_pnl: Decimal
    closing_change: Decimal
    margin: Decimal
    hedged_margin_credit: Decimal
    opening_pnl: Decimal


@dataclass(frozen=True, slots=True)
class Preview:
    """What the order would come to: price and slippage in quote currency, the rest in account currency.

    `before` and `after` are None while something held has no quote. `refusal` is why it would be denied now.
    """

    facts: Facts
    fill: FillPrice
    cost: Cost
    before: Worth | None
    after: Worth | None
    refusal: TradingError | None


def preview_order(
    order: OrderEntry,
    user_id: UUID,
    *,
    instruments: Instruments,
    venues: Collection[str],
    read_facts: ReadFacts,
    replaces: UUID | None = None,
) -> Preview:
    """What `order` would come to if it were executed now; a resting order, if it were filled at its own price.

    The working order that it `replaces` does not count.

    A market order's price is the touched side of the quote with the modelled slippage in the middle of its random
    part, or without it where the order waits for a time or for conditions. Raises what `check_order` and `read_facts`
    do, and MARKET_DATA_UNAVAILABLE when a price that it takes is not fresh.
    """
    check_order(order, instruments, venues)
    replaced = {} if replaces is None else {"replaces_order_id": str(replaces)}
    return judge_order(order, read_facts_of(read_facts(user_id, order.account_id, _asked(order) | replaced)))


def judge_order(order: OrderEntry, facts: Facts) -> Preview:
    """What `order` would come to by what it is judged and priced by; raises as preview_order."""
    fill = _fill(order, facts)
    exits = {"stop_loss": order.stop_loss, "take_profit": order.take_profit}
    check_exits(order.side, exits, fill.price, reduces=facts.reduces)
    try:
        # Where the quote will stand when an order that waits is filled is not known.
        cost = _cost(order, fill, facts, marked=not order.waits)
        refusal = facts.refusal or slippage_refusal(fill.slippage, order.max_slippage)
        if not facts.reduces:
            refusal = refusal or facts.limit_refusal or _margin_refusal(cost, _sure_worth(facts), facts)
            refusal = refusal or _refusal_at_touch(order, facts)
    except NoRateError as error:
        raise no_fresh_price(error.target) from None
    return Preview(facts, fill, cost, facts.worth, _after(cost, facts.worth), refusal)


def read_facts_of(answer: Mapping[str, Any]) -> Facts:
    """The facts of a `preview_facts` answer; MARKET_DATA_UNAVAILABLE when the symbol's quote may not be traded on."""
    terms, account, worth, position = (answer[name] for name in ("terms", "account", "worth", "position"))
    if not answer["fresh"]:
        raise no_fresh_price(terms["symbol"])
    return Facts(
        account_id=account["id"],
        account=account_of(account),
        worth=worth_of(worth),
        margin_reserved=Decimal(answer["margin_reserved"]),
        instrument=Instrument.from_row(terms),
        tier=terms["account_tier"],
        market=market_price_of(terms),
        quoted_at=datetime.fromisoformat(terms["quoted_at"]),
        market_open=answer["market_open"],
        position=position and position_of(position),
        sides=answer["sides"] and Sides.from_fact(answer["sides"]),
        lots_ahead=Decimal(answer["lots_ahead"]),
        quantity=Decimal(answer["quantity"]),
        reduces=answer["reduces"],
        rates=rates_of(answer),
        stale_position=answer["stale_position"],
        position_currencies=tuple(answer["position_currencies"]),
        refusal=refusal_of(answer["refusal"]),
        limit_refusal=refusal_of(answer["limit_refusal"]),
    )


def _asked(order: OrderEntry) -> dict[str, object]:
    names = {
        "symbol",
        "order_type",
        "side",
        "quantity",
        "stop_price",
        "trail_amount",
        "trail_percent",
        "limit_offset",
        "limit_price",
        "stop_loss",
        "take_profit",
        "display_quantity",
        "display_variance",
        "post_only",
        "time_in_force",
        "expires_at",
        "reduce_only",
        "client_order_id",
        "parent_order_id",
        "max_slippage",
        "conditions",
    }
    return order.model_dump(mode="python", include=names, exclude_none=True)


def _fill(order: OrderEntry, facts: Facts) -> FillPrice:
    own_price = order.limit_price or order.stop_price
    if order.order_type in TRAILING_TYPES:
        trail = Trail(order.trail_amount, order.trail_percent)
        own_price = price_of_trailing(order.side, facts.market, trail, order.limit_offset, facts.instrument.tick_size)
    elif order.order_type == "market" and order.waits:
        touched = facts.market.ask if order.side == "buy" else facts.market.bid
        own_price = round_to_tick(touched, facts.instrument.tick_size)
    if own_price is not None:
        return FillPrice(own_price, Decimal(0))
    return fill_price(
        facts.instrument, facts.market, order.side, facts.quantity, seed=None, after_hours=not facts.market_open
    )


def check_exits(side: Side, exits: Mapping[str, Decimal | None], price: Decimal, *, reduces: bool) -> None:
    """stop_loss and take_profit lie on their own sides of the price; an order that only reduces takes none."""
    for field, exit_price in exits.items():
        if exit_price is None:
            continue
        below = (field == "stop_loss") == (side == "buy")
        if reduces:
            constraint = "left out of an order that reduces a position"
        elif below and exit_price >= price:
            constraint = f"below the price of this order, {price:f}"
        elif not below and exit_price <= price:
            constraint = f"above the price of this order, {price:f}"
        else:
            continue
        raise validation_failed(field, exit_price, constraint, f"Check {field}: it must be {constraint}.")


def _refusal_at_touch(order: OrderEntry, facts: Facts) -> TradingError | None:
    """Why an order that the quote of now fills as it is placed would be refused at that quote."""
    touched = facts.market.ask if order.side == "buy" else facts.market.bid
    waits_for = [price for price in (order.stop_price, order.limit_price) if price is not None]
    if (
        order.order_type not in TOUCHED_FROM_BEYOND
        or order.conditions is not None
        or order.time_in_force in TIMED
        or not facts.market_open
        or not all(touched <= price if order.side == "buy" else touched >= price for price in waits_for)
    ):
        return None
    filled = facts.quantity
    if order.limit_price is None:
        fill = fill_price(facts.instrument, facts.market, order.side, filled, seed=None, after_hours=False)
    else:
        fill = FillPrice(round_to_tick(touched, facts.instrument.tick_size), Decimal(0))
        filled = min(filled, depth(facts.instrument), order.display_quantity or filled)
    if order.time_in_force == "fok" and filled < facts.quantity:
        return None
    part = replace(facts, quantity=filled)
    return _margin_refusal(_cost(order, fill, part, marked=True), _sure_worth(facts), facts)


def _cost(order: OrderEntry, fill: FillPrice, facts: Facts, *, marked: bool) -> Cost:
    """Closes what it meets of an opposite position, and opens the rest: one of the two may be nothing.

    What is opened is `marked` at the quote of now, where that is the one that fills it.
    """
    position, account, rates = facts.position, facts.account, facts.rates
    side: PositionSide = "long" if order.side == "buy" else "short"
    closed = min(facts.quantity, position.quantity) if position and position.side != side else Decimal(0)
    released = realized = closing_change = margin = credit = opening_pnl = Decimal(0)
    if position and closed:
        part = Position(position.side, closed, position.entry_price, position.margin_used)
        released = position.margin_used - margin_after_reducing(position, closed, account.currency)
        realized = realized_pnl(position, closed, fill.price, facts.instrument, account.currency, rates)
        closing_change = -unrealized_pnl(part, facts.instrument, facts.market, account.currency, rates)
    opened = facts.quantity - closed
    if opened:
        margin = required_margin(account, facts.instrument, opened, fill.price, rates)
        if facts.sides:
            before = facts.sides.with_more(side, facts.lots_ahead, margin * facts.lots_ahead / opened)
            credit = before.with_more(side, opened, margin).credit(account.currency) - before.credit(account.currency)
        if marked:
            part = Position(side, opened, fill.price, margin)
            opening_pnl = unrealized_pnl(part, facts.instrument, facts.market, account.currency, rates)
    charged = charged_commission(facts.instrument, facts.quantity, facts.tier, account.currency, rates)
    return Cost(charged, released, realized, closing_change, margin, credit, opening_pnl)


def _sure_worth(facts: Facts) -> Worth:
    """The worth by which new exposure is judged: every price in it is fresh, or its market is closed."""
    if facts.stale_position is not None or facts.worth is None:
        raise no_fresh_price(facts.stale_position or facts.instrument.symbol)
    for currency in facts.position_currencies:
        facts.rates.convert(Decimal(1), currency, facts.account.currency)
    return facts.worth


def _margin_refusal(cost: Cost, worth: Worth, facts: Facts) -> TradingError | None:
    """What is opened is judged by what is free once the rest is closed."""
    return margin_refusal(
        facts.account,
        _after_closing(cost, worth),
        reserved=facts.margin_reserved,
        margin=cost.margin - cost.hedged_margin_credit,
        commission=cost.commission,
        opening_pnl=cost.opening_pnl,
    )


def _after_closing(cost: Cost, before: Worth) -> Worth:
    return Worth(
        before.balance + cost.realized_pnl,
        before.unrealized_pnl + cost.closing_change,
        before.margin_used - cost.released,
    )


def _after(cost: Cost, before: Worth | None) -> Worth | None:
    if before is None:
        return None
    closed = _after_closing(cost, before)
    return Worth(
        closed.balance - cost.commission,
        closed.unrealized_pnl + cost.opening_pnl,
        closed.margin_used + cost.margin - cost.hedged_margin_credit,
    )
