"""Orders that depend on each other."""

from collections.abc import Mapping
from typing import Any

from tools.openapi.errors import ORDER_ERRORS
from tools.openapi.forms import (
    Schema,
    closed,
    list_of,
    ref,
)
from tools.openapi.operation import Answer, Operation
from tools.openapi.order_answers import (
    EXTRAS,
    LINKED_MEMBERS,
)
from tools.openapi.order_body import (
    exit_bodies,
    group_body,
    order_of_group,
)
from tools.openapi.order_examples import (
    OTHER_ORDER_ID,
    TRADER_ID,
    UNFILLED,
)
from trading.edge.linked_dialects import linked_body
from trading.errors import ErrorCode
from trading.linked_orders import CHILDREN_MAX

SCHEMAS: Mapping[str, Schema] = {
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
        keyed=True,
        body=ref(body),
        body_example=example,
        errors=ORDER_ERRORS - {ErrorCode.VENUE_UNAVAILABLE},
        answers={201: LINKED_ANSWER},
    )


BUY_BELOW = {"symbol": "EURUSD", "order_type": "LIMIT", "side": "BUY", "quantity": "0.1", "price": "1.0500"}
SELL_ABOVE = {"symbol": "EURUSD", "order_type": "LIMIT", "side": "SELL", "quantity": "0.1", "price": "1.2500"}
OPERATIONS = (
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
