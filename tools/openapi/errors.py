"""Errors in both dialects: one schema and one real example a code."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tools.openapi.forms import DECIMAL, IDENTIFIER, PRECISE_TIMESTAMP, Schema, closed, constant, list_of, nullable, ref
from trading.edge.authentication import bearer_token
from trading.edge.body import BODY_BYTES_MAX, parse_body
from trading.edge.csrf import check_csrf_token
from trading.edge.envelope import STATUS_BY_CODE, Dialect, error_body
from trading.edge.gate import check_permission
from trading.edge.order_faults import EXAMPLES as GOOD_VALUES
from trading.edge.order_faults import TAKEN
from trading.edge.rate_limit import LIMIT_BY_TIER, RateLimit, exceeded
from trading.edge.visitors import check_blocked, check_maintenance
from trading.errors import ECHO_CHARACTERS_MAX, ErrorCode, TradingError, validation_failed
from trading.guarding.guard_copy import Standing

REQUEST_ID = "my-first-order"
ORDER_ID = "01a1fc5d-1d64-7e88-9637-cfcbef0b90a9"
ACCOUNT_ID = "01a1fc5c-77a2-7c55-8f3e-0d8b7b6d2c11"

# Faults of ours: what there is to say stands in the message.
WITHOUT_DETAILS = frozenset({ErrorCode.INTERNAL_ERROR, ErrorCode.DATABASE_UNAVAILABLE, ErrorCode.MAINTENANCE})
# Kept as a denied order, whose id the error names.
DENIALS = frozenset(
    {
        ErrorCode.KYC_REQUIRED,
        ErrorCode.ACCOUNT_NOT_ACTIVE,
        ErrorCode.TRADING_HALTED,
        ErrorCode.MARKET_CLOSED,
        ErrorCode.RISK_LIMIT_VIOLATION,
        ErrorCode.SLIPPAGE_EXCEEDED,
        ErrorCode.INSUFFICIENT_MARGIN,
        ErrorCode.INSUFFICIENT_FUNDS,
        ErrorCode.INSUFFICIENT_POSITION,
    }
)
ORDER_ERRORS = DENIALS | {
    ErrorCode.NOT_FOUND,
    ErrorCode.UNKNOWN_SYMBOL,
    ErrorCode.CONFLICT,
    ErrorCode.MARKET_DATA_UNAVAILABLE,
    ErrorCode.VENUE_UNAVAILABLE,
}

DETAILS: Mapping[str, Schema] = {
    "field": {"type": ["string", "null"], "description": "Which part of the request, by the name it was sent under."},
    "value": {
        "type": ["string", "null"],
        "description": f"What was sent, in at most {ECHO_CHARACTERS_MAX} characters; null for what is not repeated.",
    },
    "constraint": {"type": "string", "minLength": 1, "description": "What it has to be."},
}
ORDER_NOW: Schema = {"allOf": [ref("Order")], "description": "The order as it is now, where a replacement was refused."}
# What the details of a code hold besides.
MORE_DETAILS: Mapping[ErrorCode, Mapping[str, Schema]] = {
    ErrorCode.VALIDATION_FAILED: {"account_ids": {**list_of(IDENTIFIER), "description": "Name one of these."}},
    ErrorCode.INSUFFICIENT_MARGIN: {"required": DECIMAL, "available": DECIMAL, "margin_level": nullable(DECIMAL)},
    ErrorCode.INSUFFICIENT_FUNDS: {"required_balance": {"type": "number"}, "available_balance": {"type": "number"}},
    ErrorCode.INSUFFICIENT_POSITION: {"held_quantity": {"type": "number"}},
    ErrorCode.RISK_LIMIT_VIOLATION: {"limit": {"type": "string", "description": "The limit that the order breaks."}},
    ErrorCode.MARKET_CLOSED: {"opens_at": nullable(PRECISE_TIMESTAMP)},
    ErrorCode.CONFLICT: {
        "order": ORDER_NOW,
        "position": {**ref("Position"), "description": "As it is, where it has another version."},
    },
    ErrorCode.ORDER_NOT_CANCELABLE: {"order": ORDER_NOW},
}
NOT_ALWAYS = frozenset({"account_ids", "order_id", "order", "position", "limit"})


def error_schema(dialect: Dialect, code: ErrorCode) -> Schema:
    """The whole body of an error of one code."""
    message: Schema = {"type": "string", "minLength": 1}
    details = ref(details_name(code))
    if dialect == "rest":
        return closed({"error": constant(code.value), "message": message, "details": details})
    return closed(
        {
            "success": constant(False),
            "error": closed({"code": constant(code.value), "message": message, "details": details}),
            "context": ref("ErrorContext"),
        }
    )


def details_schemas() -> dict[str, Schema]:
    """The components that `details_name` names."""
    return {details_name(code): _details(code) for code in ErrorCode}


def details_name(code: ErrorCode) -> str:
    """The component of the details of one code; most share theirs."""
    if code in WITHOUT_DETAILS:
        return "NoDetails"
    if code in MORE_DETAILS:
        return f"Details.{code}"
    return "DenialDetails" if code in DENIALS else "Details"


def _details(code: ErrorCode) -> Schema:
    if code in WITHOUT_DETAILS:
        return closed({})
    more = dict(MORE_DETAILS.get(code, {}))
    if code in DENIALS:
        more["order_id"] = {**IDENTIFIER, "description": "The denied order, where one was kept."}
    return closed({**DETAILS, **more}, optional=NOT_ALWAYS)


def error_name(dialect: Dialect, code: ErrorCode) -> str:
    """The component of `error_schema`, and of its example."""
    return f"{dialect}.{code}"


def error_example(dialect: Dialect, code: ErrorCode) -> object:
    """The body of a real error of one code."""
    return error_body(dialect, EXAMPLES[code], request_id=REQUEST_ID, milliseconds=4)


def statuses(codes: frozenset[ErrorCode]) -> dict[int, list[ErrorCode]]:
    """`codes` by their HTTP status, both in the order of the code's own tables."""
    by_status: dict[int, list[ErrorCode]] = {}
    for code, status in STATUS_BY_CODE.items():
        if code in codes:
            by_status.setdefault(status, []).append(code)
    return by_status


def _raised(step: Callable[[], object]) -> TradingError:
    """The refusal that the code itself makes."""
    try:
        step()
    except TradingError as error:
        return error
    raise AssertionError("this was to be refused")


def _denied(code: ErrorCode, message: str, field: str, value: str | None, constraint: str, **more: Any) -> TradingError:
    details = {"field": field, "value": value, "constraint": constraint, **more, "order_id": ORDER_ID}
    return TradingError(code, message, details)


def _refused(code: ErrorCode, message: str, field: str, value: str | None, constraint: str) -> TradingError:
    return TradingError(code, message, {"field": field, "value": value, "constraint": constraint})


_NOW = datetime(2026, 11, 21, 4, 28, 43, tzinfo=UTC)
_GOLD = LIMIT_BY_TIER["gold"] or 0

EXAMPLES: Mapping[ErrorCode, TradingError] = {
    ErrorCode.VALIDATION_FAILED: validation_failed(
        "quantity",
        "1,5",
        TAKEN["quantity"],
        f"Send quantity as {TAKEN['quantity']}, such as {GOOD_VALUES['quantity']}.",
    ),
    ErrorCode.INSUFFICIENT_MARGIN: _denied(
        ErrorCode.INSUFFICIENT_MARGIN,
        "This order needs 5800.65 USD of free margin; you have 412.20. Reduce the quantity, close a position or "
        "deposit.",
        "quantity",
        None,
        "margin within the free margin",
        required="5800.65",
        available="412.20",
        margin_level="107.37",
    ),
    ErrorCode.INSUFFICIENT_FUNDS: _denied(
        ErrorCode.INSUFFICIENT_FUNDS,
        "Insufficient funds for $15,000 order; available: $96.40",
        "quantity",
        None,
        "cost within the available balance",
        required_balance=15003.6,
        available_balance=96.4,
    ),
    ErrorCode.INSUFFICIENT_POSITION: _denied(
        ErrorCode.INSUFFICIENT_POSITION,
        "You can sell at most 60 here, which closes what you hold.",
        "quantity",
        "100",
        "at most 60",
        held_quantity=60,
    ),
    ErrorCode.RISK_LIMIT_VIOLATION: _denied(
        ErrorCode.RISK_LIMIT_VIOLATION,
        "Your limit is 10 open positions; close one first.",
        "max_positions",
        "11",
        "at most 10",
        limit="max_positions",
    ),
    ErrorCode.SLIPPAGE_EXCEEDED: _denied(
        ErrorCode.SLIPPAGE_EXCEEDED,
        "The price slips by 0.00012; you allow 0.0001. Allow more or reduce the quantity.",
        "max_slippage",
        "0.0001",
        "at least 0.00012",
    ),
    ErrorCode.MARKET_CLOSED: _denied(
        ErrorCode.MARKET_CLOSED,
        "The market of AAPL is closed. Send the order again when it opens.",
        "symbol",
        "AAPL",
        "an open market",
        opens_at="2026-11-23T14:30:00.000000Z",
    ),
    ErrorCode.PAYLOAD_TOO_LARGE: _raised(lambda: parse_body(b" " * (BODY_BYTES_MAX + 1))),
    ErrorCode.UNAUTHENTICATED: _raised(lambda: bearer_token(None)),
    ErrorCode.FORBIDDEN: _raised(lambda: check_permission(frozenset(), "orders:write")),
    ErrorCode.CSRF_FAILED: _raised(lambda: check_csrf_token("a secret", "", UUID(ACCOUNT_ID), "a session", _NOW)),
    ErrorCode.KYC_REQUIRED: _denied(
        ErrorCode.KYC_REQUIRED,
        "Your identity is not verified yet. Finish the verification, then trade.",
        "kyc_status",
        "pending",
        "verified",
    ),
    ErrorCode.ACCOUNT_NOT_ACTIVE: _denied(
        ErrorCode.ACCOUNT_NOT_ACTIVE,
        "Your account is suspended. You may close positions; to trade again, contact support.",
        "account_status",
        "suspended",
        "active",
    ),
    ErrorCode.TRADING_HALTED: _denied(
        ErrorCode.TRADING_HALTED,
        "New exposure in EURUSD is halted at the moment. You may close positions.",
        "trading_state",
        "halted/active/active",
        "active",
    ),
    ErrorCode.IP_BLOCKED: _raised(lambda: check_blocked(Standing(known=True, blocked_seconds=1800))),
    ErrorCode.NOT_FOUND: _refused(
        ErrorCode.NOT_FOUND,
        "You have no order with this id. GET /api/v1/orders lists yours.",
        "id",
        ORDER_ID,
        "an order of yours",
    ),
    ErrorCode.UNKNOWN_SYMBOL: _refused(
        ErrorCode.UNKNOWN_SYMBOL,
        "There is no instrument EURUSX. Check the spelling of symbol.",
        "symbol",
        "EURUSX",
        "a known symbol",
    ),
    ErrorCode.ORDER_NOT_CANCELABLE: _refused(
        ErrorCode.ORDER_NOT_CANCELABLE,
        "This order does not work any more, so there is nothing to cancel.",
        "id",
        ORDER_ID,
        "a working order",
    ),
    ErrorCode.CONFLICT: _refused(
        ErrorCode.CONFLICT,
        "client_order_id was used for another order. Send a new one.",
        "client_order_id",
        "my-order-1",
        "unique in the account",
    ),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: _refused(
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
        "This idempotency key was used for another request. Send a new key with new content.",
        "idempotency_key",
        REQUEST_ID,
        "one key, one request",
    ),
    ErrorCode.RATE_LIMIT_EXCEEDED: exceeded(RateLimit(_GOLD, 0, 1795235355, 12), "came from you"),
    ErrorCode.INTERNAL_ERROR: TradingError(
        ErrorCode.INTERNAL_ERROR,
        "Something went wrong on our side. Send the same request again, or ask support with this request id.",
    ),
    ErrorCode.MARKET_DATA_UNAVAILABLE: TradingError(
        ErrorCode.MARKET_DATA_UNAVAILABLE,
        "There is no price yet. Ask again in a moment.",
        {"field": "symbol", "value": "EURUSD", "constraint": "a quote"},
        retry_after=1,
    ),
    ErrorCode.DATABASE_UNAVAILABLE: TradingError(
        ErrorCode.DATABASE_UNAVAILABLE,
        "The order database does not answer. Nothing is known to be lost: send the same request with the same "
        "idempotency key again.",
        retry_after=1,
    ),
    ErrorCode.VENUE_UNAVAILABLE: TradingError(
        ErrorCode.VENUE_UNAVAILABLE,
        "The venue does not answer. The order is looked up there before anything is sent again.",
        {"field": None, "value": None, "constraint": "a venue that answers"},
        retry_after=1,
    ),
    ErrorCode.MAINTENANCE: _raised(lambda: check_maintenance(Standing(known=True, maintenance_seconds=900))),
}
