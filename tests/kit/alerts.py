"""Alerts on a market: figures of real orders, channels that remember, and a clock that is handed in."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import uuid4

import psycopg
from psycopg.types.json import Jsonb

from tests.kit.orders import Market
from tests.kit.servers import MigratedTemplate
from trading.alerting import AlertReport, Evaluation, Responder
from trading.alerts import Notice
from trading.cache import Cache
from trading.channels.protocol import Channel, ChannelError
from trading.collectors.from_database import database_collectors
from trading.collectors.protocol import Collector
from trading.database_silence import OutageMemory
from trading.store.alerts import AlertStore, DueResponse
from trading.store.database import Database

ROLE = "function_alerts"
# Nothing listens there.
NO_REDIS = "redis://127.0.0.1:9/0"
# What no test is about: the database of a test watches no margin, and has prices of a few symbols only.
QUIET = ("PRICES_STALE", "MARGIN_WATCH_SILENT")


@dataclass
class Inbox:
    """Channels that keep what they are sent.

    Those in `down` fail, those in `broken` by an error of their own; those in `missing` are not configured.
    """

    notices: list[Notice] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)

    def channel(self, name: str) -> Channel | None:
        return None if name in self.missing else _Kept(self, name)

    def told(self) -> list[tuple[str, str, str]]:
        """(rule, kind, channel) of each message, sorted."""
        return sorted((notice.rule, notice.kind, notice.channel) for notice in self.notices)


@dataclass
class _Kept:
    inbox: Inbox
    name: str

    def send(self, notice: Notice) -> None:
        if self.name in self.inbox.down:
            raise ChannelError("it is down")
        if self.name in self.inbox.broken:
            raise RuntimeError("a secret that nobody can read")
        self.inbox.notices.append(notice)


@dataclass
class NoResponder:
    """Begins nothing and remembers what it was asked for."""

    asked: list[DueResponse] = field(default_factory=list)

    def begin(self, response: DueResponse) -> Mapping[str, object]:
        self.asked.append(response)
        return {}


@dataclass
class AlertWorld:
    """A market whose alerts are evaluated at times that the test says."""

    market: Market
    database: Database
    memory: OutageMemory
    inbox: Inbox
    responder: Responder
    started_at: datetime

    @classmethod
    @contextmanager
    def opened(cls, migrated: MigratedTemplate) -> Iterator[Self]:
        """On a database of its own; the rules that a market of a few symbols breaks by itself are off."""
        scratch = migrated.clone()
        database = Database(lambda: scratch.url_for(ROLE))
        try:
            with Market.opened(scratch) as market:
                # The database that this one is cloned from may be many minutes old.
                market.execute("UPDATE margin_scan SET updated_at = clock_timestamp()")
                market.execute("UPDATE alert_rules SET enabled = false WHERE name = ANY (%s)", (list(QUIET),))
                cache = Cache(lambda: NO_REDIS, timeout_ms=100)
                yield cls(market, database, OutageMemory(cache), Inbox(), NoResponder(), datetime.now(UTC))
        finally:
            database.close()
            scratch.drop()

    def only(self, *rules: str) -> None:
        """Leave just these rules enabled."""
        self.market.execute("UPDATE alert_rules SET enabled = name = ANY (%s)", (list(rules),))

    def evaluate(
        self,
        after: timedelta | None = None,
        *,
        database: Database | None = None,
        collectors: Mapping[str, Collector] | None = None,
        memory: OutageMemory | None = None,
        release: str | None = None,
        time_left_ms: Callable[[], int] = lambda: 60_000,
    ) -> AlertReport:
        """One run, now or `after` that long."""
        used = database or self.database
        return Evaluation(
            store=AlertStore(used),
            collectors={**database_collectors(used), **(collectors or {})},
            channels=self.inbox.channel,
            responder=self.responder,
            memory=memory or self.memory,
            time_left_ms=time_left_ms,
            release=release,
            now=None if after is None else datetime.now(UTC) + after,
            holder=uuid4(),
        ).run()

    def alerts(self, *columns: str) -> list[tuple[Any, ...]]:
        """Columns of all alerts, oldest first; by default rule, subject and state."""
        named = ", ".join(columns or ("rule", "subject", "state"))
        return self.market.execute(f"SELECT {named} FROM alerts ORDER BY opened_at, rule, subject")

    def timeline(self) -> list[tuple[str, str]]:
        """(kind, actor) of the events of all incidents in order."""
        return self.market.execute("SELECT kind, actor FROM incident_events ORDER BY incident_id, place")

    def call(self, procedure: str, role: str = ROLE, **request: object) -> Any:
        """The answer of a procedure to `role`."""
        with self.market.database.connect(role) as connection:
            return answer_of(connection, procedure, **request)


def answer_of(connection: psycopg.Connection[Any], procedure: str, **request: object) -> Any:
    """The answer of a procedure."""
    row = connection.execute(f"SELECT {procedure}(%s)".encode(), (Jsonb({"version": 1, **request}),)).fetchone()
    assert row is not None
    return row[0]
