"""The database's procedures of interventions, as far as alerts start them and carry them out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from trading.store.database import Database

REQUEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Intervention:
    """A step that is in force, or is over and to be taken back. `outcome` is what was noted of it so far."""

    id: UUID
    kind: str
    target: str
    parameters: Mapping[str, Any]
    outcome: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Suspect:
    """The subject of a finding: an address, or an account."""

    finding_id: UUID
    target: str


class InterventionStore:
    """Calls as the role function_alerts. `request_id` stands in the audit."""

    def __init__(self, database: Database, request_id: str) -> None:
        self._database = database
        self._request_id = request_id

    def start(
        self,
        kind: str,
        target: str | None,
        parameters: Mapping[str, object],
        *,
        seconds: int,
        reason: str,
        rule: str,
        key: str,
        finding_id: UUID | None = None,
    ) -> Intervention:
        """Start one, or the one that is in force for the same target; once under `key`. Raises what start_intervention
        does.
        """
        return _intervention(
            self._call(
                "start_intervention",
                kind=kind,
                target=target,
                parameters=parameters,
                seconds=seconds,
                reason=reason,
                rule=rule,
                finding_id=finding_id,
                actor=f"rule:{rule}",
                idempotency_key=key,
                request_hash=key,
                request_id=self._request_id,
            )["intervention"]
        )

    def to_carry_out(self, kind: str) -> list[Intervention]:
        """Those in force that nobody has carried out."""
        return self._list(kind, "to_carry_out")

    def to_revert(self, kind: str) -> list[Intervention]:
        """Those that are over and were carried out."""
        return self._list(kind, "to_revert")

    def note(
        self,
        intervention_id: UUID,
        outcome: Mapping[str, object],
        *,
        carried_out: bool = False,
        reverted: bool = False,
    ) -> None:
        """Note what came of one."""
        self._call("note_intervention", id=intervention_id, outcome=outcome, carried_out=carried_out, reverted=reverted)

    def suspects(self, kind: str, alert_id: UUID) -> list[Suspect]:
        """Subjects of open findings that `kind` would stop, nobody has stopped, and the alert may stop yet."""
        rows = self._call("list_suspects", kind=kind, alert_id=alert_id)
        return [Suspect(UUID(row["finding_id"]), row["target"]) for row in rows]

    def note_not_stopped(self, finding_id: UUID, why: str) -> None:
        """Say why the subject of a finding was not stopped; it is not suspect again for the same one."""
        self._call("note_security_response", finding_id=finding_id, note=why)

    def _list(self, kind: str, state: str) -> list[Intervention]:
        rows = self._call("list_interventions", filter=state, kind=kind)["interventions"]
        return [_intervention(row) for row in rows]

    def _call(self, procedure: str, **request: object) -> Any:
        return self._database.call(procedure, {"version": REQUEST_VERSION, **request})


def _intervention(row: Mapping[str, Any]) -> Intervention:
    return Intervention(UUID(row["id"]), row["kind"], row["target"] or "", row["parameters"], row["outcome"])
