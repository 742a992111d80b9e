"""What a database call repeats and what it gives up, by scripted errors: few of them can be had from a real server at
will. What a real one does is in tests/integration/test_database.py."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.errors import lookup
from psycopg.pq import TransactionStatus

from trading.errors import ErrorCode, TradingError
from trading.store.database import RETRY_SECONDS_MAX, Database, ServerSilentError, _error_of

SERIALIZATION, DEADLOCK, LOCKED = lookup("40001"), lookup("40P01"), lookup("55P03")
ENDED, SHUT_DOWN, READ_ONLY, FULL = lookup("57P01"), lookup("57P03"), lookup("25006"), lookup("53300")


class OursError(psycopg.DatabaseError):
    """A refusal of a procedure: MARKET_DATA_UNAVAILABLE."""

    sqlstate = "TR004"

    @property
    def diag(self) -> Any:
        return SimpleNamespace(message_primary="No price.", message_detail='{"field": "symbol", "age": 1.50}')


class TakenError(OursError):
    """NOT_FOUND, said without words."""

    sqlstate = "TR001"

    @property
    def diag(self) -> Any:
        return SimpleNamespace(message_primary=None, message_detail=None)


@dataclass
class Connection:
    """As much of a connection as is looked at; one that was lost is closed."""

    closed: bool = False
    broken: bool = False
    info: Any = field(default_factory=lambda: SimpleNamespace(transaction_status=TransactionStatus.IDLE))

    def close(self) -> None:
        self.closed = True


class Scripted(Database):
    """A database whose calls fail with `errors`, one after the other, before one is answered."""

    def __init__(self, *errors: type[psycopg.Error]) -> None:
        super().__init__(lambda: "postgresql://nowhere")
        self.errors = list(errors)
        self.calls = 0
        self.opened: list[Connection] = []

    def _open(self) -> Any:
        self.opened.append(Connection())
        self._connection: Any = self.opened[-1]
        return self.opened[-1]

    def ask(self) -> str:
        def action(connection: Any) -> str:
            self.calls += 1
            if not self.errors:
                return "the answer"
            error = self.errors.pop(0)
            connection.closed = error in (ENDED, psycopg.OperationalError)
            raise error("an error")

        return self._repeated(action)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def used(*errors: type[psycopg.Error]) -> Scripted:
    """One whose connection has served before."""
    database = Scripted()
    database.ask()
    database.errors = list(errors)
    database.calls = 0
    return database


@pytest.mark.parametrize(
    ("database", "calls", "opened"),
    [
        (lambda: Scripted(SERIALIZATION, DEADLOCK), 3, 1),
        (lambda: Scripted(LOCKED), 2, 1),
        (lambda: used(ENDED), 2, 2),
        (lambda: used(psycopg.OperationalError), 2, 2),
        # a new connection, because this one points at the old writer
        (lambda: Scripted(READ_ONLY), 2, 2),
        (lambda: used(READ_ONLY, SERIALIZATION), 3, 2),
    ],
    ids=["lost races", "a lock", "ended", "lost", "read-only", "read-only and a lost race"],
)
def test_what_kept_nothing_is_repeated(database: Callable[[], Scripted], calls: int, opened: int) -> None:
    scripted = database()

    assert scripted.ask() == "the answer"
    assert (scripted.calls, len(scripted.opened)) == (calls, opened)


@pytest.mark.parametrize(
    ("database", "calls"),
    [
        (lambda: Scripted(SERIALIZATION, DEADLOCK, LOCKED), 3),
        (lambda: used(ENDED, ENDED), 2),
        # a new connection that is ended at once: the server is going down
        (lambda: Scripted(ENDED), 1),
        (lambda: Scripted(SHUT_DOWN), 1),
        (lambda: used(FULL), 1),
        (lambda: used(ServerSilentError), 1),
        (lambda: Scripted(READ_ONLY, READ_ONLY), 2),
        (lambda: used(ENDED, READ_ONLY), 2),
    ],
    ids=["lost races", "ended twice", "ended anew", "starting", "full", "silent", "read-only", "ended and read-only"],
)
def test_what_does_not_get_better_is_given_up(database: Callable[[], Scripted], calls: int) -> None:
    scripted = database()

    with pytest.raises(TradingError) as caught:
        scripted.ask()

    assert (caught.value.code, caught.value.retry_after) == (ErrorCode.DATABASE_UNAVAILABLE, 1)
    assert scripted.calls == calls


def test_no_attempt_begins_when_the_time_for_them_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a clock on which each attempt takes more than all may
    seconds = iter((0.0, RETRY_SECONDS_MAX + 0.001))
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    scripted = Scripted(LOCKED)

    with pytest.raises(TradingError):
        scripted.ask()

    assert scripted.calls == 1


def test_the_waits_grow_and_stay_short(waits: list[float]) -> None:
    Scripted(LOCKED, LOCKED).ask()

    assert [0 <= wait <= longest for wait, longest in zip(waits, (0.04, 0.08), strict=True)] == [True, True]


def test_our_own_refusals_are_told_with_their_details() -> None:
    with pytest.raises(TradingError) as caught:
        Scripted(OursError).ask()

    told = caught.value
    assert (told.code, told.message, told.retry_after) == (ErrorCode.MARKET_DATA_UNAVAILABLE, "No price.", 1)
    assert told.details == {"field": "symbol", "age": "1.50"}


def test_a_refusal_without_words_is_told_by_its_code() -> None:
    with pytest.raises(TradingError) as caught:
        Scripted(TakenError).ask()

    told = caught.value
    assert (told.message, told.details, told.retry_after) == (told.code.value, {}, None)


def test_what_the_server_could_not_say_any_more_is_a_lost_connection() -> None:
    lost: Any = SimpleNamespace(error_field=lambda _: None, get_error_message=lambda: "server closed the connection")

    error = _error_of(lost)

    assert isinstance(error, psycopg.OperationalError)
    assert error.sqlstate is None


def test_a_fault_that_is_not_ours_is_raised_as_it_is() -> None:
    with pytest.raises(lookup("23505")):
        Scripted(lookup("23505")).ask()
