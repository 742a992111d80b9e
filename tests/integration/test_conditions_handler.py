"""Orders that are held for conditions, from API Gateway's event to the answer, in the words of both dialects."""

import json
from typing import Any

import pytest

from tests.kit import User
from tests.kit.functions import bearer, call, http_event, make_token
from tests.kit.orders import stale_time
from tests.kit.ticks import Ticker
from tests.kit.trading_api import TradingApi

EXECUTE, CREATE = "POST /functions/v1/execute-order", "POST /api/v1/orders"
PREVIEW, CHANGE, READ = "POST /api/v1/orders/preview", "PATCH /api/v1/orders/{id}", "GET /api/v1/orders/{id}"
# EURUSD stands at 1.1000/1.1002, USDJPY at 150.000/150.010.
DOLLAR_UP = {"symbol": "usdjpy", "watch": "ASK", "direction": "AT_OR_ABOVE", "level": "151"}
HELD = {"symbol": "EURUSD", "order_type": "MARKET", "side": "BUY", "quantity": "0.1", "conditions": [DOLLAR_UP]}


def test_held_then_filled(api: TradingApi, user: User) -> None:
    # given an order that is held
    placed = api.ask(CREATE, user, HELD)
    told = {"symbol": "USDJPY", "watch": "ASK", "direction": "AT_OR_ABOVE", "level": "151.000", "met_at": None}
    assert (placed.status, placed.body["status"], placed.body["conditions"]) == (
        201,
        "PENDING",
        [told | {"level": "151"}],
    )
    read = api.ask(READ, user, subject=placed.body["id"]).body
    assert (read["status"], read["conditions"], read["held_quantity"]) == ("PENDING", [told], "0.1")

    # when the price comes
    with Ticker.opened(api.market) as ticker:
        assert ticker.tick("USDJPY", "150.990", "151.000") == ["filled"]

    # then its owner reads when it was
    read = api.ask(READ, user, subject=placed.body["id"]).body
    assert (read["status"], read["held_quantity"]) == ("FILLED", "0")
    assert read["conditions"][0]["met_at"] == read["active_at"] == read["executed_at"]
    audit = api.ask("GET /api/v1/orders/{id}/audit", user, subject=placed.body["id"]).body["data"]
    assert [row["action"] for row in audit][2] == "CONDITION_MET"


def test_in_the_words_of_execute_order(api: TradingApi, user: User) -> None:
    asked = {"symbol": "EURUSD", "order_type": "limit", "side": "sell", "quantity": 1, "price": 1.2, "stop_loss": 1.25,
             "idempotency_key": "held", "conditions": [DOLLAR_UP | {"level": 151.5}]}  # fmt: skip

    first, again = api.ask(EXECUTE, user, asked), api.ask(EXECUTE, user, asked)

    details = first.body["data"]["order_details"]
    assert (first.body["data"]["status"], details["conditions"]) == ("pending", [{
        "symbol": "USDJPY", "watch": "ask", "direction": "at_or_above", "level": "151.5", "met_at": None,
    }])  # fmt: skip
    assert first.body["data"] == again.body["data"]


def test_changed_and_taken_away(api: TradingApi, user: User) -> None:
    order = api.ask(CREATE, user, HELD | {"order_type": "LIMIT", "price": "1.2", "conditions": [DOLLAR_UP] * 2}).body

    lower = api.ask(CHANGE, user, {"conditions": [DOLLAR_UP | {"level": "150.5"}], "version": 1}, subject=order["id"])
    preview = api.ask(PREVIEW, user, {"replaces_order_id": lower.body["id"], "quantity": "0.2"})
    released = api.ask(CHANGE, user, {"conditions": None}, subject=lower.body["id"])

    assert [condition["level"] for condition in lower.body["conditions"]] == ["150.5"]
    assert (preview.status, preview.body["quantity"]) == (200, "0.2")
    # its limit is above the ask
    assert (released.body["status"], "conditions" in released.body) == ("FILLED", False)


def test_a_market_order_is_previewed_at_the_quote_of_now(api: TradingApi, user: User) -> None:
    assert api.ask(PREVIEW, user, HELD).body["accepted"] is True
    placed = api.ask(CREATE, user, HELD)

    changed = api.ask(PREVIEW, user, {"replaces_order_id": placed.body["id"], "time_in_force": "DAY"})

    assert (changed.status, changed.body["order_type"]) == (200, "MARKET")
    api.market.quote("EURUSD", "1.1000", "1.1002", stale_time())
    assert api.ask(PREVIEW, user, HELD).status == 503


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"conditions": []}, "VALIDATION_FAILED", "conditions"),
        ({"conditions": [DOLLAR_UP] * 5}, "VALIDATION_FAILED", "conditions"),
        ({"conditions": "USDJPY > 151"}, "VALIDATION_FAILED", "conditions"),
        ({"conditions": [DOLLAR_UP, 1]}, "VALIDATION_FAILED", "conditions.1"),
        ({"conditions": [{**DOLLAR_UP, "symbol": "NONE"}]}, "UNKNOWN_SYMBOL", "conditions.0.symbol"),
        ({"conditions": [{**DOLLAR_UP, "level": "151.0005"}]}, "VALIDATION_FAILED", "conditions.0.level"),
        ({"conditions": [{**DOLLAR_UP, "level": None}]}, "VALIDATION_FAILED", "conditions.0.level"),
        ({"conditions": [{**DOLLAR_UP, "watch": "LAST"}]}, "VALIDATION_FAILED", "conditions.0.watch"),
        ({"conditions": [{**DOLLAR_UP, "direction": "UP"}]}, "VALIDATION_FAILED", "conditions.0.direction"),
        ({"conditions": [{**DOLLAR_UP, "met_at": "2030-01-01T00:00:00Z"}]}, "VALIDATION_FAILED", "conditions.0.met_at"),
        ({"conditions": [{"symbol": "USDJPY"}]}, "VALIDATION_FAILED", "conditions.0.watch"),
        ({"time_in_force": "IOC"}, "VALIDATION_FAILED", "time_in_force"),
        ({"stop_loss": "1.05"}, "VALIDATION_FAILED", "stop_loss"),
        ({"order_type": "TRAILING_STOP", "trail_amount": "0.01"}, "VALIDATION_FAILED", "conditions"),
        ({"order_type": "LIMIT", "price": "1.05", "post_only": True}, "VALIDATION_FAILED", "post_only"),
    ],
)
def test_what_is_refused_is_named(api: TradingApi, user: User, changes: dict[str, Any], code: str, field: str) -> None:
    for route in (CREATE, PREVIEW):
        answer = api.ask(route, user, HELD | changes)

        assert (answer.body["error"], answer.body["details"]["field"]) == (code, field), answer.text
    assert api.market.counts(user)["orders"] == 0


def test_what_is_no_condition_is_told_what_one_is(api: TradingApi, user: User) -> None:
    answer = api.ask(CREATE, user, HELD | {"conditions": [DOLLAR_UP, 1]})

    assert answer.body["message"] == "Send conditions.1 as an object of symbol, watch, direction and level."


def test_an_order_of_a_group_has_none(api: TradingApi, user: User) -> None:
    leg = {"symbol": "EURUSD", "order_type": "LIMIT", "side": "BUY", "quantity": "0.1", "price": "1.05"}
    event = http_event(
        "POST /api/v1/orders/oco",
        headers=bearer(make_token(user, tier="unmetered")),
        body=json.dumps({"orders": [leg, leg | {"conditions": [DOLLAR_UP]}]}),
    )

    answer = call(api.placing, event)

    assert (answer.status, answer.body["details"]["field"]) == (400, "orders.1.conditions")


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"conditions": [{**DOLLAR_UP, "symbol": "NONE"}]}, 404, "conditions.0.symbol"),
        ({"conditions": [{**DOLLAR_UP, "level": "151.0005"}]}, 400, "conditions.0.level"),
        ({"conditions": None}, 400, "conditions"),
    ],
)
def test_what_a_change_is_refused_for(
    api: TradingApi, user: User, change: dict[str, Any], status: int, field: str
) -> None:
    order_id = api.ask(CREATE, user, HELD).body["id"]

    answer = api.ask(CHANGE, user, change, subject=order_id)

    assert (answer.status, answer.body["details"]["field"]) == (status, field)
    assert api.ask(READ, user, subject=order_id).body["status"] == "PENDING"


def test_who_knows_another_version_is_shown_the_order_with_its_conditions(api: TradingApi, user: User) -> None:
    order_id = api.ask(CREATE, user, HELD).body["id"]

    answer = api.ask(CHANGE, user, {"quantity": "0.2", "version": 7}, subject=order_id)

    shown = answer.body["details"]["order"]
    assert (answer.status, shown["conditions"][0]["watch"], shown["held_quantity"]) == (409, "ASK", "0.1")
