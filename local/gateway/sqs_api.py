"""SQS's JSON protocol over the local queues: the calls that functions and operators make."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from local.gateway.queues import Message, Queue, QueueFullError, ReceiptError, attributes_digest, body_digest

BATCH_MAX = 10
WAIT_SECONDS_MAX = 20
DELAY_SECONDS_MAX = 900
VISIBILITY_SECONDS_MAX = 43_200
_ENTRY_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_NOT_ALLOWED_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ATTRIBUTE_NAMES = frozenset(
    {
        "All",
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesDelayed",
        "ApproximateNumberOfMessagesNotVisible",
        "CreatedTimestamp",
        "DelaySeconds",
        "LastModifiedTimestamp",
        "MaximumMessageSize",
        "MessageRetentionPeriod",
        "QueueArn",
        "ReceiveMessageWaitTimeSeconds",
        "RedrivePolicy",
        "VisibilityTimeout",
    }
)


class SqsError(Exception):
    """An error answer. `code` is what clients know it by, `shape` its name in the JSON protocol."""

    def __init__(self, code: str, message: str, shape: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.shape = shape or code.rpartition(".")[2]


def _invalid(message: str) -> SqsError:
    return SqsError("InvalidParameterValue", message)


class SqsApi:
    """The operations, over queues by ARN."""

    def __init__(self, queues: Mapping[str, Queue]) -> None:
        self._queues = {queue.spec.name: queue for queue in queues.values()}
        self._operations: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "SendMessage": self._send,
            "SendMessageBatch": self._send_batch,
            "ReceiveMessage": self._receive,
            "DeleteMessage": self._delete,
            "GetQueueAttributes": self._attributes,
            "GetQueueUrl": self._url,
            "PurgeQueue": self._purge,
        }

    async def call(self, operation: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to one call."""
        headers = {"content-type": "application/x-amz-json-1.0"}
        try:
            if operation not in self._operations:
                raise SqsError("UnsupportedOperation", f"{operation} is not served by the local gateway.")
            answer = await self._operations[operation](_request(body))
        except SqsError as error:
            headers["x-amzn-query-error"] = f"{error.code};Sender"
            text = {"__type": f"com.amazonaws.sqs#{error.shape}", "message": error.message}
            return 400, headers, json.dumps(text).encode()
        return 200, headers, json.dumps(answer, ensure_ascii=False).encode()

    def _queue(self, request: Mapping[str, Any]) -> Queue:
        return self._named(str(request.get("QueueUrl", "")).rpartition("/")[2])

    def _named(self, name: str) -> Queue:
        if name not in self._queues:
            message = "The specified queue does not exist."
            raise SqsError("AWS.SimpleQueueService.NonExistentQueue", message, "QueueDoesNotExist")
        return self._queues[name]

    async def _send(self, request: dict[str, Any]) -> dict[str, Any]:
        return _sent(_store(self._queue(request), request))

    async def _send_batch(self, request: dict[str, Any]) -> dict[str, Any]:
        queue, entries = self._queue(request), request.get("Entries", [])
        _check_batch(queue, entries)
        answer: dict[str, Any] = {"Successful": [], "Failed": []}
        for entry in entries:
            try:
                answer["Successful"].append({"Id": entry["Id"]} | _sent(_store(queue, entry)))
            except SqsError as error:
                failure = {"Id": entry["Id"], "SenderFault": True, "Code": error.code, "Message": error.message}
                answer["Failed"].append(failure)
        return answer

    async def _receive(self, request: dict[str, Any]) -> dict[str, Any]:
        queue = self._queue(request)
        count = _number(request, "MaxNumberOfMessages", 1, minimum=1, maximum=BATCH_MAX)
        wait = _number(request, "WaitTimeSeconds", queue.spec.wait, minimum=0, maximum=WAIT_SECONDS_MAX)
        visible = _number(
            request, "VisibilityTimeout", queue.spec.visibility, minimum=0, maximum=VISIBILITY_SECONDS_MAX
        )
        messages = await queue.receive_waiting(count, wait, visible)
        return {"Messages": [_received(message, request) for message in messages]} if messages else {}

    async def _delete(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            self._queue(request).delete(request.get("ReceiptHandle", ""))
        except ReceiptError:
            raise SqsError("ReceiptHandleIsInvalid", "The input receipt handle is invalid.") from None
        return {}

    async def _attributes(self, request: dict[str, Any]) -> dict[str, Any]:
        queue, names = self._queue(request), request.get("AttributeNames", [])
        for name in names:
            if name not in _ATTRIBUTE_NAMES:
                raise SqsError("InvalidAttributeName", f"Unknown Attribute {name}.")
        found = _queue_attributes(queue)
        if "All" not in names:
            found = {name: value for name, value in found.items() if name in names}
        return {"Attributes": found} if found else {}

    async def _url(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"QueueUrl": self._named(request.get("QueueName", "")).spec.url}

    async def _purge(self, request: dict[str, Any]) -> dict[str, Any]:
        self._queue(request).purge()
        return {}


def _request(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body or b"{}")
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise SqsError("SerializationException", "The request is no JSON object.")
    return request


def _number(request: Mapping[str, Any], name: str, default: int, *, minimum: int, maximum: int) -> int:
    value = request.get(name, default)
    if not isinstance(value, int) or not minimum <= value <= maximum:
        reason = f"must be between {minimum} and {maximum}, if provided."
        raise _invalid(f"Value {value} for parameter {name} is invalid. Reason: {reason}")
    return value


def _store(queue: Queue, entry: Mapping[str, Any]) -> Message:
    body, attributes = entry.get("MessageBody", ""), entry.get("MessageAttributes", {})
    if not body:
        raise SqsError("MissingParameter", "The request must contain the parameter MessageBody.")
    if _NOT_ALLOWED_TEXT.search(body):
        raise SqsError("InvalidMessageContents", "The message contains characters that are not allowed.")
    if len(body.encode()) > queue.spec.bytes_max:
        raise _invalid(
            f"One or more parameters are invalid. Reason: Message must be shorter than {queue.spec.bytes_max} bytes."
        )
    for name, attribute in attributes.items():
        if not attribute.get("DataType", "").startswith(("String", "Number", "Binary")):
            raise _invalid(f"The message attribute '{name}' must have a valid DataType.")
    delay = _number(entry, "DelaySeconds", queue.spec.delay, minimum=0, maximum=DELAY_SECONDS_MAX)
    try:
        return queue.send(body, attributes, delay)
    except QueueFullError:
        raise SqsError("RequestThrottled", "The queue is full.") from None


def _sent(message: Message) -> dict[str, Any]:
    answer = {"MessageId": message.id, "MD5OfMessageBody": body_digest(message.body)}
    if message.attributes:
        answer["MD5OfMessageAttributes"] = attributes_digest(message.attributes)
    return answer


def _check_batch(queue: Queue, entries: list[dict[str, Any]]) -> None:
    if not entries:
        message = "There should be at least one SendMessageBatchRequestEntry in the request."
        raise SqsError("AWS.SimpleQueueService.EmptyBatchRequest", message)
    if len(entries) > BATCH_MAX:
        message = f"Maximum number of entries per request are {BATCH_MAX}. You have sent {len(entries)}."
        raise SqsError("AWS.SimpleQueueService.TooManyEntriesInBatchRequest", message)
    seen: set[str] = set()
    for entry in entries:
        if not _ENTRY_ID.fullmatch(entry.get("Id", "")):
            message = (
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. "
                "It can be at most 80 letters long."
            )
            raise SqsError("AWS.SimpleQueueService.InvalidBatchEntryId", message)
        if entry["Id"] in seen:
            raise SqsError("AWS.SimpleQueueService.BatchEntryIdsNotDistinct", f"Id {entry['Id']} repeated.")
        seen.add(entry["Id"])
    size = sum(len(entry.get("MessageBody", "").encode()) for entry in entries)
    if size > queue.spec.bytes_max:
        message = f"Batch requests cannot be longer than {queue.spec.bytes_max} bytes. You have sent {size} bytes."
        raise SqsError("AWS.SimpleQueueService.BatchRequestTooLong", message)


def _received(message: Message, request: Mapping[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "MessageId": message.id,
        "ReceiptHandle": message.receipt,
        "MD5OfBody": body_digest(message.body),
        "Body": message.body,
    }
    wanted = {*request.get("AttributeNames", ()), *request.get("MessageSystemAttributeNames", ())}
    system = {name: value for name, value in message.system_attributes.items() if "All" in wanted or name in wanted}
    if system:
        answer["Attributes"] = system
    names = request.get("MessageAttributeNames", ())
    attributes = {name: value for name, value in message.attributes.items() if _asked_for(name, names)}
    if attributes:
        answer["MessageAttributes"] = attributes
        answer["MD5OfMessageAttributes"] = attributes_digest(attributes)
    return answer


def _asked_for(name: str, patterns: list[str]) -> bool:
    for pattern in patterns:
        if pattern in {"All", ".*", name} or (pattern.endswith(".*") and name.startswith(pattern[:-2])):
            return True
    return False


def _queue_attributes(queue: Queue) -> dict[str, str]:
    ready, in_flight, delayed = queue.counts()
    spec = queue.spec
    found = {
        "ApproximateNumberOfMessages": str(ready),
        "ApproximateNumberOfMessagesDelayed": str(delayed),
        "ApproximateNumberOfMessagesNotVisible": str(in_flight),
        "CreatedTimestamp": str(queue.created_seconds),
        "DelaySeconds": str(spec.delay),
        "LastModifiedTimestamp": str(queue.created_seconds),
        "MaximumMessageSize": str(spec.bytes_max),
        "MessageRetentionPeriod": str(spec.retention),
        "QueueArn": spec.arn,
        "ReceiveMessageWaitTimeSeconds": str(spec.wait),
        "VisibilityTimeout": str(spec.visibility),
    }
    if spec.dead_letter_arn is not None:
        policy = {"deadLetterTargetArn": spec.dead_letter_arn, "maxReceiveCount": spec.receives_max}
        found["RedrivePolicy"] = json.dumps(policy)
    return found
