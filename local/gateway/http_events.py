"""Requests as events of payload format 2.0, and a function's result as a response."""

import base64
import binascii
import json
import os
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from local.gateway.invocations import Kind, Outcome
from local.gateway.local_values import ACCOUNT

_TEXT_TYPES = ("text/", "application/json", "application/javascript", "application/xml")
_FORBIDDEN_IN_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HOP_BY_HOP = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "date"})
_STATUS_OF_KIND = {Kind.FAILED: 500, Kind.TIMED_OUT: 504, Kind.DIED: 502, Kind.NO_ROOM: 503}
_MESSAGE_OF_STATUS = {500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable"}


class HttpResponse(NamedTuple):
    """What goes back; header names are lower-case."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def message_response(status: int, message: str) -> HttpResponse:
    """An answer of the API itself."""
    return HttpResponse(status, [(b"content-type", b"application/json")], json.dumps({"message": message}).encode())


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def decode(text: bytes) -> Any:
    """Parse JSON; ValueError for anything else, NaN and Infinity with it."""
    return _DECODER.decode(text.decode())


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(event: Any) -> bytes:
    """An event as JSON; a lone surrogate in it becomes a question mark."""
    return _ENCODER.encode(event).encode("utf-8", "replace")


def new_request_id() -> str:
    """A request id as API Gateway makes them."""
    return base64.urlsafe_b64encode(os.urandom(11)).decode()


def new_trace_id() -> str:
    """The X-Amzn-Trace-Id of a request."""
    return f"Root=1-{int(time.time()):08x}-{os.urandom(12).hex()}"


def request_time(seconds: float) -> str:
    """A time as in access logs."""
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(seconds))


def joined_headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header lines by lower-case name, repeated ones joined by commas."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    return headers


def build_event(
    scope: Mapping[str, Any],
    headers: Mapping[str, str],
    body: bytes,
    *,
    route_key: str,
    parameters: Mapping[str, str],
    request_id: str,
    trace: str,
) -> dict[str, Any]:
    """The event of one request. `scope` is ASGI's, `headers` come from `joined_headers`."""
    now = time.time()
    source = scope["client"][0] if scope["client"] else ""
    own = _forwarded(headers, source, trace)
    host = own.get("host", "")
    query = scope["query_string"].decode("latin-1")
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": scope["path"],
        "rawQueryString": query,
        "headers": own,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": "local",
            "domainName": host,
            "domainPrefix": host.partition(".")[0],
            "http": {
                "method": scope["method"],
                "path": scope["path"],
                "protocol": f"HTTP/{scope['http_version']}",
                "sourceIp": source,
                "userAgent": own.get("user-agent", ""),
            },
            "requestId": request_id,
            "routeKey": route_key,
            "stage": "$default",
            "time": request_time(now),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    cookies = [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]
    if cookies:
        event["cookies"] = [cookie.strip() for line in cookies for cookie in line.split(";")]
    if query:
        event["queryStringParameters"] = joined_query(query)
    if parameters:
        event["pathParameters"] = dict(parameters)
    if body:
        _add_body(event, own.get("content-type", ""), body)
    return event


def _forwarded(headers: Mapping[str, str], source: str, trace: str) -> dict[str, str]:
    """The headers as API Gateway hands them on: with where they came from, and without cookies."""
    own = {name: value for name, value in headers.items() if name != "cookie"}
    forwarded, host = own.get("x-forwarded-for"), own.get("host", "")
    own["x-forwarded-for"] = f"{forwarded}, {source}" if forwarded else source
    own["x-forwarded-proto"] = "http"
    own["x-forwarded-port"] = host.rpartition(":")[2] if ":" in host else "80"
    own["x-amzn-trace-id"] = trace
    return own


def joined_query(query: str) -> dict[str, str]:
    """Decoded parameters, repeated ones joined by commas."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _add_body(event: dict[str, Any], content_type: str, body: bytes) -> None:
    if content_type.lower().startswith(_TEXT_TYPES):
        try:
            event["body"] = body.decode()
            return
        except UnicodeDecodeError:
            pass  # then it is no text, whatever its type says
    event["body"] = base64.b64encode(body).decode()
    event["isBase64Encoded"] = True


def response_of(outcome: Outcome) -> HttpResponse:
    """The response to a request whose invocation ended so."""
    if outcome.kind is Kind.ANSWERED:
        try:
            return _response(decode(outcome.body))
        except (ValueError, TypeError):
            return message_response(500, _MESSAGE_OF_STATUS[500])
    status = _STATUS_OF_KIND[outcome.kind]
    if outcome.kind is Kind.TIMED_OUT:
        message = json.loads(outcome.body)["errorMessage"]
        return message_response(status, message[message.index("Task timed out") :])
    return message_response(status, _MESSAGE_OF_STATUS[status])


def _response(result: Any) -> HttpResponse:
    """A handler's result; ValueError or TypeError for one that API Gateway would call malformed."""
    if not isinstance(result, dict) or "statusCode" not in result:
        body = b"" if result is None else encode(result)
        return HttpResponse(200, [(b"content-type", b"application/json")], body)
    status = int(result["statusCode"])
    if not 200 <= status <= 599:
        raise ValueError("statusCode")
    body = _body(result)
    lines = [_header(name, value) for name, value in (result.get("headers") or {}).items()]
    headers = [(name, value) for name, value in lines if name.decode() not in _HOP_BY_HOP]
    headers += [(b"set-cookie", _header("set-cookie", cookie)[1]) for cookie in result.get("cookies") or ()]
    if body and not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", b"text/plain;charset=utf-8"))
    return HttpResponse(status, headers, body)


def _body(result: Mapping[str, Any]) -> bytes:
    body = result.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise TypeError("body")
    if not result.get("isBase64Encoded", False):
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise ValueError("body") from None


def _header(name: str, value: Any) -> tuple[bytes, bytes]:
    if isinstance(value, bool):
        value = "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        raise TypeError(name)
    text = str(value)
    if _FORBIDDEN_IN_HEADER.search(text) or not name or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        raise ValueError(name)
    return name.lower().encode(), text.encode("latin-1")
