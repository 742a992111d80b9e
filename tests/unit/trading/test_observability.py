"""What every handler gets: log context, metrics with the cold start, and a trace on AWS alone."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.kit.functions import Context, function_environment
from trading.observability import MetricUnit, instrumented, log_measured, logger, metrics, set_correlation_id

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

    handler({"id": "first"}, Context())
    handler({}, Context())

    said = [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if line.get("message") == "said"]
    assert said[0]["correlation_id"] == "first"
    assert "correlation_id" not in said[1]


@pytest.mark.parametrize("wanted", ["DEBUG", "INFO", "WARNING"])
@pytest.mark.usefixtures("environment")
def test_what_lambda_lets_pass_is_not_the_level_and_no_library_writes_at_debug(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given Lambda's runtime, which has opened the root logger as far as Lambda lets pass
    passing = "DEBUG" if wanted == "DEBUG" else "INFO"
    monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", passing)
    monkeypatch.setenv("LOG_LEVEL", wanted)
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", f"levels-{wanted}")
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", logging.getLevelNamesMapping()[passing])

    # when / then
    assert logger().log_level == logging.getLevelNamesMapping()[wanted]
    # botocore writes the secrets that it reads
    assert root.level == logging.INFO


@pytest.mark.usefixtures("environment")
def test_an_invocation_that_fails_tells_its_metrics_once(capsys: pytest.CaptureFixture[str]) -> None:
    # given
    @instrumented
    def handler(event: dict[str, Any], _context: Any) -> None:
        if event:
            metrics().add_metric(name="Things", unit=MetricUnit.Count, value=1)
            raise ValueError("failed")

    # when
    with pytest.raises(ValueError, match="failed"):
        handler({"fails": True}, Context())
    handler({}, Context())

    # then
    counted = [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if "Things" in line]
    assert [line["Things"] for line in counted] == [[1.0]]


@pytest.mark.usefixtures("environment")
def test_one_line_is_log_entry_and_metrics(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # given
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=557abcec3ee5a047")

    @instrumented
    def handler(_event: dict[str, Any], _context: Any) -> None:
        set_correlation_id("id-1")
        logger().info("beside")
        log_measured("done", "GET /", {"Things": (MetricUnit.Count, 2)}, {"colour": "red"})

    # when
    before = time.time()
    handler({}, Context())

    # then it has the members of any other line, in the same form
    beside, line = [json.loads(text) for text in capsys.readouterr().out.splitlines()][:2]
    shared = {
        "level",
        "service",
        "correlation_id",
        "xray_trace_id",
        "function_name",
        "function_request_id",
        "cold_start",
    }
    assert {name: line[name] for name in shared} == {name: beside[name] for name in shared}
    assert (line["message"], line["colour"]) == ("done", "red")
    stamps = [datetime.strptime(each["timestamp"], "%Y-%m-%d %H:%M:%S,%f%z").timestamp() for each in (beside, line)]
    assert before - 0.001 <= stamps[0] <= stamps[1] <= time.time()
    # and what CloudWatch extracts
    assert line["_aws"] == {
        "Timestamp": round(stamps[1] * 1000),
        "CloudWatchMetrics": [
            {
                "Namespace": "Trading",
                "Dimensions": [["service", "route"]],
                "Metrics": [{"Name": "Things", "Unit": "Count"}],
            }
        ],
    }
    assert (line["route"], line["Things"]) == ("GET /", 2)


@pytest.mark.usefixtures("environment")
def test_an_event_is_never_logged_whatever_the_environment_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POWERTOOLS_LOGGER_LOG_EVENT", "true")

    @instrumented
    def handler(_event: dict[str, Any], _context: Any) -> None:
        logger().info("said")

    handler({"token": "secret-token"}, Context())

    assert "secret-token" not in capsys.readouterr().out
