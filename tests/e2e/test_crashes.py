"""Processes killed and servers stopped at once while orders flow: what was acknowledged stands, once, and it goes on.

Each run draws its moments from a seed that a failure shows; TRADING_SEED=n replays them.
"""

import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import psutil
import psycopg
import pytest

from database.verify import audit_faults, book_faults
from local.environment import role_url
from local.servers import free_port
from tests.kit.gateway import eventually
from tests.kit.load import Acknowledged, Load, OverHttp
from tests.kit.local_system import LocalSystem
from tests.kit.processes import postmaster_of, redis_of, workers_of
from tests.kit.traders import Trader, Traders, error_of, exact, execute

pytestmark = pytest.mark.timeout(180)

LOAD_ACCOUNTS = 40
CLIENTS = 6
WORKER_KILLS = 12
PAUSE_SECONDS_MAX = 0.4
ORDERS_BETWEEN_FAULTS = 60
# From PostgreSQL's first accepted connection to the first acknowledged order, on a machine with other things to do.
RECOVERY_SECONDS_MAX = 5.0
BRONZE_LIMIT = 10


@pytest.fixture(scope="module")
def system(system_folder: Path) -> Iterator[LocalSystem]:
    """A system that only these tests use, because they break it."""
    system = LocalSystem(system_folder / "state", free_port())
    try:
        system.start()
        yield system
    finally:
        system.stop()


@pytest.fixture(scope="module")
def all_traders(system: LocalSystem) -> Traders:
    return Traders(system, LOAD_ACCOUNTS)


def check_books(system: LocalSystem) -> None:
    """I1 to I3 and I6 over the whole database, by the checker in SQL; and nothing that hangs."""
    with psycopg.connect(system.database_url, autocommit=True) as connection:
        assert book_faults(connection) == []
        assert audit_faults(connection) == []
        assert connection.execute("SELECT count(*) FROM orders").fetchone() != (0,)
    deadlocks = execute(system, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert deadlocks == [{"deadlocks": 0}]
    eventually(lambda: not hanging(system), what="the end of every transaction and wait")


def hanging(system: LocalSystem) -> list[dict]:
    return execute(
        system,
        "SELECT pid, usename, state, query FROM pg_stat_activity WHERE datname = current_database() "
        "AND (state LIKE 'idle in transaction%%' OR wait_event_type = 'Lock')",
    )


def check_acknowledged(traders: list[Trader], acknowledged: list[Acknowledged]) -> None:
    """I1, I5, I8: each answered key has exactly the order that its answer named, and there is no other."""
    for trader in traders:
        told = {one.key: one.order_id for one in acknowledged if one.client == OverHttp(trader)}
        kept = [(row["idempotency_key"], str(row["id"])) for row in trader.rows("orders", "idempotency_key, id")]
        assert len(kept) == len(dict(kept))
        assert dict(kept) == told


def test_killed_workers_lose_no_order_and_double_none(
    system: LocalSystem, traders: Traders, dice: random.Random
) -> None:
    # given orders that flow
    group = [traders.new() for _ in range(CLIENTS)]
    with Load([OverHttp(trader) for trader in group]).running() as load:
        load.wait_for_orders(CLIENTS)
        # when workers are killed at any moment of an order
        for _ in range(WORKER_KILLS):
            load.wait_for_orders(dice.randrange(1, CLIENTS))
            Event().wait(dice.random() * PAUSE_SECONDS_MAX)
            victims = eventually(lambda: workers_of(system, "execute-order"), what="a worker")
            dice.choice(victims).kill()
        load.wait_for_orders(ORDERS_BETWEEN_FAULTS)
    # then callers lost answers, and no order
    assert any(one.lost_attempts for one in load.acknowledged)
    check_acknowledged(group, load.acknowledged)
    check_books(system)


def test_an_order_whose_worker_dies_inside_the_procedure_is_there_once(system: LocalSystem, traders: Traders) -> None:
    # given an order that waits inside the procedure for its account
    trader = traders.new()
    with (
        psycopg.connect(system.database_url) as blocker,
        ThreadPoolExecutor(1) as pool,
    ):
        blocker.execute("SELECT FROM accounts WHERE user_id = %s FOR NO KEY UPDATE", (trader.user_id,))
        answer = pool.submit(trader.order, idempotency_key="mid-order")
        (worker,) = eventually(lambda: waiting_workers(system), what="an order that waits")
        # when its worker is killed there
        worker.kill()
        # then the caller is told that nothing is known
        lost = answer.result()
        assert lost.status_code == 502, lost.text
        blocker.rollback()
    # and the same order again gives one order, whether or not the first attempt was carried out
    repeated = trader.order(idempotency_key="mid-order")
    assert repeated.status_code == 200, repeated.text
    assert [str(row["id"]) for row in trader.rows("orders", "id")] == [exact(repeated)["data"]["order_id"]]
    check_books(system)


def waiting_workers(system: LocalSystem) -> list[psutil.Process]:
    """The execute_order workers whose database connection waits for a lock."""
    waiting = {
        row["client_port"]
        for row in execute(
            system,
            "SELECT client_port FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'function_trader'",
        )
    }
    return [
        worker
        for worker in workers_of(system, "execute-order")
        if any(connection.laddr and connection.laddr.port in waiting for connection in worker.net_connections())
    ]


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGKILL], ids=["immediate stop", "kill -9"])
def test_postgres_stopped_at_once_loses_nothing_that_was_acknowledged(
    system: LocalSystem, traders: Traders, dice: random.Random, number: signal.Signals
) -> None:
    # given orders that flow, each durable before it is acknowledged
    check_durability(system)
    group = [traders.new() for _ in range(CLIENTS)]
    with Load([OverHttp(trader) for trader in group]).running() as load:
        load.wait_for_orders(ORDERS_BETWEEN_FAULTS)
        Event().wait(dice.random() * PAUSE_SECONDS_MAX)
        # when PostgreSQL is stopped at once
        postmaster = postmaster_of(system)
        postmaster.send_signal(number)
        postmaster.wait(10)
        # then it comes back, and orders with it
        back_at = eventually(lambda: accepts(system), seconds=60, what="PostgreSQL again")
        load.wait_for_one_since(back_at, RECOVERY_SECONDS_MAX)
        load.wait_for_orders(ORDERS_BETWEEN_FAULTS)
    # and nothing that was acknowledged is lost or doubled, nothing is half done
    assert any(one.lost_attempts for one in load.acknowledged)
    check_acknowledged(group, load.acknowledged)
    check_books(system)


def accepts(system: LocalSystem) -> float | None:
    """The present moment when PostgreSQL accepts connections, else None."""
    try:
        with psycopg.connect(system.database_url, connect_timeout=2):
            return time.monotonic()
    except psycopg.OperationalError:
        return None


def check_durability(system: LocalSystem) -> None:
    """What an acknowledgement rests on, as the function's own role sees it."""
    url = role_url(system.database_url, "function_trader", system.state.secret("function_trader.password"))
    with psycopg.connect(url, autocommit=True) as connection:
        for setting in ("synchronous_commit", "fsync", "full_page_writes"):
            assert connection.execute(f"SHOW {setting}".encode()).fetchone() == ("on",), setting


def test_a_killed_redis_stops_no_order(system: LocalSystem, traders: Traders) -> None:
    # given orders that flow
    group = [traders.new() for _ in range(2)]
    with Load([OverHttp(trader) for trader in group]).running() as load:
        load.wait_for_orders(10)
        # when Redis is killed
        redis_of(system).kill()
        load.wait_for_orders(40)
    # then no order waited for it
    assert [one for one in load.acknowledged if one.lost_attempts] == []
    check_acknowledged(group, load.acknowledged)


def test_limits_hold_while_redis_does_not_answer(system: LocalSystem, traders: Traders) -> None:
    # given a Redis that hangs
    trader = traders.named("bronze@example.com")
    redis = eventually(lambda: one_redis(system), what="Redis again")
    redis.suspend()
    try:
        # when a bronze user orders more often than they may
        answers = [trader.order(quantity="0.01") for _ in range(BRONZE_LIMIT + 2)]
    finally:
        redis.resume()
    # then the limit holds all the same
    assert [answer.status_code for answer in answers] == [200] * BRONZE_LIMIT + [429] * 2
    assert error_of(answers[-1])["code"] == "RATE_LIMIT_EXCEEDED"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert len(trader.rows("orders")) == BRONZE_LIMIT
    check_books(system)


def one_redis(system: LocalSystem) -> psutil.Process | None:
    try:
        return redis_of(system)
    except AssertionError:
        return None
