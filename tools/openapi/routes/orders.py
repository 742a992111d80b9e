"""Orders: made, listed, read back, changed."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tools.openapi.errors import ACCOUNT_ID, DENIALS, ORDER_ID
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
    ref,
    word,
    words_of,
)
from tools.openapi.operation import Answer, Operation, Parameter
from tools.openapi.order_body import (
    NUMBERS,
    change_body,
    exit_bodies,
    filter_body,
    group_body,
    keyed_body,
    order_of_group,
    without_key,
)
from tools.openapi.order_body import order_body as new_order
from tools.openapi.parameters import ACCOUNT_ID as ACCOUNT
from tools.openapi.parameters import CURSOR, PAGE_LIMIT, one_of, path_id, some_of
from trading.edge.change_dialects import all_canceled_body, canceled_body, replaced_body
from trading.edge.dialects import AUDIT_ACTIONS, order_state, order_state_words, spoken
from trading.edge.envelope import Dialect
from trading.edge.linked_dialects import linked_body
from trading.edge.order_dialects import execution_data
from trading.edge.reading_dialects import ORDER_TYPES, SIDES, audit_body, order_body, orders_body
from trading.errors import ErrorCode
from trading.execution import Execution
from trading.linked_orders import CHILDREN_MAX
from trading.order_entry import LABEL_CHARACTERS_MAX, SYMBOL_PATTERN
from trading.orders import CLOSED_STATUSES, Contingency, Direction, OrderType, QuoteSide, Side, TimeInForce

CLOSED_WORDS = tuple(sorted({order_state("rest", status) for status in CLOSED_STATUSES}))
TRADER_ID = "01a1fc5c-5be2-7d0e-a0d5-6a4c1a4a6a10"
REPLACED_ID = "01a1fc5d-0a11-7c52-9d0e-5b1f1c2a7e10"
POSITION_ID = "01a1fc5d-1d65-7e95-b7ba-4385d0cd8a94"
FILL_ID = "01a1fc5d-1d65-7a33-8c87-9c3e967dedf3"
OTHER_ORDER_ID = "01a1fc5d-1d63-7c11-9a42-0c5f6e2b7d38"
TRANSACTION_ID = f"txn_1795235323_{FILL_ID}"
MOMENT = "2026-11-21T04:28:43.227114Z"

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
CHANGE = change_body(keyed=False)
SCHEMAS: Mapping[str, Schema] = {
    "Order": closed(ORDER_MEMBERS),
    "OrderWithFills": closed({**ORDER_MEMBERS, **ASKED_MEMBERS, "fills": list_of(ref("Fill"))}),
    "Fill": FILL,
    "OrderAuditRow": AUDIT_ROW,
    **NUMBERS,
    "ExecuteOrderRequest": new_order("functions"),
    "CreateOrderRequest": new_order("rest"),
    "PreviewOrderRequest": without_key(new_order("rest")),
    "PreviewReplacementRequest": {
        **CHANGE,
        "properties": {"replaces_order_id": IDENTIFIER, **CHANGE["properties"]},
        "required": ["replaces_order_id"],
    },
    "ReplaceOrderRequest": change_body(keyed=True),
    "CancelRequest": keyed_body({}),
    "CancelAllRequest": filter_body(),
    "ExecutedOrder": EXECUTED,
    "PendingOrder": RESTING,
    "CreatedOrder": CREATED,
    "UnfilledOrder": closed(UNFILLED_MEMBERS, optional=EXTRAS),
    "CanceledOrder": closed({**UNFILLED_MEMBERS, "cancelled_at": TIMESTAMP}, optional=EXTRAS),
    "ReplacingOrder": closed(REPLACEMENT_MEMBERS, optional=EXTRAS),
    "CanceledOrders": closed(
        {
            "canceled": list_of(ref("CanceledOrder")),
            "left": {**COUNT, "description": "How many that fit work on, because one request cancels at most 500."},
        }
    ),
    "OrderPreview": PREVIEW,
    "OrderOfGroup": order_of_group(),
    "OcoRequest": group_body({"orders": {**list_of(ref("OrderOfGroup")), "minItems": 2, "maxItems": 2}}),
    "OtoRequest": group_body(
        {
            "parent": ref("OrderOfGroup"),
            "children": {**list_of(ref("OrderOfGroup")), "minItems": 1, "maxItems": CHILDREN_MAX},
        }
    ),
    "BracketRequest": group_body({"entry": ref("OrderOfGroup"), **exit_bodies()}),
    "LinkedOrders": closed({"orders": list_of(closed(LINKED_MEMBERS, optional=EXTRAS))}),
}

# --- what the renderers of the code make these examples of ---------------------------------------------------------

EXECUTION = Execution(
    {
        "outcome": "filled",
        "order_id": ORDER_ID,
        "account_id": ACCOUNT_ID,
        "position_id": POSITION_ID,
        "client_order_id": None,
        "status": "filled",
        "symbol": "EURUSD",
        "side": "buy",
        "order_type": "market",
        "quantity": "0.1",
        "execution_price": "1.15983",
        "slippage": "0.00012",
        "commission": "0.00",
        "total_cost": "115.98",
        "transact_time": MOMENT,
        "transaction_id": TRANSACTION_ID,
    },
    replayed=False,
    refusal=None,
)
ORDER_FACTS: Mapping[str, Any] = {
    "id": ORDER_ID,
    "user_id": TRADER_ID,
    "account_id": ACCOUNT_ID,
    "client_order_id": None,
    "symbol": "EURUSD",
    "order_type": "market",
    "side": "buy",
    "quantity": "0.1",
    "filled_quantity": "0.1",
    "leaves_quantity": "0",
    "limit_price": None,
    "stop_price": None,
    "trail_amount": None,
    "trail_percent": None,
    "limit_offset": None,
    "trail_mark": None,
    "trail_level": None,
    "display_quantity": None,
    "display_variance": None,
    "post_only": False,
    "active_at": None,
    "conditions": None,
    "stop_loss": None,
    "take_profit": None,
    "time_in_force": "gtc",
    "expires_at": None,
    "status": "filled",
    "average_price": "1.15983",
    "slippage": "0.00012",
    "commission": "0.00",
    "total_cost": "115.98",
    "position_id": POSITION_ID,
    "transaction_id": TRANSACTION_ID,
    "contingency": None,
    "linked_order_ids": [],
    "held_quantity": "0",
    "failure_code": None,
    "failure_reason": None,
    "replaces_order_id": None,
    "version": 1,
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "executed_at": MOMENT,
}
ASKED_FACTS: Mapping[str, Any] = dict.fromkeys(ASKED_MEMBERS) | {
    "reduce_only": False,
    "strategy_id": "momentum-7",
    "metadata": {"desk": "fx"},
}
FILL_FACTS: Mapping[str, Any] = {
    "id": FILL_ID,
    "order_id": ORDER_ID,
    "position_id": POSITION_ID,
    "side": "buy",
    "quantity": "0.1",
    "price": "1.15983",
    "commission": "0.00",
    "realized_pnl": "0.00",
    "venue": "paper",
    "trade_id": FILL_ID,
    "transact_time": MOMENT,
}
AUDIT_FACTS: Mapping[str, Any] = {
    "id": "01a1fc5d-1d66-7bb8-8e60-1cf0a0c1d3c2",
    "order_id": ORDER_ID,
    "user_id": TRADER_ID,
    "action": "FILLED",
    "status": "filled",
    "created_at": MOMENT,
    "reason": None,
    "error_code": None,
    "retry_attempt": None,
}
MARKET_ORDER = {
    "symbol": "EURUSD",
    "order_type": "market",
    "side": "buy",
    "quantity": "0.1",
    "idempotency_key": "my-first-order",
}
ORDER_ERRORS = DENIALS | {
    ErrorCode.NOT_FOUND,
    ErrorCode.UNKNOWN_SYMBOL,
    ErrorCode.CONFLICT,
    ErrorCode.MARKET_DATA_UNAVAILABLE,
    ErrorCode.VENUE_UNAVAILABLE,
}
UNFILLED: Mapping[str, Any] = {
    "outcome": "canceled",
    "order_id": ORDER_ID,
    "client_order_id": None,
    "symbol": "AAPL",
    "side": "buy",
    "order_type": "limit",
    "quantity": 100,
    "limit_price": Decimal("140.00"),
    "stop_price": None,
    "time_in_force": "gtc",
    "status": "canceled",
    "filled_quantity": 0,
    "leaves_quantity": 0,
    "average_price": None,
    "expires_at": None,
    "created_at": MOMENT,
    "transact_time": MOMENT,
}
REPLACING: Mapping[str, Any] = {
    **UNFILLED,
    "outcome": "new",
    "status": "new",
    "quantity": 80,
    "leaves_quantity": 80,
    "limit_price": Decimal("141.50"),
    "stop_loss": Decimal("120.00"),
    "take_profit": None,
    "version": 1,
    "replaces_order_id": REPLACED_ID,
    "replaced": {**UNFILLED, "order_id": REPLACED_ID, "status": "replaced", "version": 2},
}
PREVIEWED = {
    "account_id": ACCOUNT_ID,
    "symbol": "EURUSD",
    "order_type": "MARKET",
    "side": "BUY",
    "quantity": "0.1",
    "filled_quantity": "0.1",
    "currency": "USD",
    "price": "1.15983",
    "slippage": "0.00012",
    "commission": "0.00",
    "margin": "115.98",
    "hedged_margin_credit": "0.00",
    "margin_released": "0.00",
    "total_cost": "115.98",
    "reduces_position": False,
    "realized_pnl": "0.00",
    "free_margin_before": "100000.00",
    "free_margin_after": "99882.02",
    "margin_level_before": None,
    "margin_level_after": "86220.04",
    "accepted": True,
    "refusal": None,
    "quoted_at": "2026-11-21T04:28:43.227Z",
}
FILTERS = (
    Parameter("symbol", {"type": "string", "pattern": SYMBOL_PATTERN.replace("A-Z", "A-Za-z")}, "Of this symbol."),
    one_of("side", SIDES, "Of this side."),
    one_of("order_type", ORDER_TYPES, "Of this type."),
    Parameter("from", {"type": "string", "format": "date-time"}, "Created at this time or later, with its offset."),
    Parameter("to", {"type": "string", "format": "date-time"}, "Created before this time."),
    Parameter("client_order_id", {"type": "string", "maxLength": LABEL_CHARACTERS_MAX}, "The caller's name of one."),
    ACCOUNT,
    PAGE_LIMIT,
    CURSOR,
)
ORDER_PAGE = Answer(
    "A page of orders. next_cursor is null on the last one.",
    closed({"data": list_of(ref("Order")), "next_cursor": nullable(IDENTIFIER)}),
    orders_body({"orders": [ORDER_FACTS], "next": None}),
)
LINKED_ANSWER = Answer(
    "The orders, the parent first, of a bracket then the stop loss; each as the call left it.",
    ref("LinkedOrders"),
    linked_body(
        {
            "orders": [
                {
                    **UNFILLED,
                    "status": "new",
                    "leaves_quantity": 100,
                    "contingency": "oco",
                    "parent_order_id": None,
                    "linked_order_ids": [OTHER_ORDER_ID],
                    "held_quantity": 0,
                }
            ]
        },
        TRADER_ID,
    ),
    ("Idempotency-Replayed",),
)


def linked_operation(path: str, operation_id: str, summary: str, body: str, example: Mapping[str, Any]) -> Operation:
    """A route that places orders which depend on each other."""
    return Operation(
        route=f"POST /api/v1/orders/{path}",
        operation_id=operation_id,
        tag="orders",
        summary=summary,
        description="All of them are placed, or none; without an idempotency key, a repeat is another group.",
        permission="orders:write",
        state_changing=True,
        keyed=True,
        body=ref(body),
        body_example=example,
        errors=ORDER_ERRORS - {ErrorCode.VENUE_UNAVAILABLE},
        answers={201: LINKED_ANSWER},
    )


BUY_BELOW = {"symbol": "EURUSD", "order_type": "LIMIT", "side": "BUY", "quantity": "0.1", "price": "1.0500"}
SELL_ABOVE = {"symbol": "EURUSD", "order_type": "LIMIT", "side": "SELL", "quantity": "0.1", "price": "1.2500"}
LINKED = (
    linked_operation(
        "oco",
        "createOcoOrders",
        "Place two orders of which one cancels the other",
        "OcoRequest",
        {"orders": [BUY_BELOW, SELL_ABOVE]},
    ),
    linked_operation(
        "oto",
        "createOtoOrders",
        "Place an order whose fills set others to work",
        "OtoRequest",
        {"parent": BUY_BELOW, "children": [SELL_ABOVE]},
    ),
    linked_operation(
        "bracket",
        "createBracketOrder",
        "Place an order with a take profit and a stop loss",
        "BracketRequest",
        {
            "entry": {"symbol": "EURUSD", "order_type": "MARKET", "side": "BUY", "quantity": "0.1"},
            "take_profit": {"limit_price": "1.5000"},
            "stop_loss": {"stop_price": "0.9000"},
        },
    ),
)

ORDERS = (
    Operation(
        route="POST /functions/v1/execute-order",
        operation_id="executeOrder",
        tag="orders",
        summary="Execute an order",
        description="idempotency_key is required, in the body or as a header.",
        permission="orders:write",
        state_changing=True,
        keyed=True,
        body=ref("ExecuteOrderRequest"),
        body_example=MARKET_ORDER,
        errors=ORDER_ERRORS,
        answers={
            200: Answer(
                "The order was executed; or it is pending, because it rests or is on its way to its venue.",
                {"anyOf": [ref("ExecutedOrder"), ref("PendingOrder")]},
                execution_data(EXECUTION, "functions", TRADER_ID),
                ("Idempotency-Replayed",),
            )
        },
    ),
    Operation(
        route="POST /api/v1/orders",
        operation_id="createOrder",
        tag="orders",
        summary="Execute an order",
        description="side is BUY when it is left out; without an idempotency key, a repeat is another order.",
        permission="orders:write",
        state_changing=True,
        keyed=True,
        body=ref("CreateOrderRequest"),
        body_example={"symbol": "EURUSD", "order_type": "MARKET", "side": "BUY", "quantity": "0.1"},
        errors=ORDER_ERRORS,
        answers={
            201: Answer(
                "The order was executed; or it is pending, because it rests or is on its way to its venue.",
                {"anyOf": [ref("CreatedOrder"), ref("UnfilledOrder")]},
                execution_data(EXECUTION, "rest", TRADER_ID),
                ("Idempotency-Replayed",),
            )
        },
    ),
    *LINKED,
    Operation(
        route="GET /api/v1/orders",
        operation_id="listOrders",
        tag="orders",
        summary="List your orders, newest first",
        permission="orders:read",
        parameters=(
            some_of("status", order_state_words("rest"), "Only orders in one of these states; their case is ignored."),
            *FILTERS,
        ),
        answers={200: ORDER_PAGE},
    ),
    Operation(
        route="GET /api/orders/history",
        operation_id="listClosedOrders",
        tag="orders",
        summary="List your orders that have ended, newest first",
        permission="orders:read",
        parameters=(
            some_of("status", CLOSED_WORDS, "Only orders in one of these states; their case is ignored."),
            *FILTERS,
        ),
        answers={200: ORDER_PAGE},
    ),
    Operation(
        route="POST /api/v1/orders/preview",
        operation_id="previewOrder",
        tag="orders",
        summary="See what an order would come to; nothing is written",
        description="With replaces_order_id: what would come of that order, changed as PATCH would change it.",
        permission="orders:read",
        body={"anyOf": [ref("PreviewOrderRequest"), ref("PreviewReplacementRequest")]},
        body_example={"symbol": "EURUSD", "order_type": "MARKET", "side": "BUY", "quantity": "0.1"},
        errors=frozenset(
            {
                ErrorCode.NOT_FOUND,
                ErrorCode.UNKNOWN_SYMBOL,
                ErrorCode.CONFLICT,
                ErrorCode.ORDER_NOT_CANCELABLE,
                ErrorCode.MARKET_DATA_UNAVAILABLE,
            }
        ),
        answers={200: Answer("What it would come to.", ref("OrderPreview"), PREVIEWED)},
    ),
    Operation(
        route="POST /api/v1/orders/{id}/cancel",
        operation_id="cancelOrder",
        tag="orders",
        summary="Cancel a working order",
        permission="orders:write",
        state_changing=True,
        keyed=True,
        parameters=(path_id("an order of yours"),),
        body=ref("CancelRequest"),
        body_example={},
        may_lack_body=True,
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.ORDER_NOT_CANCELABLE, ErrorCode.RISK_LIMIT_VIOLATION}),
        answers={
            200: Answer(
                "The order is canceled.",
                ref("CanceledOrder"),
                canceled_body(UNFILLED, TRADER_ID),
                ("Idempotency-Replayed",),
            )
        },
    ),
    Operation(
        route="POST /api/v1/orders/cancel-all",
        operation_id="cancelAllOrders",
        tag="orders",
        summary="Cancel the working orders of an account, all or those that fit",
        description="At most 500, the oldest first; `left` says how many more fit, for the next request.",
        permission="orders:write",
        state_changing=True,
        keyed=True,
        body=ref("CancelAllRequest"),
        body_example={"symbol": "EURUSD", "side": "BUY"},
        may_lack_body=True,
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.UNKNOWN_SYMBOL}),
        answers={
            200: Answer(
                "These are canceled; none, where none fits.",
                ref("CanceledOrders"),
                all_canceled_body({"canceled": [UNFILLED], "left": 0, "transact_time": MOMENT}, TRADER_ID),
                ("Idempotency-Replayed",),
            )
        },
    ),
    Operation(
        route="PATCH /api/v1/orders/{id}",
        operation_id="replaceOrder",
        tag="orders",
        summary="Replace a working order by another one",
        description="What is left out stays as it was, but for client_order_id, which names one order only. quantity "
        "is in all, with what is filled: the new order is for the rest. stop_loss, take_profit, conditions, "
        "display_quantity and display_variance that are null are taken away. Refused, the old order works on. "
        "With another version than the order's: 409 CONFLICT.",
        permission="orders:write",
        state_changing=True,
        keyed=True,
        parameters=(path_id("an order of yours that works"),),
        body=ref("ReplaceOrderRequest"),
        body_example={"price": "0.51", "quantity": "0.2", "version": 1},
        # What rests waits for its market to open, and has a price of its own.
        errors=DENIALS - {ErrorCode.MARKET_CLOSED, ErrorCode.SLIPPAGE_EXCEEDED}
        | {
            ErrorCode.NOT_FOUND,
            ErrorCode.UNKNOWN_SYMBOL,
            ErrorCode.CONFLICT,
            ErrorCode.ORDER_NOT_CANCELABLE,
            ErrorCode.MARKET_DATA_UNAVAILABLE,
        },
        answers={
            200: Answer(
                "The new order, in the place of the old one.",
                ref("ReplacingOrder"),
                replaced_body(REPLACING, TRADER_ID),
                ("Idempotency-Replayed",),
            )
        },
    ),
    Operation(
        route="GET /api/v1/orders/{id}",
        operation_id="getOrder",
        tag="orders",
        summary="Read an order with all that was asked for, and its fills",
        permission="orders:read",
        parameters=(path_id("an order of yours"),),
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={
            200: Answer(
                "The order.",
                ref("OrderWithFills"),
                order_body({**ORDER_FACTS, **ASKED_FACTS, "fills": [FILL_FACTS]}),
            )
        },
    ),
    Operation(
        route="GET /api/v1/orders/{id}/audit",
        operation_id="getOrderAudit",
        tag="orders",
        summary="Read what happened to an order, oldest first",
        description="With the permission audit:read, or as compliance, any order; then orders:read is not needed.",
        permission="orders:read",
        parameters=(path_id("an order"),),
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={
            200: Answer(
                "Its rows in the audit.",
                closed({"data": list_of(ref("OrderAuditRow")), "total": COUNT}),
                audit_body([AUDIT_FACTS]),
            )
        },
    ),
)
