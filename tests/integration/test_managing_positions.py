"""Managing positions over HTTP, from API Gateway's event to its answer."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.kit import User
from tests.kit.functions import (
    CSRF_SECRET,
    Answer,
)
from tests.kit.orders import stale_time
from tests.kit.positions import row_of
from tests.kit.trading_api import TradingApi
from trading.edge.csrf import make_csrf_token

CHANGE = "PATCH /api/v1/positions/{id}"


class Api(TradingApi):
    def change(self, user: User, position_id: object, body: dict[str, Any] | str, **asked: Any) -> Answer:
        return self.ask(CHANGE, user, body, subject=position_id, **asked)


@pytest.fixture
def api(api: TradingApi) -> Api:
    return Api(api.market, api.placing, api.managing)


@pytest.fixture
def position_id(api: Api, user: User) -> str:
    """100 AAPL bought at 150.00; AAPL stands at 149.98 / 150.00."""
    return api.market.trade(user, symbol="AAPL", quantity="100")["position_id"]


class TestChange:
    def test_the_position_is_told_as_it_is_read(self, api: Api, user: User, position_id: str) -> None:
        answer = api.change(user, position_id, {"stop_loss": 145.5, "take_profit_amount": "1000"})

        (read,) = api.ask("GET /api/v1/positions", user).body["data"]
        assert answer.status == 200
        assert answer.body == read
        assert (read["stop_loss"], read["take_profit"], read["trailing_distance"]) == ("145.50", "160.00", None)
        assert read["version"] == 2

    def test_a_trail_is_set_and_taken_off(self, api: Api, user: User, position_id: str) -> None:
        trailing = api.change(user, position_id, {"trailing_distance": "2.50"}).body
        standing = api.change(user, position_id, {"trailing_distance": None}).body
        gone = api.change(user, position_id, {"stop_loss": None}).body

        told = [(body["stop_loss"], body["trailing_distance"]) for body in (trailing, standing, gone)]
        assert told == [("147.48", "2.50"), ("147.48", None), (None, None)]

    @pytest.mark.parametrize("field", ["stop_loss_distance", "take_profit_amount", "breakeven", "version"])
    def test_a_null_that_can_remove_nothing_counts_as_left_out(
        self, api: Api, user: User, position_id: str, field: str
    ) -> None:
        assert api.change(user, position_id, {"stop_loss": "140", field: None}).status == 200
        assert api.change(user, position_id, {field: None}).status == 400

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "body"),
            ({"version": 1, "stop_loss_distance": None}, "body"),
            ({"stop_loss": "0"}, "stop_loss"),
            ({"stop_loss": "abc"}, "stop_loss"),
            ({"stop_loss": 1e-13}, "stop_loss"),
            ({"stop_loss": "149.98"}, "stop_loss"),
            ({"stop_loss": "149.975"}, "stop_loss"),
            ({"take_profit": True}, "take_profit"),
            ({"trailing_distance": []}, "trailing_distance"),
            ({"breakeven": False}, "breakeven"),
            ({"breakeven": 1}, "breakeven"),
            ({"breakeven": True}, "breakeven"),
            ({"stop_loss": "140", "version": "1"}, "version"),
            ({"stop_loss": "140", "version": 0}, "version"),
            ({"stop_loss": "140", "version": 1.5}, "version"),
            ({"stop_loss": "140", "version": 2**31}, "version"),
            ({"stop_loss": "140", "stop_loss_amount": "5"}, "stop_loss_amount"),
            ({"stop_loss": "140", "trailing_distance": "5"}, "trailing_distance"),
            ({"quantity": "1"}, "quantity"),
            ({"stop_loss": "140", "user_id": "x"}, "user_id"),
        ],
    )
    def test_a_body_that_does_not_fit(
        self, api: Api, user: User, position_id: str, body: dict[str, Any], field: str
    ) -> None:
        answer = api.change(user, position_id, body)

        assert (answer.status, answer.body["error"]) == (400, "VALIDATION_FAILED")
        assert answer.body["details"]["field"] == field
        assert answer.body["details"]["constraint"]
        assert row_of(api.market, user, position_id)["version"] == 1

    def test_another_version_tells_the_position_as_it_is(self, api: Api, user: User, position_id: str) -> None:
        api.change(user, position_id, {"stop_loss": "140"})

        answer = api.change(user, position_id, {"stop_loss": "141", "version": 1})

        (read,) = api.ask("GET /api/v1/positions", user).body["data"]
        assert (answer.status, answer.body["error"]) == (409, "CONFLICT")
        assert answer.body["details"] == {
            "field": "version", "value": "1", "constraint": "the version 2", "position": read,
        }  # fmt: skip

    def test_a_closed_position(self, api: Api, user: User, position_id: str) -> None:
        api.market.close_out(user, position_id)

        answer = api.change(user, position_id, {"stop_loss": "140"})

        assert (answer.status, answer.body["error"]) == (409, "CONFLICT")
        assert answer.body["details"]["value"] == "CLOSED"

    def test_what_is_not_there_or_somebody_elses(self, api: Api, user: User) -> None:
        other = api.market.user()
        theirs = api.market.trade(other, symbol="AAPL", quantity="100")["position_id"]

        missing, foreign = (api.change(user, each, {"stop_loss": "140"}) for each in (uuid.uuid4(), theirs))

        assert (missing.status, missing.body["error"]) == (foreign.status, foreign.body["error"]) == (404, "NOT_FOUND")

    def test_a_stale_price_keeps_nothing(self, api: Api, user: User, position_id: str) -> None:
        api.market.quote("AAPL", "149.98", "150.00", stale_time())
        body = {"stop_loss": "140", "idempotency_key": "again"}

        refused = api.change(user, position_id, body)
        api.market.quote("AAPL", "149.98", "150.00")

        assert (refused.status, refused.body["error"]) == (503, "MARKET_DATA_UNAVAILABLE")
        assert refused.headers["Retry-After"] == "1"
        assert api.change(user, position_id, body).status == 200

    def test_a_repeat_gets_the_same_answer_and_other_content_none(self, api: Api, user: User, position_id: str) -> None:
        headers = {"Idempotency-Key": str(uuid.uuid4())}

        first, second = (api.change(user, position_id, {"stop_loss": 140}, headers=headers) for _ in range(2))
        # a null says something here, so it is another request
        other = api.change(user, position_id, {"stop_loss": None}, headers=headers)

        assert first.text == second.text
        assert second.headers["Idempotency-Replayed"] == "true"
        assert (other.status, other.body["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")

    def test_a_suspended_client_may(self, api: Api, user: User, position_id: str) -> None:
        api.market.execute("UPDATE profiles SET account_status = 'suspended' WHERE id = %s", (user.user_id,))

        assert api.change(user, position_id, {"stop_loss": "140"}).status == 200

    def test_a_browser_session_needs_its_csrf_token(self, api: Api, user: User, position_id: str) -> None:
        csrf = make_csrf_token(CSRF_SECRET, user.user_id, "s1", datetime.now(UTC)).token
        claims: dict[str, Any] = {"sid": "s1", "client_id": None}

        without = api.change(user, position_id, {"stop_loss": "140"}, **claims)
        with_it = api.change(user, position_id, {"stop_loss": "140"}, headers={"X-CSRF-Token": csrf}, **claims)

        assert (without.status, without.body["error"], with_it.status) == (403, "CSRF_FAILED", 200)

    def test_it_counts_with_the_orders(self, api: Api, user: User) -> None:
        answers = [api.change(user, uuid.uuid4(), {"stop_loss": "1"}, tier="bronze") for _ in range(11)]

        assert [answer.status for answer in answers] == [404] * 10 + [429]

    def test_the_books_are_kept_of_where_it_came_from(self, api: Api, user: User, position_id: str) -> None:
        api.change(user, position_id, {"stop_loss": "140"}, headers={"X-Request-ID": "request-7"})

        event = api.market.last_event(user)
        newest = max(api.market.rows("audit_pii", user), key=lambda row: row["audit_id"])
        assert (event["event_type"], event["request_id"]) == ("position.changed", "request-7")
        assert (str(newest["ip_address"]), newest["email"]) == ("203.0.113.7", user.email)

    def test_numbers_keep_every_digit(self, api: Api, user: User, position_id: str) -> None:
        # given an amount that a float would change
        answer = api.change(user, position_id, '{"take_profit_amount": 1000.0000000001}')

        assert Decimal(answer.body["take_profit"]) == Decimal("160.01")


class TestSummary:
    SUMMARY = "GET /api/v1/positions/summary"

    def test_it_adds_up_what_is_held_of_each_symbol(self, api: Api, user: User) -> None:
        # given EURUSD bought twice, at 1.10026 and 1.10126, and sold at 1.10094, and a holding of AAPL
        api.market.trade(user)
        api.market.quote("EURUSD", "1.1010", "1.1012")
        api.market.trade(user, quantity="0.5")
        api.market.trade(user, side="sell", quantity="0.3")
        api.market.trade(user, symbol="AAPL", quantity="10")

        body = api.ask(self.SUMMARY, user).body

        # then (1.1010 - 1.10026) x 100,000 + (1.1010 - 1.10126) x 50,000 + (1.10094 - 1.1012) x 30,000
        aapl, euro = body["data"]
        assert body["total"] == 2
        assert (aapl["symbol"], aapl["short_entry_price"], aapl["net_quantity"]) == ("AAPL", None, "10")
        assert euro == {
            "account_id": str(user.account_id),
            "symbol": "EURUSD",
            "positions": 3,
            "long_quantity": "1.5",
            "short_quantity": "0.3",
            "net_quantity": "1.2",
            "long_entry_price": "1.1005933",
            "short_entry_price": "1.10094",
            "unrealized_pnl": "53.20",
            "margin_used": "1981.17",  # 1100.26 + 550.63 + 330.28
            "hedged_margin_credit": "0.00",
            "currency": "USD",
        }

    def test_it_says_what_the_account_says(self, api: Api, user: User) -> None:
        for symbol, side, quantity in (("EURUSD", "buy", "1"), ("AAPL", "sell", "5"), ("USDJPY", "buy", "0.3")):
            api.market.trade(user, symbol=symbol, side=side, quantity=quantity)

        held, worth = api.ask(self.SUMMARY, user).body["data"], api.market.worth(user)

        assert sum(Decimal(each["margin_used"]) for each in held) == Decimal(worth["margin_used"])
        # each is rounded for itself
        assert abs(sum(Decimal(each["unrealized_pnl"]) for each in held) - Decimal(worth["unrealized_pnl"])) <= Decimal(
            "0.02"
        )

    def test_a_price_that_is_missing_leaves_the_result_unknown(self, api: Api, user: User) -> None:
        api.market.trade(user)
        api.market.execute("DELETE FROM quotes")

        (held,) = api.ask(self.SUMMARY, user).body["data"]

        assert (held["unrealized_pnl"], held["long_quantity"]) == (None, "1")

    def test_closed_positions_and_others_are_not_in_it(self, api: Api, user: User) -> None:
        other = api.market.user()
        api.market.trade(other)
        api.market.close_out(user, api.market.trade(user)["position_id"])

        assert api.ask(self.SUMMARY, user).body == {"data": [], "total": 0}
        assert api.ask(self.SUMMARY, user, query={"account_id": str(other.account_id)}).body["total"] == 0
        assert api.ask(self.SUMMARY, other, query={"account_id": str(other.account_id)}).body["total"] == 1

    def test_an_account_id_of_another_form(self, api: Api, user: User) -> None:
        assert api.ask(self.SUMMARY, user, query={"account_id": "mine"}).status == 400


class TestCloseBy:
    CLOSE_BY = "POST /api/v1/positions/{id}/close-by"

    @pytest.fixture
    def pair(self, api: Api, user: User) -> tuple[str, str]:
        """100 AAPL bought at 150.00, 60 sold at 154.98."""
        long = api.market.trade(user, symbol="AAPL", quantity="100")["position_id"]
        api.market.quote("AAPL", "154.98", "155.00")
        return long, api.market.trade(user, symbol="AAPL", side="sell", quantity="60")["position_id"]

    def test_both_positions_are_told(self, api: Api, user: User, pair: tuple[str, str]) -> None:
        answer = api.ask(self.CLOSE_BY, user, {"opposite_position_id": pair[1]}, subject=pair[0])

        body = answer.body
        (read,) = api.ask("GET /api/v1/positions", user).body["data"]
        assert answer.status == 200
        assert body["position"] == read
        assert (body["opposite_position"]["id"], body["opposite_position"]["status"]) == (pair[1], "CLOSED")
        assert (body["realized_pnl"], body["commission"], body["average_price"]) == ("298.80", "0", "154.98")
        assert (body["quantity"], body["closed_quantity"], read["quantity"]) == ("120", "60", "40")
        assert [fill["side"] for fill in self.fills(api, user, body["id"])] == ["BUY", "SELL"]

    def fills(self, api: Api, user: User, order_id: str) -> list[dict[str, Any]]:
        return api.ask("GET /api/v1/orders/{id}", user, subject=order_id).body["fills"]

    def test_a_repeat_gets_the_same_answer(self, api: Api, user: User, pair: tuple[str, str]) -> None:
        body = {"opposite_position_id": pair[1], "quantity": 10, "idempotency_key": str(uuid.uuid4())}

        first, second = (api.ask(self.CLOSE_BY, user, body, subject=pair[0]) for _ in range(2))

        assert first.text == second.text
        assert second.headers["Idempotency-Replayed"] == "true"

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "opposite_position_id"),
            ({"opposite_position_id": None}, "opposite_position_id"),
            ({"opposite_position_id": "the other"}, "opposite_position_id"),
            ({"opposite_position_id": "{pair}", "quantity": 61}, "quantity"),
            ({"opposite_position_id": "{pair}", "quantity": "0"}, "quantity"),
            ({"opposite_position_id": "{pair}", "max_slippage": "0"}, "max_slippage"),
        ],
    )
    def test_a_body_that_does_not_fit(
        self, api: Api, user: User, pair: tuple[str, str], body: dict[str, Any], field: str
    ) -> None:
        given = {name: pair[1] if value == "{pair}" else value for name, value in body.items()}

        answer = api.ask(self.CLOSE_BY, user, given, subject=pair[0])

        assert (answer.status, answer.body["error"]) == (400, "VALIDATION_FAILED")
        assert answer.body["details"]["field"] == field

    def test_a_closed_one(self, api: Api, user: User, pair: tuple[str, str]) -> None:
        api.market.close_out(user, pair[1])

        answer = api.ask(self.CLOSE_BY, user, {"opposite_position_id": pair[1]}, subject=pair[0])

        assert (answer.status, answer.body["details"]["value"]) == (409, "CLOSED")


class TestPreviewedCloses:
    CLOSE = "POST /api/v1/positions/{id}/close/preview"
    CLOSE_BY = "POST /api/v1/positions/{id}/close-by/preview"
    CLOSE_ALL = "POST /api/v1/positions/close-all/preview"

    def test_a_part_by_hand(self, api: Api, user: User, position_id: str) -> None:
        api.market.quote("AAPL", "160.00", "160.02")
        before = api.market.counts(user)

        answer = api.ask(self.CLOSE, user, {"quantity": "40"}, subject=position_id)

        body = answer.body
        (close,) = body["data"]
        assert answer.status == 200
        assert (close["side"], close["quantity"], close["accepted"], close["refusal"]) == ("LONG", "40", True, None)
        price = Decimal(close["price"])
        assert price == Decimal("160.00") - Decimal(close["slippage"])
        # 100 were bought at 150 and what it slipped, with the quote of then
        bought = row_of(api.market, user, position_id)
        assert Decimal(close["realized_pnl"]) == (price - bought["entry_price"]) * 40
        assert Decimal(close["margin_released"]) == bought["margin_used"] * 40 / 100
        after = Decimal(body["balance_before"]) + Decimal(close["realized_pnl"]) - Decimal(close["commission"])
        assert (Decimal(body["balance_after"]), body["left"]) == (after, 0)
        assert Decimal(body["free_margin_after"]) > Decimal(body["free_margin_before"])
        # and nothing is written
        assert api.market.counts(user) == before

    def test_against_the_opposite_one_spread_and_commission_are_not_paid(self, api: Api, user: User) -> None:
        long = api.market.trade(user, symbol="AAPL", quantity="100")["position_id"]
        api.market.quote("AAPL", "154.98", "155.00")
        short = api.market.trade(user, symbol="AAPL", side="sell", quantity="60")["position_id"]

        body = api.ask(self.CLOSE_BY, user, {"opposite_position_id": short}, subject=long).body

        assert [close["position_id"] for close in body["data"]] == [long, short]
        assert [close["realized_pnl"] for close in body["data"]] == ["298.80", "0.00"]
        assert (body["realized_pnl"], body["commission"]) == ("298.80", "0.00")

    def test_of_many_each_is_refused_by_itself(self, api: Api, user: User, position_id: str) -> None:
        lost = api.market.trade(user, symbol="EURUSD", quantity="0.1")["position_id"]
        stale = api.market.trade(user, symbol="GBPUSD", quantity="0.1")["position_id"]
        api.market.quote("GBPUSD", "1.2500", "1.2504", stale_time())
        api.market.close("XNYS")

        body = api.ask(self.CLOSE_ALL, user).body
        losers = api.ask(self.CLOSE_ALL, user, {"which": "losers", "symbol": "EURUSD"}).body

        refused = {close["position_id"]: close["refusal"] and close["refusal"]["code"] for close in body["data"]}
        assert refused == {position_id: "MARKET_CLOSED", lost: None, stale: "MARKET_DATA_UNAVAILABLE"}
        assert (body["left"], [close["price"] is None for close in body["data"]]) == (2, [True, False, True])
        assert [close["position_id"] for close in losers["data"]] == [lost]
        assert losers["data"] == [close for close in body["data"] if close["position_id"] == lost]
        assert losers["realized_pnl"] == body["realized_pnl"] == losers["data"][0]["realized_pnl"]

    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            ({"quantity": "0.001"}, 400, "VALIDATION_FAILED"),
            ({"idempotency_key": str(uuid.uuid4())}, 400, "VALIDATION_FAILED"),
            ({"quantity": "101"}, 200, "INSUFFICIENT_POSITION"),
            ({"max_slippage": "0"}, 200, "SLIPPAGE_EXCEEDED"),
        ],
    )
    def test_it_is_the_refusal_of_the_close(
        self, api: Api, user: User, body: dict[str, Any], status: int, code: str
    ) -> None:
        position_id = api.market.trade(user)["position_id"]

        answer = api.ask(self.CLOSE, user, body, subject=position_id)

        assert answer.status == status
        if status == 200:
            (close,) = answer.body["data"]
            done = api.ask("POST /api/v1/positions/{id}/close", user, body, subject=position_id)
            assert (close["accepted"], close["refusal"]["code"], answer.body["left"]) == (False, code, 1)
            assert close["refusal"]["message"] == done.body["message"]
            assert answer.body["balance_after"] == answer.body["balance_before"]
        else:
            assert answer.body["error"] == code

    def test_what_is_closed_stale_or_somebody_elses(self, api: Api, user: User, position_id: str) -> None:
        stranger = api.ask(self.CLOSE, api.market.user(), subject=position_id)
        api.market.quote("AAPL", "149.98", "150.00", stale_time())
        stale = api.ask(self.CLOSE, user, subject=position_id)
        api.market.quote("AAPL", "149.98", "150.00")
        api.market.close_out(user, position_id)
        closed = api.ask(self.CLOSE, user, subject=position_id)

        assert (stranger.status, stale.status, closed.status) == (404, 503, 409)
        assert closed.body["details"]["value"] == "CLOSED"
