"""A start, every way to end it, and what is left: no process, no port, all the data."""

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from local.servers import HOST, free_port
from tests.kit.local_system import DOWN_SECONDS, ROOT, LocalSystem, clean_environment, wait_until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def system(system_folder: Path) -> LocalSystem:
    """A system that the tests start and stop in turn, always on the same data."""
    return LocalSystem(system_folder / "state", free_port())


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def supervisor_below(pid: int) -> psutil.Process:
    return next(process for process in descendants(pid) if "local.supervisor" in process.cmdline())


def assert_gone(processes: list[psutil.Process], seconds: float = DOWN_SECONDS) -> None:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def facts(system: LocalSystem) -> tuple:
    """What must be the same after every restart."""
    with psycopg.connect(system.database_url, autocommit=True) as connection:
        row = connection.execute("SELECT count(*), sum(balance), min(created_at) FROM accounts").fetchone()
    assert row is not None
    return row


class BackgroundMake:
    """`make start &` of a program: nothing but its pid is at hand."""

    def start(self, system: LocalSystem) -> int:
        self.process = system.start()
        return self.process.pid

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def terminate(self) -> None:
        self.process.terminate()

    def kill_make(self) -> None:
        self.process.kill()

    def kill_supervisor(self) -> None:
        supervisor_below(self.process.pid).kill()

    def finish(self) -> None:
        self.process.wait(DOWN_SECONDS)


class ShellJob:
    """`make start &` in a script: the shell has it ignore SIGINT, which its job control then sends to the group."""

    def start(self, system: LocalSystem) -> int:
        self.process = system.start(["sh", "-c", '"$@" & wait', "sh", *system.command])
        return self.process.pid

    def interrupt_group(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def finish(self) -> None:
        self.process.wait(DOWN_SECONDS)


# A terminal controls the session that takes it; Ctrl-C goes to the group in its foreground.
TAKE_TERMINAL = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
TAKE_TERMINAL += "os.execvp(sys.argv[1], sys.argv[1:])"


class Terminal:
    """`make start | tee` typed into a terminal; the output is gone before the system is."""

    def start(self, system: LocalSystem) -> int:
        self.keyboard, screen = pty.openpty()
        system.output.write_text("")
        piped = [*("sh", "-c", '"$@" 2>&1 | tee "$0"', str(system.output)), *system.command]
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *piped],
            stdin=screen,
            stdout=subprocess.DEVNULL,
            stderr=screen,
            env=clean_environment(),
        )
        os.close(screen)
        system.wait_until_up(self.process.pid)
        return self.process.pid

    def control_c(self) -> None:
        os.write(self.keyboard, b"\x03")

    def finish(self) -> None:
        self.process.wait(DOWN_SECONDS)
        os.close(self.keyboard)


WAYS = {
    "ctrl-c in a terminal": (Terminal, Terminal.control_c),
    "sigint to a background make": (BackgroundMake, BackgroundMake.interrupt),
    "sigint to a script's job": (ShellJob, ShellJob.interrupt_group),
    "sighup to make": (BackgroundMake, BackgroundMake.hang_up),
    "sigterm to make": (BackgroundMake, BackgroundMake.terminate),
    "sigkill to make": (BackgroundMake, BackgroundMake.kill_make),
    "sigkill to the supervisor": (BackgroundMake, BackgroundMake.kill_supervisor),
}


@pytest.fixture(scope="module")
def known_facts() -> dict[str, tuple]:
    """What the first start found; the later ones have to find the same."""
    return {}


@pytest.mark.parametrize(("starter", "end"), WAYS.values(), ids=WAYS)
def test_every_end_leaves_no_process_and_keeps_the_data(
    system: LocalSystem, known_facts: dict[str, tuple], starter: type, end: Callable
) -> None:
    # given a system on data that an earlier run may have left
    run = starter()
    pid = run.start(system)
    processes = descendants(pid)
    assert facts(system) == known_facts.setdefault("facts", facts(system))
    assert len(processes) > 5
    # when it is ended
    end(run)
    # then no process is left, the ports are free
    assert_gone(processes)
    run.finish()
    wait_until(system.ports_are_free, 1, "all ports free")
    # and nobody is told that it is up, unless nothing was left alive to take the notice down
    assert not system.state.env.exists() or end is BackgroundMake.kill_supervisor


def test_what_dies_is_started_again(system: LocalSystem) -> None:
    # given a running system
    pid = system.start().pid
    before = {name: find(pid, name) for name in ("postgres", "redis-server", "local.gateway")}
    assert all(before.values())
    # when each of its servers dies
    for process in before.values():
        assert process is not None
        process.kill()
    # then each is there again, as another process, and the API is healthy at the same address
    try:
        for name, process in before.items():
            wait_until(lambda name=name, process=process: find(pid, name) not in (None, process), 30, f"{name} again")
        wait_until(lambda: healthy(system), 60, "healthy again")
    finally:
        system.stop()


def find(pid: int, name: str) -> psutil.Process | None:
    """The server of that name below `pid`: the child of the supervisor, not a child of its own."""
    for process in supervisor_below(pid).children():
        try:
            words = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if name in words or (words and "child.py" not in " ".join(words) and Path(words[0]).name.startswith(name)):
            return process
    return None


def healthy(system: LocalSystem) -> bool:
    try:
        return httpx.get(f"{system.api_url}/health", timeout=10).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def test_a_second_start_on_the_same_data_is_refused_and_a_second_copy_runs_beside(
    system: LocalSystem, system_folder: Path
) -> None:
    # given a running system
    system.start()
    other = LocalSystem(system_folder / "other", free_port())
    try:
        # when another start names its state folder
        refused = supervisor("--port", str(free_port()), "--state", str(system.folder))
        # then it says so and exits 1, and the first one is as it was
        assert refused.returncode == 1
        assert "is running on" in refused.stderr
        assert system.state.env.exists()
        # when another start names its port
        refused = supervisor("--port", str(system.port), "--state", str(system_folder / "third"))
        # then it says that
        assert refused.returncode == 1
        assert f"Port {system.port} of 127.0.0.1 is taken" in refused.stderr
        # when a copy starts with a port and a folder of its own
        other.start()
        # then both serve, each with its own data
        assert healthy(system)
        assert healthy(other)
        assert facts(system) != facts(other)
        assert system.token() != other.token()
    finally:
        other.stop()
        system.stop()


def test_a_port_that_a_stranger_holds_is_named(system_folder: Path) -> None:
    # given a stranger on the port
    with socket.socket() as stranger:
        stranger.bind((HOST, 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        # when a system should start there
        refused = supervisor("--port", str(port), "--state", str(system_folder / "busy"))
    # then it exits 1 with one line that names the port and the way out
    assert refused.returncode == 1
    assert f"Port {port} of 127.0.0.1 is taken" in refused.stderr
    assert f"PORT={port + 1}" in refused.stderr


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_a_port_that_is_none_is_refused(port: str, system_folder: Path) -> None:
    refused = supervisor(f"--port={port}", "--state", str(system_folder / "none"))
    assert refused.returncode == 2
    assert "PORT is a number" in refused.stderr


def supervisor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local.supervisor", *arguments],
        cwd=ROOT,
        env=clean_environment() | {"PYTHONPATH": f"{ROOT}:{ROOT / 'layers' / 'trading'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
