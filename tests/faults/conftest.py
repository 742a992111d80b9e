"""Runs under faults: load, faults, one final checker, and recovery."""

import random
from collections.abc import Iterator

import pytest

from tests.kit.fault_runs import FaultRun, fault_run
from tests.kit.servers import ScratchDatabase


@pytest.fixture
def run(database: ScratchDatabase, dice: random.Random) -> Iterator[FaultRun]:
    """A run on a database of its own."""
    with fault_run(database, dice) as started:
        yield started
