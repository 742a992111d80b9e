"""The whole local system, started for a benchmark as `make start` starts it, with load accounts in it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import psycopg

from local import tokens
from local.demo_accounts import LOAD_PREFIX, make_load_accounts
from local.servers import free_port
from tests.kit.local_system import LocalSystem

BALANCE = Decimal(10_000_000)


@contextmanager
def running_system(load_accounts: int) -> Iterator[LocalSystem]:
    """A system on a free port with data of its own; `load_accounts` can trade at any hour."""
    folder = Path(tempfile.mkdtemp(prefix="trading-bench-"))
    folder.chmod(0o711)
    system = LocalSystem(folder / "state", free_port())
    try:
        system.start()
        with psycopg.connect(system.database_url, autocommit=True) as owner:
            make_load_accounts(owner, load_accounts, balance=BALANCE)
        yield system
    finally:
        system.stop()
        shutil.rmtree(folder, ignore_errors=True)


def load_tokens(system: LocalSystem, count: int) -> list[str]:
    """A token of each of the first `count` load accounts."""
    with psycopg.connect(system.database_url, autocommit=True) as owner:
        return [
            tokens.issue(system.state, owner, f"{LOAD_PREFIX}{number:04d}@example.com").token
            for number in range(1, count + 1)
        ]
