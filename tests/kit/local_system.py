"""A whole local system under test, started the way that people start it."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from local import commands, invoking, tokens
from local.environment import State
from local.servers import port_is_free
from tests.kit.openapi import check_answer

ROOT = Path(__file__).resolve().parents[2]
UP_SECONDS = 120.0
DOWN_SECONDS = 30.0
POLL_SECONDS = 0.05


def wait_until(condition: object, seconds: float, what: str) -> None:
    """Wait until calling `condition` gives something true; AssertionError with `what` when it never does."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(POLL_SECONDS)


@dataclass
class LocalSystem:
    """`make start` on a port and a state folder of its own; `parameters` ("Name=value ...") are of the template."""

    folder: Path
    port: int
    parameters: str = ""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def state(self) -> State:
        """Its state folder."""
        return State(self.folder)

    @property
    def output(self) -> Path:
        """What it wrote to its terminal."""
        return self.folder.with_name(self.folder.name + ".out")

    @property
    def command(self) -> list[str]:
        """The command line that starts it."""
        return ["make", "-C", str(ROOT), "--no-print-directory", "start", f"PORT={self.port}", f"STATE={self.folder}"]

    def start(self, command: Sequence[str] | None = None) -> subprocess.Popen[bytes]:
        """Run `command`, by default `make start`, in a session of its own and return when the system is up."""
        with self.output.open("wb") as output:
            process = subprocess.Popen(
                command or self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment() | {"PARAMETERS": self.parameters},
                start_new_session=True,
            )
        self._process = process
        self.wait_until_up(process.pid)
        return process

    def wait_until_up(self, pid: int) -> None:
        """Wait for the file that says so; AssertionError with the output when the process ends instead."""
        deadline = time.monotonic() + UP_SECONDS
        while not (self.state.env.exists() and "The system is up" in self.output.read_text()):
            alive = psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
            assert alive, f"the start failed:\n{self.output.read_text()}"
            assert time.monotonic() < deadline, f"not up in {UP_SECONDS} s:\n{self.output.read_text()}"
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End it with SIGTERM, if it runs."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(DOWN_SECONDS)

    def ports(self) -> list[int]:
        """Every port that it listens on."""
        return [self.port, *self.state.remembered_ports().values()]

    def ports_are_free(self) -> bool:
        """Whether another could listen on all of them."""
        return all(port_is_free(port) for port in self.ports())

    @property
    def pid(self) -> int:
        """The process that was started, `make` unless told otherwise."""
        assert self._process is not None
        return self._process.pid

    @property
    def api_url(self) -> str:
        """Where HTTP is served."""
        return self.state.read_env()["API_URL"]

    @property
    def websocket_url(self) -> str:
        """Where WebSockets are served."""
        return self.state.read_env()["WEBSOCKET_URL"]

    @property
    def database_url(self) -> str:
        """The owner's URL of its PostgreSQL."""
        return self.state.read_env()["DATABASE_URL"]

    @property
    def redis_url(self) -> str:
        """The URL of its Redis."""
        return self.state.read_env()["REDIS_URL"]

    def client(self, **options: Any) -> httpx.Client:
        """A client of its HTTP API; every answer is held to the document, `options` are httpx's."""
        return httpx.Client(
            base_url=self.api_url, trust_env=False, event_hooks={"response": [_check_answer]}, **options
        )

    def issue(self, email: str = "gold@example.com", *, session: bool = False) -> tokens.Issued:
        """A token of a user; with `session` also its CSRF token."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return tokens.issue(self.state, connection, email, session=session)

    def token(self, email: str = "gold@example.com") -> str:
        """A token of a user that needs no CSRF token."""
        return self.issue(email).token

    def quote(self, symbol: str, bid: Decimal | str | None = None, ask: Decimal | str | None = None) -> None:
        """Hold a symbol at a price; without one, give it back to the simulator."""
        prices = [] if bid is None else ["--bid", str(bid), "--ask", str(ask)]
        assert commands.main(["--state", str(self.folder), "quote", "--symbol", symbol, *prices]) == 0

    def invoke(self, function: str, *, wait: bool = True) -> Any:
        """Run a function of the template now, as its schedule does; what it returned, once it has."""
        return invoking.invoke(self.state, function, wait=wait)

    def load_accounts(self, count: int) -> None:
        """Make that many load accounts."""
        assert commands.main(["--state", str(self.folder), "load-accounts", "--count", str(count)]) == 0


def _check_answer(response: httpx.Response) -> None:
    response.read()
    asked = response.request
    if not (asked.method == "OPTIONS" and response.status_code == httpx.codes.NO_CONTENT):
        check_answer(asked.method, asked.url.path, response.status_code, response.headers, response.text)


def clean_environment() -> dict[str, str]:
    """The environment without what would change a start."""
    dropped = ("DATABASE_URL", "REDIS_URL", "MAKEFLAGS", "MAKELEVEL", "PORT", "STATE", "TRADE_ALWAYS", "PARAMETERS")
    return {name: value for name, value in os.environ.items() if name not in dropped and not name.startswith("QUOTE_")}
