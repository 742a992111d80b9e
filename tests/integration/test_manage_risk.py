"""What risk officers do over HTTP: limits read and changed, with their history; and a trader's own limits."""

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.kit import MigratedTemplate, TestServers, User
from tests.kit.functions import Answer, bearer, call, function_environment, http_event, load_function, make_token
from tests.kit.gateway import eventually
from tests.kit.operators import act
from tests.kit.orders import Market

OFFICER_ID = UUID("01a1fc5d-0000-7000-8000-00000000cafe")
SETTINGS = "/api/v1/risk/settings/{id}"
DEFAULTS = "/api/v1/risk/defaults"
MARGIN_CALLS = "/api/v1/risk/margin-calls"
CLAIMS: dict[str, Any] = {
    "role": "risk_officer",
    "tier": "unmetered",
    "permissions": ["risk:write"],
    "email": "risk@example.com",
}


@dataclass(frozen=True)
class Api:
    """The function's handler on a database of the module's own, and whom it woke the relay for."""

    market: Market
    handler: Any
    woken: list[UUID]

    def ask(
        self,
        route: str,
        path: dict[str, str],
        body: object = None,
        *,
        query: dict[str, str] | None = None,
        officer: UUID = OFFICER_ID,
    ) -> Answer:
        event = http_event(
            route,
            path_parameters=path or None,
            query=query,
            headers=bearer(make_token(officer, **CLAIMS)),
            body=None if body is None else json.dumps(body),
        )
        return call(self.handler, event)

    def change(self, user: User | UUID, limits: object, **fields: Any) -> Answer:
        account_id = user.account_id if isinstance(user, User) else user
        officer = fields.pop("officer", OFFICER_ID)
        body = {"limits": limits, "reason": "a test"} | fields
        return self.ask(f"PATCH {SETTINGS}", {"id": str(account_id)}, body, officer=officer)

    def change_tier(self, tier: str, limits: object, **fields: Any) -> Answer:
        return self.ask(f"PATCH {DEFAULTS}/{{tier}}", {"tier": tier}, {"limits": limits, "reason": "a test"} | fields)

    def read(self, user: User) -> dict[str, Any]:
        return self.ask(f"GET {SETTINGS}", {"id": str(user.account_id)}).body

    def settings_row(self, user: User) -> dict[str, Any]:
        (row,) = self.market.rows("risk_settings", user)
        return row


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market:
            yield market
            assert market.book_faults() == []
    finally:
        scratch.drop()


@pytest.fixture
def api(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Market, servers: TestServers, redis_url: str
) -> Iterator[Api]:
    shared.prepare()
    woken: list[UUID] = []
    role = "function_risk_officer"
    with function_environment(monkeypatch, tmp_path, database=shared.database, redis_url=redis_url, role=role):
        from trading.edge import acts

        def noted(account_id: UUID, **_: object) -> None:
            woken.append(account_id)

        monkeypatch.setattr(acts, "notify_relay_unless_awake", noted)
        yield Api(shared, load_function("manage_risk"), woken)


@pytest.fixture
def user(api: Api) -> User:
    return api.market.user()


EACH = {
    "max_order_quantity": ("2.50", "2.5"),
    "max_order_notional": (1000000, "1000000"),
    "max_position_size": ("7", "7"),
    "max_positions": (3, 3),
    "max_working_orders": ("4", 4),
    "max_exposure": ("5000000.25", "5000000.25"),
    "max_concentration_percent": ("60", "60"),
    "concentration_from_exposure": (10000, "10000"),
    "order_rate_limit": (30, 30),
    "order_rate_window_s": (10, 10),
    "duplicate_window_ms": (250, 250),
    "daily_trade_limit": (50, 50),
    "max_daily_loss": ("500.5", "500.5"),
    "max_drawdown_percent": ("12.5", "12.5"),
    "max_losses_in_a_row": (8, 8),
    "stop_loss_required": (True, True),
    "stop_loss_min_percent": ("0.1", "0.1"),
    "stop_loss_max_percent": (5, "5"),
    "price_collar_percent": (3, "3"),
    "restricted_symbols": (["BTCUSD", "AAPL"], ["BTCUSD", "AAPL"]),
    "leverage_profile": ("esma_retail", "esma_retail"),
    "day_time_zone": ("America/New_York", "America/New_York"),
    "day_start_hour": (17, 17),
}


class TestAnAccount:
    def test_every_limit_is_set_told_kept_and_audited(self, api: Api, user: User) -> None:
        answer = api.change(user, {name: given for name, (given, _) in EACH.items()})

        after = {name: told for name, (_, told) in EACH.items()}
        assert answer.status == 200
        assert answer.body["after"] == after
        assert answer.body["before"] == dict.fromkeys(EACH)
        # then it is read back, with who changed it
        found = api.read(user)
        assert found["limits"] == after
        assert found["own"] == after
        assert found["tier_limits"]["max_positions"] == 10
        (change,) = found["changes"]
        assert (change["actor"], change["reason"], change["after"]) == (str(OFFICER_ID), "a test", after)
        # and it stands in the audit, in one event, and the relay knows
        audit = max(api.market.rows("order_audit_log", user), key=lambda row: row["version"])
        assert (audit["action"], audit["reason"]) == ("RISK_SETTINGS_CHANGED", "a test")
        assert audit["details"]["actor"] == str(OFFICER_ID)
        assert audit["details"]["limits_after"].keys() == EACH.keys()
        event = api.market.last_event(user)
        assert (event["event_type"], event["sequence"]) == ("account.risk_settings_changed", answer.body["sequence"])
        assert api.woken == [user.account_id]

    def test_it_holds_for_the_next_order(self, api: Api, user: User) -> None:
        assert api.market.trade(user)["outcome"] == "filled"

        api.change(user, {"max_order_quantity": "0.5"})

        assert api.market.trade(user)["details"]["limit"] == "max_order_quantity"

    def test_null_goes_back_to_the_tier_and_unlimited_lifts(self, api: Api, user: User) -> None:
        api.change(user, {"max_positions": 2})

        lifted = api.change(user, {"max_positions": "unlimited"})
        binding_then = api.read(user)["limits"]["max_positions"]
        returned = api.change(user, {"max_positions": None})

        assert (lifted.body["before"], lifted.body["after"]) == ({"max_positions": 2}, {"max_positions": "unlimited"})
        assert binding_then is None
        assert returned.body["after"] == {"max_positions": None}
        assert api.read(user)["limits"]["max_positions"] == 10
        assert [change["after"] for change in api.read(user)["changes"]] == [
            {"max_positions": None},
            {"max_positions": "unlimited"},
            {"max_positions": 2},
        ]

    def test_a_repeat_is_answered_the_same_and_changes_nothing(self, api: Api, user: User) -> None:
        first = api.change(user, {"max_positions": 2}, idempotency_key="once")
        again = api.change(user, {"max_positions": 2}, idempotency_key="once")
        other = api.change(user, {"max_positions": 3}, idempotency_key="once")

        assert again.body == first.body
        assert again.headers["Idempotency-Replayed"] == "true"
        assert (other.status, other.body["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")
        assert len(api.read(user)["changes"]) == 1

    @pytest.mark.parametrize(
        ("limits", "field"),
        [
            ({"max_positions": -1}, "max_positions"),
            ({"max_positions": 1.5}, "max_positions"),
            ({"max_positions": "many"}, "max_positions"),
            ({"max_positions": [1]}, "max_positions"),
            ({"max_positions": True}, "max_positions"),
            ({"max_order_quantity": 0}, "max_order_quantity"),
            ({"max_order_quantity": "NaN"}, "max_order_quantity"),
            ({"max_order_quantity": "0x10"}, "max_order_quantity"),
            ({"max_order_quantity": "1_000"}, "max_order_quantity"),
            ({"max_order_quantity": " 5 "}, "max_order_quantity"),
            ({"max_order_quantity": "1e400"}, "max_order_quantity"),
            ({"max_concentration_percent": "100.01"}, "max_concentration_percent"),
            ({"max_daily_loss": "0.0000001"}, "max_daily_loss"),
            ({"stop_loss_required": "yes"}, "stop_loss_required"),
            ({"stop_loss_required": "unlimited"}, "stop_loss_required"),
            ({"stop_loss_min_percent": 3, "stop_loss_max_percent": 2}, "stop_loss_min_percent"),
            ({"restricted_symbols": ["NOPE"]}, "restricted_symbols"),
            ({"restricted_symbols": "EURUSD"}, "restricted_symbols"),
            ({"restricted_symbols": ["EURUSD"] * 201}, "restricted_symbols"),
            ({"leverage_profile": "nobody"}, "leverage_profile"),
            ({"day_time_zone": "Mars/Olympus"}, "day_time_zone"),
            ({"day_start_hour": 24}, "day_start_hour"),
            ({"max_pain": 1}, "limits"),
            ({"max_positions": None}, "limits"),  # as it is
            ({}, "limits"),
            ([], "limits"),
            ("max_positions", "limits"),
        ],
    )
    def test_what_cannot_be_set_is_refused_by_name(self, api: Api, user: User, limits: object, field: str) -> None:
        before = api.settings_row(user)

        answer = api.change(user, limits)

        assert (answer.status, answer.body["error"]) == (400, "VALIDATION_FAILED")
        assert answer.body["details"]["field"] == field
        assert api.settings_row(user) == before

    def test_both_distances_of_a_stop_may_be_one(self, api: Api, user: User) -> None:
        assert api.change(user, {"stop_loss_min_percent": 2, "stop_loss_max_percent": 2}).status == 200

    def test_a_limit_that_there_is_not_is_answered_with_those_that_there_are(self, api: Api, user: User) -> None:
        answer = api.change(user, {"max_pain": 1})

        assert [name for name in EACH if name not in answer.body["message"]] == []

    def test_a_symbol_is_restricted_once(self, api: Api, user: User) -> None:
        answer = api.change(user, {"restricted_symbols": ["EURUSD", "BTCUSD", "EURUSD"]})

        assert answer.body["after"] == {"restricted_symbols": ["EURUSD", "BTCUSD"]}
        # what is set already is no change
        assert api.change(user, {"restricted_symbols": ["EURUSD", "EURUSD", "BTCUSD"]}).status == 400
        assert api.change(user, {"restricted_symbols": []}).body["after"] == {"restricted_symbols": []}

    def test_without_a_reason_nothing_changes(self, api: Api, user: User) -> None:
        assert api.change(user, {"max_positions": 2}, reason=" ").body["details"]["field"] == "reason"

    def test_ones_own_account_is_for_somebody_else(self, api: Api, user: User) -> None:
        answer = api.change(user, {"max_positions": 2}, officer=user.user_id)

        assert (answer.status, answer.body["error"]) == (403, "FORBIDDEN")

    def test_an_account_that_there_is_not(self, api: Api) -> None:
        assert api.change(uuid.uuid4(), {"max_positions": 2}).status == 404
        assert api.ask(f"GET {SETTINGS}", {"id": str(uuid.uuid4())}).status == 404


class TestATier:
    def test_a_change_holds_at_once_for_who_has_none_of_their_own(self, api: Api) -> None:
        as_tier = api.market.user(tier="silver")
        own = api.market.user(tier="silver", risk={"max_order_quantity": 5})

        answer = api.change_tier("silver", {"max_order_quantity": "0.5"})

        assert (answer.status, answer.body["tier"]) == (200, "silver")
        assert (answer.body["before"], answer.body["after"]) == (
            {"max_order_quantity": None},
            {"max_order_quantity": "0.5"},
        )
        assert api.market.trade(as_tier)["details"]["limit"] == "max_order_quantity"
        assert api.market.trade(own)["outcome"] == "filled"
        # then it is listed, with who changed it, and the platform's audit tells it
        listed = api.ask(f"GET {DEFAULTS}", {}).body
        assert [tier["tier"] for tier in listed["data"]] == ["bronze", "silver", "gold", "platinum"]
        silver = listed["data"][1]
        assert silver["limits"]["max_order_quantity"] == "0.5"
        assert silver["changes"][0]["actor"] == str(OFFICER_ID)
        (row,) = api.market.execute(
            "SELECT action, actor, reason, details ->> 'tier' FROM platform_audit_log ORDER BY version DESC LIMIT 1"
        )
        assert row == ("RISK_DEFAULTS_CHANGED", str(OFFICER_ID), "a test", "silver")
        # and back
        assert api.change_tier("silver", {"max_order_quantity": None}).status == 200
        assert api.market.trade(as_tier)["outcome"] == "filled"

    def test_a_repeat_is_answered_the_same(self, api: Api) -> None:
        first, again = (api.change_tier("bronze", {"max_exposure": 9}, idempotency_key="t1") for _ in range(2))
        other = api.change_tier("bronze", {"max_exposure": 8}, idempotency_key="t1")

        assert first.status == 200
        assert again.body == first.body
        assert again.headers["Idempotency-Replayed"] == "true"
        assert other.status == 422
        # and the key is this tier's alone
        assert api.change_tier("gold", {"max_exposure": 9}, idempotency_key="t1").body["tier"] == "gold"
        for tier in ("bronze", "gold"):
            api.change_tier(tier, {"max_exposure": None})

    def test_every_limit_is_set(self, api: Api) -> None:
        given = {name: value for name, (value, _) in EACH.items()}
        before = api.ask(f"GET {DEFAULTS}", {}).body["data"][3]["limits"]

        answer = api.change_tier("platinum", given)

        told = {name: after for name, (_, after) in EACH.items()}
        assert (answer.status, answer.body["after"]) == (200, told)
        assert api.ask(f"GET {DEFAULTS}", {}).body["data"][3]["limits"] == told
        assert api.change_tier("platinum", before).body["after"] == before

    def test_of_two_at_once_each_keeps_what_the_other_has_set(self, api: Api) -> None:
        def request(**limits: object) -> dict[str, object]:
            changed = {"version": 1, "tier": "platinum", "reason": "a test", "actor": "tests", "request_hash": ""}
            return changed | {"limits": limits, "idempotency_key": str(uuid.uuid4())}

        role, procedure = "function_risk_officer", "change_risk_defaults"
        connect = api.market.database.connect
        with connect(role, autocommit=False) as first, connect(role) as second, ThreadPoolExecutor(1) as pool:
            act(first, procedure, request(max_exposure=9))
            waiting = pool.submit(act, second, procedure, request(max_positions=4))
            eventually(lambda: api.market.execute("SELECT pid FROM pg_locks WHERE NOT granted"), what="the second one")
            first.commit()
            assert waiting.result(10)["after"] == {"max_positions": 4}

        statement = "SELECT max_exposure, max_positions FROM risk_defaults WHERE tier = 'platinum'"
        assert api.market.execute(statement) == [(9, 4)]
        api.change_tier("platinum", {"max_exposure": None, "max_positions": None})

    @pytest.mark.parametrize(
        ("tier", "limits", "status"),
        [
            ("iron", {"max_positions": 2}, 404),
            ("\0", {"max_positions": 2}, 400),
            ("gold", {"max_positions": "unlimited"}, 400),
            ("gold", {"day_time_zone": None}, 400),
            ("gold", {"day_start_hour": None}, 400),
            ("gold", {"stop_loss_min_percent": 3, "stop_loss_max_percent": 2}, 400),
        ],
    )
    def test_what_cannot_be_set(self, api: Api, tier: str, limits: object, status: int) -> None:
        assert api.change_tier(tier, limits).status == status


def test_a_trader_reads_what_binds_their_own_account(
    api: Api, user: User, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str
) -> None:
    api.change(user, {"max_positions": 2})
    market = api.market
    with function_environment(
        monkeypatch, tmp_path, database=market.database, redis_url=redis_url, role="function_trader"
    ):
        handler = load_function("manage_orders")
        token = make_token(user, tier="unmetered", permissions=["account:read"])
        own = call(handler, http_event("GET /api/v1/risk/settings", headers=bearer(token)))
        others = call(
            handler,
            http_event(
                "GET /api/v1/risk/settings",
                query={"account_id": str(market.user().account_id)},
                headers=bearer(token),
            ),
        )

    assert (own.status, own.body["limits"]["max_positions"], own.body["own"]) == (200, 2, {"max_positions": 2})
    assert "changes" not in own.body
    assert own.body["day"]["start_equity"] == "0.00"
    assert others.status == 404


def test_who_is_below_a_margin_level_is_listed(api: Api) -> None:
    # given five lots that take 5,501.30 of margin, and what is left of 6,100.26 once each has lost 806.00
    market, (first, second) = api.market, (api.market.user(balance=Decimal("6100.26")) for _ in range(2))
    for user in (first, second):
        assert market.trade(user, quantity="5")["outcome"] == "filled"
    market.quote("EURUSD", "1.0922", "1.0924")
    for user in (first, second):
        called(market, user)
    # when one of them is above it again
    market.execute("UPDATE accounts SET balance = balance + 3000 WHERE id = %s", (first.account_id,))
    called(market, first)

    # then both are listed, the newest first, who is still below it with what is left now
    found = api.ask(f"GET {MARGIN_CALLS}", {}).body
    own = [each for each in found["data"] if each["account_id"] in {str(first.account_id), str(second.account_id)}]
    assert [(each["account_id"], each["state"], each["level"], each["threshold"]) for each in own] == [
        (str(second.account_id), "open", "margin_call", "50"),
        (str(first.account_id), "left", "margin_call", "50"),
    ]
    assert [(each["entered_level"], each["equity"], each["margin_level"]) for each in own] == [
        ("37.63", "2070.26", "37.63"),
        ("37.63", None, None),
    ]
    assert [each["left_at"] is None for each in own] == [True, False]
    # and in pages, by state
    page = api.ask(f"GET {MARGIN_CALLS}", {}, query={"limit": "1", "state": "left"}).body
    assert [each["account_id"] for each in page["data"]] == [str(first.account_id)]
    after = api.ask(f"GET {MARGIN_CALLS}", {}, query={"cursor": page["next_cursor"]}).body
    assert {str(first.account_id), str(second.account_id)}.isdisjoint(each["account_id"] for each in after["data"])
    newest = api.ask(f"GET {MARGIN_CALLS}", {}, query={"limit": "1"}).body
    assert [each["account_id"] for each in newest["data"]] == [str(second.account_id)]
    assert api.ask(f"GET {MARGIN_CALLS}", {}, query={"state": "lost"}).body["details"]["field"] == "state"
    # and when the other is below it anew, what it is worth now is told of that alone
    market.execute("UPDATE accounts SET balance = balance - 3000 WHERE id = %s", (first.account_id,))
    called(market, first)
    found = api.ask(f"GET {MARGIN_CALLS}", {}).body
    assert [
        (each["state"], each["equity"]) for each in found["data"] if each["account_id"] == str(first.account_id)
    ] == [("open", "2070.26"), ("left", None)]


def called(market: Market, user: User) -> None:
    """What the watch over margin does for one account that is due."""
    request = {"version": 1, "user_id": str(user.user_id), "account_id": str(user.account_id)}
    market.execute("SELECT record_margin_call(%s)", (json.dumps(request),))
