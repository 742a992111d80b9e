"""Logger, Metrics and Tracer of Powertools, set up in one place for every function."""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from json import JSONEncoder
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from trading.settings import settings

type Handler = Callable[[Any, Any], Any]

__all__ = ["Handler", "MetricUnit", "instrumented", "log_measured", "logger", "metrics", "set_correlation_id"]

_encode = JSONEncoder(default=str, separators=(",", ":"), ensure_ascii=False).encode


@lru_cache(maxsize=1)
def logger() -> Logger:
    """The JSON logger. Bodies, tokens and addresses of people never go into it."""
    made = Logger(service=settings().service, level=settings().log_level, utc=True)
    # Powertools would take what Lambda lets pass (AWS_LAMBDA_LOG_LEVEL) for the level.
    logging.getLogger(settings().service).setLevel(settings().log_level)
    # At DEBUG, Lambda's runtime lets every library write, and botocore writes the secrets that it reads.
    root = logging.getLogger()
    root.setLevel(max(root.level, logging.INFO))
    return made


@lru_cache(maxsize=1)
def metrics() -> Metrics:
    """Metrics in CloudWatch's embedded format, written at the end of an invocation that has any."""
    return Metrics(namespace=settings().metrics_namespace, service=settings().service)


def set_correlation_id(request_id: str) -> None:
    """Put `request_id` (the X-Request-ID of the first cause) on every line that follows in this invocation."""
    logger().set_correlation_id(request_id)


def log_measured(
    message: str, route: str, measured: Mapping[str, tuple[MetricUnit, float]], facts: Mapping[str, object]
) -> None:
    """Write one line that is a log entry, with the logger's keys, and the metrics `measured` of a service and a route.

    Each request writes it. As CloudWatch's embedded format takes any members beside its own, one line does for both;
    by Logger and Metrics it is two, which cost a quarter of an order's time in this process.
    """
    now = time.time()
    definitions = [{"Name": name, "Unit": unit.value} for name, (unit, _) in measured.items()]
    directive = {
        "Namespace": settings().metrics_namespace,
        "Dimensions": [["service", "route"]],
        "Metrics": definitions,
    }
    line: dict[str, object] = {
        **logger().get_current_keys(),
        "level": "INFO",
        "message": message,
        "timestamp": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now)) + f",{int(now * 1000) % 1000:03d}+0000",
        "xray_trace_id": os.environ.get("_X_AMZN_TRACE_ID", "").partition(";")[0].removeprefix("Root=") or None,
        "route": route,
        **facts,
        **{name: value for name, (_, value) in measured.items()},
        "_aws": {"Timestamp": int(now * 1000), "CloudWatchMetrics": [directive]},
    }
    del line["location"]  # always the same
    text = _encode({name: value for name, value in line.items() if value is not None})
    sys.stdout.write(f"{text}\n")


def instrumented(handler: Handler) -> Handler:
    """`handler` with log context, metrics (a cold start is one), and a trace where there is AWS X-Ray.

    The decorators are made at the first invocation, so that importing a function reads no environment.
    """
    made: list[Handler] = []

    @wraps(handler)
    def entry(event: Any, context: Any) -> Any:
        is_cold = not made
        if is_cold:
            made.append(_decorated(handler))
        try:
            answer = made[0](event, context)
            if is_cold:
                metrics().provider.add_cold_start_metric(context)
            return answer
        finally:
            # An invocation that counted nothing has nothing to say; Metrics' own decorator would warn of it.
            if metrics().metric_set:
                metrics().flush_metrics()

    return entry


def _decorated(handler: Handler) -> Handler:
    # Events carry tokens and bodies: log_event stays off whatever the environment asks for.
    logged: Handler = logger().inject_lambda_context(handler, log_event=False, clear_state=True)
    if not _traced():
        return logged
    from aws_lambda_powertools import Tracer

    # Patching libraries would import boto3 and more into functions that do not need them.
    tracer = Tracer(service=settings().service, auto_patch=False)
    return tracer.capture_lambda_handler(logged, capture_response=False)


def _traced() -> bool:
    """Whether this runs on AWS with tracing on."""
    return (
        settings().stage != "local"
        and "LAMBDA_TASK_ROOT" in os.environ
        and os.environ.get("POWERTOOLS_TRACE_DISABLED", "false").lower() not in {"1", "true"}
    )
