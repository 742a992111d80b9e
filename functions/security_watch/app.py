"""Each minute: makes rows of what the edge counted, judges them, responds, and takes back what is over."""

from dataclasses import asdict
from functools import partial
from typing import Any

from trading.cache import cache
from trading.guarding.guard_copy import GuardCopy
from trading.observability import MetricUnit, instrumented, logger, metrics, set_correlation_id
from trading.queue import notify_relay
from trading.security_watch import SecurityReport, Watch
from trading.store.connection import database
from trading.store.security import SecurityStore


def watch(_event: dict[str, Any], context: Any) -> dict[str, object]:
    """One run over everything that is due; what was found and done."""
    request_id = f"security-{context.aws_request_id}"
    set_correlation_id(request_id)
    store = SecurityStore(database())
    report = Watch(
        store,
        cache(),
        GuardCopy(cache(), store.guard).renew,
        partial(notify_relay, request_id=request_id),
        time_left_ms=context.get_remaining_time_in_millis,
        on_failure=lambda step, error: logger().error("a step failed", exc_info=error, extra={"step": step}),
    ).run()
    _measure(report)
    logger().info("security watched", extra=asdict(report))
    return asdict(report)


def _measure(report: SecurityReport) -> None:
    counts = {
        "SecurityEventsRecorded": report.recorded,
        "SecurityEventsLost": report.lost,
        "SecurityFindingsOpened": report.opened,
        "SecurityResponses": report.responded,
        "SecurityResponsesNotMade": report.not_responded,
        "InterventionsExpired": report.expired,
        "AddressesBlocked": report.blocked,
        "SecurityStepsFailed": len(report.failed) + len(report.late),
    }
    for name, count in counts.items():
        metrics().add_metric(name=name, unit=MetricUnit.Count, value=count)


handler = instrumented(watch)
