"""Closing many positions: which are chosen, that each is closed once, and what the others and the repeats are told."""

import json
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.functions import (
    Answer,
    bearer,
    call,
    function_environment,
    http_event,
    load_function,
    make_token,
)
from tests.kit.orders import Market, at_once, keyed_request, raises_sqlstate, send, stale_time, told_at_once
from tests.kit.positions import row_of
from trading.execution import hash_of_request

CLOSE_ALL = "POST /api/v1/positions/close-all"


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    """One database for the module; its books must hold after all tests."""
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    return shared


@pytest.fixture
def trader(market: Market) -> User:
    return market.user(balance=1_000_000, risk={"max_positions": None})


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, market: Market, redis_url: str) -> Iterator[Any]:
    with function_environment(monkeypatch, tmp_path, database=market.database, redis_url=redis_url):
        yield load_function("manage_orders")


def ask(handler: Any, user: User, body: dict[str, Any] | None = None, **asked: Any) -> Answer:
    headers = bearer(make_token(user, **({"tier": "unmetered"} | asked.pop("claims", {})))) | asked.pop("headers", {})
    return call(handler, http_event(CLOSE_ALL, headers=headers, body=None if body is None else json.dumps(body)))


def plan_request(user: User, **fields: object) -> dict[str, object]:
    return keyed_request(user, **({"which": "all", "positions_max": 100} | fields))


def four_positions(market: Market, user: User) -> dict[str, str]:
    """A loser and a winner of two symbols each way, at the quotes of Market.prepare."""
    opened = {
        "EURUSD long": market.trade(user),
        "EURUSD short": market.trade(user, side="sell"),
        "AAPL long": market.trade(user, symbol="AAPL", quantity="10"),
        "AAPL short": market.trade(user, symbol="AAPL", side="sell", quantity="10"),
    }
    market.quote("EURUSD", "1.1050", "1.1052")
    market.quote("AAPL", "145.00", "145.02")
    return {name: order["position_id"] for name, order in opened.items()}


class TestPlan:
    @pytest.mark.parametrize(
        ("fields", "chosen"),
        [
            ({}, {"EURUSD long", "EURUSD short", "AAPL long", "AAPL short"}),
            ({"which": "losers"}, {"EURUSD short", "AAPL long"}),
            ({"which": "winners"}, {"EURUSD long", "AAPL short"}),
            ({"symbol": "AAPL"}, {"AAPL long", "AAPL short"}),
            ({"side": "short"}, {"EURUSD short", "AAPL short"}),
            ({"symbol": "AAPL", "side": "short", "which": "winners"}, {"AAPL short"}),
            ({"symbol": "AAPL", "side": "short", "which": "losers"}, set()),
            ({"symbol": "GBPUSD"}, set()),
        ],
    )
    def test_filters(self, market: Market, trader: User, fields: dict[str, object], chosen: set[str]) -> None:
        names = {position_id: name for name, position_id in four_positions(market, trader).items()}

        plan = send(market.trader, plan_request(trader, **fields), "plan_closes")

        assert {names[position["position_id"]] for position in plan["positions"]} == chosen
        assert plan["matched"] == len(chosen)

    def test_it_is_bounded_and_says_how_many_match(self, market: Market, trader: User) -> None:
        opened = four_positions(market, trader)

        plan = send(market.trader, plan_request(trader, positions_max=2), "plan_closes")

        # then the oldest come first
        assert [position["position_id"] for position in plan["positions"]] == list(opened.values())[:2]
        assert plan["matched"] == 4

    def test_without_a_quote_a_position_neither_loses_nor_wins(self, market: Market, trader: User) -> None:
        four_positions(market, trader)
        market.execute("DELETE FROM quotes WHERE symbol = 'AAPL'")

        matched = [
            send(market.trader, plan_request(trader, which=which), "plan_closes")["matched"]
            for which in ("losers", "winners", "all")
        ]

        assert matched == [1, 1, 4]

    def test_nor_does_one_that_stands_where_it_was_opened(self, market: Market, trader: User) -> None:
        entry = Decimal(str(market.trade(trader)["execution_price"]))
        market.quote("EURUSD", str(entry), str(entry + Decimal("0.0002")))

        matched = [
            send(market.trader, plan_request(trader, which=which), "plan_closes")["matched"]
            for which in ("losers", "winners", "all")
        ]

        assert matched == [0, 0, 1]

    def test_nothing_is_changed_by_it(self, market: Market, trader: User) -> None:
        four_positions(market, trader)
        before, account = market.counts(trader), market.account(trader)

        send(market.trader, plan_request(trader), "plan_closes")

        assert market.counts(trader) == before | {"idempotency_keys": before["idempotency_keys"] + 1}
        assert market.account(trader) == account

    def test_a_repeat_chooses_the_same_whatever_was_opened_since(self, market: Market, trader: User) -> None:
        four_positions(market, trader)
        request = plan_request(trader)
        first = send(market.trader, request, "plan_closes")
        market.trade(trader)

        second = send(market.trader, request, "plan_closes")

        assert (second.replayed, second.text) == (True, first.text)

    @pytest.mark.parametrize("field", ["which", "positions_max"])
    def test_what_it_needs(self, market: Market, trader: User, field: str) -> None:
        with raises_sqlstate("TR006"):
            send(market.trader, plan_request(trader, **{field: None}), "plan_closes")


class TestRequest:
    def test_each_is_closed_by_an_order_of_its_own(self, market: Market, handler: Any, trader: User) -> None:
        opened = four_positions(market, trader)
        before = market.account(trader)

        answer = ask(handler, trader)

        # then 4 orders, 4 events, and the P&L of each on the balance
        body = answer.body
        after = market.account(trader)
        assert (answer.status, body["closed"], body["refused"], body["left"]) == (200, 4, 0, 0)
        assert [attempt["position_id"] for attempt in body["data"]] == list(opened.values())
        assert {attempt["outcome"] for attempt in body["data"]} == {"CLOSED"}
        assert [attempt["order"]["position_id"] for attempt in body["data"]] == list(opened.values())
        assert [attempt["order"]["side"] for attempt in body["data"]] == ["SELL", "BUY", "SELL", "BUY"]
        assert after["last_sequence"] == before["last_sequence"] + 4
        assert after["balance"] - before["balance"] == sum(
            Decimal(attempt["order"]["realized_pnl"]) - Decimal(attempt["order"]["commission"])
            for attempt in body["data"]
        )
        transactions = market.execute("SELECT DISTINCT xmin::text FROM positions WHERE user_id = %s", (trader.user_id,))
        assert len(transactions) == 4

    def test_only_what_is_asked_for(self, market: Market, handler: Any, trader: User) -> None:
        opened = four_positions(market, trader)

        body = ask(handler, trader, {"which": "LOSERS", "symbol": "eurusd", "side": "Short"}).body

        assert [attempt["position_id"] for attempt in body["data"]] == [opened["EURUSD short"]]
        assert market.worth(trader)["open_positions"] == 3

    def test_what_cannot_be_closed_is_refused_by_itself(self, market: Market, handler: Any, trader: User) -> None:
        # given a stale price of one symbol and a closed market of another
        opened = four_positions(market, trader)
        yen = market.trade(trader, symbol="USDJPY", quantity="0.1")["position_id"]
        market.close(market.execute("SELECT calendar FROM instruments WHERE symbol = 'AAPL'")[0][0])
        market.quote("USDJPY", "150.000", "150.010", stale_time())

        body = ask(handler, trader).body

        told = {attempt["position_id"]: attempt for attempt in body["data"]}
        assert (body["closed"], body["refused"], body["left"]) == (2, 3, 3)
        assert told[yen]["order"] is None
        assert told[yen]["refusal"]["error"] == "MARKET_DATA_UNAVAILABLE"
        assert told[yen]["refusal"]["details"]["value"] == "USDJPY"
        refusal = told[opened["AAPL long"]]["refusal"]
        assert (refusal["error"], refusal["details"]["field"]) == ("MARKET_CLOSED", "symbol")
        # a denial is an order that is kept
        assert refusal["details"]["order_id"] in {str(row["id"]) for row in market.rows("orders", trader)}
        assert told[opened["EURUSD long"]]["outcome"] == "CLOSED"

    def test_a_repeat_is_told_the_same_and_does_nothing(self, market: Market, handler: Any, trader: User) -> None:
        four_positions(market, trader)
        market.quote("AAPL", "145.00", "145.02", stale_time())
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        first = ask(handler, trader, headers=headers)
        before = market.counts(trader)
        # given that now it could be closed
        market.quote("AAPL", "145.00", "145.02")

        second = ask(handler, trader, headers=headers)

        assert first.text == second.text
        assert "Idempotency-Replayed" not in first.headers
        assert second.headers["Idempotency-Replayed"] == "true"
        assert market.counts(trader) == before
        # and a new key closes what is left
        assert ask(handler, trader).body["closed"] == 2

    def test_a_repeat_goes_on_where_the_first_broke_off(self, market: Market, handler: Any, trader: User) -> None:
        # given a request that ended after one of four
        opened = list(four_positions(market, trader).values())
        request = plan_request(trader, request_hash=hash_of_request(CLOSE_ALL, {}))
        send(market.trader, request, "plan_closes")
        send(market.trader, request | {"position_id": opened[0]}, "close_planned")

        answer = ask(handler, trader, headers={"Idempotency-Key": str(request["idempotency_key"])})

        assert answer.body["closed"] == 4
        assert "Idempotency-Replayed" not in answer.headers
        assert len([row for row in market.rows("orders", trader) if row["reduce_only"]]) == 4

    def test_other_content_under_the_key(self, market: Market, handler: Any, trader: User) -> None:
        four_positions(market, trader)
        headers = {"Idempotency-Key": "one"}
        ask(handler, trader, {"which": "losers"}, headers=headers)

        answer = ask(handler, trader, headers=headers)

        assert (answer.status, answer.body["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")
        assert market.worth(trader)["open_positions"] == 2

    def test_a_suspended_client_may(self, market: Market, handler: Any, trader: User) -> None:
        four_positions(market, trader)
        market.execute("UPDATE profiles SET account_status = 'suspended' WHERE id = %s", (trader.user_id,))

        assert ask(handler, trader).body["closed"] == 4

    def test_nothing_to_close(self, handler: Any, trader: User) -> None:
        assert ask(handler, trader, {}).body == {"data": [], "closed": 0, "sent": 0, "refused": 0, "left": 0}

    @pytest.mark.parametrize("route", [CLOSE_ALL, f"{CLOSE_ALL}/preview"])
    def test_a_symbol_that_there_is_not_closes_nothing_and_says_so(
        self, market: Market, handler: Any, trader: User, route: str
    ) -> None:
        # given a position of an instrument that is not traded any more
        market.trade(trader, symbol="AAPL")
        market.execute("UPDATE instruments SET is_active = false WHERE symbol = 'AAPL'")
        headers = bearer(make_token(trader, tier="unmetered"))

        unknown, untraded, without_positions = (
            call(handler, http_event(route, headers=headers, body=json.dumps({"symbol": symbol})))
            for symbol in ("EURUSX", "AAPL", "GBPUSD")
        )
        market.execute("UPDATE instruments SET is_active = true WHERE symbol = 'AAPL'")

        assert (unknown.status, unknown.body["error"]) == (404, "UNKNOWN_SYMBOL")
        assert unknown.body["details"] == {"field": "symbol", "value": "EURUSX", "constraint": "a known symbol"}
        assert (untraded.status, without_positions.status) == (200, 200)

    def test_somebody_elses_account(self, market: Market, handler: Any, trader: User) -> None:
        answer = ask(handler, trader, {"account_id": str(market.user().account_id)})

        assert (answer.status, answer.body["error"]) == (404, "NOT_FOUND")

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"which": "some"}, "which"),
            ({"side": "buy"}, "side"),
            ({"symbol": "EUR/USD"}, "symbol"),
            ({"account_id": "mine"}, "account_id"),
            ({"quantity": 1}, "quantity"),
            ({"quantity": None}, "quantity"),
            # left out, each would close more than was meant
            ({"symbol": None}, "symbol"),
            ({"which": None, "symbol": "EURUSD"}, "which"),
            ({"idempotency_key": "x" * 256}, "idempotency_key"),
        ],
    )
    def test_a_body_that_does_not_fit(self, handler: Any, trader: User, body: dict[str, Any], field: str) -> None:
        answer = ask(handler, trader, body)

        assert (answer.status, answer.body["details"]["field"]) == (400, field)

    def test_one_request_counts_once_with_the_orders(self, market: Market, handler: Any, trader: User) -> None:
        four_positions(market, trader)

        answers = [ask(handler, trader, claims={"tier": "bronze"}) for _ in range(11)]

        assert [answer.status for answer in answers] == [200] * 10 + [429]


class TestRaces:
    def test_twenty_callers_with_one_key_close_each_once(self, market: Market, trader: User) -> None:
        opened = list(four_positions(market, trader).values())
        request = plan_request(trader)

        def whole(connection: Any) -> list[str]:
            plan = send(connection, request, "plan_closes")
            return [plan.text] + [
                send(connection, request | {"position_id": position["position_id"]}, "close_planned").text
                for position in plan["positions"]
            ]

        told = at_once(market, [whole] * 20)

        assert all(each == told[0] for each in told)
        assert len(told[0]) == 5
        closing = [row for row in market.rows("orders", trader) if row["reduce_only"]]
        assert sorted(str(row["position_id"]) for row in closing) == sorted(opened)

    def test_a_position_that_another_closed_meanwhile_is_refused(self, market: Market, trader: User) -> None:
        opened = list(four_positions(market, trader).values())
        request = plan_request(trader)
        send(market.trader, request, "plan_closes")
        market.close_out(trader, opened[0])

        first, second = [send(market.trader, request | {"position_id": opened[0]}, "close_planned") for _ in range(2)]

        assert (first["outcome"], first["sqlstate"], first["details"]["value"]) == ("refused", "TR010", "closed")
        assert (second.replayed, second.text) == (True, first.text)

    def test_a_close_all_against_closes_by_hand(self, market: Market, trader: User) -> None:
        opened = list(four_positions(market, trader).values())
        request = plan_request(trader)
        send(market.trader, request, "plan_closes")

        told = told_at_once(
            market,
            [("close_planned", request | {"position_id": position_id}) for position_id in opened]
            + [("close_position", keyed_request(trader, position_id=position_id)) for position_id in opened],
        )

        # then each was closed by one of the two
        for planned, by_hand in zip(told[:4], told[4:], strict=True):
            assert (planned, by_hand) in {("filled", "TR010"), ("refused", "filled")}
        assert all(row_of(market, trader, position_id)["status"] == "closed" for position_id in opened)
        assert market.book_faults() == []
