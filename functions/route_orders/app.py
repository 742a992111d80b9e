"""Hands accepted orders to their venues and books what the venues say.

Started by the queue, with an order that was just accepted, and every minute by the schedule, for whatever is in flight.
"""

import json
import time
from dataclasses import asdict
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.typing import LambdaContext

from trading.brokers.registry import broker
from trading.observability import MetricUnit, instrumented, logger, metrics, set_correlation_id
from trading.queue import REQUEST_ID, notify_relay
from trading.routing import RetryPolicy, Router, RoutingReport
from trading.settings import settings
from trading.store.connection import database
from trading.store.venues import OrderId, VenueStore

# For answering and for Lambda's own work after the handler.
MARGIN_SECONDS = 1.0
# Names this execution environment in its leases.
HOLDER = uuid4()


@instrumented
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Route the order of each message, or sweep; the messages that failed."""
    until = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - MARGIN_SECONDS
    if "Records" not in event:
        request_id = f"route-{context.aws_request_id}"
        set_correlation_id(request_id)
        return _measured(router(request_id).sweep(until=until))

    metrics().add_metric(name="MessagesReceived", unit=MetricUnit.Count, value=len(event["Records"]))

    def route(record: Any) -> None:
        order = order_of(record.body)
        cause = record.raw_event.get("messageAttributes", {}).get(REQUEST_ID, {}).get("stringValue")
        request_id = cause or f"route-{context.aws_request_id}"
        set_correlation_id(request_id)
        _measured(router(request_id).route([order], until=until))

    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    return dict(process_partial_response(event, route, processor, context))


def router(request_id: str) -> Router:
    """A router whose events name `request_id`."""
    policy = RetryPolicy(
        attempts_max=settings().order_retry_max_attempts,
        first_wait=settings().order_retry_wait_ms / 1000,
        venue_timeout=settings().venue_timeout_ms / 1000,
        lost_after=settings().order_status_update_timeout,
    )
    store = VenueStore(database(), HOLDER, lease_ms=policy.lease_ms, request_id=request_id)
    return Router(store, broker, policy, partial(notify_relay, request_id=request_id))


def order_of(body: str) -> OrderId:
    """The order that a message names; ValueError for a message that names none."""
    message: Any = json.loads(body)
    if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("user_id", "order_id")):
        raise ValueError('a message must be {"user_id": "...", "order_id": "..."}')
    return OrderId(UUID(message["user_id"]), UUID(message["order_id"]))


def _measured(report: RoutingReport) -> dict[str, Any]:
    done = asdict(report)
    counts = {
        "OrdersClaimed": report.claimed,
        "OrdersSettled": report.settled,
        "OrdersInFlight": report.in_flight,
        "OrdersNotFollowed": report.failed,
    }
    for name, count in counts.items():
        metrics().add_metric(name=name, unit=MetricUnit.Count, value=count)
    logger().info("orders routed", extra=done)
    return done
