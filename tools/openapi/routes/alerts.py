"""Alerts, and the incidents of critical ones."""

from collections.abc import Mapping
from typing import Any

from tools.openapi.forms import (
    COUNT,
    DECIMAL,
    IDENTIFIER,
    TEXT,
    TIMESTAMP,
    Schema,
    closed,
    list_of,
    nullable,
    page_of,
    ref,
    word,
)
from tools.openapi.operation import Answer, Operation
from tools.openapi.order_body import keyed_body
from tools.openapi.parameters import CURSOR, PAGE_LIMIT, one_of, path_id
from trading.alert_requests import NOTE_CHARACTERS_MAX
from trading.edge.alert_dialects import SEVERITIES, STATES, TAKEN, alert_body, alerts_body, incident_body
from trading.errors import ErrorCode

NOTE: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": NOTE_CHARACTERS_MAX,
    "description": f"Send {TAKEN['note']}, not only spaces, and nobody's personal data: it is kept for ever.",
}
EVENTS = (
    "opened",
    "escalated",
    "worsened",
    "acknowledged",
    "response_started",
    "response_failed",
    "notified",
    "not_notified",
    "cleared",
    "resolved",
)
SCHEMAS: Mapping[str, Schema] = {
    "AcknowledgementRequest": {
        **keyed_body({}),
        "properties": {"note": {**NOTE, "type": ["string", "null"]}, **keyed_body({})["properties"]},
    },
    "ResolutionRequest": {
        **keyed_body({}),
        "properties": {"note": NOTE, **keyed_body({})["properties"]},
        "required": ["note"],
    },
    "Alert": closed(
        {
            "id": IDENTIFIER,
            "rule": TEXT,
            "title": TEXT,
            "subject": {"type": "string", "description": "What it is about where there are several; else empty."},
            "severity": word(SEVERITIES),
            "state": word(STATES),
            "figure": TEXT,
            "comparison": word(("above", "below")),
            "threshold": {**DECIMAL, "description": "The rule's when it opened."},
            "opened_value": DECIMAL,
            "last_value": DECIMAL,
            "worst_value": DECIMAL,
            "samples": {**COUNT, "description": "How many observations the figure was of when it opened."},
            "opened_at": TIMESTAMP,
            "last_breached_at": TIMESTAMP,
            "escalation_level": {"type": "integer", "minimum": 1},
            "acknowledged_at": nullable(TIMESTAMP),
            "acknowledged_by": nullable(TEXT),
            "ended_at": nullable(TIMESTAMP),
            "resolved_by": nullable(TEXT),
            "note": nullable(TEXT),
            "incident_id": nullable(IDENTIFIER),
            "runbook": {**nullable(TEXT), "description": "A page of docs/runbooks."},
        }
    ),
    "Incident": closed(
        {
            "id": IDENTIFIER,
            "title": TEXT,
            "opened_at": TIMESTAMP,
            "closed_at": nullable(TIMESTAMP),
            "alert": ref("Alert"),
            "timeline": list_of(
                closed(
                    {
                        "place": {"type": "integer", "minimum": 1},
                        "kind": word(EVENTS),
                        "actor": {**TEXT, "description": "The id of a person, or platform."},
                        "details": {"type": "object"},
                        "at": TIMESTAMP,
                    }
                )
            ),
            "responses": list_of(
                closed(
                    {
                        "kind": TEXT,
                        "state": word(("due", "done", "failed")),
                        "outcome": {"type": ["object", "null"], "description": "The interventions that it began."},
                    }
                )
            ),
        }
    ),
}

ALERT_ID = "01a1fc5d-4b32-7d8c-8e76-3f8a2a1c9d66"
INCIDENT_ID = "01a1fc5d-4b33-7e9d-9f87-4a9b3b2dae77"
OPENED, TAKEN_ON = "2026-11-21T04:28:43.227114Z", "2026-11-21T04:30:02.118000Z"
ON_CALL = "01a1fc5d-2f10-7b8a-8c54-1d6f0e9a7b44"
OPEN: Mapping[str, Any] = {
    "id": ALERT_ID,
    "rule": "ORDER_EXECUTION_FAILURE",
    "title": "Orders fail",
    "subject": "",
    "severity": "critical",
    "state": "open",
    "figure": "order_failure_percent",
    "comparison": "above",
    "threshold": "5",
    "opened_value": "7.143",
    "last_value": "7.143",
    "worst_value": "7.143",
    "samples": 42,
    "opened_at": OPENED,
    "last_breached_at": OPENED,
    "escalation_level": 1,
    "acknowledged_at": None,
    "acknowledged_by": None,
    "ended_at": None,
    "resolved_by": None,
    "note": None,
    "incident_id": INCIDENT_ID,
    "runbook": "order-execution-failure",
}
ACKNOWLEDGED: Mapping[str, Any] = {
    **OPEN,
    "state": "acknowledged",
    "acknowledged_at": TAKEN_ON,
    "acknowledged_by": ON_CALL,
    "note": "looking",
}
RESOLVED: Mapping[str, Any] = {
    **ACKNOWLEDGED,
    "state": "resolved",
    "ended_at": "2026-11-21T04:41:10.000000Z",
    "resolved_by": ON_CALL,
    "note": "the venue is back",
}
INCIDENT: Mapping[str, Any] = {
    "id": INCIDENT_ID,
    "title": "Orders fail",
    "opened_at": OPENED,
    "closed_at": None,
    "alert": ACKNOWLEDGED,
    "timeline": [
        {"place": 1, "kind": "opened", "actor": "platform", "details": {"value": 7.143}, "at": OPENED},
        {"place": 2, "kind": "acknowledged", "actor": ON_CALL, "details": {"note": "looking"}, "at": TAKEN_ON},
    ],
    "responses": [{"kind": "maintenance", "state": "done", "outcome": {"intervention_ids": []}}],
}
ROLE = "For the roles risk_officer, operator and on_call; another is FORBIDDEN whatever its permissions."

OPERATIONS = (
    Operation(
        route="GET /api/v1/risk/alerts",
        operation_id="listAlerts",
        tag="risk",
        summary="List alerts, newest first",
        description=ROLE,
        permission="alerts:write",
        parameters=(
            one_of("state", STATES, "open: nobody has taken it on yet. acknowledged: somebody has."),
            one_of("severity", SEVERITIES, "Of that severity."),
            PAGE_LIMIT,
            CURSOR,
        ),
        answers={
            200: Answer("A page of alerts.", page_of(ref("Alert")), alerts_body({"alerts": [OPEN], "next": None}))
        },
    ),
    Operation(
        route="POST /api/v1/risk/alerts/{id}/acknowledge",
        operation_id="acknowledgeAlert",
        tag="risk",
        summary="Take an alert on",
        description=(
            f"{ROLE} From then on it escalates no further. One that somebody has taken on is answered as it is; one "
            "that has ended is CONFLICT. It works during maintenance too."
        ),
        permission="alerts:write",
        keyed=True,
        parameters=(path_id("an alert"),),
        body=ref("AcknowledgementRequest"),
        body_example={"note": "looking"},
        may_lack_body=True,
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.CONFLICT}),
        answers={200: Answer("It is taken on.", ref("Alert"), alert_body(ACKNOWLEDGED))},
    ),
    Operation(
        route="POST /api/v1/risk/alerts/{id}/resolve",
        operation_id="resolveAlert",
        tag="risk",
        summary="End an alert",
        description=(
            f"{ROLE} While its figure is still breached, another one opens. One that has ended is CONFLICT. It works "
            "during maintenance too; what the alert began is undone by DELETE /api/v1/risk/interventions/{id}."
        ),
        permission="alerts:write",
        keyed=True,
        parameters=(path_id("an alert"),),
        body=ref("ResolutionRequest"),
        body_example={"note": "the venue is back", "idempotency_key": "ticket-4714"},
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.CONFLICT}),
        answers={200: Answer("It has ended.", ref("Alert"), alert_body(RESOLVED))},
    ),
    Operation(
        route="GET /api/v1/risk/incidents/{id}",
        operation_id="getIncident",
        tag="risk",
        summary="Look at an incident with its timeline",
        description=f"{ROLE} A critical alert is an incident.",
        permission="alerts:write",
        parameters=(path_id("an incident"),),
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: Answer("The incident.", ref("Incident"), incident_body(INCIDENT))},
    ),
)
