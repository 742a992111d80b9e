"""What orders that depend on each other would come to if they were placed now; nothing is written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from trading.accounts import Account, Worth
from trading.errors import TradingError
from trading.execution import Instruments
from trading.instruments import Instrument
from trading.linked_orders import LinkedEntry, asked_of, check_linked
from trading.positions import Position
from trading.previews.facts import account_of, rates_of, realized_if_known, refusal_of, worth_of
from trading.previews.orders import Preview, check_exits, judge_order, read_facts_of

type Facts = Mapping[str, Any]
type ReadGroup = Callable[[UUID, Mapping[str, object]], Facts]
type Judgement = Literal["accepted", "refused", "when_touched", "not_reached"]


@dataclass(frozen=True, slots=True)
class PreviewedOrder:
    """An order of a group: price and slippage in quote currency, the rest in account currency.

    `fact` has what was asked for. What would wait for its parent is judged `when_touched`, what stands behind a refused
    one, or at the market before it, `not_reached`; both have no commission and margin. `realized_pnl` is of the exits
    of a bracket, None without a fresh rate.
    """

    fact: Facts
    judgement: Judgement
    price: Decimal | None
    slippage: Decimal | None = None
    commission: Decimal | None = None
    margin: Decimal | None = None
    realized_pnl: Decimal | None = None


@dataclass(frozen=True, slots=True)
class GroupPreview:
    """What the group would come to, in account currency; `refusal` is why it would be denied now, as a whole.

    `margin` and `commission` are those of the parent, of two that cancel each other those of the one that takes more;
    they and `after` are None where it is refused before they are known, `before` and `after` also while something held
    has no quote.
    """

    account_id: str
    account: Account
    orders: Sequence[PreviewedOrder]
    margin: Decimal | None
    commission: Decimal | None
    before: Worth | None
    after: Worth | None
    refusal: TradingError | None


@dataclass(frozen=True, slots=True)
class _Cost:
    """What the fill of an order that works from the start takes."""

    slippage: Decimal
    commission: Decimal
    margin: Decimal


def preview_linked(
    entry: LinkedEntry, user_id: UUID, *, instruments: Instruments, read_group: ReadGroup
) -> GroupPreview:
    """How the group would be judged, by what judges its placement; a parent at the market as the preview of one is.

    `read_group` calls preview_group. Raises what placing the group raises.
    """
    check_linked(entry, instruments)
    answer = read_group(user_id, asked_of(entry))
    refusal = refusal_of(answer["refusal"])
    parent: Preview | None = None
    if answer["parent"] is not None:
        refusal = refusal_of(answer["parent"]["refusal"])
        if refusal is None:
            parent = _at_the_market(entry, answer["parent"])
            refusal = parent.refusal
    return _preview(answer, parent, refusal)


def _at_the_market(entry: LinkedEntry, facts: Facts) -> Preview:
    parent = judge_order(entry.orders[0], read_facts_of(facts))
    if parent.refusal is None and entry.stop_loss and entry.take_profit:
        exits = {"stop_loss": entry.stop_loss.stop_price, "take_profit": entry.take_profit.limit_price}
        check_exits(entry.orders[0].side, exits, parent.fill.price, reduces=False)
    return parent


def _preview(answer: Facts, parent: Preview | None, refusal: TradingError | None) -> GroupPreview:
    account, entry_price = account_of(answer["account"]), _entry_price(answer, parent)
    costs = [_cost_of_parent(parent)] if parent else [_cost(fill) for fill in answer["fills"]]
    refused = None if refusal is None else 0 if answer["parent"] else answer["judged"] - 1
    orders: list[PreviewedOrder] = []
    for place, fact in enumerate(answer["orders"]):
        judgement = _judgement(fact, place, refused)
        cost = costs[place] if place < len(costs) else None
        price = Decimal(fact["price"]) if place else entry_price
        if cost is not None:
            orders.append(PreviewedOrder(fact, judgement, price, cost.slippage, cost.commission, cost.margin))
        elif fact["contingency"] == "bracket_exit":
            made = _made_at(Decimal(fact["price"]), entry_price, answer, account)
            orders.append(PreviewedOrder(fact, judgement, price, realized_pnl=made))
        else:
            orders.append(PreviewedOrder(fact, judgement, price))
    taken = max((cost for cost in costs[refused:] if cost), key=lambda cost: cost.margin, default=None)
    before = worth_of(answer["worth"])
    return GroupPreview(
        answer["account"]["id"],
        account,
        orders,
        taken and taken.margin,
        taken and taken.commission,
        before,
        parent.after if parent else _after(before, taken),
        refusal,
    )


def _entry_price(answer: Facts, parent: Preview | None) -> Decimal | None:
    """That of the first order; None of one at the market that is refused before it is priced."""
    if parent is not None:
        return parent.fill.price.quantize(parent.facts.instrument.tick_size)
    price = answer["orders"][0]["price"]
    return price and Decimal(price)


def _judgement(fact: Facts, place: int, refused: int | None) -> Judgement:
    if place == refused:
        return "refused"
    # One at the market is judged last, when all that waits for it has passed.
    if refused is not None and (place > refused or fact["order_type"] == "market"):
        return "not_reached"
    return "accepted" if fact["contingency"] in ("oco", "oto_parent") else "when_touched"


def _cost_of_parent(parent: Preview) -> _Cost:
    return _Cost(parent.fill.slippage, parent.cost.commission, parent.cost.margin)


def _cost(fill: Facts | None) -> _Cost | None:
    """None of an order that is refused before it is priced. What only reduces takes no margin."""
    if fill is None or fill["commission"] is None:
        return None
    return _Cost(Decimal(0), Decimal(fill["commission"]), Decimal(fill["margin"] or 0))


def _after(before: Worth | None, taken: _Cost | None) -> Worth | None:
    """There is no quote of the moment to mark at what waits for its price."""
    if before is None or taken is None:
        return None
    return Worth(before.balance - taken.commission, before.unrealized_pnl, before.margin_used + taken.margin)


def _made_at(price: Decimal, entry_price: Decimal | None, answer: Facts, account: Account) -> Decimal | None:
    """What an exit of a bracket books, at the present rate, of what its entry opens; None where that is nothing."""
    opened = Decimal(answer["opens"])
    if entry_price is None or not opened:
        return None
    side = "long" if answer["orders"][0]["side"] == "buy" else "short"
    entered = Position(side, opened, entry_price, Decimal(0))
    return realized_if_known(entered, price, Instrument.from_row(answer["terms"]), account.currency, rates_of(answer))
