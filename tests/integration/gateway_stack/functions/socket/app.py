"""WebSocket routes that report what they are told, and push through @connections."""

import json
import os
from typing import Any

import boto3
from shared import report  # pyright: ignore[reportMissingImports]


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    told = event["requestContext"]
    route = told["routeKey"]
    if route == "$connect":
        parameters = event.get("queryStringParameters", {})
        if "refuse" in parameters:
            return {"statusCode": int(parameters["refuse"])}
        if "crash" in parameters:
            raise ValueError("crash")
        return {"statusCode": 200}
    if route == "$disconnect":
        report(
            disconnected=told["connectionId"],
            code=told["disconnectStatusCode"],
            event_type=told["eventType"],
        )
    if route == "fail":
        raise ValueError("fail")
    if route in {"push", "$default"}:
        client = boto3.client("apigatewaymanagementapi", endpoint_url=os.environ["CONNECTIONS_ENDPOINT"])
        text = json.dumps({"route": route, "event": event})
        client.post_to_connection(ConnectionId=told["connectionId"], Data=text.encode())
    return {"statusCode": 200, "body": f"answer of {route}"}
