"""Folders for what is thrown away after a run: the data of servers, the state of whole systems."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# A database is a thousand files: to clone and drop one takes a tenth of the time where they are in memory.
MEMORY = Path("/dev/shm")  # noqa: S108 - names in it are made by mkdtemp
# What four processes with servers of their own may come to, twice.
ROOM_BYTES_MIN = 4 * 1024**3
PREFIX = "trading-tests-"
LOCK = "in-use"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that a server's user may pass, whoever runs the tests; in memory where there is room, gone afterwards.

    It is locked while it is used, so that the next run finds what a killed one left.
    """
    root = _root()
    _remove_leftovers(root)
    fresh = Path(tempfile.mkdtemp(prefix=f"new-{PREFIX}", dir=root))
    fresh.chmod(0o711)  # run as root, the servers' user has to pass
    with (fresh / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = fresh.rename(root / fresh.name.removeprefix("new-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _root() -> Path:
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM_BYTES_MIN:
        return MEMORY
    return Path(tempfile.gettempdir())


def _remove_leftovers(root: Path) -> None:
    for folder in root.glob(f"{PREFIX}*"):
        with suppress(OSError), (folder / LOCK).open() as lock:  # another's is held, or nobody's to remove
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
