"""Standard queues in memory, with SQS's rules for delay, visibility, redelivery and dead letters.

What a queue holds is lost with the process, which AWS's queues survive: nothing of ours may rest on a message alone.
"""

import asyncio
import base64
import hashlib
import heapq
import itertools
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from local.gateway.stack import QueueSpec

MESSAGES_MAX = 100_000
SENDER = "AIDALOCALWORKER"


@dataclass(slots=True, eq=False)
class Message:
    """A message and its history. `attributes` are the sender's, in SQS's JSON form; times are UNIX milliseconds."""

    body: str
    attributes: Mapping[str, Any]
    sent_ms: int
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    receipt: str = ""
    receives: int = 0
    first_received_ms: int = 0
    deleted: bool = False
    source_arn: str | None = None

    @property
    def system_attributes(self) -> dict[str, str]:
        """SQS's attributes of a received message."""
        found = {
            "SenderId": SENDER,
            "SentTimestamp": str(self.sent_ms),
            "ApproximateReceiveCount": str(self.receives),
            "ApproximateFirstReceiveTimestamp": str(self.first_received_ms),
        }
        if self.source_arn is not None:
            found["DeadLetterQueueSourceArn"] = self.source_arn
        return found


def body_digest(body: str) -> str:
    """MD5OfMessageBody."""
    return hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()


def attributes_digest(attributes: Mapping[str, Any]) -> str:
    """MD5OfMessageAttributes: name, type and value of each, with their lengths, in the order of names."""
    digest = hashlib.md5(usedforsecurity=False)
    for name in sorted(attributes):
        attribute = attributes[name]
        if "StringValue" in attribute:
            kind, value = b"\x01", attribute["StringValue"].encode()
        else:
            kind, value = b"\x02", base64.b64decode(attribute["BinaryValue"])
        for part in (name.encode(), attribute["DataType"].encode()):
            digest.update(len(part).to_bytes(4, "big") + part)
        digest.update(kind + len(value).to_bytes(4, "big") + value)
    return digest.hexdigest()


class QueueFullError(Exception):
    """The queue holds as many messages as it may."""


class ReceiptError(Exception):
    """No receipt handle of this queue."""


class Queue:
    """One queue. `clock` gives seconds that never step back."""

    def __init__(self, spec: QueueSpec, clock: Callable[[], float] = time.monotonic) -> None:
        self.spec = spec
        self.dead_letters: Queue | None = None
        self.created_seconds = int(time.time())
        self._clock = clock
        self._order = itertools.count()
        self._ready: deque[Message] = deque()
        self._delayed: list[tuple[float, int, Message]] = []
        self._in_flight: dict[str, Message] = {}
        self._hidden: list[tuple[float, int, str]] = []
        self._by_receipt: dict[str, Message] = {}
        self._changed = asyncio.Event()

    def counts(self) -> tuple[int, int, int]:
        """Messages that can be received, that are in flight, and that are delayed."""
        self._advance()
        ready = sum(1 for message in self._ready if not message.deleted)
        return ready, len(self._in_flight), len(self._delayed)

    def send(self, body: str, attributes: Mapping[str, Any], delay: int | None = None) -> Message:
        """Store a message, to be received after `delay` seconds (the queue's own if None)."""
        if len(self._ready) + len(self._delayed) + len(self._in_flight) >= MESSAGES_MAX:
            raise QueueFullError
        message = Message(body, attributes, int(time.time() * 1000))
        seconds = self.spec.delay if delay is None else delay
        if seconds:
            heapq.heappush(self._delayed, (self._clock() + seconds, next(self._order), message))
        else:
            self._ready.append(message)
        self._notify()
        return message

    def receive(self, count: int, visibility: int | None = None) -> list[Message]:
        """Up to `count` messages, hidden from others for `visibility` seconds (the queue's own if None)."""
        self._advance()
        seconds = self.spec.visibility if visibility is None else visibility
        received: list[Message] = []
        while self._ready and len(received) < count:
            message = self._ready.popleft()
            if not message.deleted and not self._expired(message):
                self._hide(message, seconds)
                received.append(message)
        return received

    async def receive_waiting(self, count: int, wait: float, visibility: int | None = None) -> list[Message]:
        """As `receive`, but wait up to `wait` seconds for the first message."""
        end = self._clock() + wait
        while True:
            changed = self._changed
            received = self.receive(count, visibility)
            now = self._clock()
            if received or now >= end:
                return received
            try:
                async with asyncio.timeout(min(end, self._next_change()) - now):
                    await changed.wait()
            except TimeoutError:
                continue

    async def wait_for(self, count: int, seconds: float) -> None:
        """Return when `count` messages can be received, or after `seconds`."""
        end = self._clock() + seconds
        while True:
            changed = self._changed
            now = self._clock()
            if self.counts()[0] >= count or now >= end:
                return
            try:
                async with asyncio.timeout(min(end, self._next_change()) - now):
                    await changed.wait()
            except TimeoutError:
                continue

    def delete(self, receipt: str) -> None:
        """Forget a message by its newest receipt handle; an older or used one does nothing. ReceiptError: not ours."""
        if not receipt.startswith(self._receipt_prefix()):
            raise ReceiptError
        message = self._by_receipt.pop(receipt, None)
        if message is not None:
            message.deleted = True
            self._in_flight.pop(receipt, None)

    def purge(self) -> None:
        """Forget every message."""
        self._ready.clear()
        self._delayed.clear()
        self._in_flight.clear()
        self._hidden.clear()
        self._by_receipt.clear()

    def adopt(self, message: Message, source_arn: str) -> None:
        """Take over a message that another queue gave up."""
        moved = Message(message.body, message.attributes, message.sent_ms, id=message.id, source_arn=source_arn)
        self._ready.append(moved)
        self._notify()

    def _hide(self, message: Message, seconds: int) -> None:
        self._by_receipt.pop(message.receipt, None)
        message.receipt = f"{self._receipt_prefix()}{os.urandom(16).hex()}"
        message.receives += 1
        message.first_received_ms = message.first_received_ms or int(time.time() * 1000)
        self._by_receipt[message.receipt] = message
        self._in_flight[message.receipt] = message
        heapq.heappush(self._hidden, (self._clock() + seconds, next(self._order), message.receipt))

    def _advance(self) -> None:
        now = self._clock()
        while self._delayed and self._delayed[0][0] <= now:
            self._ready.append(heapq.heappop(self._delayed)[2])
        while self._hidden and self._hidden[0][0] <= now:
            message = self._in_flight.pop(heapq.heappop(self._hidden)[2], None)
            if message is None:
                continue
            if self.dead_letters is not None and message.receives >= self.spec.receives_max:
                self._by_receipt.pop(message.receipt, None)
                self.dead_letters.adopt(message, self.spec.arn)
            else:
                self._ready.append(message)

    def _next_change(self) -> float:
        times = [heap[0][0] for heap in (self._delayed, self._hidden) if heap]
        return min(times, default=float("inf"))

    def _expired(self, message: Message) -> bool:
        return message.sent_ms < (time.time() - self.spec.retention) * 1000

    def _receipt_prefix(self) -> str:
        return f"{self.spec.name}/"

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def open_queues(specs: list[QueueSpec]) -> dict[str, Queue]:
    """The queues by ARN, each joined to its dead-letter queue."""
    queues = {spec.arn: Queue(spec) for spec in specs}
    for queue in queues.values():
        if queue.spec.dead_letter_arn is not None:
            queue.dead_letters = queues[queue.spec.dead_letter_arn]
    return queues
