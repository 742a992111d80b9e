"""What risk officers do: look up the limits of an account or a tier, and change them."""

from functools import partial

from trading.account_keeping import KeyTerms, OperatorAct
from trading.edge.gate import Caller, admit, check_role
from trading.edge.http import Request, Response, http_handler
from trading.edge.reading_dialects import parse_id
from trading.edge.risk_dialects import changed_body, risk_change, settings_body, tiers_body
from trading.execution import Origin, hash_of_request
from trading.queue import notify_relay_unless_awake
from trading.risk_keeping import CHANGES_SHOWN_MAX, change_limits, change_limits_of_tier, read_limits
from trading.settings import settings
from trading.store.connection import database
from trading.store.risk_settings import RiskSettingsStore


def get_settings(request: Request) -> Response:
    """GET /api/v1/risk/settings/{id}: the limits of anybody's account, and who changed them."""
    _admit(request, state_changing=False)
    return Response(body=settings_body(read_limits(_store(), parse_id(request.path_parameters["id"], "id"))))


def patch_settings(request: Request) -> Response:
    """PATCH /api/v1/risk/settings/{id}: what binds the account from its next order on."""
    caller = _admit(request, state_changing=True)
    account_id = parse_id(request.path_parameters["id"], "id")
    body = request.json()
    change = risk_change(request, body)
    waker = partial(
        notify_relay_unless_awake,
        relay_awake=caller.relay_awake,
        started_at=request.started_at,
        request_id=request.request_id,
    )
    act = change_limits(_store(), account_id, change, _officer(request, caller), _terms(request, body), waker)
    return Response(200, changed_body(_outcome(request, act).answer))


def list_defaults(request: Request) -> Response:
    """GET /api/v1/risk/defaults: the limits of each tier, and who changed them."""
    _admit(request, state_changing=False)
    return Response(body=tiers_body(_store().tiers(CHANGES_SHOWN_MAX)))


def patch_defaults(request: Request) -> Response:
    """PATCH /api/v1/risk/defaults/{tier}: what binds all its accounts that have no limits of their own."""
    caller = _admit(request, state_changing=True)
    body = request.json()
    change = risk_change(request, body)
    tier = request.path_parameters["tier"]
    act = change_limits_of_tier(_store(), tier, change, _officer(request, caller), _terms(request, body))
    return Response(200, changed_body(_outcome(request, act).answer))


def _admit(request: Request, *, state_changing: bool) -> Caller:
    caller = admit(request, route_group="risk", state_changing=state_changing, permission="risk:write")
    # The permission alone does not do: it takes the role that the database's own role is for.
    check_role(caller.role, "risk_officer")
    return caller


def _officer(request: Request, caller: Caller) -> Origin:
    return Origin(caller.user_id, caller.email, request.source_ip, request.user_agent, request.request_id)


def _terms(request: Request, body: dict[str, object]) -> KeyTerms:
    return KeyTerms(hash_of_request(request.route_key, body), settings().idempotency_key_days)


def _outcome(request: Request, act: OperatorAct) -> OperatorAct:
    if act.replayed:
        request.answer_headers["Idempotency-Replayed"] = "true"
    return act


def _store() -> RiskSettingsStore:
    return RiskSettingsStore(database())


handler = http_handler(
    {
        "GET /api/v1/risk/settings/{id}": get_settings,
        "PATCH /api/v1/risk/settings/{id}": patch_settings,
        "GET /api/v1/risk/defaults": list_defaults,
        "PATCH /api/v1/risk/defaults/{tier}": patch_defaults,
    }
)
