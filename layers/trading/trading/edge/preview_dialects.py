"""Previews in the words of /api/v1: from a body to an OrderEntry, from what it would come to to an answer."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from trading.accounts import Worth, round_money
from trading.edge.dialects import spoken
from trading.edge.envelope import error_facts, timestamp
from trading.edge.http import Request
from trading.edge.order_dialects import order_entry
from trading.errors import validation_failed
from trading.json_text import shortest
from trading.order_entry import OrderEntry
from trading.preview import Preview
from trading.refusals import level_text


def preview_entry(request: Request, body: Mapping[str, Any]) -> OrderEntry:
    """The order that `body` asks about; it has no key, because nothing is kept that a repeat could repeat."""
    if body.get("idempotency_key") is not None:
        raise validation_failed(
            "idempotency_key",
            body["idempotency_key"],
            "left out",
            "Leave idempotency_key out: a preview changes nothing, and may be asked for as often as you like.",
        )
    return order_entry(request, body, "rest")


def preview_body(order: OrderEntry, preview: Preview) -> dict[str, object]:
    """The answer to `order`; amounts are decimal strings, prices on the tick, money in the account's currency."""
    facts, cost = preview.facts, preview.cost
    currency = facts.account.currency
    margin = max(cost.margin, Decimal(0))
    return {
        "account_id": facts.account_id,
        "symbol": order.symbol,
        "order_type": spoken("rest", order.order_type),
        "side": spoken("rest", order.side),
        "quantity": shortest(order.quantity),
        "currency": currency,
        "price": f"{preview.fill.price.quantize(facts.instrument.tick_size):f}",
        "slippage": shortest(preview.fill.slippage),
        "commission": _money(cost.commission, currency),
        "margin": _money(margin, currency),
        "margin_released": _money(max(-cost.margin, Decimal(0)), currency),
        "total_cost": _money(margin + cost.commission, currency),
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


def _money(amount: Decimal, currency: str) -> str:
    return f"{round_money(amount, currency):f}"


def _free_margin(worth: Worth | None, currency: str) -> str | None:
    return worth and _money(worth.free_margin, currency)
