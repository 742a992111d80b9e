"""Procedures with a part taken away, made in a test's own database from what was loaded into it.

Each fails when the text, procedure, table or column that it should change is not there, so that none changes nothing.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from tests.kit.orders import Market

APPEND_ONLY = ("order_audit_log", "platform_audit_log", "ledger_entries", "fills", "incident_events")

_BODY = re.compile(r"LANGUAGE \w+(?P<between>.*?)\nAS (?P<quote>\$\w*\$).*(?P=quote)\s*", re.DOTALL)


def definition_of(connection: psycopg.Connection[Any], name: str) -> str:
    """The statement that makes the one function called `name`."""
    rows = connection.execute(
        "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = %s AND pronamespace = 'public'::regnamespace",
        (name,),
    ).fetchall()
    assert len(rows) == 1, f"{len(rows)} functions are called {name}"
    return rows[0][0]


def replace_body(connection: psycopg.Connection[Any], name: str, body: str) -> None:
    """Let the function `name` do what the PL/pgSQL `body` says, whatever it did."""
    before = definition_of(connection, name)
    after, count = _BODY.subn(lambda found: f"LANGUAGE plpgsql{found['between']}\nAS $mutated${body}$mutated$", before)
    assert count == 1, before
    _execute(connection, after)


def remove_text(connection: psycopg.Connection[Any], name: str, text: str) -> None:
    """Take `text` out of the function `name`."""
    before = definition_of(connection, name)
    assert text in before, f"{name} has no {text!r}"
    _execute(connection, before.replace(text, ""))
    assert text not in definition_of(connection, name)


def swallow(connection: psycopg.Connection[Any], table: str, condition: str) -> None:
    """Let no row of `table` be written of which `condition` holds, whichever procedure writes it."""
    _execute(
        connection,
        f"CREATE FUNCTION swallow_{table}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$; "
        f"CREATE TRIGGER swallow BEFORE INSERT ON {table} FOR EACH ROW WHEN ({condition}) "
        f"EXECUTE FUNCTION swallow_{table}()",
    )


def distort(connection: psycopg.Connection[Any], table: str, column: str, value: str) -> None:
    """Let every row of `table` be written with `value`, of NEW, in `column`, whichever procedure writes it."""
    _execute(
        connection,
        f"CREATE FUNCTION distort_{table}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$BEGIN NEW.{column} := {value}; RETURN NEW; END$$; "
        f"CREATE TRIGGER distort BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION distort_{table}()",
    )


def _execute(connection: psycopg.Connection[Any], statement: str) -> None:
    connection.execute(statement.encode())


@contextmanager
def tampered(market: Market, *statements: str, **parameters: object) -> Iterator[None]:
    """What somebody with the owner's password could do: past the guards, which stand again afterwards."""
    with market.owner.transaction(force_rollback=True):
        for table in APPEND_ONLY:
            market.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        market.execute("ALTER TABLE orders DISABLE TRIGGER USER")
        for statement in statements:
            cursor = market.owner.execute(statement.encode(), parameters)
            assert cursor.rowcount > 0, f"changed nothing: {statement}"
        for table in APPEND_ONLY:
            for guard in ("append_only", "append_only_whole"):
                market.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {guard}")
        market.execute("ALTER TABLE orders ENABLE TRIGGER USER")
        yield
