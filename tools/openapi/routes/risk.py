"""Limits: what binds an account, and what risk officers change."""

from collections.abc import Mapping
from typing import Any

from tools.openapi.errors import ACCOUNT_ID
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
    whole_list_of,
    word,
)
from tools.openapi.operation import Answer, Operation, Parameter
from tools.openapi.order_body import keyed_body
from tools.openapi.parameters import ACCOUNT_ID as ACCOUNT
from tools.openapi.parameters import path_id
from tools.openapi.routes.operators import REASON, SAID, SEQUENCE
from trading.edge.risk_dialects import COUNTS, changed_body, settings_body, tiers_body
from trading.errors import ErrorCode

TIERS = ("bronze", "silver", "gold", "platinum")
# name -> what it means; which of them count is for the code to say.
MEANINGS: Mapping[str, str] = {
    "max_order_quantity": "Lots of one order.",
    "max_order_notional": "Value of one order, account currency.",
    "max_position_size": "Lots of one symbol and side.",
    "max_positions": "Open positions.",
    "max_working_orders": "Orders at rest.",
    "max_exposure": "Value of all open positions, account currency.",
    "max_concentration_percent": "Share of one symbol in the exposure.",
    "concentration_from_exposure": "Exposure up to which no share is judged, account currency.",
    "order_rate_limit": "Orders within order_rate_window_s.",
    "order_rate_window_s": "Seconds.",
    "duplicate_window_ms": "Milliseconds within which the same order is not taken again.",
    "daily_trade_limit": "Filled orders a day.",
    "max_daily_loss": "Realized and open, against the day's equity at its start, account currency.",
    "max_drawdown_percent": "Of the highest equity.",
    "max_losses_in_a_row": "Closes at a loss, one after the other, that reduce the account's trading.",
    "stop_loss_min_percent": "Distance of a stop loss from the price, at least.",
    "stop_loss_max_percent": "Distance of a stop loss from the price, at most.",
    "price_collar_percent": "Distance of a limit or stop price from the quote, at most.",
    "day_start_hour": "Hour at which the account's day begins, 0 to 23.",
}
LIMITS: Mapping[str, Schema] = {
    **{
        name: nullable({**(COUNT if name in COUNTS else DECIMAL), "description": meaning})
        for name, meaning in MEANINGS.items()
    },
    "stop_loss_required": {"type": ["boolean", "null"], "description": "Orders that add exposure need a stop loss."},
    "restricted_symbols": {"type": ["array", "null"], "items": TEXT, "description": "Nothing is added to them."},
    "leverage_profile": {"type": ["string", "null"], "description": "Whose caps of leverage hold."},
    "day_time_zone": {"type": ["string", "null"], "description": "Of day_start_hour, as America/New_York."},
}
UNLIMITED: Schema = {"const": "unlimited"}
OWN: Mapping[str, Schema] = {name: {"anyOf": [form, UNLIMITED]} for name, form in LIMITS.items()}
# A value may come as a number or as text.
SET: Schema = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": 50,
    "description": (
        "New values by name. null: what the tier has, or of a tier nothing. 'unlimited' lifts a limit of the tier from "
        "an account."
    ),
}
CHANGE = closed(
    {
        "id": IDENTIFIER,
        "actor": TEXT,
        "reason": TEXT,
        "before": ref("SomeLimits"),
        "after": ref("SomeLimits"),
        "changed_at": TIMESTAMP,
    }
)
SETTINGS: Mapping[str, Schema] = {
    "account_id": IDENTIFIER,
    "tier": word(TIERS),
    "currency": CURRENCY,
    "limits": {**ref("RiskLimits"), "description": "What binds the account."},
    "own": {**ref("SomeLimits"), "description": "What is set for the account alone."},
    "tier_limits": ref("RiskLimits"),
    "day": nullable(
        closed({"starts_at": TIMESTAMP, "ends_at": TIMESTAMP, "start_equity": DECIMAL, "peak_equity": DECIMAL})
    ),
}
SCHEMAS: Mapping[str, Schema] = {
    "RiskLimits": {**closed(LIMITS), "description": "One that is null does not bind."},
    "SomeLimits": closed(OWN, optional=OWN),
    "RiskSettings": closed(SETTINGS),
    "RiskSettingsWithChanges": closed({**SETTINGS, "changes": list_of(CHANGE)}),
    "TierLimits": closed(
        {
            "tier": word(TIERS),
            "limits": ref("RiskLimits"),
            "updated_at": TIMESTAMP,
            "changes": list_of(CHANGE),
        }
    ),
    "RiskChangeRequest": {
        **(keyed := keyed_body({})),
        "properties": {"limits": SET, "reason": REASON, **keyed["properties"]},
        "required": ["limits", "reason"],
    },
    "RiskChange": closed(
        {
            "account_id": IDENTIFIER,
            "sequence": SEQUENCE,
            "before": ref("SomeLimits"),
            "after": ref("SomeLimits"),
            "updated_at": TIMESTAMP,
        }
    ),
    "TierChange": closed(
        {"tier": word(TIERS), "before": ref("SomeLimits"), "after": ref("SomeLimits"), "updated_at": TIMESTAMP}
    ),
}

MOMENT = "2026-11-21T04:28:43.227114Z"
TIER_FACTS: Mapping[str, Any] = {
    **dict.fromkeys(LIMITS),
    "max_order_notional": 250000000,
    "max_position_size": 100000,
    "max_positions": 10,
    "max_working_orders": 100,
    "daily_trade_limit": 100,
    "max_daily_loss": 10000,
    "price_collar_percent": 80,
    "day_time_zone": "UTC",
    "day_start_hour": 0,
}
CHANGED: Mapping[str, Any] = {"before": {"max_positions": None}, "after": {"max_positions": 5}}
CHANGES = [
    {
        **CHANGED,
        "id": "01a1fc5d-0b31-7c18-9d0e-64b1f7a0c2e5",
        "actor": "01a1fc5c-5be2-7d0e-a0d5-6a4c1a4a6a11",
        "reason": SAID,
        "changed_at": MOMENT,
    }
]
SETTINGS_FACTS: Mapping[str, Any] = {
    "account_id": ACCOUNT_ID,
    "tier": "gold",
    "currency": "USD",
    "limits": {**TIER_FACTS, "max_positions": 5, "stop_loss_required": False},
    "own": {"max_positions": 5},
    "tier_limits": TIER_FACTS,
    "day": {
        "starts_at": "2026-11-21T00:00:00.000000Z",
        "ends_at": "2026-11-22T00:00:00.000000Z",
        "start_equity": "100000.00",
        "peak_equity": "100250.00",
    },
}
ROLE = "For the role risk_officer alone; another is FORBIDDEN whatever its permissions."
BODY_EXAMPLE = {"limits": {"max_positions": 5, "max_exposure": "500000"}, "reason": SAID, "idempotency_key": "risk-7"}
TIER = Parameter("tier", word(TIERS), "A tier.", required=True, in_path=True)

OPERATIONS = (
    Operation(
        route="GET /api/v1/risk/settings",
        operation_id="getOwnRiskSettings",
        tag="account",
        summary="Read what limits your account",
        permission="account:read",
        parameters=(ACCOUNT,),
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: Answer("The limits.", ref("RiskSettings"), settings_body(SETTINGS_FACTS))},
    ),
    Operation(
        route="GET /api/v1/risk/settings/{id}",
        operation_id="getRiskSettings",
        tag="risk",
        summary="Read what limits an account, and who changed it",
        description=ROLE,
        permission="risk:write",
        parameters=(path_id("an account"),),
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={
            200: Answer(
                "The limits and the last 50 changes, newest first.",
                ref("RiskSettingsWithChanges"),
                settings_body({**SETTINGS_FACTS, "changes": CHANGES}),
            )
        },
    ),
    Operation(
        route="PATCH /api/v1/risk/settings/{id}",
        operation_id="changeRiskSettings",
        tag="risk",
        summary="Change the limits of an account",
        description=(
            f"{ROLE} So is an account of one's own: another officer has to act on it. What is left out stays. It holds "
            "from the next order on; a changed day from the next day on."
        ),
        permission="risk:write",
        keyed=True,
        parameters=(path_id("an account"),),
        body=ref("RiskChangeRequest"),
        body_example=BODY_EXAMPLE,
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={
            200: Answer(
                "What has changed.",
                ref("RiskChange"),
                changed_body({**CHANGED, "account_id": ACCOUNT_ID, "sequence": 3, "transact_time": MOMENT}),
            )
        },
    ),
    Operation(
        route="GET /api/v1/risk/defaults",
        operation_id="listRiskDefaults",
        tag="risk",
        summary="List the limits of each tier, and who changed them",
        description=ROLE,
        permission="risk:write",
        answers={
            200: Answer(
                "The tiers, lowest first, each with its last 50 changes.",
                whole_list_of(ref("TierLimits")),
                tiers_body([{"tier": "gold", "limits": TIER_FACTS, "updated_at": MOMENT, "changes": CHANGES}]),
            )
        },
    ),
    Operation(
        route="PATCH /api/v1/risk/defaults/{tier}",
        operation_id="changeRiskDefaults",
        tag="risk",
        summary="Change the limits of a tier",
        description=f"{ROLE} They hold at once for every account of the tier that has none of its own.",
        permission="risk:write",
        keyed=True,
        parameters=(TIER,),
        body=ref("RiskChangeRequest"),
        body_example=BODY_EXAMPLE,
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={
            200: Answer(
                "What has changed.",
                ref("TierChange"),
                changed_body({**CHANGED, "tier": "gold", "transact_time": MOMENT}),
            )
        },
    ),
)
