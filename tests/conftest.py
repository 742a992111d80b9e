"""Real servers for every test: one PostgreSQL and one Redis a run, one migrated database a test."""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kit.scheduling import SharedSystemScheduling
from tests.kit.scratch import scratch_folder
from tests.kit.seeds import seeded
from tests.kit.servers import MigratedTemplate, ScratchDatabase, TestServers

# No test may reach an AWS account by accident, nor take the settings of the person who runs it.
os.environ.update(
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_SESSION_TOKEN="testing",
    AWS_DEFAULT_REGION="eu-west-1",
    AWS_EC2_METADATA_DISABLED="true",
    POWERTOOLS_TRACE_DISABLED="true",
)
# A shell that starts the tests in the background has them ignore SIGINT, nohup has them ignore SIGHUP, and what they
# start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
for _name in ("DATABASE_URL", "REDIS_URL", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
    os.environ.pop(_name, None)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedSystemScheduling:
    """Who runs what, where the tests run in several processes."""
    return SharedSystemScheduling(config, log)


@contextmanager
def _running(*, durable: bool) -> Iterator[TestServers]:
    with scratch_folder() as folder:
        running = TestServers(folder, durable=durable)
        try:
            running.start()
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="session")
def servers() -> Iterator[TestServers]:
    """PostgreSQL (fsync off) and Redis for the whole run, with data of their own that is thrown away."""
    with _running(durable=False) as running:
        yield running


@pytest.fixture
def durable_servers() -> Iterator[TestServers]:
    """A PostgreSQL that syncs and a Redis for one test, which may crash them; nothing is migrated yet."""
    with _running(durable=True) as running:
        yield running


@pytest.fixture(scope="session")
def migrated(servers: TestServers) -> MigratedTemplate:
    """The database that every test's own one is cloned from: migrated, reference data loaded."""
    return MigratedTemplate.build(servers.postgres)


@pytest.fixture
def database(migrated: MigratedTemplate) -> Iterator[ScratchDatabase]:
    """A migrated database of the test's own, with the instruments loaded."""
    scratch = migrated.clone()
    yield scratch
    scratch.drop()


@pytest.fixture
def empty_database(servers: TestServers) -> Iterator[ScratchDatabase]:
    """A database with nothing in it; the roles are shared by the whole cluster."""
    scratch = ScratchDatabase.create(servers.postgres, {})
    yield scratch
    scratch.drop()


@pytest.fixture
def redis_url(servers: TestServers) -> str:
    """The URL of an emptied Redis."""
    servers.flush_redis()
    return servers.redis.url()


@pytest.fixture
def dice() -> random.Random:
    """The random choices of one test; TRADING_SEED=n repeats those of a run that failed."""
    return seeded()
