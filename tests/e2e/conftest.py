"""Whole local systems."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.servers import free_port
from tests.kit.local_system import LocalSystem
from tests.kit.scratch import scratch_folder
from tests.kit.traders import Traders

LOAD_ACCOUNTS = 90


@pytest.fixture(scope="module")
def system_folder() -> Iterator[Path]:
    """A folder for systems of a module's own."""
    with scratch_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def local_system() -> Iterator[LocalSystem]:
    """One running system for the whole run; each test uses accounts and symbols of its own, or puts them back."""
    with scratch_folder() as folder:
        system = LocalSystem(folder / "state", free_port())
        try:
            system.start()
            yield system
        finally:
            system.stop()


@pytest.fixture(scope="session")
def all_traders(local_system: LocalSystem) -> Traders:
    """The users of the running system, each load account handed out once in the run."""
    return Traders(local_system, LOAD_ACCOUNTS)


@pytest.fixture
def traders(all_traders: Traders) -> Iterator[Traders]:
    """Users for one test; their HTTP connections are closed after it."""
    yield all_traders
    all_traders.close()
