"""Queue messages: hints that somebody should look, so that losing one costs only the wait for the sweep."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast
from uuid import UUID

from trading.json_text import json_text
from trading.observability import MetricUnit, logger, metrics
from trading.settings import AWS_USER_AGENT, settings

CONNECT_TIMEOUT_SECONDS = 0.3
READ_TIMEOUT_SECONDS = 0.7
# How long after it was read the sign that a relay is awake is believed. The relay stays this long after taking the
# sign away, and a little more.
RELAY_TRUST_SECONDS = 2.0
# The message attribute that carries the request id of the first cause.
REQUEST_ID = "request_id"
# The task that concerns no single connection.
WATCH_PRICES = "watch_prices"


@dataclass(frozen=True, slots=True)
class ConnectionTask:
    """Something to be done with a connection, in `delay_seconds`."""

    connection_id: str
    task: str
    delay_seconds: int
    attempt: int = 1


def notify_relay(account_id: UUID, request_id: str | None = None) -> None:
    """Tell the relay that `account_id` has something to deliver. Call it after commit; it never raises.

    `request_id` is of the request that caused it; it travels as the message attribute REQUEST_ID.
    """
    body = {"account_id": account_id}
    _send(settings().relay_queue_url, "RELAY_QUEUE_URL", body, delay_seconds=0, request_id=request_id)


def notify_relay_unless_awake(
    account_id: UUID, *, relay_awake: bool, started_at: float, request_id: str | None = None
) -> None:
    """Tell the relay after a commit, unless it was seen awake a moment ago and so finds the event by itself.

    `started_at` is a `time.perf_counter()` of before `relay_awake` was read; `request_id` as in `notify_relay`.
    """
    if not relay_awake or time.perf_counter() - started_at > RELAY_TRUST_SECONDS:
        notify_relay(account_id, request_id)


def start_routing(user_id: UUID, order_id: UUID, *, request_id: str | None = None) -> None:
    """Have the router hand an order to its venue. Call it after commit; it never raises."""
    body = {"user_id": user_id, "order_id": order_id}
    _send(settings().route_queue_url, "ROUTE_QUEUE_URL", body, delay_seconds=0, request_id=request_id)


def start_triggers() -> None:
    """Have executed what prices have touched. Call it after commit; it never raises."""
    _send(settings().trigger_queue_url, "TRIGGER_QUEUE_URL", {}, delay_seconds=0)


def watch_holders(symbols: Sequence[str]) -> None:
    """Have the accounts watched that hold one of `symbols`, whose prices have moved. It never raises."""
    _send(settings().risk_queue_url, "RISK_QUEUE_URL", {"symbols": symbols}, delay_seconds=0)


def send_connection_task(task: ConnectionTask) -> None:
    """Have the realtime function do something with a connection later; it never raises."""
    body = {"connection_id": task.connection_id, "task": task.task, "attempt": task.attempt}
    url = settings().authentication_timeout_queue_url
    _send(url, "AUTHENTICATION_TIMEOUT_QUEUE_URL", body, delay_seconds=task.delay_seconds)


def send_price_watch(delay_seconds: int) -> None:
    """Have the realtime function look whether prices are stale, and tell who listens; it never raises."""
    url = settings().authentication_timeout_queue_url
    _send(url, "AUTHENTICATION_TIMEOUT_QUEUE_URL", {"task": WATCH_PRICES}, delay_seconds=delay_seconds)


def _send(
    url: str | None, variable: str, body: Mapping[str, object], *, delay_seconds: int, request_id: str | None = None
) -> None:
    from botocore.exceptions import BotoCoreError, ClientError  # pyright: ignore[reportMissingTypeStubs]

    if url is None:
        logger().error("a queue message was not sent", extra={"cause": f"{variable} is not set"})
        return
    attributes = {REQUEST_ID: {"DataType": "String", "StringValue": request_id}} if request_id else {}
    try:
        _client().send_message(
            QueueUrl=url, MessageBody=json_text(body), DelaySeconds=delay_seconds, MessageAttributes=attributes
        )
    except (BotoCoreError, ClientError) as error:
        logger().warning("a queue message was not sent", extra={"cause": type(error).__name__})
        metrics().add_metric(name="QueueMessageNotSent", unit=MetricUnit.Count, value=1)


@lru_cache(maxsize=1)
def _client() -> Any:
    import boto3  # pyright: ignore[reportMissingTypeStubs]
    from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]

    limits = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        retries={"total_max_attempts": 1, "mode": "standard"},
        user_agent=AWS_USER_AGENT,
    )
    return cast("Any", boto3).client("sqs", config=limits)
