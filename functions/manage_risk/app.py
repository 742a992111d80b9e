"""What officers do against dangers: steps that are taken for a while and taken back, and what was noted at the edge."""

from typing import Any

from trading.cache import cache
from trading.edge.gate import Caller, admit
from trading.edge.http import Request, Response, http_handler
from trading.edge.intervention_dialects import (
    events_body,
    events_query,
    intervention_body,
    intervention_request,
    interventions_body,
    interventions_query,
    undo_reason,
)
from trading.edge.reading_dialects import parse_id
from trading.execution import hash_of_request
from trading.guarding.guard_copy import GuardCopy
from trading.store.connection import database
from trading.store.security import SecurityStore

ROLES = ("risk_officer", "operator")


def start_intervention(request: Request) -> Response:
    """POST /api/v1/risk/interventions: 201, or 200 with the one that is in force already."""
    caller = _admit(request, "interventions:write", state_changing=True)
    body = request.json()
    asked = intervention_request(request, body)
    answer = _store().start(
        asked.model_dump() | _actor(request, caller) | {"request_hash": hash_of_request(request.route_key, body)}
    )
    _spread(answer)
    if answer["replayed"]:
        request.answer_headers["Idempotency-Replayed"] = "true"
    return Response(201 if answer["outcome"] == "started" else 200, intervention_body(answer["intervention"]))


def undo_intervention(request: Request) -> Response:
    """DELETE /api/v1/risk/interventions/{id}: the intervention, which is over now or was before."""
    caller = _admit(request, "interventions:write", state_changing=True)
    intervention_id = parse_id(request.path_parameters["id"], "id")
    reason = undo_reason(request.json_if_any())
    answer = _store().undo({"id": intervention_id, "reason": reason} | _actor(request, caller))
    _spread(answer)
    return Response(body=intervention_body(answer["intervention"]))


def list_interventions(request: Request) -> Response:
    """GET /api/v1/risk/interventions."""
    _admit(request, "interventions:write", state_changing=False)
    asked = interventions_query(request.query)
    return Response(body=interventions_body(_store().interventions(asked.as_request()), asked.page))


def list_security_events(request: Request) -> Response:
    """GET /api/v1/risk/security-events."""
    _admit(request, "security:read", state_changing=False)
    asked = events_query(request.query)
    return Response(body=events_body(_store().events(asked.as_request()), asked.page))


def _admit(request: Request, permission: str, *, state_changing: bool) -> Caller:
    return admit(
        request,
        route_group="risk",
        state_changing=state_changing,
        permission=permission,
        roles=ROLES,
        in_maintenance=True,
    )


def _actor(request: Request, caller: Caller) -> dict[str, object]:
    return {
        "actor": str(caller.user_id),
        "actor_id": caller.user_id,
        "email": caller.email,
        "ip_address": request.source_ip,
        "user_agent": request.user_agent,
        "request_id": request.request_id,
    }


def _spread(answer: dict[str, Any]) -> None:
    """Let the edge know at once; the scheduled watch does it within a minute where Redis does not answer now."""
    if answer["intervention"]["kind"] in ("maintenance", "ip_block"):
        GuardCopy(cache(), _store().guard).renew()


def _store() -> SecurityStore:
    return SecurityStore(database())


handler = http_handler(
    {
        "POST /api/v1/risk/interventions": start_intervention,
        "GET /api/v1/risk/interventions": list_interventions,
        "DELETE /api/v1/risk/interventions/{id}": undo_intervention,
        "GET /api/v1/risk/security-events": list_security_events,
    }
)
