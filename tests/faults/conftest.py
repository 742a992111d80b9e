"""Runs under faults: load, faults, one final checker, and recovery."""

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
    """Starts a worker, by default of execute_order, on the run's database; keyword arguments are variables of it."""
    with ExitStack() as started:

        def start(function: str = "execute_order", role: str = "function_trader", **variables: str) -> Worker:
            given = function_variables(tmp_path, database=run.database, redis_url=redis_url, role=role)
            return started.enter_context(worker(function, given | variables, tmp_path / f"{function}.log"))

        yield start
