"""POST /functions/v1/execute-order and POST /api/v1/orders, from API Gateway's event to its answer."""

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit import MigratedTemplate, TestServers, User
from tests.kit.functions import (
    CSRF_SECRET,
    Answer,
    bearer,
    call,
    function_environment,
    http_event,
    load_function,
    make_token,
)
from tests.kit.orders import Market, stale_time
from trading.edge.csrf import make_csrf_token

FUNCTIONS, REST = "POST /functions/v1/execute-order", "POST /api/v1/orders"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Api:
    """The function's handler on a database of the module's own."""

    market: Market
    handler: Any

    def post(
        self,
        user: User,
        body: dict[str, object] | str,
        *,
        route: str = FUNCTIONS,
        headers: dict[str, str] | None = None,
        **claims: Any,
    ) -> Answer:
        token = make_token(user, **({"tier": "unmetered"} | claims))
        text = body if isinstance(body, str) else json.dumps(body)
        return call(self.handler, http_event(route, headers=bearer(token) | (headers or {}), body=text))


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def api(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Market, servers: TestServers, redis_url: str
) -> Iterator[Api]:
    shared.prepare()
    with function_environment(monkeypatch, tmp_path, database=shared.database, redis_url=redis_url):
        yield Api(shared, load_function("execute_order"))


@pytest.fixture
def user(api: Api) -> User:
    return api.market.user()


def order(**fields: object) -> dict[str, object]:
    """A body that buys one lot of EURUSD; an ellipsis leaves a field out."""
    given = {
        "symbol": "EURUSD",
        "order_type": "market",
        "side": "buy",
        "quantity": 1,
        "idempotency_key": str(uuid.uuid4()),
    } | fields
    return {name: value for name, value in given.items() if value is not ...}


def orders_of(api: Api, user: User) -> int:
    return api.market.counts(user)["orders"]


class TestFunctionsDialect:
    def test_an_executed_order(self, api: Api, user: User) -> None:
        before = datetime.now(UTC)

        answer = api.post(user, order(), headers={"X-Request-ID": "request-7"})

        body = answer.body
        details = body["data"]["execution_details"]
        assert (answer.status, body["success"]) == (200, True)
        assert body["data"]["status"] == "executed"
        assert UUID.fullmatch(body["data"]["order_id"])
        assert UUID.fullmatch(body["data"]["position_id"])
        assert {name: details[name] for name in ("execution_price", "slippage", "commission", "total_cost")} == {
            "execution_price": "1.10026",
            "slippage": "0.00006",
            "commission": "0.00",
            "total_cost": "1100.26",
        }
        assert details["transaction_id"].startswith("txn_")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", details["timestamp"])
        assert abs((datetime.fromisoformat(details["timestamp"]) - before).total_seconds()) < 10
        assert body["context"]["requestId"] == answer.headers["X-Request-ID"] == "request-7"
        assert isinstance(body["context"]["executionTime"], int)
        assert "Idempotency-Replayed" not in answer.headers
        (row,) = api.market.rows("orders", user)
        assert (str(row["id"]), row["request_id"]) == (body["data"]["order_id"], "request-7")

    def test_amounts_come_as_text_and_keep_their_digits(self, api: Api) -> None:
        # given an instrument whose prices are whole numbers
        user = api.market.user()
        api.market.quote("BTCUSD", "92000", "92014")

        answer = api.post(user, order(symbol="BTCUSD", quantity="0.010"))

        details = answer.body["data"]["execution_details"]
        # 30 x 2.5 = 75 pips of 1; 0.01 x 92089 / 5
        assert (details["execution_price"], details["slippage"]) == ("92089", "75")
        assert details["total_cost"] == "184.18"

    def test_numbers_keep_every_digit_on_the_way_in(self, api: Api, user: User) -> None:
        text = json.dumps(order(quantity="Q", stop_loss="S")).replace('"Q"', "0.10").replace('"S"', "1.0500000")

        api.post(user, text)

        (row,) = api.market.rows("orders", user)
        assert (row["quantity"], row["stop_loss"]) == (Decimal("0.1"), Decimal("1.05"))

    def test_a_denial(self, api: Api) -> None:
        user = api.market.user(balance=100)

        answer = api.post(user, order())

        error = answer.body["error"]
        (row,) = api.market.rows("orders", user)
        assert (answer.status, answer.body["success"], error["code"]) == (400, False, "INSUFFICIENT_MARGIN")
        assert error["message"].startswith("This order needs 1126.26 USD of free margin; you have 100.00.")
        assert error["details"].items() >= {"required": "1126.26", "available": "100.00", "margin_level": None}.items()
        assert error["details"]["order_id"] == str(row["id"])
        assert row["status"] == "denied"

    @pytest.mark.parametrize(
        ("facts", "status", "code"),
        [
            ({"kyc": "pending"}, 403, "KYC_REQUIRED"),
            ({"status": "suspended"}, 403, "ACCOUNT_NOT_ACTIVE"),
            ({"risk": {"max_positions": 0}}, 400, "RISK_LIMIT_VIOLATION"),
        ],
    )
    def test_the_status_of_a_denial(self, api: Api, facts: dict[str, Any], status: int, code: str) -> None:
        user = api.market.user(**facts)

        answer = api.post(user, order())

        assert (answer.status, answer.body["error"]["code"]) == (status, code)
        assert orders_of(api, user) == 1

    def test_a_closed_market(self, api: Api, user: User) -> None:
        api.market.close("FX")

        answer = api.post(user, order())

        assert (answer.status, answer.body["error"]["code"]) == (400, "MARKET_CLOSED")

    def test_more_slippage_than_allowed(self, api: Api, user: User) -> None:
        answer = api.post(user, order(max_slippage="0.00005"))

        assert (answer.status, answer.body["error"]["code"]) == (400, "SLIPPAGE_EXCEEDED")


class TestResting:
    def test_functions_answer_pending(self, api: Api, user: User) -> None:
        answer = api.post(user, order(order_type="limit", price="1.05", quantity="0.50"))

        data = answer.body["data"]
        (row,) = api.market.rows("orders", user)
        assert (answer.status, answer.body["success"]) == (200, True)
        assert data == {
            "order_id": str(row["id"]),
            "position_id": None,
            "status": "pending",
            "order_details": {
                "symbol": "EURUSD",
                "order_type": "limit",
                "side": "buy",
                "quantity": "0.5",
                "limit_price": "1.05000",
                "stop_price": None,
                "time_in_force": "gtc",
                "expires_at": None,
                "filled_quantity": "0",
                "average_price": None,
                "timestamp": data["order_details"]["timestamp"],
            },
        }
        assert row["status"] == "new"

    def test_rest_answers_201_and_the_order(self, api: Api, user: User) -> None:
        body = order(
            symbol="AAPL", order_type="STOP_LIMIT", price=155, stop_price="151.00", quantity=100, client_order_id="mine"
        )

        answer = api.post(user, body, route=REST)

        data = answer.body
        assert answer.status == 201
        assert data == {
            "id": data["id"],
            "trader_id": str(user.user_id),
            "status": "PENDING",
            "created_at": data["created_at"],
            "client_order_id": "mine",
            "symbol": "AAPL",
            "side": "BUY",
            "order_type": "STOP_LIMIT",
            "quantity": "100",
            "filled_quantity": "0",
            "leaves_quantity": "100",
            "price": "155.00",
            "stop_price": "151.00",
            "time_in_force": "GTC",
            "expires_at": None,
            "average_price": None,
        }

    @pytest.mark.parametrize("route", [FUNCTIONS, REST])
    def test_a_trailing_order_is_answered_with_its_trail(self, api: Api, user: User, route: str) -> None:
        body = order(order_type="trailing_stop_limit", trail_percent="1.50", limit_offset="0.001")

        answer = api.post(user, body, route=route)

        data = answer.body if route == REST else answer.body["data"]["order_details"]
        assert answer.status == (201 if route == REST else 200), answer.text
        assert {name: data[name] for name in ("trail_amount", "trail_percent", "limit_offset", "stop_price")} == {
            "trail_amount": None,
            "trail_percent": "1.5",
            "limit_offset": "0.001",
            "stop_price": None,
        }

    @pytest.mark.parametrize("route", [FUNCTIONS, REST])
    def test_an_iceberg_is_answered_with_what_it_shows(self, api: Api, user: User, route: str) -> None:
        body = order(order_type="limit", price="1.05", quantity=1, display_quantity="0.20", display_variance="0.10")

        answer = api.post(user, body, route=route)

        data = answer.body if route == REST else answer.body["data"]["order_details"]
        assert (data["display_quantity"], data["display_variance"]) == ("0.2", "0.1")

    @pytest.mark.parametrize("route", [FUNCTIONS, REST])
    @pytest.mark.parametrize("price", [None, "1.05"])
    def test_an_order_for_the_close_rests_and_says_when_it_takes_its_quote(
        self, api: Api, user: User, route: str, price: str | None
    ) -> None:
        body = order(order_type="limit" if price else "market", price=price, time_in_force="cls")

        answer = api.post(user, body, route=route)

        data = answer.body if route == REST else answer.body["data"]["order_details"]
        assert answer.status == (201 if route == REST else 200), answer.text
        ends, begins = (datetime.fromisoformat(data[name]) for name in ("expires_at", "active_at"))
        assert ends - begins == timedelta(minutes=1)
        (row,) = api.market.rows("orders", user)
        assert (row["status"], row["active_at"]) == ("new", begins)

    def test_price_is_the_trigger_of_a_stop(self, api: Api, user: User) -> None:
        answer = api.post(user, order(order_type="stop", price="1.2"))

        assert answer.body["data"]["order_details"]["stop_price"] == "1.20000"

    def test_a_denial_keeps_the_order_with_its_price(self, api: Api) -> None:
        user = api.market.user(balance=1)

        answer = api.post(user, order(order_type="limit", price="1.05"))

        (row,) = api.market.rows("orders", user)
        assert (answer.status, answer.body["error"]["code"]) == (400, "INSUFFICIENT_MARGIN")
        assert answer.body["error"]["details"]["order_id"] == str(row["id"])
        assert (row["status"], row["limit_price"]) == ("denied", Decimal("1.05"))

    def test_a_repeat_gets_the_same_order(self, api: Api, user: User) -> None:
        body = order(order_type="limit", price="1.05")

        first, second = api.post(user, body), api.post(user, body)

        assert second.headers["Idempotency-Replayed"] == "true"
        assert first.body["data"] == second.body["data"]
        assert orders_of(api, user) == 1


class TestRestDialect:
    def test_an_executed_order(self, api: Api, user: User) -> None:
        body = order(symbol="aapl", order_type="MARKET", side="BUY", quantity=100, client_order_id="mine")

        answer = api.post(user, body, route=REST)

        data = answer.body
        assert answer.status == 201
        assert (data["status"], data["side"], data["order_type"], data["symbol"]) == ("FILLED", "BUY", "MARKET", "AAPL")
        assert (data["trader_id"], data["client_order_id"]) == (str(user.user_id), "mine")
        assert (data["quantity"], data["filled_quantity"], data["average_price"]) == ("100", "100", "150.00")
        assert (data["commission"], data["total_cost"]) == ("1.60", "751.60")
        assert UUID.fullmatch(data["id"])

    def test_a_side_that_is_left_out_buys(self, api: Api, user: User) -> None:
        answer = api.post(user, order(side=..., idempotency_key=...), route=REST)

        assert (answer.status, answer.body["side"]) == (201, "BUY")

    def test_two_orders_without_a_key_are_two_orders(self, api: Api, user: User) -> None:
        answers = [api.post(user, order(idempotency_key=...), route=REST) for _ in range(2)]

        assert len({answer.body["id"] for answer in answers}) == 2

    def test_the_sentence_of_a_cash_account(self, api: Api) -> None:
        # given 5,000 dollars and AAPL at 150
        user = api.market.user(kind="cash", balance=5000)
        api.market.quote("AAPL", "150", "150")

        answer = api.post(user, order(symbol="AAPL", quantity=100), route=REST)

        assert answer.status == 400
        assert answer.body["error"] == "INSUFFICIENT_FUNDS"
        assert answer.body["message"] == "Insufficient funds for $15,000 order; available: $5,000"
        assert answer.body["details"]["required_balance"] == Decimal("15001.60")
        assert answer.body["details"]["available_balance"] == 5000

    def test_an_order_that_is_cut_to_the_position_says_what_was_filled(self, api: Api) -> None:
        user = api.market.user(position_mode="netting")
        for route in (REST, FUNCTIONS):
            api.post(user, order(quantity=1), route=REST)

            answer = api.post(user, order(side="sell", quantity=3, reduce_only=True), route=route)

            data = answer.body if route == REST else answer.body["data"] | answer.body["data"]["order_details"]
            assert answer.status in (200, 201)
            assert data["status"].lower() == "cancelled"
            assert (data["quantity"], data["filled_quantity"], data["average_price"]) == ("3", "1", "1.09994")

    def test_an_order_that_turns_a_position_round(self, api: Api) -> None:
        user = api.market.user(position_mode="netting")
        api.post(user, order(quantity=1), route=REST)

        data = api.post(user, order(side="sell", quantity=3), route=REST).body

        assert (data["status"], data["quantity"], data["filled_quantity"]) == ("FILLED", "3", "3")
        assert (data["average_price"], data["total_cost"]) == ("1.09994", "2199.88")
        assert data["position_id"] == str(api.market.rows("positions", user)[-1]["id"])

    def test_a_short_sale_of_a_cash_account(self, api: Api) -> None:
        user = api.market.user(kind="cash", balance=5000)

        answer = api.post(user, order(symbol="AAPL", side="SELL"), route=REST)

        assert (answer.status, answer.body["error"]) == (400, "INSUFFICIENT_POSITION")


class TestRefusals:
    """What leaves no order behind."""

    @pytest.mark.parametrize(
        ("fields", "field", "value"),
        [
            ({"quantity": 0}, "quantity", "0"),
            ({"quantity": -1}, "quantity", "-1"),
            ({"quantity": True}, "quantity", "true"),
            ({"time_in_force": "gtd"}, "time_in_force", "gtd"),
            ({"reduce_only": "yes"}, "reduce_only", "yes"),
            ({"metadata": []}, "metadata", None),
            ({"quantity": "1,5"}, "quantity", "1,5"),
            ({"quantity": "0.015"}, "quantity", "0.015"),
            ({"quantity": ...}, "quantity", None),
            ({"side": "long"}, "side", "long"),
            ({"side": ...}, "side", None),
            ({"symbol": "EUR/USD"}, "symbol", "EUR/USD"),
            ({"order_type": "iceberg"}, "order_type", "iceberg"),
            ({"price": "1.1"}, "price", "1.1"),
            ({"order_type": "stop", "price": "1.2", "time_in_force": "cls"}, "time_in_force", "cls"),
            ({"order_type": "limit", "price": "1.1", "time_in_force": "opg"}, "time_in_force", "opg"),
            ({"time_in_force": "opg"}, "time_in_force", "opg"),
            ({"order_type": "stop", "price": "1.2", "time_in_force": "gtd"}, "expires_at", None),
            ({"order_type": "stop", "price": "1.1"}, "price", "1.1"),
            ({"order_type": "stop", "side": "sell", "stop_price": "1.2"}, "stop_price", "1.2"),
            ({"order_type": "stop_limit", "price": "1.1", "stop_price": "1.1"}, "stop_price", "1.1"),
            ({"order_type": "stop", "price": "1.2", "stop_loss": "1.2"}, "stop_loss", "1.2"),
            ({"order_type": "limit", "price": "1.2", "post_only": True}, "price", "1.2"),
            ({"order_type": "limit", "limit_price": "1.2", "post_only": True}, "limit_price", "1.2"),
            ({"post_only": True}, "post_only", "true"),
            ({"order_type": "limit", "price": "1.1", "display_quantity": 0.001}, "display_quantity", "0.001"),
            ({"order_type": "limit", "price": "1.1", "display_quantity": 900}, "display_quantity", "900"),
            ({"order_type": "trailing_stop"}, "trail_amount", None),
            ({"order_type": "trailing_stop", "trail_amount": "0.0000001"}, "trail_amount", "0.0000001"),
            ({"order_type": "trailing_stop", "trail_amount": "2", "side": "sell"}, "trail_amount", "2"),
            ({"order_type": "trailing_stop", "trail_percent": 100}, "trail_percent", "100"),
            ({"order_type": "trailing_stop", "trail_percent": 1, "price": "1.1"}, "price", "1.1"),
            ({"order_type": "limit"}, "price", None),
            ({"order_type": "limit", "price": "1.1000001"}, "price", "1.1000001"),
            ({"order_type": "limit", "price": "1.1", "stop_loss": "1.2"}, "stop_loss", "1.2"),
            ({"stop_loss": "1.2"}, "stop_loss", "1.2"),
            ({"take_profit": "1.000001"}, "take_profit", "1.000001"),
            ({"idempotency_key": ...}, "idempotency_key", None),
            ({"colour": "red"}, "colour", "red"),
            ({"user_id": "somebody"}, "user_id", "somebody"),
            ({"commission": 0}, "commission", "0"),
            ({"account_id": str(uuid.UUID(int=7))}, "account_id", str(uuid.UUID(int=7))),
        ],
    )
    def test_the_field_its_value_and_its_constraint(
        self, api: Api, user: User, fields: dict[str, object], field: str, value: str | None
    ) -> None:
        answer = api.post(user, order(**fields))

        error = answer.body["error"]
        expected = (404, "NOT_FOUND") if field == "account_id" else (400, "VALIDATION_FAILED")
        assert (answer.status, error["code"]) == expected
        assert (error["details"]["field"], error["details"]["value"]) == (field, value)
        assert error["details"]["constraint"]
        assert error["message"]
        assert orders_of(api, user) == 0

    @pytest.mark.parametrize(
        "text", ["", "[]", "{", '{"quantity": NaN}', '{"quantity": 1e400}', '{"a": 1, "a": 1}', "null"]
    )
    def test_a_body_that_is_no_order(self, api: Api, user: User, text: str) -> None:
        answer = api.post(user, text)

        assert (answer.status, answer.body["error"]["code"]) == (400, "VALIDATION_FAILED")
        assert answer.body["error"]["details"]["field"] == "body"

    def test_a_body_that_is_too_large(self, api: Api, user: User) -> None:
        answer = api.post(user, order(metadata={"a": "x" * 70_000}))

        assert (answer.status, answer.body["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")

    def test_an_unknown_symbol(self, api: Api, user: User) -> None:
        answer = api.post(user, order(symbol="NOSUCH"), route=REST)

        assert (answer.status, answer.body["error"]) == (404, "UNKNOWN_SYMBOL")
        assert answer.body["details"] == {"field": "symbol", "value": "NOSUCH", "constraint": "a known symbol"}

    def test_a_client_order_id_that_was_used(self, api: Api, user: User) -> None:
        api.post(user, order(client_order_id="mine"))

        answer = api.post(user, order(client_order_id="mine"))

        assert (answer.status, answer.body["error"]["code"]) == (409, "CONFLICT")

    def test_no_fresh_price_and_the_same_key_afterwards(self, api: Api, user: User) -> None:
        body = order()
        api.market.quote("EURUSD", "1.1000", "1.1002", stale_time())
        refused = api.post(user, body)
        api.market.quote("EURUSD", "1.1000", "1.1002")

        executed = api.post(user, body)

        assert (refused.status, refused.body["error"]["code"]) == (503, "MARKET_DATA_UNAVAILABLE")
        assert refused.headers["Retry-After"] == "1"
        assert refused.body["context"]["retryAfter"] == 1
        assert (executed.status, "Idempotency-Replayed" in executed.headers) == (200, False)
        assert orders_of(api, user) == 1

    @pytest.mark.parametrize("route", [FUNCTIONS, REST])
    def test_a_stale_price_is_never_traded_on_and_keeps_nothing(self, api: Api, user: User, route: str) -> None:
        # given a price that is a second too old, and one of the future
        before, account = api.market.counts(user), api.market.account(user)
        for quoted_at in (stale_time(), datetime.now(UTC) + timedelta(seconds=30)):
            api.market.quote("EURUSD", "1.1000", "1.1002", quoted_at)
            # when an order is sent, then sent again
            for side in ("buy", "sell"):
                answer = api.post(user, order(side=side, client_order_id="mine"), route=route)
                # then it is refused for now
                error = answer.body["error"]
                code = error if route == REST else error["code"]
                assert (answer.status, code, answer.headers["Retry-After"]) == (503, "MARKET_DATA_UNAVAILABLE", "1")
        # and nothing is left of it: no order, audit, event, key nor name
        assert api.market.counts(user) == before
        assert api.market.account(user) == account

    def test_somebody_elses_account(self, api: Api, user: User) -> None:
        other = api.market.user()

        answer = api.post(user, order(account_id=str(other.account_id)))

        assert (answer.status, answer.body["error"]["code"]) == (404, "NOT_FOUND")
        assert orders_of(api, other) == 0

    def test_who_is_nobody(self, api: Api, user: User) -> None:
        answer = call(api.handler, http_event(FUNCTIONS, body=json.dumps(order())))

        assert (answer.status, answer.body["error"]["code"]) == (401, "UNAUTHENTICATED")

    def test_a_browser_without_its_csrf_token(self, api: Api, user: User) -> None:
        refused = api.post(user, order(), sid="session-1")
        token = make_csrf_token(CSRF_SECRET, user.user_id, "session-1", datetime.now(UTC)).token
        admitted = api.post(user, order(), headers={"X-CSRF-Token": token}, sid="session-1")

        assert (refused.status, refused.body["error"]["code"]) == (403, "CSRF_FAILED")
        assert admitted.status == 200
        assert orders_of(api, user) == 1

    def test_the_token_is_asked_before_the_body_is_read(self, api: Api) -> None:
        answer = call(api.handler, http_event(FUNCTIONS, body="{"))

        assert answer.status == 401


class TestIdempotency:
    @pytest.mark.parametrize(("route", "status"), [(FUNCTIONS, 200), (REST, 201)])
    def test_a_repeat_gets_the_first_answer(self, api: Api, user: User, route: str, status: int) -> None:
        body = order()
        first = api.post(user, body, route=route, headers={"X-Request-ID": "first"})

        second = api.post(user, body, route=route, headers={"X-Request-ID": "second"})

        assert (first.status, second.status) == (status, status)
        assert ("Idempotency-Replayed" in first.headers, second.headers["Idempotency-Replayed"]) == (False, "true")
        assert kept_part(first, route) == kept_part(second, route)
        assert second.headers["X-Request-ID"] == "second"
        assert orders_of(api, user) == 1

    @pytest.mark.parametrize("route", [FUNCTIONS, REST])
    def test_a_denial_is_repeated_too(self, api: Api, route: str) -> None:
        user, body = api.market.user(balance=100), order()
        first = api.post(user, body, route=route)
        api.market.execute("UPDATE risk_settings SET max_positions = 0 WHERE user_id = %s", (user.user_id,))

        second = api.post(user, body, route=route)

        assert (first.status, second.status) == (400, 400)
        assert second.headers["Idempotency-Replayed"] == "true"
        assert kept_part(first, route) == kept_part(second, route)
        assert orders_of(api, user) == 1

    def test_numbers_written_otherwise_are_the_same_request(self, api: Api, user: User) -> None:
        body = order()
        api.post(user, json.dumps(body))

        again = api.post(user, json.dumps(body).replace('"quantity": 1', '"quantity": 1.00'))

        assert again.headers["Idempotency-Replayed"] == "true"

    @pytest.mark.parametrize("change", [{"quantity": 2}, {"side": "sell"}, {"time_in_force": "gtc"}])
    def test_other_content_under_the_key(self, api: Api, user: User, change: dict[str, object]) -> None:
        body = order()
        api.post(user, body)

        answer = api.post(user, body | change)

        assert (answer.status, answer.body["error"]["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
        assert answer.body["error"]["details"]["field"] == "idempotency_key"
        assert orders_of(api, user) == 1

    def test_the_other_route_is_another_request(self, api: Api, user: User) -> None:
        body = order()
        api.post(user, body)

        answer = api.post(user, body, route=REST)

        assert (answer.status, answer.body["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")

    def test_the_key_in_the_header(self, api: Api, user: User) -> None:
        headers = {"Idempotency-Key": "of-the-header"}
        first = api.post(user, order(idempotency_key=...), headers=headers)

        second = api.post(user, order(idempotency_key=...), headers=headers)
        in_the_body = api.post(user, order(idempotency_key="of-the-header"))

        assert first.status == 200
        assert second.headers["Idempotency-Replayed"] == in_the_body.headers["Idempotency-Replayed"] == "true"
        (row,) = api.market.rows("orders", user)
        assert row["idempotency_key"] == "of-the-header"

    def test_two_keys_that_differ(self, api: Api, user: User) -> None:
        answer = api.post(user, order(), headers={"Idempotency-Key": "another"})

        assert (answer.status, answer.body["error"]["details"]["field"]) == (400, "idempotency_key")

    def test_what_was_refused_before_leaves_the_key_free(self, api: Api, user: User) -> None:
        body = order(quantity="0.015")
        refused = api.post(user, body)

        executed = api.post(user, body | {"quantity": "0.01"})

        assert (refused.status, executed.status) == (400, 200)

    def test_a_key_is_its_users_own(self, api: Api, user: User) -> None:
        other, body = api.market.user(), order()

        answers = [api.post(who, body) for who in (user, other)]

        assert [answer.status for answer in answers] == [200, 200]
        assert len({answer.body["data"]["order_id"] for answer in answers}) == 2


def kept_part(answer: Answer, route: str) -> str:
    """The bytes of an answer that a repeat gets again: all but `context`."""
    return answer.text if route == REST else answer.text.partition(',"context":')[0]


def test_the_procedure_and_the_logs_hold_no_secret(api: Api, user: User, capsys: pytest.CaptureFixture[str]) -> None:
    token = make_token(user, tier="unmetered")

    call(api.handler, http_event(FUNCTIONS, headers=bearer(token), body=json.dumps(order(client_order_id="my-own"))))

    logged = capsys.readouterr().out
    assert str(user.user_id) in logged
    assert token not in logged
    assert "my-own" not in logged
