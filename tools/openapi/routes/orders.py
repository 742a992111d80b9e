"""Orders: made, listed, read back, changed."""

from collections.abc import Mapping

from tools.openapi.errors import DENIALS, ORDER_ERRORS
from tools.openapi.forms import (
    COUNT,
    IDENTIFIER,
    TIMESTAMP,
    Schema,
    closed,
    list_of,
    page_of,
    ref,
    whole_list_of,
)
from tools.openapi.operation import Answer, Operation, Parameter
from tools.openapi.order_answers import (
    ASKED_MEMBERS,
    AUDIT_ROW,
    CREATED,
    EXECUTED,
    EXTRAS,
    FILL,
    ORDER_MEMBERS,
    PREVIEW,
    REPLACEMENT_MEMBERS,
    RESTING,
    UNFILLED_MEMBERS,
)
from tools.openapi.order_body import (
    NUMBERS,
    change_body,
    filter_body,
    keyed_body,
    without_key,
)
from tools.openapi.order_body import order_body as new_order
from tools.openapi.order_examples import (
    ASKED_FACTS,
    AUDIT_FACTS,
    EXECUTION,
    FILL_FACTS,
    MARKET_ORDER,
    MOMENT,
    ORDER_FACTS,
    PREVIEWED,
    REPLACING,
    TRADER_ID,
    UNFILLED,
)
from tools.openapi.parameters import ACCOUNT_ID as ACCOUNT
from tools.openapi.parameters import CURSOR, PAGE_LIMIT, one_of, path_id, some_of
from trading.edge.change_dialects import all_canceled_body, canceled_body, replaced_body
from trading.edge.dialects import order_state, order_state_words
from trading.edge.order_dialects import execution_data
from trading.edge.reading_dialects import ORDER_TYPES, SIDES, audit_body, order_body, orders_body
from trading.errors import ErrorCode
from trading.order_entry import LABEL_CHARACTERS_MAX, SYMBOL_PATTERN
from trading.orders import CLOSED_STATUSES

CLOSED_WORDS = tuple(sorted({order_state("rest", status) for status in CLOSED_STATUSES}))
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
    page_of(ref("Order")),
    orders_body({"orders": [ORDER_FACTS], "next": None}),
)
OPERATIONS = (
    Operation(
        route="POST /functions/v1/execute-order",
        operation_id="executeOrder",
        tag="orders",
        summary="Execute an order",
        description="idempotency_key is required, in the body or as a header.",
        permission="orders:write",
        keyed=True,
        body=ref("ExecuteOrderRequest"),
        body_example=MARKET_ORDER,
        errors=ORDER_ERRORS,
        answers={
            200: Answer(
                "The order was executed; or it is pending, because it rests or is on its way to its venue.",
                {"anyOf": [ref("ExecutedOrder"), ref("PendingOrder")]},
                execution_data(EXECUTION, "functions", TRADER_ID),
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
        keyed=True,
        body=ref("CreateOrderRequest"),
        body_example={"symbol": "EURUSD", "order_type": "MARKET", "side": "BUY", "quantity": "0.1"},
        errors=ORDER_ERRORS,
        answers={
            201: Answer(
                "The order was executed; or it is pending, because it rests or is on its way to its venue.",
                {"anyOf": [ref("CreatedOrder"), ref("UnfilledOrder")]},
                execution_data(EXECUTION, "rest", TRADER_ID),
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
                ErrorCode.VENUE_UNAVAILABLE,
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
        keyed=True,
        parameters=(path_id("an order of yours"),),
        body=ref("CancelRequest"),
        body_example={},
        may_lack_body=True,
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.ORDER_NOT_CANCELABLE, ErrorCode.RISK_LIMIT_VIOLATION}),
        answers={200: Answer("The order is canceled.", ref("CanceledOrder"), canceled_body(UNFILLED, TRADER_ID))},
    ),
    Operation(
        route="POST /api/v1/orders/cancel-all",
        operation_id="cancelAllOrders",
        tag="orders",
        summary="Cancel the working orders of an account, all or those that fit",
        description="At most 500, the oldest first; `left` says how many more fit, for the next request.",
        permission="orders:write",
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
        answers={200: Answer("Its rows in the audit.", whole_list_of(ref("OrderAuditRow")), audit_body([AUDIT_FACTS]))},
    ),
)
