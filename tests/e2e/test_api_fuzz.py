"""Every operation of docs/api/openapi.json, asked with what fits it and with what does not.

Each answer is held against the document by the client itself (tests/kit/openapi.py): its status, its headers, the
form of its dialect, and for VALIDATION_FAILED the field, the value and the constraint.
"""

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from psycopg.types.json import Jsonb

from tests.kit.builders import order_body
from tests.kit.fuzz import Sent, fitting, permissions, sample, send, token_of, unfitting
from tests.kit.openapi import Described, operations
from tests.kit.traders import Trader, Traders, exact, execute

bounded = settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)
# What stops trading or winds it down.
STOPPING = {"/api/v1/risk/trading-state", "/api/v1/risk/wind-downs"}
# The roles that the alternatives of a route's permission are for, in the document's order.
LOOKING = ("operator", "risk_officer")
# A limit in EURUSD that the market does not reach.
FAR_BELOW = "0.50000"
RESTING = {"symbol": "EURUSD", "order_type": "LIMIT", "price": FAR_BELOW, "quantity": "0.1"}
# What an id in a path is the id of.
COLLECTION = re.compile(r"/([a-z_-]+)/\{id\}")
every_operation = pytest.mark.parametrize("described", operations(), ids=lambda each: each.operation["operationId"])


@dataclass(frozen=True, slots=True)
class Caller:
    """A trader with orders and two opposite positions, and a token that carries every permission.

    `ids` are those that the caller may act on, by collection; the first is one that acting on succeeds. The accounts
    are other users', because nobody may act on one of their own.
    """

    trader: Trader
    token: str
    ids: dict[str, list[str]]

    def real(self, described: Described) -> dict[str, list[Any]]:
        """Values that mean something, by the names of members and parameters."""
        found = COLLECTION.search(described.path)
        return {
            "symbol": ["EURUSD", "eurusd", "BTCUSD", "AAPL"],
            "symbols": ["EURUSD", "AAPL,eurusd"],
            "order_type": ["market", "MARKET"],
            "quantity": ["0.1", 0.02, "0.5"],
            "account_id": [str(self.trader.account_id)],
            "opposite_position_id": self.ids["opposite positions"],
            "cursor": self.ids["orders"],
            "email": [self.trader.email],
            # One that changes nothing for the tests beside these.
            "kind": ["ip_block"],
            "target": ["203.0.113.9"],
            "tier": self.ids["tiers"],
            # A rule that finds nobody, a profile that watches nobody, and a network that nobody comes from.
            "rule": self.ids["rules"],
            "name": self.ids["margin profiles"],
            "network": ["192.0.2.0/24"],
            # Of an account that nobody trades on, never of the platform or a symbol.
            "scope": ["account"],
            **({"account_id": self.ids["halted"]} if described.path in STOPPING else {}),
            **({"id": self.ids[found[1]]} if found else {}),
        }

    def send(self, sent: Sent, **claims: object) -> httpx.Response:
        """The answer to a request, with a token that has other claims; None leaves a claim out."""
        if sent.path.startswith("/api/v1/risk/"):
            claims = {"role": "risk_officer"} | claims
        return send(self.trader.http, token_of(self.trader, **claims) if claims else self.token, sent)

    def sample(self, described: Described) -> Sent:
        """A request that is certain to pass."""
        return sample(described, self.real(described))


def new_caller(traders: Traders, tier: str) -> Caller:
    trader = traders.new()
    filled = exact(trader.order(quantity=1))["data"]
    opposite = exact(trader.order(quantity=1, side="sell"))["data"]
    resting = exact(trader.order(order_type="limit", limit_price=FAR_BELOW))["data"]
    ids = {
        "orders": [resting["order_id"], filled["order_id"]],
        "positions": [filled["position_id"]],
        "opposite positions": [opposite["position_id"]],
        "accounts": [str(traders.new().account_id)],
        "settings": [str(traders.new().account_id)],
        # One that nobody trades in, whose limits no other caller has changed.
        "tiers": [tier],
        "halted": [halted_account(traders)],
        "rules": [idle_rule(trader)],
        "margin profiles": [idle_margin_profile(trader)],
        **alert_about(trader),
        # One that there is not: it would have to be started by a confirmation.
        "wind-downs": [str(uuid.uuid4())],
    }
    caller = Caller(trader, token_of(trader), ids)
    nobody = f"2001:db8:{trader.user_id.hex[-8:-4]}:{trader.user_id.hex[-4:]}::"
    kept = {"kind": "ip_block", "target": nobody, "seconds": 3600, "reason": "a test"}
    started = caller.send(Sent("POST", "/api/v1/risk/interventions", (), {}, json.dumps(kept).encode()))
    ids["interventions"] = [exact(started)["id"]]
    return caller


def halted_account(traders: Traders) -> str:
    """An account whose trading was stopped, by whoever has the database."""
    halted = traders.new()
    request = {
        "version": 1,
        "scope": "account",
        "account_id": str(halted.account_id),
        "trading_state": "halted",
        "reason": "a test",
        "actor": "tests",
        "idempotency_key": str(halted.account_id),
        "request_hash": "hash",
    }
    execute(halted.system, "SELECT set_trading_state(%s)", Jsonb(request))
    return str(halted.account_id)


def idle_rule(trader: Trader) -> str:
    """A rule of the watch over security that counts what nobody does."""
    execute(
        trader.system,
        "INSERT INTO security_rules (rule, measure, subject, event_type, threshold, window_seconds, severity) "
        "VALUES ('idle', 'events', 'user', 'nothing_of_ours', 1, 10, 'low') ON CONFLICT DO NOTHING",
    )
    return "idle"


def idle_margin_profile(trader: Trader) -> str:
    """A margin profile that no account is watched by and no other caller has changed."""
    name = f"idle_{trader.user_id.hex[-12:]}"
    execute(
        trader.system,
        "WITH p AS (INSERT INTO margin_profiles (name, description) VALUES (%s, 'of a test') RETURNING name) "
        "INSERT INTO margin_profile_levels SELECT p.name, l.* FROM p "
        "CROSS JOIN (VALUES ('margin_call', 'call', 50, 105), ('stop_out', 'stop_out', 20, 105)) AS l",
        name,
    )
    return name


def alert_about(trader: Trader) -> dict[str, list[str]]:
    """An open alert, and its incident."""
    reading = {"rule": "MARGIN_WATCH_SILENT", "subject": str(trader.user_id), "verdict": "breached", "value": 400}
    readings = {"version": 1, "samples": [], "readings": [reading | {"samples": 1}]}
    execute(trader.system, "SELECT record_readings(%s)", Jsonb(readings))
    (found,) = execute(
        trader.system,
        "SELECT a.id AS alert_id, i.id AS incident_id FROM alerts AS a INNER JOIN incidents AS i ON i.alert_id = a.id "
        "WHERE a.subject = %s",
        str(trader.user_id),
    )
    return {"alerts": [str(found["alert_id"])], "incidents": [str(found["incident_id"])]}


@pytest.fixture(scope="module")
def caller(all_traders: Traders) -> Iterator[Caller]:
    made = new_caller(all_traders, "platinum")
    yield made
    made.trader.close()


@pytest.fixture(scope="module")
def untouched(all_traders: Traders) -> Iterator[Caller]:
    """A caller whose position is still open: no other test acts on it."""
    made = new_caller(all_traders, "silver")
    yield made
    made.trader.close()


@every_operation
def test_what_fits_is_answered_as_described(caller: Caller, described: Described) -> None:
    @bounded
    @given(fitting(described, caller.real(described)))
    def asked(sent: Sent) -> None:
        response = caller.send(sent)
        assert response.status_code < 500, (sent, response.text)

    asked()


@every_operation
def test_what_does_not_fit_is_refused(caller: Caller, described: Described) -> None:
    strategy = unfitting(described)
    if strategy is None:
        return

    @bounded
    @given(strategy)
    def asked(sent: Sent) -> None:
        response = caller.send(sent)
        assert 400 <= response.status_code < 500, (sent, response.text)

    asked()


@every_operation
def test_its_own_example_is_taken(untouched: Caller, described: Described) -> None:
    if "requestBody" not in described.operation:
        return
    # Of those that act on an order or a position, each has one that no other has ended.
    resting = untouched.send(Sent("POST", "/api/v1/orders", (), {}, json.dumps(RESTING).encode()))
    untouched.ids["orders"].insert(0, exact(resting)["id"])
    if "/positions/" in described.path:
        for ids, side in (("positions", "buy"), ("opposite positions", "sell")):
            order = json.dumps(order_body(quantity=1, side=side)).encode()
            opened = exact(untouched.send(Sent("POST", "/functions/v1/execute-order", (), {}, order)))["data"]
            untouched.ids[ids].insert(0, opened["position_id"])
    response = untouched.send(untouched.sample(described))
    assert response.is_success, response.text


# --- who may ------------------------------------------------------------------------------------------------------


def code_of(response: httpx.Response) -> str | None:
    """The code of an error, None for a success."""
    body = exact(response)
    return None if response.is_success else body["error"]["code"] if "context" in body else body["error"]


def constraint_of(response: httpx.Response) -> str:
    body = exact(response)
    return (body["error"] if "context" in body else body)["details"]["constraint"]


@every_operation
def test_it_asks_for_a_token_when_it_says_so(caller: Caller, described: Described) -> None:
    response = send(caller.trader.http, None, caller.sample(described))
    assert code_of(response) == ("UNAUTHENTICATED" if described.operation["security"] else None)


@every_operation
def test_it_asks_for_the_permission_that_it_names_and_for_no_other(caller: Caller, described: Described) -> None:
    alternatives = [set(choice["bearer"]) for choice in described.operation["security"]] or [set[str]()]
    roles = [{"role": role} for role in LOOKING] if len(alternatives) > 1 else [{}]
    # given a caller of the role that an alternative is for
    for role, needed in zip(roles, alternatives, strict=True):
        for permission in permissions():
            # when the caller has every other permission
            others = [each for each in permissions() if each != permission]
            response = caller.send(caller.sample(described), permissions=others, **role)
            # then exactly the one that the document names is missed
            missed = code_of(response) == "FORBIDDEN" and constraint_of(response) == permission
            assert missed == (permission in needed), (role, permission, response.text)


@every_operation
def test_it_asks_a_browser_session_for_its_csrf_token_when_it_says_so(caller: Caller, described: Described) -> None:
    schemes = {scheme for choice in described.operation["security"] for scheme in choice}
    response = caller.send(caller.sample(described), sid="a-session", client_id=None)
    assert (code_of(response) == "CSRF_FAILED") == ("csrf" in schemes), response.text


@every_operation
def test_its_answer_tells_how_much_is_left(caller: Caller, described: Described) -> None:
    response = caller.send(caller.sample(described), tier="platinum", sub=str(uuid.uuid4()))
    limited = bool(described.operation["security"])
    assert ("x-ratelimit-remaining" in response.headers) == limited, response.headers
