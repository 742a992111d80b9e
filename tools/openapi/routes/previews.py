"""What changes would come to, without them: of levels of a position."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from tools.openapi.errors import ACCOUNT_ID
from tools.openapi.forms import CURRENCY, DECIMAL, IDENTIFIER, TEXT, TIMESTAMP, Schema, closed, nullable, ref, word
from tools.openapi.operation import Answer, Operation
from tools.openapi.order_body import without_key
from tools.openapi.parameters import path_id
from tools.openapi.routes.orders import POSITION_ID
from tools.openapi.routes.positions import CHANGE, CHANGE_ERRORS, VERSION
from trading.edge.dialects import spoken
from trading.edge.preview_dialects import change_preview_body
from trading.position_change_preview import ChangePreview, Level, Levels
from trading.positions import Position

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
