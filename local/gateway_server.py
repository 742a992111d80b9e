"""The gateway as a child process: started, waited for, stopped."""

import http.client
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from local import processes
from local.environment import State
from local.processes import StartError
from local.servers import HOST, POLL_SECONDS

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 90.0
ANSWER_SECONDS = 10.0
# The gateway stops accepting, lets requests finish for 5 s, then ends its workers.
GATEWAY_STOP = ((signal.SIGTERM, 12.0),)


@dataclass
class Gateway:
    """`python -m local.gateway` on `port`, ready when GET /health answers 200."""

    state: State
    port: int
    name: str = "The gateway"
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def log(self) -> Path:
        """What the gateway and the functions write."""
        return self.state.logs / "gateway.log"

    def start(self) -> None:
        """Start it and return when the system is healthy; StartError with the last answer when it is not in time."""
        self.start_again()
        deadline = time.monotonic() + READY_SECONDS
        answer = "no answer"
        while time.monotonic() < deadline:
            if not self.running():
                raise StartError(f"The gateway ended. The end of {self.log}:\n{processes.tail(self.log, 20)}")
            status, answer = self._health()
            if status == http.HTTPStatus.OK:
                return
            time.sleep(POLL_SECONDS * 5)
        raise StartError(f"The system is not healthy after {READY_SECONDS:.0f} s: {answer}. See {self.log}.")

    def start_again(self) -> None:
        """Start it and return at once, so that the servers that its health rests on stay watched."""
        self._process = processes.spawn(
            [sys.executable, "-m", "local.gateway", "--state", str(self.state.folder), "--port", str(self.port)],
            death_signal=signal.SIGKILL,
            log=self.log,
            cwd=ROOT,
            environment=os.environ | {"PYTHONPATH": str(ROOT / "layers" / "trading")},
        )

    def running(self) -> bool:
        """Whether its process is alive."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Let it drain and end its workers."""
        if self._process:
            processes.end(self._process, GATEWAY_STOP)

    def _health(self) -> tuple[int, str]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/health")
            response = connection.getresponse()
            return response.status, response.read(1000).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()
