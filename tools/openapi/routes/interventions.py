"""What officers do against dangers, and what was noted at the edge."""

from collections.abc import Mapping
from typing import Any

from tools.openapi.errors import ACCOUNT_ID
from tools.openapi.forms import IDENTIFIER, TEXT, TIMESTAMP, Schema, closed, nullable, page_of, ref, word
from tools.openapi.operation import Answer, Operation, Parameter
from tools.openapi.order_body import keyed_body
from tools.openapi.parameters import CURSOR, PAGE_LIMIT, one_of, path_id
from trading.account_requests import REASON_CHARACTERS_MAX
from trading.edge.intervention_dialects import (
    EVENT_TYPES,
    KINDS,
    SEVERITIES,
    STATES,
    TAKEN,
    events_body,
    intervention_body,
    interventions_body,
)
from trading.edge.reading_dialects import Page
from trading.errors import ErrorCode
from trading.intervention_requests import PARAMETERS_MAX, SECONDS_MAX, TARGET_CHARACTERS_MAX

REASON: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": REASON_CHARACTERS_MAX,
    "description": f"Send {TAKEN['reason']}, not only spaces, and nobody's personal data: it is kept for ever.",
}
TARGET = (
    "The address of ip_block, the account's id of account_suspension, of reserved_concurrency execute_order, of "
    "price_provider quotes; maintenance has none."
)
SCHEMAS: Mapping[str, Schema] = {
    "InterventionRequest": {
        **keyed_body({}),
        "properties": {
            "kind": {**word(KINDS), "description": f"Send {TAKEN['kind']} (its case is ignored)."},
            "target": {
                "type": ["string", "null"],
                "minLength": 1,
                "maxLength": TARGET_CHARACTERS_MAX,
                "description": TARGET,
            },
            "parameters": {
                "type": ["object", "null"],
                "maxProperties": PARAMETERS_MAX,
                "description": (
                    "Of maintenance {level}: reducing, unless told otherwise, in which orders can be canceled and "
                    "positions closed and protected, or full. Of reserved_concurrency {concurrency}, as far as "
                    "AlertConcurrencyMax; of price_provider {provider}, the one that stands by (QuoteStandbyProvider)."
                ),
            },
            "seconds": {
                "type": "integer",
                "minimum": 1,
                "maximum": SECONDS_MAX,
                "description": "How long. Maintenance 4 hours at most, reserved_concurrency and price_provider a day.",
            },
            "reason": REASON,
            **keyed_body({})["properties"],
        },
        "required": ["kind", "seconds", "reason"],
    },
    "Intervention": closed(
        {
            "id": IDENTIFIER,
            "kind": word(KINDS),
            "target": {**nullable(TEXT), "description": "Null for a blocked address that was erased."},
            "parameters": {"type": "object"},
            "reason": TEXT,
            "actor": {**TEXT, "description": "The id of a person, or rule:<its name>."},
            "rule": nullable(TEXT),
            "state": word(("active", "expired", "undone")),
            "started_at": TIMESTAMP,
            "expires_at": TIMESTAMP,
            "undone_at": nullable(TIMESTAMP),
            "undone_by": nullable(TEXT),
            "undo_reason": nullable(TEXT),
            "carried_out_at": nullable(TIMESTAMP),
            "reverted_at": nullable(TIMESTAMP),
            "outcome": {"type": "object", "description": "What it was before, and what came of it."},
        }
    ),
    "SecurityEvent": closed(
        {
            "id": IDENTIFIER,
            "event_type": word(EVENT_TYPES),
            "severity": word(SEVERITIES),
            "reason": {**TEXT, "description": "What was wrong, or which rule found it."},
            "user_id": {**nullable(IDENTIFIER), "description": "Whose token it was; null where none was good."},
            "ip_address": {**nullable(TEXT), "description": "Of IPv6 the network; null once it was erased."},
            "user_agent": {"type": ["string", "null"]},
            "details": {"type": "object"},
            "occurrences": {"type": "integer", "minimum": 1, "description": "Alike ones in ten seconds are one event."},
            "occurred_at": TIMESTAMP,
        }
    ),
}

INTERVENTION_ID = "01a1fc5d-2f10-7b8a-8c54-1d6f0e9a7b33"
OFFICER_ID = "01a1fc5d-2f10-7b8a-8c54-1d6f0e9a7b44"
STARTED, ENDS = "2026-11-21T04:28:43.227114Z", "2026-11-21T05:28:43.227114Z"
ACTIVE: Mapping[str, Any] = {
    "id": INTERVENTION_ID,
    "kind": "account_suspension",
    "target": ACCOUNT_ID,
    "parameters": {},
    "reason": "orders that its owner denies",
    "actor": OFFICER_ID,
    "rule": None,
    "state": "active",
    "started_at": STARTED,
    "expires_at": ENDS,
    "undone_at": None,
    "undone_by": None,
    "undo_reason": None,
    "carried_out_at": None,
    "reverted_at": None,
    "outcome": {"before": "active"},
}
UNDONE: Mapping[str, Any] = {**ACTIVE, "state": "undone", "undone_at": ENDS, "undone_by": OFFICER_ID}
EVENT: Mapping[str, Any] = {
    "id": "01a1fc5d-3a21-7c9b-9d65-2e7f1f0b8c55",
    "event_type": "authentication_failure",
    "severity": "low",
    "reason": "signature",
    "user_id": None,
    "ip_address": "198.51.100.9",
    "user_agent": "curl/8.5.0",
    "details": {},
    "occurrences": 4,
    "occurred_at": "2026-11-21T04:28:40.000000Z",
}
PAGE = Page(None, 50)
PAGED = (PAGE_LIMIT, CURSOR)
ROLE = "For the roles risk_officer and operator; another is FORBIDDEN whatever its permissions."

OPERATIONS = (
    Operation(
        route="POST /api/v1/risk/interventions",
        operation_id="startIntervention",
        tag="risk",
        summary="Start a step that can be taken back",
        description=(
            f"{ROLE} It ends by itself after `seconds`, or by DELETE. Of one kind and target one is in force at a "
            "time: the answer to a second is the first, with 200, unless it has other parameters: CONFLICT. It works "
            "during maintenance too. An account of one's own and the address that one asks from are FORBIDDEN; an "
            "account that is not active, and what nothing is configured to carry out, is CONFLICT."
        ),
        permission="interventions:write",
        keyed=True,
        body=ref("InterventionRequest"),
        body_example={
            "kind": "reserved_concurrency",
            "target": "execute_order",
            "parameters": {"concurrency": 60},
            "seconds": 3600,
            "reason": "orders wait for a free copy",
            "idempotency_key": "ticket-4713",
        },
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.CONFLICT}),
        answers={
            200: Answer("One that is in force already.", ref("Intervention"), intervention_body(ACTIVE), kept=False),
            201: Answer("It is in force.", ref("Intervention"), intervention_body(ACTIVE)),
        },
    ),
    Operation(
        route="GET /api/v1/risk/interventions",
        operation_id="listInterventions",
        tag="risk",
        summary="List interventions, newest first",
        description=ROLE,
        permission="interventions:write",
        parameters=(one_of("state", STATES, "In force, or not."), one_of("kind", KINDS, "Of that kind."), *PAGED),
        answers={
            200: Answer("A page of interventions.", page_of(ref("Intervention")), interventions_body([ACTIVE], PAGE))
        },
    ),
    Operation(
        route="DELETE /api/v1/risk/interventions/{id}",
        operation_id="undoIntervention",
        tag="risk",
        summary="Take an intervention back",
        description=(
            f"{ROLE} An account gets back the status that it had, unless somebody has changed it since. One that is "
            "over already is answered as it is, so that a repeat does nothing. It works during maintenance too."
        ),
        permission="interventions:write",
        state_changing=True,
        parameters=(path_id("an intervention"),),
        body=closed({"reason": {**REASON, "type": ["string", "null"]}}, optional=("reason",)),
        body_example={"reason": "the owner has confirmed the orders"},
        may_lack_body=True,
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: Answer("It is over.", ref("Intervention"), intervention_body(UNDONE))},
    ),
    Operation(
        route="GET /api/v1/risk/security-events",
        operation_id="listSecurityEvents",
        tag="risk",
        summary="List what was noted at the edge, newest first",
        description=f"{ROLE} Events come within a minute.",
        permission="security:read",
        parameters=(
            one_of("event_type", EVENT_TYPES, "Of that type."),
            one_of("severity", SEVERITIES, "Of that severity."),
            Parameter("user_id", IDENTIFIER, "Of that user."),
            Parameter("address", TEXT, "Of that IP address."),
            *PAGED,
        ),
        answers={200: Answer("A page of events.", page_of(ref("SecurityEvent")), events_body([EVENT], PAGE))},
    ),
)
