"""The gateway's events are the ones that Powertools' models of AWS's events accept."""

import asyncio
from typing import Any

from aws_lambda_powertools.utilities.parser.models import (
    APIGatewayProxyEventV2Model,
    APIGatewayWebSocketConnectEventModel,
    APIGatewayWebSocketDisconnectEventModel,
    APIGatewayWebSocketMessageEventModel,
    SqsModel,
)

from local.gateway.connections import Connection
from local.gateway.event_sources import record_of
from local.gateway.http_events import build_event, joined_headers
from local.gateway.queues import Queue
from local.gateway.stack import QueueSpec, WebSocketSpec
from local.gateway.websocket_events import connect_event, disconnect_event, message_event, request_context

HEADERS = [(b"host", b"api.local:8000"), (b"user-agent", b"test"), (b"content-type", b"application/json")]
SPEC = WebSocketSpec("SocketApi", "realtime", ("type",), {"$default": "F"}, frozenset())


def test_http() -> None:
    scope = {
        "client": ("127.0.0.1", 1),
        "method": "POST",
        "path": "/things/1",
        "http_version": "1.1",
        "query_string": b"a=1",
        "headers": HEADERS,
    }

    event = build_event(
        scope,
        joined_headers(HEADERS),
        b"{}",
        route_key="POST /things/{id}",
        parameters={"id": "1"},
        request_id="r",
        trace="Root=1-x",
    )

    parsed = APIGatewayProxyEventV2Model.model_validate(event)
    assert parsed.pathParameters == {"id": "1"}
    assert parsed.body == "{}"


def test_websocket() -> None:
    async def events() -> list[dict[str, Any]]:
        connection = Connection(source_ip="127.0.0.1", user_agent="test")

        def context(route: str, event_type: str) -> dict[str, Any]:
            return request_context(SPEC, connection, route=route, event_type=event_type, domain="api.local:8000")

        return [
            connect_event(context("$connect", "CONNECT"), HEADERS, "token=a&b=1&b=2"),
            message_event(context("$default", "MESSAGE"), "hello", b""),
            disconnect_event(context("$disconnect", "DISCONNECT"), {"Host": "api.local:8000"}, 1001, "bye"),
        ]

    connect, message, disconnect = asyncio.run(events())

    APIGatewayWebSocketConnectEventModel.model_validate(connect)
    APIGatewayWebSocketMessageEventModel.model_validate(message)
    APIGatewayWebSocketDisconnectEventModel.model_validate(disconnect)
    assert connect["headers"] == {"Host": "api.local:8000", "User-Agent": "test", "Content-Type": "application/json"}
    assert connect["queryStringParameters"] == {"token": "a", "b": "2"}
    assert connect["multiValueQueryStringParameters"] == {"token": ["a"], "b": ["1", "2"]}


def test_sqs() -> None:
    async def record() -> dict[str, Any]:
        queue = Queue(QueueSpec("q", "arn:aws:sqs:us-east-1:000000000000:q", "u", 30, 0, 60, 0, 1024, None, 0))
        queue.send("body", {"colour": {"DataType": "String", "StringValue": "red"}})
        return record_of(queue, queue.receive(1)[0])

    (parsed,) = SqsModel.model_validate({"Records": [asyncio.run(record())]}).Records

    assert parsed.body == "body"
    assert parsed.messageAttributes["colour"].stringValue == "red"
    assert parsed.attributes.ApproximateReceiveCount == "1"
