"""Margin profiles: by which levels accounts are watched, and what a stop-out closes first."""

from collections.abc import Mapping
from typing import Any

from tools.openapi.forms import (
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
    words_of,
)
from tools.openapi.operation import Answer, Operation, Parameter
from tools.openapi.order_body import keyed_body
from tools.openapi.routes.operators import REASON, SAID
from tools.openapi.routes.risk import MOMENT, ROLE, TIERS
from trading.account_requests import (
    LEVEL_NAME_FORM,
    LEVELS_MAX,
    RELEASE_PERCENT_MAX,
    THRESHOLD_MAX,
    LevelAction,
    StopOutPolicy,
)
from trading.edge.margin_profile_dialects import changed_profile_body, profiles_body
from trading.errors import ErrorCode
from trading.order_entry import VERSION_MAX

NAME: Schema = {"type": "string", "pattern": LEVEL_NAME_FORM}
POLICY = word(words_of(StopOutPolicy))
ACTION = word(words_of(LevelAction))
LEVEL = closed(
    {
        "name": NAME,
        "action": ACTION,
        "threshold": {
            **DECIMAL,
            "description": "Percent of margin level; the level begins below it, a stop_out at it.",
        },
        "release_percent": {**DECIMAL, "description": "The level is left at so many percent of its threshold."},
    }
)
TERMS: Mapping[str, Schema] = {
    "stop_out_policy": {**POLICY, "description": "What a stop-out closes first."},
    "negative_balance_protection": {"type": "boolean", "description": "What trading lost below zero is given back."},
    "levels": {**list_of(LEVEL), "description": "The mildest first."},
}
VERSION: Schema = {"type": "integer", "minimum": 1, "maximum": VERSION_MAX}
SCHEMAS: Mapping[str, Schema] = {
    "MarginProfile": closed(
        {
            "name": TEXT,
            "description": TEXT,
            "version": {**VERSION, "description": "One more with each change."},
            **TERMS,
            "default_of": list_of(closed({"kind": word(("margin", "cash")), "account_tier": word(TIERS)})),
            "updated_at": TIMESTAMP,
            "changes": list_of(
                closed(
                    {
                        "id": IDENTIFIER,
                        "actor": TEXT,
                        "reason": TEXT,
                        "before": ref("MarginTerms"),
                        "after": ref("MarginTerms"),
                        "changed_at": TIMESTAMP,
                    }
                )
            ),
        }
    ),
    "MarginTerms": {**closed(TERMS, optional=TERMS), "description": "Those that a change has changed."},
    "MarginLevelRequest": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "name": NAME,
            "action": ACTION,
            "threshold": {"type": ["number", "string"], "description": f"Percent, 0 to {THRESHOLD_MAX}."},
            "release_percent": {
                "type": ["number", "string"],
                "description": f"Percent of the threshold, 100 to {RELEASE_PERCENT_MAX}; 105 unless given.",
            },
        },
        "required": ["name", "action", "threshold"],
    },
    "MarginProfileChangeRequest": {
        **(keyed := keyed_body({})),
        "properties": {
            "stop_out_policy": nullable(POLICY),
            "negative_balance_protection": {"type": ["boolean", "null"]},
            "levels": {
                "type": ["array", "null"],
                "items": ref("MarginLevelRequest"),
                "maxItems": LEVELS_MAX,
                "description": (
                    "In place of all. One call and one stop_out, the stop_out not above the call, the call not above "
                    "a warning; of a profile of cash accounts none."
                ),
            },
            "version": {**nullable(VERSION), "description": "The one that you saw; another is CONFLICT."},
            "reason": REASON,
            **keyed["properties"],
        },
        "required": ["reason"],
    },
    "MarginProfileChange": closed(
        {
            "name": TEXT,
            "version": VERSION,
            "before": ref("MarginTerms"),
            "after": ref("MarginTerms"),
            "updated_at": TIMESTAMP,
        }
    ),
}

STANDARD = [
    {"name": "margin_call", "action": "call", "threshold": "50", "release_percent": "105"},
    {"name": "stop_out", "action": "stop_out", "threshold": "20", "release_percent": "105"},
]
TIGHTER = [{**STANDARD[0], "threshold": "60"}, {**STANDARD[1], "threshold": "30"}]
CHANGED: Mapping[str, Any] = {"before": {"levels": STANDARD}, "after": {"levels": TIGHTER}}
PROFILE: Mapping[str, Any] = {
    "name": "standard",
    "description": "Margin call at 50 percent, stop-out at 20.",
    "version": 2,
    "stop_out_policy": "largest_loss_first",
    "negative_balance_protection": False,
    "levels": TIGHTER,
    "default_of": [{"kind": "margin", "account_tier": "gold"}],
    "updated_at": MOMENT,
    "changes": [
        {
            **CHANGED,
            "id": "01a1fc5d-0b31-7c18-9d0e-64b1f7a0c2e5",
            "actor": "01a1fc5c-5be2-7d0e-a0d5-6a4c1a4a6a11",
            "reason": SAID,
            "changed_at": MOMENT,
        }
    ],
}

OPERATIONS = (
    Operation(
        route="GET /api/v1/risk/margin-profiles",
        operation_id="listMarginProfiles",
        tag="risk",
        summary="List the margin profiles, and who changed them",
        description=ROLE,
        permission="risk:write",
        answers={
            200: Answer(
                "The profiles by name, each with its last 50 changes.",
                whole_list_of(ref("MarginProfile")),
                profiles_body([PROFILE]),
            )
        },
    ),
    Operation(
        route="PATCH /api/v1/risk/margin-profiles/{name}",
        operation_id="changeMarginProfile",
        tag="risk",
        summary="Change the levels, the stop-out policy or the protection of a margin profile",
        description=(
            f"{ROLE} They hold for all its accounts from the next look on, within a minute; an episode that is open "
            "keeps the terms by which it began."
        ),
        permission="risk:write",
        keyed=True,
        parameters=(Parameter("name", TEXT, "A margin profile.", required=True, in_path=True),),
        body=ref("MarginProfileChangeRequest"),
        body_example={
            "levels": [{"name": "margin_call", "action": "call", "threshold": "60"}, {**TIGHTER[1]}],
            "version": 1,
            "reason": SAID,
            "idempotency_key": "profile-1",
        },
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.CONFLICT}),
        answers={
            200: Answer(
                "What has changed.",
                ref("MarginProfileChange"),
                changed_profile_body({**CHANGED, "profile": "standard", "version": 2, "transact_time": MOMENT}),
            )
        },
    ),
)
