"""Canceling and closing over HTTP, from API Gateway's event to its answer."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit import MigratedTemplate, User
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

CANCEL, CLOSE = "POST /api/v1/orders/{id}/cancel", "POST /api/v1/positions/{id}/close"
every_change = pytest.mark.parametrize("route", [CANCEL, CLOSE])


@dataclass(frozen=True)
class Api:
    """manage_orders on a database of the module's own."""

    market: Market
    handler: Any

    def post(
        self,
        route: str,
        user: User,
        subject: object,
        body: dict[str, object] | str | None = None,
        headers: dict[str, str] | None = None,
        **claims: Any,
    ) -> Answer:
        event = http_event(
            route,
            path_parameters={"id": str(subject)},
            headers=bearer(make_token(user, **({"tier": "unmetered"} | claims))) | (headers or {}),
            body=json.dumps(body) if isinstance(body, dict) else body,
        )
        return call(self.handler, event)

    def get(self, route: str, user: User, subject: object) -> Any:
        event = http_event(route, path_parameters={"id": str(subject)}, headers=bearer(make_token(user)))
        answer = call(self.handler, event)
        assert answer.status == 200, answer.text
        return answer.body

    def subject(self, route: str, user: User) -> str:
        """An order that a cancel, or a position that a close can be asked for."""
        if route == CANCEL:
            return self.market.place(user, symbol="AAPL", quantity="100", limit_price="140")["order_id"]
        return self.market.trade(user, symbol="AAPL", quantity="100")["position_id"]


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Market, redis_url: str) -> Iterator[Api]:
    shared.prepare()
    with function_environment(monkeypatch, tmp_path, database=shared.database, redis_url=redis_url):
        yield Api(shared, load_function("manage_orders"))


@pytest.fixture
def user(api: Api) -> User:
    return api.market.user()


class TestCancel:
    def test_the_order_is_canceled(self, api: Api, user: User) -> None:
        order_id = api.subject(CANCEL, user)

        answer = api.post(CANCEL, user, order_id)

        data = answer.body
        assert answer.status == 200
        assert data == {
            "id": order_id,
            "trader_id": str(user.user_id),
            "status": "CANCELLED",
            "created_at": data["created_at"],
            "cancelled_at": data["cancelled_at"],
            "client_order_id": None,
            "symbol": "AAPL",
            "side": "BUY",
            "order_type": "LIMIT",
            "quantity": "100",
            "filled_quantity": "0",
            "leaves_quantity": "0",
            "price": "140.00",
            "stop_price": None,
            "time_in_force": "GTC",
            "expires_at": None,
            "average_price": None,
        }
        assert datetime.fromisoformat(data["created_at"]) <= datetime.fromisoformat(data["cancelled_at"])

    def test_it_is_read_back_with_the_reason(self, api: Api, user: User) -> None:
        order_id = api.subject(CANCEL, user)
        api.post(CANCEL, user, order_id)

        order = api.get("GET /api/v1/orders/{id}", user, order_id)
        audit = api.get("GET /api/v1/orders/{id}/audit", user, order_id)["data"]

        assert (order["status"], order["price"], order["leaves_quantity"]) == ("CANCELLED", "140.00", "0")
        assert [(row["action"], row["status"]) for row in audit] == [
            ("SUBMITTED", "PENDING"),
            ("APPROVED", "PENDING"),
            ("CANCELLED", "CANCELLED"),
        ]
        assert audit[-1]["reason"] == "User requested cancellation"

    def test_a_filled_order(self, api: Api, user: User) -> None:
        order_id = api.market.trade(user)["order_id"]

        answer = api.post(CANCEL, user, order_id)

        assert (answer.status, answer.body["error"]) == (409, "ORDER_NOT_CANCELABLE")
        assert answer.body["message"] == "The order is filled and cannot be canceled. To undo it, close its position."
        assert answer.body["details"] == {"field": "status", "value": "FILLED", "constraint": "an order that works"}

    def test_a_canceled_order(self, api: Api, user: User) -> None:
        order_id = api.subject(CANCEL, user)
        api.post(CANCEL, user, order_id)

        answer = api.post(CANCEL, user, order_id)

        assert (answer.status, answer.body["details"]["value"]) == (409, "CANCELLED")


class TestClose:
    def test_the_whole(self, api: Api, user: User) -> None:
        position_id = api.subject(CLOSE, user)
        api.market.quote("AAPL", "155.00", "155.02")

        answer = api.post(CLOSE, user, position_id)

        # then 500 of profit, and 1.60 of commission
        data = answer.body
        position = {
            "id": position_id,
            "symbol": "AAPL",
            "side": "LONG",
            "status": "CLOSED",
            "quantity": "0",
            "entry_price": "150.00",
            "current_price": "155.00",
            "unrealized_pnl": "0.00",
            "realized_pnl": "500.00",
            "margin_used": "0.00",
        }
        assert answer.status == 200
        assert (
            data.items()
            >= {
                "trader_id": str(user.user_id),
                "status": "FILLED",
                "side": "SELL",
                "order_type": "MARKET",
                "quantity": "100",
                "average_price": "155.00",
                "commission": "1.60",
                "realized_pnl": "500.00",
                "currency": "USD",
                "position_id": position_id,
                "position": position,
            }.items()
        )
        assert api.get("GET /api/v1/orders/{id}", user, data["id"])["status"] == "FILLED"

    def test_a_part(self, api: Api, user: User) -> None:
        position_id = api.subject(CLOSE, user)

        answer = api.post(CLOSE, user, position_id, {"quantity": 40, "max_slippage": "0.01"})

        position = answer.body["position"]
        assert (answer.body["quantity"], position["status"], position["quantity"]) == ("40", "OPEN", "60")
        assert position["margin_used"] == "450.00"  # 60 x 150 / 20

    def test_more_than_is_held(self, api: Api, user: User) -> None:
        position_id = api.subject(CLOSE, user)

        answer = api.post(CLOSE, user, position_id, {"quantity": "101"})

        denied = max(api.market.rows("orders", user), key=lambda row: row["id"])
        assert (answer.status, answer.body["error"]) == (400, "INSUFFICIENT_POSITION")
        assert answer.body["details"]["order_id"] == str(denied["id"])

    def test_a_closed_position(self, api: Api, user: User) -> None:
        position_id = api.subject(CLOSE, user)
        api.post(CLOSE, user, position_id)

        answer = api.post(CLOSE, user, position_id)

        assert (answer.status, answer.body["error"]) == (409, "CONFLICT")
        assert answer.body["details"] == {"field": "status", "value": "CLOSED", "constraint": "an open position"}

    def test_a_stale_price_keeps_nothing(self, api: Api, user: User) -> None:
        position_id = api.subject(CLOSE, user)
        api.market.quote("AAPL", "149.98", "150.00", stale_time())
        body: dict[str, object] = {"idempotency_key": "again"}

        refused = api.post(CLOSE, user, position_id, body)
        api.market.quote("AAPL", "149.98", "150.00")
        closed = api.post(CLOSE, user, position_id, body)

        assert (refused.status, refused.body["error"]) == (503, "MARKET_DATA_UNAVAILABLE")
        assert refused.headers["Retry-After"] == "1"
        assert closed.status == 200

    @pytest.mark.parametrize(
        ("body", "field", "value"),
        [
            ({"quantity": 0}, "quantity", "0"),
            ({"quantity": "1,5"}, "quantity", "1,5"),
            ({"quantity": "0.001"}, "quantity", "0.001"),
            ({"quantity": True}, "quantity", "true"),
            ({"quantity": []}, "quantity", None),
            ({"max_slippage": "-1"}, "max_slippage", "-1"),
            ({"price": "1"}, "price", "1"),
            ({"user_id": "somebody"}, "user_id", "somebody"),
        ],
    )
    def test_a_body_that_does_not_fit(
        self, api: Api, user: User, body: dict[str, object], field: str, value: str | None
    ) -> None:
        position_id = api.subject(CLOSE, user)

        answer = api.post(CLOSE, user, position_id, body)

        assert (answer.status, answer.body["error"]) == (400, "VALIDATION_FAILED")
        assert (answer.body["details"]["field"], answer.body["details"]["value"]) == (field, value)
        assert answer.body["details"]["constraint"]
        assert len(api.market.rows("orders", user)) == 1

    def test_what_is_not_known_is_named(self, api: Api, user: User) -> None:
        answer = api.post(CLOSE, user, api.subject(CLOSE, user), {"colour": "red"})

        assert answer.body["message"] == "Leave colour out: a close has no such field."


class TestEither:
    @every_change
    @pytest.mark.parametrize("body", [None, "", "  ", "{}", '{"idempotency_key": null}'])
    def test_a_body_may_be_left_out(self, api: Api, user: User, route: str, body: str | None) -> None:
        assert api.post(route, user, api.subject(route, user), body).status == 200

    @every_change
    @pytest.mark.parametrize(
        "body", ["[]", "{", "null", '{"quantity": NaN}', '{"idempotency_key": "a", "idempotency_key": "b"}']
    )
    def test_a_body_that_is_no_object(self, api: Api, user: User, route: str, body: str) -> None:
        answer = api.post(route, user, api.subject(route, user), body)

        assert (answer.status, answer.body["details"]["field"]) == (400, "body")

    @every_change
    def test_a_body_that_is_too_large(self, api: Api, user: User, route: str) -> None:
        answer = api.post(route, user, api.subject(route, user), {"idempotency_key": "x" * 70_000})

        assert (answer.status, answer.body["error"]) == (413, "PAYLOAD_TOO_LARGE")

    @every_change
    @pytest.mark.parametrize("key", ["", " ", "x" * 256, 7])
    def test_a_key_of_another_form(self, api: Api, user: User, route: str, key: object) -> None:
        answer = api.post(route, user, api.subject(route, user), {"idempotency_key": key})

        assert (answer.status, answer.body["details"]["field"]) == (400, "idempotency_key")

    @every_change
    @pytest.mark.parametrize("subject", ["7", "{0198b1de-0000-7000-8000-0000000000aa}", "'; DROP TABLE orders; --"])
    def test_an_id_of_another_form(self, api: Api, user: User, route: str, subject: str) -> None:
        answer = api.post(route, user, subject)

        assert (answer.status, answer.body["details"]["field"]) == (400, "id")

    @every_change
    def test_what_is_not_there_or_somebody_elses(self, api: Api, user: User, route: str) -> None:
        theirs = api.subject(route, api.market.user())

        missing, foreign = api.post(route, user, uuid.uuid4()), api.post(route, user, theirs)

        assert (missing.status, missing.body["error"]) == (foreign.status, foreign.body["error"]) == (404, "NOT_FOUND")
        assert foreign.body["details"]["field"] == "id"
        assert missing.body["message"] == foreign.body["message"]

    @every_change
    @pytest.mark.parametrize("where", ["body", "header"])
    def test_a_repeat_gets_the_same_answer(self, api: Api, user: User, route: str, where: str) -> None:
        subject, key = api.subject(route, user), str(uuid.uuid4())
        body: dict[str, object] | None = {"idempotency_key": key} if where == "body" else None
        headers = {"Idempotency-Key": key} if where == "header" else None

        first, second = [api.post(route, user, subject, body, headers) for _ in range(2)]

        assert (first.status, second.status) == (200, 200)
        assert first.text == second.text
        assert "Idempotency-Replayed" not in first.headers
        assert second.headers["Idempotency-Replayed"] == "true"

    @every_change
    def test_a_key_for_another_subject(self, api: Api, user: User, route: str) -> None:
        body: dict[str, object] = {"idempotency_key": str(uuid.uuid4())}
        one, other = api.subject(route, user), api.subject(route, user)
        api.post(route, user, one, body)

        answer = api.post(route, user, other, body)

        assert (answer.status, answer.body["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")

    @every_change
    def test_two_keys_that_differ(self, api: Api, user: User, route: str) -> None:
        answer = api.post(
            route, user, api.subject(route, user), {"idempotency_key": "a"}, headers={"Idempotency-Key": "b"}
        )

        assert (answer.status, answer.body["details"]["constraint"]) == (400, "the same in header and body")

    @every_change
    def test_a_browser_session_needs_its_csrf_token(self, api: Api, user: User, route: str) -> None:
        subject = api.subject(route, user)
        csrf = make_csrf_token(CSRF_SECRET, user.user_id, "s1", datetime.now(UTC)).token

        without = api.post(route, user, subject, sid="s1", client_id=None)
        with_it = api.post(route, user, subject, sid="s1", client_id=None, headers={"X-CSRF-Token": csrf})

        assert (without.status, without.body["error"]) == (403, "CSRF_FAILED")
        assert with_it.status == 200

    @every_change
    def test_they_count_with_the_orders(self, api: Api, user: User, route: str) -> None:
        answers = [api.post(route, user, uuid.uuid4(), tier="bronze") for _ in range(11)]

        assert [answer.status for answer in answers] == [404] * 10 + [429]

    @every_change
    def test_a_suspended_client_may(self, api: Api, user: User, route: str) -> None:
        subject = api.subject(route, user)
        api.market.execute("UPDATE profiles SET account_status = 'suspended' WHERE id = %s", (user.user_id,))

        assert api.post(route, user, subject).status == 200

    @every_change
    def test_the_books_are_kept_of_where_it_came_from(self, api: Api, user: User, route: str) -> None:
        subject = api.subject(route, user)

        api.post(route, user, subject, headers={"X-Request-ID": "request-7"})

        event = api.market.last_event(user)
        personal = {row["user_agent"] for row in api.market.rows("audit_pii", user)}
        addresses = {str(row["ip_address"]) for row in api.market.rows("audit_pii", user)}
        assert event["request_id"] == "request-7"
        assert "tests" in personal
        assert "203.0.113.7" in addresses


def test_numbers_keep_every_digit(api: Api) -> None:
    # given a position whose quantity has more places than a float holds
    user = api.market.user(balance=10_000_000)
    api.market.quote("BTCUSD", "92000", "92014")
    opened = api.market.trade(user, symbol="BTCUSD", quantity="1")

    answer = api.post(CLOSE, user, opened["position_id"], '{"quantity": 0.10}')

    assert (answer.body["quantity"], answer.body["position"]["quantity"]) == ("0.1", "0.9")
    assert Decimal(answer.body["realized_pnl"]) == (Decimal(answer.body["average_price"]) - Decimal(92089)) / 10
