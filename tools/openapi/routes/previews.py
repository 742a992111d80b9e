"""What changes would come to, without them: of orders of a group, of what is canceled, of levels of a position."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
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
from tools.openapi.operation import Answer, Operation
from tools.openapi.order_answers import spoken_word
from tools.openapi.order_body import filter_body, keyed_body, without_key
from tools.openapi.order_examples import OTHER_ORDER_ID, POSITION_ID
from tools.openapi.parameters import path_id
from tools.openapi.routes.groups import OPERATIONS as LINKED
from tools.openapi.routes.groups import SCHEMAS as GROUP_SCHEMAS
from tools.openapi.routes.positions import CHANGE, CHANGE_ERRORS, VERSION
from trading.accounts import Account, Worth
from trading.edge.dialects import order_state, spoken
from trading.edge.preview_dialects import cancel_preview_body, change_preview_body, group_preview_body
from trading.errors import ErrorCode
from trading.orders import Contingency, OrderType, Side
from trading.positions import Position
from trading.previews.cancellations import CancelPreview, EndingOrder
from trading.previews.groups import GroupPreview, Judgement, PreviewedOrder
from trading.previews.position_changes import ChangePreview, Level, Levels


def refusal(codes: Iterable[ErrorCode]) -> Schema:
    """Why something would be refused now; null where nothing refuses it."""
    return nullable(closed({"code": word(sorted(codes)), "message": TEXT, "details": {"type": "object"}}))


def group_request(name: str) -> Schema:
    """The body of a group without its key."""
    return without_key(GROUP_SCHEMAS[name])


OF_GROUP = closed(
    {
        "symbol": TEXT,
        "order_type": spoken_word(OrderType),
        "side": spoken_word(Side),
        "contingency": spoken_word(Contingency),
        "quantity": {**DECIMAL, "description": "In lots."},
        "price": {
            **nullable(DECIMAL),
            "description": "Its limit or trigger; of a market order where it would fill, in the middle of the "
            "slippage's random part, null where it is refused before that.",
        },
        "slippage": {
            **nullable(DECIMAL),
            "description": "Null, as commission and margin, of what is not priced yet.",
        },
        "commission": nullable(DECIMAL),
        "margin": nullable(DECIMAL),
        "realized_pnl": {
            **nullable(DECIMAL),
            "description": "Of the exits of a bracket: what one books, before commission, of what the entry opens, "
            "both filled at their own prices and at the present rate.",
        },
        "judgement": {
            **word(spoken("rest", judgement) for judgement in words_of(Judgement)),
            "description": "A child is judged when a price touches it.",
        },
    }
)
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
    "PreviewOcoRequest": group_request("OcoRequest"),
    "PreviewOtoRequest": group_request("OtoRequest"),
    "PreviewBracketRequest": group_request("BracketRequest"),
    "GroupPreview": closed(
        {
            "account_id": IDENTIFIER,
            "currency": {**CURRENCY, "description": "Of every amount here."},
            "orders": {
                **list_of(OF_GROUP),
                "description": "The parent first, of a bracket then the stop loss.",
            },
            "margin": {
                **nullable(DECIMAL),
                "description": "Of the parent, of two that cancel each other of the one that takes more.",
            },
            "commission": nullable(DECIMAL),
            "free_margin_before": {**nullable(DECIMAL), "description": "Null while something held has no quote."},
            "free_margin_after": nullable(DECIMAL),
            "margin_level_before": {**nullable(DECIMAL), "description": "In percent; null while no margin is used."},
            "margin_level_after": nullable(DECIMAL),
            "accepted": {"type": "boolean"},
            "refusal": refusal(DENIALS),
        }
    ),
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
GROUPED = group_preview_body(
    GroupPreview(
        ACCOUNT_ID,
        Account("USD", "margin", Decimal(100)),
        [
            PreviewedOrder(BUY_BELOW, "accepted", Decimal("1.05000"), Decimal(0), Decimal(0), Decimal("105.00")),
            PreviewedOrder(SELL_ABOVE, "when_touched", Decimal("1.25000")),
        ],
        Decimal("105.00"),
        Decimal(0),
        Worth(Decimal(100_000), Decimal(0), Decimal(0)),
        Worth(Decimal(100_000), Decimal(0), Decimal("105.00")),
        None,
    )
)
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

OPERATIONS = (
    *(
        Operation(
            route=f"{linked.route}/preview",
            operation_id=linked.operation_id.replace("create", "preview"),
            tag="orders",
            summary=f"See how such orders would be judged, as a group; nothing is written: {linked.summary.lower()}",
            permission="orders:read",
            body=ref(body),
            body_example=linked.body_example,
            errors=frozenset(
                {
                    ErrorCode.NOT_FOUND,
                    ErrorCode.UNKNOWN_SYMBOL,
                    ErrorCode.CONFLICT,
                    ErrorCode.MARKET_DATA_UNAVAILABLE,
                }
            ),
            answers={200: Answer("How each would be judged, and what it would come to.", ref("GroupPreview"), GROUPED)},
        )
        for linked, body in zip(
            LINKED, ("PreviewOcoRequest", "PreviewOtoRequest", "PreviewBracketRequest"), strict=True
        )
    ),
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
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.ORDER_NOT_CANCELABLE, ErrorCode.RISK_LIMIT_VIOLATION}),
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
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.UNKNOWN_SYMBOL}),
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
