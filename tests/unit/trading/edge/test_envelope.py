"""The form of the answers."""

from datetime import datetime, timedelta, timezone

import pytest

from trading.edge.envelope import STATUS_BY_CODE, answer_body, dialect_of, error_body, timestamp
from trading.errors import ErrorCode, TradingError


def test_every_code_has_a_status() -> None:
    assert set(STATUS_BY_CODE) == set(ErrorCode)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("VALIDATION_FAILED", 400),
        ("INSUFFICIENT_MARGIN", 400),
        ("INSUFFICIENT_FUNDS", 400),
        ("INSUFFICIENT_POSITION", 400),
        ("RISK_LIMIT_VIOLATION", 400),
        ("SLIPPAGE_EXCEEDED", 400),
        ("MARKET_CLOSED", 400),
        ("PAYLOAD_TOO_LARGE", 413),
        ("UNAUTHENTICATED", 401),
        ("FORBIDDEN", 403),
        ("CSRF_FAILED", 403),
        ("KYC_REQUIRED", 403),
        ("ACCOUNT_NOT_ACTIVE", 403),
        ("TRADING_HALTED", 403),
        ("IP_BLOCKED", 403),
        ("NOT_FOUND", 404),
        ("UNKNOWN_SYMBOL", 404),
        ("ORDER_NOT_CANCELABLE", 409),
        ("CONFLICT", 409),
        ("IDEMPOTENCY_KEY_REUSED", 422),
        ("RATE_LIMIT_EXCEEDED", 429),
        ("INTERNAL_ERROR", 500),
        ("MARKET_DATA_UNAVAILABLE", 503),
        ("DATABASE_UNAVAILABLE", 503),
        ("VENUE_UNAVAILABLE", 503),
        ("MAINTENANCE", 503),
    ],
)
def test_the_status_of_a_code_is_part_of_the_contract(code: str, status: int) -> None:
    assert STATUS_BY_CODE[ErrorCode(code)] == status


def test_a_success_is_wrapped_for_functions_and_plain_for_rest() -> None:
    data = {"order_id": "x"}

    assert answer_body("rest", data, request_id="r", milliseconds=3) == data
    assert answer_body("functions", data, request_id="r", milliseconds=3) == {
        "success": True,
        "data": data,
        "context": {"requestId": "r", "executionTime": 3},
    }


def test_an_error_tells_when_to_come_back_only_where_that_is_known() -> None:
    waiting = TradingError(ErrorCode.RATE_LIMIT_EXCEEDED, "Wait.", {"constraint": "c"}, retry_after=7)
    plain = TradingError(ErrorCode.NOT_FOUND, "No.")

    assert error_body("functions", waiting, request_id="r", milliseconds=3) == {
        "success": False,
        "error": {"code": "RATE_LIMIT_EXCEEDED", "message": "Wait.", "details": {"constraint": "c"}},
        "context": {"requestId": "r", "executionTime": 3, "retryAfter": 7},
    }
    assert error_body("functions", plain, request_id="r", milliseconds=3) == {
        "success": False,
        "error": {"code": "NOT_FOUND", "message": "No.", "details": {}},
        "context": {"requestId": "r", "executionTime": 3},
    }
    assert error_body("rest", waiting, request_id="r", milliseconds=3) == {
        "error": "RATE_LIMIT_EXCEEDED",
        "message": "Wait.",
        "details": {"constraint": "c"},
    }


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/api/v1/orders", "rest"),
        ("/functions/v1/execute-order", "functions"),
        ("/health", "functions"),
        ("", "functions"),
    ],
)
def test_the_path_decides_on_the_dialect(path: str, dialect: str) -> None:
    assert dialect_of(path) == dialect


def test_times_are_told_in_utc() -> None:
    moment = datetime(2026, 1, 2, 1, 0, tzinfo=timezone(timedelta(hours=2)))

    assert timestamp(moment) == "2026-01-01T23:00:00.000Z"
