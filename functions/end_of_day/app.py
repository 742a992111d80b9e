"""Each few minutes: charges positions for the rolls that have come, and keeps what accounts are worth each hour."""

from dataclasses import asdict
from functools import partial
from typing import Any

from trading.observability import MetricUnit, instrumented, logger, metrics, set_correlation_id
from trading.queue import notify_relay
from trading.rollover import RolloverReport, roll_positions
from trading.snapshots import SnapshotReport, take_snapshots
from trading.store.connection import database
from trading.store.equity import EquityStore
from trading.store.financing import FinancingStore


def end_day(_event: dict[str, Any], context: Any) -> dict[str, object]:
    """Charge what rolls have left to charge, then take this hour's snapshots; what was done."""
    request_id = f"end-of-day-{context.aws_request_id}"
    set_correlation_id(request_id)
    rollover = roll_positions(
        FinancingStore(database()),
        partial(notify_relay, request_id=request_id),
        request_id=request_id,
        time_left_ms=context.get_remaining_time_in_millis,
    )
    snapshots = take_snapshots(EquityStore(database()), time_left_ms=context.get_remaining_time_in_millis)
    _measure(rollover, snapshots)
    report: dict[str, object] = {"rollover": asdict(rollover), "snapshots": asdict(snapshots)}
    logger().info("day kept", extra=report)
    return report


def _measure(rollover: RolloverReport, snapshots: SnapshotReport) -> None:
    counts = {
        "RollsFinished": rollover.rolls_finished,
        "FinancingEntries": rollover.charged,
        "FinancingFailed": rollover.failed,
        "FinancingUnconverted": rollover.unconverted,
        "RollsWithoutRate": rollover.rates_missing,
        "RollsWithoutQuote": rollover.quotes_missing,
        "RolloversCutShort": int(not rollover.complete),
        "EquitySnapshots": snapshots.taken,
    }
    for name, count in counts.items():
        metrics().add_metric(name=name, unit=MetricUnit.Count, value=count)


handler = instrumented(end_day)
