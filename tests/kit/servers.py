"""The servers of a test run, and databases cloned from one migrated template."""

import itertools
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg
import redis
from psycopg import sql

from local.environment import set_role_passwords
from local.servers import DATABASE, LOGIN_ROLES, OWNER, Postgres, Redis

_numbers = itertools.count(1)


class TestServers:
    """One PostgreSQL and one Redis below `folder`."""

    __test__ = False  # no test class, whatever its name

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.folder = folder
        self.postgres = Postgres(
            folder / "postgres",
            folder / "logs" / "postgres.log",
            secrets.token_urlsafe(16),
            durable=durable,
            owner_makes_databases=True,
        )
        self.redis = Redis(folder / "redis", folder / "logs" / "redis.log", secrets.token_urlsafe(16))

    def start(self) -> None:
        """Start both."""
        self.postgres.start()
        self.redis.start()

    def stop(self) -> None:
        """End both."""
        self.redis.stop()
        self.postgres.stop()

    def flush_redis(self) -> None:
        """Empty Redis."""
        with redis.Redis.from_url(self.redis.url()) as client:
            client.flushall()


@dataclass(frozen=True, slots=True)
class ScratchDatabase:
    """A database of one test.

    `url` is the owner's. Roles are those of the migrations: function_trader, function_relay, function_prices,
    function_risk, function_router, function_operator, function_triggers, function_end_of_day,
    function_risk_officer, function_security, function_incidents, function_alerts, compliance, backup.
    """

    postgres: Postgres
    name: str
    passwords: dict[str, str] = field(repr=False)

    @classmethod
    def create(cls, postgres: Postgres, passwords: dict[str, str], template: str = "template1") -> Self:
        """Make a database out of `template`."""
        name = f"scratch_{next(_numbers)}"
        # Whole files, and not block by block through the write-ahead log: with nothing synced that takes half the time.
        clone = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        _on_server(postgres, clone.format(sql.Identifier(name), sql.Identifier(template)))
        return cls(postgres, name, passwords)

    @property
    def url(self) -> str:
        """The owner's connection URL."""
        return self.postgres.url(database=self.name)

    def url_for(self, role: str) -> str:
        """The connection URL of a login role, or of the "owner"."""
        if role in ("owner", OWNER):
            return self.url
        return self.postgres.url(role, self.passwords[role], self.name)

    def connect(self, role: str = "owner", *, autocommit: bool = True) -> psycopg.Connection[Any]:
        """A new connection as `role`; the caller closes it."""
        return psycopg.connect(self.url_for(role), autocommit=autocommit)

    def drop(self) -> None:
        """Remove it, whoever is still connected."""
        _on_server(self.postgres, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.name)))


@dataclass(frozen=True, slots=True)
class MigratedTemplate:
    """The migrated database of a run; nobody stays connected to it, so that it can be cloned."""

    postgres: Postgres
    passwords: dict[str, str] = field(repr=False)

    @classmethod
    def build(cls, postgres: Postgres) -> Self:
        """Migrate the database `trading` and give the login roles their passwords."""
        from database.apply import apply

        apply(postgres.url())
        passwords = {role: secrets.token_urlsafe(16) for role in LOGIN_ROLES}
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            set_role_passwords(connection, passwords)
        return cls(postgres, passwords)

    def clone(self) -> ScratchDatabase:
        """A new database with the same content."""
        return ScratchDatabase.create(self.postgres, self.passwords, DATABASE)


def _on_server(postgres: Postgres, statement: sql.Composed) -> None:
    with psycopg.connect(postgres.url(database="postgres"), autocommit=True) as connection:
        connection.execute(statement)
