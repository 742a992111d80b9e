"""What the watch over security goes by, and reports of the hour."""

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
    whole_list_of,
    word,
)
from tools.openapi.operation import Answer, Operation, Parameter
from tools.openapi.parameters import CURSOR, PAGE_LIMIT
from tools.openapi.routes.interventions import OFFICER_ID, REASON, ROLE
from trading.edge.watch_dialects import RESPONSES, SEVERITIES, TAKEN, networks_body, reports_body, rules_body
from trading.errors import ErrorCode
from trading.intervention_requests import NETWORK_CHARACTERS_MAX


def _between(least: int, most: int, field: str) -> Schema:
    return {"type": ["integer", "null"], "minimum": least, "maximum": most, "description": f"Send {TAKEN[field]}."}


NETWORK: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": NETWORK_CHARACTERS_MAX,
    "description": f"Send {TAKEN['network']}; at most a /16 of IPv4, a /32 of IPv6.",
}
SCHEMAS: Mapping[str, Schema] = {
    "SecurityRule": closed(
        {
            "rule": TEXT,
            "measure": {**word(("events", "orders", "symbols", "findings")), "description": "What is counted."},
            "subject": {**word(("address", "user")), "description": "Of whom."},
            "event_type": nullable(TEXT),
            "reasons_ignored": list_of(TEXT),
            "threshold": {"type": "integer", "minimum": 1, "description": "So many in the window are a finding."},
            "window_seconds": {"type": "integer", "minimum": 10},
            "severity": word(SEVERITIES),
            "response": {**nullable(word(RESPONSES)), "description": "What is begun once a finding."},
            "response_seconds": {"type": ["integer", "null"], "minimum": 1},
            "enabled": {"type": "boolean"},
        }
    ),
    "SecurityRuleChange": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "threshold": _between(1, 1_000_000, "threshold"),
            "window_seconds": _between(10, 86_400, "window_seconds"),
            "severity": {
                "type": ["string", "null"],
                "enum": [*SEVERITIES, None],
                "description": f"Send {TAKEN['severity']} (its case is ignored).",
            },
            "enabled": {"type": ["boolean", "null"]},
            "response": {
                "type": ["string", "null"],
                "enum": [*RESPONSES, None],
                "description": "ip_block of a rule about an address, account_suspension of one about a user, or null.",
            },
            "response_seconds": _between(1, 86_400, "response_seconds"),
            "reason": REASON,
        },
        "required": ["reason"],
    },
    "NeverBlocked": closed(
        {
            "data": list_of(closed({"network": TEXT, "reason": TEXT, "added_by": TEXT, "added_at": TIMESTAMP})),
            "total": COUNT,
        }
    ),
    "PerformanceReport": closed(
        {
            "id": IDENTIFIER,
            "hour_start": TIMESTAMP,
            "total_orders": {**COUNT, "description": "That ended in the hour."},
            "executed_orders": {**COUNT, "description": "With a fill."},
            "refused_orders": {**COUNT, "description": "For what they asked."},
            "failed_orders": {**COUNT, "description": "For a fault of ours or of a venue."},
            "error_rate": {**DECIMAL, "description": "Failed of all, in percent."},
            "latency_ms": {
                **closed(dict.fromkeys(("average", "p50", "p95", "p99"), DECIMAL)),
                "description": "Of market orders, from the account's lock to the last fill; zeros without any.",
            },
            "orders_per_hour": DECIMAL,
            "orders_per_minute": DECIMAL,
            "orders_per_second": DECIMAL,
        }
    ),
}

RULE: Mapping[str, Any] = {
    "rule": "brute_force",
    "measure": "events",
    "subject": "address",
    "event_type": "authentication_failure",
    "reasons_ignored": ["expired", "bearer_token_required"],
    "threshold": 10,
    "window_seconds": 300,
    "severity": "high",
    "response": "ip_block",
    "response_seconds": 3600,
    "enabled": True,
}
NETWORKS: tuple[Mapping[str, Any], ...] = (
    {
        "network": "192.0.2.0/24",
        "reason": "our office",
        "added_by": OFFICER_ID,
        "added_at": "2026-11-21T04:28:43.227114Z",
    },
)
REPORT: Mapping[str, Any] = {
    "id": "01a1fc5d-5c43-7f0a-9098-5ba4c43ebf88",
    "hour_start": "2026-11-21T04:00:00.000000Z",
    "total_orders": 1250,
    "executed_orders": 1200,
    "refused_orders": 47,
    "failed_orders": 3,
    "error_rate": "0.24",
    "latency_ms": {"average": "4.105", "p50": "3.300", "p95": "9.870", "p99": "21.004"},
    "orders_per_hour": "1200",
    "orders_per_minute": "20.00",
    "orders_per_second": "0.33",
}
NETWORK_BODY: Schema = closed({"network": NETWORK, "reason": REASON})
NETWORK_EXAMPLE = {"network": "192.0.2.0/24", "reason": "our office"}
NAME = Parameter("rule", TEXT, "The name of a rule.", required=True, in_path=True)
REPEATED = "It sets what is to be, so that a repeat changes nothing and takes no key. It works during maintenance too."

OPERATIONS = (
    Operation(
        route="GET /api/v1/risk/security-rules",
        operation_id="listSecurityRules",
        tag="risk",
        summary="List whom the watch over security finds",
        description=ROLE,
        permission="security:read",
        answers={200: Answer("The rules by name.", whole_list_of(ref("SecurityRule")), rules_body([RULE]))},
    ),
    Operation(
        route="PATCH /api/v1/risk/security-rules/{rule}",
        operation_id="changeSecurityRule",
        tag="risk",
        summary="Change a rule of the watch over security",
        description=f"{ROLE} What is left out stays. It holds from the next run, within a minute. {REPEATED}",
        permission="interventions:write",
        state_changing=True,
        parameters=(NAME,),
        body=ref("SecurityRuleChange"),
        body_example={"threshold": 20, "reason": "a customer's office guesses its tokens"},
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: Answer("The rule.", ref("SecurityRule"), RULE)},
    ),
    Operation(
        route="GET /api/v1/risk/never-blocked",
        operation_id="listNeverBlocked",
        tag="risk",
        summary="List the networks that no block binds",
        description=ROLE,
        permission="security:read",
        answers={200: Answer("The networks.", ref("NeverBlocked"), networks_body(NETWORKS))},
    ),
    Operation(
        route="POST /api/v1/risk/never-blocked",
        operation_id="addNeverBlocked",
        tag="risk",
        summary="Add a network that no block binds",
        description=f"{ROLE} What is blocked in it is free from then on. {REPEATED}",
        permission="interventions:write",
        state_changing=True,
        body=NETWORK_BODY,
        body_example=NETWORK_EXAMPLE,
        answers={200: Answer("The networks that there are then.", ref("NeverBlocked"), networks_body(NETWORKS))},
    ),
    Operation(
        route="DELETE /api/v1/risk/never-blocked",
        operation_id="removeNeverBlocked",
        tag="risk",
        summary="Take a network away from those that no block binds",
        description=f"{ROLE} What is blocked in it is bound again. {REPEATED}",
        permission="interventions:write",
        state_changing=True,
        body=NETWORK_BODY,
        body_example=NETWORK_EXAMPLE,
        answers={200: Answer("The networks that are left.", ref("NeverBlocked"), networks_body([]))},
    ),
    Operation(
        route="GET /api/v1/risk/performance-reports",
        operation_id="listPerformanceReports",
        tag="risk",
        summary="List reports of the hour, newest first",
        description=(
            "For the roles risk_officer, operator and on_call; another is FORBIDDEN whatever its permissions. A report "
            "is there within two minutes of the end of its hour."
        ),
        permission="alerts:write",
        parameters=(PAGE_LIMIT, CURSOR),
        answers={
            200: Answer(
                "A page of reports.",
                page_of(ref("PerformanceReport")),
                reports_body({"reports": [REPORT], "next": None}),
            )
        },
    ),
)
