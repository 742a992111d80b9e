"""Replacing, canceling and closing over HTTP, from API Gateway's event to its answer."""

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
from tests.kit.trading_api import TradingApi
from trading.edge.csrf import make_csrf_token

CANCEL, CLOSE = "POST /api/v1/orders/{id}/cancel", "POST /api/v1/positions/{id}/close"
REPLACE, CANCEL_ALL = "PATCH /api/v1/orders/{id}", "POST /api/v1/orders/cancel-all"
PREVIEW = "POST /api/v1/orders/preview"
every_change = pytest.mark.parametrize("route", [CANCEL, CLOSE])
every_replacement = pytest.mark.parametrize("route", [REPLACE, PREVIEW])


class Api(TradingApi):
    def post(self, route: str, user: User, subject: object, body: object = None, **asked: Any) -> Answer:
        return self.ask(route, user, body, subject=subject, **asked)

    def replace(self, user: User, order_id: object, body: dict[str, object] | None = None, **asked: Any) -> Answer:
        return self.post(REPLACE, user, order_id, body if body is not None else {"quantity": "50"}, **asked)

    def cancel_all(self, user: User, body: dict[str, object] | str | None = None, **claims: Any) -> Answer:
        return self.ask(CANCEL_ALL, user, body, **claims)

    def change(self, route: str, user: User, order_id: str, body: dict[str, object]) -> Answer:
        """A replacement, or the preview of one."""
        if route == REPLACE:
            return self.replace(user, order_id, body)
        return self.ask(route, user, {"replaces_order_id": order_id, **body})

    def get(self, route: str, user: User, subject: object) -> Any:
        answer = self.ask(route, user, subject=subject)
        assert answer.status == 200, answer.text
        return answer.body

    def subject(self, route: str, user: User) -> str:
        """An order that a cancel, or a position that a close can be asked for."""
        if route == CANCEL:
            return self.market.place(user, symbol="AAPL", quantity="100", limit_price="140")["order_id"]
        return self.market.trade(user, symbol="AAPL", quantity="100")["position_id"]


@pytest.fixture
def api(api: TradingApi) -> Api:
    return Api(api.market, api.placing, api.managing)


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


class TestReplace:
    def test_the_order_is_replaced(self, api: Api, user: User) -> None:
        order_id = api.subject(CANCEL, user)

        answer = api.replace(user, order_id, {"price": 141.5, "stop_loss": "120", "version": 1})

        data = answer.body
        assert answer.status == 200, answer.text
        assert data == {
            "id": data["id"],
            "trader_id": str(user.user_id),
            "status": "PENDING",
            "created_at": data["created_at"],
            "client_order_id": None,
            "symbol": "AAPL",
            "side": "BUY",
            "order_type": "LIMIT",
            "quantity": "100",
            "filled_quantity": "0",
            "leaves_quantity": "100",
            "price": "141.50",
            "stop_price": None,
            "time_in_force": "GTC",
            "expires_at": None,
            "average_price": None,
            "stop_loss": "120.00",
            "take_profit": None,
            "version": 1,
            "replaces_order_id": order_id,
            "replaced": {
                "id": order_id,
                "status": "REPLACED",
                "quantity": "100",
                "filled_quantity": "0",
                "version": 2,
            },
        }

    def test_one_that_the_quote_touches_is_filled_in_the_same_call(self, api: Api, user: User) -> None:
        order_id = api.subject(CANCEL, user)

        answer = api.replace(user, order_id, {"price": "151", "quantity": "1"})

        data = answer.body
        assert (answer.status, data["status"], data["filled_quantity"]) == (200, "FILLED", "1"), answer.text
        assert (Decimal(data["average_price"]), data["replaced"]["status"]) == (150, "REPLACED")

    def test_both_are_read_back(self, api: Api, user: User) -> None:
        order_id = api.subject(CANCEL, user)
        new_id = api.replace(user, order_id).body["id"]

        old, new = (api.get("GET /api/v1/orders/{id}", user, each) for each in (order_id, new_id))
        audit = api.get("GET /api/v1/orders/{id}/audit", user, order_id)["data"]

        assert (old["status"], old["version"], old["replaces_order_id"]) == ("REPLACED", 2, None)
        assert (new["status"], new["version"], new["replaces_order_id"]) == ("PENDING", 1, order_id)
        assert [(row["action"], row["status"]) for row in audit] == [
            ("SUBMITTED", "PENDING"),
            ("APPROVED", "PENDING"),
            ("REPLACED", "REPLACED"),
        ]

    @every_replacement
    def test_null_takes_a_stop_loss_away(self, api: Api, user: User, route: str) -> None:
        """A limit below the old stop loss is taken only without it."""
        order_id = api.market.place(user, symbol="AAPL", quantity="100", limit_price="140", stop_loss="130")["order_id"]

        kept = api.change(route, user, order_id, {"price": "125"})
        taken = api.change(route, user, order_id, {"price": "125", "stop_loss": None})

        assert (kept.status, kept.body["details"]["field"]) == (400, "stop_loss")
        assert taken.status == 200, taken.text

    @pytest.mark.parametrize(
        ("body", "shown"),
        [
            ({"trail_amount": "0.5"}, {"trail_amount": "0.5", "trail_percent": None, "limit_offset": "0.05"}),
            ({"trail_percent": "2"}, {"trail_amount": None, "trail_percent": "2", "limit_offset": "0.05"}),
            ({"limit_offset": "0"}, {"trail_amount": None, "trail_percent": "1", "limit_offset": "0"}),
        ],
    )
    def test_how_it_trails(self, api: Api, user: User, body: dict[str, object], shown: dict[str, object]) -> None:
        trailing = {"order_type": "trailing_stop_limit", "limit_price": None, "trail_percent": "1"}
        asked = {"symbol": "AAPL", "quantity": "10", "limit_offset": "0.05"} | trailing
        order_id = api.market.place(user, **asked)["order_id"]

        answer = api.replace(user, order_id, body)

        assert answer.status == 200, answer.text
        assert {name: answer.body[name] for name in shown} == shown
        (level,) = api.market.rows("trailing_levels", user)
        assert str(level["subject_id"]) == answer.body["id"]

    @pytest.mark.parametrize(
        ("body", "shown"),
        [
            ({"display_quantity": "20"}, ("20", "0.5")),
            ({"display_variance": "0.1"}, ("10", "0.1")),
            ({"display_variance": None}, ("10", None)),
            ({"display_quantity": None}, (None, None)),
        ],
    )
    def test_what_it_shows(
        self, api: Api, user: User, body: dict[str, object], shown: tuple[str | None, str | None]
    ) -> None:
        iceberg = {"display_quantity": "10", "display_variance": "0.5"}
        order_id = api.market.place(user, symbol="AAPL", quantity="100", limit_price="140", **iceberg)["order_id"]

        answer = api.replace(user, order_id, body)

        assert answer.status == 200, answer.text
        assert (answer.body.get("display_quantity"), answer.body.get("display_variance")) == shown

    def test_a_denied_one_names_its_order_and_the_old_works_on(self, api: Api, user: User) -> None:
        order_id = api.subject(CANCEL, user)

        answer = api.replace(user, order_id, {"quantity": "100000"})

        assert (answer.status, answer.body["error"]) == (400, "INSUFFICIENT_MARGIN")
        denied = api.get("GET /api/v1/orders/{id}", user, answer.body["details"]["order_id"])
        assert (denied["status"], denied["replaces_order_id"]) == ("REJECTED", order_id)
        assert api.get("GET /api/v1/orders/{id}", user, order_id)["status"] == "PENDING"

    def test_an_order_says_when_it_ends_by_itself(self, api: Api, user: User) -> None:
        ends: dict[str, object] = {"time_in_force": "gtd", "expires_at": "2090-01-01T00:00:00.000Z"}

        new = api.replace(user, api.subject(CANCEL, user), ends).body

        shown = api.get("GET /api/v1/orders/{id}", user, new["id"])
        assert new["expires_at"] == shown["expires_at"] == ends["expires_at"]

    @every_replacement
    @pytest.mark.parametrize("field", ["symbol", "side", "order_type", "post_only", "reduce_only"])
    def test_what_cannot_change(self, api: Api, user: User, route: str, field: str) -> None:
        answer = api.change(route, user, api.subject(CANCEL, user), {field: "buy", "quantity": 1})

        assert (answer.status, answer.body["error"]) == (400, "VALIDATION_FAILED")
        assert answer.body["details"] == {"field": field, "value": "buy", "constraint": "left out"}
        assert answer.body["message"] == (
            f"An order keeps its {field}: leave {field} out, or cancel the order and send another."
        )

    @every_replacement
    def test_a_refusal_speaks_of_the_fields_that_were_sent(self, api: Api, user: User, route: str) -> None:
        order_id = api.market.place(user, symbol="AAPL", quantity="1", limit_price="140", post_only=True)["order_id"]

        bodies: tuple[dict[str, object], ...] = ({"price": "160"}, {"limit_price": "160"}, {"stop_price": "1"})
        told = [api.change(route, user, order_id, body).body["message"] for body in bodies]

        assert told[0].startswith("Check price: it must be below the ask ")
        assert told[1].startswith("Check limit_price: it must be below the ask ")
        assert "limit order" in told[2]

    @every_replacement
    @pytest.mark.parametrize("body", [{}, {"version": 1}, {"quantity": None, "price": None}])
    def test_nothing_that_changes(self, api: Api, user: User, route: str, body: dict[str, object]) -> None:
        answer = api.change(route, user, api.subject(CANCEL, user), body)

        assert (answer.status, answer.body["details"]["field"]) == (400, "body")

    @every_replacement
    @pytest.mark.parametrize(
        ("body", "field", "value"),
        [
            ({"quantity": 0}, "quantity", "0"),
            ({"quantity": "0.001"}, "quantity", None),
            ({"price": "1,5"}, "price", "1,5"),
            ({"price": "140.001"}, "price", "140.001"),
            ({"limit_price": "140.001"}, "limit_price", "140.001"),
            ({"price": "140", "limit_price": "140"}, "price", "140"),
            ({"stop_price": "200"}, "stop_price", None),
            ({"stop_loss": "141"}, "stop_loss", "141"),
            ({"time_in_force": "ioc"}, "time_in_force", "ioc"),
            ({"time_in_force": "gtd"}, "expires_at", None),
            ({"expires_at": "2090-01-01T00:00:00Z"}, "expires_at", None),
            ({"expires_at": "soon"}, "expires_at", "soon"),
            ({"version": "1"}, "version", "1"),
            ({"version": 1.5, "quantity": 1}, "version", "1.5"),
            ({"trail_amount": "1"}, "trail_amount", None),
            ({"trail_percent": "100"}, "trail_percent", "100"),
            ({"limit_offset": "-1"}, "limit_offset", "-1"),
            ({"display_quantity": "101"}, "display_quantity", None),
            ({"display_quantity": "0"}, "display_quantity", "0"),
            ({"display_variance": "0.1"}, "display_variance", None),
            ({"max_slippage": 1}, "max_slippage", "1"),
            ({"colour": "red"}, "colour", "red"),
        ],
    )
    def test_a_body_that_does_not_fit(
        self, api: Api, user: User, route: str, body: dict[str, object], field: str, value: str | None
    ) -> None:
        order_id = api.subject(CANCEL, user)

        answer = api.change(route, user, order_id, body)

        assert (answer.status, answer.body["error"]) == (400, "VALIDATION_FAILED"), answer.text
        assert answer.body["details"]["field"] == field
        assert value is None or answer.body["details"]["value"] == value
        assert len(api.market.rows("orders", user)) == 1

    @every_replacement
    def test_another_version_is_told_the_order_as_it_is(self, api: Api, user: User, route: str) -> None:
        order_id = api.subject(CANCEL, user)
        api.post(CANCEL, user, order_id)

        answer = api.change(route, user, order_id, {"quantity": 1, "version": 1})

        details = answer.body["details"]
        assert (answer.status, answer.body["error"]) == (409, "CONFLICT")
        assert (details["field"], details["value"], details["constraint"]) == ("version", "1", "the order's version, 2")
        shown = api.get("GET /api/v1/orders/{id}", user, order_id)
        assert details["order"] == {name: shown[name] for name in details["order"]}
        assert (details["order"]["status"], details["order"]["version"]) == ("CANCELLED", 2)

    @every_replacement
    def test_an_order_that_does_not_work(self, api: Api, user: User, route: str) -> None:
        order_id = api.market.trade(user)["order_id"]

        answer = api.change(route, user, order_id, {"quantity": 2})

        details = answer.body["details"]
        assert (answer.status, answer.body["error"]) == (409, "ORDER_NOT_CANCELABLE")
        assert (details["field"], details["value"], details["order"]["status"]) == ("status", "FILLED", "FILLED")

    @every_replacement
    def test_what_is_not_there_or_somebody_elses(self, api: Api, user: User, route: str) -> None:
        theirs = api.subject(CANCEL, api.market.user())

        answers = [api.change(route, user, each, {"quantity": 2}) for each in (str(uuid.uuid4()), theirs)]

        assert [(answer.status, answer.body["error"]) for answer in answers] == [(404, "NOT_FOUND")] * 2

    def test_a_repeat_gets_the_same_answer(self, api: Api, user: User) -> None:
        order_id, body = api.subject(CANCEL, user), {"quantity": "50", "idempotency_key": str(uuid.uuid4())}

        first, second = [api.replace(user, order_id, dict(body)) for _ in range(2)]
        other = api.replace(user, order_id, {**body, "quantity": "51"})

        assert (first.status, second.status, first.text) == (200, 200, second.text)
        assert second.headers["Idempotency-Replayed"] == "true"
        assert (other.status, other.body["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")

    def test_null_is_not_the_same_as_left_out(self, api: Api, user: User) -> None:
        order_id, key = api.subject(CANCEL, user), str(uuid.uuid4())
        api.replace(user, order_id, {"quantity": "50", "idempotency_key": key})

        answer = api.replace(user, order_id, {"quantity": "50", "stop_loss": None, "idempotency_key": key})

        assert (answer.status, answer.body["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")

    def test_it_counts_with_the_orders(self, api: Api, user: User) -> None:
        answers = [api.replace(user, uuid.uuid4(), tier="bronze") for _ in range(11)]

        assert [answer.status for answer in answers] == [404] * 10 + [429]

    def test_a_browser_session_needs_its_csrf_token(self, api: Api, user: User) -> None:
        answer = api.replace(user, api.subject(CANCEL, user), sid="s1", client_id=None)

        assert (answer.status, answer.body["error"]) == (403, "CSRF_FAILED")


class TestPreviewOfAReplacement:
    def test_it_is_what_the_replacement_comes_to(self, api: Api, user: User) -> None:
        order_id = api.subject(CANCEL, user)
        before = api.market.counts(user)

        told = api.change(PREVIEW, user, order_id, {"quantity": "200", "price": "141"})

        assert told.status == 200, told.text
        # 200 x 141 / 20
        assert (told.body["symbol"], told.body["quantity"], told.body["price"]) == ("AAPL", "200", "141.00")
        assert (told.body["margin"], told.body["accepted"]) == ("1410.00", True)
        assert api.market.counts(user) == before
        assert api.replace(user, order_id, {"quantity": "200", "price": "141"}).status == 200

    def test_its_refusal_is_the_replacements(self, api: Api, user: User) -> None:
        order_id, body = api.subject(CANCEL, user), {"quantity": "100000"}

        told = api.change(PREVIEW, user, order_id, dict(body)).body["refusal"]
        refused = api.replace(user, order_id, dict(body)).body

        assert told["code"] == refused["error"] == "INSUFFICIENT_MARGIN"
        del refused["details"]["order_id"]
        assert (told["message"], told["details"]) == (refused["message"], refused["details"])

    def test_the_old_one_is_not_counted_with_the_working(self, api: Api) -> None:
        user = api.market.user(risk={"max_working_orders": 1})
        order_id = api.subject(CANCEL, user)

        assert api.change(PREVIEW, user, order_id, {"quantity": "50"}).body["accepted"] is True

    def test_it_takes_no_key(self, api: Api, user: User) -> None:
        answer = api.change(PREVIEW, user, api.subject(CANCEL, user), {"quantity": 1, "idempotency_key": "k"})

        assert (answer.status, answer.body["details"]["field"]) == (400, "idempotency_key")

    @pytest.mark.parametrize("order_id", [None, 7, "7", {}, ""])
    def test_an_id_of_another_form(self, api: Api, user: User, order_id: Any) -> None:
        answer = api.change(PREVIEW, user, order_id, {"quantity": 1})

        assert (answer.status, answer.body["details"]["field"]) == (400, "replaces_order_id")


class TestCancelAll:
    def test_all_of_them(self, api: Api, user: User) -> None:
        placed = [api.subject(CANCEL, user) for _ in range(3)]

        answer = api.cancel_all(user)

        assert answer.status == 200, answer.text
        assert [order["id"] for order in answer.body["canceled"]] == placed
        assert answer.body["left"] == 0
        assert {(order["status"], order["price"]) for order in answer.body["canceled"]} == {("CANCELLED", "140.00")}

    def test_those_that_fit(self, api: Api, user: User) -> None:
        api.subject(CANCEL, user)
        other = api.market.place(user)["order_id"]

        answer = api.cancel_all(
            user, {"symbol": "eurusd", "side": "BUY", "order_type": "LIMIT", "account_id": str(user.account_id)}
        )

        assert [order["id"] for order in answer.body["canceled"]] == [other]

    def test_none(self, api: Api, user: User) -> None:
        assert api.cancel_all(user, "").body == {"canceled": [], "left": 0}

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"symbol": "EUR USD"}, "symbol"),
            ({"symbol": ["AAPL"]}, "symbol"),
            ({"symbol": None}, "symbol"),
            ({"colour": None}, "colour"),
            ({"side": "LONG"}, "side"),
            ({"order_type": "iceberg"}, "order_type"),
            ({"account_id": "7"}, "account_id"),
            ({"status": "PENDING"}, "status"),
            ({"idempotency_key": ""}, "idempotency_key"),
        ],
    )
    def test_a_body_that_does_not_fit_cancels_nothing(
        self, api: Api, user: User, body: dict[str, object], field: str
    ) -> None:
        api.subject(CANCEL, user)

        answer = api.cancel_all(user, body)

        assert (answer.status, answer.body["details"]["field"]) == (400, field)
        assert [row["status"] for row in api.market.rows("orders", user)] == ["new"]

    def test_somebody_elses_account(self, api: Api, user: User) -> None:
        answer = api.cancel_all(user, {"account_id": str(api.market.user().account_id)})

        assert (answer.status, answer.body["error"]) == (404, "NOT_FOUND")

    def test_a_repeat_gets_the_same_answer(self, api: Api, user: User) -> None:
        body: dict[str, object] = {"idempotency_key": str(uuid.uuid4())}
        api.subject(CANCEL, user)

        first = api.cancel_all(user, body)
        api.subject(CANCEL, user)
        second = api.cancel_all(user, body)

        assert first.text == second.text
        assert second.headers["Idempotency-Replayed"] == "true"
        assert api.cancel_all(user, {**body, "symbol": "AAPL"}).status == 422

    def test_it_counts_with_the_orders(self, api: Api, user: User) -> None:
        answers = [api.cancel_all(user, tier="bronze") for _ in range(11)]

        assert [answer.status for answer in answers] == [200] * 10 + [429]


class TestEither:
    @every_change
    @pytest.mark.parametrize("body", [None, "", "{}", '{"idempotency_key": null}'])
    def test_a_body_may_be_left_out(self, api: Api, user: User, route: str, body: str | None) -> None:
        assert api.post(route, user, api.subject(route, user), body).status == 200

    @every_change
    @pytest.mark.parametrize(
        "body", ["  ", "[]", "{", "null", '{"quantity": NaN}', '{"idempotency_key": "a", "idempotency_key": "b"}']
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

        first, second = [api.post(route, user, subject, body, headers=headers) for _ in range(2)]

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
