"""A function in a process of its own, as Lambda runs it, to be killed, frozen and given a wrong clock.

`python -m tests.kit.worker_process FUNCTION` reads one command a line, as JSON, and answers each by lines of JSON:
{event, pause?: "before" | "after" the procedure, clock_seconds?: how far the clock is off, time_left_ms?} -> {paused}
where asked for, then {answer}. A line lets a paused worker go on.
"""

import datetime
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

PROCEDURES = ("execute_order_atomic", "execute_trigger", "finance_account")


class Clock:
    """The wall clock of this process, off by `seconds`. The monotonic one is never off, as on any machine."""

    def __init__(self) -> None:
        self.seconds = 0.0
        true_time = time.time
        time.time = lambda: true_time() + self.seconds

        class Datetime(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> "datetime.datetime":
                return datetime.datetime.fromtimestamp(time.time(), tz)

        self._datetime = Datetime

    def reach(self) -> None:
        """Put the clock into every module of ours that took the class by its name."""
        for name, module in list(sys.modules.items()):
            if name.startswith(("trading", "function_")) and getattr(module, "datetime", None) is datetime.datetime:
                module.datetime = self._datetime  # type: ignore[attr-defined]


class Line:
    """Commands in, answers out. The function's own output goes to where errors go."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(self, **message: object) -> None:
        """Write a line."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()


def pausing(line: Line, pause: str | None, call: Callable[..., Any]) -> Callable[..., Any]:
    """`Database.call`, which waits for a line before or after a procedure that changes something."""

    def paused(self: Any, procedure: str, request: Mapping[str, object]) -> Any:
        if procedure in PROCEDURES and pause == "before":
            line.tell(paused="before")
            sys.stdin.readline()
        answer = call(self, procedure, request)
        if procedure in PROCEDURES and pause == "after":
            line.tell(paused="after")
            sys.stdin.readline()
        return answer

    return paused


def main(function: str) -> None:
    """Serve until standard input ends."""
    line = Line()
    clock = Clock()
    from tests.kit.functions import Context, load_function
    from trading.store.database import Database

    handler = load_function(function)
    call = Database.call
    line.tell(ready=True)
    for text in sys.stdin:
        command = json.loads(text)
        clock.seconds = command.get("clock_seconds", 0.0)
        clock.reach()
        Database.call = pausing(line, command.get("pause"), call)
        line.tell(answer=handler(command["event"], Context(time_left_ms=command.get("time_left_ms", 10_000))))


if __name__ == "__main__":
    main(sys.argv[1])
