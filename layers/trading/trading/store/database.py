"""One PostgreSQL connection an execution environment, reopened once when it has died."""

import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NoReturn

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.pq import DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import dict_row
from psycopg.types.json import set_json_dumps, set_json_loads

from trading.errors import CODE_BY_SQLSTATE, ErrorCode, TradingError
from trading.json_text import json_text

CONNECT_SECONDS_MAX = 3
STATEMENT_SECONDS = 6.0
ATTEMPTS_MAX = 3
# No new attempt is begun later than this after the first.
RETRY_SECONDS_MAX = 2.0
BACKOFF_MS_MAX = 40
# How often a wait looks up, for signals.
WAKE_SECONDS = 0.1

# Deadlock, serialization failure, lock timeout: nothing was kept, so the same call may go again.
RETRYABLE_SQLSTATES = frozenset({"40001", "40P01", "55P03"})

type Connection = psycopg.Connection[dict[str, Any]]
type Parameters = Sequence[object] | Mapping[str, object]


_DECODER = json.JSONDecoder(parse_float=Decimal)


def _loads(text: str | bytes) -> Any:
    return _DECODER.decode(text if isinstance(text, str) else text.decode())


set_json_dumps(json_text)
set_json_loads(_loads)


class ServerSilentError(psycopg.OperationalError):
    """The server said nothing for as long as a statement may take."""


class Database:
    """Runs statements on one autocommit connection.

    Each statement is one transaction: a procedure call commits or rolls back by itself. `url` is asked for at the
    first use, and again when the connection has to be reopened, so that a rotated password is picked up. A server
    that says nothing for `statement_seconds` is given up: a frozen one would otherwise hold the function to its end.
    """

    def __init__(self, url: Callable[[], str], statement_seconds: float = STATEMENT_SECONDS) -> None:
        self._url = url
        self._statement_seconds = statement_seconds
        self._connection: Connection | None = None

    def call(self, procedure: str, request: Mapping[str, object]) -> Any:
        """Call a procedure that takes one jsonb request; its jsonb answer with numbers as Decimal.

        Safe to repeat only for procedures that carry an idempotency key or are idempotent by nature, because it is
        repeated after a lost connection.
        """
        statement, text = _call_statement(procedure), json_text(request)
        return self._repeated(lambda connection: _answer(connection, statement, text))

    def fetch_one(self, statement: str, parameters: Parameters = ()) -> dict[str, Any] | None:
        """The first row of `statement`, or None."""
        rows = self.fetch_all(statement, parameters)
        return rows[0] if rows else None

    def fetch_all(self, statement: str, parameters: Parameters = ()) -> list[dict[str, Any]]:
        """All rows of `statement`; TradingError for the faults that the caller is told about."""
        return self._repeated(lambda connection: _rows(connection, statement, parameters))

    def close(self) -> None:
        """Drop the connection; the next statement opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _repeated[T](self, action: Callable[[Connection], T]) -> T:
        """The outcome of `action`, which is repeated where nothing was kept."""
        attempt = 1
        last_start = time.monotonic() + RETRY_SECONDS_MAX
        while True:
            reused = self._connection is not None
            try:
                return self._run(action)
            except psycopg.OperationalError as error:
                if time.monotonic() > last_start or not _may_retry(error, attempt, reused=reused):
                    _raise_unavailable(error)
            except psycopg.Error as error:
                if error.sqlstate == "25006":  # read-only: the connection still points at the old writer
                    self.close()
                    if attempt == 1:
                        attempt += 1
                        continue
                    _raise_unavailable(error)
                _raise_known(error)
            time.sleep(random.uniform(0, BACKOFF_MS_MAX) * attempt / 1000)  # noqa: S311 - jitter, not a secret
            attempt += 1

    def _run[T](self, action: Callable[[Connection], T]) -> T:
        connection = self._connection or self._open()
        try:
            return action(connection)
        except psycopg.OperationalError:
            # Given up in mid-answer, the connection is of no more use, whatever it thinks of itself.
            if connection.info.transaction_status is not TransactionStatus.IDLE:
                connection.close()
            raise
        finally:
            if connection.closed or connection.broken:
                self._connection = None

    def _open(self) -> Connection:
        # Behind RDS Proxy a prepared statement or a session SET would pin the connection, so neither is used.
        connection = _BoundedConnection.connect(
            self._url(),
            autocommit=True,
            prepare_threshold=None,
            row_factory=dict_row,
            connect_timeout=min(CONNECT_SECONDS_MAX, math.ceil(self._statement_seconds)),
        )
        connection.statement_seconds = self._statement_seconds
        self._connection = connection
        return connection


class _BoundedConnection(psycopg.Connection[dict[str, Any]]):
    """A connection on which no wait for the server is longer than `statement_seconds`."""

    statement_seconds = STATEMENT_SECONDS

    def wait[T](self, gen: PQGen[T], interval: float = WAKE_SECONDS, timeout: float | None = None) -> T:
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        given_up_at = time.monotonic() + self.statement_seconds
        try:
            return super().wait(gen, interval, self.statement_seconds)
        except psycopg.OperationalError as error:
            if time.monotonic() >= given_up_at:
                raise ServerSilentError("no answer in time") from error
            raise


def _call_statement(procedure: str) -> bytes:
    if not procedure.isidentifier():
        raise ValueError(f"not a procedure's name: {procedure}")
    return f"SELECT {procedure}($1::jsonb)".encode()


def _answer(connection: Connection, statement: bytes, text: str) -> Any:
    """What a procedure answers to the request in `text`.

    By libpq itself, because every order does this, and a cursor takes three times as long for it.
    """
    with connection.lock:
        connection.pgconn.send_query_params(statement, [text.encode()])
        results = connection.wait(generators.execute(connection.pgconn))
    # A backend that is ended says so besides, or instead: then an answer before it need not be committed.
    for result in results:
        if result.status != ExecStatus.TUPLES_OK:
            raise _error_of(result)
    value = results[0].get_value(0, 0)
    return None if value is None else _loads(value)


def _error_of(result: PGresult) -> psycopg.Error:
    """What the server said, or libpq of a connection that it lost, which has no SQLSTATE."""
    if result.error_field(DiagnosticField.SQLSTATE) is None:
        return psycopg.OperationalError(result.get_error_message())
    return error_from_result(result)


def _rows(connection: Connection, statement: str, parameters: Parameters) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []


def _may_retry(error: psycopg.OperationalError, attempt: int, *, reused: bool) -> bool:
    """A dead connection is reopened once; a lost race for a lock goes again while attempts remain."""
    if isinstance(error, ServerSilentError):
        return False
    if error.sqlstate in RETRYABLE_SQLSTATES:
        return attempt < ATTEMPTS_MAX
    lost = error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
    return lost and reused and attempt == 1


def _raise_unavailable(error: psycopg.Error) -> NoReturn:
    raise TradingError(
        ErrorCode.DATABASE_UNAVAILABLE,
        "The order database does not answer. Nothing is known to be lost: send the same request with the same "
        "idempotency key again.",
        retry_after=1,
    ) from error


def _raise_known(error: psycopg.Error) -> NoReturn:
    code = CODE_BY_SQLSTATE.get(error.sqlstate or "")
    if code is None:
        raise error
    details = json.loads(error.diag.message_detail, parse_float=str) if error.diag.message_detail else None
    raise TradingError(
        code, error.diag.message_primary or code, details, retry_after=1 if code.endswith("UNAVAILABLE") else None
    ) from error
