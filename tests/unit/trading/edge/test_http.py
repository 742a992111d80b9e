"""The frame of every HTTP function: ids, headers, errors, logs and metrics."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.kit.functions import call, function_environment, http_event
from trading.edge.body import BODY_BYTES_MAX
from trading.edge.http import Request, Response, http_handler
from trading.edge.security_headers import SECURITY_HEADERS
from trading.errors import ErrorCode, TradingError
from trading.settings import settings

type Route = Callable[[Request], Response]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    with function_environment(monkeypatch, tmp_path):
        yield


def handler_of(route: Route) -> Any:
    return http_handler(
        dict.fromkeys(["GET /functions/v1/thing", "POST /functions/v1/thing", "GET /api/v1/thing"], route)
    )


def refusing(error: Exception) -> Any:
    def route(_request: Request) -> Response:
        raise error

    return handler_of(route)


def test_a_success_carries_the_callers_request_id_and_the_security_headers() -> None:
    handler = handler_of(lambda request: Response(body={"seen": request.request_id}))

    answer = call(handler, http_event("GET /functions/v1/thing", headers={"X-Request-ID": "caller-1"}))

    assert answer.status == 200
    assert answer.headers["X-Request-ID"] == "caller-1"
    assert answer.body["data"] == {"seen": "caller-1"}
    assert answer.body["context"]["requestId"] == "caller-1"
    assert type(answer.body["context"]["executionTime"]) is int
    assert SECURITY_HEADERS.items() <= answer.headers.items()
    assert set(SECURITY_HEADERS) == {
        "Cache-Control",
        "Content-Security-Policy",
        "Referrer-Policy",
        "Strict-Transport-Security",
        "X-Content-Type-Options",
        "X-Frame-Options",
        "X-XSS-Protection",
    }


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\r\nSet-Cookie: x", "é", "<script>"])
def test_an_unsafe_request_id_is_replaced(given: str) -> None:
    handler = handler_of(lambda _request: Response())

    answer = call(handler, http_event("GET /functions/v1/thing", headers={"x-request-id": given}))

    assert answer.headers["X-Request-ID"] != given
    assert len(answer.headers["X-Request-ID"]) == 36


@pytest.mark.parametrize("route_key", ["GET /nowhere", "DELETE /functions/v1/thing", "$default", ""])
def test_an_unknown_route_is_not_found(route_key: str) -> None:
    handler = handler_of(lambda _request: Response())

    answer = call(handler, http_event(route_key, path="/nowhere"))

    assert answer.status == 404
    assert answer.body["error"]["code"] == "NOT_FOUND"


def test_an_error_has_the_form_of_its_dialect() -> None:
    handler = refusing(TradingError(ErrorCode.CONFLICT, "Twice.", {"field": "f"}))

    functions = call(handler, http_event("GET /functions/v1/thing"))
    rest = call(handler, http_event("GET /api/v1/thing"))

    assert (functions.status, functions.body["success"], functions.body["error"]["code"]) == (409, False, "CONFLICT")
    assert (rest.status, rest.body) == (409, {"error": "CONFLICT", "message": "Twice.", "details": {"field": "f"}})


def test_an_error_that_passes_says_when_to_come_back() -> None:
    handler = refusing(TradingError(ErrorCode.MARKET_DATA_UNAVAILABLE, "Later.", retry_after=1))

    answer = call(handler, http_event("GET /functions/v1/thing"))

    assert (answer.status, answer.headers["Retry-After"], answer.body["context"]["retryAfter"]) == (503, "1", 1)


def test_what_was_not_foreseen_leaks_nothing_and_is_logged_whole(capsys: pytest.CaptureFixture[str]) -> None:
    handler = refusing(RuntimeError("password=hunter2"))

    answer = call(handler, http_event("GET /functions/v1/thing", headers={"x-request-id": "find-me"}))

    assert answer.status == 500
    assert answer.body["error"]["code"] == "INTERNAL_ERROR"
    assert "hunter2" not in answer.text
    assert "RuntimeError" not in answer.text
    logged = next(line for line in lines(capsys) if line.get("message") == "unexpected error")
    assert logged["correlation_id"] == "find-me"
    assert "RuntimeError: password=hunter2" in logged["exception"]


def test_an_answer_that_has_no_json_form_is_an_internal_error() -> None:
    handler = handler_of(lambda _request: Response(body={"price": float("nan")}))

    answer = call(handler, http_event("GET /functions/v1/thing"))

    assert (answer.status, answer.body["error"]["code"]) == (500, "INTERNAL_ERROR")


def test_a_stored_refusal_is_answered_with_its_own_status() -> None:
    error = TradingError(ErrorCode.INSUFFICIENT_MARGIN, "Too little.")
    handler = handler_of(lambda _request: Response(400, error=error, headers={"Idempotency-Replayed": "true"}))

    answer = call(handler, http_event("POST /functions/v1/thing"))

    assert (answer.status, answer.body["error"]["code"]) == (400, "INSUFFICIENT_MARGIN")
    assert answer.headers["Idempotency-Replayed"] == "true"


def test_headers_noted_on_the_way_reach_success_and_error_alike() -> None:
    def route(request: Request) -> Response:
        request.answer_headers["X-RateLimit-Limit"] = "10"
        if request.method == "POST":
            raise TradingError(ErrorCode.VALIDATION_FAILED, "No.")
        return Response()

    handler = handler_of(route)

    for method in ("GET", "POST"):
        assert call(handler, http_event(f"{method} /functions/v1/thing")).headers["X-RateLimit-Limit"] == "10"


def test_a_body_may_come_in_base64() -> None:
    handler = handler_of(lambda request: Response(body=request.json()))
    event = http_event("POST /functions/v1/thing", body=base64.b64encode(b'{"a": 1.50}').decode())

    assert '"a":1.50' in call(handler, event | {"isBase64Encoded": True}).text
    refused = call(handler, event | {"isBase64Encoded": True, "body": "%%%"})
    assert refused.status == 400
    assert refused.body["error"]["details"] == {"field": "body", "value": None, "constraint": "base64"}


@pytest.mark.parametrize(("body", "status"), [(None, 200), ("", 200), ("{}", 200), (" ", 400), ("\t\n", 400)])
def test_only_a_request_without_any_body_says_nothing(body: str | None, status: int) -> None:
    handler = http_handler({"POST /api/v1/positions/close-all": lambda request: Response(body=request.json_if_any())})

    assert call(handler, http_event("POST /api/v1/positions/close-all", body=body)).status == status


@pytest.mark.parametrize("encoded", [False, True])
def test_the_limit_of_a_body_is_in_bytes_however_it_came(encoded: bool) -> None:
    # given bodies of as many bytes as there may be, and of one more, in which a character is two bytes
    handler = handler_of(lambda request: Response(body=len(request.json()["a"])))
    fits = '{"a":"' + "é" * ((BODY_BYTES_MAX - 8) // 2) + '"}'
    assert len(fits.encode()) == BODY_BYTES_MAX

    def status(text: str) -> int:
        body = base64.b64encode(text.encode()).decode() if encoded else text
        event = http_event("POST /functions/v1/thing", body=body)
        return call(handler, event | {"isBase64Encoded": encoded}).status

    assert status(fits) == 200
    assert status(fits + " ") == 413


def test_logs_hold_neither_body_nor_token_whatever_the_environment_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POWERTOOLS_LOGGER_LOG_EVENT", "true")
    handler = handler_of(lambda request: Response(body=request.json()))

    call(
        handler,
        http_event(
            "POST /functions/v1/thing",
            body='{"note": "private-words"}',
            headers={"authorization": "Bearer secret-token", "x-csrf-token": "secret-csrf", "x-request-id": "id-1"},
        ),
    )

    text = capsys.readouterr().out
    assert '"correlation_id":"id-1"' in text
    for secret in ("private-words", "secret-token", "secret-csrf"):
        assert secret not in text


@pytest.mark.parametrize(
    ("answer", "client_errors", "errors"),
    [
        (Response(), 0, 0),
        (TradingError(ErrorCode.NOT_FOUND, "No."), 1, 0),
        (TradingError(ErrorCode.DATABASE_UNAVAILABLE, "No."), 0, 1),
    ],
)
def test_each_request_is_measured_by_its_route(
    capsys: pytest.CaptureFixture[str], answer: Response | TradingError, client_errors: int, errors: int
) -> None:
    handler = refusing(answer) if isinstance(answer, TradingError) else handler_of(lambda _request: answer)

    call(handler, http_event("GET /functions/v1/thing"))

    measured = next(line for line in lines(capsys) if "Requests" in line)
    assert measured["route"] == "GET /functions/v1/thing"
    assert measured["service"] == settings().service
    assert (measured["Requests"], measured["ClientErrors"], measured["Errors"]) == (1, client_errors, errors)
    assert measured["Latency"] >= 0
    (metrics,) = measured["_aws"]["CloudWatchMetrics"]
    assert metrics["Namespace"] == "Trading"
    assert metrics["Dimensions"] == [["service", "route"]]
    assert {metric["Name"]: metric["Unit"] for metric in metrics["Metrics"]} == {
        "Requests": "Count",
        "Latency": "Milliseconds",
        "ClientErrors": "Count",
        "Errors": "Count",
    }


def test_what_maintenance_refuses_is_no_request_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    call(refusing(TradingError(ErrorCode.MAINTENANCE, "Later.")), http_event("GET /functions/v1/thing"))

    measured = next(line for line in lines(capsys) if "MaintenanceRefusals" in line)
    assert measured["MaintenanceRefusals"] == 1
    assert not {"Requests", "Errors", "ClientErrors", "Latency"} & set(measured)
    assert measured["level"] == "INFO"


def test_unknown_routes_share_one_name_in_the_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    call(handler_of(lambda _request: Response()), http_event("GET /made-up-by-a-stranger"))

    assert next(line for line in lines(capsys) if "Requests" in line)["route"] == "unknown"


def test_a_log_line_belongs_to_one_request_only(capsys: pytest.CaptureFixture[str]) -> None:
    from trading.observability import logger

    def route(request: Request) -> Response:
        if request.method == "POST":
            logger().append_keys(user_id="somebody")
        return Response()

    handler = handler_of(route)
    call(handler, http_event("POST /functions/v1/thing"))
    call(handler, http_event("GET /functions/v1/thing"))

    first, second = [line for line in lines(capsys) if line.get("message") == "request"]
    assert first["user_id"] == "somebody"
    assert "user_id" not in second


def lines(capsys: pytest.CaptureFixture[str]) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]
