"""POST /api/v1/orders/oco, /oto and /bracket/preview: how a group would be judged, with nothing written."""

from typing import Any

import pytest

from tests.kit import User
from tests.kit.functions import Answer
from tests.kit.orders import stale_time
from tests.kit.trading_api import TradingApi

OCO, OTO, BRACKET = (f"POST /api/v1/orders/{kind}" for kind in ("oco", "oto", "bracket"))
BUY = {"symbol": "EURUSD", "order_type": "LIMIT", "side": "BUY", "quantity": "1", "price": "1.0500"}
SELL = {**BUY, "side": "SELL", "price": "1.2500"}
MARKET = {"symbol": "EURUSD", "order_type": "MARKET", "quantity": "1"}
EXITS = {"take_profit": {"limit_price": "1.2000"}, "stop_loss": {"stop_price": "1.0500"}}


class Api(TradingApi):
    def preview(self, route: str, user: User, body: object) -> Answer:
        return self.ask(f"{route}/preview", user, body)

    def both(self, route: str, user: User, body: object) -> tuple[Answer, Answer]:
        """The preview, then the placement itself."""
        return self.preview(route, user, body), self.ask(route, user, body)


@pytest.fixture
def api(api: TradingApi) -> Api:
    return Api(api.market, api.placing, api.managing)


def judged(answer: Answer) -> list[tuple[str, str | None, str | None, str | None, str]]:
    names = ("contingency", "price", "margin", "realized_pnl", "judgement")
    return [tuple(order[name] for name in names) for order in answer.body["orders"]]


def test_a_bracket_at_the_market_by_hand(api: Api, user: User) -> None:
    """One lot of EURUSD bought at 1.10026 as in the preview of such an order.

    at the stop loss    (1.0500 - 1.10026) x 100,000 = -5,026.00
    at the take profit  (1.2000 - 1.10026) x 100,000 =  9,974.00
    """
    before = api.market.counts(user), api.market.account(user)

    answers = [api.preview(BRACKET, user, {"entry": MARKET, **EXITS}) for _ in range(3)]

    told = answers[0].body
    assert judged(answers[0]) == [
        ("OTO_PARENT", "1.10026", "1100.26", None, "ACCEPTED"),
        ("BRACKET_EXIT", "1.05000", None, "-5026.00", "WHEN_TOUCHED"),
        ("BRACKET_EXIT", "1.20000", None, "9974.00", "WHEN_TOUCHED"),
    ]
    figures = {name: told[name] for name in told if name != "orders"}
    assert figures == {
        "account_id": str(user.account_id),
        "currency": "USD",
        "margin": "1100.26",
        "commission": "0.00",
        "free_margin_before": "100000.00",
        "free_margin_after": "98873.74",
        "margin_level_before": None,
        "margin_level_after": "9086.40",
        "accepted": True,
        "refusal": None,
    }
    # and nothing has come of it
    assert len({answer.text for answer in answers}) == 1
    assert (api.market.counts(user), api.market.account(user)) == before


def test_two_of_which_one_cancels_the_other_take_what_the_dearer_one_takes(api: Api, user: User) -> None:
    answer = api.preview(OCO, user, {"orders": [BUY, SELL]})

    assert judged(answer) == [
        ("OCO", "1.05000", "1050.00", None, "ACCEPTED"),
        ("OCO", "1.25000", "1250.00", None, "ACCEPTED"),
    ]
    assert (answer.body["margin"], answer.body["free_margin_after"]) == ("1250.00", "98750.00")


def test_a_group_that_waits_can_be_asked_about_while_its_market_is_closed(api: Api, user: User) -> None:
    api.market.close("FX")
    api.market.quote("EURUSD", "1.1000", "1.1002", stale_time())

    told, placed = api.both(OTO, user, {"parent": BUY, "children": [SELL]})

    assert (told.status, placed.status) == (200, 201)
    assert [each[-1] for each in judged(told)] == ["ACCEPTED", "WHEN_TOUCHED"]


FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a quantity of its own": (OCO, {"orders": [BUY, SELL | {"quantity": "2"}]}),
    "a price off the tick": (OCO, {"orders": [BUY, SELL | {"price": "1.2000001"}]}),
    "a stop on the wrong side": (OCO, {"orders": [BUY, BUY | {"order_type": "STOP", "price": "1.0400"}]}),
    "a child at the market": (OTO, {"parent": BUY, "children": [MARKET]}),
    "an unknown symbol": (OTO, {"parent": BUY, "children": [SELL | {"symbol": "NONE"}]}),
    "no children": (OTO, {"parent": BUY, "children": []}),
    "an exit above the price": (BRACKET, {"entry": MARKET, **EXITS, "stop_loss": {"stop_price": "1.1500"}}),
    "an exit above the limit": (BRACKET, {"entry": BUY, **EXITS, "stop_loss": {"stop_price": "1.0600"}}),
    "an exit beside the exits": (BRACKET, {"entry": BUY | {"stop_loss": "1.00"}, **EXITS}),
    "an exit off the tick": (BRACKET, {"entry": BUY, **EXITS, "take_profit": {"limit_price": "1.2000001"}}),
    "a member that there is not": (BRACKET, {"entry": BUY, **EXITS, "exit": 1}),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_does_not_fit_is_refused_as_the_placement_is(api: Api, user: User, case: str) -> None:
    route, body = FAULTS[case]

    told, placed = api.both(route, user, body)

    assert placed.status >= 400
    assert (told.status, told.body) == (placed.status, placed.body)


def test_what_is_denied_is_told_with_the_order_that_it_is_for(api: Api) -> None:
    """A trader after the other who may not: each is told what the denied order is told, and which one it is."""
    market = api.market
    dear = {"orders": [BUY, SELL]}
    parents = {"parent": MARKET, "children": [SELL]}
    far_children = {"parent": BUY, "children": [SELL, SELL | {"price": "12.0000"}]}
    cases: list[tuple[User, str, dict[str, Any], list[str]]] = [
        (market.user(balance="1100"), OCO, dear, ["ACCEPTED", "REFUSED"]),
        (market.user(balance="1000"), OCO, dear, ["REFUSED", "NOT_REACHED"]),
        (market.user(balance="1000"), OTO, parents, ["REFUSED", "NOT_REACHED"]),
        (market.user(kyc="pending"), OTO, parents, ["REFUSED", "NOT_REACHED"]),
        (market.user(risk={"max_working_orders": 1}), OCO, dear, ["REFUSED", "NOT_REACHED"]),
        (
            market.user(risk={"order_rate_limit": 2, "order_rate_window_s": 60}),
            BRACKET,
            {"entry": MARKET, **EXITS},
            ["REFUSED", "NOT_REACHED", "NOT_REACHED"],
        ),
        (market.user(risk={"price_collar_percent": 50}), OTO, far_children, ["ACCEPTED", "WHEN_TOUCHED", "REFUSED"]),
        (
            market.user(risk={"price_collar_percent": 50}),
            OTO,
            far_children | {"parent": MARKET},
            ["NOT_REACHED", "WHEN_TOUCHED", "REFUSED"],
        ),
    ]
    codes: list[str] = []
    for user, route, body, judgements in cases:
        told, placed = api.both(route, user, body)

        refusal = told.body["refusal"]
        assert (told.status, told.body["accepted"]) == (200, False)
        assert (refusal["code"], refusal["message"]) == (placed.body["error"], placed.body["message"])
        assert refusal["details"].items() <= placed.body["details"].items()
        assert [each[-1] for each in judged(told)] == judgements
        codes.append(refusal["code"])

    assert codes == ["INSUFFICIENT_MARGIN"] * 3 + ["KYC_REQUIRED"] + ["RISK_LIMIT_VIOLATION"] * 4


def test_a_name_that_was_used_is_refused(api: Api, user: User) -> None:
    api.market.place(user, client_order_id="mine")

    told, placed = api.both(OCO, user, {"orders": [BUY, SELL | {"client_order_id": "mine"}]})

    assert (told.status, told.body) == (placed.status, placed.body)
    assert placed.status == 409


def test_a_market_without_a_fresh_price(api: Api, user: User) -> None:
    api.market.quote("EURUSD", "1.1000", "1.1002", stale_time())

    told, placed = api.both(BRACKET, user, {"entry": MARKET, **EXITS})

    assert (
        (told.status, told.body["error"]) == (placed.status, placed.body["error"]) == (503, "MARKET_DATA_UNAVAILABLE")
    )


def test_a_key_is_refused(api: Api, user: User) -> None:
    answer = api.preview(OCO, user, {"orders": [BUY, SELL], "idempotency_key": "a-key"})

    assert (answer.status, answer.body["details"]["field"]) == (400, "idempotency_key")
