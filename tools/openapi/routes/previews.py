"""What changes would come to, without them: of orders that are canceled, of levels of a position."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tools.openapi.errors import ACCOUNT_ID, ORDER_ID
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
)
from tools.openapi.operation import Answer, Operation
from tools.openapi.order_body import filter_body, keyed_body, without_key
from tools.openapi.parameters import path_id
from tools.openapi.routes.orders import OTHER_ORDER_ID, POSITION_ID, spoken_word
from tools.openapi.routes.positions import CHANGE, CHANGE_ERRORS, VERSION
from trading.accounts import Account
from trading.cancellation_preview import CancelPreview, EndingOrder
from trading.edge.dialects import order_state, spoken
from trading.edge.preview_dialects import cancel_preview_body, change_preview_body
from trading.errors import ErrorCode
from trading.orders import Contingency, OrderType, Side
from trading.position_change_preview import ChangePreview, Level, Levels
from trading.positions import Position

ENDING: Mapping[str, Schema] = {
    "order_id": IDENTIFIER,
    "symbol": TEXT,
    "order_type": spoken_word(OrderType),
    "side": spoken_word(Side),
    "contingency": nullable(spoken_word(Contingency)),
    "quantity": {**DECIMAL, "description": "In lots."},
    "filled_quantity": DECIMAL,
    "leaves_quantity": {**DECIMAL, "description": "What works or waits of it now."},
    "price": {
        **nullable(DECIMAL),
        "description": "Its limit or trigger, the level at which it trails, or the present quote of what has no price.",
    },
    "margin": {
        **nullable(DECIMAL),
        "description": "What that would tie up if it were filled at that price; nothing is tied up while it waits. "
        "Null without a fresh rate.",
    },
}
LEVEL: Schema = closed(
    {
        "price": DECIMAL,
        "realized_pnl": {
            **nullable(DECIMAL),
            "description": "What closing the whole there would book at the present rate, before commission and without "
            "slippage; null without a fresh rate.",
        },
    }
)
LEVELS = closed(
    {
        "stop_loss": nullable(LEVEL),
        "take_profit": nullable(LEVEL),
        "trailing_distance": {
            **nullable(DECIMAL),
            "description": "How far the stop loss trails the best mark; null while it stands still.",
        },
    }
)
SCHEMAS: Mapping[str, Schema] = {
    "PreviewCancelRequest": without_key(keyed_body({})),
    "PreviewCancelAllRequest": without_key(filter_body()),
    "CancelPreview": closed(
        {
            "account_id": IDENTIFIER,
            "currency": CURRENCY,
            "data": list_of(closed(ENDING)),
            "linked": {
                **list_of(
                    closed(
                        {
                            **ENDING,
                            "outcome": word([order_state("rest", "canceled"), "REDUCED", "UNCHANGED"]),
                            "leaves_quantity_after": DECIMAL,
                        }
                    )
                ),
                "description": "The orders that work and are linked with these: children end with what waits for "
                "their parent, the other one of two stays.",
            },
            "left": {**COUNT, "description": "How many that fit work on, because one request cancels at most 500."},
            "in_flight": {**COUNT, "description": "How many that fit are on their way to a venue, and stay."},
            "working_orders_before": {**COUNT, "description": "How many count against the account's limit."},
            "working_orders_after": COUNT,
        }
    ),
    "PreviewPositionChangeRequest": without_key(CHANGE),
    "PositionChangePreview": closed(
        {
            "account_id": IDENTIFIER,
            "position_id": IDENTIFIER,
            "symbol": TEXT,
            "side": word(spoken("rest", side) for side in ("long", "short")),
            "quantity": {**DECIMAL, "description": "In lots."},
            "entry_price": DECIMAL,
            "current_price": {
                **nullable(DECIMAL),
                "description": "Bid of a long, ask of a short; null without a quote.",
            },
            "currency": {**CURRENCY, "description": "Of every amount here."},
            "version": VERSION,
            "before": LEVELS,
            "after": LEVELS,
            "quoted_at": nullable(TIMESTAMP),
        }
    ),
}
BUY_BELOW: Mapping[str, Any] = {
    "order_id": ORDER_ID,
    "symbol": "EURUSD",
    "order_type": "limit",
    "side": "buy",
    "contingency": "oto_parent",
    "quantity": "0.1",
    "filled_quantity": "0",
    "leaves_quantity": "0.1",
    "price": "1.05000",
}
SELL_ABOVE = {**BUY_BELOW, "order_id": OTHER_ORDER_ID, "side": "sell", "contingency": "oto_child", "price": "1.25000"}
CANCELED = cancel_preview_body(
    CancelPreview(
        ACCOUNT_ID,
        Account("USD", "margin", Decimal(100)),
        [EndingOrder(BUY_BELOW, Decimal("0.1"), Decimal(0), Decimal("105.00"))],
        [EndingOrder(SELL_ABOVE, Decimal("0.1"), Decimal(0), Decimal("125.00"))],
        left=0,
        in_flight=0,
        working=3,
    )
)
CHANGED = change_preview_body(
    ChangePreview(
        ACCOUNT_ID,
        "USD",
        POSITION_ID,
        "EURUSD",
        2,
        Position("long", Decimal("0.1"), Decimal("1.15983"), Decimal("115.98")),
        Decimal("1.15963"),
        datetime(2026, 11, 21, 4, 28, 43, tzinfo=UTC),
        Levels(None, None, None),
        Levels(Level(Decimal("1.15500"), Decimal("-48.30")), None, Decimal("0.00463")),
    )
)

PREVIEWS = (
    Operation(
        route="POST /api/v1/orders/{id}/cancel/preview",
        operation_id="previewCancel",
        tag="orders",
        summary="See what canceling an order would end; nothing is written",
        permission="orders:read",
        parameters=(path_id("an order of yours"),),
        body=ref("PreviewCancelRequest"),
        body_example={},
        may_lack_body=True,
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.ORDER_NOT_CANCELABLE}),
        answers={200: Answer("What would end, and what becomes of the others.", ref("CancelPreview"), CANCELED)},
    ),
    Operation(
        route="POST /api/v1/orders/cancel-all/preview",
        operation_id="previewCancelAll",
        tag="orders",
        summary="See what canceling the working orders of an account would end; nothing is written",
        permission="orders:read",
        body=ref("PreviewCancelAllRequest"),
        body_example={"symbol": "EURUSD", "side": "BUY"},
        may_lack_body=True,
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: Answer("What would end, and what becomes of the others.", ref("CancelPreview"), CANCELED)},
    ),
    Operation(
        route="POST /api/v1/positions/{id}/change/preview",
        operation_id="previewPositionChange",
        tag="positions",
        summary="See where a change would leave the levels of a position, and what is made there; nothing is written",
        description="What the change would be refused for is refused in the same way.",
        permission="orders:read",
        parameters=(path_id("a position of yours"),),
        body=ref("PreviewPositionChangeRequest"),
        body_example={"stop_loss": None},
        errors=CHANGE_ERRORS,
        answers={200: Answer("The levels before and after it.", ref("PositionChangePreview"), CHANGED)},
    ),
)
