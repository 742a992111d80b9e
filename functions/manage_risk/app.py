"""What risk officers do: look up and change the limits of accounts and tiers, stop trading, and wind it down."""

from datetime import UTC, datetime
from functools import partial

from trading.account_keeping import KeyTerms, OperatorAct
from trading.edge.gate import Caller, admit
from trading.edge.http import Request, Response, http_handler
from trading.edge.reading_dialects import parse_id
from trading.edge.risk_dialects import changed_body, risk_change, settings_body, tiers_body
from trading.execution import Origin, RelayWaker, hash_of_request
from trading.queue import notify_relay_unless_awake, start_triggers
from trading.risk_keeping import CHANGES_SHOWN_MAX, change_limits, change_limits_of_tier, read_limits
from trading.secrets import csrf_secret
from trading.settings import settings
from trading.store.connection import database
from trading.store.kill_switch import KillSwitchStore
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
    act = change_limits(
        _store(), account_id, change, _officer(request, caller), _terms(request, body), _waker(request, caller)
    )
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


def get_trading_states(request: Request) -> Response:
    """GET /api/v1/risk/trading-state: what is not active, and who set what last."""
    from trading.edge.kill_switch_dialects import states_body

    _admit(request, state_changing=False)
    return Response(body=states_body(_kill_switch().trading_states()))


def post_trading_state(request: Request) -> Response:
    """POST /api/v1/risk/trading-state: the kill switch of the platform, a symbol or an account."""
    from trading.edge.kill_switch_dialects import state_body, state_change
    from trading.kill_switch import set_trading_state

    caller = _admit(request, state_changing=True)
    body = request.json()
    change = set_trading_state(
        _kill_switch(),
        state_change(request, body),
        _officer(request, caller),
        _terms(request, body),
        _waker(request, caller),
    )
    _mark(request, replayed=change.replayed)
    return Response(200, state_body(change))


def post_wind_down(request: Request) -> Response:
    """POST /api/v1/risk/wind-downs: 200 with what it would end and its confirmation; with that, 202."""
    from trading.edge.kill_switch_dialects import wind_down_asked, wind_down_body, without_confirmation
    from trading.kill_switch import wind_down

    caller = _admit(request, state_changing=True)
    body = request.json()
    act = wind_down(
        _kill_switch(),
        wind_down_asked(request, body),
        _officer(request, caller),
        _terms(request, without_confirmation(body)),
        start_triggers,
        secret=csrf_secret(),
        now=datetime.now(UTC),
    )
    _mark(request, replayed=act.replayed)
    return Response(200 if act.confirmation else 202, wind_down_body(act))


def get_wind_down(request: Request) -> Response:
    """GET /api/v1/risk/wind-downs/{id}: how far it has come."""
    from trading.edge.kill_switch_dialects import progress_body

    _admit(request, state_changing=False)
    wind_down_id = parse_id(request.path_parameters["id"], "id")
    return Response(body=progress_body(_kill_switch().wind_down(wind_down_id)))


def list_margin_calls(request: Request) -> Response:
    """GET /api/v1/risk/margin-calls?state=: who is, or was, below a margin level."""
    from trading.edge.margin_call_dialects import margin_calls_body, margin_calls_query

    _admit(request, state_changing=False)
    asked, page = margin_calls_query(request.query)
    return Response(body=margin_calls_body(_store().margin_calls(asked), page))


def _admit(request: Request, *, state_changing: bool) -> Caller:
    # The permission alone does not do: it takes the role that the database's own role is for. Trading is stopped in
    # maintenance too.
    return admit(
        request,
        route_group="risk",
        state_changing=state_changing,
        permission="risk:write",
        roles=("risk_officer",),
        in_maintenance=True,
    )


def _officer(request: Request, caller: Caller) -> Origin:
    return Origin(caller.user_id, caller.email, request.source_ip, request.user_agent, request.request_id)


def _terms(request: Request, body: dict[str, object]) -> KeyTerms:
    return KeyTerms(hash_of_request(request.route_key, body), settings().idempotency_key_days)


def _waker(request: Request, caller: Caller) -> RelayWaker:
    return partial(
        notify_relay_unless_awake,
        relay_awake=caller.relay_awake,
        started_at=request.started_at,
        request_id=request.request_id,
    )


def _outcome(request: Request, act: OperatorAct) -> OperatorAct:
    _mark(request, replayed=act.replayed)
    return act


def _mark(request: Request, *, replayed: bool) -> None:
    if replayed:
        request.answer_headers["Idempotency-Replayed"] = "true"


def _store() -> RiskSettingsStore:
    return RiskSettingsStore(database())


def _kill_switch() -> KillSwitchStore:
    return KillSwitchStore(database())


handler = http_handler(
    {
        "GET /api/v1/risk/settings/{id}": get_settings,
        "PATCH /api/v1/risk/settings/{id}": patch_settings,
        "GET /api/v1/risk/defaults": list_defaults,
        "PATCH /api/v1/risk/defaults/{tier}": patch_defaults,
        "GET /api/v1/risk/margin-calls": list_margin_calls,
        "GET /api/v1/risk/trading-state": get_trading_states,
        "POST /api/v1/risk/trading-state": post_trading_state,
        "POST /api/v1/risk/wind-downs": post_wind_down,
        "GET /api/v1/risk/wind-downs/{id}": get_wind_down,
    }
)
