"""The watch over security as a test has it: its procedures by their roles, what happened, and who is found."""

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import psycopg
from psycopg.types.json import Jsonb

from tests.kit.builders import User
from tests.kit.orders import Market
from tests.kit.servers import MigratedTemplate

OFFICER_ID = uuid.UUID("01a1fc5d-0000-7000-8000-00000000cafe")
STRANGER = "198.51.100.9"


@dataclass(frozen=True, slots=True)
class Watch:
    """A database with an officer at it and the function that watches; both in the roles that they log in as."""

    market: Market
    officer: psycopg.Connection[Any]
    security: psycopg.Connection[Any]

    @classmethod
    @contextmanager
    def opened(cls, migrated: MigratedTemplate) -> Iterator[Self]:
        """One on a database of its own, whose books and audit must hold in the end."""
        with (
            Market.checked(migrated) as market,
            market.database.connect("function_incidents") as officer,
            market.database.connect("function_security") as security,
        ):
            yield cls(market, officer, security)
            assert market.execute("SELECT * FROM verify_audit()") == []

    def forget(self) -> None:
        """Empty everything that the watch keeps."""
        self.market.execute("DELETE FROM security_findings")
        self.market.execute("DELETE FROM interventions")
        self.market.execute("DELETE FROM security_events")
        self.market.execute("DELETE FROM security_pii")
        self.market.execute("DELETE FROM security_counters")
        self.market.execute("DELETE FROM never_blocked")

    def ask(self, procedure: str, **fields: object) -> Any:
        """The answer of a procedure to an officer."""
        return self._call(self.officer, procedure, {"actor": str(OFFICER_ID), "actor_id": str(OFFICER_ID)} | fields)

    def run(self, procedure: str, **fields: object) -> Any:
        """The answer of a procedure to the scheduled function."""
        return self._call(self.security, procedure, fields)

    def start(self, kind: str, target: object = None, seconds: int = 600, **fields: object) -> dict[str, Any]:
        """The answer to an officer who starts an intervention."""
        asked = {"kind": kind, "target": target and str(target), "seconds": seconds, "reason": "a test"} | fields
        return self.ask("start_intervention", **asked)

    def undo(self, intervention_id: object, **fields: object) -> dict[str, Any]:
        """The answer to an officer who takes one back."""
        return self.ask("undo_intervention", id=str(intervention_id), **fields)

    def happened(
        self,
        event: str,
        occurrences: int = 1,
        *,
        address: str = STRANGER,
        user: User | None = None,
        seconds_ago: int = 0,
    ) -> None:
        """Record what the edge would have counted; `event` is 'type|reason'."""
        second = int(time.time() - seconds_ago) // 10 * 10
        key = f"{second}|{event}|{address}|{user.user_id if user else ''}"
        self.run("record_security_events", batch_id=str(uuid.uuid4()), counts={key: occurrences}, agents={}, lost=0)

    def found(self) -> list[tuple[str, str]]:
        """(rule, severity) of the findings that are open, after an evaluation."""
        self.run("evaluate_security")
        return [
            (rule, severity)
            for rule, severity in self.market.execute(
                "SELECT rule, severity FROM security_findings WHERE ended_at IS NULL ORDER BY rule"
            )
        ]

    def platform_audit(self) -> list[dict[str, Any]]:
        """{actor, action, details, reason} of the platform's audit, in order."""
        rows = self.market.execute("SELECT actor, action, details, reason FROM platform_audit_log ORDER BY version")
        return [dict(zip(("actor", "action", "details", "reason"), row, strict=True)) for row in rows]

    def _call(self, connection: psycopg.Connection[Any], procedure: str, fields: Mapping[str, object]) -> Any:
        request = {name: value for name, value in fields.items() if value is not None} | {"version": 1}
        row = connection.execute(f"SELECT {procedure}(%s)".encode(), (Jsonb(request),)).fetchone()
        assert row is not None
        return row[0]
