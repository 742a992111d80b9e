"""Previews in the words of /api/v1: from a body to an OrderEntry, from what it would come to to an answer."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from pydantic import ValidationError

from trading.accounts import Worth, round_money
from trading.edge.change_dialects import change_of, changed_members
from trading.edge.dialects import order_state, spoken
from trading.edge.envelope import error_facts, timestamp
from trading.edge.http import Request
from trading.edge.order_dialects import order_entry
from trading.edge.order_faults import first_fault
from trading.edge.reading_dialects import parse_id
from trading.errors import validation_failed
from trading.json_text import shortest
from trading.order_entry import OrderEntry
from trading.previews.cancellations import CancelPreview, EndingOrder
from trading.previews.closes import ClosePreview, PreviewedClose
from trading.previews.groups import GroupPreview, PreviewedOrder
from trading.previews.orders import Preview
from trading.previews.position_changes import ChangePreview, Level, Levels
from trading.refusals import level_text
from trading.replacement import OrderChange

REPLACED = "replaces_order_id"


def preview_entry(request: Request, body: Mapping[str, Any]) -> OrderEntry:
    """The order that `body` asks about; it has no key, because nothing is kept that a repeat could repeat."""
    refuse_key(body)
    return order_entry(request, body, "rest")


def replacement_preview(body: Mapping[str, Any]) -> tuple[UUID, OrderChange]:
    """Which order `body` asks about, and what would change of it; VALIDATION_FAILED names what does not fit."""
    refuse_key(body)
    order_id = body[REPLACED]
    given = changed_members(body)
    given.pop(REPLACED, None)
    return parse_id(order_id if isinstance(order_id, str) else "", REPLACED), change_of(OrderChange, given, body)


def order_of(terms: Mapping[str, Any]) -> OrderEntry:
    """The order that would take the place of another one, by its terms; VALIDATION_FAILED names what does not fit."""
    given = {name: terms[name] for name in terms if name in OrderEntry.model_fields}
    try:
        return OrderEntry.model_validate(given | _still_awaited(terms) | {"idempotency_key": str(uuid4())})
    except ValidationError as error:
        raise first_fault(error, terms) from None


def _still_awaited(terms: Mapping[str, Any]) -> dict[str, object]:
    """The conditions of `terms` that are not met; without any left a market order has those that were."""
    conditions: Sequence[Mapping[str, Any]] = terms.get("conditions") or ()
    awaited = [each for each in conditions if not each.get("met_at")]
    left = awaited or (conditions if terms["order_type"] == "market" else ())
    return {"conditions": [{name: each[name] for name in each if name != "met_at"} for each in left] or None}


def refuse_key(body: Mapping[str, Any]) -> None:
    """VALIDATION_FAILED for a preview that names a key."""
    if body.get("idempotency_key") is not None:
        raise validation_failed(
            "idempotency_key",
            body["idempotency_key"],
            "left out",
            "Leave idempotency_key out: a preview changes nothing, and may be asked for as often as you like.",
        )


def preview_body(order: OrderEntry, preview: Preview) -> dict[str, object]:
    """The answer to `order`; amounts are decimal strings, prices on the tick, money in the account's currency."""
    facts, cost = preview.facts, preview.cost
    currency = facts.account.currency
    return {
        "account_id": facts.account_id,
        "symbol": order.symbol,
        "order_type": spoken("rest", order.order_type),
        "side": spoken("rest", order.side),
        "quantity": shortest(order.quantity),
        "filled_quantity": shortest(facts.quantity),
        "currency": currency,
        "price": f"{preview.fill.price.quantize(facts.instrument.tick_size):f}",
        "slippage": shortest(preview.fill.slippage),
        "commission": _money(cost.commission, currency),
        "margin": _money(cost.margin, currency),
        "hedged_margin_credit": _money(cost.hedged_margin_credit, currency),
        "margin_released": _money(cost.released, currency),
        "total_cost": _money(cost.margin + cost.commission, currency),
        "reduces_position": facts.reduces,
        "realized_pnl": _money(cost.realized_pnl, currency),
        **_margin_members(preview.before, preview.after, currency),
        "accepted": preview.refusal is None,
        "refusal": preview.refusal and error_facts(preview.refusal),
        "quoted_at": timestamp(facts.quoted_at),
    }


def closes_body(preview: ClosePreview) -> dict[str, object]:
    """What closing would come to, position by position and altogether, in the forms of `preview_body`."""
    currency = preview.account.currency
    return {
        "account_id": preview.account_id,
        "currency": currency,
        "data": [_close(close, currency) for close in preview.closes],
        "left": preview.left,
        "commission": _money(preview.commission, currency),
        "realized_pnl": _money(preview.realized_pnl, currency),
        "margin_released": _money(preview.released, currency),
        "balance_before": _money(preview.balance, currency),
        "balance_after": _money(preview.balance + preview.realized_pnl - preview.commission, currency),
        **_margin_members(preview.before, preview.after, currency),
    }


def group_preview_body(preview: GroupPreview) -> dict[str, object]:
    """Each order of a group, the parent first, of a bracket then the stop loss, and what the group would come to."""
    currency = preview.account.currency
    return {
        "account_id": preview.account_id,
        "currency": currency,
        "orders": [_of_group(order, currency) for order in preview.orders],
        "margin": _money_if_any(preview.margin, currency),
        "commission": _money_if_any(preview.commission, currency),
        **_margin_members(preview.before, preview.after, currency),
        "accepted": preview.refusal is None,
        "refusal": preview.refusal and error_facts(preview.refusal),
    }


def _of_group(order: PreviewedOrder, currency: str) -> dict[str, object]:
    fact = order.fact
    return {
        "symbol": fact["symbol"],
        "order_type": spoken("rest", fact["order_type"]),
        "side": spoken("rest", fact["side"]),
        "contingency": spoken("rest", fact["contingency"]),
        "quantity": shortest(Decimal(fact["quantity"])),
        "price": _price(order.price),
        "slippage": None if order.slippage is None else shortest(order.slippage),
        "commission": _money_if_any(order.commission, currency),
        "margin": _money_if_any(order.margin, currency),
        "realized_pnl": _money_if_any(order.realized_pnl, currency),
        "judgement": spoken("rest", order.judgement),
    }


def cancel_preview_body(preview: CancelPreview) -> dict[str, object]:
    """The orders that would end, oldest first, and what would become of those that are linked with them."""
    currency = preview.account.currency
    return {
        "account_id": preview.account_id,
        "currency": currency,
        "data": [_ending(order, currency) for order in preview.canceled],
        "linked": [_linked(order, currency) for order in preview.linked],
        "left": preview.left,
        "in_flight": preview.in_flight,
        "working_orders_before": preview.working,
        "working_orders_after": preview.working_after,
    }


def _ending(order: EndingOrder, currency: str) -> dict[str, object]:
    fact = order.fact
    return {
        "order_id": fact["order_id"],
        "symbol": fact["symbol"],
        "order_type": spoken("rest", fact["order_type"]),
        "side": spoken("rest", fact["side"]),
        "contingency": fact["contingency"] and spoken("rest", fact["contingency"]),
        "quantity": shortest(Decimal(fact["quantity"])),
        "filled_quantity": shortest(Decimal(fact["filled_quantity"])),
        "leaves_quantity": shortest(order.leaves),
        "price": fact["price"],
        "margin": _money_if_any(order.margin, currency),
    }


def _linked(order: EndingOrder, currency: str) -> dict[str, object]:
    stays = "UNCHANGED" if order.leaves_after == order.leaves else "REDUCED"
    return _ending(order, currency) | {
        "outcome": stays if order.leaves_after else order_state("rest", "canceled"),
        "leaves_quantity_after": shortest(order.leaves_after),
    }


def change_preview_body(preview: ChangePreview) -> dict[str, object]:
    """The levels of a position before and after a change, and what would be made at each."""
    return {
        "account_id": preview.account_id,
        "position_id": preview.position_id,
        "symbol": preview.symbol,
        "side": spoken("rest", preview.position.side),
        "quantity": shortest(preview.position.quantity),
        "entry_price": _price(preview.position.entry_price),
        "current_price": _price(preview.mark),
        "currency": preview.currency,
        "version": preview.version,
        "before": _levels(preview.before, preview.currency),
        "after": _levels(preview.after, preview.currency),
        "quoted_at": preview.quoted_at and timestamp(preview.quoted_at),
    }


def _levels(levels: Levels, currency: str) -> dict[str, object]:
    return {
        "stop_loss": levels.stop_loss and _level(levels.stop_loss, currency),
        "take_profit": levels.take_profit and _level(levels.take_profit, currency),
        "trailing_distance": _price(levels.trailing_distance),
    }


def _level(level: Level, currency: str) -> dict[str, object]:
    return {"price": _price(level.price), "realized_pnl": _money_if_any(level.realized_pnl, currency)}


def _price(price: Decimal | None) -> str | None:
    """With the places that it has."""
    return None if price is None else f"{price:f}"


def _close(close: PreviewedClose, currency: str) -> dict[str, object]:
    outcome = close.outcome
    return {
        "position_id": close.position_id,
        "symbol": close.symbol,
        "side": spoken("rest", close.position.side),
        "quantity": shortest(close.quantity),
        "price": outcome and shortest(outcome.fill.price),
        "slippage": outcome and shortest(outcome.fill.slippage),
        "commission": outcome and _money(outcome.commission, currency),
        "realized_pnl": outcome and _money(outcome.realized_pnl, currency),
        "margin_released": outcome and _money(outcome.released, currency),
        "accepted": close.refusal is None,
        "refusal": close.refusal and error_facts(close.refusal),
        "quoted_at": close.quoted_at and timestamp(close.quoted_at),
    }


def _money(amount: Decimal, currency: str) -> str:
    return f"{round_money(amount, currency):f}"


def _money_if_any(amount: Decimal | None, currency: str) -> str | None:
    return None if amount is None else _money(amount, currency)


def _margin_members(before: Worth | None, after: Worth | None, currency: str) -> dict[str, object]:
    """Free margin and margin level before and after; null where they are not known, the level also without margin."""
    return {
        "free_margin_before": before and _money(before.free_margin, currency),
        "free_margin_after": after and _money(after.free_margin, currency),
        "margin_level_before": before and level_text(before),
        "margin_level_after": after and level_text(after),
    }
