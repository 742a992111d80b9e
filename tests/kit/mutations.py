"""Procedures with a part taken away, made in a test's own database from what was loaded into it.

Each function fails when the text or the procedure that it should change is not there, so that none changes nothing.
"""

import re
from typing import Any

import psycopg

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


def wrap(connection: psycopg.Connection[Any], name: str, argument: str, value: str) -> None:
    """Put a function before `name` that hands on `value`, an expression, in place of `argument`."""
    row = connection.execute(
        "SELECT p.oid::regprocedure::text, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), "
        "p.proargnames, pg_get_userbyid(p.proowner) FROM pg_proc AS p WHERE p.proname = %s",
        (name,),
    ).fetchone()
    assert row is not None, f"there is no function {name}"
    signature, arguments, result, names, owner = row
    assert argument in names, f"{name} has no argument {argument}"
    handed = ", ".join(value if each == argument else each for each in names)
    _execute(connection, f"ALTER FUNCTION {signature} RENAME TO {name}_whole")
    _execute(
        connection,
        f"CREATE FUNCTION {name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS "
        f"$mutated$BEGIN RETURN {name}_whole({handed}); END$mutated$",
    )
    _execute(connection, f"GRANT EXECUTE ON FUNCTION {signature} TO {owner}")


def _execute(connection: psycopg.Connection[Any], statement: str) -> None:
    connection.execute(statement.encode())
