"""What is told of orders: placed, changed, read back, previewed."""

from collections.abc import Mapping
from typing import Any

from tools.openapi.errors import DENIALS
from tools.openapi.forms import (
    COUNT,
    CURRENCY,
    DECIMAL,
    IDENTIFIER,
    TEXT,
    TIMESTAMP,
    Schema,
    closed,
    list_of,
    nullable,
    word,
    words_of,
)
from trading.edge.dialects import AUDIT_ACTIONS, order_state, order_state_words, spoken
from trading.edge.envelope import Dialect
from trading.orders import Contingency, Direction, OrderType, QuoteSide, Side, TimeInForce

TRANSACTION: Schema = {"type": "string", "pattern": "^txn_[0-9]+_[0-9a-f-]{36}$"}


def spoken_word(literal: Any) -> Schema:
    """The words of /api/v1 for a `Literal` of the code."""
    return word(spoken("rest", inside) for inside in words_of(literal))


COSTS: Mapping[str, Schema] = {
    "slippage": {**DECIMAL, "description": "Distance from the touched side of the quote, in the quote currency."},
    "commission": {**DECIMAL, "description": "In the account's currency."},
    "total_cost": {**DECIMAL, "description": "Margin and commission, in the account's currency."},
}
EXECUTED = closed(
    {
        "order_id": IDENTIFIER,
        "position_id": IDENTIFIER,
        "status": word(order_state_words("functions")),
        "execution_details": closed(
            {"execution_price": DECIMAL, **COSTS, "timestamp": TIMESTAMP, "transaction_id": TRANSACTION}
        ),
    }
)
TRAIL: Mapping[str, Schema] = {
    "trail_amount": {**nullable(DECIMAL), "description": "Of a trailing order, in price."},
    "trail_percent": {**nullable(DECIMAL), "description": "Of a trailing order, in percent of its mark."},
    "limit_offset": {**nullable(DECIMAL), "description": "From the level that triggers to the limit, in price."},
}
DISPLAY: Mapping[str, Schema] = {
    "display_quantity": {**nullable(DECIMAL), "description": "Of a limit order: the lots that it shows at once."},
    "display_variance": {**nullable(DECIMAL), "description": "The fraction by which that varies."},
}
ACTIVE_AT: Schema = {
    **nullable(TIMESTAMP),
    "description": "From when an order that waits for no price takes the next quote: with the opening, the close, or "
    "its last condition.",
}


def conditions(dialect: Dialect) -> Schema:
    """The conditions of an order, in the words of `dialect`."""
    condition = {
        "symbol": TEXT,
        "watch": word(spoken(dialect, inside) for inside in words_of(QuoteSide)),
        "direction": word(spoken(dialect, inside) for inside in words_of(Direction)),
        "level": DECIMAL,
        "met_at": {**nullable(TIMESTAMP), "description": "When a price came to it; null while none has."},
    }
    return {**nullable(list_of(closed(condition))), "description": "All of them have to be met before it works."}


# In answers only of an order that has them; where orders are read, null of the others.
EXTRAS: Mapping[str, Schema] = {**TRAIL, **DISPLAY, "active_at": ACTIVE_AT, "conditions": conditions("rest")}
PENDING_DETAILS: Mapping[str, Schema] = {
    "symbol": TEXT,
    "order_type": word(words_of(OrderType)),
    "side": word(words_of(Side)),
    "quantity": DECIMAL,
    "limit_price": nullable(DECIMAL),
    "stop_price": nullable(DECIMAL),
    **EXTRAS,
    "conditions": conditions("functions"),
    "time_in_force": word(words_of(TimeInForce)),
    "expires_at": nullable(TIMESTAMP),
    "filled_quantity": DECIMAL,
    "average_price": nullable(DECIMAL),
    "timestamp": TIMESTAMP,
}
RESTING = closed(
    {
        "order_id": IDENTIFIER,
        "position_id": {"type": "null"},
        "status": word(order_state_words("functions")),
        "order_details": closed(PENDING_DETAILS, optional=EXTRAS),
    }
)
# Without a fill: it rests, is on its way to its venue, or was canceled.
UNFILLED_MEMBERS: Mapping[str, Schema] = {
    "id": IDENTIFIER,
    "trader_id": IDENTIFIER,
    "status": word(order_state_words("rest")),
    "created_at": TIMESTAMP,
    "client_order_id": nullable(TEXT),
    "symbol": TEXT,
    "side": spoken_word(Side),
    "order_type": spoken_word(OrderType),
    "quantity": DECIMAL,
    "filled_quantity": DECIMAL,
    "leaves_quantity": DECIMAL,
    "price": {**nullable(DECIMAL), "description": "The limit price."},
    "stop_price": nullable(DECIMAL),
    **EXTRAS,
    "time_in_force": spoken_word(TimeInForce),
    "expires_at": nullable(TIMESTAMP),
    "average_price": nullable(DECIMAL),
}
CREATED_MEMBERS: Mapping[str, Schema] = {
    "id": IDENTIFIER,
    "trader_id": IDENTIFIER,
    "status": word(order_state_words("rest")),
    "created_at": TIMESTAMP,
    "client_order_id": nullable(TEXT),
    "symbol": TEXT,
    "side": spoken_word(Side),
    "order_type": spoken_word(OrderType),
    "quantity": DECIMAL,
    "filled_quantity": DECIMAL,
    "average_price": DECIMAL,
    **COSTS,
    "position_id": IDENTIFIER,
    "transaction_id": TRANSACTION,
    "executed_at": TIMESTAMP,
}
CREATED = closed(CREATED_MEMBERS)
PREVIEW = closed(
    {
        "account_id": IDENTIFIER,
        "symbol": TEXT,
        "order_type": spoken_word(OrderType),
        "side": spoken_word(Side),
        "quantity": DECIMAL,
        "filled_quantity": {**DECIMAL, "description": "The quantity, cut to the position if it may only reduce one."},
        "currency": {**CURRENCY, "description": "Of every amount here."},
        "price": {**DECIMAL, "description": "Where it would fill, in the middle of the slippage's random part."},
        "slippage": DECIMAL,
        "commission": DECIMAL,
        "margin": {**DECIMAL, "description": "What the position is booked with."},
        "hedged_margin_credit": {**DECIMAL, "description": "What less has to be held, because it covers a position."},
        "margin_released": DECIMAL,
        "total_cost": DECIMAL,
        "reduces_position": {"type": "boolean"},
        "realized_pnl": DECIMAL,
        "free_margin_before": nullable(DECIMAL),
        "free_margin_after": nullable(DECIMAL),
        "margin_level_before": nullable(DECIMAL),
        "margin_level_after": nullable(DECIMAL),
        "accepted": {"type": "boolean"},
        "refusal": nullable(closed({"code": word(sorted(DENIALS)), "message": TEXT, "details": {"type": "object"}})),
        "quoted_at": TIMESTAMP,
    }
)
VERSION: Schema = {"type": "integer", "minimum": 1}
# The new order, and the old one as it ended.
REPLACEMENT_MEMBERS: Mapping[str, Schema] = {
    **UNFILLED_MEMBERS,
    "stop_loss": nullable(DECIMAL),
    "take_profit": nullable(DECIMAL),
    "version": VERSION,
    "replaces_order_id": IDENTIFIER,
    "replaced": closed(
        {
            "id": IDENTIFIER,
            "status": word([order_state("rest", "replaced")]),
            "quantity": DECIMAL,
            "filled_quantity": DECIMAL,
            "version": VERSION,
        }
    ),
}
LINK_MEMBERS: Mapping[str, Schema] = {
    "linked_order_ids": {
        **list_of(IDENTIFIER),
        "description": "Of two that cancel each other the other one; of a parent its children.",
    },
    "held_quantity": {**DECIMAL, "description": "What waits for fills of the parent, or for conditions, in lots."},
}
ORDER_MEMBERS: Mapping[str, Schema] = {
    "id": IDENTIFIER,
    "trader_id": IDENTIFIER,
    "account_id": IDENTIFIER,
    "client_order_id": nullable(TEXT),
    "symbol": TEXT,
    "order_type": spoken_word(OrderType),
    "side": spoken_word(Side),
    "quantity": {**DECIMAL, "description": "In lots."},
    "filled_quantity": DECIMAL,
    "leaves_quantity": DECIMAL,
    "price": {**nullable(DECIMAL), "description": "The limit price."},
    "stop_price": nullable(DECIMAL),
    **EXTRAS,
    "trail_mark": {**nullable(DECIMAL), "description": "The best price since it was placed, while it trails."},
    "trail_level": {**nullable(DECIMAL), "description": "Where it would trigger now, while it trails."},
    "post_only": {"type": "boolean"},
    "stop_loss": nullable(DECIMAL),
    "take_profit": nullable(DECIMAL),
    "time_in_force": spoken_word(TimeInForce),
    "expires_at": {**nullable(TIMESTAMP), "description": "When it ends by itself."},
    "status": word(order_state_words("rest")),
    "average_price": nullable(DECIMAL),
    **{name: nullable(schema) for name, schema in COSTS.items()},
    "position_id": nullable(IDENTIFIER),
    "transaction_id": nullable(TRANSACTION),
    "contingency": nullable(spoken_word(Contingency)),
    **LINK_MEMBERS,
    "failure_code": {**nullable(TEXT), "description": "The code of its denial, or what its venue said."},
    "failure_reason": nullable(TEXT),
    "replaces_order_id": {
        **nullable(IDENTIFIER),
        "description": "The order whose place it took, or, where it was refused, was to take.",
    },
    "version": {**VERSION, "description": "Grows with every change; PATCH may ask for the one that you know."},
    "created_at": TIMESTAMP,
    "updated_at": TIMESTAMP,
    "executed_at": nullable(TIMESTAMP),
}
LINKED_MEMBERS = {
    **UNFILLED_MEMBERS,
    "contingency": spoken_word(Contingency),
    "parent_order_id": {**nullable(IDENTIFIER), "description": "The order whose fills this one waits for."},
    **LINK_MEMBERS,
}
ASKED_MEMBERS: Mapping[str, Schema] = {
    "parent_order_id": nullable(IDENTIFIER),
    "max_slippage": nullable(DECIMAL),
    "reduce_only": {"type": "boolean"},
    "execution_instructions": nullable({"type": "object"}),
    "strategy_id": nullable(TEXT),
    "signal_id": nullable(TEXT),
    "component_name": nullable(TEXT),
    "metadata": {**nullable({"type": "object"}), "description": "As it came."},
}
FILL = closed(
    {
        "id": IDENTIFIER,
        "order_id": IDENTIFIER,
        "position_id": nullable(IDENTIFIER),
        "side": spoken_word(Side),
        "quantity_filled": DECIMAL,
        "price_at_fill": DECIMAL,
        "commission": DECIMAL,
        "realized_pnl": DECIMAL,
        "venue": TEXT,
        "trade_id": TEXT,
        "timestamp": TIMESTAMP,
    }
)
AUDIT_ROW = closed(
    {
        "id": IDENTIFIER,
        "order_id": IDENTIFIER,
        "trader_id": IDENTIFIER,
        "action": word(AUDIT_ACTIONS.values()),
        "status": nullable(word(order_state_words("rest"))),
        "timestamp": TIMESTAMP,
        "reason": nullable(TEXT),
        "error_code": nullable(TEXT),
        "retry_attempt": nullable(COUNT),
    }
)
