"""A function's workers: started on demand, kept warm, reaped when idle, and the invocations that wait for one."""

import asyncio
import signal
from collections import deque
from collections.abc import Mapping

from local.gateway.invocations import Invocation, Kind, Outcome, error_body
from local.gateway.logs import BoundedLog
from local.gateway.stack import FunctionSpec
from local.gateway.workers import State, Worker

WAITING_MAX = 1000
IDLE_SECONDS_MAX = 300.0
STOP_SECONDS_MAX = 1.0


class Pool:
    """The workers of one function."""

    def __init__(self, spec: FunctionSpec, environment: Mapping[str, str], workers_max: int, log: BoundedLog) -> None:
        self.spec = spec
        self.log = log
        # How many copies are reserved, None for no number; processes are bounded besides.
        self.reserved = spec.concurrency
        self._processes_max = workers_max
        self._environment = environment
        self._loop = asyncio.get_running_loop()
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []
        self._waiting: deque[Invocation] = deque()
        self._starts: set[asyncio.Task[None]] = set()
        self._stopped = False

    @property
    def workers_max(self) -> int:
        """How many workers it may have."""
        return self._processes_max if self.reserved is None else min(self.reserved, self._processes_max)

    def reserve(self, concurrency: int) -> None:
        """Reserve another number of copies; workers that are too many go when they are idle for long."""
        self.reserved = concurrency
        self._start_workers()

    async def invoke(
        self, event: bytes, *, trace: str = "", seconds: float | None = None, wait_seconds: float | None = None
    ) -> Outcome:
        """Run the handler on `event` (JSON).

        NO_ROOM after `seconds` without an answer, or `wait_seconds` without a worker. An invocation that a worker has
        begun goes on all the same, as in Lambda; one that waits is dropped.
        """
        if self._stopped or len(self._waiting) >= WAITING_MAX:
            return Outcome(Kind.NO_ROOM, error_body("TooManyRequestsException", "Rate Exceeded."))
        invocation = Invocation(event, trace, self._loop.create_future())
        worker = self._take_idle()
        if worker is not None:
            worker.take(invocation)
        else:
            self._waiting.append(invocation)
            self._start_workers()
        limits: list[asyncio.TimerHandle] = []
        if seconds is not None:
            limits.append(self._loop.call_later(seconds, self._give_up, invocation))
        if wait_seconds is not None:
            limits.append(self._loop.call_later(wait_seconds, self._give_up_waiting, invocation))
        try:
            return await invocation.future
        finally:
            for limit in limits:
                limit.cancel()

    def worker_idle(self, worker: Worker) -> None:
        """Give the worker the oldest waiting invocation, or keep it for the next."""
        if self._waiting:
            worker.take(self._waiting.popleft())
        elif worker not in self._idle:
            self._idle.append(worker)

    def returned(self, invocation: Invocation) -> None:
        """Let the invocation be the next."""
        if invocation.timer is not None:
            invocation.timer.cancel()
        if not invocation.future.done():
            self._waiting.appendleft(invocation)

    def start_failed(self, kind: Kind, body: bytes) -> None:
        """Fail the invocation that the worker was started for."""
        if self._waiting:
            self._waiting.popleft().end(kind, body)

    def worker_gone(self, worker: Worker) -> None:
        """Forget the worker, and start others if they are waited for."""
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        self._start_workers()

    def reap(self) -> None:
        """Stop the workers that nobody has needed for a while, and trim the log."""
        oldest = self._loop.time() - IDLE_SECONDS_MAX
        for worker in [worker for worker in self._idle if worker.idle_since < oldest]:
            self._idle.remove(worker)
            worker.stop()
        self.log.trim()

    async def stop(self) -> None:
        """End every worker: SIGTERM, then SIGKILL. Invocations under way end as DIED, waiting ones as NO_ROOM."""
        self._stopped = True
        while self._waiting:
            self._waiting.popleft().end(Kind.NO_ROOM, error_body("ServiceException", "The gateway is stopping."))
        for number in (signal.SIGTERM, signal.SIGKILL):
            workers = list(self._workers)
            for worker in workers:
                worker.stop(number)
            try:
                async with asyncio.timeout(STOP_SECONDS_MAX):
                    for worker in workers:
                        await worker.gone.wait()
            except TimeoutError:
                continue
            return

    def _take_idle(self) -> Worker | None:
        while self._idle:
            worker = self._idle.pop()  # the warmest; the others may grow old and be reaped
            if worker.state is State.IDLE:
                return worker
        return None

    def _start_workers(self) -> None:
        if self._stopped:
            return
        starting = sum(1 for worker in self._workers if worker.state is State.STARTING)
        while starting < len(self._waiting) and len(self._workers) < self.workers_max:
            worker = Worker(self.spec, self, self.log)
            self._workers.add(worker)
            task = self._loop.create_task(worker.start(self._environment))
            self._starts.add(task)
            task.add_done_callback(self._starts.discard)
            starting += 1

    def _give_up(self, invocation: Invocation) -> None:
        self._give_up_waiting(invocation)
        if not invocation.future.done():
            invocation.future.set_result(self._no_room())

    def _give_up_waiting(self, invocation: Invocation) -> None:
        if invocation in self._waiting:
            self._waiting.remove(invocation)
            invocation.future.set_result(self._no_room())

    def _no_room(self) -> Outcome:
        message = f"{self.spec.logical_id} gave no answer in time."
        return Outcome(Kind.NO_ROOM, error_body("ServiceException", message))
