"""What risk officers do: look up and change limits and margin profiles, stop trading, and wind it down."""

from datetime import UTC, datetime

from trading.edge.acts import key_terms, mark_repeat, origin_of, relay_waker, told_act
from trading.edge.gate import Caller, admit
from trading.edge.http import Request, Response, http_handler
from trading.edge.reading_dialects import parse_id, parse_name
from trading.edge.risk_dialects import changed_body, risk_change, settings_body, tiers_body
from trading.limit_keeping import CHANGES_SHOWN_MAX, change_limits, change_limits_of_tier, change_profile, read_limits
from trading.queue import start_triggers
from trading.secrets import csrf_secret
from trading.store.connection import database
from trading.store.kill_switch import KillSwitchStore
from trading.store.risk_settings import RiskSettingsStore

# Its own rate limit: a script that changes limits must not keep its officer from stopping trade.
KILL_SWITCH = "kill_switch"


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
        _store(), account_id, change, origin_of(request, caller), key_terms(request, body), relay_waker(request, caller)
    )
    return Response(200, changed_body(told_act(request, act).answer))


def list_defaults(request: Request) -> Response:
    """GET /api/v1/risk/defaults: the limits of each tier, and who changed them."""
    _admit(request, state_changing=False)
    return Response(body=tiers_body(_store().tiers(CHANGES_SHOWN_MAX)))


def patch_defaults(request: Request) -> Response:
    """PATCH /api/v1/risk/defaults/{tier}: what binds all its accounts that have no limits of their own."""
    caller = _admit(request, state_changing=True)
    body = request.json()
    change = risk_change(request, body)
    tier = parse_name(request.path_parameters["tier"], "tier")
    act = change_limits_of_tier(_store(), tier, change, origin_of(request, caller), key_terms(request, body))
    return Response(200, changed_body(told_act(request, act).answer))


def get_trading_states(request: Request) -> Response:
    """GET /api/v1/risk/trading-state: what is not active, and who set what last."""
    from trading.edge.kill_switch_dialects import states_body

    _admit(request, state_changing=False)
    return Response(body=states_body(_kill_switch().trading_states()))


def post_trading_state(request: Request) -> Response:
    """POST /api/v1/risk/trading-state: the kill switch of the platform, a symbol or an account."""
    from trading.edge.kill_switch_dialects import state_body, state_change
    from trading.kill_switch import set_trading_state

    caller = _admit(request, state_changing=True, route_group=KILL_SWITCH)
    body = request.json()
    change = set_trading_state(
        _kill_switch(),
        state_change(request, body),
        origin_of(request, caller),
        key_terms(request, body),
        relay_waker(request, caller),
    )
    mark_repeat(request, replayed=change.replayed)
    return Response(200, state_body(change))


def post_wind_down(request: Request) -> Response:
    """POST /api/v1/risk/wind-downs: 200 with what it would end and its confirmation; with that, 202."""
    from trading.edge.kill_switch_dialects import wind_down_asked, wind_down_body, without_confirmation
    from trading.kill_switch import wind_down

    caller = _admit(request, state_changing=True, route_group=KILL_SWITCH)
    body = request.json()
    act = wind_down(
        _kill_switch(),
        wind_down_asked(request, body),
        origin_of(request, caller),
        key_terms(request, without_confirmation(body)),
        start_triggers,
        secret=csrf_secret(),
        now=datetime.now(UTC),
    )
    mark_repeat(request, replayed=act.replayed)
    return Response(200 if act.confirmation else 202, wind_down_body(act))


def get_wind_down(request: Request) -> Response:
    """GET /api/v1/risk/wind-downs/{id}: how far it has come."""
    from trading.edge.kill_switch_dialects import progress_body

    _admit(request, state_changing=False)
    wind_down_id = parse_id(request.path_parameters["id"], "id")
    return Response(body=progress_body(_kill_switch().wind_down(wind_down_id)))


def list_margin_profiles(request: Request) -> Response:
    """GET /api/v1/risk/margin-profiles: the levels of each, and who changed them."""
    from trading.edge.margin_profile_dialects import profiles_body

    _admit(request, state_changing=False)
    return Response(body=profiles_body(_store().margin_profiles(CHANGES_SHOWN_MAX)))


def patch_margin_profile(request: Request) -> Response:
    """PATCH /api/v1/risk/margin-profiles/{name}: what its accounts are watched by from the next look on."""
    from trading.edge.margin_profile_dialects import changed_profile_body, profile_change

    caller = _admit(request, state_changing=True)
    body = request.json()
    change = profile_change(request, body)
    name = parse_name(request.path_parameters["name"], "name")
    act = change_profile(_store(), name, change, origin_of(request, caller), key_terms(request, body))
    return Response(200, changed_profile_body(told_act(request, act).answer))


def list_margin_calls(request: Request) -> Response:
    """GET /api/v1/risk/margin-calls?state=: who is, or was, below a margin level."""
    from trading.edge.margin_call_dialects import margin_calls_body, margin_calls_query

    _admit(request, state_changing=False)
    asked, page = margin_calls_query(request.query)
    return Response(body=margin_calls_body(_store().margin_calls(asked), page))


def _admit(request: Request, *, state_changing: bool, route_group: str = "risk") -> Caller:
    # The permission alone does not do: it takes the role that the database's own role is for. Trading is stopped in
    # maintenance too.
    return admit(
        request,
        route_group=route_group,
        state_changing=state_changing,
        permission="risk:write",
        roles=("risk_officer",),
        in_maintenance=True,
    )


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
        "GET /api/v1/risk/margin-profiles": list_margin_profiles,
        "PATCH /api/v1/risk/margin-profiles/{name}": patch_margin_profile,
        "GET /api/v1/risk/margin-calls": list_margin_calls,
        "GET /api/v1/risk/trading-state": get_trading_states,
        "POST /api/v1/risk/trading-state": post_trading_state,
        "POST /api/v1/risk/wind-downs": post_wind_down,
        "GET /api/v1/risk/wind-downs/{id}": get_wind_down,
    }
)
