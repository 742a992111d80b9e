"""Queues that feed functions: batches, redelivery of what failed, dead letters; and schedules with their failures."""

import json
from collections.abc import Generator
from datetime import datetime
from typing import Any

import pytest

from tests.kit.gateway import Reports, RunningGateway, eventually, running_gateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningGateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def sqs(gateway: RunningGateway) -> Generator[Any]:
    client = gateway.client("sqs")
    yield client
    client.close()


@pytest.fixture(scope="module")
def reports(gateway: RunningGateway) -> Generator[Reports]:
    opened = Reports(gateway)
    yield opened
    opened.close()


def receive_one(sqs: Any, url: str, having: str) -> dict[str, Any]:
    """The first message whose body contains `having`, deleted."""

    def look() -> dict[str, Any] | None:
        for message in sqs.receive_message(
            QueueUrl=url, WaitTimeSeconds=1, MaxNumberOfMessages=10, AttributeNames=["All"], VisibilityTimeout=0
        ).get("Messages", []):
            if having in message["Body"]:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                return message
        return None

    return eventually(look, what=f"a message with {having}")


def test_only_failed_messages_come_again_until_they_are_dead_letters(
    gateway: RunningGateway, sqs: Any, reports: Reports
) -> None:
    # given a batch of three, one of which fails each time
    work, dead = gateway.queue_url("WorkQueue"), gateway.queue_url("DeadQueue")
    colour = {"colour": {"DataType": "String", "StringValue": "red"}}
    entries = [
        {"Id": str(number), "MessageBody": body, "MessageAttributes": colour}
        for number, body in enumerate(["fine-1", "fail-1", "fine-2"])
    ]

    # when it is sent
    sent = sqs.send_message_batch(QueueUrl=work, Entries=entries)
    letter = receive_one(sqs, dead, "fail-1")

    # then the good ones ran once, in one batch, and the bad one as often as its queue allows
    names = {"fail-1", "fine-1", "fine-2"}
    seen = reports.until(lambda seen: sum(report.get("body") in names for report in seen) >= 4)
    runs = [report for report in seen if report.get("body") in names]
    told = sorted((run["body"], run["receives"], run["batch"]) for run in runs)
    assert told == [("fail-1", 1, 3), ("fail-1", 2, 1), ("fine-1", 1, 3), ("fine-2", 1, 3)]
    assert {run["colour"] for run in runs} == {"red"}

    # and the dead letter is the same message
    assert letter["MessageId"] == sent["Successful"][1]["MessageId"]
    assert letter["Attributes"]["DeadLetterQueueSourceArn"].endswith(":trading-local-WorkQueue")
    counts = sqs.get_queue_attributes(QueueUrl=work, AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessages"] == counts["ApproximateNumberOfMessagesNotVisible"] == "0"


def test_a_function_that_fails_gives_its_whole_batch_back(gateway: RunningGateway, sqs: Any, reports: Reports) -> None:
    # given two messages, the second of which makes the function raise
    work, dead = gateway.queue_url("WorkQueue"), gateway.queue_url("DeadQueue")
    entries = [{"Id": body, "MessageBody": body} for body in ("innocent", "crash")]

    # when they are sent in one batch
    sqs.send_message_batch(QueueUrl=work, Entries=entries)

    # then both come again, and the one that always fails ends as a dead letter
    seen = reports.until(lambda seen: {("innocent", 2), ("crash", 2)} <= received_in(seen))
    assert ("innocent", 1) in received_in(seen)
    receive_one(sqs, dead, "crash")


def received_in(seen: list[dict[str, Any]]) -> set[tuple[str, int]]:
    """Body and receive count of each record that the function saw."""
    return {(report["body"], report["receives"]) for report in seen if "receives" in report}


def test_a_schedule_runs_at_the_start_and_its_failure_is_kept_without_a_retry(
    gateway: RunningGateway, sqs: Any, reports: Reports
) -> None:
    # given a scheduled function that fails, and retries set to none
    seen = reports.until(lambda seen: any("tick" in report for report in seen))
    run = next(report for report in seen if "tick" in report)

    # then its input was filled in, and its record names the run and its error
    assert datetime.fromisoformat(run["tick"]).tzinfo is not None
    record = json.loads(receive_one(sqs, gateway.queue_url("FailureQueue"), run["request_id"])["Body"])
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["approximateInvokeCount"] == 1
    assert record["responsePayload"]["errorType"] == "ValueError"
    assert record["requestPayload"] == {"at": run["tick"]}
