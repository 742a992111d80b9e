"""A scheduled function that reports its run, then fails."""

from typing import Any

from shared import report  # pyright: ignore[reportMissingImports]


def handler(event: dict[str, Any], context: Any) -> None:
    report(tick=event["at"], request_id=context.aws_request_id)
    raise ValueError("a run that fails")
