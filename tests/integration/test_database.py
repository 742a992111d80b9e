"""The one connection of a function: what it survives, and what it gives up."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal

import psutil
import psycopg
import pytest

from tests.kit.builders import make_user, order_request
from tests.kit.gateway import eventually
from tests.kit.servers import ScratchDatabase
from trading.errors import ErrorCode, TradingError
from trading.store.database import Database

SLOW = "SELECT pg_sleep(30)"

type Connect = Callable[..., Database]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def backend_of(database: Database) -> int:
    row = database.fetch_one("SELECT pg_backend_pid() AS pid")
    assert row is not None
    return row["pid"]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes databases as a function has them, and closes them."""
    made: list[Database] = []

    def make(url: str, **limits: float) -> Database:
        made.append(Database(lambda: url, **limits))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def url(database: ScratchDatabase) -> str:
    return database.url_for("function_trader")


def test_a_backend_that_was_ended_is_replaced_once(url: str, connect: Connect) -> None:
    # given
    ours = connect(url)
    first = backend_of(ours)
    os.kill(first, signal.SIGTERM)

    # when
    second = backend_of(ours)

    # then
    assert second != first


def test_a_procedure_is_called_anew_on_a_connection_that_was_ended(url: str, connect: Connect) -> None:
    # given a backend that said goodbye and is gone
    ours = connect(url)
    pid = backend_of(ours)
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not psutil.pid_exists(pid), what="the end of the backend")

    # when / then: the refusal of the new one is heard
    with pytest.raises(TradingError) as refused:
        ours.call("execute_order_atomic", {"version": 2})
    assert refused.value.code is ErrorCode.VALIDATION_FAILED


def test_a_procedure_whose_backend_is_ended_in_mid_call_is_called_anew(
    database: ScratchDatabase, connect: Connect
) -> None:
    # given a call that waits for its account, on a connection that was used before
    ours = connect(database.url_for("function_trader"))
    pid = backend_of(ours)
    user = make_user(database)
    with database.connect(autocommit=False) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("SELECT FROM accounts WHERE user_id = %s FOR NO KEY UPDATE", (user.user_id,))
        answer = pool.submit(ours.call, "execute_order_atomic", order_request(user, symbol="NONE"))
        eventually(lambda: waits(holder, pid), what="a call that waits")

        # when
        os.kill(pid, signal.SIGTERM)
        holder.rollback()

        # then what the new one says under the lock is heard
        with pytest.raises(TradingError) as refused:
            answer.result()
    assert refused.value.code is ErrorCode.UNKNOWN_SYMBOL


def waits(connection: psycopg.Connection[tuple[bool]], pid: int) -> bool:
    """Whether a backend waits for a lock."""
    query = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
    return connection.execute(query, (pid,)).fetchone() == (True,)


def test_a_frozen_server_is_given_up_in_time_and_tried_anew_later(url: str, connect: Connect) -> None:
    # given
    ours = connect(url, statement_seconds=0.3)
    pid = backend_of(ours)

    # when
    with frozen(pid):
        started = time.monotonic()
        with pytest.raises(TradingError) as caught:
            ours.fetch_one("SELECT 1")
        taken = time.monotonic() - started
    ours.close()

    # then
    assert caught.value.code is ErrorCode.DATABASE_UNAVAILABLE
    assert taken < 2
    assert backend_of(ours) != pid


def test_what_takes_too_long_is_not_tried_again(url: str, connect: Connect) -> None:
    # given
    ours = connect(url, statement_seconds=0.3)
    backend_of(ours)

    # when
    with pytest.raises(TradingError) as caught:
        ours.fetch_one(SLOW)

    # then
    assert caught.value.code is ErrorCode.DATABASE_UNAVAILABLE
    assert caught.value.retry_after == 1


def test_a_lost_race_for_a_lock_goes_again(database: ScratchDatabase, connect: Connect) -> None:
    # given an owner's connection that never waits for a lock, and a rival that lets go after the first attempt
    ours = connect(f"{database.url}?options=-c%20lock_timeout%3D50ms")
    with database.connect(autocommit=False) as rival:
        rival.execute("LOCK TABLE platform_settings IN ACCESS EXCLUSIVE MODE")
        ended = []
        original = time.sleep

        def let_go(seconds: float) -> None:
            if not ended:
                rival.rollback()
                ended.append(seconds)
            original(seconds)

        # when
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trading.store.database.time.sleep", let_go)
            row = ours.fetch_one("SELECT count(*) AS rows FROM platform_settings")

    # then
    assert row == {"rows": 1}
    assert len(ended) == 1


def test_our_own_faults_become_their_codes_and_all_else_stays_what_it_is(url: str, connect: Connect) -> None:
    ours = connect(url)
    with pytest.raises(TradingError) as refused:
        ours.call("execute_order_atomic", {"version": 2})
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ours.fetch_one("SELECT * FROM orders")

    assert refused.value.code is ErrorCode.VALIDATION_FAILED
    assert refused.value.details == {"field": "version", "value": "2", "constraint": "1"}


class TestCallingAProcedure:
    """On a function of the test's own that does what its request says."""

    @pytest.fixture
    def ours(self, database: ScratchDatabase, connect: Connect) -> Database:
        with database.connect() as owner:
            owner.execute(
                "CREATE FUNCTION obey(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN "
                "PERFORM pg_sleep((request ->> 'seconds')::float); "
                "IF request ? 'raise' THEN RAISE 'no' USING ERRCODE = request ->> 'raise'; END IF; "
                "RETURN request -> 'answer'; END $$"
            )
        return connect(database.url, statement_seconds=1.0)

    @pytest.mark.parametrize(
        "answer", [{"amount": Decimal("1.10020")}, [], "say \"é\" 'x' $1 %s \\", None, {"deep": [{"n": 1}, None, True]}]
    )
    def test_values_go_there_and_back_without_loss(self, ours: Database, answer: object) -> None:
        assert ours.call("obey", {"answer": answer}) == answer

    def test_an_answer_of_nothing_at_all_is_none(self, ours: Database) -> None:
        assert ours.call("obey", {}) is None

    def test_a_backend_that_was_ended_is_replaced(self, ours: Database) -> None:
        os.kill(backend_of(ours), signal.SIGTERM)

        assert ours.call("obey", {"answer": 1}) == 1

    def test_a_server_that_says_nothing_is_given_up(self, ours: Database) -> None:
        first = backend_of(ours)

        with pytest.raises(TradingError) as caught:
            ours.call("obey", {"seconds": 30})

        assert caught.value.code is ErrorCode.DATABASE_UNAVAILABLE
        assert backend_of(ours) != first

    @pytest.mark.parametrize(("sqlstate", "error"), [("22012", psycopg.errors.DivisionByZero), ("TR001", TradingError)])
    def test_a_fault_keeps_its_kind_and_the_connection_goes_on(
        self, ours: Database, sqlstate: str, error: type[Exception]
    ) -> None:
        first = backend_of(ours)

        with pytest.raises(error):
            ours.call("obey", {"raise": sqlstate})

        assert ours.call("obey", {"answer": 2}) == 2
        assert backend_of(ours) == first

    def test_what_is_no_name_is_never_part_of_a_statement(self, ours: Database) -> None:
        with pytest.raises(ValueError, match="not a procedure's name"):
            ours.call("obey('{}'); --", {})
