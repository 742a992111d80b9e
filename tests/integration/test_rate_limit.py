"""The sliding window, exact under a race, in Redis and in the table that stands in for it."""

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import redis

from tests.kit import ScratchDatabase, TestServers
from trading.cache import Cache, CacheUnavailableError
from trading.edge.rate_limit import RELAY_AWAKE_KEY, Limit, RateLimiter, Taken, address_key, user_key
from trading.errors import ErrorCode, TradingError
from trading.store.database import Database
from trading.store.rate_limits import take_rate_limits

CALLERS = 50


@dataclass
class Store:
    """A limiter on one of the two stores. `age` makes every count of a key older by seconds."""

    make: Callable[[], RateLimiter]
    age: Callable[[str, float], None]
    count: Callable[[str], int]
    close: Callable[[], None]


@pytest.fixture(params=["redis", "postgres"])
def store(request: pytest.FixtureRequest, redis_url: str, database: ScratchDatabase) -> Iterator[Store]:
    made = _redis_store(redis_url) if request.param == "redis" else _postgres_store(database)
    yield made
    made.close()


def _redis_store(url: str) -> Store:
    cache = Cache(lambda: url, timeout_ms=5000)
    server: Any = redis.Redis.from_url(url)

    def age(key: str, seconds: float) -> None:
        for index, taken_at in enumerate(server.lrange(key, 0, -1)):
            server.lset(key, index, str(int(taken_at) - int(seconds * 1_000_000)))

    def close() -> None:
        cache.close()
        server.close()

    return Store(lambda: RateLimiter(cache, _no_fallback), age, lambda key: int(server.llen(key)), close)


def _postgres_store(scratch: ScratchDatabase) -> Store:
    databases: list[Database] = []
    gone = Cache(lambda: "redis://127.0.0.1:9/0", timeout_ms=200)

    def make() -> RateLimiter:
        database = Database(lambda: scratch.url_for("function_trader"))
        databases.append(database)
        return RateLimiter(gone, lambda limits, seconds, visitor: take_rate_limits(database, limits, seconds, visitor))

    def age(key: str, seconds: float) -> None:
        with scratch.connect() as connection:
            connection.execute(
                "UPDATE rate_limit_counters SET taken_at = "
                "array(SELECT t.at - make_interval(secs => %s) FROM unnest(taken_at) AS t (at) ORDER BY 1) "
                "WHERE key = %s",
                (seconds, key),
            )

    def count(key: str) -> int:
        with scratch.connect() as connection:
            row = connection.execute(
                "SELECT cardinality(taken_at) FROM rate_limit_counters WHERE key = %s", (key,)
            ).fetchone()
        return row[0] if row else 0

    def close() -> None:
        gone.close()
        for database in databases:
            database.close()

    return Store(make, age, count, close)


def _no_fallback(*_arguments: object) -> dict[str, object]:
    raise AssertionError("Redis was there")


def new_key() -> str:
    return user_key(uuid.uuid4(), "orders")


def test_the_limit_is_exact_and_the_next_one_is_told_when_to_come(store: Store) -> None:
    limiter, limit = store.make(), Limit(new_key(), 10)

    standings = [limiter.take([limit]).standings[0] for _ in range(10)]
    refused = limiter.take([limit])

    assert [standing.remaining for standing in standings] == list(range(9, -1, -1))
    assert refused.refused == 0
    assert refused.standings[0].remaining == 0
    assert 58 <= refused.standings[0].retry_after <= 60
    assert refused.standings[0].reset == pytest.approx(standings[0].reset)


def test_a_refused_request_is_not_counted(store: Store) -> None:
    limiter, limit = store.make(), Limit(new_key(), 2)

    for _ in range(10):
        limiter.take([limit])

    assert store.count(limit.key) == 2


def test_a_place_becomes_free_when_the_oldest_leaves_the_window(store: Store) -> None:
    # given a full window whose first request is older than the rest by 30 seconds
    limiter, limit = store.make(), Limit(new_key(), 3)
    limiter.take([limit])
    store.age(limit.key, 30)
    limiter.take([limit])
    limiter.take([limit])
    refused = limiter.take([limit])
    assert refused.refused == 0
    assert 28 <= refused.standings[0].retry_after <= 30

    # when the first one leaves
    store.age(limit.key, 30)

    # then one more is taken, and only one: no burst at the edge of a minute
    assert limiter.take([limit]).refused is None
    assert limiter.take([limit]).refused == 0


def test_a_request_is_counted_for_the_whole_window_and_no_longer(store: Store) -> None:
    limiter, limit = store.make(), Limit(new_key(), 1)
    limiter.take([limit])

    store.age(limit.key, 58)
    assert limiter.take([limit]).refused == 0
    store.age(limit.key, 2)
    assert limiter.take([limit]).refused is None


def test_racing_callers_get_exactly_the_limit(store: Store) -> None:
    # given 50 callers with limiters of their own, all waiting for one signal
    limit, barrier = Limit(new_key(), 10), threading.Barrier(CALLERS)
    limiters = [store.make() for _ in range(CALLERS)]
    for limiter in limiters:
        limiter.take([Limit("warm", 1000)])

    def take(limiter: RateLimiter) -> Taken:
        barrier.wait()
        return limiter.take([limit])

    # when
    with ThreadPoolExecutor(CALLERS) as pool:
        outcomes = list(pool.map(take, limiters))

    # then
    passed = [taken for taken in outcomes if taken.refused is None]
    assert len(passed) == 10
    assert sorted(taken.standings[0].remaining for taken in passed) == list(range(10))
    assert store.count(limit.key) == 10


def test_a_refusing_limit_leaves_the_later_ones_untouched(store: Store) -> None:
    limiter, address, user = store.make(), Limit(address_key("203.0.113.1"), 2), Limit(new_key(), 1)

    first = limiter.take([address, user])
    second = limiter.take([address, user])
    third = limiter.take([address, user])

    assert (first.refused, second.refused, third.refused) == (None, 1, 0)
    assert len(third.standings) == 1
    assert store.count(address.key) == 2
    assert store.count(user.key) == 1


def test_keys_are_counted_apart(store: Store) -> None:
    limiter = store.make()

    for _ in range(3):
        assert limiter.take([Limit(new_key(), 1)]).refused is None


def test_the_relay_state_comes_with_the_count(redis_url: str) -> None:
    store = _redis_store(redis_url)
    limiter, limit = store.make(), Limit(new_key(), 10)
    assert limiter.take([limit]).relay_awake is False

    with redis.Redis.from_url(redis_url) as server:
        server.set(RELAY_AWAKE_KEY, "1", px=10_000)

    assert limiter.take([limit]).relay_awake is True
    store.close()


def test_a_count_in_redis_ends_by_itself(redis_url: str) -> None:
    store = _redis_store(redis_url)
    limit = Limit(new_key(), 10)
    store.make().take([limit])

    with redis.Redis.from_url(redis_url) as server:
        left: Any = server.pttl(limit.key)
    assert 59_000 < left <= 60_000
    store.close()


def test_a_key_of_another_type_is_counted_in_the_database(redis_url: str, database: ScratchDatabase) -> None:
    # given
    limit, noted = Limit(new_key(), 1), list[CacheUnavailableError]()
    cache, kept = Cache(lambda: redis_url, timeout_ms=1000), Database(lambda: database.url_for("function_trader"))
    limiter = RateLimiter(
        cache,
        lambda limits, seconds, visitor: take_rate_limits(kept, limits, seconds, visitor),
        on_fallback=noted.append,
    )
    with redis.Redis.from_url(redis_url) as server:
        server.set(limit.key, "not a list")

    # when
    outcomes = [limiter.take([limit]).refused for _ in range(2)]

    # then
    assert outcomes == [None, 0]
    assert "WRONGTYPE" in str(noted[0])
    cache.close()
    kept.close()


def test_when_redis_stops_in_mid_run_the_database_counts_on(
    durable_servers: TestServers, database: ScratchDatabase
) -> None:
    # given
    cache = Cache(durable_servers.redis.url, timeout_ms=500)
    kept = Database(lambda: database.url_for("function_trader"))
    limiter = RateLimiter(cache, lambda limits, seconds, visitor: take_rate_limits(kept, limits, seconds, visitor))
    limit = Limit(new_key(), 3)
    assert limiter.take([limit]).refused is None

    # when
    durable_servers.redis.stop()

    # then: the new count begins at nothing, and is as exact
    assert [limiter.take([limit]).refused for _ in range(4)] == [None, None, None, 0]
    cache.close()
    kept.close()


def test_with_both_stores_gone_nothing_passes() -> None:
    cache = Cache(lambda: "redis://127.0.0.1:9/0", timeout_ms=200)
    gone = Database(lambda: "postgresql://nobody@127.0.0.1:9/none")
    limiter = RateLimiter(cache, lambda limits, seconds, visitor: take_rate_limits(gone, limits, seconds, visitor))

    with pytest.raises(TradingError) as raised:
        limiter.take([Limit(new_key(), 10)])

    assert raised.value.code is ErrorCode.DATABASE_UNAVAILABLE


def test_the_table_forgets_keys_that_are_over(database: ScratchDatabase) -> None:
    # given more keys than one call removes
    store = _postgres_store(database)
    limiter = store.make()
    for _ in range(15):
        limiter.take([Limit(new_key(), 1)])
    with database.connect() as connection:
        connection.execute("UPDATE rate_limit_counters SET expires_at = expires_at - interval '2 minutes'")

        # when
        limiter.take([Limit("living", 5)])
        left = [row[0] for row in connection.execute("SELECT key FROM rate_limit_counters")]
        limiter.take([Limit("living", 5)])
        rest = [row[0] for row in connection.execute("SELECT key FROM rate_limit_counters")]

    # then
    assert len(left) == 6
    assert rest == ["living"]
    store.close()


def test_only_functions_with_a_gate_may_count(database: ScratchDatabase) -> None:
    for role in ("function_prices", "function_risk", "compliance", "backup"):
        with database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT take_rate_limits('{}')")


def test_nobody_reaches_the_table_itself(database: ScratchDatabase) -> None:
    for role in ("function_trader", "compliance"):
        with database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM rate_limit_counters")
