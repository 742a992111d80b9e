"""Logger, Metrics and Tracer of Powertools, set up in one place for every function."""

import os
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from trading.settings import settings

type Handler = Callable[[Any, Any], Any]

__all__ = ["Handler", "MetricUnit", "instrumented", "logger", "metrics", "set_correlation_id"]


@lru_cache(maxsize=1)
def logger() -> Logger:
    """The JSON logger. Bodies, tokens and addresses of people never go into it."""
    return Logger(service=settings().service, level=settings().log_level, utc=True)


@lru_cache(maxsize=1)
def metrics() -> Metrics:
    """Metrics in CloudWatch's embedded format, written once an invocation."""
    return Metrics(namespace=settings().metrics_namespace, service=settings().service)


def set_correlation_id(request_id: str) -> None:
    """Put `request_id` (the X-Request-ID of the first cause) on every line that follows in this invocation."""
    logger().set_correlation_id(request_id)


def instrumented(handler: Handler) -> Handler:
    """`handler` with log context, metrics (a cold start is one), and a trace where there is AWS X-Ray.

    The decorators are made at the first invocation, so that importing a function reads no environment.
    """
    made: list[Handler] = []

    @wraps(handler)
    def entry(event: Any, context: Any) -> Any:
        if not made:
            made.append(_decorated(handler))
        return made[0](event, context)

    return entry


def _decorated(handler: Handler) -> Handler:
    # Events carry tokens and bodies: log_event stays off whatever the environment asks for.
    logged: Handler = logger().inject_lambda_context(handler, log_event=False, clear_state=True)
    measured: Handler = metrics().log_metrics(logged, capture_cold_start_metric=True)
    if not _traced():
        return measured
    from aws_lambda_powertools import Tracer

    # Patching libraries would import boto3 and more into functions that do not need them.
    tracer = Tracer(service=settings().service, auto_patch=False)
    return tracer.capture_lambda_handler(measured, capture_response=False)


def _traced() -> bool:
    """Whether this runs on AWS with tracing on."""
    return (
        settings().stage != "local"
        and "LAMBDA_TASK_ROOT" in os.environ
        and os.environ.get("POWERTOOLS_TRACE_DISABLED", "false").lower() not in {"1", "true"}
    )
