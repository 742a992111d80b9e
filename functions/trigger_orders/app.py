"""Executes what prices have touched: orders that rest, stop losses, take profits, and orders that expire. Before that,
what a risk officer winds down.

Started by the queue as soon as a batch of quotes has touched something, and every minute by the schedule.
"""

import time
from dataclasses import asdict
from functools import partial
from typing import Any
from uuid import uuid4

from trading.observability import MetricUnit, instrumented, logger, metrics, set_correlation_id
from trading.queue import notify_relay, start_routing
from trading.settings import settings
from trading.store.connection import database
from trading.store.kill_switch import WindDownStore
from trading.store.triggers import TriggerStore
from trading.triggering import TriggerReport, execute_triggers
from trading.winding_down import WindDownReport, work_off_wind_downs

# For answering and for Lambda's own work after the handler.
MARGIN_SECONDS = 1.0
# Longer than one row's execution may take: the client gives the database up before.
LEASE_MS_OVER_TIMEOUT = 1_000
# Names this execution environment in its leases.
HOLDER = uuid4()


def execute(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Work the queues off; what was done. A message only says that there is something: any run does all there is."""
    until = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - MARGIN_SECONDS
    request_id = f"trigger-{context.aws_request_id}"
    set_correlation_id(request_id)
    metrics().add_metric(name="MessagesReceived", unit=MetricUnit.Count, value=len(event.get("Records", ())))
    lease_ms = settings().database_timeout_ms + LEASE_MS_OVER_TIMEOUT
    announce, route = partial(notify_relay, request_id=request_id), partial(start_routing, request_id=request_id)
    wound_down = work_off_wind_downs(
        WindDownStore(database(), HOLDER, lease_ms=lease_ms, request_id=request_id), announce, route, until=until
    )
    store = TriggerStore(database(), HOLDER, lease_ms=lease_ms, request_id=request_id)
    return _measured(execute_triggers(store, announce, route, until=until), wound_down)


def _measured(report: TriggerReport, wound_down: WindDownReport) -> dict[str, Any]:
    done = asdict(report) | {"wound_down": asdict(wound_down)}
    counts = {
        "WindDownsWaiting": wound_down.waiting,
        "WindDownsFailed": wound_down.failed,
        "TriggersClaimed": report.claimed,
        "TriggersFilled": report.states.get("filled", 0) + report.states.get("partially_filled", 0),
        "TriggersRouted": report.states.get("routed", 0),
        "TriggersRejected": report.states.get("rejected", 0),
        "TriggersWaiting": report.waiting,
        "TriggersFailed": report.failed,
    }
    for name, count in counts.items():
        metrics().add_metric(name=name, unit=MetricUnit.Count, value=count)
    logger().info("triggers executed", extra=done)
    # A message is a hint: what failed stays in the database's queue.
    return {**done, "batchItemFailures": []}


handler = instrumented(execute)
