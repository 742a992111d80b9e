"""PostgreSQL stopped, sessions ended, connections refused, writes forbidden: what was acknowledged stands, once."""

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.fault_runs import CLIENT, MARKET_ORDER, FaultRun, fault_run
from tests.kit.functions import call, function_environment, load_function, order_event
from tests.kit.gateway import eventually
from tests.kit.load import Load
from tests.kit.servers import MigratedTemplate, ScratchDatabase, TestServers

CLIENTS = 6
STOPS = 3
ORDERS_BETWEEN_STOPS = 100
# From the first connection that PostgreSQL accepts to the first acknowledged order. It takes milliseconds; the bound is
# for a machine that is busy with other things.
RECOVERY_SECONDS_MAX = 5.0
SESSIONS_ENDED = 25
ORDERS_AFTER = 50
LOSING_STOPS_MAX = 5


@pytest.fixture
def durable_database(durable_servers: TestServers) -> ScratchDatabase:
    """A migrated database on a PostgreSQL that syncs, and that the test may crash."""
    return MigratedTemplate.build(durable_servers.postgres).clone()


@pytest.fixture
def durable_run(durable_database: ScratchDatabase, dice: random.Random) -> Iterator[FaultRun]:
    with fault_run(durable_database, dice) as started:
        yield started


def durability_faults(run: FaultRun) -> list[str]:
    """What an acknowledgement rests on and is not on, as the function's own role sees it."""
    with run.database.connect("function_trader") as connection:
        return [
            setting
            for setting in ("synchronous_commit", "fsync", "full_page_writes")
            if connection.execute(f"SHOW {setting}".encode()).fetchone() != ("on",)
        ]


def stop_and_start(servers: TestServers) -> float:
    """An immediate stop and the start after it; when PostgreSQL accepted connections again."""
    servers.postgres.stop_at_once()
    servers.postgres.start_again()
    return time.monotonic()


def test_three_immediate_stops_lose_nothing_that_was_acknowledged(
    durable_servers: TestServers, durable_run: FaultRun
) -> None:
    """F2."""
    # given orders that flow, each durable before it is acknowledged
    assert durability_faults(durable_run) == []
    seconds: list[float] = []
    with durable_run.load(CLIENTS).running() as load:
        for _ in range(STOPS):
            load.wait_for_orders(ORDERS_BETWEEN_STOPS + durable_run.dice.randrange(ORDERS_BETWEEN_STOPS))
            # when PostgreSQL is stopped at once
            back_at = stop_and_start(durable_servers)
            # then orders come back with it
            seconds.append(load.wait_for_one_since(back_at, RECOVERY_SECONDS_MAX) - back_at)
        load.wait_for_orders(ORDERS_AFTER)

    # and nothing that was acknowledged is lost or doubled, nothing is half done
    logging.getLogger(__name__).warning("first success after the restarts: %s s", [round(each, 3) for each in seconds])
    assert any(one.lost_attempts for one in load.acknowledged)
    durable_run.settle(load)


def test_without_synchronous_commit_the_same_run_goes_red(durable_servers: TestServers, durable_run: FaultRun) -> None:
    """The check of the check: I5 fails where commits are acknowledged before they are on disk."""
    # given a role whose commits do not wait for the disk
    durable_run.execute("ALTER ROLE function_trader SET synchronous_commit = off")
    assert durability_faults(durable_run) == ["synchronous_commit"]
    lost = 0
    for _ in range(LOSING_STOPS_MAX):
        users = [durable_run.user() for _ in range(CLIENTS)]
        with Load([durable_run.client(user, [MARKET_ORDER]) for user in users]).running() as load:
            load.wait_for_orders(ORDERS_BETWEEN_STOPS)
            # when PostgreSQL is stopped at once
            stop_and_start(durable_servers)

        # then orders that were acknowledged are gone
        told = {one.order_id for one in load.acknowledged}
        lost += len(told - {order_id for (order_id,) in durable_run.execute("SELECT id::text FROM orders")})
        if lost:
            break
    assert lost > 0
    with pytest.raises(AssertionError, match="answers and orders differ"):
        durable_run.check_acknowledged(load)


def test_sessions_ended_under_load_cost_no_order(run: FaultRun) -> None:
    """F3."""
    with run.load(CLIENTS).running() as load:
        # when sessions are ended at any moment, whatever they do
        for _ in range(SESSIONS_ENDED):
            load.wait_for_orders(run.dice.randrange(1, CLIENTS))
            pids = run.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = 'function_trader' "
                "ORDER BY pid"
            )
            if pids:
                run.execute("SELECT pg_terminate_backend(%s)", run.dice.choice(pids)[0])
        load.wait_for_orders(ORDERS_AFTER)

    # then each was replaced, and no order was lost or doubled
    assert sum(client.opened for client in run.clients) > CLIENTS
    run.settle(load)


def test_an_answer_before_the_commit_is_not_taken_for_one(run: FaultRun) -> None:
    """F3: the session ends while it commits, when the row of the answer is on its way already."""
    # given a server that ends the first session at its commit
    client = run.client(run.user(), [MARKET_ORDER])
    client.database.fetch_one("SELECT 1 AS one")
    run.execute("""
    CREATE SEQUENCE commits;
    GRANT USAGE ON SEQUENCE commits TO PUBLIC;
    CREATE FUNCTION end_session() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF nextval('commits') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
        RETURN NULL;
    END
    $$;
    CREATE CONSTRAINT TRIGGER end_session AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION end_session();
    GRANT EXECUTE ON FUNCTION end_session() TO PUBLIC
    """)

    # when
    answer = client.attempt("at commit", 0)

    # then the order is the one of a second attempt under the key
    assert answer is not None
    assert client.opened == 2
    assert run.value("SELECT last_value FROM commits") == 2
    assert run.value("SELECT array_agg(id::text) FROM orders") == [answer["order_id"]]
    run.settle()


def test_a_connection_cut_while_idle_is_reopened_once_for_the_same_order(run: FaultRun) -> None:
    """F3: a session that the server ended while the function slept."""
    # given
    client = run.client(run.user(), [MARKET_ORDER])
    idle_timeout = f"ALTER ROLE function_trader IN DATABASE {run.database.name} SET idle_session_timeout ="
    run.execute(f"{idle_timeout} 50")
    assert client.attempt("first", 0) is not None
    eventually(lambda: run.sessions(CLIENT) == 0, what="the end of the idle session")
    run.execute(f"{idle_timeout} 0")

    # when
    answer = client.attempt("second", 1)

    # then
    assert answer is not None
    assert client.opened == 2
    assert run.value("SELECT count(*) FROM orders WHERE idempotency_key = 'second'") == 1
    run.settle()


def test_more_clients_than_connections_are_told_to_come_again(run: FaultRun) -> None:
    """F3: the pool is full."""
    # given connections for half of the clients
    load = run.load(CLIENTS)
    run.execute(f"ALTER DATABASE {run.database.name} CONNECTION LIMIT {CLIENTS // 2}")
    with load.running():
        load.wait_for_orders(ORDERS_AFTER)
        # when there is room again
        run.elsewhere(f"ALTER DATABASE {run.database.name} CONNECTION LIMIT -1")
        load.wait_for_orders(ORDERS_AFTER)

    # then those who were refused have their orders too
    assert any(one.lost_attempts for one in load.acknowledged)
    assert {one.client for one in load.acknowledged} == set(load.clients)
    run.settle(load)


@contextmanager
def read_only(run: FaultRun) -> Iterator[None]:
    """The server looks like one that was demoted: sessions end, and new ones cannot write."""
    name = run.database.name
    run.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    run.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    try:
        yield
    finally:
        run.elsewhere(f"ALTER DATABASE {name} RESET default_transaction_read_only")


def test_a_server_that_only_reads_is_left_and_found_again(run: FaultRun) -> None:
    """F3: failover. Nobody has to restart a function for it."""
    load, client = run.load(CLIENTS), run.client(run.user(), [MARKET_ORDER])
    with load.running():
        load.wait_for_orders(ORDERS_AFTER)
        with read_only(run):
            # given a client that finds it so
            refused = client.attempt("during", 0)
            opened = client.opened
        # when it can write again, then sessions that were opened meanwhile do not stand in the way
        back_at = time.monotonic()
        load.wait_for_one_since(back_at, RECOVERY_SECONDS_MAX)
        load.wait_for_orders(ORDERS_AFTER)
    assert refused is None
    assert opened == 2
    run.settle(load)


def test_the_handler_says_503_and_never_500_while_the_database_only_reads(
    run: FaultRun, redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """F3, as a caller of the function sees it."""
    user = run.user()
    event = order_event(user)
    with function_environment(monkeypatch, tmp_path, database=run.database, redis_url=redis_url):
        handler = load_function("execute_order")
        with read_only(run):
            # when
            answer = call(handler, event)
        # then
        assert (answer.status, answer.body["error"]["code"]) == (503, "DATABASE_UNAVAILABLE")
        assert answer.headers["Retry-After"] == "1"
        # and the same request afterwards is the first one
        again = call(handler, event)
    assert again.status == 200, again.text
    assert "Idempotency-Replayed" not in again.headers
    assert run.value("SELECT count(*) FROM orders") == 1
    run.settle()
