"""Each minute: finds the accounts that have come into a margin call or left one, and those to be stopped out."""

from dataclasses import asdict
from functools import partial
from typing import Any

from trading.monitoring import MarginReport, monitor_margin
from trading.observability import MetricUnit, instrumented, logger, metrics, set_correlation_id
from trading.queue import notify_relay
from trading.store.connection import database
from trading.store.risk import RiskStore


def watch(_event: dict[str, Any], context: Any) -> dict[str, object]:
    """Scan every account with open positions and settle what is due; what was found and done."""
    request_id = f"risk-{context.aws_request_id}"
    set_correlation_id(request_id)
    report = monitor_margin(
        RiskStore(database()),
        partial(notify_relay, request_id=request_id),
        request_id=request_id,
        time_left_ms=context.get_remaining_time_in_millis,
    )
    _measure(report)
    logger().info("margin levels watched", extra=asdict(report))
    return asdict(report)


def _measure(report: MarginReport) -> None:
    counts = {
        "AccountsChecked": report.checked,
        "AccountsBreached": report.breached,
        "AccountsSkipped": report.skipped,
        "AccountsFailed": report.failed,
        "MarginCallsEntered": report.entered,
        "MarginCallsEscalated": report.escalated,
        "MarginCallsEased": report.eased,
        "MarginCallsLeft": report.left,
        "StopOuts": report.stopped_out,
        "StopOutsWaiting": report.waiting,
        "StopOutsUnfinished": report.unfinished,
        "PositionsClosed": report.positions_closed,
        "OrdersCanceled": report.orders_canceled,
        "BalancesProtected": report.protected,
        "ScansCutShort": int(not report.complete),
    }
    for name, count in counts.items():
        metrics().add_metric(name=name, unit=MetricUnit.Count, value=count)


handler = instrumented(watch)
