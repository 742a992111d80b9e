"""The use case of closing many positions: what the procedures are asked, who is woken, and what ends it early."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from trading.errors import ErrorCode, TradingError
from trading.execution import Origin
from trading.mass_closing import POSITIONS_MAX, SECONDS_MAX, Attempt, CloseAllEntry, MassClosing, close_all

ORIGIN = Origin(uuid.uuid4(), "gold@example.com", "192.0.2.1", "a browser", "request-1")
ACCOUNT_ID = str(uuid.uuid4())
FILLED = {"outcome": "filled", "order_id": "an order", "account_id": ACCOUNT_ID}
REFUSED = {
    "outcome": "refused",
    "account_id": ACCOUNT_ID,
    "sqlstate": "TR004",
    "message": "No price.",
    "details": {"field": "symbol"},
}
DENIED = {**FILLED, "outcome": "denied", "code": "MARKET_CLOSED", "message": "Closed.", "details": {}}


@dataclass
class Floor:
    """The two procedures, a clock that moves with each close, and a relay; they keep what they are asked."""

    answers: list[Mapping[str, Any] | TradingError]
    matched: int | None = None
    replayed: bool = False
    # of what a repeat closes, the places that are closed only now
    closed_now: frozenset[int] = frozenset()
    seconds_a_close: float = 0.0
    planned: list[Mapping[str, object]] = field(default_factory=list[Mapping[str, object]])
    closed: list[Mapping[str, object]] = field(default_factory=list[Mapping[str, object]])
    woken: list[uuid.UUID] = field(default_factory=list[uuid.UUID])
    routed: list[tuple[uuid.UUID, uuid.UUID]] = field(default_factory=list[tuple[uuid.UUID, uuid.UUID]])

    def plan(self, request: Mapping[str, object], /) -> dict[str, Any]:
        self.planned.append(request)
        positions = [{"position_id": f"position {place}"} for place in range(len(self.answers))]
        matched = len(positions) if self.matched is None else self.matched
        return {"replayed": self.replayed, "answer": {"positions": positions, "matched": matched}}

    def close(self, request: Mapping[str, object], /) -> dict[str, Any]:
        place = len(self.closed)
        answer = self.answers[place]
        self.closed.append(request)
        if isinstance(answer, TradingError):
            raise answer
        return {"replayed": self.replayed and place not in self.closed_now, "answer": answer}

    def run(self, **fields: Any) -> MassClosing:
        return close_all(
            CloseAllEntry(idempotency_key="key", **fields),
            ORIGIN,
            request_hash="a hash",
            key_days=30,
            plan=self.plan,
            close=self.close,
            start_routing=lambda *order: self.routed.append(order),
            wake_relay=self.woken.append,
            now=lambda: 1000 + len(self.closed) * self.seconds_a_close,
        )


def test_each_planned_position_is_closed_under_the_plans_key() -> None:
    floor = Floor([FILLED, FILLED])

    closing = floor.run(symbol="eurusd", side="LONG", which="winners")

    asked = floor.planned[0]
    assert (asked["symbol"], asked["side"], asked["which"]) == ("EURUSD", "long", "winners")
    assert (asked["positions_max"], "account_id" in asked) == (POSITIONS_MAX, False)
    assert [(each["position_id"], each["idempotency_key"]) for each in floor.closed] == [
        ("position 0", "key"),
        ("position 1", "key"),
    ]
    assert all(each["request_hash"] == "a hash" for each in floor.closed)
    assert [attempt.refusal for attempt in closing.attempts] == [None, None]
    assert (closing.left, closing.replayed) == (0, False)


def test_the_relay_is_woken_once_for_all() -> None:
    floor = Floor([FILLED, DENIED, FILLED])

    floor.run()

    assert floor.woken == [uuid.UUID(ACCOUNT_ID)]


def test_a_repeat_wakes_nobody() -> None:
    floor = Floor([FILLED], replayed=True)

    assert floor.run().replayed
    assert floor.woken == []


@pytest.mark.parametrize("place", [0, 1])
def test_a_repeat_that_closes_what_was_left_is_none(place: int) -> None:
    floor = Floor([FILLED, FILLED], replayed=True, closed_now=frozenset({place}))

    assert not floor.run().replayed
    assert floor.woken == [uuid.UUID(ACCOUNT_ID)]


def test_what_is_refused_needs_no_answer() -> None:
    assert not Attempt({}, {}, TradingError(ErrorCode.MARKET_CLOSED, "Closed.")).sent


def test_what_is_refused_is_left() -> None:
    closing = Floor([REFUSED, DENIED, FILLED], matched=150).run()

    codes = [attempt.refusal and attempt.refusal.code for attempt in closing.attempts]
    assert codes == [ErrorCode.MARKET_DATA_UNAVAILABLE, ErrorCode.MARKET_CLOSED, None]
    assert closing.left == 149


def test_a_fault_ends_it_and_what_was_done_is_told() -> None:
    floor = Floor([FILLED, TradingError(ErrorCode.DATABASE_UNAVAILABLE, "Gone."), FILLED])

    with pytest.raises(TradingError, match="Gone"):
        floor.run()

    assert len(floor.closed) == 2
    assert floor.woken == [uuid.UUID(ACCOUNT_ID)]


def test_time_that_is_up_is_said_and_the_same_key_goes_on() -> None:
    floor = Floor([FILLED] * 5, seconds_a_close=SECONDS_MAX / 2)

    with pytest.raises(TradingError) as caught:
        floor.run()

    assert (caught.value.code, caught.value.retry_after) == (ErrorCode.DATABASE_UNAVAILABLE, 1)
    assert "same idempotency key" in caught.value.message
    assert (len(floor.closed), floor.woken) == (3, [uuid.UUID(ACCOUNT_ID)])


def test_what_goes_to_a_venue_is_handed_on_and_counts_as_open() -> None:
    order_id = uuid.uuid4()
    floor = Floor([{**FILLED, "outcome": "pending_new", "order_id": str(order_id)}, FILLED])

    closing = floor.run()

    assert floor.routed == [(ORIGIN.user_id, order_id)]
    assert ([attempt.sent for attempt in closing.attempts], closing.left) == ([True, False], 1)
