"""Alerts and incidents as people on call see them, in the words of /api/v1."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from trading.alert_requests import NOTE_CHARACTERS_MAX, Acknowledgement, Resolution
from trading.edge.envelope import timestamp
from trading.edge.http import Request
from trading.edge.members import read_members
from trading.edge.order_faults import TAKEN as TAKEN_BY_ORDERS
from trading.edge.reading_dialects import Facts, Page, read_page
from trading.errors import ErrorCode, TradingError, validation_failed
from trading.staff_text import text_taken

STATES = ("open", "acknowledged", "cleared", "resolved")
SEVERITIES = ("critical", "warning", "info")
TIMES = ("opened_at", "last_breached_at", "acknowledged_at", "ended_at")

# What each field takes. Whatever of another kind, form or size came, the answer is "Send <field> as <this>".
TAKEN: Mapping[str, str] = {
    "note": text_taken(NOTE_CHARACTERS_MAX),
    "idempotency_key": TAKEN_BY_ORDERS["idempotency_key"],
}


def acknowledgement(request: Request, body: Mapping[str, Any]) -> Acknowledgement:
    """What `body` says; VALIDATION_FAILED names the first field that does not fit."""
    return read_members(Acknowledgement, request, body, TAKEN)


def resolution(request: Request, body: Mapping[str, Any]) -> Resolution:
    """What `body` says; VALIDATION_FAILED names the first field that does not fit."""
    return read_members(Resolution, request, body, TAKEN)


def alerts_query(query: Mapping[str, str]) -> tuple[dict[str, str | None], Page]:
    """The filters state and severity, and the page; VALIDATION_FAILED names what does not fit."""
    filters = {"state": _word(query, "state", STATES), "severity": _word(query, "severity", SEVERITIES)}
    return filters, read_page(query)


def alert_body(fact: Facts) -> dict[str, Any]:
    """One alert."""
    return {name: value for name, value in fact.items() if name != "replayed"} | {
        name: _time(fact[name]) for name in TIMES
    }


def alerts_body(answer: Facts) -> dict[str, Any]:
    """A page of alerts, the newest first: {data, next_cursor}."""
    return {"data": [alert_body(fact) for fact in answer["alerts"]], "next_cursor": answer["next"]}


def incident_body(incident: Facts | None) -> dict[str, Any]:
    """An incident with its timeline; NOT_FOUND without one."""
    if incident is None:
        raise TradingError(
            ErrorCode.NOT_FOUND,
            "There is no incident with this id. GET /api/v1/risk/alerts shows the incident_id of each alert.",
            {"field": "id", "value": None, "constraint": "an incident"},
        )
    return dict(incident) | {
        "opened_at": _time(incident["opened_at"]),
        "closed_at": _time(incident["closed_at"]),
        "alert": alert_body(incident["alert"]),
        "timeline": [dict(event) | {"at": _time(event["at"])} for event in incident["timeline"]],
    }


def _word(query: Mapping[str, str], field: str, known: tuple[str, ...]) -> str | None:
    word = query.get(field)
    if not word:
        return None
    if word.lower() not in known:
        constraint = ", ".join(known)
        raise validation_failed(field, word, constraint, f"{field} must be one of {constraint}.")
    return word.lower()


def _time(text: str | None) -> str | None:
    return None if text is None else timestamp(datetime.fromisoformat(text))
