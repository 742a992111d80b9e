"""Interventions and security events as officers see and ask for them, in the words of /api/v1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from trading.account_requests import REASON_TAKEN, Reason
from trading.edge.envelope import timestamp
from trading.edge.http import Request
from trading.edge.members import read_members
from trading.edge.order_faults import TAKEN as TAKEN_BY_ORDERS
from trading.edge.reading_dialects import Facts, Page, optional_id, read_page
from trading.errors import validation_failed
from trading.guarding.guard_copy import blockable_address
from trading.intervention_requests import (
    PARAMETERS_MAX,
    SECONDS_MAX,
    TARGET_CHARACTERS_MAX,
    InterventionRequest,
    Kind,
)

_REASON: TypeAdapter[str] = TypeAdapter(Reason)
KINDS: tuple[str, ...] = get_args(Kind.__value__)
STATES = ("active", "over")
EVENT_TYPES = (
    "authentication_failure",
    "rate_limit_exceeded",
    "suspicious_activity",
    "privilege_escalation",
    "data_access",
)
SEVERITIES = ("low", "medium", "high", "critical")
TIMES = ("started_at", "expires_at", "undone_at", "carried_out_at", "reverted_at")

# What each field takes. Whatever of another kind, form or size came, the answer is "Send <field> as <this>".
TAKEN: Mapping[str, str] = {
    "kind": ", ".join(KINDS[:-1]) + f" or {KINDS[-1]}",
    "target": f"text of 1 to {TARGET_CHARACTERS_MAX} characters",
    "parameters": f"an object of at most {PARAMETERS_MAX} members",
    "seconds": f"a whole number from 1 to {SECONDS_MAX}",
    "reason": REASON_TAKEN,
    "idempotency_key": TAKEN_BY_ORDERS["idempotency_key"],
}


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a list is asked for: the procedure's own filters, and the page."""

    filters: Mapping[str, object]
    page: Page

    def as_request(self) -> dict[str, object]:
        """The procedure's request."""
        return {**self.filters, "before": self.page.before, "limit": self.page.limit}


def intervention_request(request: Request, body: Mapping[str, Any]) -> InterventionRequest:
    """The intervention that `body` asks for; VALIDATION_FAILED names the first field that does not fit."""
    return read_members(InterventionRequest, request, body, TAKEN)


def undo_reason(body: Mapping[str, Any]) -> str | None:
    """Why one is taken back, where that is said; VALIDATION_FAILED for anything but text."""
    reason = body.get("reason")
    try:
        return None if reason is None else _REASON.validate_python(reason)
    except ValidationError:
        raise validation_failed(
            "reason", reason, TAKEN["reason"], f"Send reason as {TAKEN['reason']}, or leave it out."
        ) from None


def interventions_query(query: Mapping[str, str]) -> ListQuery:
    """By state (active, over) and kind; VALIDATION_FAILED names what does not fit."""
    filters = {"filter": _word(query, "state", STATES), "kind": _word(query, "kind", KINDS)}
    return ListQuery(filters, read_page(query))


def events_query(query: Mapping[str, str]) -> ListQuery:
    """By event_type, severity, user_id and address; VALIDATION_FAILED names what does not fit."""
    address = query.get("address")
    if address is not None and not blockable_address(address):
        raise validation_failed("address", address, "an IP address", "Send address as an IP address.")
    filters = {
        "event_type": _word(query, "event_type", EVENT_TYPES),
        "severity": _word(query, "severity", SEVERITIES),
        "user_id": optional_id(query, "user_id"),
        "address": address,
    }
    return ListQuery(filters, read_page(query))


def intervention_body(fact: Facts) -> dict[str, Any]:
    """One intervention."""
    return dict(fact) | {name: _time(fact[name]) for name in TIMES}


def interventions_body(found: Sequence[Facts], page: Page) -> dict[str, Any]:
    """A page of interventions, the newest first: {data, next_cursor}."""
    return {"data": [intervention_body(fact) for fact in found], "next_cursor": _cursor(found, page)}


def events_body(found: Sequence[Facts], page: Page) -> dict[str, Any]:
    """A page of security events, the newest first: {data, next_cursor}."""
    return {
        "data": [dict(fact) | {"occurred_at": _time(fact["occurred_at"])} for fact in found],
        "next_cursor": _cursor(found, page),
    }


def _cursor(found: Sequence[Facts], page: Page) -> str | None:
    return found[-1]["id"] if len(found) == page.limit else None


def _word(query: Mapping[str, str], field: str, known: Sequence[str]) -> str | None:
    word = query.get(field)
    if not word:
        return None
    if word.lower() not in known:
        constraint = ", ".join(known)
        raise validation_failed(field, word, constraint, f"{field} must be one of {constraint}.")
    return word.lower()


def _time(text: str | None) -> str | None:
    return None if text is None else timestamp(datetime.fromisoformat(text))
