"""From a body in an API's words to an order, and from its outcome to an answer."""

import re
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from trading.edge.body import parse_body
from trading.edge.envelope import Dialect
from trading.edge.http import Request
from trading.edge.order_dialects import execution_data, faults_as_sent, order_entry
from trading.errors import ErrorCode, TradingError
from trading.execution import Execution
from trading.order_entry import ExecutionInstructions, OrderEntry

MARKET = {"symbol": "EURUSD", "order_type": "market", "side": "buy", "quantity": 0.1, "idempotency_key": "key"}
ANSWER = {
    "outcome": "filled",
    "order_id": "0197a0b0-0000-7000-8000-000000000001",
    "position_id": "0197a0b0-0000-7000-8000-000000000002",
    "client_order_id": None,
    "symbol": "BTCUSD",
    "side": "buy",
    "order_type": "market",
    "quantity": Decimal("0.10"),
    "status": "filled",
    "execution_price": 92000,
    "slippage": 0,
    "commission": Decimal("0.00"),
    "total_cost": Decimal("1840.00"),
    "transaction_id": "txn_1",
    "transact_time": "2026-01-31T18:08:22.493517Z",
}


def request(headers: Mapping[str, str] | None = None) -> Request:
    return Request(
        route_key="POST /api/v1/orders",
        method="POST",
        path="/api/v1/orders",
        path_parameters={},
        query={},
        headers=headers or {},
        body=b"",
        source_ip="192.0.2.1",
        user_agent="tests",
        request_id="request-1",
        started_at=0.0,
    )


def read(
    body: Mapping[str, Any], dialect: Dialect = "functions", headers: Mapping[str, str] | None = None
) -> OrderEntry:
    return order_entry(request(headers), body, dialect)


def fault_of(body: Mapping[str, Any], dialect: Dialect = "functions", headers: Mapping[str, str] | None = None) -> Any:
    """The details of the refusal of `body`."""
    with pytest.raises(TradingError) as caught:
        read(body, dialect, headers)
    assert caught.value.code is ErrorCode.VALIDATION_FAILED
    assert caught.value.message
    return caught.value.details


def refusal_of(body: Mapping[str, Any]) -> TradingError:
    """As the API tells it."""
    with pytest.raises(TradingError) as caught, faults_as_sent(body):
        read(body)
    assert caught.value.code is ErrorCode.VALIDATION_FAILED
    return caught.value


def fields_of(model: type[BaseModel]) -> set[str]:
    """The fields of a model, those of its only inner model after a point."""
    inner = {f"execution_instructions.{name}" for name in ExecutionInstructions.model_fields}
    return set(model.model_fields) | (inner if "execution_instructions" in model.model_fields else set())


def market(**fields: object) -> dict[str, object]:
    """A market order as a body; an ellipsis leaves a field out."""
    given = MARKET | {"quantity": Decimal("0.1")} | fields
    return {name: value for name, value in given.items() if value is not ...}


class TestWords:
    def test_a_market_order(self) -> None:
        order = read(market())

        assert (order.symbol, order.side, order.quantity) == ("EURUSD", "buy", Decimal("0.1"))
        assert order.idempotency_key == "key"

    def test_null_counts_as_left_out(self) -> None:
        assert read(market(price=None, stop_loss=None, metadata=None)) == read(market())

    @pytest.mark.parametrize(
        ("fields", "limit_price", "stop_price"),
        [
            ({"order_type": "limit", "price": "1.1"}, "1.1", None),
            ({"order_type": "LIMIT", "limit_price": "1.1"}, "1.1", None),
            ({"order_type": "stop", "price": "1.1"}, None, "1.1"),
            ({"order_type": "STOP", "stop_price": "1.1"}, None, "1.1"),
            ({"order_type": "stop_limit", "price": "1.1", "stop_price": "1.2"}, "1.1", "1.2"),
        ],
    )
    def test_price_is_the_limit_or_the_trigger(
        self, fields: dict[str, object], limit_price: str | None, stop_price: str | None
    ) -> None:
        order = read(market(**fields))

        assert order.limit_price == (Decimal(limit_price) if limit_price else None)
        assert order.stop_price == (Decimal(stop_price) if stop_price else None)

    def test_the_body_is_left_as_it_came(self) -> None:
        body = market(order_type="limit", price="1.1")
        before = dict(body)

        read(body, "rest")

        assert body == before

    def test_a_side_may_be_left_out_of_one_dialect_alone(self) -> None:
        assert read(market(side=...), "rest").side == "buy"
        assert fault_of(market(side=...))["field"] == "side"


class TestKeys:
    def test_in_the_body_or_in_the_header(self) -> None:
        header = {"idempotency-key": "of-the-header"}

        assert read(market(idempotency_key=...), headers=header).idempotency_key == "of-the-header"
        assert read(market(idempotency_key="of-the-header"), headers=header).idempotency_key == "of-the-header"

    def test_two_that_differ(self) -> None:
        details = fault_of(market(), headers={"idempotency-key": "another"})

        assert (details["field"], details["constraint"]) == ("idempotency_key", "the same in header and body")

    def test_required_by_one_dialect_and_made_for_the_other(self) -> None:
        assert fault_of(market(idempotency_key=...))["constraint"] == "required"
        made = {read(market(idempotency_key=...), "rest").idempotency_key for _ in range(2)}
        assert len(made) == 2
        assert all(uuid.UUID(key) for key in made)

    @pytest.mark.parametrize("bad", ["", "with space", "k" * 256, 7, True, {}])
    def test_a_key_of_another_form(self, bad: object) -> None:
        assert fault_of(market(idempotency_key=bad))["field"] == "idempotency_key"

    def test_an_empty_header(self) -> None:
        assert fault_of(market(idempotency_key=...), headers={"idempotency-key": ""})["field"] == "idempotency_key"


BOUNDS = "an object of at most 32 members, their names of at most 128 and their values of at most 1024 characters"
NUMBER = "a number above 0 with at most 18 digits before and 12 after the point"
SEND_QUANTITY = f"Send quantity as {NUMBER}, such as 0.1."
SEND_SYMBOL = "Send symbol as 1 to 20 letters A to Z, digits and underscores, such as EURUSD."
LEFT_OUT, REQUIRED = "left out", "required"
IN_FORCE = (
    "A market order is executed at once, at the opening or at the close: "
    "send time_in_force as day, gtc, ioc, fok, opg or cls, or leave it out."
)
LIMIT = {"order_type": "limit", "price": "1.1"}
TIME = "a time in ISO 8601 with its offset"


class TestFaults:
    @pytest.mark.parametrize(
        ("fields", "field", "value", "constraint", "message"),
        [
            ({"quantity": "NaN"}, "quantity", "NaN", NUMBER, SEND_QUANTITY),
            ({"quantity": "1e400"}, "quantity", "1e400", NUMBER, SEND_QUANTITY),
            ({"quantity": "1,5"}, "quantity", "1,5", NUMBER, SEND_QUANTITY),
            ({"quantity": "١"}, "quantity", "١", NUMBER, SEND_QUANTITY),
            ({"quantity": True}, "quantity", "true", NUMBER, SEND_QUANTITY),
            ({"quantity": []}, "quantity", None, NUMBER, SEND_QUANTITY),
            ({"quantity": {"value": 1}}, "quantity", None, NUMBER, SEND_QUANTITY),
            ({"quantity": Decimal("-0")}, "quantity", "-0", NUMBER, SEND_QUANTITY),
            ({"quantity": Decimal("1E-13")}, "quantity", "0.0000000000001", NUMBER, SEND_QUANTITY),
            ({"quantity": ...}, "quantity", None, REQUIRED, SEND_QUANTITY),
            ({"quantity": None}, "quantity", None, REQUIRED, SEND_QUANTITY),
            (
                {"symbol": "eur/usd"},
                "symbol",
                "eur/usd",
                "1 to 20 letters A to Z, digits and underscores",
                SEND_SYMBOL,
            ),
            ({"side": "Long"}, "side", "Long", "buy or sell", "Send side as buy or sell."),
            ({"side": ...}, "side", None, REQUIRED, "Send side as buy or sell."),
            ({"reduce_only": 1}, "reduce_only", "1", "true or false", "Send reduce_only as true or false."),
            ({"colour": "red"}, "colour", "red", "unknown", "Leave colour out: an order has no such field."),
            ({"commission": "0"}, "commission", "0", "unknown", "Leave commission out: an order has no such field."),
            ({"price": "1.1"}, "price", "1.1", LEFT_OUT, "A market order takes no price: leave price out."),
            (
                {"limit_price": "1.1"},
                "limit_price",
                "1.1",
                LEFT_OUT,
                "A market order takes no limit_price: leave limit_price out.",
            ),
            ({"order_type": "limit"}, "price", None, REQUIRED, "A limit order needs price: send the limit price."),
            (
                {"order_type": "stop"},
                "price",
                None,
                REQUIRED,
                "A stop order needs price: send the price that triggers it.",
            ),
            (
                {"order_type": "stop_limit", "stop_price": "1"},
                "price",
                None,
                REQUIRED,
                "A stop limit order needs price: send the limit price.",
            ),
            (
                {"order_type": "stop_limit", "price": "1"},
                "stop_price",
                None,
                REQUIRED,
                "A stop limit order needs stop_price: send the price that triggers it.",
            ),
            (
                {"price": "1", "limit_price": "1"},
                "price",
                "1",
                "left out beside limit_price",
                "price and limit_price say the same: leave one of them out.",
            ),
            (
                {"order_type": "stop", "price": "1", "stop_price": "1"},
                "price",
                "1",
                LEFT_OUT,
                "A stop order takes no price: leave price out.",
            ),
            (
                LIMIT | {"stop_loss": "1.10"},
                "stop_loss",
                "1.10",
                "below the limit price",
                "Send a stop_loss below the limit price of this buy.",
            ),
            (
                LIMIT | {"take_profit": "1"},
                "take_profit",
                "1",
                "above the limit price",
                "Send a take_profit above the limit price of this buy.",
            ),
            (
                LIMIT | {"side": "sell", "stop_loss": "1"},
                "stop_loss",
                "1",
                "above the limit price",
                "Send a stop_loss above the limit price of this sale.",
            ),
            (
                LIMIT | {"side": "sell", "take_profit": "2"},
                "take_profit",
                "2",
                "below the limit price",
                "Send a take_profit below the limit price of this sale.",
            ),
            ({"time_in_force": "GTD"}, "time_in_force", "GTD", "day, gtc, ioc, fok, opg or cls", IN_FORCE),
            (
                {"order_type": "trailing_stop"},
                "trail_amount",
                None,
                REQUIRED,
                "A trailing stop order needs trail_amount or trail_percent: send how far its stop stays behind the "
                "market.",
            ),
            (
                {"order_type": "trailing_stop", "trail_percent": "1", "stop_loss": "1"},
                "stop_loss",
                "1",
                LEFT_OUT,
                "Where a trailing stop order will be filled is not known yet: leave stop_loss out, and set it on the "
                "position.",
            ),
            (
                LIMIT | {"display_quantity": "7"},
                "display_quantity",
                "7",
                "at most the quantity",
                "Send display_quantity as a part of the quantity.",
            ),
            (
                LIMIT | {"time_in_force": "gtd"},
                "expires_at",
                None,
                "required",
                "An order that is good till a time needs expires_at: send that time.",
            ),
            (
                {"expires_at": "2030-01-01T00:00:00Z"},
                "expires_at",
                "2030-01-01T00:00:00Z",
                LEFT_OUT,
                "Only time_in_force gtd ends by a time: leave expires_at out.",
            ),
            (
                {"expires_at": 1_900_000_000},
                "expires_at",
                "1900000000",
                TIME,
                f"Send expires_at as {TIME}, such as 2030-01-31T18:00:00Z.",
            ),
            (
                {"execution_instructions": {"urgency": "now"}},
                "execution_instructions.urgency",
                "now",
                "low, normal, high or immediate",
                "Send execution_instructions.urgency as low, normal, high or immediate.",
            ),
            (
                LIMIT | {"execution_instructions": {"allow_partial_fills": False}},
                "execution_instructions.allow_partial_fills",
                None,
                "false with time_in_force fok",
                "A limit order is filled as far as the price goes, unless time_in_force is fok: send that, or leave "
                "execution_instructions.allow_partial_fills out.",
            ),
            (
                {"execution_instructions": {"colour": [1]}},
                "execution_instructions.colour",
                None,
                "unknown",
                "Leave execution_instructions.colour out: an order has no such field.",
            ),
            (
                {"idempotency_key": "a key"},
                "idempotency_key",
                "a key",
                "1 to 255 letters, digits and signs (ASCII, no spaces)",
                "Send idempotency_key as 1 to 255 letters, digits and signs (ASCII, no spaces).",
            ),
            (
                {"metadata": {str(number): 0 for number in range(33)}},
                "metadata",
                None,
                BOUNDS,
                f"Send metadata as {BOUNDS}.",
            ),
        ],
    )
    def test_the_field_its_value_and_what_to_send(
        self, fields: dict[str, object], field: str, value: str | None, constraint: str, message: str
    ) -> None:
        error = refusal_of(market(**fields))

        assert error.details == {"field": field, "value": value, "constraint": constraint}
        assert error.message == message

    @pytest.mark.parametrize("field", sorted(fields_of(OrderEntry)))
    @pytest.mark.parametrize("bad", [[], Decimal(-1), "x" * 2000])
    def test_whatever_is_wrong_with_a_field_is_told_in_plain_words(self, field: str, bad: object) -> None:
        top, _, inner = field.partition(".")

        error = refusal_of(market(**{top: {inner: bad} if inner else bad}))

        assert error.details["field"] == field
        assert not re.search(r"Input|valid|Value|Decimal|[\[\]{}']", f"{error.message} {error.details['constraint']}")
        assert error.details["value"] in (None, "-1", "x" * 100)

    def test_a_long_name_is_not_echoed_whole(self) -> None:
        error = refusal_of(market(**{"n" * 5000: 1}))

        assert error.details["field"] == "n" * 100
        assert len(error.message) < 200

    def test_a_huge_value_is_not_echoed_whole(self) -> None:
        assert len(fault_of(market(symbol="A" * 5000))["value"]) == 100

    @pytest.mark.parametrize(
        "text",
        ['{"quantity": NaN}', '{"quantity": 1e400}', '{"quantity": Infinity}', '{"quantity": 1, "quantity": 2}'],
    )
    def test_what_json_itself_cannot_say(self, text: str) -> None:
        with pytest.raises(TradingError) as caught:
            parse_body(text.encode())

        assert (caught.value.code, caught.value.details["field"]) == (ErrorCode.VALIDATION_FAILED, "body")


class TestAnswers:
    def test_of_the_functions(self) -> None:
        assert execution_data(Execution(ANSWER, False, None), "functions", "a trader") == {
            "order_id": ANSWER["order_id"],
            "position_id": ANSWER["position_id"],
            "status": "executed",
            "execution_details": {
                "execution_price": "92000",
                "slippage": "0",
                "commission": "0.00",
                "total_cost": "1840.00",
                "timestamp": "2026-01-31T18:08:22.493Z",
                "transaction_id": "txn_1",
            },
        }

    def test_of_the_rest_api(self) -> None:
        assert execution_data(Execution(ANSWER, False, None), "rest", "a trader") == {
            "id": ANSWER["order_id"],
            "trader_id": "a trader",
            "status": "FILLED",
            "created_at": "2026-01-31T18:08:22.493Z",
            "client_order_id": None,
            "symbol": "BTCUSD",
            "side": "BUY",
            "order_type": "MARKET",
            "quantity": "0.1",
            "filled_quantity": "0.1",
            "average_price": "92000",
            "slippage": "0",
            "commission": "0.00",
            "total_cost": "1840.00",
            "position_id": ANSWER["position_id"],
            "transaction_id": "txn_1",
            "executed_at": "2026-01-31T18:08:22.493Z",
        }

    @pytest.mark.parametrize(
        ("dialect", "data"),
        [
            (
                "functions",
                {
                    "order_id": "an order",
                    "position_id": None,
                    "status": "pending",
                    "order_details": {
                        "symbol": "AAPL",
                        "order_type": "market",
                        "side": "sell",
                        "quantity": "10",
                        "limit_price": None,
                        "stop_price": None,
                        "time_in_force": "gtc",
                        "expires_at": None,
                        "filled_quantity": "0",
                        "average_price": None,
                        "timestamp": "2026-01-31T18:08:22.493Z",
                    },
                },
            ),
            (
                "rest",
                {
                    "id": "an order",
                    "trader_id": "a trader",
                    "status": "PENDING",
                    "created_at": "2026-01-31T18:08:22.493Z",
                    "client_order_id": "mine",
                    "symbol": "AAPL",
                    "side": "SELL",
                    "order_type": "MARKET",
                    "quantity": "10",
                    "filled_quantity": "0",
                    "leaves_quantity": "10",
                    "price": None,
                    "stop_price": None,
                    "time_in_force": "GTC",
                    "expires_at": None,
                    "average_price": None,
                },
            ),
        ],
    )
    def test_of_an_order_that_its_venue_has_not_answered(self, dialect: Dialect, data: dict[str, object]) -> None:
        answer = {
            "outcome": "pending_new",
            "order_id": "an order",
            "client_order_id": "mine",
            "symbol": "AAPL",
            "side": "sell",
            "order_type": "market",
            "quantity": Decimal("10.0"),
            "limit_price": None,
            "stop_price": None,
            "time_in_force": "gtc",
            "status": "pending_new",
            "filled_quantity": 0,
            "leaves_quantity": Decimal("10.0"),
            "average_price": None,
            "created_at": "2026-01-31T18:08:22.493127Z",
            "transact_time": "2026-01-31T18:08:22.493127Z",
        }
        assert execution_data(Execution(answer, False, None), dialect, "a trader") == data
