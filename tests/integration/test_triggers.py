"""What a price touches: which orders and exits, at what price they are filled, and what is refused by then."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.orders import Market, at_once, keyed_request, raises_sqlstate, send
from tests.kit.ticks import Ticker, call, execution_request

EURUSD = "EURUSD"
# EURUSD stands at 1.1000/1.1002. Each order waits at its level; the quote before does not touch it, the one after does.
# order type, side, its prices, quote that leaves it, quote that touches it, price of its fill
TOUCHES = [
    ("limit", "buy", {"limit_price": "1.0950"}, ("1.0949", "1.0951"), ("1.0947", "1.0950"), "1.0950"),
    ("limit", "sell", {"limit_price": "1.1050"}, ("1.1049", "1.1051"), ("1.1050", "1.1052"), "1.1050"),
    ("stop", "buy", {"stop_price": "1.1050"}, ("1.1047", "1.1049"), ("1.1048", "1.1050"), None),
    ("stop", "sell", {"stop_price": "1.0950"}, ("1.0951", "1.0953"), ("1.0950", "1.0952"), None),
    ("market_if_touched", "buy", {"stop_price": "1.0950"}, ("1.0949", "1.0951"), ("1.0948", "1.0950"), None),
    ("market_if_touched", "sell", {"stop_price": "1.1050"}, ("1.1049", "1.1051"), ("1.1050", "1.1052"), None),
]


NEW_YORK, TOKYO = "America/New_York", "Asia/Tokyo"
SESSIONS = [
    ("FX", NEW_YORK, "2027-03-07 17:00", "2027-03-12 17:00"),
    ("FX", NEW_YORK, "2027-03-14 17:00", "2027-03-19 17:00"),
    ("FX", NEW_YORK, "2027-11-07 17:00", "2027-11-12 17:00"),
    ("FX", NEW_YORK, "2027-11-21 17:00", "2027-11-26 13:00"),
    ("XTKS", TOKYO, "2027-03-11 09:00", "2027-03-11 11:30"),
    ("XTKS", TOKYO, "2027-03-11 12:30", "2027-03-11 15:30"),
    ("XTKS", TOKYO, "2027-03-12 09:00", "2027-03-12 11:30"),
    ("XTKS", TOKYO, "2027-03-12 12:30", "2027-03-12 15:30"),
]
# calendar, zone, when an order is placed, when its day ends
DAYS = [
    ("FX", NEW_YORK, "2027-03-11 16:59", "03-11 17:00"),
    ("FX", NEW_YORK, "2027-03-11 17:00", "03-12 17:00"),
    ("FX", NEW_YORK, "2027-03-12 16:59:59", "03-12 17:00"),
    ("FX", NEW_YORK, "2027-03-12 17:00", "03-15 17:00"),
    ("FX", NEW_YORK, "2027-03-14 01:30", "03-15 17:00"),
    ("FX", NEW_YORK, "2027-03-14 17:00", "03-15 17:00"),
    ("FX", NEW_YORK, "2027-11-07 01:30", "11-08 17:00"),
    ("FX", NEW_YORK, "2027-11-26 09:00", "11-26 13:00"),
    ("XTKS", TOKYO, "2027-03-11 08:00", "03-11 15:30"),
    ("XTKS", TOKYO, "2027-03-11 10:00", "03-11 15:30"),
    ("XTKS", TOKYO, "2027-03-11 12:00", "03-11 15:30"),
    ("XTKS", TOKYO, "2027-03-11 15:29", "03-11 15:30"),
    ("XTKS", TOKYO, "2027-03-11 15:30", "03-12 15:30"),
]


def prices(given: dict[str, str]) -> dict[str, object]:
    return {"limit_price": None, **given}


@pytest.fixture
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    """A database of its own, because a price touches whatever waits; its books must hold in the end."""
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def ticker(market: Market) -> Iterator[Ticker]:
    with Ticker.opened(market) as ticker:
        yield ticker


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def order_of(market: Market, user: User) -> dict[str, Any]:
    (order,) = [row for row in market.rows("orders", user) if row["order_type"] != "market"]
    return order


class TestWhatTouches:
    @pytest.mark.parametrize(("order_type", "side", "given", "leaves", "touches", "price"), TOUCHES)
    def test_it_waits_for_its_side_of_the_quote(
        self, market: Market, ticker: Ticker, order_type: str, side: str, given: dict[str, str],
        leaves: tuple[str, str], touches: tuple[str, str], price: str | None,
    ) -> None:  # fmt: skip
        user = market.user()
        market.place(user, order_type=order_type, side=side, **prices(given))

        assert ticker.tick(EURUSD, *leaves) == []
        assert ticker.tick(EURUSD, *touches) == ["filled"]

        order = order_of(market, user)
        side_of_quote = Decimal(touches[1] if side == "buy" else touches[0])
        assert (order["status"], order["filled_quantity"], order["leaves_quantity"]) == ("filled", 1, 0)
        if price is not None:
            assert (order["average_price"], order["slippage"]) == (Decimal(price), 0)
        else:
            # what is filled at market slips against its owner from the quote, not from its level
            slip = order["average_price"] - side_of_quote
            assert (slip if side == "buy" else -slip) == order["slippage"] > 0

    @pytest.mark.parametrize(
        ("side", "limit", "gap", "filled"),
        [
            # the gap cases of the reference's worked cases, moved to EURUSD's scale
            ("buy", "1.0905", ("1.08948", "1.08950"), "1.0895"),
            ("sell", "1.1115", ("1.1125", "1.11252"), "1.1125"),
        ],
    )
    def test_a_limit_takes_a_favourable_gap(
        self, market: Market, ticker: Ticker, side: str, limit: str, gap: tuple[str, str], filled: str
    ) -> None:
        user = market.user()
        market.place(user, side=side, limit_price=limit)

        ticker.tick(EURUSD, *gap)

        assert order_of(market, user)["average_price"] == Decimal(filled)

    def test_a_stop_fills_at_the_first_price_through_it_never_at_its_own_level(
        self, market: Market, ticker: Ticker
    ) -> None:
        user = market.user()
        market.place(user, order_type="stop", side="sell", limit_price=None, stop_price="1.0950")

        ticker.tick(EURUSD, "1.0700", "1.0702")

        assert order_of(market, user)["average_price"] < Decimal("1.0700")

    def test_a_repeated_quote_touches_once(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        market.place(user, limit_price="1.0950")
        now = datetime.now(UTC)

        touched = [ticker.record((EURUSD, "1.0947", "1.0949", now))["touched"] for _ in range(3)]

        assert touched == [1, 0, 0]
        assert (ticker.work(), ticker.work()) == (["filled"], [])
        assert len(market.rows("fills", user)) == 1

    def test_a_late_quote_touches_nothing(self, market: Market, ticker: Ticker) -> None:
        market.place(market.user(), limit_price="1.0950")
        now = datetime.now(UTC)
        ticker.record((EURUSD, "1.1000", "1.1002", now))

        late = ticker.record((EURUSD, "1.0900", "1.0902", now - timedelta(seconds=1)))

        assert (late["ignored"], late["touched"]) == (1, 0)

    def test_a_quote_that_is_too_old_touches_nothing(self, market: Market, ticker: Ticker) -> None:
        market.place(market.user(), limit_price="1.0950")
        market.execute("DELETE FROM quotes")

        old = ticker.record((EURUSD, "1.0900", "1.0902", datetime.now(UTC) - timedelta(hours=1)))

        assert (old["accepted"], old["touched"]) == (1, 0)

    def test_each_quote_of_a_batch_is_looked_at_in_the_order_of_time(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        market.place(user, limit_price="1.0950")
        now = datetime.now(UTC)
        dip, back = (EURUSD, "1.0940", "1.0942", now), (EURUSD, "1.1000", "1.1002", now + timedelta(milliseconds=1))

        ticker.record(back, dip)
        ticker.work()

        assert order_of(market, user)["average_price"] == Decimal("1.0942")

    def test_a_closed_market_touches_nothing(self, market: Market, ticker: Ticker) -> None:
        market.place(market.user(), limit_price="1.0950")
        market.close("FX")

        assert ticker.touch(EURUSD, "1.0940", "1.0942") == 0

    def test_a_closed_market_that_is_always_traded_in_slips_as_it_does_at_the_market(
        self, market: Market, ticker: Ticker
    ) -> None:
        # given a position with a stop loss, and a stop of its own
        market.close("FX")
        market.execute("UPDATE platform_settings SET trade_always = true")
        user = market.user()
        opening = market.trade(user, stop_loss="1.0950")
        market.place(user, side="sell", order_type="stop", limit_price=None, stop_price="1.0950")

        # when a price touches both
        assert ticker.tick(EURUSD, "1.0950", "1.0952") == ["filled", "filled"]

        # then they slip by the maximum of 0.6 pips, twice, as what was bought at the market
        assert [row["slippage"] for row in market.rows("orders", user)] == [opening["slippage"]] * 3
        assert opening["slippage"] == Decimal("0.00012")

    def test_the_fill_is_at_the_quote_that_touched_whatever_came_after(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        market.place(user, limit_price="1.0950")

        ticker.touch(EURUSD, "1.0940", "1.0942")
        market.quote(EURUSD, "1.1000", "1.1002")
        market.execute("UPDATE quotes SET source = 'another' WHERE symbol = %s", (EURUSD,))
        ticker.work()

        executed, filled = market.audit(user, order_of(market, user)["id"])[-2:]
        assert order_of(market, user)["average_price"] == Decimal("1.0942")
        assert (executed["action"], filled["action"]) == ("EXECUTED", "FILLED")
        assert Decimal(str(executed["details"]["ask"])) == Decimal("1.0942")
        assert executed["details"]["source"] == "test"


class TestTriggeredFirst:
    def test_a_stop_limit_is_triggered_then_waits_for_its_limit(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        market.place(user, order_type="stop_limit", stop_price="1.1050", limit_price="1.1060")

        through = ticker.tick(EURUSD, "1.1070", "1.1072")
        states = [order_of(market, user)["status"]]
        back = ticker.tick(EURUSD, "1.1055", "1.1057")
        states.append(order_of(market, user)["status"])

        assert (through, back, states) == (["triggered"], ["filled"], ["triggered", "filled"])
        assert order_of(market, user)["average_price"] == Decimal("1.1057")
        events = [row["event_type"] for row in sorted(market.rows("events", user), key=lambda row: row["sequence"])]
        assert events[-3:] == ["order.new", "order.triggered", "order.filled"]

    def test_a_quote_that_touches_both_its_prices_fills_it_at_once(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        market.place(user, order_type="stop_limit", stop_price="1.1050", limit_price="1.1060")

        assert ticker.tick(EURUSD, "1.1053", "1.1055") == ["filled"]
        assert [row["status"] for row in market.audit(user, order_of(market, user)["id"])] == [
            "pending_new", "new", "triggered", "triggered", "filled",
        ]  # fmt: skip

    def test_a_limit_if_touched(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        market.place(user, order_type="limit_if_touched", stop_price="1.0950", limit_price="1.0940")

        assert ticker.tick(EURUSD, "1.0947", "1.0949") == ["triggered"]
        assert ticker.tick(EURUSD, "1.0937", "1.0939") == ["filled"]
        assert order_of(market, user)["average_price"] == Decimal("1.0939")


class TestDepth:
    def test_a_large_limit_order_is_filled_in_parts(self, market: Market, ticker: Ticker) -> None:
        """EURUSD trades 2,500,000 lots a day: 28.93 in a second."""
        user = market.user(balance="1000000", risk={"max_position_size": None})
        market.place(user, quantity="50", limit_price="1.0950")

        states = ticker.tick(EURUSD, "1.0940", "1.0942") + ticker.tick(EURUSD, "1.0938", "1.0940")

        order = order_of(market, user)
        fills = sorted(market.rows("fills", user), key=lambda row: row["transact_time"])
        assert states == ["partially_filled", "filled"]
        assert Decimal(market.last_payload(user)["orders"][0]["limit_price"]) == Decimal("1.0950")
        told = sorted(market.rows("events", user), key=lambda row: row["sequence"])
        assert [row["event_type"] for row in told[-2:]] == ["order.partial", "order.filled"]
        assert [(fill["quantity"], fill["price"]) for fill in fills] == [
            (Decimal("28.93"), Decimal("1.0942")), (Decimal("21.07"), Decimal("1.0940")),
        ]  # fmt: skip
        weighted = sum(fill["quantity"] * fill["price"] for fill in fills) / 50
        assert order["average_price"] == weighted
        assert order["status"] == "filled"
        # one order, one position on a hedging account too
        (position,) = market.rows("positions", user)
        assert (position["quantity"], position["entry_price"]) == (50, weighted)

    def test_the_smallest_lot_stands_at_every_quote(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        market.execute("UPDATE instruments SET daily_volume = 1 WHERE symbol = %s", (EURUSD,))
        market.place(user, limit_price="1.0950", quantity="0.02")

        states = ticker.tick(EURUSD, "1.0947", "1.0949") + ticker.tick(EURUSD, "1.0946", "1.0948")

        assert states == ["partially_filled", "filled"]

    def test_in_parts_it_costs_the_commission_of_one(self, market: Market, ticker: Ticker) -> None:
        """578.7 shares stand at a quote; one such part alone costs 0.018 x 578.7 = 10.4166."""
        user = market.user(tier="silver")
        market.place(user, symbol="AAPL", quantity="2314.8", limit_price="149.00")

        states = [state for cents in range(4) for state in ticker.tick("AAPL", f"148.8{cents}", f"148.9{cents}")]

        order = order_of(market, user)
        assert states == ["partially_filled"] * 3 + ["filled"]
        assert order["commission"] == Decimal("41.67")
        assert sum(fill["commission"] for fill in market.rows("fills", user)) == order["commission"]

    def test_ioc_takes_what_is_there_and_cancels_the_rest(self, market: Market) -> None:
        user = market.user(balance="1000000")

        placed = market.place(user, quantity="50", limit_price="1.2", time_in_force="ioc")

        assert (placed["outcome"], placed["filled_quantity"]) == ("canceled", Decimal("28.93"))
        assert market.audit(user, placed["order_id"])[-1]["reason"] == "It could not be filled at once"

    @pytest.mark.parametrize(
        ("quantity", "limit", "outcome"),
        [("28.93", "1.2", "filled"), ("28.94", "1.2", "canceled"), ("1", "1.05", "canceled")],
    )
    def test_fok_takes_all_or_nothing(self, market: Market, quantity: str, limit: str, outcome: str) -> None:
        user = market.user(balance="1000000")

        placed = market.place(user, quantity=quantity, limit_price=limit, time_in_force="fok")

        assert placed["outcome"] == outcome
        assert len(market.rows("fills", user)) == (1 if outcome == "filled" else 0)


class TestRefusedByThen:
    def test_without_margin_it_is_rejected_with_its_reason(self, market: Market, ticker: Ticker) -> None:
        user = market.user(balance="1500")
        market.place(user, limit_price="1.0950")
        market.trade(user, quantity="1")

        assert ticker.tick(EURUSD, "1.0947", "1.0949") == ["rejected"]

        order = order_of(market, user)
        last = market.audit(user, order["id"])[-1]
        assert (order["status"], order["failure_code"]) == ("rejected", "INSUFFICIENT_MARGIN")
        assert (last["action"], last["reason"]) == ("REJECTED", order["failure_reason"])
        assert market.last_event(user)["event_type"] == "order.rejected"

    def test_the_margin_is_whose_price_came_first(self, market: Market, ticker: Ticker) -> None:
        """In one batch, too, and whoever was placed first."""
        user = market.user(balance="1500")
        for symbol, level in ((EURUSD, "1.0950"), ("GBPUSD", "1.2450")):
            market.place(user, symbol=symbol, limit_price=level)
        now = datetime.now(UTC)

        ticker.record(
            (EURUSD, "1.0947", "1.0949", now + timedelta(milliseconds=1)), ("GBPUSD", "1.2447", "1.2449", now)
        )
        ticker.work()

        placed_first, placed_last = sorted(market.rows("orders", user), key=lambda row: row["created_at"])
        assert (placed_first["status"], placed_last["status"]) == ("rejected", "filled")

    def test_who_may_not_trade_any_more_is_rejected(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        market.place(user, limit_price="1.0950")
        market.execute("UPDATE profiles SET account_status = 'suspended' WHERE id = %s", (user.user_id,))

        assert ticker.tick(EURUSD, "1.0947", "1.0949") == ["rejected"]
        assert order_of(market, user)["failure_code"] == "ACCOUNT_NOT_ACTIVE"

    def test_an_order_in_what_is_not_traded_any_more_is_rejected_and_a_position_stays(
        self, market: Market, ticker: Ticker
    ) -> None:
        user = market.user()
        market.trade(user, quantity="1", stop_loss="1.0950")
        market.place(user, limit_price="1.0950")
        market.execute("UPDATE instruments SET is_active = false WHERE symbol = %s", (EURUSD,))

        assert sorted(ticker.tick(EURUSD, "1.0940", "1.0942")) == ["idle", "rejected"]

        (order,) = [row for row in market.rows("orders", user) if row["order_type"] == "limit"]
        assert (order["failure_code"], order["failure_reason"]) == ("TRADING_HALTED", "EURUSD is not traded any more.")
        assert [row["status"] for row in market.rows("positions", user)] == ["open"]

    def test_a_slip_beyond_what_is_allowed(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        market.place(user, order_type="stop", limit_price=None, stop_price="1.1050", max_slippage="0", quantity="1")

        assert ticker.tick(EURUSD, "1.1050", "1.1052") == ["rejected"]
        assert order_of(market, user)["failure_code"] == "SLIPPAGE_EXCEEDED"

    def test_refused_at_the_price_that_touched_it_as_it_came(self, market: Market) -> None:
        """Its own price leaves the margin, the spread of the quote does not."""
        user = market.user(balance="1100.30")

        placed = market.place(user, limit_price="1.1002", quantity="1")

        assert (placed["outcome"], placed["code"]) == ("rejected", "INSUFFICIENT_MARGIN")

    def test_reduce_only_takes_what_is_held_and_cancels_the_rest(self, market: Market, ticker: Ticker) -> None:
        user = market.user(position_mode="netting")
        market.trade(user, quantity="2")
        market.place(user, side="sell", quantity="2", limit_price="1.1050", reduce_only=True)
        market.trade(user, side="sell", quantity="0.5")

        assert ticker.tick(EURUSD, "1.1050", "1.1052") == ["canceled"]

        order = order_of(market, user)
        assert (order["filled_quantity"], order["leaves_quantity"]) == (Decimal("1.5"), 0)
        assert all(position["status"] == "closed" for position in market.rows("positions", user))


class TestExits:
    def opened(self, market: Market, side: str = "buy", **exits: str) -> tuple[User, UUID]:
        user = market.user()
        return user, UUID(market.trade(user, side=side, quantity="1", **exits)["position_id"])

    @pytest.mark.parametrize(
        ("side", "exits", "leaves", "touches", "component"),
        [
            ("buy", {"stop_loss": "1.0950"}, ("1.0951", "1.0953"), ("1.0950", "1.0952"), "stop_loss"),
            ("buy", {"take_profit": "1.1050"}, ("1.1049", "1.1051"), ("1.1050", "1.1052"), "take_profit"),
            ("sell", {"stop_loss": "1.1050"}, ("1.1047", "1.1049"), ("1.1048", "1.1050"), "stop_loss"),
            ("sell", {"take_profit": "1.0950"}, ("1.0949", "1.0951"), ("1.0948", "1.0950"), "take_profit"),
        ],
    )
    def test_a_position_leaves_at_its_level(
        self, market: Market, ticker: Ticker, side: str, exits: dict[str, str], leaves: tuple[str, str],
        touches: tuple[str, str], component: str,
    ) -> None:  # fmt: skip
        user, position_id = self.opened(market, side, **exits)

        assert ticker.tick(EURUSD, *leaves) == []
        assert ticker.tick(EURUSD, *touches) == ["filled"]

        (position,) = market.rows("positions", user)
        (closing,) = [row for row in market.rows("orders", user) if row["component_name"] == component]
        touched = Decimal(touches[0] if side == "buy" else touches[1])
        assert (position["id"], position["status"]) == (position_id, "closed")
        if component == "take_profit":
            assert closing["average_price"] == touched
        else:
            worse = touched - closing["average_price"] if side == "buy" else closing["average_price"] - touched
            assert worse == closing["slippage"] > 0
            (executed,) = [row for row in market.audit(user, closing["id"]) if row["action"] == "EXECUTED"]
            assert executed["details"]["slippage"]["after_hours_factor"] == 1

    def test_a_stop_loss_comes_before_a_take_profit_that_the_same_quote_touches(
        self, market: Market, ticker: Ticker
    ) -> None:
        """A short leaves at the ask; a spread that opens can touch both exits only if both stand at one price."""
        user, position_id = self.opened(market, stop_loss="1.0950", take_profit="1.1050")
        market.execute("UPDATE positions SET take_profit = 1.0900 WHERE id = %s", (position_id,))

        ticker.touch(EURUSD, "1.0940", "1.0942")
        ticker.work()

        closing = max(market.rows("orders", user), key=lambda row: row["created_at"])
        assert closing["component_name"] == "stop_loss"

    def test_it_pays_the_commission_of_a_close(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        opening = market.trade(user, symbol="AAPL", quantity="10", stop_loss="140.00")

        assert ticker.tick("AAPL", "139.00", "139.02") == ["filled"]

        assert [row["commission"] for row in market.rows("fills", user)] == [Decimal(opening["commission"])] * 2
        assert Decimal(opening["commission"]) > 0

    def test_the_exits_of_an_order_that_rests_reach_its_position(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        market.place(user, limit_price="1.0950", stop_loss="1.0900", take_profit="1.1000")

        states = ticker.tick(EURUSD, "1.0947", "1.0949") + ticker.tick(EURUSD, "1.1000", "1.1002")

        assert states == ["filled", "filled"]
        (position,) = market.rows("positions", user)
        assert position["status"] == "closed"
        assert position["realized_pnl"] == Decimal("510.00")

    def test_a_position_that_was_closed_meanwhile_stays_as_it_is(self, market: Market, ticker: Ticker) -> None:
        user, position_id = self.opened(market, stop_loss="1.0950")
        ticker.touch(EURUSD, "1.0940", "1.0942")

        market.close_out(user, position_id)

        assert ticker.work() == ["idle"]
        assert len(market.rows("fills", user)) == 2


class TestTime:
    def test_a_gtd_order_expires(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        market.place(user, time_in_force="gtd", expires_at=soon(0.3))

        states: list[str] = []
        give_up = time.monotonic() + 10
        while not states and time.monotonic() < give_up:
            states = ticker.tick("AAPL", "149.98", "150.00")

        order = order_of(market, user)
        assert states == ["expired"]
        assert (order["status"], order["leaves_quantity"]) == ("expired", 0)
        assert market.last_event(user)["event_type"] == "order.expired"

    @pytest.mark.parametrize(
        ("state", "fields"),
        [
            ("partially_filled", {"quantity": "50", "limit_price": "1.1002"}),
            ("triggered", {"order_type": "limit_if_touched", "stop_price": "1.1002"}),
        ],
    )
    def test_so_does_one_that_has_begun(
        self, market: Market, ticker: Ticker, state: str, fields: dict[str, object]
    ) -> None:
        user = market.user(balance=10_000_000, risk={"max_position_size": None})
        assert market.place(user, time_in_force="gtd", expires_at=soon(60), **fields)["outcome"] == state
        ends_at = order_of(market, user)["expires_at"]

        # when its time is up
        market.execute("UPDATE orders SET expires_at = clock_timestamp() WHERE user_id = %s", (user.user_id,))
        assert ticker.tick("AAPL", "149.98", "150.00") == ["expired"]

        assert order_of(market, user)["leaves_quantity"] == 0
        # as the audit has it
        market.execute("UPDATE orders SET expires_at = %s WHERE user_id = %s", (ends_at, user.user_id))

    def test_the_audit_of_a_denied_order_tells_its_end_too(self, market: Market) -> None:
        placed = market.place(market.user(balance="10"), time_in_force="gtd", expires_at=soon(60))

        assert placed["outcome"] == "denied"
        assert market.book_faults() == []

    def test_a_quote_of_its_end_expires_it(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        ends_at = soon(0.5)
        market.place(user, limit_price="1.0950", time_in_force="gtd", expires_at=ends_at)

        # the provider's clock may be ahead by a second
        ticker.record((EURUSD, "1.0940", "1.0942", datetime.fromisoformat(ends_at)))

        assert ticker.work() == ["expired"]

    def test_a_day_order_ends_with_the_session(self, market: Market) -> None:
        user = market.user()
        opens_at = datetime.now(UTC) + timedelta(hours=1)
        market.close("XNYS", opens_at)

        placed = market.place(user, symbol="AAPL", quantity="1", limit_price="140", time_in_force="day")

        assert datetime.fromisoformat(placed["expires_at"]) == opens_at + timedelta(hours=8)

    def test_a_day_of_a_market_that_never_closes_ends_at_five_in_new_york(self, market: Market) -> None:
        (day,) = market.execute(
            "SELECT trading_day_end('CRYPTO', %s), trading_day_end('CRYPTO', %s)",
            (datetime(2026, 7, 1, 20, 59, tzinfo=UTC), datetime(2026, 7, 1, 21, tzinfo=UTC)),
        )
        assert day == (datetime(2026, 7, 1, 21, tzinfo=UTC), datetime(2026, 7, 2, 21, tzinfo=UTC))

    def test_a_trading_day_ends_when_its_market_says_whatever_the_clocks_do(self, market: Market) -> None:
        """FX is closed from Friday to Sunday, 17:00 in New York; Tokyo has a lunch break. Summer begins on 14 March."""
        market.execute("DELETE FROM market_sessions WHERE calendar IN ('FX', 'XTKS')")
        for calendar, zone, opens, closes in SESSIONS:
            market.execute(
                "INSERT INTO market_sessions VALUES (%s, %s::timestamptz, %s::timestamptz)",
                (calendar, f"{opens} {zone}", f"{closes} {zone}"),
            )

        for calendar, zone, at, end in DAYS:
            told = market.execute(
                "SELECT to_char(trading_day_end(%s, %s::timestamptz) AT TIME ZONE %s, 'MM-DD HH24:MI')",
                (calendar, f"{at} {zone}", zone),
            )
            assert told == [(end,)], (calendar, at)


class TestWork:
    """It follows what is touched or due, not what waits."""

    OF_EACH = 2_000
    DUE = ("active_at = clock_timestamp()", "expires_at = clock_timestamp()", "trigger_price = 1.1")

    @pytest.fixture
    def crowd(self, migrated: MigratedTemplate) -> Iterator[Market]:
        """Many orders of each kind and positions with exits, copies of one, none of which is touched or due."""
        scratch = migrated.clone()
        try:
            with Market.opened(scratch) as market:
                user = market.user()
                market.place(user, limit_price="1.0400", time_in_force="gtd", expires_at="2099-01-01T00:00:00Z")
                market.place(user, limit_price=None, order_type="stop", stop_price="1.1800")
                market.place(user, time_in_force="cls")
                market.execute(
                    "UPDATE orders SET active_at = '2098-12-31', expires_at = '2099-01-01' WHERE active_at > now()"
                )
                market.trade(user, stop_loss="1.0500", take_profit="1.1700")
                for table in ("orders", "positions"):
                    market.execute(
                        f"INSERT INTO {table} SELECT (jsonb_populate_record(t, jsonb_build_object('id', uuidv7()))).* "
                        f"FROM {table} AS t CROSS JOIN generate_series(1, %s) WHERE t.status IN ('new', 'open')",
                        (self.OF_EACH,),
                    )
                market.execute("ANALYZE orders, positions")
                yield market
        finally:
            scratch.drop()

    def test_a_quote_reads_what_it_touches_and_what_is_due(self, crowd: Market) -> None:
        with Ticker.opened(crowd) as ticker:

            def read(bid: str, ask: str) -> tuple[int, int]:
                before = [ticker.reads(table) for table in ("orders", "positions")]
                ticker.touch(EURUSD, bid, ask)
                return ticker.reads("orders") - before[0], ticker.reads("positions") - before[1]

            # when a quote comes that touches nothing
            nothing = read("1.1010", "1.1012")
            # and one for which three orders are due: by time, by their end, by price
            for number, due in enumerate(self.DUE):
                crowd.execute(
                    f"UPDATE orders SET {due} WHERE id = (SELECT id FROM orders WHERE order_type = 'limit' "
                    f"AND {due.split()[0]} IS NOT NULL ORDER BY id DESC OFFSET {number} LIMIT 1)"
                )
            three = read("1.0998", "1.1000")

            # then the first reads none of them, the other a few
            assert (nothing, ticker.queued(), three[1]) == ((0, 0), len(self.DUE), 0)
            assert three[0] < 30

            # and of many that end at once each look takes a thousand
            crowd.execute("UPDATE orders SET expires_at = clock_timestamp() WHERE time_in_force = 'gtd'")
            assert [ticker.touch(EURUSD, "1.1010", "1.1012") for _ in range(3)] == [1000, 999, 0]

    def test_nor_does_its_plan_look_at_more_pages_when_more_waits(self, migrated: MigratedTemplate) -> None:
        """No row is read by a plan that walks all of an index to find none, so it is pages that are counted."""
        scratch = migrated.clone()
        try:
            with Market.opened(scratch) as market:
                market.user()
                market.execute(ORDERS_AT_REST, {"count": 10_000})
                market.execute("VACUUM ANALYZE")

                # when one connection looks more often than it plans anew: the first five plans are each for one call
                pages = [pages_of_a_look(market) for _ in range(8)]

                # then it looks at some pages of each index
                assert market.execute("SELECT count(*) FROM trigger_queue") == [(0,)]
                assert max(pages[6:]) < 120, pages
        finally:
            scratch.drop()


# Half of them below and half above the market.
ORDERS_AT_REST = """
    INSERT INTO orders (
        user_id, account_id, symbol, order_type, side, quantity, limit_price, status, leaves_quantity, trigger_watch,
        trigger_price
    )
    SELECT a.user_id, a.id, 'EURUSD', 'limit', l.side, 1, l.level, 'new', 1, l.watch, l.level
    FROM accounts AS a
    CROSS JOIN generate_series(0, %(count)s - 1) AS n
    CROSS JOIN LATERAL (
        SELECT
            CASE n %% 2 WHEN 0 THEN 'buy' ELSE 'sell' END AS side,
            CASE n %% 2 WHEN 0 THEN 'ask_falls' ELSE 'bid_rises' END AS watch,
            1.1 + CASE n %% 2 WHEN 0 THEN -0.01 ELSE 0.01 END * (1 + (n %% 1000) * 0.001) AS level
    ) AS l
"""


def pages_of_a_look(market: Market) -> int:
    """How many pages it takes to look for what the quotes of all symbols touch."""
    market.execute("UPDATE quotes SET quoted_at = clock_timestamp(), received_at = clock_timestamp()")
    ((plan,),) = market.execute(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
        "SELECT queue_touched(ARRAY(SELECT symbol FROM instruments), clock_timestamp())"
    )
    return plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]


class TestWorkers:
    def test_two_workers_do_not_share_a_user(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        for level in ("1.0950", "1.0960"):
            market.place(user, limit_price=level)
        ticker.touch(EURUSD, "1.0940", "1.0942")

        first, second = ticker.claim(UUID(int=1)), ticker.claim(UUID(int=2))

        assert (len(first), second) == (2, [])

    def test_who_waits_longest_comes_first(self, market: Market, ticker: Ticker) -> None:
        late, early = market.user(), market.user()
        market.place(late, limit_price="1.0950")
        market.place(early, limit_price="1.0960")
        ticker.touch(EURUSD, "1.0957", "1.0959")
        ticker.touch(EURUSD, "1.0947", "1.0949")

        claimed = [ticker.claim(UUID(int=n), users=1)[0]["user_id"] for n in (1, 2)]

        assert claimed == [str(early.user_id), str(late.user_id)]

    def test_two_that_claim_at_once_do_not_either(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        for limit in ("1.0950", "1.0960"):
            market.place(user, limit_price=limit)
        ticker.touch(EURUSD, "1.0940", "1.0942")

        # while one claims the first row, another one gets neither it nor the next
        with market.database.connect("function_triggers", autocommit=False) as claiming:
            request = {"holder": str(UUID(int=2)), "users": 1, "limit": 1, "lease_ms": 5000}
            first = call(claiming, "claim_triggers", request)
            assert (len(first), ticker.claim()) == (1, [])
            claiming.commit()

        # nor afterwards, as long as the lease lasts
        assert ticker.claim() == []

    def test_a_lease_that_ran_out_is_taken_over_and_the_first_holder_does_nothing(
        self, market: Market, ticker: Ticker
    ) -> None:
        user = market.user()
        market.place(user, limit_price="1.0950")
        ticker.touch(EURUSD, "1.0940", "1.0942")
        (late,) = ticker.claim(UUID(int=1), lease_ms=0)
        (own,) = ticker.claim(UUID(int=2), lease_ms=0)
        (claimed,) = ticker.claim(UUID(int=2))

        assert [row["attempts"] for row in (late, own, claimed)] == [1, 2, 3]
        assert ticker.execute(late, UUID(int=1))["state"] == "lost"
        assert ticker.execute(own, UUID(int=2))["state"] == "lost"
        assert ticker.execute(claimed, UUID(int=1))["state"] == "lost"
        assert ticker.execute(claimed, UUID(int=2))["state"] == "filled"
        assert ticker.execute(claimed, UUID(int=2))["state"] == "lost"

    def test_many_workers_on_one_row_fill_it_once(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        market.place(user, limit_price="1.0950")
        ticker.touch(EURUSD, "1.0940", "1.0942")
        (claimed,) = ticker.claim()

        def execute(_connection: psycopg.Connection[Any]) -> str:
            with market.database.connect("function_triggers") as connection:
                return call(connection, "execute_trigger", execution_request(claimed))["state"]

        states = at_once(market, [execute] * 8)

        assert sorted(states) == ["filled"] + ["lost"] * 7
        assert len(market.rows("fills", user)) == 1

    @pytest.mark.parametrize("_turn", range(5))
    def test_a_fill_against_a_cancel_is_decided_once(self, market: Market, ticker: Ticker, _turn: int) -> None:
        user = market.user()
        placed = market.place(user, limit_price="1.0950")
        ticker.touch(EURUSD, "1.0940", "1.0942")
        (claimed,) = ticker.claim()

        def fill(_connection: psycopg.Connection[Any]) -> str:
            with market.database.connect("function_triggers") as connection:
                return call(connection, "execute_trigger", execution_request(claimed))["state"]

        def cancel(connection: psycopg.Connection[Any]) -> str:
            try:
                return send(connection, keyed_request(user, order_id=placed["order_id"]), "cancel_order")["outcome"]
            except psycopg.Error as error:
                return error.sqlstate or ""

        told = at_once(market, [fill, cancel])

        assert tuple(told) in {("filled", "TR009"), ("idle", "canceled")}
        assert order_of(market, user)["status"] == ("filled" if told[0] == "filled" else "canceled")
        assert ticker.queued() == 0

    def test_a_stale_quote_of_something_held_leaves_the_row_for_the_next_try(
        self, market: Market, ticker: Ticker
    ) -> None:
        user = market.user()
        market.trade(user, symbol="GBPUSD")
        market.place(user, limit_price="1.0950")
        market.quote("GBPUSD", "1.25", "1.2504", datetime.now(UTC) - timedelta(hours=1))
        ticker.touch(EURUSD, "1.0940", "1.0942")
        (claimed,) = ticker.claim(lease_ms=0)

        with raises_sqlstate("TR004"):
            ticker.execute(claimed)

        market.quote("GBPUSD", "1.25", "1.2504")
        assert ticker.work() == ["filled"]
