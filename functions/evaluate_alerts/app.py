"""Each minute: judges every alert rule by the figures of the moment, tells people, and begins automatic responses."""

from dataclasses import asdict
from functools import partial
from typing import Any

from trading.alert_responses import Limits, Responses, carry_out
from trading.alerting import AlertReport, Evaluation
from trading.cache import cache
from trading.channels.registry import channel
from trading.collectors.from_database import database_collectors
from trading.collectors.protocol import Collectors
from trading.database_silence import outage_memory
from trading.guarding.guard_copy import GuardCopy
from trading.intervention_means import ORDERS_FUNCTION
from trading.observability import MetricUnit, instrumented, logger, metrics, set_correlation_id
from trading.queue import notify_relay
from trading.reserved_concurrency import LambdaCapacity
from trading.settings import settings
from trading.store.alerts import AlertStore
from trading.store.connection import database
from trading.store.interventions import InterventionStore
from trading.store.security import read_guard


def evaluate(_event: dict[str, Any], context: Any) -> dict[str, object]:
    """One evaluation; what was found and done."""
    request_id = f"alerts-{context.aws_request_id}"
    set_correlation_id(request_id)
    interventions = InterventionStore(database(), request_id)
    report = Evaluation(
        store=AlertStore(database()),
        collectors=_collectors(),
        channels=partial(channel, settings()),
        responder=Responses(interventions, _limits(), partial(notify_relay, request_id=request_id)),
        memory=outage_memory(),
        time_left_ms=context.get_remaining_time_in_millis,
        release=settings().version,
    ).run()
    if not report.silent:
        carry_out(interventions, LambdaCapacity(settings().alert_functions), limits=_limits())
    if report.responses:
        # So that the edge knows at once; the watch over security does it within a minute anyway.
        GuardCopy(cache(), partial(read_guard, database())).renew()
    _measure(report)
    logger().info("alerts evaluated", extra=asdict(report))
    return asdict(report)


def _limits() -> Limits:
    return Limits(ORDERS_FUNCTION, settings().alert_concurrency_max, settings().quote_standby_provider)


def _collectors() -> Collectors:
    found = dict(database_collectors(database()))
    if settings().alert_cloudwatch:
        from trading.collectors.from_cloudwatch import CloudWatchCollector, Sources

        found["cloudwatch"] = CloudWatchCollector(
            Sources(
                namespace=settings().metrics_namespace,
                functions=settings().alert_functions,
                dead_letter_queues=settings().alert_dead_letter_queues,
                database_id=settings().alert_database_id,
                database_memory_mb=settings().alert_database_memory_mb,
            )
        )
    return found


def _measure(report: AlertReport) -> None:
    counts = {
        "AlertsOpened": report.opened,
        "AlertsCleared": report.cleared,
        "AlertsEscalated": report.escalated,
        "AlertMessagesSent": report.sent,
        "AlertMessagesNotSent": report.not_sent,
        "AlertResponses": report.responses,
        "CollectorsFailed": len(report.failed),
        "DatabaseSilent": int(report.silent),
    }
    for name, count in counts.items():
        metrics().add_metric(name=name, unit=MetricUnit.Count, value=count)


handler = instrumented(evaluate)
