"""From an API Gateway event (payload 2.0) to an answer: the frame that every HTTP function shares."""

import base64
import binascii
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from trading.edge.body import parse_body
from trading.edge.envelope import STATUS_BY_CODE, answer_body, dialect_of, error_body
from trading.edge.security_headers import SECURITY_HEADERS
from trading.errors import ErrorCode, TradingError, validation_failed
from trading.json_text import json_text
from trading.observability import Handler, MetricUnit, instrumented, log_measured, logger, set_correlation_id

REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_UNKNOWN_ROUTE = "unknown"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; header names are in lower case.

    `answer_headers` collects what a step wants on the answer, whether that becomes a success or an error;
    `when_not_found` what is to be done when what it names does not exist.
    """

    route_key: str
    method: str
    path: str
    path_parameters: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    source_ip: str
    user_agent: str
    request_id: str
    started_at: float
    answer_headers: dict[str, str] = field(default_factory=dict[str, str])
    when_not_found: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    def json(self) -> dict[str, Any]:
        """The body as an object with exact numbers; VALIDATION_FAILED or PAYLOAD_TOO_LARGE."""
        return parse_body(self.body)

    def json_if_any(self) -> dict[str, Any]:
        """As `json`, but a request without a body says nothing: {}. White space is a body, and no JSON."""
        return self.json() if self.body else {}


@dataclass(slots=True)
class Response:
    """An answer. `body` is the data alone, in what `json_text` knows; the frame wraps it as the dialect asks."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    # A body that is not wrapped whatever the dialect, as of GET /health.
    bare: bool = False
    # Answered in the error form of the dialect, in place of `body`.
    error: TradingError | None = None


type Route = Callable[[Request], Response]


def http_handler(routes: Mapping[str, Route]) -> Handler:
    """The Lambda handler that answers each route key of `routes`, and 404 for every other.

    It logs one line a request, counts it, and turns errors into the envelope of the route's dialect. What was not
    foreseen becomes 500 INTERNAL_ERROR: logged with its traceback, and told to nobody.
    """

    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        started_at = time.perf_counter()
        headers = _headers(event)
        request_id = _request_id(headers)
        set_correlation_id(request_id)
        route_key, route = _route_of(event, routes)
        response, noted_headers = _answer(event, headers, route, request_id, started_at)
        try:
            rendered = _rendered(event, response, request_id, started_at, noted_headers)
        except (TypeError, ValueError):
            logger().exception("the answer has no JSON form")
            response = _refusal(_internal_error())
            rendered = _rendered(event, response, request_id, started_at, noted_headers)
        _record(route_key if route else _UNKNOWN_ROUTE, response, started_at)
        return rendered

    return instrumented(handle)


def _answer(
    event: dict[str, Any], headers: Mapping[str, str], route: Route | None, request_id: str, started_at: float
) -> tuple[Response, Mapping[str, str]]:
    request: Request | None = None
    try:
        request = _request(event, headers, request_id, started_at)
        if route is None:
            raise TradingError(ErrorCode.NOT_FOUND, "There is nothing at this address.")
        response = route(request)
        if response.error is not None:
            _note(request, response.error)
    except TradingError as error:
        response = _refusal(error)
        if request is not None:
            _note(request, error)
    except Exception:  # noqa: BLE001
        # The one place that may catch everything: the caller must get an answer that leaks nothing.
        logger().exception("unexpected error")
        response = _refusal(_internal_error())
    return response, request.answer_headers if request else {}


def _note(request: Request, error: TradingError) -> None:
    if error.code is ErrorCode.NOT_FOUND:
        for action in request.when_not_found:
            action()


def _internal_error() -> TradingError:
    return TradingError(
        ErrorCode.INTERNAL_ERROR,
        "Something went wrong on our side. Send the same request again, or ask support with this request id.",
    )


def _refusal(error: TradingError) -> Response:
    status = STATUS_BY_CODE[error.code]
    if status >= 500 and error.code is not ErrorCode.INTERNAL_ERROR and not _is_maintenance(error):
        logger().error("unavailable", exc_info=error, extra={"code": str(error.code)})
    return Response(status, error=error)


def _is_maintenance(error: TradingError | None) -> bool:
    return error is not None and error.code is ErrorCode.MAINTENANCE


def _rendered(
    event: dict[str, Any], response: Response, request_id: str, started_at: float, more: Mapping[str, str]
) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", **SECURITY_HEADERS, **more, **response.headers}
    headers["X-Request-ID"] = request_id
    if response.error is not None and response.error.retry_after is not None:
        headers["Retry-After"] = str(response.error.retry_after)
    dialect = dialect_of(_path(event))
    milliseconds = round((time.perf_counter() - started_at) * 1000)
    if response.error is not None:
        body = error_body(dialect, response.error, request_id=request_id, milliseconds=milliseconds)
    elif response.bare:
        body = response.body
    else:
        body = answer_body(dialect, response.body, request_id=request_id, milliseconds=milliseconds)
    return {"statusCode": response.status, "headers": headers, "body": json_text(body), "isBase64Encoded": False}


def _record(route: str, response: Response, started_at: float) -> None:
    measured = {
        "Requests": (MetricUnit.Count, 1),
        "Latency": (MetricUnit.Milliseconds, round((time.perf_counter() - started_at) * 1000, 3)),
        "ClientErrors": (MetricUnit.Count, int(400 <= response.status < 500)),
        "Errors": (MetricUnit.Count, int(response.status >= 500)),
    }
    if _is_maintenance(response.error):
        # No failure of ours, or what failures began could never end; and nobody was served, so no success either.
        measured = {"MaintenanceRefusals": (MetricUnit.Count, 1)}
    facts: dict[str, object] = {"status": response.status}
    if response.error is not None:
        facts["code"] = str(response.error.code)
    log_measured("request", route, measured, facts)


def _route_of(event: dict[str, Any], routes: Mapping[str, Route]) -> tuple[str, Route | None]:
    """The route that API Gateway chose."""
    route_key: str = event.get("routeKey", "")
    return route_key, routes.get(route_key)


def _request(event: dict[str, Any], headers: Mapping[str, str], request_id: str, started_at: float) -> Request:
    http: Mapping[str, str] = event["requestContext"]["http"]
    return Request(
        route_key=event["routeKey"],
        method=http["method"],
        path=http["path"],
        path_parameters=event.get("pathParameters") or {},
        query=event.get("queryStringParameters") or {},
        headers=headers,
        body=_body(event),
        source_ip=http["sourceIp"],
        user_agent=http.get("userAgent") or "",
        request_id=request_id,
        started_at=started_at,
    )


def _body(event: dict[str, Any]) -> bytes:
    text: str = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return text.encode("utf-8", errors="surrogatepass")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise validation_failed("body", None, "base64", "The body could not be read: send it as it is.") from error


def _headers(event: dict[str, Any]) -> dict[str, str]:
    given: Mapping[str, str] = event.get("headers") or {}
    return {name.lower(): value for name, value in given.items()}


def _request_id(headers: Mapping[str, str]) -> str:
    given = headers.get("x-request-id", "")
    return given if REQUEST_ID_FORM.fullmatch(given) else str(uuid4())


def _path(event: dict[str, Any]) -> str:
    return event.get("rawPath") or ""
