"""The database's procedures of alerts: what evaluation reads and books, and the outbox that it sends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from trading.alerts import Figure, Notice, Reading, Response, RuleBook, rule_book
from trading.store.database import Database

REQUEST_VERSION = 1
# A message is tried so often, and a response.
ATTEMPTS_MAX = 3
# After a silence no more reports are made up for: the rest of the audit is for `make measure`.
REPORT_HOURS_MAX = 24

type Outcome = Literal["sent", "failed", "unconfigured"]


@dataclass(frozen=True, slots=True)
class Booked:
    """The alerts that a run opened, cleared and escalated."""

    opened: tuple[UUID, ...]
    cleared: tuple[UUID, ...]
    escalated: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class DueResponse:
    """An automatic response that an alert asks for."""

    alert_id: UUID
    kind: str
    rule: str
    subject: str
    title: str
    incident_id: UUID | None


@dataclass(frozen=True, slots=True)
class Told:
    """A message that went out, or failed to, while the database was silent."""

    kind: str
    level: int
    addressee: str
    channel: str
    sent: bool


class AlertStore:
    """Calls as the role function_alerts. Each raises TradingError DATABASE_UNAVAILABLE, and may be repeated."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rules(self) -> RuleBook:
        """The rules that are enabled, with what they refer to."""
        row = self._database.fetch_one("SELECT list_alert_rules() AS answer")
        assert row is not None
        return rule_book(row["answer"])

    def record(
        self, readings: Sequence[Reading], samples: Sequence[Figure], *, release: str | None, at: datetime | None
    ) -> Booked:
        """Book what a run has found; see record_readings."""
        answer = self._call(
            "record_readings",
            at=at,
            release=release,
            readings=[
                {
                    "rule": each.rule,
                    "subject": each.subject,
                    "verdict": each.verdict,
                    "value": each.value,
                    "samples": each.samples,
                }
                for each in readings
            ],
            samples=[
                {"figure": each.name, "subject": each.subject, "value": each.value, "samples": each.samples}
                for each in samples
            ],
        )
        return Booked(*(tuple(UUID(text) for text in answer[name]) for name in ("opened", "cleared", "escalated")))

    def record_outage(self, since: datetime, told: Sequence[Told]) -> UUID:
        """Book that the database was silent since `since`, and who was told of it; the alert's id."""
        notified = [
            {
                "kind": each.kind,
                "level": each.level,
                "addressee": each.addressee,
                "channel": each.channel,
                "sent": each.sent,
            }
            for each in told
        ]
        return UUID(self._call("record_outage", since=since, notified=notified)["alert_id"])

    def claim_notices(self, holder: UUID, *, limit: int, lease_ms: int, at: datetime | None) -> list[Notice]:
        """Messages that are due, leased to `holder`."""
        rows = self._call("claim_notifications", holder=holder, limit=limit, lease_ms=lease_ms, at=at)
        return [_notice(row) for row in rows]

    def report_notice(
        self, holder: UUID, notice: Notice, outcome: Outcome, *, error: str | None, at: datetime | None
    ) -> str | None:
        """Say what became of `notice`; the channel that is told in its place, if one is."""
        return self._call(
            "report_notification",
            holder=holder,
            id=str(notice.id),
            outcome=outcome,
            error=error,
            attempts_max=ATTEMPTS_MAX,
            at=at,
        )["fallback"]

    def due_responses(self, *, limit: int) -> list[DueResponse]:
        """Automatic responses to be begun."""
        return [
            DueResponse(
                UUID(row["alert_id"]),
                row["kind"],
                row["rule"],
                row["subject"],
                row["title"],
                UUID(row["incident_id"]) if row["incident_id"] else None,
            )
            for row in self._call("claim_responses", limit=limit)
        ]

    def report_response(self, response: DueResponse, *, done: bool, details: Mapping[str, object]) -> None:
        """Say what became of `response`."""
        self._call(
            "report_response",
            alert_id=response.alert_id,
            kind=response.kind,
            outcome="done" if done else "failed",
            details=details,
            attempts_max=ATTEMPTS_MAX,
        )

    def keep_reports(self, *, at: datetime | None) -> int:
        """Write the reports of the hours that are over; how many."""
        return self._call("keep_performance_reports", at=at, hours_max=REPORT_HOURS_MAX)["kept"]

    def _call(self, procedure: str, **request: object) -> Any:
        return self._database.call(procedure, {"version": REQUEST_VERSION, **request})


def _notice(row: Mapping[str, Any]) -> Notice:
    alert = row["alert"]
    return Notice(
        id=UUID(row["id"]),
        kind=row["kind"],
        level=row["level"],
        addressee=row["addressee"],
        channel=row["channel"],
        alert_id=UUID(alert["id"]),
        rule=alert["rule"],
        title=alert["title"],
        subject=alert["subject"],
        severity=alert["severity"],
        figure=alert["figure"],
        value=Decimal(alert["value"]),
        threshold=Decimal(alert["threshold"]),
        samples=alert["samples"],
        opened_at=datetime.fromisoformat(alert["opened_at"]),
        ended_by=alert["resolved_by"],
        note=alert["note"],
        runbook=alert["runbook"],
        incident_id=UUID(alert["incident_id"]) if alert["incident_id"] else None,
        responses=tuple(Response(each["kind"], each["state"], each["error"]) for each in alert["responses"]),
    )


class AlertDesk:
    """Calls as the role function_incidents: what people see and do of alerts.

    Raises NOT_FOUND, IDEMPOTENCY_KEY_REUSED, CONFLICT for an alert that has ended, and DATABASE_UNAVAILABLE.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def alerts(self, filters: Mapping[str, object], *, before: UUID | None, limit: int) -> dict[str, Any]:
        """A page of alerts, the newest first: {alerts, next}."""
        return self._call("list_alerts", {**filters, "before": before, "limit": limit})

    def reports(self, *, before: UUID | None, limit: int) -> dict[str, Any]:
        """A page of reports of the hour, the newest first: {reports, next}."""
        return self._call("list_performance_reports", {"before": before, "limit": limit})

    def incident(self, incident_id: UUID) -> dict[str, Any] | None:
        """An incident with its alert, timeline and responses."""
        return self._call("get_incident", {"incident_id": incident_id})

    def acknowledge(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Take an alert on; it with `replayed`."""
        return self._call("acknowledge_alert", request)

    def resolve(self, request: Mapping[str, object]) -> dict[str, Any]:
        """End an alert; it with `replayed`."""
        return self._call("resolve_alert", request)

    def _call(self, procedure: str, request: Mapping[str, object]) -> Any:
        return self._database.call(procedure, {"version": REQUEST_VERSION, **request})
