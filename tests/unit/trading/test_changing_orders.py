"""The use cases of replacing, canceling, closing and changing: what the procedures are asked, what comes of it."""

import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError

from trading.cancellation import CancelAllEntry, CancelEntry, cancel_order, cancel_orders
from trading.closing import CloseByEntry, CloseEntry, close_position
from trading.errors import ErrorCode
from trading.execution import Execution, Origin
from trading.position_changes import PositionChange, change_position
from trading.replacement import OrderChange, ReplaceEntry, replace_order

ORIGIN = Origin(uuid.uuid4(), "gold@example.com", "192.0.2.1", "a browser", "request-1")
ACCOUNT_ID, SUBJECT = uuid.uuid4(), uuid.uuid4()
ASKED_BY = {
    "idempotency_key": "key",
    "user_id": ORIGIN.user_id,
    "email": "gold@example.com",
    "ip_address": "192.0.2.1",
    "user_agent": "a browser",
    "request_id": "request-1",
    "request_hash": "a hash",
    "idempotency_key_days": 30,
}


class Floor:
    """A procedure that gives `answer`, and a relay; they keep what they are asked."""

    def __init__(self, *, replayed: bool = False, **answer: Any) -> None:
        self.kept = {"replayed": replayed, "answer": {"order_id": "an order", "account_id": str(ACCOUNT_ID)} | answer}
        self.asked: list[Mapping[str, object]] = []
        self.woken: list[uuid.UUID] = []
        self.routed: list[tuple[uuid.UUID, uuid.UUID]] = []

    def procedure(self, request: Mapping[str, object], /) -> dict[str, Any]:
        self.asked.append(request)
        return self.kept

    def _change(
        self,
        change: Callable[..., Execution],
        entry: CancelEntry | CloseEntry | ReplaceEntry | CloseByEntry | PositionChange,
    ) -> Execution:
        return change(
            SUBJECT,
            entry,
            ORIGIN,
            request_hash="a hash",
            key_days=30,
            procedure=self.procedure,
            wake_relay=self.woken.append,
        )

    def cancel(self) -> Execution:
        return self._change(cancel_order, CancelEntry(idempotency_key="key"))

    def cancel_all(self, **fields: Any) -> Execution:
        return cancel_orders(
            CancelAllEntry(idempotency_key="key", **fields),
            ORIGIN,
            request_hash="a hash",
            key_days=30,
            procedure=self.procedure,
            wake_relay=self.woken.append,
        )

    def replace(self, **fields: Any) -> Execution:
        return self._change(replace_order, ReplaceEntry(idempotency_key="key", **fields))

    def close(self, **fields: Any) -> Execution:
        return self._change(self._routed(close_position), CloseEntry(idempotency_key="key", **fields))

    def close_by(self, **fields: Any) -> Execution:
        return self._change(self._routed(close_position), CloseByEntry(idempotency_key="key", **fields))

    def _routed(self, close: Callable[..., Execution]) -> Callable[..., Execution]:
        return partial(close, start_routing=lambda *order: self.routed.append(order))

    def change(self, **fields: Any) -> Execution:
        return self._change(change_position, PositionChange(idempotency_key="key", **fields))


def test_a_close_that_goes_to_a_venue_is_handed_on_once() -> None:
    order_id = uuid.uuid4()
    floor = Floor(outcome="pending_new", order_id=str(order_id))

    floor.close()

    assert floor.routed == [(ORIGIN.user_id, order_id)]


def test_a_cancellation_names_its_order_and_wakes_the_relay() -> None:
    floor = Floor(outcome="canceled")

    execution = floor.cancel()

    assert floor.asked == [{"order_id": SUBJECT} | ASKED_BY]
    assert (execution.replayed, execution.refusal, floor.woken) == (False, None, [ACCOUNT_ID])


@pytest.mark.parametrize(
    "fields", [{}, {"quantity": Decimal("0.10")}, {"quantity": Decimal(1), "max_slippage": Decimal(0)}]
)
def test_a_close_names_its_position_and_what_was_said(fields: dict[str, Any]) -> None:
    floor = Floor(outcome="filled")

    execution = floor.close(**fields)

    assert floor.asked == [{"position_id": SUBJECT} | fields | ASKED_BY]
    assert (execution.refusal, floor.woken) == (None, [ACCOUNT_ID])


def test_a_close_by_names_both_positions() -> None:
    floor, opposite = Floor(outcome="filled"), uuid.uuid4()

    execution = floor.close_by(opposite_position_id=str(opposite), quantity="0.5")

    said = {"opposite_position_id": opposite, "quantity": Decimal("0.5")}
    assert floor.asked == [{"position_id": SUBJECT} | said | ASKED_BY]
    assert (execution.refusal, floor.woken) == (None, [ACCOUNT_ID])


def test_a_change_names_its_position_the_levels_that_were_named_and_the_version() -> None:
    floor = Floor(outcome="changed")

    floor.change(stop_loss=None, take_profit_amount="100", version=3)
    floor.change(breakeven=True)

    levels = {"stop_loss": None, "take_profit_amount": Decimal(100)}
    assert floor.asked[0] == {"position_id": SUBJECT, "levels": levels, "expected_version": 3} | ASKED_BY
    assert floor.asked[1] == {"position_id": SUBJECT, "levels": {"breakeven": True}} | ASKED_BY
    assert floor.woken == [ACCOUNT_ID] * 2


@pytest.mark.parametrize(
    "fields",
    [
        {"stop_loss": "0"},
        {"stop_loss_amount": "-1"},
        {"trailing_distance": 0.5},
        {"breakeven": False},
        {"breakeven": 1},
        {"version": "1"},
        {"version": 0},
        {"version": True},
        {"quantity": "1"},
    ],
)
def test_a_change_takes_nothing_else(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PositionChange(idempotency_key="key", **fields)


def test_a_repeat_tells_nobody() -> None:
    floor = Floor(replayed=True, outcome="canceled")

    assert floor.cancel().replayed
    assert floor.woken == []


def test_a_close_that_was_denied_is_an_outcome_with_its_order() -> None:
    floor = Floor(outcome="denied", code="MARKET_CLOSED", message="Closed.", details={"field": "symbol"})

    refusal = floor.close().refusal

    assert refusal is not None
    assert (refusal.code, refusal.details) == (ErrorCode.MARKET_CLOSED, {"field": "symbol", "order_id": "an order"})
    assert floor.woken == [ACCOUNT_ID]


@pytest.mark.parametrize(
    "fields",
    [
        {"quantity": "0"},
        {"quantity": 0.5},
        {"quantity": "1e3"},
        {"max_slippage": "-1"},
        {"price": "1"},
        {"side": "buy"},
    ],
)
def test_a_close_takes_nothing_else(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CloseEntry(idempotency_key="key", **fields)


def test_a_cancellation_takes_its_key_alone() -> None:
    with pytest.raises(ValidationError):
        CancelEntry.model_validate({"idempotency_key": "key", "reason": "mine"})


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({}, {}),
        ({"symbol": "eurusd", "side": "BUY"}, {"symbol": "EURUSD", "side": "buy"}),
        ({"order_type": "Stop", "account_id": ACCOUNT_ID}, {"order_type": "stop", "account_id": ACCOUNT_ID}),
    ],
)
def test_a_cancellation_of_all_says_which(fields: dict[str, Any], asked: dict[str, Any]) -> None:
    floor = Floor(outcome="canceled", canceled=[], left=0)

    execution = floor.cancel_all(**fields)

    assert floor.asked == [asked | ASKED_BY]
    assert (execution.refusal, floor.woken) == (None, [ACCOUNT_ID])


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"quantity": "2", "limit_price": Decimal("1.10")}, {"quantity": Decimal(2), "limit_price": Decimal("1.10")}),
        # what is not said stays, what is null goes
        ({"stop_loss": None}, {"stop_loss": None}),
        # a request to the database has a version of its own
        ({"version": 3, "stop_price": 1}, {"order_version": 3, "stop_price": Decimal(1)}),
        ({"time_in_force": "GTC", "client_order_id": "mine"}, {"time_in_force": "gtc", "client_order_id": "mine"}),
    ],
)
def test_a_replacement_names_its_order_and_what_changes(fields: dict[str, Any], asked: dict[str, Any]) -> None:
    floor = Floor(outcome="new")

    execution = floor.replace(**fields)

    assert floor.asked == [{"order_id": SUBJECT} | asked | ASKED_BY]
    assert (execution.refusal, floor.woken) == (None, [ACCOUNT_ID])


def test_a_replacement_that_was_denied_is_an_outcome_with_its_order() -> None:
    floor = Floor(outcome="denied", code="KYC_REQUIRED", message="Not yet.", details={})

    refusal = floor.replace(quantity=2).refusal

    assert refusal is not None
    assert (refusal.code, refusal.details) == (ErrorCode.KYC_REQUIRED, {"order_id": "an order"})


@pytest.mark.parametrize(
    "fields",
    [
        {"symbol": "AAPL"},
        {"side": "buy"},
        {"quantity": 0},
        {"version": 0},
        {"version": "1"},
        {"version": True},
        {"version": 2**31},
        {"max_slippage": "1"},
        {"client_order_id": "x" * 129},
    ],
)
def test_a_replacement_takes_nothing_else(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OrderChange.model_validate(fields)


@pytest.mark.parametrize(("fields", "said"), [({}, False), ({"version": 1}, False), ({"take_profit": None}, True)])
def test_whether_a_replacement_changes_something(fields: dict[str, Any], said: bool) -> None:
    assert OrderChange.model_validate(fields).changes_something() is said
    assert ReplaceEntry.model_validate(fields | {"idempotency_key": "key"}).changes_something() is said
