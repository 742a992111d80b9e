"""The WebSocket's routes. What a client is told goes out by @connections: answers of this handler are not sent."""

import json
import time
from functools import lru_cache
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trading.edge.gate import authenticator
from trading.edge.socket_gate import admit_connection, admit_message, note_refusal
from trading.errors import ErrorCode, TradingError
from trading.messages import parse_message, refuse_type, subscribe_of, token_of, unsubscribe_of
from trading.observability import MetricUnit, instrumented, logger, metrics
from trading.price_watch import watch_and_tell
from trading.queue import WATCH_PRICES, notify_relay, send_connection_task, send_price_watch
from trading.sockets import sockets
from trading.store.connection import database
from trading.store.connections import ConnectionStore
from trading.subscriptions import ConnectionClosedError, Connections, Hints, agreed_protocol

STATUS_BY_CODE = {
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.IP_BLOCKED: 403,
    ErrorCode.RATE_LIMIT_EXCEEDED: 429,
    ErrorCode.DATABASE_UNAVAILABLE: 503,
}


# Telling of prices begins no further round after this, so that the function's time limit ends none.
WATCH_SECONDS_MAX = 3.0


@lru_cache(maxsize=1)
def connections() -> Connections:
    """The connections of this environment."""
    hints = Hints(notify_relay=notify_relay, send_task=send_connection_task, watch_prices=lambda: send_price_watch(0))
    return Connections(ConnectionStore(database()), sockets(), lambda token: authenticator().verify(token), hints)


@instrumented
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """One message, one connection that comes or goes, or a batch of tasks."""
    metrics().add_metric(name="WebSocketEvents", unit=MetricUnit.Count, value=len(event.get("Records", [event])))
    if "Records" in event:
        return _tasks(event, context)
    request = event["requestContext"]
    connection_id, route = request["connectionId"], request["routeKey"]
    logger().append_keys(connection_id=connection_id, route=route)
    match route:
        case "$connect":
            return _connect(event, connection_id)
        case "$disconnect":
            connections().leave(connection_id)
        case _:
            _message(event, connection_id)
    return {"statusCode": 200}


def _connect(event: dict[str, Any], connection_id: str) -> dict[str, Any]:
    """Accept the connection, or refuse the handshake with the status of the error."""
    source_ip, user_agent = _client(event)
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    protocol = agreed_protocol(headers.get("sec-websocket-protocol"))
    try:
        admit_connection(source_ip, user_agent)
        connections().accept(
            connection_id,
            token=(event.get("queryStringParameters") or {}).get("token"),
            protocol=protocol,
            source_ip=source_ip or None,
        )
    except TradingError as error:
        note_refusal(error, source_ip, user_agent)
        logger().info("a connection was refused", extra={"code": error.code.value})
        return {"statusCode": STATUS_BY_CODE.get(error.code, 400)}
    return {"statusCode": 200} | ({"headers": {"Sec-WebSocket-Protocol": protocol}} if protocol else {})


def _message(event: dict[str, Any], connection_id: str) -> None:
    """Do what a message asks for; an error is answered by a frame."""
    client = _client(event)
    try:
        admit_message(connection_id, *client)
        _do(connection_id, parse_message(None if event.get("isBase64Encoded") else event.get("body")))
    except TradingError as error:
        if error.code is ErrorCode.IP_BLOCKED:
            connections().cut(connection_id)
            return
        note_refusal(error, *client)
        connections().refuse(connection_id, error)
    except ConnectionClosedError as closed:
        logger().info("a connection was closed", extra={"reason": str(closed)})
    except Exception:
        connections().refuse(
            connection_id, TradingError(ErrorCode.INTERNAL_ERROR, "This failed for a fault of ours. Send it again.")
        )
        raise


def _client(event: dict[str, Any]) -> tuple[str, str]:
    """Address and user agent."""
    identity: dict[str, str | None] = event["requestContext"].get("identity", {})
    return identity.get("sourceIp") or "", identity.get("userAgent") or ""


def _do(connection_id: str, message: dict[str, Any]) -> None:
    # The message's own type, not the route: a message that no route took ends here as well.
    match message.get("type"):
        case "auth":
            connections().authenticate(connection_id, token_of(message))
        case "subscribe":
            connections().subscribe(connection_id, subscribe_of(message))
        case "unsubscribe":
            connections().unsubscribe(connection_id, unsubscribe_of(message))
        case "ping":
            connections().ping(connection_id)
        case _:
            refuse_type(message)


def _tasks(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

    def do(record: Any) -> None:
        task: Any = json.loads(record.body)
        if not isinstance(task, dict):
            raise TypeError("a task is an object")
        if task["task"] == WATCH_PRICES:
            watch_and_tell(database(), sockets(), until=time.monotonic() + WATCH_SECONDS_MAX)
            return
        connections().do(str(task["task"]), str(task["connection_id"]), int(task.get("attempt", 1)))

    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    return dict(process_partial_response(event, do, processor, context))
