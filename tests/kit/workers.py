"""Workers: functions in processes of their own, told what to do line by line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kit.functions import ROOT, Answer


class WorkerGoneError(Exception):
    """The worker's process is over."""


class Worker:
    """One execution environment of a function. Close it, or use `worker`."""

    def __init__(self, function: str, variables: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.kit.worker_process", function],
                cwd=ROOT,
                env=os.environ | variables | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'layers/trading'}"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        assert self._read() == {"ready": True}

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, event: Mapping[str, Any], **options: object) -> None:
        """Begin an invocation; `options` as worker_process says."""
        self._write(json.dumps({"event": event} | options))

    def answer(self) -> Answer:
        """What the HTTP function answered to what was sent."""
        raw = self.result()
        return Answer(raw["statusCode"], raw["headers"], raw["body"])

    def result(self) -> Any:
        """What the handler returned."""
        return self._read()["answer"]

    def call(self, event: Mapping[str, Any], **options: object) -> Answer:
        """Send an event and wait for the answer."""
        self.send(event, **options)
        return self.answer()

    def wait_until_paused(self) -> str:
        """Where it waits: "before" or "after" the procedure."""
        return self._read()["paused"]

    def go_on(self) -> None:
        """Let a paused worker go on."""
        self._write("")

    def kill(self) -> None:
        """kill -9, and wait."""
        self._process.kill()
        self._process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The process does nothing, as a sandbox between two invocations."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerGoneError
        return json.loads(line)


@contextmanager
def worker(function: str, variables: Mapping[str, str], log: Path) -> Iterator[Worker]:
    """A worker for the time of a block."""
    started = Worker(function, variables, log)
    try:
        yield started
    finally:
        started.close()
