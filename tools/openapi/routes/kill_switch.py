"""The kill switch: trading states, and winding down what is left."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tools.openapi.errors import ACCOUNT_ID
from tools.openapi.forms import (
    COUNT,
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
from tools.openapi.order_body import keyed_body
from tools.openapi.parameters import path_id
from tools.openapi.routes.operators import REASON, SAID
from tools.openapi.routes.risk import MOMENT, ROLE
from trading.confirmations import Confirmation
from trading.edge.kill_switch_dialects import progress_body, state_body, states_body, wind_down_body
from trading.errors import ErrorCode
from trading.kill_switch import StateChange, WindDownAct
from trading.kill_switch_requests import CONFIRMATION_CHARACTERS_MAX, Scope

STATE = word(["active", "reducing", "halted"])
ACTION = word(["cancel_orders", "flatten"])
SUBJECT: Mapping[str, Schema] = {
    "scope": word(words_of(Scope)),
    "symbol": {**nullable(TEXT), "description": "With the scope symbol alone."},
    "account_id": {**nullable(IDENTIFIER), "description": "With the scope account alone."},
}
CHANGE: Mapping[str, Schema] = {
    "id": IDENTIFIER,
    **SUBJECT,
    "before": STATE,
    "trading_state": STATE,
    "reason": TEXT,
    "changed_at": TIMESTAMP,
    "sequence": {**nullable(COUNT), "description": "Of the account's event, where something changed."},
}
STARTED: Mapping[str, Schema] = {
    "id": IDENTIFIER,
    **SUBJECT,
    "action": ACTION,
    "accounts": COUNT,
    "started_at": TIMESTAMP,
}
ASKED: Mapping[str, Schema] = {
    "scope": {**SUBJECT["scope"], "description": "Of whom."},
    "symbol": {"type": "string", "maxLength": 20, "description": "With the scope symbol alone."},
    "account_id": {**IDENTIFIER, "description": "With the scope account alone."},
}
SCHEMAS: Mapping[str, Schema] = {
    "TradingStateRequest": {
        **(keyed := keyed_body({})),
        "properties": {**ASKED, "trading_state": STATE, "reason": REASON, **keyed["properties"]},
        "required": ["scope", "trading_state", "reason"],
    },
    "TradingStateChange": closed({**CHANGE, "settled": {"type": "boolean"}}),
    "TradingStates": closed(
        {
            "platform": STATE,
            "symbols": list_of(closed({"symbol": TEXT, "trading_state": STATE})),
            "accounts": list_of(closed({"account_id": IDENTIFIER, "trading_state": STATE})),
            "changes": list_of(closed({**CHANGE, "actor": TEXT})),
        }
    ),
    "WindDownRequest": {
        **keyed,
        "properties": {
            **ASKED,
            "action": ACTION,
            "reason": REASON,
            "confirmation": {"type": "string", "minLength": 1, "maxLength": CONFIRMATION_CHARACTERS_MAX},
            **keyed["properties"],
        },
        "required": ["scope", "action", "reason"],
    },
    "WindDownPreview": closed(
        {
            "accounts": COUNT,
            "working_orders": COUNT,
            "open_positions": COUNT,
            "confirmation": TEXT,
            "confirmation_expires_at": TIMESTAMP,
        }
    ),
    "WindDown": closed(STARTED),
    "WindDownProgress": closed(
        {
            **STARTED,
            "reason": TEXT,
            "actor": TEXT,
            "done": {**COUNT, "description": "Accounts."},
            "waiting": {**COUNT, "description": "Accounts that were looked at and are not done."},
            "orders_canceled": COUNT,
            "positions_closed": COUNT,
            "positions_sent": COUNT,
            "finished": {"type": "boolean"},
        }
    ),
}

OFFICER = "01a1fc5c-5be2-7d0e-a0d5-6a4c1a4a6a11"
HALTED: Mapping[str, Any] = {
    "change_id": "01a1fc5d-0b31-7c18-9d0e-64b1f7a0c2e5",
    "scope": "symbol",
    "symbol": "EURUSD",
    "account_id": None,
    "before": "active",
    "trading_state": "halted",
    "reason": SAID,
    "transact_time": MOMENT,
    "sequence": None,
}
WIND_DOWN: Mapping[str, Any] = {
    "wind_down_id": "01a1fc5d-0b31-7c18-9d0e-64b1f7a0c2e6",
    "scope": "account",
    "symbol": None,
    "account_id": ACCOUNT_ID,
    "action": "flatten",
    "accounts": 1,
    "started_at": MOMENT,
}
PROGRESS = {
    "reason": SAID,
    "actor": OFFICER,
    "done": 1,
    "waiting": 0,
    "orders_canceled": 2,
    "positions_closed": 3,
    "positions_sent": 0,
    "finished": True,
}
CONFIRMATION = Confirmation("v1.1795235323." + "0" * 64, datetime(2026, 11, 21, 4, 30, 43, tzinfo=UTC))
FOUND = frozenset({ErrorCode.NOT_FOUND, ErrorCode.UNKNOWN_SYMBOL})

OPERATIONS = (
    Operation(
        route="GET /api/v1/risk/trading-state",
        operation_id="getTradingStates",
        tag="risk",
        summary="Read what is not active, and who set what last",
        description=ROLE,
        permission="risk:write",
        answers={
            200: Answer(
                "The platform's state; symbols and accounts not active, 500 each at most; the last 100 changes.",
                ref("TradingStates"),
                states_body(
                    {
                        "platform": "active",
                        "symbols": [{"symbol": "EURUSD", "trading_state": "halted"}],
                        "accounts": [],
                        "changes": [{**HALTED, "actor": OFFICER}],
                    }
                ),
            )
        },
    ),
    Operation(
        route="POST /api/v1/risk/trading-state",
        operation_id="setTradingState",
        tag="risk",
        summary="Stop or resume trading of the platform, a symbol or an account",
        description=(
            f"{ROLE} So is an account of one's own. The strictest of the three states holds. reducing: only what "
            "lowers exposure is taken. halted: besides, no new order rests. Canceling and closing stay open. Orders "
            "that are under way are judged by it too, but for those that have read the old state already: the answer "
            "waits for them, and `settled` says that none is left."
        ),
        permission="risk:write",
        keyed=True,
        body=ref("TradingStateRequest"),
        body_example={"scope": "account", "account_id": ACCOUNT_ID, "trading_state": "halted", "reason": SAID},
        errors=FOUND,
        answers={
            200: Answer(
                "It holds.",
                ref("TradingStateChange"),
                state_body(StateChange(HALTED, replayed=False, settled=True)),
            )
        },
    ),
    Operation(
        route="POST /api/v1/risk/wind-downs",
        operation_id="windDown",
        tag="risk",
        summary="Cancel the working orders of the platform, a symbol or an account, and close its positions",
        description=(
            f"{ROLE} CONFLICT while its trading is active. Without `confirmation` nothing happens but that it is "
            "counted; the same request with the confirmation of that answer, less than two minutes old, starts it. "
            "`cancel_orders` leaves positions, `flatten` closes them too, at the market. What cannot be closed yet is "
            "tried again each minute."
        ),
        permission="risk:write",
        keyed=True,
        body=ref("WindDownRequest"),
        body_example={"scope": "account", "account_id": ACCOUNT_ID, "action": "flatten", "reason": SAID},
        errors=FOUND | {ErrorCode.CONFLICT},
        answers={
            200: Answer(
                "What it would end, and what confirms it.",
                ref("WindDownPreview"),
                wind_down_body(
                    WindDownAct({"accounts": 1, "working_orders": 2, "open_positions": 3}, False, CONFIRMATION)
                ),
                kept=False,
            ),
            202: Answer("It has begun.", ref("WindDown"), wind_down_body(WindDownAct(WIND_DOWN, False, None))),
        },
    ),
    Operation(
        route="GET /api/v1/risk/wind-downs/{id}",
        operation_id="getWindDown",
        tag="risk",
        summary="Read how far a wind-down has come",
        description=ROLE,
        permission="risk:write",
        parameters=(path_id("a wind-down"),),
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: Answer("Its figures so far.", ref("WindDownProgress"), progress_body({**WIND_DOWN, **PROGRESS}))},
    ),
)
