"""What the gateway reads out of a template: this project's own, the small one of the tests, and wrong ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from local.gateway.intrinsics import TemplateError
from local.gateway.local_values import LocalValues
from local.gateway.stack import Stack, read_stack
from local.gateway.template import Template, load_template, merge
from tests.kit.gateway import ROOT, STACK

SECRETS = {
    name: f"file:/secrets/{name}"
    for name in (
        "TraderDatabaseSecret",
        "RelayDatabaseSecret",
        "PricesDatabaseSecret",
        "RiskDatabaseSecret",
        "RouterDatabaseSecret",
        "OperatorDatabaseSecret",
        "RiskOfficerDatabaseSecret",
        "TriggersDatabaseSecret",
        "AlertsDatabaseSecret",
        "SecurityDatabaseSecret",
        "IncidentsDatabaseSecret",
        "EndOfDayDatabaseSecret",
        "RedisSecret",
        "JwtSecret",
        "CsrfSecret",
    )
}
PARAMETERS = {"Stage": "local", "JwtAlgorithm": "HS256", "JwtIssuer": "https://issuer.local"}


def read(path: Path, parameters: Mapping[str, Any], secrets: Mapping[str, str], folder: Path | None = None) -> Stack:
    content = load_template(path)
    values = LocalValues(content, secrets, parameters, "http://127.0.0.1:9", "127.0.0.1:8")
    return read_stack(Template(content, values, folder or path.parent))


@pytest.fixture
def project() -> Stack:
    return read(ROOT / "template.yaml", PARAMETERS, SECRETS)


@pytest.fixture
def small() -> Stack:
    return read(STACK, {"Stage": "local", "Token": "t"}, {})


def broken(tmp_path: Path, old: str, new: str) -> Path:
    text = STACK.read_text()
    assert old in text
    path = tmp_path / "template.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_the_projects_routes_reach_their_functions(project: Stack) -> None:
    routes = {route.key: route.function for route in project.http_routes}

    assert routes["POST /functions/v1/execute-order"] == "ExecuteOrderFunction"
    assert routes["POST /api/v1/orders"] == "ExecuteOrderFunction"
    assert routes["GET /functions/v1/get-stock-price"] == "GetPriceFunction"
    assert routes["GET /api/v1/orders/{id}/audit"] == "ManageOrdersFunction"
    assert routes["GET /health"] == "HealthFunction"
    assert project.websocket is not None
    assert project.websocket.stage == "realtime"
    assert {"$connect", "$disconnect", "$default", "auth", "subscribe", "unsubscribe", "ping"} <= set(
        project.websocket.routes
    )


def test_the_projects_functions_get_local_values(project: Stack) -> None:
    environment = project.functions["ExecuteOrderFunction"].environment
    relay = project.functions["ProcessUpdatesFunction"].environment

    assert environment["STAGE"] == "local"
    assert environment["DATABASE_SECRET"] == "file:/secrets/TraderDatabaseSecret"
    assert environment["RELAY_QUEUE_URL"] == "http://127.0.0.1:9/000000000000/trading-local-RelayQueue"
    assert relay["CONNECTIONS_ENDPOINT"] == "http://127.0.0.1:9/realtime"
    assert not any("amazonaws" in value for spec in project.functions.values() for value in spec.environment.values())
    assert project.functions["ExecuteOrderFunction"].layers == (ROOT / "layers" / "trading",)


def test_the_projects_queues_and_schedules_are_found(project: Stack) -> None:
    assert {mapping.function for mapping in project.mappings} == {
        "RealtimeFunction",
        "ProcessUpdatesFunction",
        "RiskMonitoringFunction",
        "RouteOrdersFunction",
        "TriggerOrdersFunction",
    }
    assert all(mapping.partial_failures for mapping in project.mappings)
    assert {(schedule.function, schedule.seconds) for schedule in project.schedules} == {
        ("ProcessUpdatesFunction", 60.0),
        ("RiskMonitoringFunction", 60.0),
        ("SecurityWatchFunction", 60.0),
        ("EvaluateAlertsFunction", 60.0),
        ("EndOfDayFunction", 300.0),
        ("RouteOrdersFunction", 60.0),
        ("TriggerOrdersFunction", 60.0),
        ("StreamPricesFunction", 60.0),
    }


def test_globals_and_conditions_are_applied(small: Stack) -> None:
    echo, socket = small.functions["EchoFunction"], small.functions["SocketFunction"]

    assert "CloudOnlyFunction" not in small.functions
    assert (echo.seconds, socket.seconds) == (1.0, 5.0)
    assert (echo.concurrency, socket.concurrency) == (2, None)
    assert echo.environment["STAGE"] == socket.environment["STAGE"] == "local"
    assert small.cors is not None
    assert small.cors.origins == ("https://front.example", "https://other.example")


def test_a_schedule_that_is_disabled_and_a_mapping_too_are_left_out(tmp_path: Path) -> None:
    path = broken(tmp_path, "            Input:", "            State: DISABLED\n            Input:")
    text = path.read_text().replace("            BatchSize: 5", "            Enabled: false\n            BatchSize: 5")
    path.write_text(text)

    stack = read(path, {"Stage": "local", "Token": "t"}, {}, STACK.parent)

    assert (stack.schedules, stack.mappings) == ([], [])


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("Type: ScheduleV2", "Type: Schedule", "TickFunction.Tick: the event type Schedule"),
        ("BatchSize: 5", "FilterCriteria: {}", "BatchFunction.Work: FilterCriteria"),
        ("rate(${TickSeconds})", "cron(* * * * ? *)", "cron"),
        ("      VisibilityTimeout: 5\n", "      FifoQueue: true\n", "FIFO"),
        ("CodeUri: functions/batch", "CodeUri: functions/nothing", "functions/nothing is missing"),
        ("$request.body.type", "$request.header.x", r"\$request.header.x"),
        ("      VisibilityTimeout: 5\n", "      VisibilityTimeout: 4\n", "hides messages 4 s"),
        ("push: { FunctionArn: !GetAtt SocketFunction.Arn }", "push: { FunctionArn: other }", "other is no function"),
        ("!Ref Token", "!Ref Tokens", "Tokens is neither"),
        ("!Ref Token\n", "!Ref EchoRole\n", "EchoRole"),
        ("Resources:", "Stuff:", "has no Resources"),
        ("Layers: [!Ref SharedLayer]", "Layers: ['arn:aws:lambda:elsewhere']", "arn:aws:lambda:elsewhere"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_here_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = broken(tmp_path, old, new)

    with pytest.raises(TemplateError, match=named):
        read(path, {"Stage": "local", "Token": "t"}, {}, STACK.parent)


@pytest.mark.parametrize(
    ("parameters", "named"), [({}, "The parameter Token has no default"), ({"Colour": "red"}, "no parameter Colour")]
)
def test_a_parameter_must_be_there_and_be_known(parameters: dict[str, str], named: str) -> None:
    with pytest.raises(TemplateError, match=named):
        read(STACK, {"Stage": "local", **parameters}, {})


def test_a_property_of_globals_is_merged_as_sam_does() -> None:
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}) == {"a": {"b": 1, "c": 3}}
    assert merge([1], [2]) == [1, 2]
    assert merge(1, 2) == 2
    assert merge({"Fn::If": ["a", 1, 2]}, {"a": 1}) == {"a": 1}
