"""What a browser session needs."""

from collections.abc import Mapping

from tools.openapi.forms import TIMESTAMP, Schema, closed
from tools.openapi.operation import Answer, Operation
from trading.errors import ErrorCode

CSRF_TOKEN: Schema = {"type": "string", "pattern": r"^v1\.[0-9]{1,12}\.[0-9a-f]{32}\.[0-9a-f]{64}$"}
EXAMPLE = {
    "csrf_token": f"v1.1795235323.{'5c' * 16}.{'0a' * 32}",
    "expires_at": "2026-11-21T04:43:43.000Z",
}

SCHEMAS: Mapping[str, Schema] = {}

OPERATIONS = (
    Operation(
        route="GET /functions/v1/csrf-token",
        operation_id="getCsrfToken",
        tag="sessions",
        summary="Fetch a CSRF token for this browser session",
        description="Only for tokens with a sid claim; API clients need none.",
        errors=frozenset({ErrorCode.FORBIDDEN}),
        answers={
            200: Answer(
                "A token for the X-CSRF-Token header of what changes something.",
                closed({"csrf_token": CSRF_TOKEN, "expires_at": TIMESTAMP}),
                EXAMPLE,
            )
        },
    ),
)
