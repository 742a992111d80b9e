"""The whole document, put together from the routes."""

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from tools.openapi.errors import DENIALS, REQUEST_ID, details_schemas, error_example, error_name, error_schema, statuses
from tools.openapi.forms import COUNT, Schema, closed, constant, ref
from tools.openapi.headers import ALWAYS, ANSWER_HEADERS, LIMITS, REQUEST_PARAMETERS
from tools.openapi.operation import Answer, Operation, Parameter
from tools.openapi.routes import OPERATIONS, SCHEMAS
from trading.edge.body import BODY_BYTES_MAX
from trading.edge.envelope import STATUS_BY_CODE, Dialect, answer_body
from trading.edge.rate_limit import LIMIT_BY_TIER
from trading.errors import ErrorCode

PATH = Path(__file__).resolve().parents[2] / "docs" / "api" / "openapi.json"

# What API Gateway answers itself: {message}, without our headers. 404 is not among them: a route that is not there is
# none of these operations.
GATEWAY_STATUSES: Mapping[int, str] = {
    413: "The request is larger than the gateway takes.",
    429: "More requests a second than the whole API takes.",
    431: "The headers are larger than the gateway takes.",
    500: "A fault of ours.",
    502: "The function ended without an answer; send the same request with the same key again.",
    503: "The function did not answer in time, or is not there; send the same request with the same key again.",
    504: "The function did not answer in time; send the same request with the same key again.",
}
TAGS: Mapping[str, str] = {
    "orders": "Executing orders and reading them back.",
    "positions": "What an account holds.",
    "account": "What an account is worth.",
    "operators": "Money and terms of anybody's account, for operators.",
    "risk": "Limits, the kill switch, steps against dangers and alerts, for officers.",
    "prices": "Bid and ask, for display; an order is filled at the price of its moment.",
    "sessions": "What a browser session needs.",
    "health": "Whether the system is well.",
}
_LIMITS = ", ".join(f"{tier} {limit}" for tier, limit in LIMIT_BY_TIER.items() if limit is not None)
DESCRIPTION = f"""\
Amounts, prices and quantities in answers are decimal strings; a request may send them as numbers or as strings. Times
are UTC. Members that an order does not know are refused; unknown query parameters are ignored, and a parameter that
comes twice counts as one with commas between its values. A body may have {BODY_BYTES_MAX} bytes.

What is under /functions/v1 answers `{{success, data, context}}` or `{{success, error, context}}`; what is under /api/v1
answers the data itself, or `{{error, message, details}}`. Messages say what to do; `details` names the field, what was
sent, and what it has to be. Codes may be added: treat one that you do not know by its status.

Requests a minute, for each group of routes: {_LIMITS}; then 429 with Retry-After.

A path or method that is not described here answers 404 `{{"message": "Not Found"}}`.

What is pushed over the WebSocket is described in websocket.md.
"""


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 description of every HTTP route."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Trading backend",
            "version": "1",
            "summary": "Order execution over HTTP.",
            "description": DESCRIPTION,
            "license": {"name": "Proprietary", "identifier": "LicenseRef-Proprietary"},
        },
        "servers": [
            {"url": "/", "description": "Where this document is served from."},
            {"url": "http://127.0.0.1:8000", "description": "The local system."},
        ],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": _components(),
    }


def text() -> str:
    """The document as it is committed."""
    return json.dumps(document(), indent=2, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in the document")


def _components() -> dict[str, Any]:
    used: set[tuple[Dialect, ErrorCode]] = {
        (operation.dialect, code) for operation in OPERATIONS for code in operation.codes()
    }
    errors = sorted(used)
    return {
        "schemas": {
            **SCHEMAS,
            "Context": closed({"requestId": {"type": "string"}, "executionTime": _MILLISECONDS}),
            "ErrorContext": closed(
                {
                    "requestId": {"type": "string"},
                    "executionTime": _MILLISECONDS,
                    "retryAfter": {"type": "integer", "minimum": 1, "description": "As Retry-After."},
                },
                optional=["retryAfter"],
            ),
            "GatewayFault": closed({"message": {"type": "string"}}),
            **details_schemas(),
            **{error_name(dialect, code): error_schema(dialect, code) for dialect, code in errors},
        },
        "examples": {error_name(dialect, code): {"value": error_example(dialect, code)} for dialect, code in errors},
        "headers": {
            name: {"description": description, "required": name in ALWAYS, "schema": schema}
            for name, (description, schema) in ANSWER_HEADERS.items()
        },
        "responses": _error_responses(),
        "parameters": dict(REQUEST_PARAMETERS),
        "securitySchemes": {
            "bearer": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "An access token. The words that a route names are permissions that it has to carry.",
            },
            "csrf": {
                "type": "apiKey",
                "in": "header",
                "name": "X-CSRF-Token",
                "description": "Besides, for the token of a browser session: GET /functions/v1/csrf-token.",
            },
        },
    }


_MILLISECONDS: Schema = {**COUNT, "description": "Milliseconds."}


def _operation(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.operation_id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "security": _security(operation),
        "parameters": list(_parameters(operation)),
        "requestBody": _request_body(operation),
        "responses": {str(status): answer for status, answer in sorted(_responses(operation).items())},
    }
    return {name: value for name, value in found.items() if value not in ("", None) or name == "security"}


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    if not operation.needs_token:
        return []
    needed = operation.permission
    choices = needed if isinstance(needed, tuple) else (needed,)
    bearers: list[dict[str, list[str]]] = [{"bearer": [each] if each else []} for each in choices]
    return [*bearers, *({**each, "csrf": []} for each in bearers if operation.needs_csrf_token)]


def _parameters(operation: Operation) -> Iterable[Mapping[str, object]]:
    for parameter in operation.parameters:
        yield _parameter(parameter)
    yield {"$ref": "#/components/parameters/X-Request-ID"}
    if operation.keyed:
        yield {"$ref": "#/components/parameters/Idempotency-Key"}


def _parameter(parameter: Parameter) -> dict[str, object]:
    found: dict[str, object] = {
        "name": parameter.name,
        "in": "path" if parameter.in_path else "query",
        "description": parameter.description,
        "schema": parameter.schema,
    }
    if parameter.required:
        found["required"] = True
    if parameter.schema.get("type") == "array":
        # One parameter with commas, not one a value.
        found |= {"style": "form", "explode": False}
    return found


def _request_body(operation: Operation) -> dict[str, Any] | None:
    if operation.body is None:
        return None
    content = {"schema": operation.body, "example": operation.body_example}
    return {"required": not operation.may_lack_body, "content": {"application/json": content}}


def _responses(operation: Operation) -> dict[int, Mapping[str, Any]]:
    errors = statuses(operation.codes())
    found: dict[int, Mapping[str, Any]] = {
        status: {"$ref": f"#/components/responses/{_error_response_name(operation.dialect, status, errors)}"}
        for status in {*errors, *GATEWAY_STATUSES}
    }
    for status, answer in operation.answers.items():
        found[status] = _answer_response(operation, status, answer)
    return found


def _answer_response(operation: Operation, status: int, answer: Answer) -> dict[str, Any]:
    """A success, or what else is no error of ours although the gateway may say the same status."""
    schemas = [_wrapped(operation.dialect, answer)]
    limits = LIMITS if operation.needs_token else ()
    replayed = ("Idempotency-Replayed",) if operation.keyed and answer.kept else ()
    always = () if status in GATEWAY_STATUSES else ALWAYS
    if status in GATEWAY_STATUSES:
        schemas.append(ref("GatewayFault"))
    return {
        "description": answer.description,
        "headers": _headers([*limits, *replayed, *answer.headers, *always]),
        "content": {
            "application/json": {
                "schema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas},
                "example": _wrapped_example(operation.dialect, answer),
            }
        },
    }


def _error_responses() -> dict[str, dict[str, Any]]:
    """Each set of codes that some operation answers with one status, named by them."""
    found: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        errors = statuses(operation.codes())
        for status in {*errors, *GATEWAY_STATUSES}:
            name = _error_response_name(operation.dialect, status, errors)
            found[name] = _error_response(operation.dialect, status, errors.get(status, []))
    return dict(sorted(found.items()))


def _error_response_name(dialect: Dialect, status: int, errors: Mapping[int, list[ErrorCode]]) -> str:
    codes = errors.get(status)
    return ".".join([dialect, str(status), *codes]) if codes else f"gateway.{status}"


def _error_response(dialect: Dialect, status: int, codes: list[ErrorCode]) -> dict[str, Any]:
    """What may come with `status`: errors of ours, and a fault that the gateway tells."""
    names = [error_name(dialect, code) for code in codes]
    schemas = [ref(name) for name in names]
    said = [f"{', '.join(codes)}."] if codes else []
    if status in GATEWAY_STATUSES:
        schemas.append(ref("GatewayFault"))
        said.append(f"{{message}}: {GATEWAY_STATUSES[status]}")
    content: dict[str, Any] = {"schema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas}}
    if names:
        content["examples"] = {name: {"$ref": f"#/components/examples/{name}"} for name in names}
    # What the gateway may say in our place comes without our headers.
    headers = [*LIMITS, *(() if status in GATEWAY_STATUSES else ALWAYS)] if codes else []
    if status in RETRYABLE:
        headers.append("Retry-After")
    if status in REPLAYABLE:
        headers.append("Idempotency-Replayed")
    return {"description": " ".join(said), "headers": _headers(headers), "content": {"application/json": content}}


RETRYABLE = (429, 503)
# Of the refusals that are kept under a key.
REPLAYABLE = tuple(sorted({STATUS_BY_CODE[code] for code in DENIALS}))


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _wrapped(dialect: Dialect, answer: Answer) -> Schema:
    if answer.bare or dialect == "rest":
        return answer.data
    return closed({"success": constant(True), "data": answer.data, "context": ref("Context")})


def _wrapped_example(dialect: Dialect, answer: Answer) -> object:
    if answer.bare:
        return answer.example
    return answer_body(dialect, answer.example, request_id=REQUEST_ID, milliseconds=12)
