"""Margin calls: who is, or was, below a margin level."""

from collections.abc import Mapping
from typing import Any

from tools.openapi.errors import ACCOUNT_ID
from tools.openapi.forms import (
    DECIMAL,
    IDENTIFIER,
    TEXT,
    TIMESTAMP,
    Schema,
    closed,
    nullable,
    page_of,
    ref,
    word,
)
from tools.openapi.operation import Answer, Operation
from tools.openapi.parameters import CURSOR, PAGE_LIMIT, one_of
from tools.openapi.routes.risk import ROLE
from trading.edge.margin_call_dialects import STATES, margin_calls_body
from trading.edge.reading_dialects import Page

PERCENT: Schema = {**DECIMAL, "description": "Percent."}
SCHEMAS: Mapping[str, Schema] = {
    "MarginCall": closed(
        {
            "episode_id": IDENTIFIER,
            "account_id": IDENTIFIER,
            "trader_id": IDENTIFIER,
            "state": word(STATES),
            "level": {**TEXT, "description": "Of its margin profile, to which it has come or from which it left."},
            "action": word(("warn", "call", "stop_out")),
            "threshold": PERCENT,
            "entered_at": TIMESTAMP,
            "entered_level": PERCENT,
            "changed_at": TIMESTAMP,
            "left_at": nullable(TIMESTAMP),
            "left_level": nullable(PERCENT),
            "equity": nullable({**DECIMAL, "description": "Now, account currency; null where a quote is missing."}),
            "margin_level": nullable({**DECIMAL, "description": "Now, percent; null as equity."}),
        }
    )
}
EPISODE: Mapping[str, Any] = {
    "episode_id": "01a218d0-8ce1-7e63-ac07-9a5910ae1ea7",
    "account_id": ACCOUNT_ID,
    "trader_id": "01a218cf-47bf-74e2-9bb3-5f737d6fe311",
    "state": "open",
    "level": "margin_call",
    "action": "call",
    "threshold": "50",
    "entered_at": "2026-11-26T17:05:05.976Z",
    "entered_level": "48.53",
    "changed_at": "2026-11-26T17:05:05.976Z",
    "left_at": None,
    "left_level": None,
    "equity": "26700.00",
    "margin_level": "48.53",
}

OPERATIONS = (
    Operation(
        route="GET /api/v1/risk/margin-calls",
        operation_id="listMarginCalls",
        tag="risk",
        summary="List who is, or was, below a margin level, newest first",
        description=ROLE,
        permission="risk:write",
        parameters=(one_of("state", STATES, "Still below a level, or not."), PAGE_LIMIT, CURSOR),
        answers={
            200: Answer(
                "A page of episodes.",
                page_of(ref("MarginCall")),
                margin_calls_body([EPISODE], Page(None, 50)),
            )
        },
    ),
)
