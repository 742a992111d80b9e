"""Whether the system is well."""

from collections.abc import Mapping

from tools.openapi.forms import COUNT, TEXT, TIMESTAMP, Schema, closed, constant, ref, word
from tools.openapi.operation import Answer, Operation
from trading.errors import ErrorCode
from trading.health import Check

CHECKS = ("database", "redis", "external_apis", "websocket")
SCHEMAS: Mapping[str, Schema] = {
    "Health": closed(
        {
            "status": word(["ok", "error"]),
            "timestamp": TIMESTAMP,
            "uptime": {**COUNT, "description": "Seconds since this copy started."},
            "version": TEXT,
            "environment": TEXT,
            "checks": closed(dict.fromkeys(CHECKS, ref("HealthCheck"))),
        }
    ),
    "HealthCheck": closed(
        {
            "status": word(["ok", "error"]),
            "latency": {**COUNT, "description": "Milliseconds."},
            "details": TEXT,
        }
    ),
}


def _health(status: str, redis: Check) -> dict[str, object]:
    answers = "The database answers."
    prices = "36 of 36 open symbols have a fresh quote, the newest is 112 ms old."
    checks = {
        "database": Check("ok", 3, answers),
        "redis": redis,
        "external_apis": Check("ok", 0, prices),
        "websocket": Check("ok", 9, "The connections endpoint answers."),
    }
    return {
        "status": status,
        "timestamp": "2026-11-21T04:28:43.227Z",
        "uptime": 86,
        "version": "development",
        "environment": "local",
        "checks": {name: check.as_body() for name, check in checks.items()},
    }


OPERATIONS = (
    Operation(
        route="GET /health",
        operation_id="getHealth",
        tag="health",
        summary="Ask whether the system can take orders",
        needs_token=False,
        answers={
            200: Answer("It can.", ref("Health"), _health("ok", Check("ok", 1, "Redis answers.")), bare=True),
            503: Answer(
                "Something it needs does not answer.",
                ref("Health"),
                _health("error", Check("error", 150, "It does not answer.")),
                bare=True,
            ),
        },
    ),
    Operation(
        route="GET /api/v1/health",
        operation_id="getLiveness",
        tag="health",
        summary="Ask whether this API answers",
        needs_token=False,
        errors=frozenset({ErrorCode.DATABASE_UNAVAILABLE}),
        answers={
            200: Answer(
                "It does. Nothing behind it was looked at.",
                closed({"status": constant("ok"), "timestamp": TIMESTAMP}),
                {"status": "ok", "timestamp": "2026-11-21T04:28:43.227Z"},
            )
        },
    ),
    Operation(
        route="GET /api/health",
        operation_id="getLivenessPlainly",
        tag="health",
        summary="The same as /api/v1/health",
        needs_token=False,
        errors=frozenset({ErrorCode.DATABASE_UNAVAILABLE}),
        answers={
            200: Answer(
                "It does. Nothing behind it was looked at.",
                closed({"status": constant("ok"), "timestamp": TIMESTAMP}),
                {"status": "ok", "timestamp": "2026-11-21T04:28:43.227Z"},
            )
        },
    ),
)
