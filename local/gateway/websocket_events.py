"""Events of a WebSocket API."""

import base64
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from local.gateway.connections import Connection
from local.gateway.http_events import decode, new_request_id, request_time
from local.gateway.stack import WebSocketSpec


def route_of(spec: WebSocketSpec, text: str | None) -> str | None:
    """The route of a message: the one its selection key names, else $default; None when there is neither."""
    value: Any = None
    if text is not None:
        try:
            value = decode(text.encode())
            for key in spec.selection:
                value = value[key]
        except (ValueError, TypeError, KeyError, RecursionError):
            value = None
    if isinstance(value, str) and value in spec.routes and not value.startswith("$"):
        return value
    return "$default" if "$default" in spec.routes else None


def request_context(
    spec: WebSocketSpec, connection: Connection, *, route: str, event_type: str, domain: str
) -> dict[str, Any]:
    """The requestContext that all events share."""
    now = time.time()
    request_id = new_request_id()
    return {
        "routeKey": route,
        "eventType": event_type,
        "extendedRequestId": request_id,
        "requestTime": request_time(now),
        "messageDirection": "IN",
        "stage": spec.stage,
        "connectedAt": int(connection.connected_at.timestamp() * 1000),
        "requestTimeEpoch": int(now * 1000),
        "identity": {"sourceIp": connection.source_ip, "userAgent": connection.user_agent},
        "requestId": request_id,
        "domainName": domain,
        "connectionId": connection.id,
        "apiId": spec.logical_id,
    }


def connect_event(context: dict[str, Any], raw_headers: Sequence[tuple[bytes, bytes]], query: str) -> dict[str, Any]:
    """$connect: header names as browsers write them, last value and all values of headers and parameters."""
    headers = _all_values(raw_headers)
    event: dict[str, Any] = {
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "requestContext": context,
        "isBase64Encoded": False,
    }
    parameters = parse_qs(query, keep_blank_values=True)
    if parameters:
        event["queryStringParameters"] = {name: values[-1] for name, values in parameters.items()}
        event["multiValueQueryStringParameters"] = parameters
    return event


def message_event(context: dict[str, Any], text: str | None, data: bytes) -> dict[str, Any]:
    """A message: its text, or base64 of bytes that are no text."""
    context["messageId"] = context["requestId"]
    if text is None:
        return {"requestContext": context, "body": base64.b64encode(data).decode(), "isBase64Encoded": True}
    return {"requestContext": context, "body": text, "isBase64Encoded": False}


def disconnect_event(context: dict[str, Any], headers: Mapping[str, str], code: int, reason: str) -> dict[str, Any]:
    """$disconnect, with the status code of the close."""
    context["disconnectStatusCode"] = code
    context["disconnectReason"] = reason
    return {
        "headers": dict(headers),
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "requestContext": context,
        "isBase64Encoded": False,
    }


def _all_values(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in raw:
        words = name.decode("latin-1").lower().split("-")
        title = "-".join("WebSocket" if word == "websocket" else word.capitalize() for word in words)
        found.setdefault(title, []).append(value.decode("latin-1"))
    return found
