"""Invoke and reserved concurrency as boto3's client knows them, with their errors, and as the command makes it."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.environment import State
from local.gateway.local_values import ACCOUNT, REGION, STACK
from local.invoking import FailedFunctionError, UnknownFunctionError, invoke
from local.processes import StartError
from tests.kit.gateway import Reports, RunningGateway, running_gateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningGateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def functions(gateway: RunningGateway) -> Generator[Any]:
    client = gateway.client("lambda")
    yield client
    client.close()


def test_it_answers_with_what_the_function_returned(functions: Any) -> None:
    event = {"body": json.dumps({"do": "return", "value": {"grüße": [1, None]}})}

    answer = functions.invoke(FunctionName="trading-local-EchoFunction", Payload=json.dumps(event).encode())

    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in answer
    assert json.load(answer["Payload"]) == {"grüße": [1, None]}


def test_an_arn_names_a_function_and_no_payload_is_an_empty_event(functions: Any) -> None:
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{STACK}-EchoFunction"

    answer = functions.invoke(FunctionName=arn)

    assert json.loads(json.load(answer["Payload"])["body"])["event"] == {}


@pytest.mark.parametrize(
    ("function", "body", "error"),
    [
        ("EchoFunction", {"do": "raise", "message": "on purpose"}, ("ValueError", "on purpose")),
        ("EchoFunction", {"do": "exit"}, ("Runtime.ExitError", "")),
        ("BrokenFunction", {}, ("Runtime.ImportModuleError", "no_such_module_anywhere")),
    ],
)
def test_a_function_that_fails_is_told_as_a_function_error(
    functions: Any, function: str, body: dict[str, str], error: tuple[str, str]
) -> None:
    event = json.dumps({"body": json.dumps(body)}).encode()

    answer = functions.invoke(FunctionName=f"trading-local-{function}", Payload=event)

    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    told = json.load(answer["Payload"])
    assert told["errorType"] == error[0]
    assert error[1] in told["errorMessage"]


def test_an_event_is_taken_at_once_and_run_as_a_schedule_runs_it(gateway: RunningGateway, functions: Any) -> None:
    # when a function is invoked that nobody waits for, and that fails
    answer = functions.invoke(
        FunctionName="trading-local-TickFunction", InvocationType="Event", Payload=b'{"at": "by hand"}'
    )

    # then it is taken, it runs, and its failure is kept
    assert (answer["StatusCode"], answer["Payload"].read()) == (202, b"")
    reports = Reports(gateway)
    seen = reports.until(lambda seen: any(report.get("tick") == "by hand" for report in seen))
    reports.close()
    run = next(report for report in seen if report.get("tick") == "by hand")
    kept = Reports(gateway, "FailureQueue")
    records = kept.until(
        lambda seen: any(record["requestContext"]["requestId"] == run["request_id"] for record in seen)
    )
    kept.close()
    assert {"at": "by hand"} in [record["requestPayload"] for record in records]


def test_what_is_reserved_is_told_and_set_as_lambda_does_it(functions: Any) -> None:
    # given one without a number of its own
    name = "trading-local-LeavingFunction"
    assert functions.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions") is None

    # when
    told = functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=3)

    # then
    assert told["ReservedConcurrentExecutions"] == 3
    assert functions.get_function_concurrency(FunctionName=name)["ReservedConcurrentExecutions"] == 3
    with pytest.raises(ClientError) as refused:
        functions.get_function_concurrency(FunctionName="trading-local-Nothing")
    assert refused.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_a_dry_run_runs_nothing(functions: Any) -> None:
    answer = functions.invoke(FunctionName="trading-local-LeavingFunction", InvocationType="DryRun")

    assert answer["StatusCode"] == 204


@pytest.mark.parametrize(
    ("asked", "code", "status"),
    [
        ({"FunctionName": "trading-local-Nothing"}, "ResourceNotFoundException", 404),
        ({"FunctionName": "trading-local-EchoFunction", "Payload": b"{"}, "InvalidRequestContentException", 400),
        (
            {"FunctionName": "trading-local-EchoFunction", "InvocationType": "Later"},
            "InvalidParameterValueException",
            400,
        ),
    ],
)
def test_what_cannot_be_invoked_is_refused(functions: Any, asked: dict[str, Any], code: str, status: int) -> None:
    with pytest.raises(ClientError) as refused:
        functions.invoke(**asked)

    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


class TestByHand:
    """local.invoking, which names functions as the template does."""

    def test_it_gives_what_the_function_returned(self, gateway: RunningGateway) -> None:
        assert invoke(State(gateway.state), "EchoFunction")["statusCode"] == 201
        assert invoke(State(gateway.state), "EchoFunction", wait=False) is None

    def test_a_function_that_there_is_not_is_named(self, gateway: RunningGateway) -> None:
        with pytest.raises(UnknownFunctionError, match="FUNCTION NoFunction is no function"):
            invoke(State(gateway.state), "NoFunction")

    def test_a_function_that_fails_says_how(self, gateway: RunningGateway) -> None:
        with pytest.raises(FailedFunctionError, match=r"Runtime\.ImportModuleError"):
            invoke(State(gateway.state), "BrokenFunction")

    def test_where_nothing_is_up_it_says_so(self, gateway: RunningGateway, tmp_path: Path) -> None:
        # given a folder that no gateway has written to, and one whose gateway is gone
        (tmp_path / "gone").mkdir()
        left = (gateway.state / "aws").read_text().replace(gateway.aws["AWS_ENDPOINT_URL"], "http://127.0.0.1:9")
        (tmp_path / "gone" / "aws").write_text(left)
        for folder in (tmp_path, tmp_path / "gone"):
            with pytest.raises(StartError, match="No local system is up"):
                invoke(State(folder), "EchoFunction")
