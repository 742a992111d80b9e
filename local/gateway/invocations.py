"""One invocation of a function, and what became of it."""

import asyncio
import json
import uuid
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """How an invocation ended."""

    ANSWERED = "answered"  # the body is what the handler returned, as JSON
    FAILED = "failed"  # the handler raised, or the function could not start; the body is Lambda's error object
    TIMED_OUT = "timed out"  # the function's time limit passed, its worker was killed
    DIED = "died"  # the worker ended without an answer
    NO_ROOM = "no room"  # every worker was busy until the caller gave up, or too many wait


class Outcome(NamedTuple):
    """The end of an invocation; `body` is JSON. `invocation_id` is empty when it never reached a worker."""

    kind: Kind
    body: bytes
    invocation_id: str = ""


def error_body(error_type: str, message: str) -> bytes:
    """Lambda's error object."""
    return json.dumps({"errorType": error_type, "errorMessage": message}).encode()


class Invocation:
    """An event on its way to a worker and the future of its outcome."""

    __slots__ = ("event", "future", "id", "timer", "trace")

    def __init__(self, event: bytes, trace: str, future: asyncio.Future[Outcome]) -> None:
        self.id = str(uuid.uuid4())
        self.event = event
        self.trace = trace
        self.future = future
        self.timer: asyncio.TimerHandle | None = None

    def end(self, kind: Kind, body: bytes) -> None:
        """Settle it, unless its caller has given up or it is settled already."""
        if self.timer is not None:
            self.timer.cancel()
        if not self.future.done():
            self.future.set_result(Outcome(kind, body, self.id))
