"""Orders that wait for a parent's fills, and the exits of a bracket, which also cancel each other."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.kit import MigratedTemplate, User
from tests.kit.builders import order_request
from tests.kit.linked import (
    bracket_request,
    canceling,
    events,
    executing,
    leg,
    linked_request,
    place_linked,
    placed,
    states,
    stop_leg,
)
from tests.kit.mutations import replace_body
from tests.kit.orders import Market, at_once, keyed_request, raises_sqlstate, send
from tests.kit.ticks import Ticker, call

EURUSD = "EURUSD"
ENTERED, PROFIT, LOSS = ("1.0948", "1.0950"), ("1.1100", "1.1102"), ("1.0900", "1.0902")
GBPUSD_EXITS = {"take_profit": {"limit_price": "1.3500"}, "stop_loss": {"stop_price": "1.1500"}}
BELOW_ITS_LIMIT = {"take_profit": {"limit_price": "1.1055"}}
# EURUSD stands 28.93 lots deep: what one quote fills of 50.
PART, REST = Decimal("28.93"), Decimal("21.07")


@pytest.fixture
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    """A database of its own, because a price touches whatever waits; its books must hold in the end."""
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def ticker(market: Market) -> Iterator[Ticker]:
    with Ticker.opened(market) as ticker:
        yield ticker


@pytest.fixture(params=["hedging", "netting"])
def user(request: pytest.FixtureRequest, market: Market) -> User:
    return market.user(balance="1000000", position_mode=request.param, risk={"max_position_size": None})


def market_leg(**overrides: object) -> dict[str, object]:
    return leg(**{"order_type": "market", "limit_price": None} | overrides)


def position_of(market: Market, user: User, order_id: UUID) -> dict[str, Any]:
    (order,) = [row for row in market.rows("orders", user) if row["id"] == order_id]
    (position,) = [row for row in market.rows("positions", user) if row["id"] == order["position_id"]]
    return position


class TestChildren:
    def test_they_wait_and_no_price_touches_them(self, market: Market, ticker: Ticker, user: User) -> None:
        outcome = place_linked(market, linked_request(user, "oto", leg(limit_price="1.0500"), leg(), stop_leg()))

        parent, *children = outcome["orders"]
        assert parent["contingency"] == "oto_parent"
        assert parent["linked_order_ids"] == [child["order_id"] for child in children]
        assert [
            (child["contingency"], child["parent_order_id"], child["status"], child["held_quantity"])
            for child in children
        ] == [("oto_child", parent["order_id"], "new", 1)] * 2
        assert ticker.tick(EURUSD, "1.0948", "1.0950") == ticker.tick(EURUSD, "1.1050", "1.1052") == []

    def test_the_parents_fill_activates_them(self, market: Market, ticker: Ticker, user: User) -> None:
        ids = placed(market, linked_request(user, "oto", leg(), leg(limit_price="1.0900"), stop_leg()))

        assert ticker.tick(EURUSD, *ENTERED) == ["filled"]

        assert states(market, user, ids) == [("filled", 1, 0, 0), ("new", 0, 1, 0), ("new", 0, 1, 0)]
        assert market.audit(user, ids[1])[-1]["action"] == "ACTIVATED"
        assert events(market, user)[-3:] == ["order.filled", "order.activated", "order.activated"]
        assert ticker.tick(EURUSD, "1.0898", "1.0900") == ["filled"]

    def test_they_follow_its_fills_in_proportion(self, market: Market, ticker: Ticker, user: User) -> None:
        # given one that waits above and one that waits below
        children = stop_leg(quantity="5"), stop_leg(side="sell", quantity="5", stop_price="1.0960")
        above, below = ("1.1050", "1.1052"), ("1.0960", "1.0962")
        ids = placed(market, linked_request(user, "oto", leg(quantity="50"), *children))

        ticker.tick(EURUSD, *ENTERED)
        part = states(market, user, ids)[1:]
        stopped = ticker.tick(EURUSD, *above) + ticker.tick(EURUSD, *below)
        between = states(market, user, ids)[1:]
        ticker.tick(EURUSD, *ENTERED)
        whole = states(market, user, ids)[1:]

        # 5 x 28.93 / 50 in steps of 0.01
        released = Decimal("2.89")
        assert part == [("new", 0, 5, 5 - released)] * 2
        assert stopped == ["partially_filled"] * 2
        assert between == [("partially_filled", released, 5 - released, 5 - released)] * 2
        assert whole == [("partially_filled", released, 5 - released, 0)] * 2
        assert ticker.tick(EURUSD, *above) + ticker.tick(EURUSD, *below) == ["filled"] * 2

    def test_a_parent_that_ends_without_a_fill_takes_them_with_it(self, market: Market, user: User) -> None:
        ids = placed(market, linked_request(user, "oto", leg(), leg(), stop_leg()))

        market.cancel(user, ids[0])

        assert states(market, user, ids) == [("canceled", 0, 0, 0)] * 3
        last = market.audit(user, ids[2])[-1]
        assert (last["action"], last["reason"]) == ("CANCELED", "Its parent order was canceled")
        assert events(market, user)[-3:] == ["order.canceled"] * 3

    def test_a_parent_that_expires_takes_them_with_it(self, market: Market, ticker: Ticker, user: User) -> None:
        soon = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
        ids = placed(market, linked_request(user, "oto", leg(time_in_force="gtd", expires_at=soon), stop_leg()))

        told: list[str] = []
        give_up = time.monotonic() + 10
        while not told and time.monotonic() < give_up:
            told = ticker.tick("AAPL", "149.98", "150.00")

        assert told == ["expired"]
        assert states(market, user, ids) == [("expired", 0, 0, 0), ("canceled", 0, 0, 0)]

    def test_a_parent_that_is_rejected_takes_them_with_it(self, market: Market, ticker: Ticker, user: User) -> None:
        ids = placed(market, linked_request(user, "oto", leg(), stop_leg()))
        market.execute("UPDATE profiles SET account_status = 'suspended' WHERE id = %s", (user.user_id,))

        assert ticker.tick(EURUSD, *ENTERED) == ["rejected"]
        assert states(market, user, ids) == [("rejected", 0, 0, 0), ("canceled", 0, 0, 0)]

    def test_a_parent_that_ends_in_part_leaves_them_that_part(self, market: Market, ticker: Ticker, user: User) -> None:
        ids = placed(market, linked_request(user, "oto", leg(quantity="50"), stop_leg(quantity="50")))
        ticker.tick(EURUSD, *ENTERED)

        market.cancel(user, ids[0])

        assert states(market, user, ids) == [("canceled", PART, 0, 0), ("new", 0, PART, 0)]
        assert ticker.tick(EURUSD, "1.1050", "1.1052") == ["canceled"]
        assert states(market, user, ids)[1] == ("canceled", PART, 0, 0)

    def test_many_canceled_at_once_take_their_children_with_them(self, market: Market, user: User) -> None:
        ids = placed(market, linked_request(user, "oto", leg(), stop_leg()))

        send(market.trader, keyed_request(user, order_type="limit"), "cancel_orders")

        assert states(market, user, ids) == [("canceled", 0, 0, 0)] * 2

    def test_there_may_be_five(self, market: Market) -> None:
        user = market.user()

        with raises_sqlstate("TR006"):
            place_linked(market, linked_request(user, "oto", leg(), *[stop_leg()] * 6))

        assert market.counts(user)["orders"] == 0
        assert len(placed(market, linked_request(user, "oto", leg(), *[stop_leg()] * 5))) == 6

    def test_none_of_a_group_can_be_replaced(self, market: Market, user: User) -> None:
        ids = placed(market, linked_request(user, "oto", leg(), stop_leg()))

        for order_id in ids:
            with raises_sqlstate("TR009"):
                send(market.trader, keyed_request(user, order_id=str(order_id), quantity="2"), "replace_order")

    def test_a_child_may_be_canceled_alone(self, market: Market, ticker: Ticker, user: User) -> None:
        ids = placed(market, linked_request(user, "oto", leg(), stop_leg(), stop_leg()))

        market.cancel(user, ids[1])
        ticker.tick(EURUSD, *ENTERED)

        assert states(market, user, ids) == [("filled", 1, 0, 0), ("canceled", 0, 0, 0), ("new", 0, 1, 0)]

    def test_a_parent_at_the_market_is_filled_at_once(self, market: Market, user: User) -> None:
        request = linked_request(user, "oto", market_leg(), stop_leg())

        ids = placed(market, request)

        assert states(market, user, ids) == [("filled", 1, 0, 0), ("new", 0, 1, 0)]
        assert events(market, user)[-2:] == ["order.filled", "order.linked"]
        # it slips by the key of the group, so that a repeat of what was rolled back slips the same
        executed = market.audit(user, ids[0])[2]
        assert executed["details"]["slippage"]["seed"] == f"{user.account_id}:{request['idempotency_key']}"

    def test_a_parent_that_is_cut_to_what_is_held_takes_the_rest_of_them_with_it(self, market: Market) -> None:
        user = market.user(position_mode="netting")
        market.trade(user)

        parent = market_leg(side="sell", quantity="2", reduce_only=True)
        ids = placed(market, linked_request(user, "oto", parent, leg(quantity="4")))

        assert states(market, user, ids) == [("canceled", 1, 0, 0), ("new", 0, 2, 0)]
        assert market.audit(user, ids[1])[-1]["reason"] == "Its parent order was canceled"

    def test_a_parent_that_is_denied_leaves_nothing_else(self, market: Market) -> None:
        user = market.user(balance="10")
        request = linked_request(user, "oto", market_leg(), stop_leg())

        outcome, again = place_linked(market, request), place_linked(market, request)

        assert (outcome["outcome"], outcome["code"]) == ("denied", "INSUFFICIENT_MARGIN")
        assert (again.replayed, again.text) == (True, outcome.text)
        assert [row["status"] for row in market.rows("orders", user)] == ["denied"]


class TestExits:
    def test_they_rest_linked_and_held_until_the_entry_is_filled(self, market: Market, user: User) -> None:
        outcome = place_linked(market, bracket_request(user, leg()))

        entry, loss, profit = outcome["orders"]
        assert (loss["order_type"], profit["order_type"]) == ("stop", "limit")
        assert [(one["side"], one["contingency"], one["held_quantity"]) for one in (loss, profit)] == [
            ("sell", "bracket_exit", 1)
        ] * 2
        assert {loss["parent_order_id"], profit["parent_order_id"]} == {entry["order_id"]}
        assert (loss["linked_order_ids"], profit["linked_order_ids"]) == ([profit["order_id"]], [loss["order_id"]])

    @pytest.mark.parametrize(("quote", "filled"), [(PROFIT, 2), (LOSS, 1)])
    def test_one_closes_the_position_of_the_entry_and_cancels_the_other(
        self, market: Market, ticker: Ticker, user: User, quote: tuple[str, str], filled: int
    ) -> None:
        ids = placed(market, bracket_request(user, leg()))

        assert ticker.tick(EURUSD, *ENTERED) == ["filled"]
        assert ticker.tick(EURUSD, *quote) == ["filled"]

        expected = [("filled", 1, 0, 0), ("canceled", 0, 0, 0), ("canceled", 0, 0, 0)]
        expected[filled] = ("filled", 1, 0, 0)
        assert states(market, user, ids) == expected
        (position,) = market.rows("positions", user)
        assert (position["status"], position["id"]) == ("closed", position_of(market, user, ids[filled])["id"])

    @pytest.mark.parametrize(
        ("side", "exits", "quote"),
        [
            ("buy", {}, PROFIT),
            (
                "sell",
                {"take_profit": {"limit_price": "1.0900"}, "stop_loss": {"stop_price": "1.1100"}},
                ("1.0898", "1.0900"),
            ),
        ],
    )
    def test_an_entry_at_the_market_has_them_at_once(
        self, market: Market, ticker: Ticker, user: User, side: str, exits: dict[str, object], quote: tuple[str, str]
    ) -> None:
        ids = placed(market, bracket_request(user, market_leg(side=side), **exits))

        assert states(market, user, ids) == [("filled", 1, 0, 0), ("new", 0, 1, 0), ("new", 0, 1, 0)]
        assert ticker.tick(EURUSD, *quote) == ["filled"]
        assert [state[0] for state in states(market, user, ids)] == ["filled", "canceled", "filled"]

    def test_they_follow_an_entry_that_is_filled_in_parts(self, market: Market, ticker: Ticker, user: User) -> None:
        ids = placed(market, bracket_request(user, leg(quantity="50")))

        ticker.tick(EURUSD, *ENTERED)
        first = states(market, user, ids)
        ticker.tick(EURUSD, *PROFIT)
        second = states(market, user, ids)
        ticker.tick(EURUSD, *ENTERED)
        third = states(market, user, ids)
        assert ticker.tick(EURUSD, *LOSS) == ["canceled"]

        assert first == [("partially_filled", PART, REST, 0), ("new", 0, 50, REST), ("new", 0, 50, REST)]
        assert second[1:] == [("new", 0, REST, REST), ("partially_filled", PART, REST, REST)]
        assert third == [("filled", 50, 0, 0), ("new", 0, REST, 0), ("partially_filled", PART, REST, 0)]
        # the rest went out by the stop loss: each exit ends with what it has filled
        assert states(market, user, ids)[1:] == [("canceled", REST, 0, 0), ("canceled", PART, 0, 0)]
        assert all(row["status"] == "closed" for row in market.rows("positions", user))

    def test_one_that_was_queued_and_has_to_wait_again_stays_as_it_is(
        self, market: Market, ticker: Ticker, user: User
    ) -> None:
        ids = placed(market, bracket_request(user, leg(quantity="50"), stop_loss={"stop_price": "1.0945"}))
        ticker.tick(EURUSD, *ENTERED)
        ticker.touch(EURUSD, *PROFIT)
        # the spread is wide, so that the entry is not touched
        ticker.touch(EURUSD, "1.0945", "1.0955")

        assert ticker.work() == ["partially_filled", "idle"]
        assert states(market, user, ids)[1] == ("new", 0, REST, REST)

    def test_a_part_of_one_is_taken_off_the_other(self, market: Market, ticker: Ticker, user: User) -> None:
        ids = placed(market, bracket_request(user, market_leg(quantity="50")))

        assert ticker.tick(EURUSD, *PROFIT) == ["partially_filled"]
        assert states(market, user, ids)[1:] == [("new", 0, REST, 0), ("partially_filled", PART, REST, 0)]
        assert ticker.tick(EURUSD, *LOSS) == ["canceled"]
        assert sum(row["quantity"] for row in market.rows("positions", user)) == 0

    def test_a_stop_loss_may_have_a_limit(self, market: Market, ticker: Ticker, user: User) -> None:
        exits = {"stop_loss": {"stop_price": "1.0900", "limit_price": "1.0890"}}
        ids = placed(market, bracket_request(user, market_leg(), **exits))

        assert ticker.tick(EURUSD, "1.0880", "1.0882") == ["triggered"]
        assert ticker.tick(EURUSD, "1.0891", "1.0893") == ["filled"]
        assert [state[0] for state in states(market, user, ids)] == ["filled", "filled", "canceled"]

    @pytest.mark.parametrize(("canceled", "touches"), [(2, LOSS), (1, PROFIT)], ids=["take profit", "stop loss"])
    def test_one_that_is_canceled_leaves_the_other(
        self, market: Market, ticker: Ticker, user: User, canceled: int, touches: tuple[str, str]
    ) -> None:
        ids = placed(market, bracket_request(user, market_leg()))

        market.cancel(user, ids[canceled])

        assert ticker.tick(EURUSD, *touches) == ["filled"]

    def test_another_position_is_not_theirs(self, market: Market, ticker: Ticker) -> None:
        user = market.user(position_mode="hedging")
        other = market.trade(user)["position_id"]
        placed(market, bracket_request(user, market_leg()))

        ticker.tick(EURUSD, *PROFIT)

        open_ones = [str(row["id"]) for row in market.rows("positions", user) if row["status"] == "open"]
        assert open_ones == [other]

    def test_they_end_with_the_position_when_it_is_closed_by_hand(
        self, market: Market, ticker: Ticker, user: User
    ) -> None:
        ids = placed(market, bracket_request(user, market_leg()))

        market.close_out(user, position_of(market, user, ids[0])["id"])

        assert [state[0] for state in states(market, user, ids)] == ["filled", "canceled", "canceled"]
        last = market.audit(user, ids[2])[-1]
        assert (last["action"], last["reason"]) == ("CANCELED", "Its position was closed")
        assert events(market, user)[-3:] == ["order.filled", "order.canceled", "order.canceled"]
        # a position that somebody opens later is not theirs
        market.trade(user)
        assert ticker.tick(EURUSD, *PROFIT) == ticker.tick(EURUSD, *LOSS) == []

    @pytest.mark.parametrize(
        "how",
        [
            "close_by",
            "close_by of another",
            "close_planned",
            "its own level",
            "turned round",
            "reduced to nothing",
            "at a venue",
        ],
    )
    def test_they_end_with_it_however_it_is_closed(self, market: Market, ticker: Ticker, how: str) -> None:
        # given a bracket whose entry is filled, with room for no further working order
        mode = "netting" if how in {"turned round", "reduced to nothing", "at a venue"} else "hedging"
        user = market.user(balance="1000000", position_mode=mode)
        entry = market_leg(stop_loss="1.0950") if how == "its own level" else market_leg()
        ids = placed(market, bracket_request(user, entry))
        other = placed(market, bracket_request(user, market_leg(symbol="GBPUSD"), **GBPUSD_EXITS))
        position_id = str(position_of(market, user, ids[0])["id"])

        # when the position is closed
        match how:
            case "close_by" | "close_by of another":
                opposite = market.trade(user, side="sell")["position_id"]
                named, against = (position_id, opposite) if how == "close_by" else (opposite, position_id)
                asked = {"position_id": named, "opposite_position_id": against}
                send(market.trader, keyed_request(user, **asked), "close_by")
            case "close_planned":
                plan = keyed_request(user, which="all", symbol=EURUSD, positions_max=9)
                send(market.trader, plan, "plan_closes")
                send(market.trader, plan | {"position_id": position_id}, "close_planned")
            case "its own level":
                assert ticker.tick(EURUSD, "1.0940", "1.0942") == ["filled"]
            case "at a venue":
                market.execute("UPDATE instruments SET venue = 'mock' WHERE symbol = %s", (EURUSD,))
                sale = send(market.trader, order_request(user, side="sell"), "accept_order")["order_id"]
                traded = {"venue": "mock", "trade_id": "T", "quantity": "1", "price": "1.0990"}
                order = {"version": 1, "user_id": str(user.user_id), "order_id": sale}
                market.execute("SELECT book_venue_fill(%s)", (Jsonb(order | traded),))
            case _:
                market.trade(user, side="sell", quantity="3" if how == "turned round" else "1")

        # then its exits have ended, each told and audited, and those of another position work on
        assert [state[0] for state in states(market, user, ids)] == ["filled", "canceled", "canceled"]
        assert market.audit(user, ids[1])[-1]["reason"] == "Its position was closed"
        assert events(market, user)[-2:] == ["order.canceled", "order.canceled"]
        assert [state[0] for state in states(market, user, other)] == ["filled", "new", "new"]

    @pytest.mark.parametrize("order_type", ["market", "limit"])
    def test_the_answer_of_what_ends_them_names_the_event_of_its_own_fill(
        self, market: Market, order_type: str
    ) -> None:
        user = market.user(balance="1000000", position_mode="netting")
        ids = placed(market, bracket_request(user, market_leg()))
        sale = {"side": "sell", "quantity": "2", "order_type": order_type}

        answer = (
            market.trade(user, **sale) if order_type == "market" else market.place(user, **sale, limit_price="1.0900")
        )

        assert [state[0] for state in states(market, user, ids)] == ["filled", "canceled", "canceled"]
        assert events(market, user)[-3:] == ["order.filled", "order.canceled", "order.canceled"]
        assert answer["sequence"] == market.last_event(user)["sequence"] - 2

    def test_the_books_see_one_that_outlives_its_position(self, market: Market) -> None:
        user = market.user()
        ids = placed(market, bracket_request(user, market_leg()))
        replace_body(market.owner, "end_exits", "BEGIN END")

        market.close_out(user, position_of(market, user, ids[0])["id"])

        told = "is to close 1 of a position that is not open"
        assert {(subject, problem) for _, subject, problem in market.book_faults()} == {
            (str(exit_id), told) for exit_id in ids[1:]
        }
        # what their owner cancels is in order again
        market.cancel_all(user)

    def test_they_close_what_is_left_of_it(self, market: Market, ticker: Ticker, user: User) -> None:
        ids = placed(market, bracket_request(user, market_leg()))
        market.close_out(user, position_of(market, user, ids[0])["id"], quantity="0.4")

        assert ticker.tick(EURUSD, *LOSS) == ["canceled"]

        assert states(market, user, ids)[1] == ("canceled", Decimal("0.6"), 0, 0)
        assert states(market, user, ids)[2] == ("canceled", 0, 0, 0)
        assert ticker.tick(EURUSD, *PROFIT) == []
        assert all(row["status"] == "closed" for row in market.rows("positions", user))

    def test_an_entry_that_goes_on_after_its_first_part_was_closed_keeps_them(
        self, market: Market, ticker: Ticker, user: User
    ) -> None:
        ids = placed(market, bracket_request(user, leg(quantity="50")))
        ticker.tick(EURUSD, *ENTERED)
        market.close_out(user, position_of(market, user, ids[0])["id"])

        # nothing is left of the first part, but the rest is still to come
        assert states(market, user, ids)[2] == ("new", 0, REST, REST)
        assert market.audit(user, ids[2])[-1]["action"] == "REDUCED"
        assert ticker.tick(EURUSD, *PROFIT) == []
        ticker.tick(EURUSD, *ENTERED)
        assert ticker.tick(EURUSD, *PROFIT) == ["canceled"]

        assert states(market, user, ids)[2] == ("canceled", REST, 0, 0)
        assert all(row["status"] == "closed" for row in market.rows("positions", user))

    @pytest.mark.parametrize("entry", [leg(side="sell", limit_price="1.1010"), market_leg(side="sell")])
    @pytest.mark.parametrize(
        ("held", "closed", "left"),
        [("1", ["canceled"], 0), ("5", ["canceled"], 2)],
        ids=["turns a position round", "only reduces one"],
    )
    def test_an_entry_against_a_position_has_exits_for_what_it_opens(
        self, market: Market, ticker: Ticker, entry: dict[str, object], held: str, closed: list[str], left: int
    ) -> None:
        # given an entry to sell three lots where some are held
        user = market.user(position_mode="netting")
        market.trade(user, quantity=held)
        exits = {"take_profit": {"limit_price": "1.0900"}, "stop_loss": {"stop_price": "1.1100"}}
        ids = placed(market, bracket_request(user, entry | {"quantity": "3"}, **exits))
        ticker.tick(EURUSD, "1.1010", "1.1012")

        # when its stop loss is touched
        told = ticker.tick(EURUSD, "1.1100", "1.1102")

        # then what the entry has opened is closed, what it reduced stays, and no exit is left behind
        assert (told, ticker.tick(EURUSD, "1.0898", "1.0900")) == (closed, [])
        assert [state[0] for state in states(market, user, ids)] == ["filled", "canceled", "canceled"]
        assert sum(row["quantity"] for row in market.rows("positions", user)) == left

    @pytest.mark.parametrize("entry", [leg(side="sell", limit_price="1.0990"), market_leg(side="sell")])
    def test_an_entry_that_closes_what_is_held_leaves_no_exit(self, market: Market, entry: dict[str, object]) -> None:
        # given an account that nets, and what it holds
        user = market.user(position_mode="netting")
        market.trade(user)

        # when just that is sold by the entry of a bracket
        exits = {"take_profit": {"limit_price": "1.0900"}, "stop_loss": {"stop_price": "1.1100"}}
        ids = placed(market, bracket_request(user, entry, **exits))

        # then there is nothing that its exits could close
        assert [state[0] for state in states(market, user, ids)] == ["filled", "canceled", "canceled"]
        assert market.audit(user, ids[1])[-1]["reason"] == "Its position was closed"
        assert market.book_faults() == []

    def test_a_stop_out_takes_them_with_the_position(self, market: Market) -> None:
        user = market.user(balance="1200", position_mode="netting")
        ids = placed(market, bracket_request(user, market_leg(), stop_loss={"stop_price": "1.0800"}))
        market.quote(EURUSD, "1.0890", "1.0892")

        with market.database.connect("function_risk") as connection:
            step = call(connection, "stop_out_step", {"user_id": str(user.user_id), "account_id": str(user.account_id)})

        assert step["state"] == "done"
        assert [state[0] for state in states(market, user, ids)] == ["filled", "canceled", "canceled"]

    @pytest.mark.parametrize(
        ("entry", "exits", "field"),
        [
            (leg(), {"stop_loss": {"stop_price": "1.0950"}}, "stop_loss"),
            (leg(), {"take_profit": {"limit_price": "1.0950"}}, "take_profit"),
            (stop_leg(order_type="stop_limit", limit_price="1.1060"), BELOW_ITS_LIMIT, "take_profit"),
            (market_leg(), {"stop_loss": {"stop_price": "1.1050"}}, "stop_loss"),
            (leg(), {"stop_loss": {}}, "stop_price"),
            (leg(), {"take_profit": {}}, "limit_price"),
            (leg(), {"stop_loss": {"stop_price": "1.090001"}}, "stop_price"),
        ],
    )
    def test_an_exit_on_the_wrong_side_keeps_nothing(
        self, market: Market, entry: dict[str, object], exits: dict[str, object], field: str
    ) -> None:
        user = market.user()
        before = market.counts(user)

        with raises_sqlstate("TR006") as caught:
            place_linked(market, bracket_request(user, entry, **exits))

        assert f'"{field}"' in str(caught.value.diag.message_detail)
        assert market.counts(user) == before


class TestRaces:
    def test_the_stop_loss_goes_first_where_one_quote_touches_both(self, market: Market, ticker: Ticker) -> None:
        """A stop loss with a limit that was passed over waits for its limit, above which the take profit stands too."""
        user = market.user()
        exits = {"stop_loss": {"stop_price": "1.0900", "limit_price": "1.0890"}}
        ids = placed(market, bracket_request(user, market_leg(), **exits))
        ticker.tick(EURUSD, "1.0880", "1.0882")

        assert ticker.tick(EURUSD, *PROFIT) == ["filled", "idle"]
        assert [state[0] for state in states(market, user, ids)] == ["filled", "filled", "canceled"]

    @pytest.mark.parametrize("_turn", range(3))
    def test_two_exits_at_once_close_once(self, market: Market, ticker: Ticker, _turn: int) -> None:
        user = market.user()
        placed(market, bracket_request(user, market_leg()))
        ticker.touch(EURUSD, *PROFIT)
        ticker.touch(EURUSD, *LOSS)
        claimed = ticker.claim()

        told = at_once(market, [executing(market, row) for row in claimed])

        assert (len(claimed), sorted(told)) == (2, ["filled", "idle"])
        assert market.rows("positions", user)[0]["status"] == "closed"

    @pytest.mark.parametrize("_turn", range(3))
    def test_an_exits_fill_against_its_cancel(self, market: Market, ticker: Ticker, _turn: int) -> None:
        user = market.user()
        ids = placed(market, bracket_request(user, market_leg()))
        ticker.touch(EURUSD, *PROFIT)
        (claimed,) = ticker.claim()

        told = at_once(market, [executing(market, claimed), canceling(user, ids[2])])

        assert tuple(told) in {("filled", "TR009"), ("idle", "canceled")}
        left = ("canceled", "filled") if told[0] == "filled" else ("new", "canceled")
        assert tuple(state[0] for state in states(market, user, ids)[1:]) == left

    @pytest.mark.parametrize("_turn", range(3))
    def test_a_parents_fill_against_its_cancel(self, market: Market, ticker: Ticker, _turn: int) -> None:
        user = market.user()
        ids = placed(market, bracket_request(user, leg()))
        ticker.touch(EURUSD, *ENTERED)
        (claimed,) = ticker.claim()

        told = at_once(market, [executing(market, claimed), canceling(user, ids[0])])

        assert tuple(told) in {("filled", "TR009"), ("idle", "canceled")}
        exit_state = ("new", 0, 1, 0) if told[0] == "filled" else ("canceled", 0, 0, 0)
        assert states(market, user, ids)[1:] == [exit_state] * 2

    @pytest.mark.parametrize("_turn", range(3))
    def test_a_close_of_the_position_against_an_exit(self, market: Market, ticker: Ticker, _turn: int) -> None:
        user = market.user()
        ids = placed(market, bracket_request(user, market_leg()))
        request = keyed_request(user, position_id=str(position_of(market, user, ids[0])["id"]))
        ticker.touch(EURUSD, *PROFIT)
        (claimed,) = ticker.claim()

        def close(connection: psycopg.Connection[Any]) -> str:
            try:
                return send(connection, request, "close_position")["outcome"]
            except psycopg.Error as error:
                return error.sqlstate or ""

        told = at_once(market, [executing(market, claimed), close])

        assert tuple(told) in {("filled", "TR010"), ("idle", "filled")}
        assert len(market.rows("fills", user)) == 2

    def test_twenty_callers_with_one_key_place_one_bracket(self, market: Market) -> None:
        user = market.user()
        request = bracket_request(user, market_leg())

        told = at_once(market, [lambda connection: send(connection, request, "place_linked_orders")] * 20)

        assert sorted(outcome.replayed for outcome in told) == [False] + [True] * 19
        assert (len(market.rows("orders", user)), len(market.rows("fills", user))) == (3, 1)
