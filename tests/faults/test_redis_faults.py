"""Redis gone, slow, emptied or holding the wrong thing: orders go on, limits hold, and it is not asked for nothing."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.kit.builders import User
from tests.kit.fault_runs import FaultRun
from tests.kit.functions import (
    Answer,
    bearer,
    call,
    function_environment,
    load_function,
    make_token,
    order_event,
)
from tests.kit.servers import TestServers
from trading import cache
from trading.cache import BREAKER_SECONDS
from trading.edge.rate_limit import user_key

BRONZE_LIMIT = 10
SLOW_MS = 2000
TIMEOUT_MS = 150


class Clock:
    """The breaker's seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Function:
    """execute_order in this process, on a Redis of the test's choice."""

    def __init__(self, run: FaultRun) -> None:
        self.handler = load_function("execute_order")
        self.user = run.user()
        self.token = make_token(self.user, tier="bronze")

    def order(self) -> Answer:
        """A bronze user's order."""
        return call(self.handler, order_event(self.user) | {"headers": bearer(self.token)})

    def statuses(self, count: int) -> list[int]:
        """The answers to so many orders."""
        return [self.order().status for _ in range(count)]


@contextmanager
def function_on(run: FaultRun, url: str, folder: Path, clock: Clock | None = None) -> Iterator[Function]:
    """The function with its Redis at `url`, and with its breaker on `clock`."""
    with pytest.MonkeyPatch.context() as patch:
        environment = {"REDIS_TIMEOUT_MS": str(TIMEOUT_MS)}
        with function_environment(patch, folder, database=run.database, redis_url=url, **environment):
            if clock is not None:
                cache.cache()._clock = clock
            yield Function(run)


class SilentServer:
    """Takes connections and answers nothing; counts them."""

    def __init__(self) -> None:
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._kept: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def _accept(self) -> None:
        while True:
            try:
                kept, _ = self._listener.accept()
            except OSError:
                return
            self._kept.append(kept)
            self.connections += 1

    def close(self) -> None:
        """Let go of all of them."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for kept in self._kept:
            kept.close()


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    server = SilentServer()
    yield server
    server.close()


def test_a_silent_redis_is_asked_once_and_then_left_alone(run: FaultRun, tmp_path: Path, silent: SilentServer) -> None:
    """F8: latency is bounded by one time-out for each pause of the breaker, however many orders come."""
    clock = Clock()
    with function_on(run, silent.url, tmp_path, clock) as function:
        # when orders come while it is silent
        first = function.statuses(5)
        # then only the first one waited
        assert silent.connections == 1
        # and after the pause one more does
        clock.now = BREAKER_SECONDS
        second = function.statuses(7)
        assert silent.connections == 2

    # and the limit held all the same
    assert first + second == [200] * BRONZE_LIMIT + [429] * 2
    run.settle()


def test_a_redis_that_answers_late_is_given_up_and_found_again(run: FaultRun, tmp_path: Path, redis_url: str) -> None:
    """F8: slow by 2 s."""
    clock = Clock()
    with function_on(run, redis_url, tmp_path, clock) as function, redis.Redis.from_url(redis_url) as server:
        assert function.order().status == 200
        # given a server that holds every command back
        server.client_pause(SLOW_MS)
        # when
        while_slow = function.statuses(4)
        # then one of them was sent at most, and once it is quick again it counts the next ones
        clock.now = BREAKER_SECONDS
        server.client_unpause()
        after = function.statuses(2)
        assert 1 + 2 <= server.llen(limited(function.user)) <= 1 + 1 + 2
    assert while_slow + after == [200] * 6
    run.settle()


def commands_of(server: Any, command: str) -> int:
    """How often a command was carried out."""
    return server.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]


def test_a_redis_that_stops_and_comes_back_empty_costs_no_order(
    run: FaultRun, tmp_path: Path, durable_servers: TestServers
) -> None:
    """F8: down, then restarted without what it held; its script is gone with it."""
    server, clock = durable_servers.redis, Clock()
    with function_on(run, server.url(), tmp_path, clock) as function:
        before = function.statuses(2)
        # when it stops
        server.stop()
        without = function.statuses(BRONZE_LIMIT + 1)
        # and comes back with nothing
        server.start_again()
        clock.now = BREAKER_SECONDS
        again = function.statuses(BRONZE_LIMIT + 1)

    # then each store counts on its own, and neither lets through more than the limit
    assert before == [200] * 2
    assert without == again == [200] * BRONZE_LIMIT + [429]
    run.settle()


def test_a_redis_without_its_script_is_taught_again(run: FaultRun, tmp_path: Path, redis_url: str) -> None:
    """F8: NOSCRIPT."""
    with function_on(run, redis_url, tmp_path) as function, redis.Redis.from_url(redis_url) as server:
        first = function.statuses(3)
        sent = commands_of(server, "eval")
        # when
        server.script_flush()
        rest = function.statuses(BRONZE_LIMIT - 2)
        # then nothing of the count is lost, and it was sent in full once more, not each time
        assert first + rest == [200] * BRONZE_LIMIT + [429]
        assert server.llen(limited(function.user)) == BRONZE_LIMIT
        assert commands_of(server, "eval") == sent + 1
    run.settle()


def limited(user: User) -> str:
    """The key under which a user's orders are counted."""
    return user_key(user.user_id, "orders")


def test_something_else_under_the_limiters_key_moves_the_count_to_the_database(
    run: FaultRun, tmp_path: Path, redis_url: str
) -> None:
    """F8: WRONGTYPE. Redis is well and is not given up for it."""
    with function_on(run, redis_url, tmp_path) as function, redis.Redis.from_url(redis_url) as server:
        # given
        server.set(limited(function.user), "no list")
        # when
        statuses = function.statuses(BRONZE_LIMIT + 1)
        # then the limit is as exact, and other users are counted where they always are
        other = Function(run)
        assert other.order().status == 200
        assert server.llen(limited(other.user)) == 1
    assert statuses == [200] * BRONZE_LIMIT + [429]
    run.settle()
