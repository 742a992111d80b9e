"""POST /api/v1/orders/preview: what an order would come to, with nothing written."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit import MigratedTemplate, TestServers, User, order_request
from tests.kit.functions import (
    Answer,
    bearer,
    call,
    function_environment,
    http_event,
    load_function,
    make_token,
    order_event,
)
from tests.kit.orders import Market, raises_sqlstate, send, stale_time

PREVIEW, ORDER = "POST /api/v1/orders/preview", "POST /api/v1/orders"


@dataclass(frozen=True)
class Api:
    """The function's handler on a database of the module's own."""

    market: Market
    handler: Any

    def preview(self, user: User | uuid.UUID, *, claims: dict[str, Any] | None = None, **fields: object) -> Answer:
        body = {"symbol": "EURUSD", "order_type": "market", "side": "buy", "quantity": 1} | fields
        text = json.dumps({name: value for name, value in body.items() if value is not ...})
        token = make_token(user, **({"tier": "unmetered"} | (claims or {})))
        return call(self.handler, http_event(PREVIEW, headers=bearer(token), body=text))


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def api(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Market, servers: TestServers, redis_url: str
) -> Iterator[Api]:
    shared.prepare()
    venues = {"VENUES": "mock:mock", "ALLOW_MOCK_VENUE": "true"}
    with function_environment(monkeypatch, tmp_path, database=shared.database, redis_url=redis_url, **venues):
        yield Api(shared, load_function("manage_orders"))


@pytest.fixture
def user(api: Api) -> User:
    return api.market.user()


def test_a_market_order_by_hand(api: Api, user: User) -> None:
    """One lot of EURUSD bought at 1.1000 / 1.1002 by a USD account of 100,000 with leverage 100.

    price         1.1002 + 0.6 pips of 0.0001 = 1.10026
    margin        100,000 / 100 x 1.10026 = 1,100.26
    unrealized    (1.1000 - 1.10026) x 100,000 = -26.00
    free margin   100,000 - 26.00 - 1,100.26 = 98,873.74
    level         99,974.00 / 1,100.26 x 100 = 9,086.40 %
    """
    answer = api.preview(user)

    quoted_at = answer.body.pop("quoted_at")
    assert answer.status == 200
    assert answer.body | {"quoted_at": quoted_at} == {
        "account_id": str(user.account_id),
        "symbol": "EURUSD",
        "order_type": "MARKET",
        "side": "BUY",
        "quantity": "1",
        "filled_quantity": "1",
        "currency": "USD",
        "price": "1.10026",
        "slippage": "0.00006",
        "commission": "0.00",
        "margin": "1100.26",
        "hedged_margin_credit": "0.00",
        "margin_released": "0.00",
        "total_cost": "1100.26",
        "reduces_position": False,
        "realized_pnl": "0.00",
        "free_margin_before": "100000.00",
        "free_margin_after": "98873.74",
        "margin_level_before": None,
        "margin_level_after": "9086.40",
        "accepted": True,
        "refusal": None,
        "quoted_at": quoted_at,
    }


def test_nothing_is_written_however_often_it_is_asked(api: Api, user: User) -> None:
    before, account = api.market.counts(user), api.market.account(user)

    answers = [api.preview(user) for _ in range(3)]

    assert len({answer.text for answer in answers}) == 1
    assert api.market.counts(user) == before
    assert api.market.account(user) == account


def test_the_random_part_of_slippage_stands_in_its_middle(api: Api, user: User) -> None:
    # given an instrument whose slippage varies by 90 %, which no preview may
    api.market.execute("UPDATE instruments SET slippage_variation = 0.9 WHERE symbol = 'EURUSD'")

    assert {api.preview(user).body["slippage"] for _ in range(5)} == {"0.00006"}


@pytest.mark.parametrize(
    ("fields", "price", "margin"),
    [
        ({"order_type": "limit", "price": "1.05"}, "1.05000", "1050.00"),
        ({"order_type": "limit", "limit_price": "1.05", "side": "sell"}, "1.05000", "1050.00"),
        ({"order_type": "stop", "price": "1.2"}, "1.20000", "1200.00"),
        ({"order_type": "stop_limit", "stop_price": "1.2", "limit_price": "1.21"}, "1.21000", "1210.00"),
        ({"order_type": "trailing_stop", "trail_amount": "0.0198"}, "1.12000", "1120.00"),
        ({"order_type": "trailing_stop", "side": "sell", "trail_percent": "1"}, "1.08900", "1089.00"),
        (
            {"order_type": "trailing_stop_limit", "trail_amount": "0.0198", "limit_offset": "0.01"},
            "1.13000",
            "1130.00",
        ),
    ],
)
def test_an_order_that_rests_is_priced_at_its_own(
    api: Api, user: User, fields: dict[str, Any], price: str, margin: str
) -> None:
    answer = api.preview(user, **fields).body

    assert (answer["price"], answer["slippage"], answer["margin"]) == (price, "0", margin)
    assert Decimal(answer["free_margin_after"]) == 100_000 - Decimal(margin)
    assert answer["accepted"] is True


@pytest.mark.parametrize(
    ("fields", "price"),
    [
        ({"time_in_force": "cls"}, "1.10020"),
        ({"time_in_force": "cls", "order_type": "limit", "price": "1.05"}, "1.05000"),
        ({"time_in_force": "day", "order_type": "limit", "price": "1.05"}, "1.05000"),
    ],
)
def test_an_order_that_waits_for_a_time(api: Api, user: User, fields: dict[str, Any], price: str) -> None:
    answer = api.preview(user, **fields)

    assert (answer.status, answer.body.get("price"), answer.body.get("accepted")) == (200, price, True), answer.text


def test_a_market_without_an_opening_has_no_order_for_it(api: Api, user: User) -> None:
    answer = api.preview(user, time_in_force="opg", order_type="limit", price="1.05")

    assert (answer.status, answer.body["details"]["field"]) == (400, "time_in_force")


def test_a_reduction_sets_margin_free_and_says_what_it_realizes(api: Api) -> None:
    # given a netting trader who is long one lot at 1.10026, and a market that rose by 100 pips
    user = api.market.user(position_mode="netting")
    api.market.trade(user)
    api.market.quote("EURUSD", "1.1100", "1.1102")
    # when the sale of a quarter is previewed
    answer = api.preview(user, side="sell", quantity="0.25").body
    # then it fills 0.6 pips below the bid, and brings (1.10994 - 1.10026) x 25,000 = 242.00
    assert (answer["reduces_position"], answer["price"], answer["realized_pnl"]) == (True, "1.10994", "242.00")
    # a quarter of 1,100.26 is let go: 825.195 stay, rounded half-up
    assert (answer["margin"], answer["margin_released"], answer["total_cost"]) == ("0.00", "275.06", "0.00")
    # and the account afterwards is what the sale makes of it
    api.market.trade(user, side="sell", quantity="0.25")
    worth = api.market.worth(user)
    assert (answer["free_margin_after"], answer["margin_level_after"]) == (worth["free_margin"], worth["margin_level"])


class TestRefusals:
    """What would be denied is told with its code, and is still priced."""

    @pytest.mark.parametrize(
        ("facts", "fields", "code"),
        [
            ({"balance": 100}, {}, "INSUFFICIENT_MARGIN"),
            ({"kind": "cash", "balance": 100}, {"symbol": "AAPL"}, "INSUFFICIENT_FUNDS"),
            ({"kind": "cash"}, {"symbol": "AAPL", "side": "sell"}, "INSUFFICIENT_POSITION"),
            ({"kyc": "pending"}, {}, "KYC_REQUIRED"),
            ({"status": "suspended"}, {}, "ACCOUNT_NOT_ACTIVE"),
            ({"risk": {"max_positions": 0}}, {}, "RISK_LIMIT_VIOLATION"),
            ({}, {"max_slippage": "0.00005"}, "SLIPPAGE_EXCEEDED"),
        ],
    )
    def test_it_is_the_refusal_of_the_order(
        self, api: Api, facts: dict[str, Any], fields: dict[str, Any], code: str
    ) -> None:
        user = api.market.user(**facts)

        answer = api.preview(user, **fields)
        denied = api.market.trade(user, **(fields | {"quantity": "1"})).answer

        assert (answer.status, answer.body["accepted"]) == (200, False)
        assert answer.body["refusal"]["code"] == denied["code"] == code
        assert answer.body["refusal"] == {name: denied[name] for name in ("code", "message", "details")}
        assert Decimal(answer.body["price"]) > 0

    def test_an_order_that_rests_is_refused_as_when_it_is_placed(self, api: Api) -> None:
        # given one trader without money, and one who may have no order that works
        poor, idle = api.market.user(balance=100), api.market.user(risk={"max_working_orders": 0})

        for user, code in ((poor, "INSUFFICIENT_MARGIN"), (idle, "RISK_LIMIT_VIOLATION")):
            answer = api.preview(user, order_type="limit", price="1.05")
            denied = api.market.place(user, quantity="1", limit_price="1.05").answer

            assert answer.body["refusal"] == {name: denied[name] for name in ("code", "message", "details")}
            assert denied["code"] == code

    @pytest.mark.parametrize("reduce_only", [False, True])
    def test_another_venue_neither_turns_nor_cuts(self, api: Api, reduce_only: bool) -> None:
        # given a holding whose instrument is traded elsewhere from now on
        user = api.market.user(position_mode="netting")
        api.market.trade(user, symbol="AAPL", quantity="10")
        api.market.execute("UPDATE instruments SET venue = 'mock' WHERE symbol = 'AAPL'")
        order = {"symbol": "AAPL", "side": "sell", "quantity": "11", "reduce_only": reduce_only}

        answer = api.preview(user, **order)
        denied = send(api.market.trader, order_request(user, **order), "accept_order").answer
        api.market.execute("UPDATE instruments SET venue = 'internal' WHERE symbol = 'AAPL'")

        assert denied["code"] == "INSUFFICIENT_POSITION"
        assert answer.body["refusal"] == {name: denied[name] for name in ("code", "message", "details")}

    def test_a_venue_that_is_not_served_takes_what_waits_here_alone(self, api: Api, user: User) -> None:
        # given
        api.market.execute("UPDATE instruments SET venue = 'nowhere' WHERE symbol = 'AAPL'")
        market: dict[str, Any] = {"symbol": "AAPL", "order_type": "market", "side": "buy", "quantity": 10}
        too_fine: dict[str, Any] = market | {"quantity": "0.00001"}
        limit: dict[str, Any] = market | {"order_type": "limit", "price": "100"}
        execute = load_function("execute_order")

        # when each order is previewed, then sent
        asked = [
            (api.preview(user, **fields), call(execute, order_event(user, route_key=ORDER, **fields)))
            for fields in (market, too_fine, limit)
        ]
        api.market.execute("UPDATE instruments SET venue = 'internal' WHERE symbol = 'AAPL'")

        # then it is refused in the same words
        codes = [(preview.status, preview.body.get("error"), order.status) for preview, order in asked]
        assert codes == [(503, "VENUE_UNAVAILABLE", 503), (400, "VALIDATION_FAILED", 400), (200, None, 201)]
        (preview, order), *_ = asked
        assert preview.body == order.body
        assert preview.headers["Retry-After"] == order.headers["Retry-After"] == "60"

    def test_a_closed_market_refuses_what_cannot_wait(self, api: Api, user: User) -> None:
        api.market.close("FX")

        market, limit = (api.preview(user), api.preview(user, order_type="limit", price="1.05"))
        at_once = api.preview(user, order_type="limit", price="1.05", time_in_force="ioc")

        assert market.body["refusal"]["code"] == at_once.body["refusal"]["code"] == "MARKET_CLOSED"
        assert limit.body["accepted"] is True

    def test_a_reduction_needs_no_margin(self, api: Api) -> None:
        # given an account with nothing left
        user = api.market.user(position_mode="netting", balance="1200")
        api.market.trade(user)
        api.market.quote("EURUSD", "1.0500", "1.0502")

        answer = api.preview(user, side="sell").body

        assert Decimal(answer["free_margin_before"]) < 0
        assert answer["accepted"] is True


class TestPrices:
    @pytest.mark.parametrize("order_type", ["market", "limit"])
    def test_a_stale_price_is_none(self, api: Api, user: User, order_type: str) -> None:
        api.market.quote("EURUSD", "1.1000", "1.1002", stale_time())

        answer = api.preview(user, order_type=order_type, price="1.05" if order_type == "limit" else ...)

        assert (answer.status, answer.body["error"]) == (503, "MARKET_DATA_UNAVAILABLE")
        assert answer.body["details"]["value"] == "EURUSD"
        assert answer.headers["Retry-After"] == "1"

    def test_a_conversion_takes_a_fresh_price_too(self, api: Api) -> None:
        user = api.market.user(currency="GBP")
        api.market.quote("GBPUSD", "1.2500", "1.2504", stale_time())

        answer = api.preview(user)

        assert (answer.status, answer.body["details"]["value"]) == (503, "GBPUSD")

    def test_a_pair_that_nobody_quotes_is_named(self, api: Api) -> None:
        user = api.market.user(currency="GBP")
        api.market.execute("DELETE FROM quotes WHERE symbol = 'GBPUSD'")

        answer = api.preview(user)

        assert (answer.status, answer.body["error"]) == (503, "MARKET_DATA_UNAVAILABLE")
        assert answer.body["details"]["value"]

    def test_what_is_held_must_have_a_fresh_price_for_more_exposure_and_not_for_less(self, api: Api) -> None:
        # given a position whose price is too old
        user = api.market.user(position_mode="netting")
        api.market.trade(user)
        api.market.trade(user, symbol="AAPL")
        api.market.quote("AAPL", "149.98", "150.00", stale_time())

        more, less = api.preview(user), api.preview(user, side="sell")

        assert (more.status, more.body["details"]["value"]) == (503, "AAPL")
        assert (less.status, less.body["accepted"]) == (200, True)

    def test_so_must_what_its_profit_is_converted_by(self, api: Api, user: User) -> None:
        # given a position whose profit is in yen, its own price fresh and the yen's not
        api.market.quote("GBPJPY", "187.500", "187.510")
        assert api.market.trade(user, symbol="GBPJPY")["outcome"] == "filled"
        api.market.quote("USDJPY", "150.000", "150.010", stale_time())
        # when an order in dollars is previewed
        answer = api.preview(user)
        # then it is refused as the order would be
        assert (answer.status, answer.body["details"]["value"]) == (503, "USDJPY")
        with raises_sqlstate("TR004"):
            api.market.trade(user)


class TestRequests:
    @pytest.mark.parametrize(
        ("fields", "field", "status"),
        [
            ({"idempotency_key": "a-key"}, "idempotency_key", 400),
            ({"quantity": "0.015"}, "quantity", 400),
            ({"quantity": ...}, "quantity", 400),
            ({"order_type": "limit"}, "price", 400),
            ({"order_type": "limit", "price": "1.000001"}, "price", 400),
            ({"stop_loss": "1.2"}, "stop_loss", 400),
            ({"take_profit": "1.05"}, "take_profit", 400),
            ({"order_type": "stop", "price": "1.2", "stop_loss": "1.3"}, "stop_loss", 400),
            ({"order_type": "stop", "price": "1.05"}, "price", 400),
            ({"order_type": "stop", "stop_price": "1.2", "side": "sell"}, "stop_price", 400),
            ({"order_type": "trailing_stop", "side": "sell", "trail_amount": "1.1"}, "trail_amount", 400),
            ({"order_type": "limit", "price": "1.2", "post_only": True}, "price", 400),
            ({"order_type": "limit", "price": "1.05", "time_in_force": "gtd", "expires_at": "2020-01-01T00:00:00Z"},
             "expires_at", 400),
            ({"reduce_only": True}, "reduce_only", 400),
            ({"colour": "red"}, "colour", 400),
            ({"symbol": "NOSUCH"}, "symbol", 404),
            ({"account_id": str(uuid.UUID(int=7))}, "account_id", 404),
            ({"parent_order_id": str(uuid.UUID(int=7))}, "parent_order_id", 400),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_is_refused_by_its_field(
        self, api: Api, user: User, fields: dict[str, Any], field: str, status: int
    ) -> None:
        answer = api.preview(user, **fields)

        assert (answer.status, answer.body["details"]["field"]) == (status, field)
        assert answer.body["message"]

    def test_a_side_that_is_left_out_buys(self, api: Api, user: User) -> None:
        assert api.preview(user, side=...).body["side"] == "BUY"

    def test_exits_are_left_out_of_a_reduction(self, api: Api) -> None:
        user = api.market.user(position_mode="netting")
        api.market.trade(user)

        answer = api.preview(user, side="sell", stop_loss="1.3")

        assert (answer.status, answer.body["details"]["field"]) == (400, "stop_loss")

    def test_a_client_order_id_that_was_used_would_be_a_conflict(self, api: Api, user: User) -> None:
        api.market.trade(user, client_order_id="mine")

        assert api.preview(user, client_order_id="mine").status == 409

    def test_nobody_previews_on_anothers_account(self, api: Api, user: User) -> None:
        stranger = api.market.user()

        answer = api.preview(stranger, account_id=str(user.account_id))

        assert (answer.status, answer.body["error"]) == (404, "NOT_FOUND")
        assert "100000" not in answer.text

    def test_a_browser_session_needs_no_csrf_token_for_it(self, api: Api, user: User) -> None:
        assert api.preview(user, claims={"sid": "a-session", "client_id": None}).status == 200

    def test_it_has_a_limit_of_its_own(self, api: Api, user: User) -> None:
        statuses = [api.preview(user, claims={"tier": "bronze"}).status for _ in range(11)]
        event = http_event("GET /api/v1/account", headers=bearer(make_token(user, tier="bronze")))

        assert statuses == [200] * 10 + [429]
        assert call(api.handler, event).status == 200
