"""cancel_orders: all that works on an account, or what fits, ends in one transaction."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.orders import (
    Market,
    Outcome,
    deadlocks,
    details_of,
    keyed_request,
    raises_sqlstate,
    resting_request,
    send,
    told_at_once,
)
from trading.events import FRAME_BYTES_MAX, Event, frames_of

ORDERS_MAX = 500


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    """One database for the module; its books must hold after all tests."""
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    return shared


@pytest.fixture
def trader(market: Market) -> User:
    return market.user()


def ids(outcome: Outcome) -> list[str]:
    return [fact["order_id"] for fact in outcome["canceled"]]


def working(market: Market, user: User) -> list[str]:
    return [str(row["id"]) for row in market.rows("orders", user) if row["status"] == "new"]


class TestCancelingAll:
    def test_a_symbol_that_there_is_not_cancels_nothing_and_says_so(self, market: Market, trader: User) -> None:
        market.place(trader)

        with raises_sqlstate("TR002") as caught:
            market.cancel_all(trader, symbol="EURUSX")

        assert details_of(caught.value) == {"field": "symbol", "value": "EURUSX", "constraint": "a known symbol"}
        assert len(working(market, trader)) == 1

    def test_every_order_ends(self, market: Market, trader: User) -> None:
        placed = [market.place(trader)["order_id"] for _ in range(3)]
        filled = market.trade(trader)["order_id"]
        other = market.user()
        market.place(other)

        canceled = market.cancel_all(trader)

        assert (ids(canceled), canceled["left"], canceled["outcome"]) == (placed, 0, "canceled")
        rows = {str(row["id"]): row for row in market.rows("orders", trader)}
        assert {(rows[each]["status"], rows[each]["leaves_quantity"], rows[each]["version"]) for each in placed} == {
            ("canceled", 0, 2)
        }
        assert rows[filled]["status"] == "filled"
        assert len(working(market, other)) == 1

    def test_each_has_its_audit_and_one_event_tells_all(self, market: Market, trader: User) -> None:
        placed = [market.place(trader)["order_id"] for _ in range(3)]

        canceled = market.cancel_all(trader, request_id="request-9")

        event = market.last_event(trader)
        assert (event["event_type"], event["sequence"], event["request_id"]) == (
            "orders.canceled",
            canceled["sequence"],
            "request-9",
        )
        assert [fact["order_id"] for fact in event["payload"]["orders"]] == placed
        assert market.counts(trader)["events"] == 4 + 1  # three placed and a deposit before
        last = [market.audit(trader, each)[-1] for each in placed]
        told = {row["audit_id"] for row in market.rows("audit_pii", trader)}
        assert {(row["action"], row["reason"]) for row in last} == {("CANCELED", "User requested cancellation")}
        assert {row["id"] for row in last} <= told

    @pytest.mark.parametrize(
        ("filters", "left"),
        [
            ({"symbol": "EURUSD"}, {"GBPUSD"}),
            ({"side": "sell"}, {"EURUSD", "EURUSD stop"}),
            ({"order_type": "limit"}, {"EURUSD stop"}),
            ({"symbol": "EURUSD", "order_type": "stop"}, {"EURUSD", "GBPUSD"}),
            ({"symbol": "AAPL"}, {"EURUSD", "EURUSD stop", "GBPUSD"}),
        ],
    )
    def test_what_does_not_fit_works_on(
        self, market: Market, trader: User, filters: dict[str, object], left: set[str]
    ) -> None:
        placed = {
            "EURUSD": market.place(trader),
            "EURUSD stop": market.place(trader, order_type="stop", limit_price=None, stop_price="1.2"),
            "GBPUSD": market.place(trader, symbol="GBPUSD", side="sell", limit_price="1.3"),
        }

        canceled = market.cancel_all(trader, **filters)

        assert set(working(market, trader)) == {placed[name]["order_id"] for name in left}
        assert (len(canceled["canceled"]), canceled["left"]) == (3 - len(left), 0)

    def test_nothing_to_cancel_is_an_answer_without_an_event(self, market: Market, trader: User) -> None:
        before = market.counts(trader)

        canceled = market.cancel_all(trader)

        assert (canceled["canceled"], canceled["left"], canceled["sequence"]) == ([], 0, None)
        assert market.counts(trader) == before | {"idempotency_keys": before["idempotency_keys"] + 1}

    @pytest.mark.parametrize("status", ["suspended", "closed"])
    def test_open_to_who_may_not_trade(self, market: Market, trader: User, status: str) -> None:
        market.place(trader)
        market.execute("UPDATE profiles SET account_status = %s WHERE id = %s", (status, trader.user_id))

        assert len(market.cancel_all(trader)["canceled"]) == 1

    def test_an_account_of_several_has_to_be_named(self, market: Market, trader: User) -> None:
        market.place(trader)
        with market.owner.transaction(force_rollback=True):
            market.execute(
                "INSERT INTO accounts (user_id, currency) VALUES (%s, 'USD')",
                (trader.user_id,),
            )
            with raises_sqlstate("TR006") as caught, market.owner.transaction():
                send(market.owner, keyed_request(trader), "cancel_orders")
            named = send(market.owner, keyed_request(trader, account_id=str(trader.account_id)), "cancel_orders")

        assert details_of(caught.value)["field"] == "account_id"
        assert len(named["canceled"]) == 1

    def test_somebody_elses_account(self, market: Market, trader: User) -> None:
        theirs = market.user()
        market.place(theirs)

        with raises_sqlstate("TR001"):
            market.cancel_all(trader, account_id=str(theirs.account_id))

        assert len(working(market, theirs)) == 1


class TestMany:
    def test_at_most_500_the_oldest_first_and_their_event_fits_its_frames(self, market: Market) -> None:
        user = market.user(risk={"max_working_orders": None})
        placed = place_many(market, user, ORDERS_MAX + 20)

        first = market.cancel_all(user)
        event = market.last_event(user)
        second = market.cancel_all(user)

        assert (ids(first), first["left"]) == (placed[:ORDERS_MAX], 20)
        assert (ids(second), second["left"]) == (placed[ORDERS_MAX:], 0)
        told = frames_told(market, event)
        assert [order["order_id"] for frame in told for order in frame["orders"]] == placed[:ORDERS_MAX]
        assert len(told) < 20


def place_many(market: Market, user: User, count: int) -> list[str]:
    placed = [send(market.trader, resting_request(user, quantity="0.01"), "place_order") for _ in range(count)]
    return [each["order_id"] for each in placed]


def frames_told(market: Market, row: dict[str, Any]) -> list[dict[str, Any]]:
    """What a connection is sent of an event, whose payload is read as the relay does, without floats."""
    ((text,),) = market.execute("SELECT payload::text FROM events WHERE id = %s", (row["id"],))
    payload = json.loads(text, parse_float=Decimal)
    frames = frames_of(Event(row["user_id"], row["account_id"], row["sequence"], row["event_type"], payload))
    assert all(len(frame.text.encode()) <= FRAME_BYTES_MAX for frame in frames)
    return [json.loads(frame.text)["data"] for frame in frames]


class TestReplayAndRaces:
    def test_the_same_answer_byte_for_byte(self, market: Market, trader: User) -> None:
        market.place(trader)
        request = keyed_request(trader)

        first = send(market.trader, request, "cancel_orders")
        market.place(trader)
        second = send(market.trader, request, "cancel_orders")

        assert (first.replayed, second.replayed) == (False, True)
        assert first.text == second.text
        assert len(working(market, trader)) == 1

    def test_a_key_for_something_else(self, market: Market, trader: User) -> None:
        request = keyed_request(trader)
        send(market.trader, request, "cancel_orders")

        with raises_sqlstate("TR003"):
            send(market.trader, {**request, "request_hash": "another"}, "cancel_orders")

    def test_without_a_key(self, market: Market, trader: User) -> None:
        with raises_sqlstate("TR006") as caught:
            market.cancel_all(trader, idempotency_key=None)

        assert details_of(caught.value)["field"] == "idempotency_key"

    def test_twenty_callers_with_one_key(self, market: Market, trader: User) -> None:
        for _ in range(5):
            market.place(trader)

        told = told_at_once(market, [("cancel_orders", keyed_request(trader))] * 20)

        assert (told.count("canceled"), told.count("replayed")) == (1, 19)
        actions = [row["action"] for row in market.rows("order_audit_log", trader)]
        assert actions.count("CANCELED") == 5
        assert deadlocks(market) == 0

    def test_against_single_cancels_each_order_ends_once(self, market: Market, trader: User) -> None:
        placed = [market.place(trader)["order_id"] for _ in range(5)]
        singles = [("cancel_order", keyed_request(trader, order_id=each)) for each in placed]

        told_at_once(market, [*singles, *[("cancel_orders", keyed_request(trader)) for _ in range(3)]])

        assert working(market, trader) == []
        actions = [row["action"] for row in market.rows("order_audit_log", trader)]
        assert actions.count("CANCELED") == 5
        assert deadlocks(market) == 0
