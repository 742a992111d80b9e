"""The queries of database/queries, run from Python with their psql variables (:'name') filled in."""

import itertools
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

QUERIES = Path(__file__).parent / "queries"

_VARIABLE = re.compile(r":'([a-z_]+)'")


@dataclass(frozen=True, slots=True)
class Table:
    """What one statement of a query answered."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def run_query(connection: psycopg.Connection[Any], name: str, variables: Mapping[str, str]) -> list[Table]:
    """The tables that the query `name` answers, one a statement; KeyError for a variable that is not given."""
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute(_statement(name), _needed(name, variables))
        return [
            Table(_columns(cursor), cursor.fetchall()) for _result in cursor.results() if cursor.description is not None
        ]


@contextmanager
def streamed_query(
    connection: psycopg.Connection[Any], name: str, variables: Mapping[str, str]
) -> Generator[Iterator[tuple[Any, ...]]]:
    """The header and then the rows of the one-statement query `name`, never all of them in memory."""
    with connection.transaction(), connection.cursor("report") as cursor:
        cursor.execute(_statement(name), _needed(name, variables))
        yield itertools.chain([_columns(cursor)], cursor)


def _text(name: str) -> str:
    return (QUERIES / f"{name}.sql").read_text()


def _statement(name: str) -> bytes:
    return _VARIABLE.sub(r"%(\1)s", _text(name).replace("%", "%%")).encode()


def _needed(name: str, variables: Mapping[str, str]) -> dict[str, str]:
    return {variable: variables[variable] for variable in _VARIABLE.findall(_text(name))}


def _columns(cursor: psycopg.Cursor[Any] | psycopg.ServerCursor[Any]) -> tuple[str, ...]:
    return tuple(column.name for column in cursor.description or ())
