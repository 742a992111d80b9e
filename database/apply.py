"""Bring a database to the current release: migrations, then procedures, then reference data.

    DATABASE_URL=postgresql://... python -m database.apply [upgrade | downgrade REVISION]

The role of DATABASE_URL owns the database and may create roles; it is no superuser.
"""

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import create_engine, pool
from sqlalchemy.engine import make_url

from database.load_reference_data import load

HERE = Path(__file__).parent
OWNERS = ("trading_procedures", "trading_readers", "trading_watchers")
FUNCTION_OWNERS = sql.SQL(", ").join(map(sql.Identifier, OWNERS))
# Held while a release is applied, so that two deployments at once queue up.
APPLY_LOCK = 7_246_001


def apply(url: str) -> None:
    """Migrate the database at `url` to the newest release and load procedures and reference data. Idempotent."""
    with psycopg.connect(url, autocommit=True) as guard:
        guard.execute("SELECT pg_advisory_lock(%s)", (APPLY_LOCK,))
        migrate(url, "head")
        apply_procedures(url)
        load(url)


def migrate(url: str, revision: str) -> None:
    """Upgrade to `revision`, or downgrade when it is written as `down:REVISION`."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), poolclass=pool.NullPool)
    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", str(HERE / "migrations"))
        config.attributes["connection"] = connection
        if revision.startswith("down:"):
            command.downgrade(config, revision.removeprefix("down:"))
        else:
            command.upgrade(config, revision)
        connection.commit()


def apply_procedures(url: str) -> list[str]:
    """Create or replace the views and procedures whose files changed since they were last applied; those names."""
    # Views first: functions take their rows as arguments.
    files = sorted((HERE / "views").glob("*.sql")) + procedure_files()
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS applied_procedures (name text PRIMARY KEY, sha256 text NOT NULL)"
        )
        applied = dict(connection.execute("SELECT name, sha256 FROM applied_procedures").fetchall())
        # Bodies may name functions of later files.
        connection.execute("SET LOCAL check_function_bodies = off")
        connection.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(FUNCTION_OWNERS))
        changed: list[str] = []
        remade: list[str] = []
        for file in files:
            text = file.read_bytes()
            digest = hashlib.sha256(text).hexdigest()
            if applied.get(file.name) == digest:
                continue
            # It says itself which of the owners it is run as.
            connection.execute(text)
            connection.execute("RESET ROLE")
            remade += functions_made_by(text)
            connection.execute(
                "INSERT INTO applied_procedures VALUES (%s, %s) "
                "ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256",
                (file.name, digest),
            )
            changed.append(file.name)
        drop_former(connection, remade, [name for file in files for name in functions_made_by(file.read_bytes())])
        connection.execute(sql.SQL("REVOKE CREATE ON SCHEMA public FROM {}").format(FUNCTION_OWNERS))
    return changed


def functions_made_by(text: bytes) -> list[str]:
    """The names of the functions that a file of procedures makes."""
    return sorted(
        {name.decode() for name in re.findall(rb"^CREATE (?:OR REPLACE )?FUNCTION (\w+)\(", text, re.MULTILINE)}
    )


def drop_former(connection: psycopg.Connection, remade: Sequence[str], made: Sequence[str]) -> None:
    """Drop what an earlier release made: functions that no file makes now, and others by the names of those remade.

    What a login may call stays, because that release's callers still run; it goes by name one release later.
    """
    rows = connection.execute(
        "SELECT p.oid::regprocedure::text FROM pg_proc AS p INNER JOIN pg_roles AS r ON r.oid = p.proowner "
        "WHERE p.pronamespace = 'public'::regnamespace AND r.rolname = ANY (%s) AND (p.proname <> ALL (%s) "
        "OR p.proname = ANY (%s) AND p.xmin <> pg_current_xact_id()::xid) AND NOT EXISTS ("
        "SELECT FROM aclexplode(p.proacl) AS a INNER JOIN pg_roles AS g ON g.oid = a.grantee WHERE g.rolcanlogin)",
        (list(OWNERS), list(made), list(remade)),
    ).fetchall()
    for (signature,) in rows:
        connection.execute(f"DROP FUNCTION {signature}".encode())


def procedure_files() -> list[Path]:
    """The files of the procedures, a folder each subject; a file is known by its name, whatever its folder."""
    return sorted((HERE / "procedures").glob("*/*.sql"), key=lambda file: file.name)


def drop_procedures(url: str) -> None:
    """Drop every function and view that those files made; what is left belongs to the migrations."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner "
            "WHERE p.pronamespace = 'public'::regnamespace AND r.rolname = ANY (%s)",
            (list(OWNERS),),
        ).fetchall()
        for (signature,) in rows:
            connection.execute(f"DROP FUNCTION {signature}".encode())
        # A view comes before those that read it.
        for file in sorted((HERE / "views").glob("*.sql"), reverse=True):
            connection.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(sql.Identifier(file.stem)))
        connection.execute("DROP TABLE IF EXISTS applied_procedures")


def main(arguments: list[str]) -> None:
    """Entry of `python -m database.apply`."""
    url = os.environ["DATABASE_URL"]
    match arguments:
        case [] | ["upgrade"]:
            apply(url)
        case ["downgrade", revision]:
            drop_procedures(url)
            migrate(url, f"down:{revision}")
        case _:
            sys.exit("usage: python -m database.apply [upgrade | downgrade REVISION]")


if __name__ == "__main__":
    main(sys.argv[1:])
