"""What the supervisor decides by itself; how it starts and ends is tested end to end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local.processes import StartError
from local.supervisor import RESTARTS_MAX, RESTARTS_WINDOW_SECONDS, Restarts, main
from tests.kit.local_system import ROOT, wait_until


def test_restarts_in_one_window_are_bounded() -> None:
    # given a server that was restarted as often as it may
    restarts = Restarts()
    assert all(restarts.allow(float(second)) for second in range(RESTARTS_MAX))
    # when it ends once more in the same window, then it is given up
    assert not restarts.allow(RESTARTS_MAX)


def test_restarts_far_apart_are_not_counted_together() -> None:
    # given a server that ends now and then
    restarts = Restarts()
    # when it does so for long, then it is always started again
    step = RESTARTS_WINDOW_SECONDS / RESTARTS_MAX + 1
    assert all(restarts.allow(step * count) for count in range(50))


def test_a_held_state_folder_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # given a state folder in use
    from local.environment import State

    state = State(tmp_path / "state")
    state.create()
    with state.lock():
        # when another start wants it
        code = main(["--state", str(state.folder)], {})
    # then it exits 1 and says where the other one is
    assert code == 1
    assert str(state.folder) in capsys.readouterr().err


def test_a_wrong_address_limit_stops_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # when a start is told an address limit that is none
    code = main(["--state", str(tmp_path / "state")], {"IP_REQUESTS_PER_MINUTE": "many"})
    # then it exits 1 and says so in one line, with nothing started
    assert code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "IP_REQUESTS_PER_MINUTE" in line
    assert not (tmp_path / "state" / "postgres").exists()


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        # A form that the template knows, one that functions know, and one that only the quotes' file shows.
        ("Venues=paper", "Venues has to be of the form"),
        ("AllowMockVenue=false", "VENUES names the mock venue"),
        ("QuoteProvider=replay", "QUOTE_REPLAY_FILE is not set"),
    ],
)
def test_a_wrong_parameter_stops_the_start(
    parameters: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # when a start is told a parameter that functions could not read
    code = main(["--state", str(tmp_path / "state")], {"PARAMETERS": parameters})
    # then it exits 1 and says so in one line, with nothing started
    assert code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert not (tmp_path / "state" / "postgres").exists()


def test_an_address_limit_reaches_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a start whose servers are somebody else's, and which ends before its gateway
    from local import environment, supervisor

    urls = {"DATABASE_URL": "postgresql://h/d", "REDIS_URL": "redis://h/0", "IP_REQUESTS_PER_MINUTE": "600"}
    roles = dict.fromkeys(environment.ROLE_OF_SECRET.values(), "postgresql://h/d")
    monkeypatch.setattr(environment, "grant_logins", lambda *_: roles)
    monkeypatch.setattr(supervisor.Supervisor, "_prepare_database", lambda *_: None)
    monkeypatch.setattr(supervisor, "port_is_free", lambda _port: True)
    monkeypatch.setattr(supervisor.Supervisor, "_bring_up", _give_up)
    # when it is told an address limit
    main(["--state", str(tmp_path / "state")], urls)
    # then the gateway's file holds it
    content = json.loads((tmp_path / "state" / "gateway.json").read_text())
    assert content["parameters"]["IpRequestsPerMinute"] == "600"


def _give_up(*_: object) -> None:
    raise StartError("far enough")


MAKEFILE = "watch:\n\t@exec {python} -c '{program}'\n"
PROGRAM = (
    "import sys, time; from local.launching_parent import LaunchingParent; parent = LaunchingParent(); "
    "print(parent.gone(), flush=True); "
    "[time.sleep(0.02) for _ in iter(parent.gone, True)]; print(True, flush=True)"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name)
def test_a_make_that_was_told_to_stop_is_noticed(number: signal.Signals, tmp_path: Path) -> None:
    # given a program that make started
    makefile = tmp_path / "Makefile"
    makefile.write_text(MAKEFILE.format(python=sys.executable, program=PROGRAM.replace("$", "$$")))
    # and no other make around it, as there is when make runs these tests
    alone = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    make = subprocess.Popen(
        ["make", "-f", str(makefile), "watch"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=alone | {"PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert make.stdout is not None
    with make, make.stdout as output:
        assert output.readline() == "False\n"
        # when make alone gets the signal
        make.send_signal(number)
        # then the program notices
        assert output.readline() == "True\n"
        wait_until(lambda: make.poll() is not None, 5, "make ended")
