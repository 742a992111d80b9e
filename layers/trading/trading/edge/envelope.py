"""The form of every HTTP answer: status by code, envelope by dialect."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from trading.errors import ErrorCode, TradingError

type Dialect = Literal["functions", "rest"]

STATUS_BY_CODE: Mapping[ErrorCode, int] = {
    ErrorCode.VALIDATION_FAILED: 400,
    ErrorCode.INSUFFICIENT_MARGIN: 400,
    ErrorCode.INSUFFICIENT_FUNDS: 400,
    ErrorCode.INSUFFICIENT_POSITION: 400,
    ErrorCode.RISK_LIMIT_VIOLATION: 400,
    ErrorCode.SLIPPAGE_EXCEEDED: 400,
    ErrorCode.MARKET_CLOSED: 400,
    ErrorCode.PAYLOAD_TOO_LARGE: 413,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.CSRF_FAILED: 403,
    ErrorCode.KYC_REQUIRED: 403,
    ErrorCode.ACCOUNT_NOT_ACTIVE: 403,
    ErrorCode.TRADING_HALTED: 403,
    ErrorCode.IP_BLOCKED: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.UNKNOWN_SYMBOL: 404,
    ErrorCode.ORDER_NOT_CANCELABLE: 409,
    ErrorCode.CONFLICT: 409,
    ErrorCode.IDEMPOTENCY_KEY_REUSED: 422,
    ErrorCode.RATE_LIMIT_EXCEEDED: 429,
    ErrorCode.INTERNAL_ERROR: 500,
    ErrorCode.MARKET_DATA_UNAVAILABLE: 503,
    ErrorCode.DATABASE_UNAVAILABLE: 503,
    ErrorCode.VENUE_UNAVAILABLE: 503,
    ErrorCode.MAINTENANCE: 503,
}


def dialect_of(path: str) -> Dialect:
    """`rest` for what is under /api/, else `functions`."""
    return "rest" if path.startswith("/api/") else "functions"


def error_facts(error: TradingError) -> dict[str, object]:
    """The part of an error that a repeat of the request gets again: {code, message, details}."""
    return {"code": str(error.code), "message": error.message, "details": error.details}


def answer_body(dialect: Dialect, data: object, *, request_id: str, milliseconds: int) -> object:
    """The body of a success: `data` itself, or wrapped as {success, data, context}."""
    if dialect == "rest":
        return data
    return {
        "success": True,
        "data": data,
        "context": {"requestId": request_id, "executionTime": milliseconds},
    }


def error_body(dialect: Dialect, error: TradingError, *, request_id: str, milliseconds: int) -> object:
    """The body of an error, as {error, message, details} or {success, error, context}."""
    if dialect == "rest":
        return {"error": str(error.code), "message": error.message, "details": error.details}
    context: dict[str, object] = {"requestId": request_id, "executionTime": milliseconds}
    if error.retry_after is not None:
        context["retryAfter"] = error.retry_after
    return {"success": False, "error": error_facts(error), "context": context}


def timestamp(moment: datetime) -> str:
    """`moment` in UTC with milliseconds: 2026-01-31T18:08:22.493Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
