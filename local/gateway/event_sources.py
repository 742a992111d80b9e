"""Functions fed by queues: batches, partial failures, and the concurrency of each mapping."""

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

from local.gateway.http_events import decode, encode
from local.gateway.invocations import Kind, Outcome
from local.gateway.local_values import REGION
from local.gateway.pools import Pool
from local.gateway.queues import Message, Queue, body_digest
from local.gateway.stack import MappingSpec

POLL_SECONDS = 20.0


class EventSource:
    """One mapping: polls its queue and invokes its function, as many batches at once as it may."""

    def __init__(self, spec: MappingSpec, queue: Queue, pool: Pool) -> None:
        self._spec = spec
        self._queue = queue
        self._pool = pool
        # Batches that would only wait for a worker stay in the queue, where their visibility does not run out.
        self._room = asyncio.Semaphore(min(spec.concurrency or pool.workers_max, pool.workers_max))
        self._poller: asyncio.Task[None] | None = None
        self._batches: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to poll."""
        self._poller = asyncio.create_task(self._poll())

    def stop_polling(self) -> None:
        """Take no further batch; those under way go on."""
        if self._poller is not None:
            self._poller.cancel()

    async def drained(self) -> None:
        """Return when no batch is under way."""
        if self._batches:
            await asyncio.wait(self._batches)

    async def _poll(self) -> None:
        while True:
            await self._room.acquire()
            try:
                messages = await self._next_batch()
            except asyncio.CancelledError:
                self._room.release()
                raise
            batch = asyncio.create_task(self._process(messages))
            self._batches.add(batch)
            batch.add_done_callback(self._batches.discard)
            batch.add_done_callback(lambda _: self._room.release())

    async def _next_batch(self) -> list[Message]:
        messages: list[Message] = []
        while not messages:
            messages = await self._queue.receive_waiting(1 if self._spec.window_seconds else self._size, POLL_SECONDS)
        if self._spec.window_seconds and self._size > 1:
            await self._queue.wait_for(self._size - 1, self._spec.window_seconds)
            messages += self._queue.receive(self._size - 1)
        return messages

    @property
    def _size(self) -> int:
        return self._spec.batch_size

    async def _process(self, messages: list[Message]) -> None:
        event = {"Records": [record_of(self._queue, message) for message in messages]}
        outcome = await self._pool.invoke(encode(event))
        failed = failed_ids(outcome, {message.id for message in messages}, partial=self._spec.partial_failures)
        for message in messages:
            if message.id not in failed:
                self._queue.delete(message.receipt)


def failed_ids(outcome: Outcome, ids: set[str], *, partial: bool) -> set[str]:
    """The messages of a batch that stay in the queue: all, when the function or its report cannot be trusted."""
    if outcome.kind is not Kind.ANSWERED:
        return ids
    if not partial:
        return set()
    try:
        report = decode(outcome.body)
        failures = (report or {}).get("batchItemFailures") or []
        failed = {failure["itemIdentifier"] for failure in failures}
    except (ValueError, TypeError, KeyError, AttributeError):
        return ids
    return ids if failed - ids else failed


def record_of(queue: Queue, message: Message) -> dict[str, Any]:
    """A received message as a record of an event."""
    return {
        "messageId": message.id,
        "receiptHandle": message.receipt,
        "body": message.body,
        "attributes": message.system_attributes,
        "messageAttributes": {name: _attribute(value) for name, value in message.attributes.items()},
        "md5OfBody": body_digest(message.body),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue.spec.arn,
        "awsRegion": REGION,
    }


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {"stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
    if "StringValue" in value:
        record["stringValue"] = value["StringValue"]
    else:
        record["binaryValue"] = base64.b64encode(base64.b64decode(value["BinaryValue"])).decode()
    return record
