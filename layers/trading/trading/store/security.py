"""The procedures of the watch over security, and of steps that are taken for a while."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from trading.guarding.counted_events import CountedEvents, Visitor
from trading.guarding.guard_copy import Truth
from trading.store.database import Database

REQUEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class DueResponse:
    """A finding whose response is yet to be made; `target` is an address or an account, None where there is none."""

    finding_id: str
    rule: str
    severity: str
    observed: int
    window_seconds: int
    response: str
    seconds: int
    target: str | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How many findings were opened and ended, and what is due."""

    opened: int
    ended: int
    due: tuple[DueResponse, ...]


def read_guard(database: Database) -> Truth:
    """Who is blocked, and whether there is maintenance; DATABASE_UNAVAILABLE."""
    row = database.fetch_one("SELECT read_edge_guard() AS answer")
    assert row is not None
    answer = row["answer"]
    return Truth(
        int(answer["version"]),
        answer["maintenance_until_us"],
        {address: int(until_us) for address, until_us in answer["blocks"].items()},
        answer["full_maintenance_until_us"],
    )


def count_event(database: Database, visitor: Visitor, event: str) -> None:
    """Count an event in the database, while Redis is gone."""
    database.call("count_security_event", {"version": REQUEST_VERSION, "event": event} | visitor.as_request())


class SecurityStore:
    """Calls as function_security or function_incidents; the procedures say what each may, takes, answers and raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, events: CountedEvents) -> dict[str, Any]:
        """Make rows of counted events, and of those that the database counted: {recorded, lost}."""
        return self._call(
            "record_security_events",
            {"batch_id": events.batch_id, "counts": events.counts, "agents": events.agents, "lost": events.lost},
        )

    def evaluate(self) -> Evaluation:
        """Hold what happened against the rules."""
        answer = self._call("evaluate_security", {})
        return Evaluation(answer["opened"], answer["ended"], tuple(DueResponse(**due) for due in answer["due"]))

    def note_response(self, finding_id: str, note: str) -> None:
        """Keep why a finding's response was not made."""
        self._call("note_security_response", {"finding_id": finding_id, "note": note})

    def start(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Start an intervention: {outcome: started or already_active, replayed, intervention}."""
        return self._call("start_intervention", request)

    def undo(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Take one back: {outcome: undone or already_over, replayed, intervention}."""
        return self._call("undo_intervention", request)

    def interventions(self, request: Mapping[str, object]) -> list[dict[str, Any]]:
        """Those that a filter lets through, the newest first."""
        return self._call("list_interventions", request)["interventions"]

    def events(self, request: Mapping[str, object]) -> list[dict[str, Any]]:
        """Events that a filter lets through, the newest first."""
        return self._call("list_security_events", request)["events"]

    def rules(self) -> list[dict[str, Any]]:
        """What the watch goes by."""
        return self._listed("list_security_rules", "rules")

    def change_rule(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Change one: {rule, changed}."""
        return self._call("change_security_rule", request)

    def never_blocked(self) -> list[dict[str, Any]]:
        """The networks that no block binds."""
        return self._listed("list_never_blocked", "networks")

    def change_never_blocked(self, request: Mapping[str, object]) -> bool:
        """Add or remove one; whether that changed anything."""
        return self._call("change_never_blocked", request)["changed"]

    def erase_old(self) -> dict[str, Any]:
        """Erase personal data and events past their days: {erased, kept, events_removed}."""
        return self._call("erase_security_data", {})

    def guard(self) -> Truth:
        """Who is blocked, and whether there is maintenance."""
        return read_guard(self._database)

    def expired(self, limit: int) -> list[UUID]:
        """Interventions past their time that nobody has taken back."""
        return [UUID(found["id"]) for found in self.interventions({"filter": "expired", "limit": limit})]

    def _listed(self, function: str, name: str) -> list[dict[str, Any]]:
        row = self._database.fetch_one(f"SELECT {function}() AS answer")
        assert row is not None
        return row["answer"][name]

    def _call(self, procedure: str, request: Mapping[str, object]) -> Any:
        return self._database.call(procedure, {"version": REQUEST_VERSION, **request})
