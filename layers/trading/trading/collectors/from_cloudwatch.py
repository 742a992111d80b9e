"""Figures that CloudWatch keeps: requests, functions, the database's machine, queues of given-up messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, cast

from trading.alerts import Figure
from trading.settings import AWS_USER_AGENT

TIMEOUT_SECONDS = 3
PERIOD_SECONDS = 60
QUERIES_MAX = 500
ORDER_ROUTES = (
    "POST /functions/v1/execute-order",
    "POST /api/v1/orders",
    "POST /api/v1/orders/oco",
    "POST /api/v1/orders/oto",
    "POST /api/v1/orders/bracket",
)

type Statistic = Literal["Sum", "Average", "Maximum"]


@dataclass(frozen=True, slots=True)
class Sources:
    """What is looked at: functions (our name of each -> its deployed one), queues, the database's id and memory.

    `namespace` is of the functions' own metrics, `orders_service` the dimension of the function that takes orders,
    `orders_function` our name of it.
    """

    namespace: str
    functions: Mapping[str, str] = field(default_factory=dict[str, str])
    dead_letter_queues: tuple[str, ...] = ()
    database_id: str | None = None
    database_memory_mb: int | None = None
    orders_service: str = "execute-order"
    orders_function: str = "execute_order"
    risk_service: str = "risk-monitoring"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric over a window, by its statistic in periods of a minute."""

    namespace: str
    name: str
    statistic: Statistic
    dimensions: tuple[tuple[str, str], ...]


class CloudWatchCollector:
    """Asks for all metrics at once. botocore's errors pass through."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def __call__(self, windows: Sequence[int], at: datetime | None) -> list[Figure]:
        """Each figure in each window of at least a minute, up to an hour."""
        end = (at or datetime.now(UTC)).replace(second=0, microsecond=0)
        asked = [seconds for seconds in windows if PERIOD_SECONDS <= seconds <= 3600]
        if not asked:
            return []
        points = _fetch(self._metrics(), end - timedelta(seconds=max(asked)), end)
        figures: list[Figure] = []
        for seconds in asked:
            since = end - timedelta(seconds=seconds)
            kept = {metric: [v for moment, v in found if moment >= since] for metric, found in points.items()}
            figures += self._figures(kept, seconds)
        return figures

    def _metrics(self) -> list[Metric]:
        given = self._sources
        found = [self._failed_accounts()]
        for name in ("Requests", "Errors", "Latency"):
            found += self._of_orders(name)
        found += self._turned_away()
        for name in given.functions.values():
            found += [_function(name, "Invocations"), _function(name, "Errors")]
        found += [_queue(name) for name in given.dead_letter_queues]
        if given.database_id:
            found += [_database(given.database_id, name) for name in ("CPUUtilization", "FreeableMemory")]
        return found

    def _of_orders(self, name: str) -> list[Metric]:
        """The metric of the function that takes orders, by route as it is counted."""
        given = self._sources
        return [
            Metric(given.namespace, name, "Sum", (("service", given.orders_service), ("route", route)))
            for route in ORDER_ROUTES
        ]

    def _turned_away(self) -> list[Metric]:
        """Of requests that Lambda took none of, because all copies were busy: the function cannot count them itself."""
        deployed = self._sources.functions.get(self._sources.orders_function)
        return [_function(deployed, "Throttles")] if deployed else []

    def _failed_accounts(self) -> Metric:
        return Metric(self._sources.namespace, "AccountsFailed", "Sum", (("service", self._sources.risk_service),))

    def _figures(self, points: Mapping[Metric, list[Decimal]], seconds: int) -> list[Figure]:
        given = self._sources

        def total(*metrics: Metric) -> Decimal:
            return sum((value for metric in metrics for value in points.get(metric, ())), Decimal(0))

        errors, latency = total(*self._of_orders("Errors")), total(*self._of_orders("Latency"))
        count = int(total(*self._of_orders("Requests")))
        turned_away = total(*self._turned_away())
        asked = count + int(turned_away)
        failed = self._failed_accounts()
        figures = [
            Figure("request_failure_percent", _percent(errors + turned_away, asked), asked, window_seconds=seconds),
            Figure(
                "request_latency_average_ms",
                _rounded(latency / count) if count else None,
                count,
                window_seconds=seconds,
            ),
            Figure(
                "stop_out_failures",
                total(failed) if points.get(failed) else None,
                len(points.get(failed, ())),
                window_seconds=seconds,
            ),
        ]
        for name, deployed in given.functions.items():
            invoked = int(total(_function(deployed, "Invocations")))
            value = _percent(total(_function(deployed, "Errors")), invoked)
            figures.append(Figure("function_error_percent", value, invoked, name, seconds))
        for name in given.dead_letter_queues:
            depths = points.get(_queue(name), [])
            value = depths[-1] if depths else None
            figures.append(Figure("dead_letters", value, len(depths), name, seconds))
        return figures + self._machine(points, seconds)

    def _machine(self, points: Mapping[Metric, list[Decimal]], seconds: int) -> list[Figure]:
        given = self._sources
        if not given.database_id:
            return []
        busy = points.get(_database(given.database_id, "CPUUtilization"), [])
        free = points.get(_database(given.database_id, "FreeableMemory"), [])
        figures = [
            Figure("cpu_percent", _average(busy), len(busy), given.database_id, seconds),
        ]
        if given.database_memory_mb:
            whole = Decimal(given.database_memory_mb) * 1024 * 1024
            left = _average(free)
            used = None if left is None else _rounded(100 * (1 - left / whole))
            figures.append(Figure("memory_percent", used, len(free), given.database_id, seconds))
        return figures


def _function(name: str, metric: str) -> Metric:
    return Metric("AWS/Lambda", metric, "Sum", (("FunctionName", name),))


def _queue(name: str) -> Metric:
    return Metric("AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum", (("QueueName", name),))


def _database(database_id: str, metric: str) -> Metric:
    return Metric("AWS/RDS", metric, "Average", (("DBInstanceIdentifier", database_id),))


def _percent(part: Decimal, whole: int) -> Decimal | None:
    return _rounded(100 * part / whole) if whole else None


def _average(values: Sequence[Decimal]) -> Decimal | None:
    return _rounded(sum(values, Decimal(0)) / len(values)) if values else None


def _rounded(value: Decimal) -> Decimal:
    return round(value, 3)


def _fetch(metrics: Sequence[Metric], start: datetime, end: datetime) -> dict[Metric, list[tuple[datetime, Decimal]]]:
    """The points of each metric from `start` to just before `end`, oldest first."""
    queries = [
        {
            "Id": f"m{place}",
            "MetricStat": {
                "Metric": {
                    "Namespace": metric.namespace,
                    "MetricName": metric.name,
                    "Dimensions": [{"Name": name, "Value": value} for name, value in metric.dimensions],
                },
                "Period": PERIOD_SECONDS,
                "Stat": metric.statistic,
            },
        }
        for place, metric in enumerate(metrics[:QUERIES_MAX])
    ]
    found: dict[Metric, list[tuple[datetime, Decimal]]] = {}
    pages = (
        _client()
        .get_paginator("get_metric_data")
        .paginate(MetricDataQueries=queries, StartTime=start, EndTime=end, ScanBy="TimestampAscending")
    )
    for page in pages:
        for result in page["MetricDataResults"]:
            metric = metrics[int(result["Id"][1:])]
            points = zip(result["Timestamps"], result["Values"], strict=True)
            found.setdefault(metric, []).extend((moment, Decimal(str(value))) for moment, value in points)
    return found


@lru_cache(maxsize=1)
def _client() -> Any:
    import boto3  # pyright: ignore[reportMissingTypeStubs]
    from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]

    limits = Config(
        connect_timeout=TIMEOUT_SECONDS,
        read_timeout=TIMEOUT_SECONDS,
        retries={"total_max_attempts": 2, "mode": "standard"},
        user_agent=AWS_USER_AGENT,
    )
    return cast("Any", boto3).client("cloudwatch", config=limits)
