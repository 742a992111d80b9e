"""What officers do against dangers: steps that are taken for a while, alerts, and what the watch goes by."""

from typing import Any
from uuid import UUID

from trading.cache import cache
from trading.edge.acts import mark_repeat, relay_waker
from trading.edge.alert_dialects import (
    acknowledgement,
    alert_body,
    alerts_body,
    alerts_query,
    incident_body,
    resolution,
)
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
from trading.edge.reading_dialects import parse_id, parse_name, read_page
from trading.edge.watch_dialects import network_request, networks_body, reports_body, rule_change, rules_body
from trading.execution import hash_of_request
from trading.guarding.guard_copy import GuardCopy
from trading.intervention_means import check_means
from trading.settings import settings
from trading.store.alerts import AlertDesk
from trading.store.connection import database
from trading.store.security import SecurityStore

ROLES = ("risk_officer", "operator")
# Who is on call sees to alerts, and stops nobody.
ALERT_ROLES = (*ROLES, "on_call")


def start_intervention(request: Request) -> Response:
    """POST /api/v1/risk/interventions: 201, or 200 with the one that is in force already."""
    caller = _admit(request, "interventions:write", state_changing=True)
    body = request.json()
    asked = intervention_request(request, body)
    check_means(asked.kind, asked.target, asked.parameters, settings())
    answer = _store().start(
        asked.model_dump() | _actor(request, caller) | {"request_hash": hash_of_request(request.route_key, body)}
    )
    _spread(request, caller, answer)
    mark_repeat(request, replayed=answer["replayed"])
    return Response(201 if answer["outcome"] == "started" else 200, intervention_body(answer["intervention"]))


def undo_intervention(request: Request) -> Response:
    """DELETE /api/v1/risk/interventions/{id}: the intervention, which is over now or was before."""
    caller = _admit(request, "interventions:write", state_changing=True)
    intervention_id = parse_id(request.path_parameters["id"], "id")
    reason = undo_reason(request.json_if_any())
    answer = _store().undo({"id": intervention_id, "reason": reason} | _actor(request, caller))
    _spread(request, caller, answer)
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


def list_security_rules(request: Request) -> Response:
    """GET /api/v1/risk/security-rules: whom the watch finds, and what it does then."""
    _admit(request, "security:read", state_changing=False)
    return Response(body=rules_body(_store().rules()))


def patch_security_rule(request: Request) -> Response:
    """PATCH /api/v1/risk/security-rules/{rule}: the rule as it holds from the next run on."""
    caller = _admit(request, "interventions:write", state_changing=True)
    rule = parse_name(request.path_parameters["rule"], "rule")
    change = rule_change(request.json())
    answer = _store().change_rule({"rule": rule} | change | _actor(request, caller))
    return Response(body=answer["rule"])


def list_never_blocked(request: Request) -> Response:
    """GET /api/v1/risk/never-blocked."""
    _admit(request, "security:read", state_changing=False)
    return Response(body=networks_body(_store().never_blocked()))


def add_never_blocked(request: Request) -> Response:
    """POST /api/v1/risk/never-blocked: all of them; what is blocked in the network is free at once."""
    return _change_never_blocked(request, "add")


def remove_never_blocked(request: Request) -> Response:
    """DELETE /api/v1/risk/never-blocked: those that are left."""
    return _change_never_blocked(request, "remove")


def list_performance_reports(request: Request) -> Response:
    """GET /api/v1/risk/performance-reports: what each hour came to."""
    _admit(request, "alerts:write", state_changing=False, roles=ALERT_ROLES)
    page = read_page(request.query)
    return Response(body=reports_body(AlertDesk(database()).reports(before=page.before, limit=page.limit)))


def list_alerts(request: Request) -> Response:
    """GET /api/v1/risk/alerts."""
    _admit(request, "alerts:write", state_changing=False, roles=ALERT_ROLES)
    filters, page = alerts_query(request.query)
    return Response(body=alerts_body(AlertDesk(database()).alerts(filters, before=page.before, limit=page.limit)))


def acknowledge_alert(request: Request) -> Response:
    """POST /api/v1/risk/alerts/{id}/acknowledge: the alert, which escalates no further."""
    caller = _admit(request, "alerts:write", state_changing=True, roles=ALERT_ROLES)
    body = request.json_if_any()
    asked = acknowledgement(request, body)
    return _acted(request, AlertDesk(database()).acknowledge(asked.model_dump() | _act(request, caller, body)))


def resolve_alert(request: Request) -> Response:
    """POST /api/v1/risk/alerts/{id}/resolve: the alert, which has ended."""
    caller = _admit(request, "alerts:write", state_changing=True, roles=ALERT_ROLES)
    body = request.json()
    asked = resolution(request, body)
    return _acted(request, AlertDesk(database()).resolve(asked.model_dump() | _act(request, caller, body)))


def get_incident(request: Request) -> Response:
    """GET /api/v1/risk/incidents/{id}."""
    _admit(request, "alerts:write", state_changing=False, roles=ALERT_ROLES)
    return Response(body=incident_body(AlertDesk(database()).incident(parse_id(request.path_parameters["id"], "id"))))


def _change_never_blocked(request: Request, action: str) -> Response:
    caller = _admit(request, "interventions:write", state_changing=True)
    asked = network_request(request.json())
    if _store().change_never_blocked(asked | {"action": action} | _actor(request, caller)):
        GuardCopy(cache(), _store().guard).renew()
    return Response(body=networks_body(_store().never_blocked()))


def _act(request: Request, caller: Caller, body: dict[str, Any]) -> dict[str, object]:
    alert_id = parse_id(request.path_parameters["id"], "id")
    return {
        "alert_id": alert_id,
        "actor": str(caller.user_id),
        "request_hash": hash_of_request(f"{request.route_key} {alert_id}", body),
        "idempotency_key_days": settings().idempotency_key_days,
    }


def _acted(request: Request, answer: dict[str, Any]) -> Response:
    mark_repeat(request, replayed=answer["replayed"])
    return Response(body=alert_body(answer))


def _admit(request: Request, permission: str, *, state_changing: bool, roles: tuple[str, ...] = ROLES) -> Caller:
    return admit(
        request,
        route_group="risk",
        state_changing=state_changing,
        permission=permission,
        roles=roles,
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


def _spread(request: Request, caller: Caller, answer: dict[str, Any]) -> None:
    """Let the edge, or the relay, know at once; what is scheduled does it within a minute where that fails."""
    told = answer["intervention"]
    if told["kind"] in ("maintenance", "ip_block"):
        GuardCopy(cache(), _store().guard).renew()
    elif told["kind"] == "account_suspension":
        relay_waker(request, caller)(UUID(told["target"]))


def _store() -> SecurityStore:
    return SecurityStore(database())


handler = http_handler(
    {
        "POST /api/v1/risk/interventions": start_intervention,
        "GET /api/v1/risk/interventions": list_interventions,
        "DELETE /api/v1/risk/interventions/{id}": undo_intervention,
        "GET /api/v1/risk/security-events": list_security_events,
        "GET /api/v1/risk/security-rules": list_security_rules,
        "PATCH /api/v1/risk/security-rules/{rule}": patch_security_rule,
        "GET /api/v1/risk/never-blocked": list_never_blocked,
        "POST /api/v1/risk/never-blocked": add_never_blocked,
        "DELETE /api/v1/risk/never-blocked": remove_never_blocked,
        "GET /api/v1/risk/performance-reports": list_performance_reports,
        "GET /api/v1/risk/alerts": list_alerts,
        "POST /api/v1/risk/alerts/{id}/acknowledge": acknowledge_alert,
        "POST /api/v1/risk/alerts/{id}/resolve": resolve_alert,
        "GET /api/v1/risk/incidents/{id}": get_incident,
    }
)
