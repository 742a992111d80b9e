"""The use case: what is checked before the procedure, what it is asked, what comes of its answer."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from tests.kit.instruments import AAPL, EURUSD, instrument
from trading.errors import ErrorCode, TradingError
from trading.execution import Execution, Origin, Routing, check_against_instrument, execute_order, hash_of_request
from trading.instruments import Instrument
from trading.json_text import json_text
from trading.order_entry import OrderEntry

ORIGIN = Origin(uuid.uuid4(), "gold@example.com", "192.0.2.1", "a browser", "request-1")
ACCOUNT_ID = uuid.uuid4()
FILLED = {"outcome": "filled", "order_id": "an order", "account_id": str(ACCOUNT_ID)}
ORDER_ID = uuid.uuid4()
ACCEPTED = {"outcome": "pending_new", "order_id": str(ORDER_ID), "account_id": str(ACCOUNT_ID)}
DENIED = {
    "outcome": "denied",
    "order_id": "an order",
    "account_id": str(ACCOUNT_ID),
    "code": "MARKET_CLOSED",
    "message": "Closed.",
    "details": {"field": "symbol"},
}


def order(**fields: object) -> OrderEntry:
    given = {"symbol": "EURUSD", "order_type": "market", "side": "buy", "quantity": "1", "idempotency_key": "key"}
    return OrderEntry.model_validate(given | fields)


@dataclass
class Floor:
    """An allow-list, procedures that give `answer`, a relay and a router; they keep what they are asked."""

    answer: dict[str, Any]
    replayed: bool = False
    asked: list[Mapping[str, object]] = field(default_factory=list)
    placed: list[Mapping[str, object]] = field(default_factory=list)
    woken: list[uuid.UUID] = field(default_factory=list)
    accepted: list[Mapping[str, object]] = field(default_factory=list)
    routed: list[tuple[uuid.UUID, uuid.UUID]] = field(default_factory=list)
    venues: tuple[str, ...] = ("paper",)

    def find(self, symbol: str) -> Instrument | None:
        return {"EURUSD": EURUSD, "AAPL": AAPL, "ELSEWHERE": instrument(symbol="ELSEWHERE", venue="paper")}.get(symbol)

    def acceptance(self, request: Mapping[str, object], /) -> dict[str, Any]:
        self.accepted.append(request)
        return {"replayed": self.replayed, "answer": self.answer}

    def start(self, user_id: uuid.UUID, order_id: uuid.UUID, /) -> None:
        self.routed.append((user_id, order_id))

    def procedure(self, request: Mapping[str, object], /) -> dict[str, Any]:
        self.asked.append(request)
        return {"replayed": self.replayed, "answer": self.answer}

    def place(self, request: Mapping[str, object], /) -> dict[str, Any]:
        self.placed.append(request)
        return {"replayed": self.replayed, "answer": self.answer}

    def execute(self, entry: OrderEntry) -> Execution:
        return execute_order(
            entry,
            ORIGIN,
            request_hash="a hash",
            key_days=30,
            instruments=self,
            execute=self.procedure,
            place=self.place,
            routing=Routing(self.acceptance, self.start, self.venues),
            wake_relay=self.woken.append,
        )


def refusal_of(entry: OrderEntry, instrument: Instrument | None = EURUSD) -> TradingError:
    with pytest.raises(TradingError) as caught:
        check_against_instrument(entry, instrument)
    return caught.value


class TestExecute:
    def test_a_fill_wakes_the_relay(self) -> None:
        floor = Floor(FILLED)

        execution = floor.execute(order())

        assert (execution.answer, execution.replayed, execution.refusal) == (FILLED, False, None)
        assert floor.woken == [ACCOUNT_ID]

    def test_the_procedure_is_told_who_asks_and_what(self) -> None:
        floor = Floor(FILLED)

        floor.execute(order(quantity="0.10", stop_loss="1.05"))

        (request,) = floor.asked
        assert request == {
            "symbol": "EURUSD",
            "order_type": "market",
            "side": "buy",
            "quantity": Decimal("0.10"),
            "stop_loss": Decimal("1.05"),
            "time_in_force": "gtc",
            "reduce_only": False,
            "post_only": False,
            "position_size_check": True,
            "idempotency_key": "key",
            "user_id": ORIGIN.user_id,
            "email": "gold@example.com",
            "ip_address": "192.0.2.1",
            "user_agent": "a browser",
            "request_id": "request-1",
            "request_hash": "a hash",
            "idempotency_key_days": 30,
        }
        assert '"quantity":0.10' in json_text(request)

    @pytest.mark.parametrize(
        "fields",
        [
            {"order_type": "limit", "limit_price": "1.1"},
            {"order_type": "stop", "stop_price": "1.1"},
            {"order_type": "stop_limit", "stop_price": "1.1", "limit_price": "1.2"},
        ],
    )
    def test_an_order_that_rests_is_placed_with_its_prices(self, fields: dict[str, str]) -> None:
        floor = Floor({"outcome": "new", "order_id": "an order", "account_id": str(ACCOUNT_ID)})

        execution = floor.execute(order(**fields))

        (request,) = floor.placed
        asked = fields | {name: Decimal(value) for name, value in fields.items() if name != "order_type"}
        assert (floor.asked, execution.refusal, floor.woken) == ([], None, [ACCOUNT_ID])
        assert {name: value for name, value in request.items() if name in fields} == asked

    def test_a_repeat_tells_nobody(self) -> None:
        floor = Floor(FILLED, replayed=True)

        assert floor.execute(order()).replayed
        assert floor.woken == []

    def test_a_denial_is_an_outcome_with_its_order(self) -> None:
        floor = Floor(DENIED)

        refusal = floor.execute(order()).refusal

        assert refusal is not None
        assert (refusal.code, refusal.message) == (ErrorCode.MARKET_CLOSED, "Closed.")
        assert refusal.details == {"field": "symbol", "order_id": "an order"}
        assert floor.woken == [ACCOUNT_ID]

    def test_a_rejection_is_one_too(self) -> None:
        refusal = Floor(DENIED | {"outcome": "rejected"}).execute(order()).refusal

        assert refusal is not None
        assert refusal.code is ErrorCode.MARKET_CLOSED

    @pytest.mark.parametrize(
        ("second", "code", "field"),
        [
            ({"symbol": "AAPL", "level": "150"}, None, None),
            ({"symbol": "NOSUCH", "level": "150"}, ErrorCode.UNKNOWN_SYMBOL, "conditions.1.symbol"),
            ({"symbol": "AAPL", "level": "150.001"}, ErrorCode.VALIDATION_FAILED, "conditions.1.level"),
        ],
    )
    def test_each_condition_is_of_a_symbol_and_on_its_tick(
        self, second: dict[str, str], code: ErrorCode | None, field: str | None
    ) -> None:
        # given an order that waits for prices of two symbols
        watch = {"watch": "ask", "direction": "at_or_above"}
        conditions = [watch | {"symbol": "EURUSD", "level": "1.2"}, watch | second]
        floor = Floor({"outcome": "new", "order_id": "an order", "account_id": str(ACCOUNT_ID)})

        # when / then
        if code is None:
            floor.execute(order(conditions=conditions))
            assert len(floor.placed) == 1
            return
        with pytest.raises(TradingError) as caught:
            floor.execute(order(conditions=conditions))
        assert (caught.value.code, caught.value.details["field"], floor.placed) == (code, field, [])

    def test_what_its_instrument_refuses_never_reaches_the_procedure(self) -> None:
        floor = Floor(FILLED)

        with pytest.raises(TradingError):
            floor.execute(order(symbol="NOSUCH"))

        assert (floor.asked, floor.woken) == ([], [])


class TestVenues:
    def test_an_order_for_another_venue_is_accepted_and_announced(self) -> None:
        floor = Floor(ACCEPTED)

        execution = floor.execute(order(symbol="ELSEWHERE"))

        assert (execution.answer, execution.refusal) == (ACCEPTED, None)
        assert (floor.asked, len(floor.accepted)) == ([], 1)
        assert (floor.routed, floor.woken) == ([(ORIGIN.user_id, ORDER_ID)], [ACCOUNT_ID])

    def test_one_for_our_own_is_not(self) -> None:
        floor = Floor(FILLED)

        floor.execute(order())

        assert (len(floor.asked), floor.accepted, floor.routed) == (1, [], [])

    def test_a_repeat_announces_nothing(self) -> None:
        floor = Floor(ACCEPTED, replayed=True)

        floor.execute(order(symbol="ELSEWHERE"))

        assert (floor.routed, floor.woken) == ([], [])

    @pytest.mark.parametrize("answer", [DENIED, FILLED])
    def test_only_what_was_accepted_is_routed(self, answer: dict[str, Any]) -> None:
        floor = Floor(answer)

        floor.execute(order(symbol="ELSEWHERE"))

        assert (floor.routed, floor.woken) == ([], [ACCOUNT_ID])

    def test_a_venue_that_is_not_served_takes_no_order(self) -> None:
        floor = Floor(ACCEPTED, venues=())

        with pytest.raises(TradingError) as caught:
            floor.execute(order(symbol="ELSEWHERE"))

        assert (caught.value.code, caught.value.retry_after) == (ErrorCode.VENUE_UNAVAILABLE, 60)
        assert (floor.accepted, floor.routed) == ([], [])


class TestInstrument:
    def test_an_unknown_symbol(self) -> None:
        error = refusal_of(order(symbol="NOSUCH"), None)

        assert (error.code, error.details["value"]) == (ErrorCode.UNKNOWN_SYMBOL, "NOSUCH")

    @pytest.mark.parametrize("quantity", ["0.009", "0.015", "1000.01", "999999999999999999"])
    def test_a_quantity(self, quantity: str) -> None:
        error = refusal_of(order(quantity=quantity))

        assert (error.code, error.details["field"]) == (ErrorCode.VALIDATION_FAILED, "quantity")
        assert error.details["constraint"] == "0.01 to 1000 in steps of 0.01"

    @pytest.mark.parametrize("quantity", ["0.01", "1000", "0.10"])
    def test_a_quantity_in_bounds(self, quantity: str) -> None:
        check_against_instrument(order(quantity=quantity), EURUSD)

    @pytest.mark.parametrize("name", ["stop_loss", "take_profit"])
    def test_a_price_between_two_ticks(self, name: str) -> None:
        error = refusal_of(order(**{name: "1.000005"}))

        assert (error.details["field"], error.details["constraint"]) == (name, "a multiple of 0.00001")

    def test_the_longest_price_is_still_told_from_a_tick(self) -> None:
        assert refusal_of(order(stop_loss="999999999999999999.999999999999")).details["field"] == "stop_loss"

    @pytest.mark.parametrize(
        "fields",
        [
            {"order_type": "limit", "limit_price": "1.1"},
            {"order_type": "stop", "stop_price": "1.1"},
            {"order_type": "stop_limit", "stop_price": "1.1", "limit_price": "1.1"},
        ],
    )
    def test_an_order_that_rests(self, fields: dict[str, object]) -> None:
        check_against_instrument(order(**fields), EURUSD)

    @pytest.mark.parametrize("name", ["trail_amount", "limit_offset"])
    def test_a_trail_lies_on_the_tick(self, name: str) -> None:
        trail = {"order_type": "trailing_stop_limit", "trail_amount": "0.001", "limit_offset": "0"}

        check_against_instrument(order(**trail), EURUSD)
        assert refusal_of(order(**trail | {name: "0.001001"})).details["field"] == name

    def test_what_is_shown_is_a_quantity_too(self) -> None:
        limit = {"order_type": "limit", "limit_price": "1.1"}

        check_against_instrument(order(**limit, display_quantity="0.1"), EURUSD)
        error = refusal_of(order(**limit, display_quantity="0.015"))
        assert (error.code, error.details["field"]) == (ErrorCode.VALIDATION_FAILED, "display_quantity")
        assert error.details["constraint"] == "0.01 to the quantity in steps of 0.01"

    @pytest.mark.parametrize("name", ["limit_price", "stop_price"])
    def test_its_prices_lie_on_the_tick(self, name: str) -> None:
        prices = {"limit_price": "1.1", "stop_price": "1.1"} | {name: "1.1000001"}

        assert refusal_of(order(order_type="stop_limit", **prices)).details["field"] == name


def fingerprint(text: str, route: str = "POST /api/v1/orders") -> str:
    return hash_of_request(route, json.loads(text, parse_float=Decimal))


class TestHash:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ('{"quantity": 0.1}', '{"quantity": 0.10}'),
            ('{"quantity": 1}', '{"quantity": 1.0}'),
            ('{"quantity": 100}', '{"quantity": 1e2}'),
            ('{"quantity": 0}', '{"quantity": -0.0}'),
            ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}'),
            ('{"metadata": {"a": 1, "b": [1.0]}}', '{"metadata": {"b": [1], "a": 1}}'),
            ('{"quantity": 1, "idempotency_key": "one"}', '{"quantity": 1, "idempotency_key": "other"}'),
        ],
    )
    def test_the_same_request(self, one: str, other: str) -> None:
        assert fingerprint(one) == fingerprint(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ('{"quantity": 0.1}', '{"quantity": 0.11}'),
            ('{"quantity": 1}', '{"quantity": "1"}'),
            ('{"quantity": 1}', '{"quantity": "number:1"}'),
            ('{"quantity": 1}', '{"quantity": true}'),
            ('{"quantity": 10}', '{"quantity": 100}'),
            ('{"side": "buy"}', "{}"),  # a default is not what was received
            ('{"side": null}', "{}"),
            ('{"side": null}', '{"side": "null"}'),
            ('{"list": [1, 2]}', '{"list": [2, 1]}'),
            ('{"list": []}', '{"list": {}}'),
            ('{"metadata": {"idempotency_key": 1}}', '{"metadata": {"idempotency_key": 2}}'),
            (
                '{"quantity": 123456789012345678.123456789012}',
                '{"quantity": 123456789012345678.123456789013}',
            ),
        ],
    )
    def test_another_request(self, one: str, other: str) -> None:
        assert fingerprint(one) != fingerprint(other)

    def test_another_route(self) -> None:
        assert fingerprint("{}") != fingerprint("{}", "POST /functions/v1/execute-order")

    def test_it_stays_what_it_is(self) -> None:
        """A change would take keys in flight for reused ones: then HASH_VERSION has to change."""
        assert fingerprint('{"symbol": "EURUSD", "quantity": 0.10, "reduce_only": false}') == (
            "5df4300b2ced1a3b12da024636875514fd74d9db91ee07a0e0ca4a6f1a598f0a"
        )

    def test_what_does_not_come_from_json(self) -> None:
        with pytest.raises(TypeError):
            hash_of_request("POST /", {"quantity": 1.5})
