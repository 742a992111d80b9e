"""Orders that are held until prices have come to where their conditions say, of their own symbol or of any other."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest

from local.replay import replay_lines
from tests.kit import MigratedTemplate, User
from tests.kit.builders import order_request
from tests.kit.linked import leg, linked_request, place_linked
from tests.kit.orders import (
    Market,
    Outcome,
    at_once,
    deadlocks,
    details_of,
    keyed_request,
    raises_sqlstate,
    send,
    stale_time,
)
from tests.kit.risk import BALANCE_AT_THE_LEVEL, stop_out_step
from tests.kit.ticks import HOLDER, Ticker, call, execution_request

# EURUSD stands at 1.1000/1.1002, GBPUSD at 1.2500/1.2504, USDJPY at 150.000/150.010, AAPL at 149.98/150.00.
EURUSD, GBPUSD, USDJPY, AAPL = "EURUSD", "GBPUSD", "USDJPY", "AAPL"


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    """One database for all; its books must hold in the end."""
    with Market.checked(migrated) as market:
        # fills at the quote itself: a hand can follow
        market.execute("UPDATE instruments SET slippage_min = 0, slippage_max = 0")
        yield market


@pytest.fixture(scope="module")
def prices(shared: Market) -> Iterator[Ticker]:
    with Ticker.opened(shared) as ticker:
        yield ticker


@pytest.fixture
def market(shared: Market) -> Iterator[Market]:
    """At its first prices, with nothing left that waits, because a price touches whatever does."""
    shared.prepare()
    yield shared
    waiting = "SELECT DISTINCT user_id FROM orders WHERE status IN ('new', 'triggered', 'partially_filled')"
    for (user_id,) in shared.execute(waiting):
        send(shared.trader, keyed_request(User(user_id, user_id, "")), "cancel_orders")
    shared.execute("DELETE FROM trigger_queue")


@pytest.fixture
def ticker(market: Market, prices: Ticker) -> Ticker:
    assert market is prices.market
    return prices


def when(symbol: str, watch: str, direction: str, level: str) -> dict[str, object]:
    return {"symbol": symbol, "watch": watch, "direction": f"at_or_{direction}", "level": level}


DOLLAR_UP = when(USDJPY, "ask", "above", "151.000")
POUND_DOWN = when(GBPUSD, "bid", "below", "1.2400")


def up(ticker: Ticker) -> list[str]:
    """The dollar rises to where DOLLAR_UP is met."""
    return ticker.tick(USDJPY, "150.990", "151.000")


def hold(market: Market, user: User, *conditions: dict[str, object], **fields: object) -> Outcome:
    """An order of a lot of EURUSD, by default at the market, held for conditions."""
    given = {"order_type": "market", "limit_price": None, "time_in_force": "gtc"} | fields
    return market.place(user, conditions=list(conditions or (DOLLAR_UP,)), **given)


def order_of(market: Market, user: User) -> dict[str, Any]:
    """The newest order."""
    return market.rows("orders", user)[-1]


def met(market: Market, user: User) -> list[bool]:
    """Which of the newest order's conditions are met."""
    return [condition["met_at"] is not None for condition in order_of(market, user)["conditions"]]


def awaited(market: Market, user: User) -> list[int]:
    """The places of the conditions that quotes look for."""
    return sorted(row["place"] for row in market.rows("order_conditions", user))


def event_types(market: Market, user: User) -> list[str]:
    rows = sorted(market.rows("events", user), key=lambda row: row["sequence"])
    return [row["event_type"] for row in rows if row["event_type"] != "account.deposited"]


class TestHeld:
    def test_from_placement_to_the_fill(self, market: Market, ticker: Ticker) -> None:
        # given a market order that is held
        user = market.user()
        placed = hold(market, user)
        assert (placed["outcome"], placed["held_quantity"]) == ("new", 1)

        # when its own symbol moves, nothing comes of it
        assert ticker.tick(EURUSD, "1.0900", "1.0902") == []

        # when the other one's price is there
        assert up(ticker) == ["filled"]

        # then it is filled at the present quote of its own, and all of it is told
        order = order_of(market, user)
        assert (order["status"], order["average_price"], order["held_quantity"]) == ("filled", Decimal("1.0902"), 0)
        assert event_types(market, user) == ["order.new", "order.condition_met", "order.filled"]
        actions = [row["action"] for row in market.audit(user, order["id"])]
        assert actions == ["SUBMITTED", "APPROVED", "CONDITION_MET", "EXECUTED", "FILLED"]
        details = market.audit(user, order["id"])[2]["details"]
        assert (details["symbol"], details["ask"], details["held_quantity"]) == (USDJPY, 151, 0)
        assert awaited(market, user) == []

    @pytest.mark.parametrize(
        ("fields", "at_release", "state", "then", "price"),
        [
            ({"order_type": "limit", "limit_price": "1.0950"}, ("1.1000", "1.1002"), "new", ("1.0930", "1.0940"),
             "1.0940"),
            ({"order_type": "limit", "limit_price": "1.0950"}, ("1.0930", "1.0940"), "filled", None, "1.0940"),
            ({"order_type": "stop", "stop_price": "1.1050"}, ("1.1000", "1.1002"), "new", ("1.1060", "1.1062"),
             "1.1062"),
            ({"order_type": "stop", "stop_price": "1.1050"}, ("1.1060", "1.1062"), "filled", None, "1.1062"),
            # below the ask already when it is placed: where the market will be is not known
            ({"order_type": "stop", "stop_price": "1.0950"}, ("1.0900", "1.0902"), "new", ("1.0950", "1.0952"),
             "1.0952"),
            ({"order_type": "stop_limit", "stop_price": "1.1050", "limit_price": "1.1055"}, ("1.1060", "1.1062"),
             "triggered", ("1.1050", "1.1052"), "1.1052"),
            ({"order_type": "market_if_touched", "stop_price": "1.0950"}, ("1.0940", "1.0942"), "filled", None,
             "1.0942"),
            ({"order_type": "limit_if_touched", "stop_price": "1.0950", "limit_price": "1.0945"},
             ("1.0940", "1.0942"), "filled", None, "1.0942"),
        ],
    )  # fmt: skip
    def test_then_it_is_what_it_would_be_if_it_were_placed_now(
        self, market: Market, ticker: Ticker, fields: dict[str, str], at_release: tuple[str, str], state: str,
        then: tuple[str, str] | None, price: str,
    ) -> None:  # fmt: skip
        user = market.user()
        assert hold(market, user, **fields)["outcome"] == "new"
        assert ticker.tick(EURUSD, *at_release) == []

        assert up(ticker) == [state]

        if then is not None:
            assert ticker.tick(EURUSD, *then) == ["filled"]
        assert order_of(market, user)["average_price"] == Decimal(price)

    @pytest.mark.parametrize(
        ("watch", "direction", "before", "at"),
        [
            ("ask", "above", ("150.900", "150.999"), ("150.980", "151.000")),
            ("bid", "above", ("150.999", "151.001"), ("151.000", "151.001")),
            ("ask", "below", ("150.990", "151.001"), ("150.990", "151.000")),
            ("bid", "below", ("151.001", "151.003"), ("151.000", "151.002")),
        ],
    )
    def test_at_its_level(
        self, market: Market, ticker: Ticker, watch: str, direction: str, before: tuple[str, str], at: tuple[str, str]
    ) -> None:
        if direction == "below":
            ticker.touch(USDJPY, "152.000", "152.010")
        user = market.user()
        hold(market, user, when(USDJPY, watch, direction, "151.000"))

        assert ticker.tick(USDJPY, *before) == []
        assert ticker.tick(USDJPY, *at) == ["filled"]

    def test_a_market_order_without_a_usable_quote_takes_the_next(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        hold(market, user)
        market.quote(EURUSD, "1.1000", "1.1002", stale_time())

        assert up(ticker) == ["new"]

        assert (met(market, user), order_of(market, user)["held_quantity"]) == ([True], 0)
        assert ticker.tick(EURUSD, "1.1010", "1.1012") == ["filled"]
        assert order_of(market, user)["average_price"] == Decimal("1.1012")

    def test_a_market_order_waits_for_its_market_to_open(self, market: Market, ticker: Ticker) -> None:
        user = market.user(risk={"max_position_size": None})
        hold(market, user, symbol=AAPL, quantity="10")
        market.close("XNYS")

        assert up(ticker) == ["new"]
        assert ticker.tick(AAPL, "149.90", "149.92") == []
        market.execute("UPDATE market_calendars SET always_open = true WHERE name = 'XNYS'")

        assert ticker.tick(AAPL, "149.80", "149.82") == ["filled"]

    def test_a_quote_of_a_closed_market_meets_nothing(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        hold(market, user, when(AAPL, "bid", "above", "155.00"))
        market.close("XNYS")

        assert ticker.tick(AAPL, "156.00", "156.02") == []

    def test_margin_is_not_reserved_and_judged_at_both_ends(self, market: Market, ticker: Ticker) -> None:
        # given what one lot needs, which is free when the order is placed
        user = market.user(balance=1_200)
        poor = market.user(balance=100)
        held = hold(market, user)
        assert held["outcome"] == "new"
        assert hold(market, poor)["code"] == "INSUFFICIENT_MARGIN"
        assert order_of(market, poor)["status"] == "denied"
        assert market.account(user)["margin_reserved"] == 0

        # when another order has taken it
        market.trade(user)
        assert up(ticker) == ["rejected"]

        # then it is refused as any that a price touches
        (order,) = [row for row in market.rows("orders", user) if str(row["id"]) == held["order_id"]]
        assert order["failure_code"] == "INSUFFICIENT_MARGIN"
        assert event_types(market, user)[-2:] == ["order.condition_met", "order.rejected"]

    def test_of_an_instrument_that_is_halted(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        hold(market, user)
        market.execute("UPDATE instruments SET trading_state = 'halted' WHERE symbol = %s", (EURUSD,))

        assert up(ticker) == ["rejected"]

    def test_of_an_instrument_that_is_not_traded_any_more(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        hold(market, user)
        market.execute("UPDATE instruments SET is_active = false WHERE symbol = %s", (EURUSD,))

        try:
            assert up(ticker) == ["rejected"]
        finally:
            market.execute("UPDATE instruments SET is_active = true WHERE symbol = %s", (EURUSD,))
        assert order_of(market, user)["failure_code"] == "TRADING_HALTED"

    def test_what_only_reduces(self, market: Market, ticker: Ticker) -> None:
        user = market.user(position_mode="netting")
        market.trade(user, quantity="0.5")
        hold(market, user, side="sell", reduce_only=True)

        assert up(ticker) == ["canceled"]

        order = order_of(market, user)
        assert (order["filled_quantity"], market.rows("positions", user)[0]["status"]) == (Decimal("0.5"), "closed")


class TestSeveral:
    def test_each_is_met_once_and_stays_met(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        hold(market, user, DOLLAR_UP, POUND_DOWN)

        assert up(ticker) == ["new"]
        order = order_of(market, user)
        assert (met(market, user), order["held_quantity"], order["version"]) == ([True, False], 1, 2)
        assert ticker.tick(USDJPY, "149.000", "149.010") == []

        assert ticker.tick(GBPUSD, "1.2390", "1.2394") == ["filled"]
        assert event_types(market, user) == ["order.new", *["order.condition_met"] * 2, "order.filled"]

    def test_of_two_symbols_and_of_one_in_one_batch(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        hold(market, user, DOLLAR_UP, POUND_DOWN, when(USDJPY, "bid", "above", "150.500"))
        now = datetime.now(UTC)

        touched = ticker.record((USDJPY, "151.000", "151.010", now), (GBPUSD, "1.2390", "1.2394", now))["touched"]

        assert (touched, ticker.queued()) == (3, 3)
        assert sorted(ticker.work()) == ["filled", "new", "new"]

    def test_what_came_to_its_level_and_went_before_a_worker_looked(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        hold(market, user)

        ticker.touch(USDJPY, "151.000", "151.010")
        ticker.touch(USDJPY, "150.000", "150.010")
        ticker.touch(USDJPY, "151.500", "151.510")

        assert ticker.work() == ["filled"]
        (told,) = [row for row in market.audit(user, order_of(market, user)["id"]) if row["action"] == "CONDITION_MET"]
        assert Decimal(str(told["details"]["ask"])) == Decimal("151.01")


class TestAtPlacement:
    def test_all_met_it_is_filled_in_the_same_call(self, market: Market) -> None:
        user = market.user()
        true_now = when(USDJPY, "ask", "below", "150.010")

        placed = hold(market, user, true_now, when(EURUSD, "bid", "above", "1.1000"))

        assert (placed["outcome"], placed["execution_price"]) == ("filled", Decimal("1.1002"))
        assert event_types(market, user) == ["order.new", *["order.condition_met"] * 2, "order.filled"]
        audit = market.audit(user, placed["order_id"])
        assert [row["details"]["place"] for row in audit if row["action"] == "CONDITION_MET"] == [1, 2]
        key = order_of(market, user)["idempotency_key"]
        assert market.execute(
            "SELECT answer ->> 'outcome' FROM idempotency_keys WHERE idempotency_key = %s", (key,)
        ) == [("filled",)]

    def test_some_met_it_waits_for_the_others(self, market: Market, ticker: Ticker) -> None:
        user = market.user()

        placed = hold(market, user, when(USDJPY, "ask", "below", "150.010"), POUND_DOWN)

        assert (placed["outcome"], met(market, user), awaited(market, user)) == ("new", [True, False], [2])
        assert [each["met_at"] is not None for each in placed["conditions"]] == [True, False]
        assert ticker.tick(GBPUSD, "1.2400", "1.2404") == ["filled"]

    @pytest.mark.parametrize("unusable", ["stale", "closed", "ahead"])
    def test_a_quote_that_nothing_is_traded_on_meets_nothing(
        self, market: Market, ticker: Ticker, unusable: str
    ) -> None:
        if unusable == "stale":
            market.quote(AAPL, "149.98", "150.00", stale_time())
            market.execute("UPDATE quotes SET received_at = now() WHERE symbol = %s", (AAPL,))
        elif unusable == "ahead":
            market.quote(AAPL, "149.98", "150.00", datetime.now(UTC) + timedelta(minutes=1))
        else:
            market.close("XNYS")
        user = market.user()

        assert hold(market, user, when(AAPL, "bid", "below", "160.00"))["outcome"] == "new"

        assert met(market, user) == [False]
        market.prepare()
        assert ticker.tick(AAPL, "149.90", "149.92") == ["filled"]

    def test_of_a_closed_market_that_is_always_traded_in(self, market: Market) -> None:
        market.close("XNYS")
        market.execute("UPDATE platform_settings SET trade_always = true")

        assert hold(market, market.user(), when(AAPL, "bid", "below", "160.00"))["outcome"] == "filled"

    def test_refused_at_once_it_ends_rejected(self, market: Market) -> None:
        # given what it needs at its own price, but not the spread of the quote besides
        needed = Decimal(hold(market, market.user(balance=1))["details"]["required"])
        user = market.user(balance=needed + 1)

        placed = hold(market, user, when(USDJPY, "ask", "below", "150.010"))

        assert (placed["outcome"], placed["code"]) == ("rejected", "INSUFFICIENT_MARGIN")
        assert event_types(market, user) == ["order.new", "order.condition_met", "order.rejected"]


TOMORROW = {"time_in_force": "gtd", "expires_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}


@contextmanager
def ending(market: Market, user: User) -> Iterator[None]:
    """As if the user's order had been placed until now; afterwards it says again what the audit does."""
    placed = "UPDATE orders SET expires_at = {} WHERE user_id = %s"
    market.execute(placed.format("clock_timestamp()"), (user.user_id,))
    yield
    said = "SELECT details ->> 'expires_at' FROM order_audit_log WHERE order_id = orders.id AND action = 'APPROVED'"
    market.execute(placed.format(f"({said})::timestamptz"), (user.user_id,))


class TestItsEnd:
    def test_expired_while_it_was_held(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        hold(market, user, **TOMORROW)

        with ending(market, user):
            assert up(ticker) == ["expired", "idle"]

        assert (order_of(market, user)["status"], awaited(market, user)) == ("expired", [])

    def test_a_quote_of_its_end_meets_nothing(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        hold(market, user, **TOMORROW)

        with ending(market, user):
            ticker.record((USDJPY, "151.000", "151.010", order_of(market, user)["expires_at"]))
            (claimed,) = [row for row in ticker.claim() if row["kind"] == "condition"]
            assert ticker.execute(claimed)["state"] == "expired"

        assert met(market, user) == [False]

    def test_released_by_a_quote_before_its_end_it_is_not_filled_by_one_after_it(
        self, market: Market, ticker: Ticker
    ) -> None:
        user = market.user()
        hold(market, user, **TOMORROW)
        ticker.touch(USDJPY, "151.000", "151.010")

        with ending(market, user):
            market.quote(EURUSD, "1.1000", "1.1002")
            assert ticker.work() == ["expired"]

        assert (met(market, user), market.counts(user)["fills"]) == ([True], 0)

    @pytest.mark.parametrize("how", ["cancel", "cancel all"])
    def test_canceled_though_its_condition_is_queued(self, market: Market, ticker: Ticker, how: str) -> None:
        user = market.user()
        order_id = hold(market, user)["order_id"]
        ticker.touch(USDJPY, "151.000", "151.010")

        if how == "cancel":
            market.cancel(user, order_id)
        else:
            market.cancel_all(user)

        assert (order_of(market, user)["status"], order_of(market, user)["held_quantity"]) == ("canceled", 0)
        assert (awaited(market, user), ticker.work(), ticker.queued()) == ([], ["idle"], 0)

    def test_a_stop_out_cancels_it(self, market: Market) -> None:
        user = market.user(balance=BALANCE_AT_THE_LEVEL)
        market.trade(user, quantity="5")
        hold(market, user, quantity="0.01")
        market.quote(EURUSD, "1.0890", "1.0892")

        with market.database.connect("function_risk") as connection:
            assert stop_out_step(connection, user)["state"] == "done"

        assert (awaited(market, user), {row["status"] for row in market.rows("orders", user)}) == (
            [], {"filled", "canceled"},
        )  # fmt: skip

    def test_it_counts_with_the_working_orders(self, market: Market) -> None:
        user = market.user(risk={"max_working_orders": 1})
        hold(market, user)

        assert hold(market, user)["code"] == "RISK_LIMIT_VIOLATION"


class TestReplacing:
    def replace(self, market: Market, user: User, **changes: object) -> Outcome:
        return market.replace(user, order_of(market, user)["id"], **changes)

    def test_conditions_that_are_left_out_stay_as_met_as_they_are(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        hold(market, user, DOLLAR_UP, POUND_DOWN)
        up(ticker)
        ticker.tick(USDJPY, "150.000", "150.010")
        (first, _) = order_of(market, user)["conditions"]

        self.replace(market, user, quantity="2")

        order = order_of(market, user)
        assert (order["conditions"][0], order["held_quantity"]) == (first, 2)
        assert (met(market, user), awaited(market, user)) == ([True, False], [2])
        assert ticker.tick(GBPUSD, "1.2390", "1.2394") == ["filled"]
        assert [row["status"] for row in market.rows("orders", user)] == ["replaced", "filled"]

    def test_new_ones_take_the_place_of_all(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        hold(market, user, DOLLAR_UP, POUND_DOWN)
        up(ticker)

        replaced = self.replace(market, user, conditions=[when(AAPL, "bid", "above", "155.00")])

        assert (replaced["outcome"], met(market, user)) == ("new", [False])
        assert ticker.tick(AAPL, "155.00", "155.02") == ["filled"]

    def test_new_ones_that_are_met_now_release_it(self, market: Market) -> None:
        user = market.user()
        hold(market, user)

        assert self.replace(market, user, conditions=[when(USDJPY, "bid", "below", "150.000")])["outcome"] == "filled"
        assert event_types(market, user) == ["order.new", "order.replaced", "order.condition_met", "order.filled"]

    def test_taken_away_it_works(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        hold(market, user, order_type="limit", limit_price="1.0950")

        assert self.replace(market, user, conditions=None)["outcome"] == "new"

        assert (order_of(market, user)["conditions"], awaited(market, user)) == (None, [])
        assert ticker.tick(EURUSD, "1.0940", "1.0942") == ["filled"]

    def test_an_order_without_any_gets_some(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        market.place(user, limit_price="1.0950")

        self.replace(market, user, conditions=[DOLLAR_UP])

        assert ticker.tick(EURUSD, "1.0940", "1.0942") == []
        assert up(ticker) == ["filled"]

    def test_a_market_order_keeps_some(self, market: Market) -> None:
        user = market.user()
        hold(market, user)

        with raises_sqlstate("TR006") as caught:
            self.replace(market, user, conditions=None)

        assert details_of(caught.value)["field"] == "conditions"

    def test_a_market_order_that_waits_for_its_quote(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        hold(market, user)
        market.quote(EURUSD, "1.1000", "1.1002", stale_time())
        up(ticker)
        market.quote(EURUSD, "1.1004", "1.1006")

        # its conditions are met: what replaces it is filled by the quote of now
        assert self.replace(market, user, quantity="2")["execution_price"] == Decimal("1.1006")

    def test_a_market_order_that_waits_for_its_market_to_open(self, market: Market, ticker: Ticker) -> None:
        user = market.user(risk={"max_position_size": None})
        hold(market, user, symbol=AAPL, quantity="10")
        market.close("XNYS")
        up(ticker)

        assert self.replace(market, user, quantity="20")["outcome"] == "new"
        market.execute("UPDATE market_calendars SET always_open = true WHERE name = 'XNYS'")

        # its conditions are met: what replaces it takes the next quote too
        assert ticker.tick(AAPL, "149.80", "149.82") == ["filled"]


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"conditions": []}, "conditions"),
            ({"conditions": [DOLLAR_UP] * 5}, "conditions"),
            ({"conditions": {}}, "conditions"),
            ({"conditions": [DOLLAR_UP | {"met_at": "2030-01-01T00:00:00Z"}]}, "conditions"),
            ({"conditions": [DOLLAR_UP, DOLLAR_UP | {"symbol": "NONE"}]}, "conditions.1.symbol"),
            ({"conditions": [DOLLAR_UP | {"watch": "mid"}]}, "conditions.0.watch"),
            ({"conditions": [DOLLAR_UP | {"direction": "above"}]}, "conditions.0.direction"),
            ({"conditions": [DOLLAR_UP | {"level": "151.0005"}]}, "conditions.0.level"),
            ({"conditions": [DOLLAR_UP | {"level": "-1"}]}, "conditions.0.level"),
            ({"conditions": [DOLLAR_UP | {"level": "0"}]}, "conditions.0.level"),
            ({"order_type": "trailing_stop", "trail_amount": "0.0020"}, "conditions"),
            ({"order_type": "limit", "limit_price": "1.05", "time_in_force": "ioc"}, "time_in_force"),
            ({"order_type": "limit", "limit_price": "1.05", "time_in_force": "fok"}, "time_in_force"),
            ({"order_type": "limit", "limit_price": "1.05", "time_in_force": "cls"}, "time_in_force"),
            ({"time_in_force": "cls"}, "time_in_force"),
            ({"order_type": "limit", "limit_price": "1.05", "post_only": True}, "post_only"),
            ({"stop_loss": "1.0500"}, "stop_loss"),
            ({"take_profit": "1.2000"}, "take_profit"),
        ],
    )
    def test_what_cannot_be_held(self, market: Market, fields: dict[str, object], field: str) -> None:
        user = market.user()
        given = {"order_type": "market", "limit_price": None, "time_in_force": "gtc", "conditions": [DOLLAR_UP]}

        with raises_sqlstate("TR002" if field.endswith("symbol") else "TR006") as caught:
            market.place(user, **given | fields)

        assert (details_of(caught.value)["field"], market.counts(user)["orders"]) == (field, 0)

    def test_without_a_quote_to_judge_a_market_order_by(self, market: Market) -> None:
        market.quote(EURUSD, "1.1000", "1.1002", stale_time())

        with raises_sqlstate("TR004"):
            hold(market, market.user())

    def test_orders_of_a_group(self, market: Market) -> None:
        with raises_sqlstate("TR006") as caught:
            place_linked(market, linked_request(market.user(), "oco", leg(), leg(conditions=[DOLLAR_UP])))

        assert details_of(caught.value)["field"] == "conditions"

    @pytest.mark.parametrize("procedure", ["execute_order_atomic", "accept_order"])
    def test_what_executes_at_once_holds_nothing(self, market: Market, procedure: str) -> None:
        with raises_sqlstate("TR006") as caught:
            send(market.trader, order_request(market.user(), conditions=[DOLLAR_UP]), procedure)

        assert details_of(caught.value)["field"] == "conditions"


class TestRaces:
    @pytest.mark.parametrize("_turn", range(3))
    def test_a_cancel_against_the_condition(self, market: Market, ticker: Ticker, _turn: int) -> None:
        user = market.user()
        order_id = hold(market, user)["order_id"]
        ticker.touch(USDJPY, "151.000", "151.010")
        (claimed,) = ticker.claim()
        before = deadlocks(market)

        told = at_once(market, [partial(execute, market, claimed, HOLDER), partial(cancel, user, order_id)])

        assert sorted(told) in (["TR009", "filled"], ["canceled", "idle"])
        assert (order_of(market, user)["status"], deadlocks(market)) in (("filled", before), ("canceled", before))
        assert (awaited(market, user), ticker.queued()) == ([], 0)

    def test_two_workers_on_the_two_conditions_of_one_order(self, market: Market, ticker: Ticker) -> None:
        # given both queued, and two workers that have each of them, the first one late
        user = market.user()
        hold(market, user, DOLLAR_UP, when(USDJPY, "bid", "above", "150.500"))
        ticker.touch(USDJPY, "151.000", "151.010")
        late = ticker.claim(UUID(int=7), lease_ms=0)
        claimed = ticker.claim(UUID(int=8))

        told = at_once(
            market,
            [partial(execute, market, row, UUID(int=7)) for row in late]
            + [partial(execute, market, row, UUID(int=8)) for row in claimed],
        )

        assert sorted(told) == ["filled", "lost", "lost", "new"]
        assert (len(market.rows("fills", user)), ticker.queued()) == (1, 0)

    def test_a_worker_that_dies_on_the_way_has_done_nothing(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        hold(market, user)
        ticker.touch(USDJPY, "151.000", "151.010")
        (claimed,) = ticker.claim(lease_ms=0)

        with ticker.triggers.transaction(force_rollback=True):
            assert ticker.execute(claimed)["state"] == "filled"
        assert (met(market, user), awaited(market, user), ticker.queued()) == ([False], [1], 1)

        assert ticker.work() == ["filled"]


def execute(market: Market, claimed: dict[str, Any], holder: UUID, _connection: psycopg.Connection[Any]) -> str:
    with market.database.connect("function_triggers") as connection:
        return call(connection, "execute_trigger", execution_request(claimed, holder))["state"]


def cancel(user: User, order_id: str, connection: psycopg.Connection[Any]) -> str:
    try:
        send(connection, keyed_request(user, order_id=order_id), "cancel_order")
    except psycopg.Error as error:
        return error.sqlstate or repr(error)
    return "canceled"


class TestBooks:
    @pytest.mark.parametrize(
        ("broken", "problem"),
        [
            ("DELETE FROM order_conditions", "no quote meets its condition 1"),
            ("UPDATE order_conditions SET symbol = 'EURUSD'", "no quote meets its condition 1"),
            ("UPDATE order_conditions SET account_id = uuidv7()", "no quote meets its condition 1"),
            ("UPDATE order_conditions SET level = 1", "no quote meets its condition 1"),
            ("UPDATE order_conditions SET watch = 'bid_falls'", "no quote meets its condition 1"),
            ("UPDATE order_conditions SET place = place + 1", "a quote may meet a condition that it does not wait for"),
            (
                "INSERT INTO order_conditions SELECT user_id, uuidv7(), account_id, order_id, 9, symbol, watch, 1 "
                "FROM order_conditions",
                "a quote may meet a condition that it does not wait for",
            ),
            (
                "UPDATE orders SET held_quantity = 0 WHERE conditions IS NOT NULL AND status = 'new'",
                "0 of 1 left is held, waiting for conditions: t",
            ),
            (
                "UPDATE orders SET trigger_price = 1 WHERE conditions IS NOT NULL AND status = 'new'",
                "1 of 1 left is held, waiting for conditions: t",
            ),
            (
                "UPDATE orders SET conditions = jsonb_set(conditions, '{0,met_at}', '\"2030-01-01T00:00:00Z\"') "
                "WHERE conditions IS NOT NULL AND status = 'new'",
                "1 of 1 left is held, waiting for conditions: f",
            ),
            (
                "UPDATE orders SET filled_quantity = 0.5 WHERE conditions IS NOT NULL AND status = 'new'",
                "it became new before its conditions were met",
            ),
            (
                "UPDATE orders SET status = 'triggered' WHERE conditions IS NOT NULL AND status = 'new'",
                "it became triggered before its conditions were met",
            ),
        ],
    )
    def test_tell_what_is_out_of_order(self, market: Market, broken: str, problem: str) -> None:
        hold(market, market.user())

        with market.owner.transaction(force_rollback=True):
            assert market.owner.execute(broken.encode()).rowcount > 0
            faults = market.book_faults()

        assert {fault[0] for fault in faults} == {"I3"}
        assert any(problem in said for _, _, said in faults), faults

    def test_the_audit_replays_its_life(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        order_id = hold(market, user, POUND_DOWN, DOLLAR_UP)["order_id"]
        up(ticker)

        (replay,) = market.execute("SELECT replay_order(%s)", (order_id,))[0]

        told = "\n".join(replay_lines(replay))
        rebuilt = [condition["met_at"] is not None for condition in replay["order"]["rebuilt"]["conditions"]]
        assert (rebuilt, replay["order"]["differences"]) == ([False, True], [])
        assert "CONDITION_MET  new -> new  by platform, told by event 3" in told
        assert "place 2" in told

    def test_what_waits_is_found_by_index(self, market: Market, ticker: Ticker) -> None:
        """Among many that wait, a quote reads the rows that it meets."""
        user = market.user()
        hold(market, user)
        market.execute(
            "INSERT INTO order_conditions SELECT user_id, uuidv7(), account_id, order_id, 1 + n, symbol, watch, "
            "200 + n / 1000.0 FROM order_conditions CROSS JOIN generate_series(1, 20000) AS n"
        )
        market.execute("ANALYZE order_conditions")
        before = reads(market)

        touched = ticker.touch(USDJPY, "151.000", "151.010")
        ticker.prices.execute("SELECT pg_stat_force_next_flush()")

        assert (touched, 0 < reads(market) - before < 100) == (1, True)
        market.execute("DELETE FROM order_conditions WHERE place > 1")


def reads(market: Market) -> int:
    """How many rows of order_conditions were read so far, by scans of the table and by its indexes."""
    market.execute("SELECT pg_stat_force_next_flush()")
    (found,) = market.execute(
        "SELECT (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'order_conditions') + sum(idx_tup_read) "
        "FROM pg_stat_user_indexes WHERE relname = 'order_conditions'"
    )
    return int(found[0])
