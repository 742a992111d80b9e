"""What a token must carry for each route, over all routes of the template."""

import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from local.demo_accounts import PERMISSIONS
from local.gateway.template import load_template
from tests.kit import MigratedTemplate, ScratchDatabase, User, make_user, set_quote
from tests.kit.functions import (
    CSRF_SECRET,
    ROOT,
    Answer,
    bearer,
    call,
    function_environment,
    http_event,
    load_function,
    make_token,
)
from trading.edge.csrf import make_csrf_token

# None: nothing but a valid token.
NEEDED: Mapping[str, str | None] = {
    "POST /functions/v1/execute-order": "orders:write",
    "POST /api/v1/orders": "orders:write",
    "POST /api/v1/orders/oco": "orders:write",
    "POST /api/v1/orders/oto": "orders:write",
    "POST /api/v1/orders/bracket": "orders:write",
    "GET /api/v1/orders": "orders:read",
    "POST /api/v1/orders/preview": "orders:read",
    "GET /api/orders/history": "orders:read",
    "GET /api/v1/orders/{id}": "orders:read",
    "GET /api/v1/orders/{id}/audit": "orders:read",
    "POST /api/v1/orders/{id}/cancel": "orders:write",
    "POST /api/v1/orders/cancel-all": "orders:write",
    "PATCH /api/v1/orders/{id}": "orders:write",
    "GET /api/v1/positions": "positions:read",
    "GET /api/v1/positions/summary": "positions:read",
    "PATCH /api/v1/positions/{id}": "orders:write",
    "POST /api/v1/positions/{id}/close": "orders:write",
    "POST /api/v1/positions/{id}/close-by": "orders:write",
    "POST /api/v1/positions/close-all": "orders:write",
    "POST /api/v1/positions/{id}/close/preview": "orders:read",
    "POST /api/v1/positions/{id}/close-by/preview": "orders:read",
    "POST /api/v1/positions/close-all/preview": "orders:read",
    "POST /api/v1/positions/{id}/change/preview": "orders:read",
    "POST /api/v1/orders/oco/preview": "orders:read",
    "POST /api/v1/orders/oto/preview": "orders:read",
    "POST /api/v1/orders/bracket/preview": "orders:read",
    "POST /api/v1/orders/{id}/cancel/preview": "orders:read",
    "POST /api/v1/orders/cancel-all/preview": "orders:read",
    "GET /api/positions": "positions:read",
    "GET /api/v1/account": "account:read",
    "GET /api/user/profile": "account:read",
    "GET /api/v1/account/ledger-entries": "account:read",
    "GET /api/v1/account/risk": "account:read",
    "GET /api/v1/accounts": "accounts:write",
    "GET /api/v1/accounts/{id}/ledger-entries": "accounts:write",
    "GET /api/v1/accounts/{id}/risk": "accounts:write",
    "POST /api/v1/accounts/{id}/ledger-entries": "accounts:write",
    "PATCH /api/v1/accounts/{id}": "accounts:write",
    "POST /api/v1/risk/interventions": "interventions:write",
    "GET /api/v1/risk/interventions": "interventions:write",
    "DELETE /api/v1/risk/interventions/{id}": "interventions:write",
    "GET /api/v1/risk/security-events": "security:read",
    "GET /api/v1/risk/security-rules": "security:read",
    "PATCH /api/v1/risk/security-rules/{rule}": "interventions:write",
    "GET /api/v1/risk/never-blocked": "security:read",
    "POST /api/v1/risk/never-blocked": "interventions:write",
    "DELETE /api/v1/risk/never-blocked": "interventions:write",
    "GET /api/v1/risk/performance-reports": "alerts:write",
    "GET /api/v1/risk/alerts": "alerts:write",
    "POST /api/v1/risk/alerts/{id}/acknowledge": "alerts:write",
    "POST /api/v1/risk/alerts/{id}/resolve": "alerts:write",
    "GET /api/v1/risk/incidents/{id}": "alerts:write",
    "GET /api/v1/risk/settings": "account:read",
    "GET /api/v1/risk/settings/{id}": "risk:write",
    "PATCH /api/v1/risk/settings/{id}": "risk:write",
    "GET /api/v1/risk/defaults": "risk:write",
    "PATCH /api/v1/risk/defaults/{tier}": "risk:write",
    "GET /api/v1/risk/margin-profiles": "risk:write",
    "PATCH /api/v1/risk/margin-profiles/{name}": "risk:write",
    "GET /api/v1/risk/margin-calls": "risk:write",
    "GET /api/v1/risk/trading-state": "risk:write",
    "POST /api/v1/risk/trading-state": "risk:write",
    "POST /api/v1/risk/wind-downs": "risk:write",
    "GET /api/v1/risk/wind-downs/{id}": "risk:write",
    "GET /functions/v1/get-stock-price": None,
    "POST /functions/v1/get-stock-price": None,
    "GET /api/v1/prices": None,
    "GET /functions/v1/csrf-token": None,
}
WITHOUT_TOKEN = {"GET /health", "GET /api/v1/health", "GET /api/health"}
EVERY_PERMISSION = {permission for permissions in PERMISSIONS.values() for permission in permissions}
AUDIT = "GET /api/v1/orders/{id}/audit"
ORDER = {"symbol": "EURUSD", "order_type": "market", "side": "buy", "quantity": 1, "idempotency_key": "key"}
LIMIT = {"symbol": "EURUSD", "order_type": "limit", "side": "buy", "quantity": 1, "limit_price": "1.05"}
CREATING = {
    route
    for route, needed in NEEDED.items()
    if needed == "orders:write" and route.startswith("POST /api/v1/orders") and not route.endswith("/cancel-all")
} | {"POST /api/v1/risk/interventions"}
GROUPS: Mapping[str, Mapping[str, object]] = {
    "POST /api/v1/orders/oco": {"orders": [LIMIT, LIMIT]},
    "POST /api/v1/orders/oto": {"parent": LIMIT, "children": [LIMIT]},
    "POST /api/v1/orders/bracket": {
        "entry": LIMIT,
        "take_profit": {"limit_price": "1.10"},
        "stop_loss": {"stop_price": "1.00"},
    },
}
BODIES: Mapping[str, Mapping[str, object]] = {
    **GROUPS,
    **{f"{route}/preview": body for route, body in GROUPS.items()},
    "POST /functions/v1/execute-order": ORDER,
    "POST /api/v1/orders": ORDER,
    "POST /api/v1/orders/preview": {name: ORDER[name] for name in ORDER if name != "idempotency_key"},
    "PATCH /api/v1/orders/{id}": {"quantity": 1},
    "POST /functions/v1/get-stock-price": {"symbol": "EURUSD"},
    "POST /api/v1/accounts/{id}/ledger-entries": {"entry_type": "deposit", "amount": 1, "reason": "a test"},
    "PATCH /api/v1/positions/{id}": {"stop_loss": None},
    "POST /api/v1/positions/{id}/change/preview": {"stop_loss": None},
    "POST /api/v1/positions/{id}/close-by": {"opposite_position_id": str(uuid.UUID(int=0))},
    "POST /api/v1/positions/{id}/close-by/preview": {"opposite_position_id": str(uuid.UUID(int=0))},
    "PATCH /api/v1/accounts/{id}": {"leverage": 30, "reason": "a test"},
    "POST /api/v1/risk/alerts/{id}/resolve": {"note": "a test"},
    "POST /api/v1/risk/interventions": {"kind": "maintenance", "seconds": 60, "reason": "a test"},
    "PATCH /api/v1/risk/security-rules/{rule}": {"threshold": 10, "reason": "a test"},
    "POST /api/v1/risk/never-blocked": {"network": "192.0.2.0/24", "reason": "a test"},
    "DELETE /api/v1/risk/never-blocked": {"network": "192.0.2.0/24", "reason": "a test"},
    "PATCH /api/v1/risk/settings/{id}": {"limits": {"max_positions": 5}, "reason": "a test"},
    "PATCH /api/v1/risk/defaults/{tier}": {"limits": {"max_positions": 5}, "reason": "a test"},
    "PATCH /api/v1/risk/margin-profiles/{name}": {"stop_out_policy": "fifo", "reason": "a test"},
    "POST /api/v1/risk/trading-state": {"scope": "platform", "trading_state": "active", "reason": "a test"},
    "POST /api/v1/risk/wind-downs": {"scope": "platform", "action": "flatten", "reason": "a test"},
}
QUERIES: Mapping[str, dict[str, str]] = {
    "GET /functions/v1/get-stock-price": {"symbols": "EURUSD"},
    "GET /api/v1/prices": {"symbols": "EURUSD"},
    "GET /api/v1/accounts": {"email": "somebody@example.com"},
}
# What stands in the place of a name in a path: things that there are, but for ids.
PATHS = (("id", str(uuid.uuid4())), ("tier", "gold"), ("rule", "brute_force"), ("name", "retail"))
# Folder -> its login role, and the roles of callers that it is for.
STAFF: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "manage_accounts": ("function_operator", ("operator",)),
    "manage_risk": ("function_risk_officer", ("risk_officer",)),
    "manage_incidents": ("function_incidents", ("risk_officer", "operator")),
}
# What takes risk away, and so goes on in maintenance unless that is full.
REDUCING = {
    "POST /api/v1/orders/{id}/cancel",
    "POST /api/v1/orders/cancel-all",
    "PATCH /api/v1/positions/{id}",
    "POST /api/v1/positions/{id}/close",
    "POST /api/v1/positions/{id}/close-by",
    "POST /api/v1/positions/close-all",
}
# Whose work maintenance never holds up: what began it is theirs to end.
NEVER_HELD_UP = ("manage_risk", "manage_incidents")
# Who is on call besides.
ON_CALL = {route for route, needed in NEEDED.items() if needed == "alerts:write"}
# Where risk officers look at accounts, by their own permission.
LOOKED_UP = [route for route, needed in NEEDED.items() if needed == "accounts:write" and route.startswith("GET ")]


def routes_of_the_template() -> dict[str, str]:
    """Route -> folder of its function."""
    resources = load_template(ROOT / "template.yaml")["Resources"].values()
    return {
        f"{event['Properties']['Method']} {event['Properties']['Path']}": Path(resource["Properties"]["CodeUri"]).name
        for resource in resources
        if resource["Type"] == "AWS::Serverless::Function"
        for event in resource["Properties"].get("Events", {}).values()
        if event["Type"] == "HttpApi"
    }


ROUTES = routes_of_the_template()
# What they do is there for everybody.
PLATFORM_WIDE = {
    "POST /api/v1/risk/interventions",
    "POST /api/v1/risk/trading-state",
    "POST /api/v1/risk/wind-downs",
    "PATCH /api/v1/risk/defaults/{tier}",
    "PATCH /api/v1/risk/margin-profiles/{name}",
}
every_guarded_route = pytest.mark.parametrize("route", [route for route, needed in NEEDED.items() if needed])


@pytest.fixture
def route() -> str:
    """None, where a test is not about one route."""
    return ""


def own_database(migrated: MigratedTemplate) -> Iterator[ScratchDatabase]:
    """A clone, until its fixture ends."""
    scratch = migrated.clone()
    yield scratch
    scratch.drop()


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[ScratchDatabase]:
    yield from own_database(migrated)


@pytest.fixture
def database(route: str, shared: ScratchDatabase, migrated: MigratedTemplate) -> Iterator[ScratchDatabase]:
    """One for all, but another one where what is done would stay for all."""
    if route in PLATFORM_WIDE:
        yield from own_database(migrated)
    else:
        yield shared


@pytest.fixture(autouse=True)
def environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str, database: ScratchDatabase, route: str
) -> Iterator[None]:
    with database.connect() as connection:
        connection.execute("UPDATE platform_settings SET trade_always = true")
    set_quote(database, "EURUSD", "1.1000", "1.1002")
    if route == "POST /api/v1/risk/wind-downs":
        with database.connect() as connection:
            connection.execute("UPDATE platform_settings SET trading_state = 'reducing'")
    role, _ = STAFF.get(ROUTES.get(route, ""), ("function_trader", ()))
    with function_environment(monkeypatch, tmp_path, database=database, redis_url=redis_url, role=role):
        yield


@pytest.fixture
def trader(database: ScratchDatabase) -> User:
    return make_user(database)


def ask(route: str, user: User | uuid.UUID, headers: Mapping[str, str] | None = None, **claims: Any) -> Answer:
    """The answer to a request that lacks nothing but perhaps a permission."""
    _, roles = STAFF.get(ROUTES[route], ("", ()))
    given = {"tier": "unmetered"} | ({"role": roles[-1]} if roles else {}) | claims
    event = http_event(
        route,
        path_parameters=next((dict([each]) for each in PATHS if f"{{{each[0]}}}" in route), None),
        query=QUERIES.get(route),
        headers=bearer(make_token(user, **given)) | dict(headers or {}),
        body=json.dumps(BODIES[route]) if route in BODIES else None,
    )
    return call(load_function(ROUTES[route]), event)


def error_of(answer: Answer) -> dict[str, Any]:
    """{code, details} whatever the dialect."""
    error = answer.body.get("error")
    if isinstance(error, dict):
        return {"code": error["code"], "message": error["message"], "details": error["details"]}
    return {"code": error, "message": answer.body.get("message"), "details": answer.body.get("details")}


def test_every_route_is_judged_here() -> None:
    assert set(NEEDED) | WITHOUT_TOKEN == set(ROUTES)


@every_guarded_route
def test_without_its_permission_a_route_refuses_and_names_it(route: str, trader: User) -> None:
    needed = NEEDED[route]
    assert needed
    # given a token with every permission but this one, and, as it would open any audit, the auditor's
    others = sorted(EVERY_PERMISSION - {needed, "audit:read"})

    answer = ask(route, trader, permissions=others)

    error = error_of(answer)
    assert (answer.status, error["code"]) == (403, "FORBIDDEN")
    assert needed in error["message"]
    assert error["details"] == {"field": "permissions", "value": None, "constraint": needed}


@every_guarded_route
def test_with_its_permission_alone_a_route_serves(route: str, trader: User) -> None:
    answer = ask(route, trader, permissions=[NEEDED[route]])

    # the order, position or account that is asked for does not exist
    assert answer.status == (404 if "{id}" in route else 201 if route in CREATING else 200), answer.text


@pytest.mark.parametrize("route", [route for route, needed in NEEDED.items() if needed is None])
def test_the_other_routes_need_a_token_alone(route: str, trader: User) -> None:
    answer = ask(route, trader, permissions=[], sid="session-1")

    assert answer.status == 200


@pytest.mark.parametrize("route", [route for route, folder in ROUTES.items() if folder in STAFF])
@pytest.mark.parametrize("role", ["trader", "compliance", "risk_officer", "on_call", "Operator"])
def test_what_staff_do_needs_their_role_as_well(route: str, role: str, trader: User) -> None:
    others = {"on_call": route in ON_CALL, "risk_officer": route in LOOKED_UP}
    roles = (*STAFF[ROUTES[route]][1], *(other for other, may in others.items() if may))
    answer = ask(route, trader, permissions=sorted(EVERY_PERMISSION), role=role)

    if role in roles:
        assert answer.status != 403
        return
    error = error_of(answer)
    assert (answer.status, error["code"]) == (403, "FORBIDDEN")
    assert error["details"] == {"field": "role", "value": None, "constraint": " or ".join(roles)}


class TestMaintenance:
    @pytest.fixture
    def database(self, migrated: MigratedTemplate) -> Iterator[ScratchDatabase]:
        """One of its own: maintenance is there for everybody, and stays."""
        yield from own_database(migrated)

    @pytest.mark.parametrize(("parameters", "open_to_traders"), [({}, REDUCING), ({"level": "full"}, set[str]())])
    def test_maintenance_refuses_what_adds_and_only_full_maintenance_the_rest(
        self,
        parameters: dict[str, str],
        open_to_traders: set[str],
        trader: User,
        database: ScratchDatabase,
        redis_url: str,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        asked = {"kind": "maintenance", "parameters": parameters, "seconds": 600, "reason": "a test", "actor": "a test"}
        with database.connect("function_incidents") as connection:
            connection.execute("SELECT start_intervention(%s)", (Jsonb({"version": 1} | asked),))

        refused: set[str] = set()
        for route, folder in ROUTES.items():
            if route in WITHOUT_TOKEN:
                continue
            role, _ = STAFF.get(folder, ("function_trader", ()))
            with function_environment(monkeypatch, tmp_path, database=database, redis_url=redis_url, role=role):
                answer = ask(route, trader, permissions=sorted(EVERY_PERMISSION))
            # A preview is let in, and finds no fresh price.
            if answer.status == 503 and error_of(answer)["code"] != "MARKET_DATA_UNAVAILABLE":
                assert (error_of(answer)["code"], "Retry-After" in answer.headers) == ("MAINTENANCE", True)
                refused.add(route)

        held_up = {
            route
            for route, needed in NEEDED.items()
            if needed in {"orders:write", "accounts:write"}
            and not route.startswith("GET")
            and ROUTES[route] not in NEVER_HELD_UP
        }
        assert refused == held_up - open_to_traders


@pytest.mark.parametrize("route", LOOKED_UP)
def test_risk_officers_look_at_accounts_by_their_own_permission(route: str, trader: User) -> None:
    others = sorted(EVERY_PERMISSION - {"risk:write"})

    assert ask(route, trader, role="risk_officer", permissions=["risk:write"]).status in {200, 404}
    assert (
        error_of(ask(route, trader, role="risk_officer", permissions=others))["details"]["constraint"] == "risk:write"
    )
    assert error_of(ask(route, trader, role="operator", permissions=["risk:write"]))["code"] == "FORBIDDEN"


class TestAudit:
    def order_of(self, trader: User) -> str:
        return ask("POST /api/v1/orders", trader).body["id"]

    def audit(self, order_id: str, user: User | uuid.UUID, **claims: Any) -> Answer:
        event = http_event(AUDIT, path_parameters={"id": order_id}, headers=bearer(make_token(user, **claims)))
        return call(load_function("manage_orders"), event)

    def test_ones_own_and_as_an_auditor_anybodys(self, trader: User) -> None:
        order_id, stranger = self.order_of(trader), uuid.uuid4()

        assert self.audit(order_id, trader, permissions=["orders:read"]).body["total"] == 4
        assert self.audit(order_id, stranger, permissions=["audit:read"]).body["total"] == 4
        assert self.audit(order_id, stranger, permissions=[], role="compliance").body["total"] == 4
        assert self.audit(order_id, stranger, permissions=["orders:read"]).status == 404
        assert self.audit(order_id, stranger, permissions=[]).status == 403


class TestOrderOfOutcomes:
    def test_the_csrf_token_is_asked_for_first(self, trader: User) -> None:
        csrf = make_csrf_token(CSRF_SECRET, trader.user_id, "s1", datetime.now(UTC)).token
        claims: dict[str, Any] = {"permissions": [], "sid": "s1"}

        without = ask("POST /api/v1/orders", trader, **claims)
        with_it = ask("POST /api/v1/orders", trader, {"x-csrf-token": csrf}, **claims)

        assert (error_of(without)["code"], error_of(with_it)["code"]) == ("CSRF_FAILED", "FORBIDDEN")

    def test_a_refused_request_counts(self, trader: User) -> None:
        codes = [error_of(ask("GET /api/v1/account", trader, permissions=[], tier="bronze"))["code"] for _ in range(11)]

        assert codes == ["FORBIDDEN"] * 10 + ["RATE_LIMIT_EXCEEDED"]


@pytest.mark.parametrize("role", PERMISSIONS)
def test_the_demo_roles_read_and_traders_alone_order(role: str) -> None:
    given = set(PERMISSIONS[role])

    assert {"orders:read", "positions:read", "account:read"} <= given
    assert ("orders:write" in given) == (role == "trader")
    assert ("audit:read" in given) == (role == "compliance")
    assert ("accounts:write" in given) == (role == "operator")
    assert ({"interventions:write", "security:read"} <= given) == (role in {"risk_officer", "operator"})
    assert ("alerts:write" in given) == (role in {"risk_officer", "operator", "on_call"})
