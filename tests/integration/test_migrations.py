"""Migrations and procedures on an empty database: up, down, up again, and nothing at all when nothing has changed."""

import os
from pathlib import Path
from typing import Any

import psycopg
import pytest

from database.apply import (
    apply,
    apply_procedures,
    drop_procedures,
    functions_made_by,
    main,
    migrate,
    procedure_files,
)
from tests.kit import ScratchDatabase

DATABASE_FOLDER = Path(__file__).parents[2] / "database"
# What a schema is, as rows that do not depend on when or in which order it was made.
SCHEMA = {
    "relations": "SELECT relname, relkind, relowner::regrole::text, relrowsecurity, relforcerowsecurity, "
    "reloptions::text, pg_get_viewdef(CASE relkind WHEN 'v' THEN oid END), "
    "(SELECT array_agg(a::text ORDER BY a::text) FROM unnest(relacl) AS a) "
    "FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind <> 'c'",
    "columns": "SELECT c.relname, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull, "
    "pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute AS a INNER JOIN pg_class AS c ON c.oid = a.attrelid "
    "LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum "
    "WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0",
    "constraints": "SELECT conrelid::regclass::text, contypid::regtype::text, conname, pg_get_constraintdef(oid) "
    "FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "policies": "SELECT * FROM pg_policies WHERE schemaname = 'public'",
    "triggers": "SELECT tgrelid::regclass::text, tgname, tgenabled, pg_get_triggerdef(t.oid) FROM pg_trigger AS t "
    "INNER JOIN pg_class AS c ON c.oid = t.tgrelid WHERE c.relnamespace = 'public'::regnamespace AND NOT tgisinternal",
    "functions": "SELECT oid::regprocedure::text, proowner::regrole::text, pg_get_functiondef(oid), "
    "(SELECT array_agg(a::text ORDER BY a::text) FROM unnest(proacl) AS a) "
    "FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "types": "SELECT typname, typtype, typowner::regrole::text FROM pg_type "
    "LEFT JOIN pg_class AS c ON c.oid = typrelid "
    "WHERE typnamespace = 'public'::regnamespace AND (typtype IN ('d', 'e') OR c.relkind = 'c')",
    "default privileges": "SELECT defaclrole::regrole::text, defaclobjtype, defaclacl::text FROM pg_default_acl",
    "schema": "SELECT (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(nspacl) AS a) FROM pg_namespace "
    "WHERE nspname = 'public'",
}
DATA = ("instruments", "market_calendars", "market_sessions", "platform_settings", "order_transitions")


def schema(database: ScratchDatabase) -> dict[str, list[tuple[Any, ...]]]:
    with database.connect() as connection:
        return {
            name: sorted(connection.execute(statement.encode()).fetchall(), key=repr)
            for name, statement in SCHEMA.items()
        }


def row_versions(database: ScratchDatabase) -> dict[str, list[tuple[Any, ...]]]:
    """Which transaction last wrote each function and each row of reference data."""
    with database.connect() as connection:
        written = {
            table: connection.execute(f"SELECT ctid::text, xmin::text FROM {table} ORDER BY 1".encode()).fetchall()
            for table in DATA
        }
        written["functions"] = connection.execute(
            "SELECT oid, xmin::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1"
        ).fetchall()
    return written


def test_up_down_and_up_again(empty_database: ScratchDatabase) -> None:
    # given an empty database
    empty = schema(empty_database)
    migrate(empty_database.url, "head")
    apply_procedures(empty_database.url)
    first = schema(empty_database)

    # when it goes all the way down
    drop_procedures(empty_database.url)
    migrate(empty_database.url, "down:base")

    # then nothing is left but the migrations' own mark
    left = schema(empty_database)
    assert {row[0] for row in left["relations"]} == {"schema_version", "schema_version_pkc"}
    assert (left["functions"], left["types"], left["policies"], left["triggers"]) == ([], [], [], [])
    assert left["default privileges"] == empty["default privileges"]

    # and it comes up the same
    migrate(empty_database.url, "head")
    apply_procedures(empty_database.url)
    again = schema(empty_database)
    for part, content in first.items():
        assert again[part] == content, part


def test_each_migration_steps_down_and_up(empty_database: ScratchDatabase) -> None:
    revisions = sorted(file.stem[:4] for file in (DATABASE_FOLDER / "migrations" / "versions").glob("[0-9]*.py"))
    migrate(empty_database.url, "head")
    first = schema(empty_database)

    for before, revision in reversed(list(zip(["base", *revisions], revisions, strict=False))):
        migrate(empty_database.url, f"down:{before}")
        migrate(empty_database.url, revision)
        migrate(empty_database.url, f"down:{before}")

    migrate(empty_database.url, "head")
    assert schema(empty_database) == first


def test_accounts_of_before_get_a_stop_out_level_that_their_margin_call_allows(empty_database: ScratchDatabase) -> None:
    # given accounts whose margin calls begin at 50 and at 12.5 percent, of before there were stop-outs
    migrate(empty_database.url, "0008")
    with empty_database.connect() as connection:
        for threshold in (50, "12.5"):
            connection.execute(
                "WITH p AS (INSERT INTO profiles (email) VALUES (%(threshold)s || '@example.com') RETURNING id), "
                "a AS (INSERT INTO accounts (user_id, currency) SELECT id, 'USD' FROM p RETURNING user_id, id) "
                "INSERT INTO risk_settings (user_id, account_id, margin_call_threshold) "
                "SELECT user_id, id, %(threshold)s::numeric FROM a",
                {"threshold": str(threshold)},
            )

    # when
    migrate(empty_database.url, "0011")

    # then
    with empty_database.connect() as connection:
        levels = connection.execute(
            "SELECT margin_call_threshold, stop_out_level FROM risk_settings ORDER BY 1"
        ).fetchall()
    assert [(str(threshold), str(level)) for threshold, level in levels] == [("12.5", "12.5"), ("50", "20")]

    # when levels become those of a profile
    migrate(empty_database.url, "head")

    # then only what differs from them is the account's own
    with empty_database.connect() as connection:
        own = connection.execute(
            "SELECT margin_call_threshold::text, stop_out_level::text FROM risk_settings ORDER BY 1"
        ).fetchall()
    assert own == [("12.5", "12.5"), (None, None)]


def test_a_second_apply_changes_nothing(database: ScratchDatabase) -> None:
    before = schema(database), row_versions(database)

    apply(database.url)

    assert (schema(database), row_versions(database)) == before


def test_only_procedures_that_changed_are_applied(database: ScratchDatabase) -> None:
    # given that one file differs from what was applied
    names = [file.name for file in (DATABASE_FOLDER / "procedures").rglob("*.sql")]
    with database.connect() as connection:
        applied = {name for (name,) in connection.execute("SELECT name FROM applied_procedures").fetchall()}
        connection.execute("UPDATE applied_procedures SET sha256 = 'of before' WHERE name = 'deposit.sql'")

    assert len(names) == len(set(names)), "a file is known by its name, whatever its folder"
    assert set(names) <= applied
    assert apply_procedures(database.url) == ["deposit.sql"]
    assert apply_procedures(database.url) == []


def test_what_an_earlier_release_made_goes(database: ScratchDatabase) -> None:
    # given a function with the arguments that it had, and two that no file makes any more, one of which is still called
    with database.connect() as connection:
        connection.execute("GRANT CREATE ON SCHEMA public TO trading_procedures")
        connection.execute("SET ROLE trading_procedures")
        connection.execute("CREATE FUNCTION deposit(jsonb, text) RETURNS jsonb LANGUAGE sql AS 'SELECT $1'")
        connection.execute("CREATE FUNCTION lend(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1'")
        connection.execute("CREATE FUNCTION borrow(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1'")
        connection.execute("GRANT EXECUTE ON FUNCTION borrow(jsonb) TO function_trader")
        connection.execute("RESET ROLE")
        connection.execute("UPDATE applied_procedures SET sha256 = 'of before' WHERE name = 'deposit.sql'")

    apply_procedures(database.url)

    with database.connect() as connection:
        left = connection.execute(
            "SELECT oid::regprocedure::text FROM pg_proc WHERE proname IN ('deposit', 'lend', 'borrow') ORDER BY 1"
        ).fetchall()
    assert left == [("borrow(jsonb)",), ("deposit(jsonb)",)]


def test_a_function_is_made_by_one_file() -> None:
    made = [name for file in procedure_files() for name in functions_made_by(file.read_bytes())]

    assert len(made) == len(set(made))


def test_a_procedure_that_does_not_load_leaves_all_as_it_was(
    database: ScratchDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a release with one good and one broken file
    (tmp_path / "views").mkdir()
    subject = tmp_path / "procedures" / "subject"
    subject.mkdir(parents=True)
    (subject / "a_good.sql").write_text("CREATE FUNCTION good() RETURNS int LANGUAGE sql AS 'SELECT 1';")
    (subject / "b_broken.sql").write_text("CREATE FUNCTION broken() RETURNS int LANGUAGE sql AS;")
    monkeypatch.setattr("database.apply.HERE", tmp_path)
    before = schema(database)

    with pytest.raises(psycopg.errors.SyntaxError):
        apply_procedures(database.url)

    assert schema(database) == before


def test_the_command_takes_a_release_back(empty_database: ScratchDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "DATABASE_URL", empty_database.url)

    main(["upgrade"])
    main(["downgrade", "base"])

    assert {row[0] for row in schema(empty_database)["relations"]} == {"schema_version", "schema_version_pkc"}
    with pytest.raises(SystemExit, match="usage"):
        main(["sideways"])
