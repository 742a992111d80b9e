"""From a body in an API's words to an order, and from its outcome to an answer."""

import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from trading.edge.body import parse_body
from trading.edge.envelope import Dialect
from trading.edge.http import Request
from trading.edge.order_dialects import execution_data, order_entry
from trading.errors import ErrorCode, TradingError
from trading.execution import Execution
from trading.order_entry import OrderEntry

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


class TestFaults:
    @pytest.mark.parametrize(
        ("fields", "field", "value", "constraint"),
        [
            ({"quantity": "NaN"}, "quantity", "NaN", "must be a plain decimal number, such as 0.1"),
            ({"quantity": "1e400"}, "quantity", "1e400", "must be a plain decimal number, such as 0.1"),
            ({"quantity": "1,5"}, "quantity", "1,5", "must be a plain decimal number, such as 0.1"),
            ({"quantity": "١"}, "quantity", "١", "must be a plain decimal number, such as 0.1"),
            ({"quantity": True}, "quantity", "True", "must be a number"),
            ({"quantity": []}, "quantity", "[]", "must be a number"),
            ({"quantity": Decimal("-0")}, "quantity", "-0", "Input should be greater than 0"),
            ({"quantity": ...}, "quantity", None, "required"),
            ({"quantity": None}, "quantity", None, "required"),
            ({"symbol": "EUR/USD"}, "symbol", "EUR/USD", "of another form"),
            ({"colour": "red"}, "colour", "red", "a field that this request knows"),
            ({"commission": "0"}, "commission", "0", "a field that this request knows"),
            ({"price": "1.1"}, "price", "1.1", "left out for market"),
            ({"limit_price": "1.1"}, "limit_price", "1.1", "left out for market"),
            ({"order_type": "limit"}, "price", None, "given for limit"),
            ({"order_type": "stop"}, "price", None, "given for stop"),
            ({"price": "1", "limit_price": "1"}, "price", "1", "left out beside limit_price"),
            ({"order_type": "stop", "price": "1", "stop_price": "1"}, "price", "1", "left out for stop"),
            ({"execution_instructions": {"urgency": "now"}}, "execution_instructions.urgency", "now", None),
        ],
    )
    def test_the_field_its_value_and_what_it_should_be(
        self, fields: dict[str, object], field: str, value: str | None, constraint: str | None
    ) -> None:
        details = fault_of(market(**fields))

        assert (details["field"], details["value"]) == (field, value)
        assert constraint is None or details["constraint"] == constraint

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
            "quantity": "0.10",
            "filled_quantity": "0.10",
            "average_price": "92000",
            "slippage": "0",
            "commission": "0.00",
            "total_cost": "1840.00",
            "position_id": ANSWER["position_id"],
            "transaction_id": "txn_1",
            "executed_at": "2026-01-31T18:08:22.493Z",
        }
