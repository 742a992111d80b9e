"""Runs under faults: load, faults, one final checker, and recovery."""

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kit.fault_runs import FaultRun, fault_run
from tests.kit.functions import function_variables
from tests.kit.servers import ScratchDatabase
from tests.kit.workers import Worker, worker

type StartWorker = Callable[..., Worker]


@pytest.fixture
def run(database: ScratchDatabase, dice: random.Random) -> Iterator[FaultRun]:
    """A run on a database of its own."""
    with fault_run(database, dice) as started:
        yield started


@pytest.fixture
def start_worker(run: FaultRun, redis_url: str, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts a worker of a function, by default with the run's Redis; further keyword arguments are its variables."""
    numbers = itertools.count(1)
    with ExitStack() as started:

        def start(
            function: str = "execute_order", *, role: str = "function_trader", redis: bool = True, **variables: str
        ) -> Worker:
            folder = tmp_path / f"{function}-{next(numbers)}"
            folder.mkdir()
            given = function_variables(folder, run.database.url_for(role), redis_url if redis else None)
            return started.enter_context(worker(function, given | variables, folder / "log"))

        yield start
