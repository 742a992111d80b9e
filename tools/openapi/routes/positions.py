"""Positions."""

from collections.abc import Mapping
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
from tools.openapi.parameters import ACCOUNT_ID as ACCOUNT
from trading.edge.dialects import spoken
from trading.edge.reading_dialects import positions_body

POSITION = closed(
    {
        "id": IDENTIFIER,
        "account_id": IDENTIFIER,
        "order_id": {**IDENTIFIER, "description": "The order that opened it."},
        "symbol": TEXT,
        "side": word(spoken("rest", side) for side in ("long", "short")),
        "status": word(["OPEN"]),
        "quantity": {**DECIMAL, "description": "In lots."},
        "entry_price": DECIMAL,
        "current_price": {
            **nullable(DECIMAL),
            "description": "What closing would bring now: bid of a long, ask of a short; null without a usable quote.",
        },
        "unrealized_pnl": {**nullable(DECIMAL), "description": "In `currency`, as all amounts here."},
        "realized_pnl": DECIMAL,
        "currency": CURRENCY,
        "margin_used": DECIMAL,
        "stop_loss": nullable(DECIMAL),
        "take_profit": nullable(DECIMAL),
        "commission_paid": DECIMAL,
        "created_at": TIMESTAMP,
        "updated_at": TIMESTAMP,
    }
)
SCHEMAS: Mapping[str, Schema] = {"Position": POSITION}
POSITION_FACTS: Mapping[str, Any] = {
    "id": "01a1fc5d-1d65-7e95-b7ba-4385d0cd8a94",
    "account_id": ACCOUNT_ID,
    "order_id": ORDER_ID,
    "symbol": "EURUSD",
    "side": "long",
    "quantity": "0.1",
    "entry_price": "1.15983",
    "current_price": "1.15963",
    "unrealized_pnl": "-2.00",
    "realized_pnl": "0.00",
    "currency": "USD",
    "margin_used": "115.98",
    "stop_loss": None,
    "take_profit": None,
    "commission_paid": "0.00",
    "created_at": "2026-11-21T04:28:43.227114Z",
    "updated_at": "2026-11-21T04:28:43.227114Z",
}

POSITIONS = (
    Operation(
        route="GET /api/v1/positions",
        operation_id="listPositions",
        tag="positions",
        summary="List your open positions, marked at the newest quotes",
        permission="positions:read",
        parameters=(ACCOUNT,),
        answers={
            200: Answer(
                "The open positions.",
                closed({"data": list_of(ref("Position")), "total": COUNT}),
                positions_body([POSITION_FACTS]),
            )
        },
    ),
)
