"""Finds the accounts whose margin level has come below a level of theirs or left it, and those to be stopped out.

Started each minute by the schedule, for all accounts, and by the queue for those that hold a symbol that has moved.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, cast

from trading.circuit_breakers import BreakerReport, watch_breakers
from trading.json_body import parse_json_object
from trading.monitoring import MarginReport, monitor_holders, monitor_margin
from trading.observability import MetricUnit, instrumented, logger, metrics, set_correlation_id
from trading.queue import notify_relay, start_routing
from trading.store.circuit_breakers import CircuitBreakerStore
from trading.store.connection import database
from trading.store.risk import RiskStore

MESSAGE_BYTES_MAX = 64 * 1024
MESSAGE_VERSION = 1


def watch(event: dict[str, Any], context: Any) -> dict[str, object]:
    """Look at the accounts that `event` is about and settle what is due; what was found and done."""
    request_id = f"risk-{context.aws_request_id}"
    set_correlation_id(request_id)
    store, announce = RiskStore(database()), partial(notify_relay, request_id=request_id)
    route = partial(start_routing, request_id=request_id)
    time_left_ms = context.get_remaining_time_in_millis
    if "Records" not in event:
        report = monitor_margin(store, announce, route, request_id=request_id, time_left_ms=time_left_ms)
        # Behind the margins, which nothing may keep up; they leave time.
        tripped = watch_breakers(CircuitBreakerStore(database()), announce, request_id=request_id)
        return {**_measured(report), "breakers": _tripped(tripped)}
    symbols, unreadable = _moved(event["Records"])
    report = monitor_holders(store, symbols, announce, route, request_id=request_id, time_left_ms=time_left_ms)
    return {**_measured(report), "batchItemFailures": [{"itemIdentifier": each} for each in unreadable]}


def _moved(records: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """The symbols that messages name, and the ids of those that cannot be read."""
    symbols: set[str] = set()
    unreadable: list[str] = []
    for record in records:
        try:
            symbols |= symbols_of(record["body"])
        except ValueError as error:
            unreadable.append(record["messageId"])
            logger().error("a message could not be read", extra={"cause": repr(error)})
    return sorted(symbols), unreadable


def symbols_of(body: str) -> set[str]:
    """The symbols that a message names; ValueError for a message that names none, or that another release wrote."""
    message = parse_json_object(body.encode("utf-8", errors="surrogatepass"), MESSAGE_BYTES_MAX)
    if message.get("version", MESSAGE_VERSION) != MESSAGE_VERSION:
        raise ValueError(f"a message of another version than {MESSAGE_VERSION}")
    symbols = message.get("symbols")
    if not isinstance(symbols, list) or not all(isinstance(each, str) for each in cast("list[object]", symbols)):
        raise ValueError('a message must be {"symbols": ["..."]}')
    return set(cast("list[str]", symbols))


def _tripped(report: BreakerReport) -> dict[str, object]:
    trips = report.accounts_tripped + int(report.platform_tripped)
    metrics().add_metric(name="CircuitBreakersTripped", unit=MetricUnit.Count, value=trips)
    return asdict(report)


def _measured(report: MarginReport) -> dict[str, object]:
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
        "StopOutsAtVenues": report.routed,
        "StopOutsUnfinished": report.unfinished,
        "PositionsClosed": report.positions_closed,
        "OrdersCanceled": report.orders_canceled,
        "ClosingOrdersSent": report.orders_sent,
        "BalancesProtected": report.protected,
        "ScansCutShort": int(not report.complete),
    }
    for name, count in counts.items():
        metrics().add_metric(name=name, unit=MetricUnit.Count, value=count)
    logger().info("margin levels watched", extra=asdict(report))
    return asdict(report)


handler = instrumented(watch)
