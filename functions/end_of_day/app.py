"""Each few minutes: days of accounts begin, positions are charged for their rolls, and worth is kept by the hour.

What histories have kept for long enough goes.
"""

from dataclasses import asdict
from functools import partial
from typing import Any

from trading.day_opening import DaysReport, open_days
from trading.equity_snapshots import SnapshotReport, take_snapshots
from trading.observability import MetricUnit, instrumented, logger, metrics, set_correlation_id
from trading.queue import notify_relay
from trading.rollover import RolloverReport, roll_positions
from trading.store.connection import database
from trading.store.equity import EquityStore
from trading.store.financing import FinancingStore
from trading.store.retention import purge_histories


def end_day(_event: dict[str, Any], context: Any) -> dict[str, object]:
    """Begin what days have to, charge what rolls have left to charge, take this hour's snapshots; what was done."""
    request_id = f"end-of-day-{context.aws_request_id}"
    set_correlation_id(request_id)
    # First: a day that begins at the roll begins with what was owned before its financing, which counts as the day's.
    days = open_days(EquityStore(database()), time_left_ms=context.get_remaining_time_in_millis)
    rollover = roll_positions(
        FinancingStore(database()),
        partial(notify_relay, request_id=request_id),
        request_id=request_id,
        time_left_ms=context.get_remaining_time_in_millis,
    )
    snapshots = take_snapshots(EquityStore(database()), time_left_ms=context.get_remaining_time_in_millis)
    _measure(days, rollover, snapshots)
    report: dict[str, object] = {
        "days": asdict(days),
        "rollover": asdict(rollover),
        "snapshots": asdict(snapshots),
        "purged": asdict(purge_histories(database())),
    }
    logger().info("day kept", extra=report)
    return report


def _measure(days: DaysReport, rollover: RolloverReport, snapshots: SnapshotReport) -> None:
    counts = {
        "DaysOpened": days.opened,
        "DaysFailed": days.failed,
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
