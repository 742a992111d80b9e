"""One worker: a process of awslambdaric that runs a function's handler, one invocation at a time."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from local.gateway.invocations import Invocation, Kind, error_body
from local.gateway.logs import BoundedLog
from local.gateway.runtime_api import RESPONSE_BYTES_MAX, RuntimeConnection
from local.gateway.settings import HOST
from local.gateway.stack import FunctionSpec
from local.processes import spawn

# More than the 10 s of AWS: cold files on a busy small machine are slower than a Lambda.
INIT_SECONDS_MAX = 25.0


class State(StrEnum):
    """What a worker is doing."""

    STARTING = "starting"
    IDLE = "idle"  # its poll waits for an invocation
    BUSY = "busy"
    STOPPED = "stopped"


class Owner(Protocol):
    """The pool that a worker belongs to."""

    def worker_idle(self, worker: "Worker") -> None:
        """The worker polled: it can take an invocation."""

    def returned(self, invocation: Invocation) -> None:
        """A worker died before it read this invocation: another can have it."""

    def start_failed(self, kind: Kind, body: bytes) -> None:
        """A worker ended before its first poll."""

    def worker_gone(self, worker: "Worker") -> None:
        """The worker's process is over."""


class Worker:
    """A process, its Runtime API and its present invocation."""

    def __init__(self, spec: FunctionSpec, owner: Owner, log: BoundedLog) -> None:
        self._spec = spec
        self._owner = owner
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._poll: RuntimeConnection | None = None
        self._carrier: RuntimeConnection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._start_error: bytes | None = None
        self._start_timer: asyncio.TimerHandle | None = None
        self._started = False
        self.invocation: Invocation | None = None
        self.state = State.STARTING
        self.idle_since = 0.0
        self.gone = asyncio.Event()

    @property
    def pid(self) -> int:
        """The process id, which is its session's and group's too."""
        assert self._process is not None
        return self._process.pid

    async def start(self, environment: Mapping[str, str]) -> None:
        """Open the Runtime API and start the process, unless it was stopped meanwhile."""
        self._server = await self._loop.create_server(lambda: RuntimeConnection(self), HOST, 0)
        if self.state is State.STOPPED:
            self._server.close()
            self.gone.set()
            return
        port = self._server.sockets[0].getsockname()[1]
        try:
            self._process = spawn(
                [sys.executable, "-m", "awslambdaric", self._spec.handler],
                death_signal=signal.SIGKILL,
                log=self._log.path,
                cwd=self._spec.folder,
                environment={**environment, "AWS_LAMBDA_RUNTIME_API": f"{HOST}:{port}"},
            )
        except OSError as error:
            self._server.close()
            self._die(str(error), False)
            return
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._exited)
        self._start_timer = self._loop.call_later(INIT_SECONDS_MAX, self._start_timed_out)

    def take(self, invocation: Invocation) -> None:
        """Hand an invocation to the waiting poll and start its clock."""
        assert self.state is State.IDLE
        assert self._poll is not None
        self.state, self.invocation = State.BUSY, invocation
        poll, self._poll, self._carrier = self._poll, None, self._poll
        seconds = self._spec.seconds
        invocation.timer = self._loop.call_later(seconds, self._timed_out, invocation)
        poll.deliver(
            invocation.id,
            invocation.event,
            deadline_ms=int((time.time() + seconds) * 1000),
            arn=self._spec.arn,
            trace=invocation.trace,
        )

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal the whole process group; the end is told by `gone`."""
        self.state = State.STOPPED
        if self._process is not None and self._pidfd >= 0:
            os.killpg(self._process.pid, number)

    def polled(self, connection: RuntimeConnection) -> str | None:
        """The process is ready for its next invocation."""
        if self.state is State.STOPPED or self.invocation is not None or self._poll is not None:
            return "InvalidStateTransition"
        if self._start_timer is not None:
            self._start_timer.cancel()
        self._started = True
        self._poll = connection
        self.state, self.idle_since = State.IDLE, self._loop.time()
        self._owner.worker_idle(self)
        return None

    def answered(self, invocation_id: str, body: bytes) -> str | None:
        """The handler's result."""
        return self._ended(invocation_id, Kind.ANSWERED, body)

    def failed(self, invocation_id: str, body: bytes) -> str | None:
        """The handler's exception."""
        return self._ended(invocation_id, Kind.FAILED, body)

    def overflowed(self, invocation_id: str, size: int) -> None:
        """A result above the limit is the function's error."""
        message = f"Response payload size ({size} bytes) exceeded maximum allowed payload size ({RESPONSE_BYTES_MAX})."
        self._ended(invocation_id, Kind.FAILED, error_body("Function.ResponseSizeTooLarge", message))

    def init_failed(self, body: bytes) -> None:
        """The handler's module could not be imported; the process ends next."""
        self._start_error = body

    def hung_up(self, connection: RuntimeConnection) -> None:
        """A poll that is gone takes no event with it: the worker is not idle until it polls again."""
        if self._poll is connection:
            self._poll = None
            if self.state is State.IDLE:
                self.state = State.STARTING

    def _ended(self, invocation_id: str, kind: Kind, body: bytes) -> str | None:
        invocation = self.invocation
        if invocation is None or invocation.id != invocation_id:
            return "InvalidRequestID"
        self.invocation = None
        invocation.end(kind, body)
        return None

    def _timed_out(self, invocation: Invocation) -> None:
        if self.invocation is not invocation:
            return
        self.invocation = None
        message = f"RequestId: {invocation.id} Error: Task timed out after {self._spec.seconds:.2f} seconds"
        self._log.line(message)
        self.stop()
        invocation.end(Kind.TIMED_OUT, error_body("Sandbox.Timedout", message))

    def _start_timed_out(self) -> None:
        message = f"{self._spec.logical_id} did not start within {INIT_SECONDS_MAX:.0f} seconds"
        self._log.line(message)
        self._start_error = error_body("Sandbox.InitTimedout", message)
        self.stop()

    def _exited(self) -> None:
        assert self._process is not None
        assert self._server is not None
        self._loop.remove_reader(self._pidfd)
        status = self._process.wait()
        self._kill_left_over()
        os.close(self._pidfd)
        self._pidfd = -1
        self._server.close()
        if self._start_timer is not None:
            self._start_timer.cancel()
        end = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        # After what the loop holds already: a reset of the connection that it has seen, but not yet told.
        was_stopped, self.state = self.state is State.STOPPED, State.STOPPED
        self._loop.call_soon(self._die, end, was_stopped)

    def _die(self, end: str, was_stopped: bool) -> None:
        self.state = State.STOPPED
        if self.invocation is not None:
            invocation, self.invocation = self.invocation, None
            self._lose(invocation, end)
        if not self._started and (self._start_error is not None or not was_stopped):
            message = f"{self._spec.logical_id} ended while it started: {end}"
            self._log.line(message)
            if self._start_error is not None:
                self._owner.start_failed(Kind.FAILED, self._start_error)
            else:
                self._owner.start_failed(Kind.DIED, error_body("Runtime.ExitError", message))
        self._owner.worker_gone(self)
        self.gone.set()

    def _lose(self, invocation: Invocation, end: str) -> None:
        """End what the dead process worked on, or give it back when it never got it."""
        if self._carrier is not None and self._carrier.undelivered():
            self._owner.returned(invocation)
            return
        message = f"RequestId: {invocation.id} Error: Runtime exited with error: {end}"
        self._log.line(message)
        invocation.end(Kind.DIED, error_body("Runtime.ExitError", message))

    def _kill_left_over(self) -> None:
        """End what the handler left running in its session: it may hold the worker's sockets open."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
