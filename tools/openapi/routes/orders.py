"""Orders: made, listed, read back."""

from collections.abc import Mapping
from typing import Any

from tools.openapi.errors import ACCOUNT_ID, DENIALS, ORDER_ID
from tools.openapi.forms import (
    COUNT,
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
from tools.openapi.operation import Answer, Operation
from tools.openapi.order_body import NUMBERS
from tools.openapi.order_body import order_body as new_order
from tools.openapi.parameters import ACCOUNT_ID as ACCOUNT
from tools.openapi.parameters import CURSOR, PAGE_LIMIT, path_id, some_of
from trading.edge.dialects import AUDIT_ACTIONS, order_state_words, spoken
from trading.edge.order_dialects import execution_data
from trading.edge.reading_dialects import audit_body, order_body, orders_body
from trading.errors import ErrorCode
from trading.execution import Execution
from trading.orders import OrderType, Side, TimeInForce

TRADER_ID = "01a1fc5c-5be2-7d0e-a0d5-6a4c1a4a6a10"
POSITION_ID = "01a1fc5d-1d65-7e95-b7ba-4385d0cd8a94"
FILL_ID = "01a1fc5d-1d65-7a33-8c87-9c3e967dedf3"
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
CREATED = closed(
    {
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
)
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
    "stop_loss": nullable(DECIMAL),
    "take_profit": nullable(DECIMAL),
    "time_in_force": spoken_word(TimeInForce),
    "status": word(order_state_words("rest")),
    "average_price": nullable(DECIMAL),
    **{name: nullable(schema) for name, schema in COSTS.items()},
    "position_id": nullable(IDENTIFIER),
    "transaction_id": nullable(TRANSACTION),
    "failure_code": nullable(word(sorted(DENIALS))),
    "failure_reason": nullable(TEXT),
    "created_at": TIMESTAMP,
    "updated_at": TIMESTAMP,
    "executed_at": nullable(TIMESTAMP),
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
        "retry_attempt": nullable(COUNT),
    }
)
SCHEMAS: Mapping[str, Schema] = {
    "Order": closed(ORDER_MEMBERS),
    "OrderWithFills": closed({**ORDER_MEMBERS, "fills": list_of(ref("Fill"))}),
    "Fill": FILL,
    "OrderAuditRow": AUDIT_ROW,
    **NUMBERS,
    "ExecuteOrderRequest": new_order("functions"),
    "CreateOrderRequest": new_order("rest"),
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
    "stop_loss": None,
    "take_profit": None,
    "time_in_force": "gtc",
    "status": "filled",
    "average_price": "1.15983",
    "slippage": "0.00012",
    "commission": "0.00",
    "total_cost": "115.98",
    "position_id": POSITION_ID,
    "transaction_id": TRANSACTION_ID,
    "failure_code": None,
    "failure_reason": None,
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "executed_at": MOMENT,
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
}

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
                "The order was executed.",
                EXECUTED,
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
                "The order was executed.",
                CREATED,
                execution_data(EXECUTION, "rest", TRADER_ID),
                ("Idempotency-Replayed",),
            )
        },
    ),
    Operation(
        route="GET /api/v1/orders",
        operation_id="listOrders",
        tag="orders",
        summary="List your orders, newest first",
        permission="orders:read",
        parameters=(
            some_of("status", order_state_words("rest"), "Only orders in one of these states; their case is ignored."),
            ACCOUNT,
            PAGE_LIMIT,
            CURSOR,
        ),
        answers={
            200: Answer(
                "A page of orders. next_cursor is null on the last one.",
                closed({"data": list_of(ref("Order")), "next_cursor": nullable(IDENTIFIER)}),
                orders_body({"orders": [ORDER_FACTS], "next": None}),
            )
        },
    ),
    Operation(
        route="GET /api/v1/orders/{id}",
        operation_id="getOrder",
        tag="orders",
        summary="Read an order with its fills",
        permission="orders:read",
        parameters=(path_id("an order of yours"),),
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: Answer("The order.", ref("OrderWithFills"), order_body({**ORDER_FACTS, "fills": [FILL_FACTS]}))},
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
