"""POST /api/v1/orders/oco, /oto and /bracket, from API Gateway's event to the answer."""

import uuid
from typing import Any

import pytest

from tests.kit import User
from tests.kit.functions import load_function
from tests.kit.trading_api import TradingApi

OCO, OTO, BRACKET = (f"POST /api/v1/orders/{kind}" for kind in ("oco", "oto", "bracket"))
BUY = {"symbol": "EURUSD", "order_type": "LIMIT", "side": "BUY", "quantity": "0.1", "price": "1.0500"}
SELL = {**BUY, "side": "SELL", "price": "1.2500"}
MARKET = {"symbol": "EURUSD", "order_type": "MARKET", "quantity": "0.1"}
PAST = {"time_in_force": "GTD", "expires_at": "2020-01-01T00:00:00Z"}
EXITS = {"take_profit": {"limit_price": "1.2000"}, "stop_loss": {"stop_price": "1.0500"}}
BODIES = {
    OCO: {"orders": [BUY, SELL]},
    OTO: {"parent": BUY, "children": [SELL]},
    BRACKET: {"entry": MARKET, **EXITS},
}


def read_back(api: TradingApi, user: User, order_id: str) -> dict[str, Any]:
    return api.ask("GET /api/v1/orders/{id}", user, subject=order_id).body


def test_an_oco_tells_both_and_each_reads_back_with_its_links(api: TradingApi, user: User) -> None:
    answer = api.ask(OCO, user, BODIES[OCO])

    first, second = answer.body["orders"]
    assert answer.status == 201
    assert [(one["status"], one["contingency"], one["price"]) for one in (first, second)] == [
        ("PENDING", "OCO", "1.05000"),
        ("PENDING", "OCO", "1.25000"),
    ]
    read = read_back(api, user, first["id"])
    assert (read["contingency"], read["linked_order_ids"]) == ("OCO", [second["id"]])


def test_the_children_of_an_oto_wait(api: TradingApi, user: User) -> None:
    parent, child = api.ask(OTO, user, BODIES[OTO]).body["orders"]

    assert (parent["contingency"], parent["linked_order_ids"]) == ("OTO_PARENT", [child["id"]])
    assert (child["contingency"], child["parent_order_id"], child["held_quantity"]) == (
        "OTO_CHILD", parent["id"], "0.1",
    )  # fmt: skip
    assert read_back(api, user, child["id"])["parent_order_id"] == parent["id"]


def test_a_bracket_at_the_market_is_filled_with_its_exits_at_work(api: TradingApi, user: User) -> None:
    entry, loss, profit = api.ask(BRACKET, user, BODIES[BRACKET]).body["orders"]

    assert (entry["status"], entry["filled_quantity"]) == ("FILLED", "0.1")
    assert [(one["order_type"], one["side"], one["held_quantity"]) for one in (loss, profit)] == [
        ("STOP", "SELL", "0"),
        ("LIMIT", "SELL", "0"),
    ]
    assert read_back(api, user, loss["id"])["parent_order_id"] == entry["id"]


@pytest.mark.parametrize("route", [OCO, OTO, BRACKET])
def test_a_repeat_hears_the_same(api: TradingApi, user: User, route: str) -> None:
    body = BODIES[route] | {"idempotency_key": str(uuid.uuid4())}

    first, again = api.ask(route, user, body), api.ask(route, user, body)

    assert (first.status, again.status) == (201, 201)
    assert first.body == again.body
    assert again.headers["Idempotency-Replayed"] == "true"


def test_the_key_of_one_group_is_not_anothers(api: TradingApi, user: User) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    api.ask(OCO, user, BODIES[OCO], headers=key)

    answer = api.ask(OTO, user, BODIES[OTO], headers=key)

    assert (answer.status, answer.body["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_a_denial_is_told_as_of_one_order_and_kept(api: TradingApi) -> None:
    poor = api.market.user(balance="10")
    body = BODIES[BRACKET] | {"idempotency_key": "once"}

    first, again = api.ask(BRACKET, poor, body), api.ask(BRACKET, poor, body)

    assert (first.status, first.body["error"]) == (again.status, again.body["error"]) == (400, "INSUFFICIENT_MARGIN")
    assert first.body["details"]["order_id"] == again.body["details"]["order_id"]


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        (OCO, {"orders": [BUY]}, "orders"),
        (OCO, {"orders": "none"}, "orders"),
        (OCO, {"orders": [BUY, 1]}, "orders.1"),
        (OCO, {}, "orders"),
        # a name with dots in it leads nowhere
        (OCO, {"orders": [{**BUY, "a.b": 1}, SELL]}, "orders.0.a.b"),
        (OTO, {"parent": BUY, "children": [{**SELL, "0.1": 1}]}, "children.0.0.1"),
        (OTO, {"parent": BUY, "children": [SELL], "parent.a.b": 1}, "parent.a.b"),
        (BRACKET, {"entry": {**MARKET, "execution_instructions": {"a.b": 1}}, **EXITS},
         "entry.execution_instructions.a.b"),
        (OCO, {"orders": [BUY, SELL], "more": 1}, "more"),
        (OCO, {"orders": [BUY, {**SELL, "quantity": "0.2"}]}, "orders.1.quantity"),
        (OCO, {"orders": [BUY, {**SELL, "symbol": "GBPUSD"}]}, "orders.1.symbol"),
        (OCO, {"orders": [BUY, {**SELL, "price": "1.250001"}]}, "orders.1.price"),
        (OCO, {"orders": [BUY, {**SELL, "price": None}]}, "orders.1.price"),
        (OCO, {"orders": [BUY, {**SELL, "price": "x"}]}, "orders.1.price"),
        (OCO, {"orders": [BUY, MARKET]}, "orders.1.order_type"),
        (OCO, {"orders": [{**BUY, "time_in_force": "IOC"}, SELL]}, "orders.0.time_in_force"),
        (OCO, {"orders": [{**BUY, "account_id": str(uuid.uuid4())}, SELL]}, "orders.0.account_id"),
        (OCO, {"orders": [{**BUY, "idempotency_key": "key"}, SELL]}, "orders.0.idempotency_key"),
        (OCO, {"orders": [BUY, SELL], "account_id": "mine"}, "account_id"),
        # what the database alone can tell
        (OCO, {"orders": [{**BUY, "price": "1.2", "post_only": True}, SELL]}, "orders.0.price"),
        (OCO, {"orders": [BUY, {**SELL, "order_type": "STOP", "price": "1.25"}]}, "orders.1.price"),
        (OTO, {"parent": {**BUY, **PAST}, "children": [SELL]}, "parent.expires_at"),
        (OTO, {"parent": BUY, "children": [SELL, {**SELL, **PAST}]}, "children.1.expires_at"),
        (BRACKET, {"entry": {**BUY, **PAST}, **EXITS}, "entry.expires_at"),
        (OTO, {"parent": BUY, "children": []}, "children"),
        (OTO, {"parent": BUY, "children": [SELL] * 6}, "children"),
        (OTO, {"parent": BUY, "children": [MARKET]}, "children.0.order_type"),
        # held, it may be filled as soon as it works
        (OTO, {"parent": BUY, "children": [{**SELL, "post_only": True}]}, "children.0.post_only"),
        (OTO, {"parent": BUY, "children": [{**SELL, "parent_order_id": str(uuid.uuid4())}]},
         "children.0.parent_order_id"),
        (BRACKET, {"entry": MARKET, "take_profit": {"limit_price": "1.2"}}, "stop_loss"),
        (BRACKET, {"entry": MARKET, **EXITS, "stop_loss": {}}, "stop_loss.stop_price"),
        (BRACKET, {"entry": MARKET, **EXITS, "stop_loss": "1.05"}, "stop_loss"),
        (BRACKET, {"entry": MARKET, **EXITS, "take_profit": {"limit_price": "1.200001"}}, "take_profit.limit_price"),
        (BRACKET, {"entry": {**MARKET, "stop_loss": "1.05"}, **EXITS}, "entry.stop_loss"),
        (BRACKET, {"entry": MARKET, **EXITS, "stop_loss": {"stop_price": "1.15"}}, "stop_loss"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_by_its_place_and_keeps_nothing(
    api: TradingApi, user: User, route: str, body: object, field: str
) -> None:
    answer = api.ask(route, user, body)

    assert (answer.status, answer.body["error"]) == (400, "VALIDATION_FAILED"), answer.body
    assert answer.body["details"]["field"] == field
    assert api.market.rows("orders", user) == []


def test_what_is_no_order_is_told_to_be_one(api: TradingApi, user: User) -> None:
    answer = api.ask(OCO, user, {"orders": [BUY, 1]})

    assert answer.body["message"] == "Send orders.1 as an order."


def test_an_unknown_symbol_names_its_order(api: TradingApi, user: User) -> None:
    answer = api.ask(OTO, user, {"parent": BUY, "children": [{**SELL, "symbol": "NONE"}]})

    assert (answer.body["error"], answer.body["details"]["field"]) == ("UNKNOWN_SYMBOL", "children.0.symbol")


def test_an_entry_at_the_market_of_another_venue_is_refused(api: TradingApi, user: User) -> None:
    api.market.execute("UPDATE instruments SET venue = 'mock' WHERE symbol = 'USDJPY'")
    load_function("execute_order")
    entry = {**MARKET, "symbol": "USDJPY"}
    exits = {"take_profit": {"limit_price": "160"}, "stop_loss": {"stop_price": "140"}}

    answer = api.ask(BRACKET, user, {"entry": entry, **exits})

    api.market.execute("UPDATE instruments SET venue = 'internal' WHERE symbol = 'USDJPY'")
    assert (answer.status, answer.body["details"]["field"]) == (400, "entry.order_type")
