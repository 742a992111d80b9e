"""The AWS endpoint: SQS, @connections and what `lambda_api` serves. Everything else is refused: no call leaves here."""

import json

from local.gateway.connections import Connections
from local.gateway.environments import Credentials
from local.gateway.http_api import Receive, Scope, Send, read_body
from local.gateway.http_events import joined_headers
from local.gateway.lambda_api import LambdaApi
from local.gateway.sqs_api import SqsApi

_BODY_BYTES_MAX = 4 * 1024 * 1024
_CONNECTIONS = "@connections"
_TARGET = "AmazonSQS."


class AwsApi:
    """An ASGI application that answers signed calls.

    A caller shows by the key id, made anew at each start, that it is a worker or may read the state folder. The
    signature itself is not verified.
    """

    def __init__(self, credentials: Credentials, sqs: SqsApi, functions: LambdaApi, connections: Connections) -> None:
        self._credential = f"Credential={credentials.key_id}/"
        self._sqs = sqs
        self._functions = functions
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        status, headers, body = await self._answer(scope, receive)
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        if status != 204:
            lines.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, dict[str, str], bytes]:
        headers = joined_headers(scope["headers"])
        if self._credential not in headers.get("authorization", ""):
            return _refusal(403, "UnrecognizedClientException", "The security token in the request is invalid.")
        body = await read_body(headers, receive, _BODY_BYTES_MAX)
        if body is None:
            return _refusal(413, "PayloadTooLargeException", f"A call holds at most {_BODY_BYTES_MAX} bytes.")
        target = headers.get("x-amz-target", "")
        if target.startswith(_TARGET):
            return await self._sqs.call(target.removeprefix(_TARGET), body)
        if self._functions.serves(scope["method"], scope["path"]):
            return await self._functions.call(scope["method"], scope["path"], headers, body)
        parts = scope["path"].split("/")
        if len(parts) == 4 and parts[2] == _CONNECTIONS:
            return self._connections.call(scope["method"], parts[3], body)
        return _refusal(501, "NotImplemented", f"The local gateway does not serve {target or scope['path']}.")


def is_connections_call(path: str) -> bool:
    """Whether a request to the public port is for the @connections API."""
    return f"/{_CONNECTIONS}/" in path


def _refusal(status: int, name: str, message: str) -> tuple[int, dict[str, str], bytes]:
    headers = {"content-type": "application/json", "x-amzn-errortype": name}
    return status, headers, json.dumps({"__type": name, "message": message}).encode()
