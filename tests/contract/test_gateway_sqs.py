"""The gateway's SQS answers each call as moto's server does: the same fields, values, errors and digests."""

import json
from collections.abc import Callable, Generator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from tests.kit.gateway import RunningGateway, running_gateway

ATTRIBUTES = {
    "colour": {"DataType": "String", "StringValue": "grün"},
    "count": {"DataType": "Number", "StringValue": "7"},
    "raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningGateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def moto() -> Generator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "sqs",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"max_attempts": 0}),
    )
    yield client
    client.close()
    server.stop()


@pytest.fixture
def both(gateway: RunningGateway, moto: Any) -> Generator[tuple[tuple[Any, str], tuple[Any, str]]]:
    """Client and URL of an empty queue of each."""
    ours = gateway.client("sqs")
    our_url = gateway.queue_url("DeadQueue")
    ours.purge_queue(QueueUrl=our_url)
    url = moto.create_queue(QueueName="trading-local-DeadQueue")["QueueUrl"]
    yield (ours, our_url), (moto, url)
    moto.delete_queue(QueueUrl=url)
    ours.close()


Both = tuple[tuple[Any, str], tuple[Any, str]]
Call = Callable[[Any, str], Any]


def shape(answer: Any) -> Any:
    """An answer without what differs by nature: ids, handles and times."""
    if isinstance(answer, list):
        return [shape(item) for item in answer]
    if not isinstance(answer, dict):
        return answer
    volatile = {"MessageId", "ReceiptHandle", "SenderId", "SentTimestamp", "ApproximateFirstReceiveTimestamp"}
    return {
        key: "..." if key in volatile else shape(value) for key, value in answer.items() if key != "ResponseMetadata"
    }


def answers(both: Both, call: Call) -> tuple[Any, Any]:
    """What each answers, reduced to its shape; of an error its code and HTTP status."""
    found: list[Any] = []
    for client, url in both:
        try:
            found.append(shape(call(client, url)))
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            found.append((error.response["Error"]["Code"], status, type(error).__name__))
    return found[0], found[1]


def received(client: Any, url: str, **options: Any) -> Any:
    return client.receive_message(QueueUrl=url, **options)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda sqs, url: sqs.send_message(QueueUrl=url, MessageBody="grüße"), id="send"),
        pytest.param(
            lambda sqs, url: sqs.send_message(QueueUrl=url, MessageBody="x", MessageAttributes=ATTRIBUTES),
            id="send with attributes",
        ),
        pytest.param(
            lambda sqs, url: sqs.send_message_batch(
                QueueUrl=url,
                Entries=[
                    {"Id": "a", "MessageBody": "1"},
                    {"Id": "b", "MessageBody": "2", "MessageAttributes": ATTRIBUTES, "DelaySeconds": 900},
                ],
            ),
            id="send a batch",
        ),
        pytest.param(received, id="receive from an empty queue"),
        pytest.param(lambda sqs, url: sqs.purge_queue(QueueUrl=url), id="purge"),
        pytest.param(lambda sqs, url: sqs.get_queue_attributes(QueueUrl=url), id="no attributes"),
        pytest.param(
            lambda sqs, url: sqs.get_queue_attributes(
                QueueUrl=url, AttributeNames=["VisibilityTimeout", "DelaySeconds"]
            ),
            id="two attributes",
        ),
        pytest.param(lambda sqs, url: sqs.send_message(QueueUrl=url + "x", MessageBody="x"), id="no such queue"),
        pytest.param(lambda sqs, url: sqs.get_queue_url(QueueName="none"), id="no such name"),
        pytest.param(lambda sqs, url: sqs.send_message_batch(QueueUrl=url, Entries=[]), id="empty batch"),
        pytest.param(
            lambda sqs, url: sqs.send_message_batch(
                QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": "x"} for n in range(11)]
            ),
            id="too many entries",
        ),
        pytest.param(
            lambda sqs, url: sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": "a", "MessageBody": "x"}] * 2),
            id="repeated ids",
        ),
        pytest.param(
            lambda sqs, url: sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": "a b", "MessageBody": "x"}]),
            id="bad id",
        ),
        pytest.param(lambda sqs, url: received(sqs, url, MaxNumberOfMessages=11), id="too many at once"),
        pytest.param(lambda sqs, url: received(sqs, url, WaitTimeSeconds=21), id="too long a wait"),
        pytest.param(lambda sqs, url: received(sqs, url, VisibilityTimeout=43_201), id="too long a visibility"),
        pytest.param(lambda sqs, url: sqs.delete_message(QueueUrl=url, ReceiptHandle="nonsense"), id="bad receipt"),
        pytest.param(
            lambda sqs, url: sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Colour"]), id="bad attribute"
        ),
    ],
)
def test_a_call_is_answered_alike(both: Both, call: Call) -> None:
    ours, theirs = answers(both, call)

    assert ours == theirs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"AttributeNames": ["All"]},
        {"MessageSystemAttributeNames": ["ApproximateReceiveCount", "SentTimestamp"]},
        {"MessageAttributeNames": ["All"]},
        {"MessageAttributeNames": ["colour"]},
        {"MessageAttributeNames": ["co.*"]},
    ],
)
def test_a_message_is_received_alike(both: Both, options: dict[str, Any]) -> None:
    for client, url in both:
        client.send_message(QueueUrl=url, MessageBody="grüße", MessageAttributes=ATTRIBUTES)

    ours, theirs = answers(both, lambda client, url: received(client, url, **options))

    assert ours == theirs


def test_a_hidden_message_comes_again_and_a_deleted_one_does_not(both: Both) -> None:
    def story(client: Any, url: str) -> list[Any]:
        client.send_message(QueueUrl=url, MessageBody="x")
        first = received(client, url, VisibilityTimeout=1)["Messages"][0]
        hidden = received(client, url).get("Messages", [])
        again = received(client, url, WaitTimeSeconds=5, AttributeNames=["ApproximateReceiveCount"])["Messages"][0]
        client.delete_message(QueueUrl=url, ReceiptHandle=again["ReceiptHandle"])
        client.delete_message(QueueUrl=url, ReceiptHandle=again["ReceiptHandle"])
        counts = client.get_queue_attributes(
            QueueUrl=url,
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )
        return [hidden, again["MessageId"] == first["MessageId"], again["Attributes"], counts["Attributes"]]

    ours, theirs = answers(both, story)

    assert ours == theirs


def test_a_delayed_message_waits(both: Both) -> None:
    def story(client: Any, url: str) -> list[Any]:
        client.send_message(QueueUrl=url, MessageBody="x", DelaySeconds=1)
        early = received(client, url).get("Messages", [])
        late = received(client, url, WaitTimeSeconds=5)["Messages"]
        return [early, len(late)]

    ours, theirs = answers(both, story)

    assert ours == theirs == [[], 1]


def test_its_attributes_have_the_same_values(both: Both) -> None:
    found = [client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"] for client, url in both]
    ours, theirs = found
    # times differ, and moto still has the old limit of 256 KB, and policies that we have no use for
    for attributes in found:
        for name in ("CreatedTimestamp", "LastModifiedTimestamp", "MaximumMessageSize", "Policy"):
            attributes.pop(name, None)
    theirs["QueueArn"] = theirs["QueueArn"].replace("123456789012", "000000000000")

    assert ours.items() <= theirs.items()


def test_the_redrive_policy_is_told(gateway: RunningGateway) -> None:
    client = gateway.client("sqs")
    url = client.get_queue_url(QueueName="trading-local-WorkQueue")["QueueUrl"]
    told = client.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"]
    client.close()

    assert url == gateway.queue_url("WorkQueue")
    assert json.loads(told)["maxReceiveCount"] == 2


@pytest.mark.parametrize("text", ["\x00", "\x0b", "\ufffe"])
def test_characters_that_sqs_does_not_allow_are_refused(gateway: RunningGateway, text: str) -> None:
    client = gateway.client("sqs")
    with pytest.raises(client.exceptions.InvalidMessageContents):
        client.send_message(QueueUrl=gateway.queue_url("DeadQueue"), MessageBody=text)
    client.close()
