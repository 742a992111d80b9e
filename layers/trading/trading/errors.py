"""The errors a caller can be told about, one code each."""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

ECHO_CHARACTERS_MAX = 100


class ErrorCode(StrEnum):
    """Codes of the public error envelope; `edge.envelope` maps each to its HTTP status."""

    VALIDATION_FAILED = "VALIDATION_FAILED"
    INSUFFICIENT_MARGIN = "INSUFFICIENT_MARGIN"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    INSUFFICIENT_POSITION = "INSUFFICIENT_POSITION"
    RISK_LIMIT_VIOLATION = "RISK_LIMIT_VIOLATION"
    SLIPPAGE_EXCEEDED = "SLIPPAGE_EXCEEDED"
    MARKET_CLOSED = "MARKET_CLOSED"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    CSRF_FAILED = "CSRF_FAILED"
    KYC_REQUIRED = "KYC_REQUIRED"
    ACCOUNT_NOT_ACTIVE = "ACCOUNT_NOT_ACTIVE"
    TRADING_HALTED = "TRADING_HALTED"
    IP_BLOCKED = "IP_BLOCKED"
    NOT_FOUND = "NOT_FOUND"
    UNKNOWN_SYMBOL = "UNKNOWN_SYMBOL"
    ORDER_NOT_CANCELABLE = "ORDER_NOT_CANCELABLE"
    CONFLICT = "CONFLICT"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    MARKET_DATA_UNAVAILABLE = "MARKET_DATA_UNAVAILABLE"
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"
    VENUE_UNAVAILABLE = "VENUE_UNAVAILABLE"
    MAINTENANCE = "MAINTENANCE"


# The database raises its faults with these SQLSTATEs; everything else it raises is a defect of ours.
CODE_BY_SQLSTATE: Mapping[str, ErrorCode] = {
    "TR001": ErrorCode.NOT_FOUND,
    "TR002": ErrorCode.UNKNOWN_SYMBOL,
    "TR003": ErrorCode.IDEMPOTENCY_KEY_REUSED,
    "TR004": ErrorCode.MARKET_DATA_UNAVAILABLE,
    "TR005": ErrorCode.CONFLICT,
    "TR006": ErrorCode.VALIDATION_FAILED,
    "TR007": ErrorCode.FORBIDDEN,
    "TR009": ErrorCode.ORDER_NOT_CANCELABLE,
    "TR010": ErrorCode.CONFLICT,
    "TR011": ErrorCode.FORBIDDEN,
    "TR012": ErrorCode.CONFLICT,
    "TR013": ErrorCode.CONFLICT,
    "TR015": ErrorCode.RISK_LIMIT_VIOLATION,
}


class TradingError(Exception):
    """A refusal or a fault that the caller is told about.

    `message` says what to do. `details` holds JSON-ready values, usually `field`, `value` and `constraint`.
    `retry_after` is in seconds.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        details: Mapping[str, object] | None = None,
        *,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details: dict[str, object] = dict(details or {})
        self.retry_after = retry_after


def validation_failed(field: str, value: object, constraint: str, message: str) -> TradingError:
    """A VALIDATION_FAILED error on one `field`; `value` is echoed as `echo` writes it."""
    return TradingError(
        ErrorCode.VALIDATION_FAILED, message, {"field": field, "value": echo(value), "constraint": constraint}
    )


def echo(value: object) -> str | None:
    """What a caller sent, as JSON writes it, in at most ECHO_CHARACTERS_MAX; None for null, objects and lists."""
    match value:
        case bool():
            return str(value).lower()
        case Decimal():
            return f"{value:f}"[:ECHO_CHARACTERS_MAX]
        case str() | int() | float():
            return str(value)[:ECHO_CHARACTERS_MAX]
        case _:
            return None
