"""Messages to WebSocket connections, by the @connections API of API Gateway."""

from collections.abc import Callable
from enum import Enum, auto
from functools import lru_cache
from typing import Any, cast

from trading.json_text import json_text
from trading.settings import AWS_USER_AGENT, required, settings

CONNECT_TIMEOUT_SECONDS = 0.5
READ_TIMEOUT_SECONDS = 1.0
# As many posts at once as there are threads that push.
POSTS_AT_ONCE_MAX = 16


class Outcome(Enum):
    """What became of a message."""

    DELIVERED = auto()
    # The connection is closed for good.
    GONE = auto()
    # The connection takes no more at present (429).
    SLOW = auto()
    # Nothing is known: no answer in time, or an answer that says nothing of the connection.
    FAILED = auto()


_OUTCOMES = {
    "GoneException": Outcome.GONE,
    "410": Outcome.GONE,
    "LimitExceededException": Outcome.SLOW,
    "429": Outcome.SLOW,
}


class Sockets:
    """Posts to connections. One client, made at the first post, serves all threads."""

    def __init__(self, client: Callable[[], Any]) -> None:
        self._make_client = client
        self._client: Any = None

    def post(self, connection_id: str, data: str) -> Outcome:
        """Send `data` as one message. Never raises for what the network or the connection did."""
        return self._outcome("post_to_connection", ConnectionId=connection_id, Data=data.encode())

    def close(self, connection_id: str, code: int, reason: str) -> Outcome:
        """Tell the client why by a `closing` message, then cut the connection; how the cut went.

        The message comes first because a cut by the API carries neither code nor reason. A client that takes no
        message any more is cut all the same.
        """
        self.post(connection_id, json_text({"type": "closing", "code": code, "reason": reason}))
        return self._outcome("delete_connection", ConnectionId=connection_id)

    def prepare(self) -> None:
        """Make the client ahead of the first post; not safe to call from two threads."""
        if self._client is None:
            self._client = self._make_client()

    def _outcome(self, operation: str, **arguments: object) -> Outcome:
        from botocore.exceptions import BotoCoreError, ClientError  # pyright: ignore[reportMissingTypeStubs]

        self.prepare()
        try:
            getattr(self._client, operation)(**arguments)
        except ClientError as error:
            return _outcome_of(error)
        except BotoCoreError:
            return Outcome.FAILED
        return Outcome.DELIVERED


def _outcome_of(error: Any) -> Outcome:
    response: dict[str, Any] = error.response
    status = str(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    code = str(response.get("Error", {}).get("Code"))
    return _OUTCOMES.get(code) or _OUTCOMES.get(status) or Outcome.FAILED


def connections_client(endpoint: str) -> Any:
    """A client of the @connections API at `endpoint`: short time limits, no retries of its own."""
    import boto3  # pyright: ignore[reportMissingTypeStubs]
    from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]

    limits = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=POSTS_AT_ONCE_MAX,
        parameter_validation=False,
        user_agent=AWS_USER_AGENT,
    )
    return cast("Any", boto3).client("apigatewaymanagementapi", endpoint_url=endpoint, config=limits)


@lru_cache(maxsize=1)
def sockets() -> Sockets:
    """The connections of this environment's WebSocket API."""
    return Sockets(lambda: connections_client(required(settings().connections_endpoint, "CONNECTIONS_ENDPOINT")))
