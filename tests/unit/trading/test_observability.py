"""What every handler gets: log context, metrics with the cold start, and a trace on AWS alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.functions import Context, function_environment
from trading.observability import instrumented, logger, set_correlation_id

ROOT = Path(__file__).parents[3]

PROGRAM = """
import json, sys
from tests.kit.functions import Context
from trading.observability import MetricUnit, instrumented, metrics

@instrumented
def handler(event, context):
    metrics().add_metric(name="Things", unit=MetricUnit.Count, value=1)
    return {"seen": event}

print(json.dumps(handler({"a": 1}, Context())))
print(json.dumps(handler({"a": 2}, Context())))
print(json.dumps("aws_xray_sdk" in sys.modules))
print(json.dumps("boto3" in sys.modules))
"""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    with function_environment(monkeypatch, tmp_path):
        yield


def run(**variables: str) -> list[Any]:
    """The lines that PROGRAM writes in an environment of its own."""
    given = {
        "PATH": os.defpath,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'layers' / 'trading'}",
        "POWERTOOLS_SERVICE_NAME": "things",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=given | variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_cold_start_is_counted_once() -> None:
    lines = run(STAGE="local")

    cold_starts = [line for line in lines if isinstance(line, dict) and "ColdStart" in line]
    counted = [line for line in lines if isinstance(line, dict) and "Things" in line]
    assert len(cold_starts) == 1
    assert cold_starts[0]["function_name"] == "function-under-test"
    assert [line["Things"] for line in counted] == [[1.0], [1.0]]
    assert {line["service"] for line in counted} == {"things"}


def test_there_is_no_trace_off_aws() -> None:
    traced, boto3 = run(STAGE="local", LAMBDA_TASK_ROOT="/var/task")[-2:]

    assert (traced, boto3) == (False, False)


def test_there_is_a_trace_on_aws_without_the_weight_of_patched_libraries() -> None:
    lines = run(
        STAGE="dev",
        LAMBDA_TASK_ROOT="/var/task",
        _X_AMZN_TRACE_ID="Root=1-5759e988-bd862e3fe1be46a994272793;Parent=557abcec3ee5a047;Sampled=0",
    )

    assert {"seen": {"a": 1}} in lines
    assert lines[-2:] == [True, False]


@pytest.mark.usefixtures("environment")
def test_log_lines_carry_the_correlation_id_and_a_new_invocation_starts_clean(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @instrumented
    def handler(event: dict[str, Any], _context: Any) -> None:
        if event:
            set_correlation_id(event["id"])
        logger().info("said")

    with pytest.warns(UserWarning, match="No application metrics"):
        handler({"id": "first"}, Context())
    with pytest.warns(UserWarning, match="No application metrics"):
        handler({}, Context())

    said = [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if line.get("message") == "said"]
    assert said[0]["correlation_id"] == "first"
    assert "correlation_id" not in said[1]


@pytest.mark.usefixtures("environment")
def test_an_event_is_never_logged_whatever_the_environment_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POWERTOOLS_LOGGER_LOG_EVENT", "true")

    @instrumented
    def handler(_event: dict[str, Any], _context: Any) -> None:
        logger().info("said")

    with pytest.warns(UserWarning, match="No application metrics"):
        handler({"token": "secret-token"}, Context())

    assert "secret-token" not in capsys.readouterr().out
