"""Child processes of the local system: spawned in sessions of their own, ended by a ladder of signals."""

import os
import pwd
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
NOBODY = 65534

_LAUNCHER = Path(__file__).with_name("child.py")


class StartError(Exception):
    """The local system cannot start; the text is for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user that a server runs as; `capability` lets it pass folders that only root may enter."""

    user: int
    group: int
    capability: int | None = None


def server_identity(folder: Path, *needed: Path) -> Identity | None:
    """Who a server with its data in `folder` runs as: None for the present user, who is not root.

    PostgreSQL refuses to run as root. Then the owner of existing data is taken, else nobody. `needed` are further
    paths that the server reads. No folder changes its mode: where that user cannot pass, the server keeps the one
    capability that passes it.

    Raises StartError where root has no such capability to give.
    """
    if os.geteuid() != 0:
        return None
    owner = folder.stat() if folder.exists() else None
    if owner and owner.st_uid != 0:
        user, group = owner.st_uid, owner.st_gid
    else:
        user, group = _nobody()
    closed = [path for path in (folder, *needed) if not _passable(path, user, group)]
    return Identity(user, group, _passing_capability(closed[0], user) if closed else None)


def _nobody() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return NOBODY, NOBODY
    return entry.pw_uid, entry.pw_gid


def _passable(path: Path, user: int, group: int) -> bool:
    for folder in path.resolve().parents:
        status = folder.stat()
        if status.st_uid == user:
            bit = stat.S_IXUSR
        elif status.st_gid == group:
            bit = stat.S_IXGRP
        else:
            bit = stat.S_IXOTH
        if not status.st_mode & bit:
            return False
    return True


def _passing_capability(path: Path, user: int) -> int:
    held = held_capabilities()
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if held & (1 << capability):
            return capability
    raise StartError(
        f"PostgreSQL does not run as root, and the user whom it runs as instead ({user}) may not enter the folders "
        f"above {path}. Start as another user, or put the copy and its data where everyone may pass, for example "
        "`make start STATE=/var/tmp/trading`."
    )


def held_capabilities() -> int:
    """The capabilities that this process holds and may hand on, as a bit set."""
    fields = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return int(fields["CapPrm"], 16) & int(fields["CapBnd"], 16)


def make_private_folder(folder: Path, identity: Identity | None) -> None:
    """Make `folder` with mode 0700 for the server's user."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if identity:
        os.chown(folder, identity.user, identity.group)


def spawn(
    program: Sequence[str],
    *,
    death_signal: signal.Signals,
    log: Path,
    cwd: Path,
    identity: Identity | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> subprocess.Popen[bytes]:
    """Start `program` in a session of its own, its output appended to `log`.

    It gets `death_signal` when the calling *thread* ends, so call it from the main thread.
    """
    command = [sys.executable, "-I", "-S", str(_LAUNCHER)]
    command += ["--parent", str(os.getpid()), "--death-signal", str(int(death_signal))]
    if identity:
        command += ["--user", str(identity.user), "--group", str(identity.group)]
        if identity.capability is not None:
            command += ["--capability", str(identity.capability)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        child = subprocess.Popen(
            [*command, "--", *program],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(environment) if environment is not None else None,
            start_new_session=True,
        )
    assert child.stdin is not None
    try:
        child.stdin.write(stdin)
        child.stdin.close()
    except BrokenPipeError:
        pass  # it died before it read; whoever waits for it finds out, and why
    return child


def end(child: subprocess.Popen[bytes], ladder: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal of `ladder` in turn and wait its seconds; at last SIGKILL. Does nothing to a dead child."""
    for number, seconds in ladder:
        if child.poll() is not None:
            return
        child.send_signal(number)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return
    child.kill()
    child.wait()


def tail(log: Path, lines: int = 8) -> str:
    """The last lines of a log, for an error message."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
