"""The use cases of canceling and closing: what the procedures are asked, what comes of their answers."""

import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from trading.cancellation import CancelEntry, cancel_order
from trading.closing import CloseEntry, close_position
from trading.errors import ErrorCode
from trading.execution import Execution, Origin

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

    def procedure(self, request: Mapping[str, object], /) -> dict[str, Any]:
        self.asked.append(request)
        return self.kept

    def _change(self, change: Callable[..., Execution], entry: CancelEntry | CloseEntry) -> Execution:
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

    def close(self, **fields: Any) -> Execution:
        return self._change(close_position, CloseEntry(idempotency_key="key", **fields))


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
