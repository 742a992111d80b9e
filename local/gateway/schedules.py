"""Schedules: a function invoked at a fixed rate, beginning at once, whether or not the last run is over."""

import asyncio
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from local.gateway.asynchronous import invoke_asynchronously
from local.gateway.local_values import ACCOUNT, REGION
from local.gateway.pools import Pool
from local.gateway.queues import Queue
from local.gateway.stack import ScheduleSpec


class Schedule:
    """One schedule and its runs."""

    def __init__(self, spec: ScheduleSpec, pool: Pool, queues: Mapping[str, Queue]) -> None:
        self._spec = spec
        self._pool = pool
        self._queues = queues
        self._clock: asyncio.Task[None] | None = None
        self._runs: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Run now and at each period from now."""
        self._clock = asyncio.create_task(self._tick())

    def stop(self) -> None:
        """Start no further run, and wait for none: a scheduled function may take longer than anybody would wait."""
        for task in (self._clock, *self._runs):
            if task is not None:
                task.cancel()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            run = asyncio.create_task(self._run())
            self._runs.add(run)
            run.add_done_callback(self._runs.discard)
            due += self._spec.seconds
            await asyncio.sleep(max(due - loop.time(), 0.0))

    async def _run(self) -> None:
        event = schedule_event(self._spec)
        await invoke_asynchronously(self._pool, event.encode(), self._queues)


def schedule_event(spec: ScheduleSpec) -> str:
    """The event of one run: the schedule's Input with its context attributes filled in, or the default."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    arn = f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/default/{spec.name}"
    run = str(uuid.uuid4())
    if spec.input is not None:
        known = {"schedule-arn": arn, "scheduled-time": now, "execution-id": run, "attempt-number": "1"}
        text = spec.input
        for name, value in known.items():
            text = text.replace(f"<aws.scheduler.{name}>", value)
        return text
    event = {
        "version": "0",
        "id": run,
        "detail-type": "Scheduled Event",
        "source": "aws.scheduler",
        "account": ACCOUNT,
        "time": now,
        "region": REGION,
        "resources": [arn],
        "detail": "{}",
    }
    return json.dumps(event)
