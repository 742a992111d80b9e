"""Previews in the words of /api/v1: from a body to an OrderEntry, from what it would come to to an answer."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from pydantic import ValidationError

from trading.accounts import Worth, round_money
from trading.closing_preview import ClosePreview, PreviewedClose
from trading.edge.change_dialects import change_of, changed_members
from trading.edge.dialects import spoken
from trading.edge.envelope import error_facts, timestamp
from trading.edge.http import Request
from trading.edge.order_dialects import order_entry
from trading.edge.order_faults import first_fault
from trading.edge.reading_dialects import parse_id
from trading.errors import validation_failed
from trading.json_text import shortest
from trading.order_entry import OrderEntry
from trading.preview import Preview
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
        "free_margin_before": _free_margin(preview.before, currency),
        "free_margin_after": _free_margin(preview.after, currency),
        "margin_level_before": preview.before and level_text(preview.before),
        "margin_level_after": preview.after and level_text(preview.after),
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
        "free_margin_before": _free_margin(preview.before, currency),
        "free_margin_after": _free_margin(preview.after, currency),
        "margin_level_before": preview.before and level_text(preview.before),
        "margin_level_after": preview.after and level_text(preview.after),
    }


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


def _free_margin(worth: Worth | None, currency: str) -> str | None:
    return worth and _money(worth.free_margin, currency)
