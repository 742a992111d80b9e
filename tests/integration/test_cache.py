"""The Redis client: its breaker, its scripts, and a server that goes away."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from tests.kit import TestServers
from tests.kit.realtime import soon
from trading.cache import BREAKER_SECONDS, Cache, CacheUnavailableError, Script

ECHO = Script("return ARGV[1]")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(redis_url: str, clock: Clock) -> Iterator[Cache]:
    made = Cache(lambda: redis_url, timeout_ms=1000, clock=clock)
    yield made
    made.close()


def test_a_script_is_sent_in_full_only_once(cache: Cache, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as server:
        server.script_flush()
        server.config_resetstat()

        for _ in range(5):
            assert cache.run_script(ECHO, [], ["x"]) == "x"

        calls: Any = server.info("commandstats")
    assert calls["cmdstat_eval"]["calls"] == 1
    assert calls["cmdstat_evalsha"]["calls"] == 5


def test_a_new_connection_costs_no_more_than_its_login(cache: Cache, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as server:
        server.config_resetstat()
        cache.run(lambda client: client.ping())
        calls: Any = server.info("commandstats")

    assert {name: count["calls"] for name, count in calls.items() if name != "cmdstat_config"} == {
        "cmdstat_auth": 1,
        "cmdstat_ping": 1,
    }


def test_a_server_that_forgot_the_script_gets_it_again(cache: Cache, redis_url: str) -> None:
    cache.run_script(ECHO, [], ["x"])
    with redis.Redis.from_url(redis_url) as server:
        server.script_flush()

    assert cache.run_script(ECHO, [], ["y"]) == "y"


def test_a_kept_connection_that_died_while_idle_is_replaced(cache: Cache, redis_url: str) -> None:
    # given the connection of scripts, closed by the server as after a freeze
    cache.run_script(ECHO, [], ["x"])
    with redis.Redis.from_url(redis_url) as server:
        server.client_kill_filter(_type="normal", skipme=True)

    assert cache.run_script(ECHO, [], ["y"]) == "y"


def test_scripts_of_many_threads_get_their_own_answers(cache: Cache) -> None:
    texts = [str(number) for number in range(200)]

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda text: cache.run_script(ECHO, [], [text]), texts))

    assert answers == texts


def test_a_script_that_fails_does_not_close_the_way_for_others(cache: Cache) -> None:
    with pytest.raises(CacheUnavailableError):
        cache.run_script(Script("return redis.call('LPUSH', 'key')"), [], [])

    assert cache.run_script(ECHO, [], ["x"]) == "x"


def test_a_server_that_is_silent_to_a_script_is_asked_once(redis_url: str, clock: Clock) -> None:
    # given a Redis that stands still
    cache = Cache(lambda: redis_url, timeout_ms=100, clock=clock)
    cache.run_script(ECHO, [], ["x"])
    with redis.Redis.from_url(redis_url) as server:
        server.client_pause(600)
        started_at = time.monotonic()

        # when
        with pytest.raises(CacheUnavailableError):
            cache.run_script(ECHO, [], ["y"])

    # then it is left alone, and a late answer is taken for nobody's
    assert time.monotonic() - started_at < 0.3
    with pytest.raises(CacheUnavailableError, match="a moment ago"):
        cache.run_script(ECHO, [], ["z"])
    clock.now += BREAKER_SECONDS
    with redis.Redis.from_url(redis_url, socket_timeout=5) as server:
        server.ping()
    assert cache.run_script(ECHO, [], ["z"]) == "z"
    cache.close()


def test_after_closing_no_connection_is_left(cache: Cache, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as server:
        before = len(server.client_list())
        cache.run_script(ECHO, [], ["x"])
        cache.run(lambda client: client.ping())

        cache.close()

        soon(lambda: len(server.client_list()) == before)
        assert cache.run_script(ECHO, [], ["x"]) == "x"


def test_a_refused_command_does_not_close_the_way_for_others(cache: Cache) -> None:
    cache.run(lambda client: client.set("text", "x"))

    with pytest.raises(CacheUnavailableError):
        cache.run(lambda client: client.lpush("text", "y"))

    assert cache.run(lambda client: client.get("text")) == "x"


def test_after_a_failure_redis_is_left_alone_and_then_tried_again(redis_url: str, clock: Clock) -> None:
    # given an address where nothing listens
    tries: list[str] = []
    addresses = ["redis://127.0.0.1:9/0"]

    def url() -> str:
        tries.append(addresses[0])
        return addresses[0]

    cache = Cache(url, timeout_ms=200, clock=clock)
    with pytest.raises(CacheUnavailableError):
        cache.run(lambda client: client.ping())

    # when it comes back
    cache.close()
    addresses[0] = redis_url

    # then it is not asked before the pause is over
    clock.now = BREAKER_SECONDS - 0.01
    with pytest.raises(CacheUnavailableError, match="a moment ago"):
        cache.run(lambda client: client.ping())
    assert len(tries) == 1
    clock.now = BREAKER_SECONDS
    assert cache.run(lambda client: client.ping())
    cache.close()


def test_a_server_that_accepts_and_says_nothing_is_given_up_in_time(clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = Cache(lambda: f"redis://127.0.0.1:{silent.getsockname()[1]}/0", timeout_ms=100, clock=clock)
        started_at = time.monotonic()

        with pytest.raises(CacheUnavailableError):
            cache.run(lambda client: client.get("x"))

        assert time.monotonic() - started_at < 1
        cache.close()


def test_a_connection_that_died_while_idle_is_replaced(cache: Cache, redis_url: str) -> None:
    # given a connection that the server has closed, as after a freeze
    cache.run(lambda client: client.ping())
    with redis.Redis.from_url(redis_url) as server:
        server.client_kill_filter(_type="normal", skipme=True)

    assert cache.run(lambda client: client.ping())


def test_a_rotated_password_is_read_again(redis_url: str, clock: Clock) -> None:
    with redis.Redis.from_url(redis_url) as server:
        # given a cache that logged in by the old password
        server.acl_setuser("rotated", enabled=True, passwords=["+old"], keys=["*"], commands=["+@all"])
        address = redis_url.rpartition("@")[2]
        urls = [f"redis://rotated:old@{address}"]
        cache = Cache(lambda: urls[0], timeout_ms=1000, clock=clock)
        assert cache.run_script(ECHO, [], ["x"]) == "x"

        # when the password changes, and then the secret, and connections end
        server.acl_setuser("rotated", enabled=True, passwords=["-old", "+new"], keys=["*"], commands=["+@all"])
        urls[0] = f"redis://rotated:new@{address}"
        server.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(CacheUnavailableError):
            cache.run_script(ECHO, [], ["y"])

        # then the next try logs in by the new one
        clock.now = BREAKER_SECONDS
        assert cache.run_script(ECHO, [], ["z"]) == "z"
        cache.close()
        server.acl_deluser("rotated")


def test_a_server_that_stops_in_mid_run_is_found_again(durable_servers: TestServers, clock: Clock) -> None:
    # given
    server = durable_servers.redis
    cache = Cache(server.url, timeout_ms=500, clock=clock)
    cache.run(lambda client: client.ping())

    # when
    server.stop()
    with pytest.raises(CacheUnavailableError):
        cache.run(lambda client: client.ping())
    server.start_again()

    # then
    clock.now += BREAKER_SECONDS
    assert cache.run(lambda client: client.ping())
    cache.close()
