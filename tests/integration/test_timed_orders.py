"""Orders for the opening and the close: when they begin, the one quote that they take, and what becomes of the rest."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.orders import Market, Outcome, details_of, raises_sqlstate, stale_time
from tests.kit.ticks import Ticker

AAPL, EURUSD = "AAPL", "EURUSD"
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
# AAPL stands at 149.98/150.00.
SIDES = ("buy", "sell")


@pytest.fixture
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    """A database of its own, because a price touches whatever waits; its books must hold in the end."""
    with Market.checked(migrated) as market:
        # a slip that ten shares show
        market.execute("UPDATE instruments SET slippage_min = 5, slippage_max = 10 WHERE symbol = 'AAPL'")
        yield market
        # its_time_has_come has moved what the audit tells
        market.execute(
            "UPDATE orders AS o SET active_at = (l.details ->> 'active_at')::timestamptz FROM order_audit_log AS l "
            "WHERE l.user_id = o.user_id AND l.order_id = o.id AND l.action = 'APPROVED' AND l.details ? 'active_at'"
        )


@pytest.fixture
def ticker(market: Market) -> Iterator[Ticker]:
    with Ticker.opened(market) as ticker:
        yield ticker


def place(market: Market, user: User, /, **fields: object) -> Outcome:
    """An order for 10 AAPL, at market where it has no limit."""
    given = {"symbol": AAPL, "quantity": "10", "limit_price": None, "time_in_force": "cls"} | fields
    return market.place(user, **{"order_type": "limit" if given["limit_price"] else "market", **given})


def session(market: Market, opens: timedelta, closes: timedelta, *more: timedelta) -> datetime:
    """The sessions of AAPL's exchange, each from now on; what now is."""
    now = datetime.now(UTC)
    market.close("XNYS")
    times = (opens, closes, *more)
    for opens_at, closes_at in zip(times[::2], times[1::2], strict=True):
        market.execute("INSERT INTO market_sessions VALUES ('XNYS', %s, %s)", (now + opens_at, now + closes_at))
    return now


def its_time_has_come(market: Market, at: datetime | None = None) -> datetime:
    """As if the orders had been placed for `at`."""
    at = at or datetime.now(UTC)
    market.execute("UPDATE orders SET active_at = %s WHERE active_at IS NOT NULL", (at,))
    return at


def order_of(market: Market, user: User) -> dict[str, Any]:
    (order,) = [row for row in market.rows("orders", user) if row["active_at"] is not None]
    return order


class TestItsTime:
    def test_the_close_begins_a_minute_before_the_session_ends(self, market: Market) -> None:
        now = session(market, -HOUR, 2 * HOUR)
        user = market.user()

        placed = place(market, user)

        order = order_of(market, user)
        assert placed["outcome"] == "new"
        assert (order["active_at"], order["expires_at"]) == (now + 2 * HOUR - MINUTE, now + 2 * HOUR)
        assert datetime.fromisoformat(placed["active_at"]) == order["active_at"]

    def test_the_opening_is_that_of_the_next_session(self, market: Market) -> None:
        # given another exchange that opens before it
        now = session(market, -HOUR, HOUR, 20 * HOUR, 26 * HOUR, 44 * HOUR, 50 * HOUR)
        market.close("XTKS", now + 2 * HOUR)
        user = market.user()

        place(market, user, time_in_force="opg")

        order = order_of(market, user)
        assert (order["active_at"], order["expires_at"]) == (now + 20 * HOUR, now + 26 * HOUR)

    def test_a_lunch_break_neither_opens_nor_closes_a_day(self, market: Market) -> None:
        now = session(market, -HOUR, HOUR, 2 * HOUR, 5 * HOUR, 23 * HOUR, 25 * HOUR, 26 * HOUR, 29 * HOUR)
        opening, closing = market.user(), market.user()

        place(market, opening, time_in_force="opg")
        place(market, closing)

        assert order_of(market, opening)["active_at"] == now + 23 * HOUR
        assert order_of(market, closing)["active_at"] == now + 5 * HOUR - MINUTE

    def test_while_the_market_is_closed_both_wait_for_its_next_session(self, market: Market) -> None:
        now = session(market, HOUR, 7 * HOUR)
        opening, closing = market.user(), market.user()

        place(market, opening, time_in_force="opg")
        place(market, closing)

        assert order_of(market, opening)["active_at"] == now + HOUR
        assert order_of(market, closing)["active_at"] == now + 7 * HOUR - MINUTE

    @pytest.mark.parametrize("calendar", ["always open", "of a week"])
    def test_a_market_without_a_daily_opening_has_a_close_alone(self, market: Market, calendar: str) -> None:
        if calendar == "of a week":
            session(market, -HOUR, 100 * HOUR, 120 * HOUR, 240 * HOUR)
        user = market.user()

        with raises_sqlstate("TR006") as caught:
            place(market, user, time_in_force="opg")
        assert (details_of(caught.value)["field"], market.counts(user)["orders"]) == ("time_in_force", 0)

    def test_where_sessions_last_for_days_the_close_is_at_five_in_new_york(self, market: Market) -> None:
        session(market, -HOUR, 100 * HOUR)
        user = market.user()

        place(market, user)

        local = market.execute(
            "SELECT (active_at AT TIME ZONE 'America/New_York')::time::text FROM orders WHERE user_id = %s",
            (user.user_id,),
        )
        assert local == [("16:59:00",)]


class TestItsQuote:
    @pytest.mark.parametrize("time_in_force", ["opg", "cls"])
    @pytest.mark.parametrize("side", SIDES)
    def test_a_market_order_takes_the_first_quote(
        self, market: Market, ticker: Ticker, side: str, time_in_force: str
    ) -> None:
        session(market, -HOUR, 2 * HOUR, 20 * HOUR, 26 * HOUR)
        user = market.user()
        place(market, user, side=side, time_in_force=time_in_force)

        assert ticker.tick(AAPL, "151.00", "151.02") == []
        its_time_has_come(market)
        assert ticker.tick(AAPL, "152.00", "152.02") == ["filled"]

        order = order_of(market, user)
        slip = order["average_price"] - Decimal("152.02") if side == "buy" else 152 - order["average_price"]
        assert slip == order["slippage"] > 0

    def test_a_quote_counts_by_its_own_time(self, market: Market, ticker: Ticker) -> None:
        place(market, market.user())
        at = its_time_has_come(market)

        before = ticker.record((AAPL, "151.00", "151.02", at - timedelta(milliseconds=1)))
        there = ticker.record((AAPL, "151.00", "151.02", at))

        assert (before["touched"], there["touched"]) == (0, 1)
        assert ticker.work() == ["filled"]

    @pytest.mark.parametrize(
        ("side", "limit", "quote", "state", "price"),
        [
            ("buy", "150.00", ("149.90", "149.92"), "filled", "149.92"),
            ("buy", "150.00", ("149.98", "150.00"), "filled", "150.00"),
            ("buy", "150.00", ("149.99", "150.01"), "canceled", None),
            ("sell", "150.00", ("150.10", "150.12"), "filled", "150.10"),
            ("sell", "150.00", ("149.99", "150.01"), "canceled", None),
        ],
    )
    def test_a_limit_takes_that_quote_or_is_canceled(
        self, market: Market, ticker: Ticker, side: str, limit: str, quote: tuple[str, str], state: str,
        price: str | None,
    ) -> None:  # fmt: skip
        user = market.user()
        place(market, user, side=side, limit_price=limit)
        its_time_has_come(market)

        assert ticker.tick(AAPL, *quote) == [state]

        order = order_of(market, user)
        assert order["average_price"] == (None if price is None else Decimal(price))
        assert market.last_event(user)["event_type"] == f"order.{state}"

    def test_before_its_time_a_limit_takes_no_quote_however_good(self, market: Market, ticker: Ticker) -> None:
        session(market, -HOUR, 2 * HOUR)
        user = market.user()

        placed = place(market, user, limit_price="160.00")

        assert (placed["outcome"], ticker.tick(AAPL, "140.00", "140.02")) == ("new", [])

    def test_what_the_depth_leaves_is_canceled(self, market: Market, ticker: Ticker) -> None:
        user = market.user(balance="10000000", risk={"max_position_size": None})
        depth = market.execute(
            "SELECT floor(daily_volume / 86400 / quantity_step) * quantity_step FROM instruments WHERE symbol = 'AAPL'"
        )[0][0]
        place(market, user, quantity=str(depth + 1), limit_price="150.00")
        its_time_has_come(market)

        assert ticker.tick(AAPL, "149.90", "149.92") == ["canceled"]

        order = order_of(market, user)
        assert (order["filled_quantity"], order["leaves_quantity"]) == (depth, 0)
        assert market.audit(user, order["id"])[-1]["reason"] == "The close did not fill it"

    def test_a_repeated_quote_is_taken_once(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        place(market, user)
        at = its_time_has_come(market)

        touched = [ticker.record((AAPL, "151.00", "151.02", at))["touched"] for _ in range(3)]

        assert (touched, ticker.work(), ticker.work()) == ([1, 0, 0], ["filled"], [])

    def test_a_closed_market_gives_no_quote(self, market: Market, ticker: Ticker) -> None:
        session(market, HOUR, 7 * HOUR)
        place(market, market.user(), time_in_force="opg")
        its_time_has_come(market)

        assert ticker.touch(AAPL, "151.00", "151.02") == 0

    def test_without_a_quote_it_expires(self, market: Market, ticker: Ticker) -> None:
        session(market, -HOUR, timedelta(milliseconds=500))
        user = market.user()
        place(market, user)

        assert ticker.until_touched(EURUSD, "1.1000", "1.1002") == ["expired"]
        assert order_of(market, user)["status"] == "expired"

    def test_what_it_slips_too_far_rejects_it(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        place(market, user, max_slippage="0")
        its_time_has_come(market)

        assert ticker.tick(AAPL, "151.00", "151.02") == ["rejected"]
        assert order_of(market, user)["failure_code"] == "SLIPPAGE_EXCEEDED"

    def test_canceled_before_its_time(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        placed = place(market, user)
        its_time_has_come(market)
        ticker.touch(AAPL, "151.00", "151.02")

        market.cancel(user, placed["order_id"])

        assert ticker.work() == ["idle"]

    def test_a_crash_leaves_it_as_it_was(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        place(market, user)
        its_time_has_come(market)
        ticker.touch(AAPL, "151.00", "151.02")
        (claimed,) = ticker.claim(lease_ms=0)

        with ticker.triggers.transaction(force_rollback=True):
            assert ticker.execute(claimed)["state"] == "filled"

        assert order_of(market, user)["status"] == "new"
        assert ticker.work() == ["filled"]
        assert len(market.rows("fills", user)) == 1


class TestPlacing:
    def test_its_margin_is_judged_at_the_quote_of_now(self, market: Market) -> None:
        """10 AAPL at 150.00; the account's leverage is 100, the instrument's decides."""
        margin = Decimal(1500) / market.execute("SELECT leverage FROM instruments WHERE symbol = 'AAPL'")[0][0]

        assert place(market, market.user(balance="1"))["code"] == "INSUFFICIENT_MARGIN"
        user = market.user(balance=str(margin + 20))
        placed = place(market, user)
        assert placed["outcome"] == "new"
        approved = market.audit(user, placed["order_id"])[-1]
        assert Decimal(str(approved["details"]["margin"])) == margin

    def test_at_market_it_needs_a_usable_quote(self, market: Market) -> None:
        user = market.user()
        market.quote(AAPL, "149.98", "150.00", stale_time())

        with raises_sqlstate("TR004"):
            place(market, user)
        assert market.counts(user)["orders"] == 0

    @pytest.mark.parametrize(
        ("field", "fields"),
        [
            ("stop_loss", {"stop_loss": "140"}),
            ("take_profit", {"take_profit": "160"}),
            ("limit_price", {"order_type": "limit"}),
            ("stop_price", {"stop_price": "160"}),
            ("time_in_force", {"order_type": "stop", "stop_price": "160"}),
            ("order_type", {"time_in_force": "gtc"}),
            ("expires_at", {"expires_at": "2099-01-01T00:00:00Z"}),
        ],
    )
    def test_what_does_not_fit_is_refused(self, market: Market, field: str, fields: dict[str, object]) -> None:
        user = market.user()

        with raises_sqlstate("TR006") as caught:
            place(market, user, **fields)

        assert (details_of(caught.value)["field"], market.counts(user)["orders"]) == (field, 0)

    def test_a_limit_for_the_close_may_carry_exits(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        place(market, user, limit_price="150.00", stop_loss="140.00")
        its_time_has_come(market)

        ticker.tick(AAPL, "149.90", "149.92")

        assert market.rows("positions", user)[0]["stop_loss"] == 140
