"""What a trader's stream says of an event."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from tests.kit.realtime import ORDER_ID, POSITION_ID, filled_order
from trading.events import (
    FRAME_BYTES_MAX,
    ORDERS_APART_MAX,
    Event,
    Frame,
    UnrenderableError,
    frames_of,
    sequence_text,
    texts_for,
)

ACCOUNT_ID = UUID(int=2)
RISK_FACT = {"type": "margin_call", "state": "entered", "margin_level": "49.99", "threshold": "50"}


def event_of(payload: dict[str, Any], request_id: str | None = None) -> Event:
    return Event(UUID(int=1), ACCOUNT_ID, 7, "order.filled", payload, request_id)


def messages(frames: Sequence[Frame]) -> list[dict[str, Any]]:
    return [json.loads(frame.text, parse_float=Decimal) for frame in frames]


def test_a_filled_order_is_told_in_order_and_under_one_sequence() -> None:
    # given
    event = event_of(filled_order())

    # when
    told = messages(frames_of(event))

    # then
    assert [message.get("type") or message["event"] for message in told] == [
        "order_update",
        "order_update",
        "order.filled",
        "position_update",
        "account_update",
    ]
    assert {message["sequence"] for message in told} == {7}
    assert {message["account_id"] for message in told} == {str(ACCOUNT_ID)}
    assert [told[0]["data"]["status"], told[1]["data"]["status"]] == ["pending", "executed"]


def test_order_update_carries_the_execution() -> None:
    # when
    pending, executed = messages(frames_of(event_of(filled_order())))[:2]

    # then
    assert executed["data"]["order_id"] == ORDER_ID
    assert executed["data"]["execution_price"] == Decimal("1.10020")
    assert executed["data"]["executed_at"] == "2026-03-02T10:00:00.000001Z"
    assert "execution_price" not in pending["data"]
    assert "failure_reason" not in pending["data"]


@pytest.mark.parametrize(
    ("event_type", "inside", "outside"), [("order.new", "new", "pending"), ("order.canceled", "canceled", "cancelled")]
)
def test_an_order_that_rests_is_told_with_its_prices_in_one_frame(event_type: str, inside: str, outside: str) -> None:
    # given what `order_fact` tells
    fact = {
        "order_id": ORDER_ID,
        "client_order_id": "mine",
        "symbol": "EURUSD",
        "side": "buy",
        "order_type": "stop_limit",
        "quantity": Decimal("1.50"),
        "limit_price": Decimal("1.12000"),
        "stop_price": Decimal("1.11000"),
        "time_in_force": "gtc",
        "status": inside,
        "filled_quantity": Decimal(0),
        "leaves_quantity": Decimal("1.50"),
        "average_price": None,
    }

    # when
    frames = frames_of(Event(UUID(int=1), ACCOUNT_ID, 7, event_type, {"orders": [fact]}, "request-1"))

    # then
    (frame,) = frames
    (told,) = messages(frames)
    assert (frame.channel, told["type"], told["sequence"], told["request_id"]) == (
        "orders",
        "order_update",
        7,
        "request-1",
    )
    assert told["data"] == {
        "order_id": ORDER_ID,
        "client_order_id": "mine",
        "symbol": "EURUSD",
        "side": "buy",
        "order_type": "stop_limit",
        "status": outside,
        "quantity": Decimal("1.50"),
        "limit_price": Decimal("1.12000"),
        "stop_price": Decimal("1.11000"),
        "filled_quantity": Decimal(0),
    }
    assert '"limit_price":1.12000,' in frame.text


def test_an_order_that_trails_is_told_with_its_trail() -> None:
    fact = {
        "order_id": ORDER_ID,
        "status": "new",
        "trail_amount": None,
        "trail_percent": Decimal("1.5"),
        "limit_offset": Decimal("0.0005"),
    }

    (told,) = messages(frames_of(Event(UUID(int=1), ACCOUNT_ID, 7, "order.new", {"orders": [fact]}, "request-1")))

    assert (told["data"]["trail_percent"], told["data"]["limit_offset"]) == (Decimal("1.5"), Decimal("0.0005"))
    assert "trail_amount" not in told["data"]


def test_an_order_is_told_with_what_only_some_have() -> None:
    particular: dict[str, object] = {
        "display_quantity": Decimal("0.50"),
        "display_variance": Decimal("0.2"),
        "post_only": True,
        "active_at": "2026-03-02T13:30:00.000000Z",
        "contingency": "bracket_exit",
        "parent_order_id": str(UUID(int=5)),
        "linked_order_ids": [str(UUID(int=6))],
        "held_quantity": Decimal("1.00"),
    }
    fact = {"order_id": ORDER_ID, "status": "new"} | particular

    (told,) = messages(frames_of(Event(UUID(int=1), ACCOUNT_ID, 7, "order.new", {"orders": [fact]}, "request-1")))

    assert told["data"] == {"order_id": ORDER_ID, "status": "pending"} | particular


def test_an_order_with_conditions_is_told_with_those_that_are_met() -> None:
    condition = {"symbol": "USDJPY", "watch": "ask", "direction": "at_or_above", "level": Decimal("151.000")}
    conditions = [{**condition, "met_at": "2030-01-01T00:00:00.000000Z"}, {**condition, "met_at": None}]
    fact = {"order_id": ORDER_ID, "status": "new", "conditions": conditions}

    (told,) = messages(
        frames_of(Event(UUID(int=1), ACCOUNT_ID, 7, "order.condition_met", {"orders": [fact]}, "request-1"))
    )

    assert told["data"]["conditions"] == [conditions[0], condition]


def test_account_update_carries_the_terms_that_an_operator_changed() -> None:
    # given an account's worth, alone and with its terms
    worth = filled_order()["account"]
    terms = {"kyc_status": "verified", "account_status": "suspended", "account_tier": "gold", "leverage": Decimal(30)}

    # when
    (without,) = messages(frames_of(event_of({"account": worth})))
    (with_them,) = messages(frames_of(event_of({"account": {**worth, **terms}})))  # type: ignore[dict-item]

    # then
    assert without["data"] | terms == with_them["data"]
    assert without["data"].keys().isdisjoint(terms)


def test_numbers_keep_their_digits() -> None:
    # when
    texts = [frame.text for frame in frames_of(event_of(filled_order()))]

    # then
    assert '"quantity":1.50,' in texts[0]
    assert '"price_at_fill":1.10020,' in texts[2]
    assert '"unrealized_pnl":-30.00,' in texts[3]


def test_position_update_speaks_of_buy_and_sell() -> None:
    # given
    short = filled_order()
    short["positions"] = [{**short["positions"][0], "side": "short"}]  # type: ignore[index]

    # when
    long_update = messages(frames_of(event_of(filled_order())))[3]
    short_update = messages(frames_of(event_of(short)))[3]

    # then
    assert long_update["data"]["position_id"] == POSITION_ID
    assert (long_update["data"]["side"], short_update["data"]["side"]) == ("buy", "sell")
    assert long_update["data"]["margin_used"] == Decimal("1650.30")


def test_position_update_tells_levels_where_they_may_have_changed_and_null_for_none() -> None:
    # given what `marked_fact` tells of a position, and what a fill does
    fill = filled_order()
    fact = fill["positions"][0] | {  # type: ignore[index]
        "stop_loss": Decimal("1.09000"), "take_profit": None, "trail_distance": Decimal("0.01"), "version": 2,
    }  # fmt: skip

    # when
    of_fill = messages(frames_of(event_of(fill)))[3]["data"]
    (of_change,) = messages(frames_of(event_of({"positions": [fact]})))

    # then
    levels = {"stop_loss": Decimal("1.09000"), "take_profit": None, "trailing_distance": Decimal("0.01"), "version": 2}
    assert of_change["data"] == of_fill | levels


def test_financing_is_told_with_the_position_and_the_account() -> None:
    # given what finance_account tells
    filled = filled_order()
    costs = {"financing": Decimal("-18.34"), "financing_charged": Decimal("-9.17")}
    fact = filled["positions"][0] | costs  # type: ignore[index]
    charge = {"position_id": POSITION_ID, "roll_date": "2026-11-25", "amount": Decimal("-9.17")}

    # when
    told = frames_of(event_of({"positions": [fact], "account": filled["account"], "financing": [charge]}))

    # then
    position, account = messages(told)
    assert position["type"] == "position_update"
    assert {name: position["data"][name] for name in costs} == costs
    assert account["type"] == "account_update"


def test_a_partial_fill_is_an_event_of_its_own() -> None:
    # given
    payload = filled_order()
    fill = {**payload["fills"][0], "quantity": "0.5", "total_filled": "0.5", "leaves_quantity": "1.0"}  # type: ignore[index]

    # when
    (told,) = messages(frames_of(event_of({"fills": [fill]})))

    # then
    assert told["event"] == "order.partial"
    assert told["status"] == "PARTIAL"
    assert (told["quantity_filled"], told["total_filled"]) == (Decimal("0.5"), Decimal("0.5"))
    assert told["timestamp"] == "2026-03-02T10:00:00.000001Z"


def test_the_event_of_a_whole_fill() -> None:
    # when
    told = messages(frames_of(event_of(filled_order())))[2]

    # then
    assert told["event"] == "order.filled"
    assert told["status"] == "FILLED"
    assert told["order_id"] == ORDER_ID


def test_a_denied_order_has_failed_for_a_reason() -> None:
    # given
    fact = {"order_id": ORDER_ID, "status": "denied", "failure_code": "MARKET_CLOSED", "failure_reason": "Closed."}

    # when
    (told,) = messages(frames_of(event_of({"orders": [fact]})))

    # then
    assert told["data"] == {
        "order_id": ORDER_ID,
        "status": "failed",
        "failure_code": "MARKET_CLOSED",
        "failure_reason": "Closed.",
    }


def test_margin_level_is_null_while_no_margin_is_used() -> None:
    # given
    account = {"currency": "USD", "balance": Decimal("100.00"), "margin_level": None}

    # when
    (told,) = messages(frames_of(event_of({"account": account})))

    # then
    assert told["type"] == "account_update"
    assert told["data"]["margin_level"] is None


def test_a_margin_call_is_a_risk_alert() -> None:
    # given
    payload = {"risk": RISK_FACT}

    # when
    (told,) = messages(frames_of(event_of(payload)))

    # then
    assert told["type"] == "risk_alert"
    assert told["data"] == {
        "type": "margin_call",
        "state": "entered",
        "margin_level": Decimal("49.99"),
        "threshold": 50,
    }


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ({"orders"}, ["order_update", "order_update", "order.filled", "account_update", "risk_alert"]),
        ({"positions"}, ["position_update", "account_update", "risk_alert"]),
        ({"account"}, ["account_update", "risk_alert"]),
        ({"risk"}, ["risk_alert"]),
        ({"market_data"}, ["sequence"]),
        (
            {"positions", "orders", "market_data"},
            ["order_update", "order_update", "order.filled", "position_update", "account_update", "risk_alert"],
        ),
    ],
    ids=lambda given: " ".join(sorted(given)) if isinstance(given, set) else "",
)
def test_a_connection_gets_what_its_channels_carry_once(channels: set[str], words: list[str]) -> None:
    # given
    event = event_of(filled_order() | {"risk": RISK_FACT})

    # when
    told = [json.loads(text) for text in texts_for(event, frames_of(event), channels)]

    # then
    assert [message.get("type") or message["event"] for message in told] == words


def test_every_frame_names_the_request_that_caused_it() -> None:
    # given
    event = event_of(filled_order() | {"risk": RISK_FACT}, "request-7")

    # when
    told = [*messages(frames_of(event)), json.loads(sequence_text(event))]

    # then
    assert [message.get("type") or message["event"] for message in told] == [
        "order_update",
        "order_update",
        "order.filled",
        "position_update",
        "account_update",
        "risk_alert",
        "sequence",
    ]
    assert {message.get("request_id") for message in told} == {"request-7"}


def test_an_event_that_no_request_caused_names_none() -> None:
    # given
    event = event_of(filled_order())

    # when
    told = [*messages(frames_of(event)), json.loads(sequence_text(event))]

    # then
    assert [message for message in told if "request_id" in message] == []


def test_a_connection_that_nothing_concerns_gets_the_sequence() -> None:
    # given
    event = event_of(filled_order())

    # when
    texts = texts_for(event, frames_of(event), {"risk"})

    # then
    assert texts == [sequence_text(event)]
    assert json.loads(texts[0]) == {"type": "sequence", "account_id": str(ACCOUNT_ID), "sequence": 7}


def test_an_order_that_took_the_place_of_another_one_names_it() -> None:
    # given
    old = {"order_id": ORDER_ID, "status": "replaced"}
    new = {"order_id": str(UUID(int=9)), "status": "new", "replaces_order_id": ORDER_ID}

    # when
    told = [message["data"] for message in messages(frames_of(event_of({"orders": [old, new]})))]

    # then
    assert told == [
        {"order_id": ORDER_ID, "status": "cancelled"},
        {"order_id": str(UUID(int=9)), "status": "pending", "replaces_order_id": ORDER_ID},
    ]


def orders_of(count: int) -> list[dict[str, Any]]:
    """As long as they can be."""
    longest = {"client_order_id": '"' * 128, "symbol": "X" * 20, "limit_price": "9" * 18 + "." + "9" * 12}
    return [{"order_id": str(UUID(int=number)), "status": "canceled", **longest} for number in range(count)]


def test_a_few_orders_have_a_frame_each() -> None:
    told = messages(frames_of(event_of({"orders": orders_of(ORDERS_APART_MAX)})))

    assert [message["type"] for message in told] == ["order_update"] * ORDERS_APART_MAX


@pytest.mark.parametrize("count", [ORDERS_APART_MAX + 1, 500])
def test_many_orders_share_frames_that_are_no_longer_than_a_frame_may_be(count: int) -> None:
    # given
    event = event_of({"orders": orders_of(count)}, "request-" + "7" * 120)

    # when
    frames = frames_of(event)

    # then each is told once, in order, and the parts are counted
    told = [message["data"] for message in messages(frames)]
    assert [order["order_id"] for data in told for order in data["orders"]] == [
        str(UUID(int=number)) for number in range(count)
    ]
    assert {order["status"] for data in told for order in data["orders"]} == {"cancelled"}
    assert [(data["part"], data["parts"]) for data in told] == [(part, len(told)) for part in range(1, len(told) + 1)]
    assert {message["type"] for message in messages(frames)} == {"orders_update"}
    assert all(len(frame.text.encode()) <= FRAME_BYTES_MAX for frame in frames)
    assert len(frames) <= 1 + count // 30


def test_who_listens_to_positions_alone_hears_the_sequence_of_many_orders() -> None:
    event = event_of({"orders": orders_of(ORDERS_APART_MAX + 1)})

    assert texts_for(event, frames_of(event), {"positions"}) == [sequence_text(event)]


@pytest.mark.parametrize(
    "payload",
    [
        {"orders": [{"order_id": ORDER_ID, "status": "unheard of"}]},
        {"orders": [{"status": "filled"}]},
        {"orders": "text"},
        {"account": {"currency": "USD", "balance": "a lot"}},
        {"account": {"currency": "USD", "balance": 1.5}},
        {"account": {"currency": "USD", "balance": "NaN"}},
        {"orders": [{"order_id": ORDER_ID, "status": "denied", "failure_reason": "x" * FRAME_BYTES_MAX}]},
    ],
)
def test_facts_that_cannot_be_told_are_named(payload: dict[str, Any]) -> None:
    with pytest.raises(UnrenderableError, match=r".+"):
        frames_of(event_of(payload))
