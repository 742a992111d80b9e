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
from tools.openapi.order_body import keyed_body
from tools.openapi.parameters import ACCOUNT_ID as ACCOUNT
from tools.openapi.parameters import CURSOR, PAGE_LIMIT, one_of, path_id
from tools.openapi.routes.orders import CREATED_MEMBERS, EXECUTION, TRADER_ID
from trading.edge.change_dialects import closed_body
from trading.edge.dialects import spoken
from trading.edge.reading_dialects import POSITION_STATUSES, positions_body
from trading.errors import ErrorCode

POSITION = closed(
    {
        "id": IDENTIFIER,
        "account_id": IDENTIFIER,
        "order_id": {**IDENTIFIER, "description": "The order that opened it."},
        "symbol": TEXT,
        "side": word(spoken("rest", side) for side in ("long", "short")),
        "status": word(["OPEN", "CLOSED"]),
        "quantity": {**DECIMAL, "description": "In lots."},
        "opened_quantity": DECIMAL,
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
        "closed_at": nullable(TIMESTAMP),
    }
)
POSITION_LEFT = closed(
    {
        "id": IDENTIFIER,
        "symbol": TEXT,
        "side": word(spoken("rest", side) for side in ("long", "short")),
        "status": word(["OPEN", "CLOSED"]),
        "quantity": DECIMAL,
        "entry_price": DECIMAL,
        "current_price": DECIMAL,
        "unrealized_pnl": DECIMAL,
        "realized_pnl": DECIMAL,
        "margin_used": DECIMAL,
    }
)
SCHEMAS: Mapping[str, Schema] = {
    "Position": POSITION,
    "CloseRequest": keyed_body({"quantity": ref("PositiveNumber"), "max_slippage": ref("NumberFromZero")}),
    "ClosingOrder": closed(
        {**CREATED_MEMBERS, "realized_pnl": DECIMAL, "currency": CURRENCY, "position": POSITION_LEFT}
    ),
}
POSITION_FACTS: Mapping[str, Any] = {
    "id": "01a1fc5d-1d65-7e95-b7ba-4385d0cd8a94",
    "account_id": ACCOUNT_ID,
    "order_id": ORDER_ID,
    "symbol": "EURUSD",
    "side": "long",
    "status": "open",
    "quantity": "0.1",
    "opened_quantity": "0.1",
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
    "closed_at": None,
}
CLOSED: Mapping[str, Any] = {
    **EXECUTION.answer,
    "side": "sell",
    "execution_price": "1.16083",
    "total_cost": "0.00",
    "realized_pnl": "10.00",
    "currency": "USD",
    "position": {
        "position_id": POSITION_FACTS["id"],
        "symbol": "EURUSD",
        "side": "long",
        "status": "closed",
        "quantity": 0,
        "entry_price": "1.15983",
        "current_price": "1.16095",
        "unrealized_pnl": "0.00",
        "realized_pnl": "10.00",
        "margin_used": "0.00",
    },
}
LIST = Answer(
    "Open positions, whole and oldest first; of closed ones or all a page, newest first.",
    {
        "anyOf": [
            closed({"data": list_of(ref("Position")), "total": COUNT}),
            closed({"data": list_of(ref("Position")), "next_cursor": nullable(IDENTIFIER)}),
        ]
    },
    positions_body([POSITION_FACTS]),
)
LIST_PARAMETERS = (
    one_of("status", POSITION_STATUSES, "Which; open when it is left out."),
    ACCOUNT,
    PAGE_LIMIT,
    CURSOR,
)

POSITIONS = (
    Operation(
        route="GET /api/v1/positions",
        operation_id="listPositions",
        tag="positions",
        summary="List your positions, open ones marked at the newest quotes",
        permission="positions:read",
        parameters=LIST_PARAMETERS,
        answers={200: LIST},
    ),
    Operation(
        route="GET /api/positions",
        operation_id="listPositionsPlainly",
        tag="positions",
        summary="The same as /api/v1/positions",
        permission="positions:read",
        parameters=LIST_PARAMETERS,
        answers={200: LIST},
    ),
    Operation(
        route="POST /api/v1/positions/{id}/close",
        operation_id="closePosition",
        tag="positions",
        summary="Close a position at the market, whole or in part",
        permission="orders:write",
        state_changing=True,
        keyed=True,
        parameters=(path_id("a position of yours"),),
        body=ref("CloseRequest"),
        body_example={"quantity": "0.1"},
        may_lack_body=True,
        errors=frozenset(
            {
                ErrorCode.NOT_FOUND,
                ErrorCode.CONFLICT,
                ErrorCode.INSUFFICIENT_POSITION,
                ErrorCode.MARKET_CLOSED,
                ErrorCode.SLIPPAGE_EXCEEDED,
                ErrorCode.MARKET_DATA_UNAVAILABLE,
            }
        ),
        answers={
            200: Answer(
                "The order that closed, and the position as it left it.",
                ref("ClosingOrder"),
                closed_body(CLOSED, TRADER_ID),
                ("Idempotency-Replayed",),
            )
        },
    ),
)
