"""Stops that trail: how the mark follows the market, at which level they trigger, and what becomes of the row."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.orders import Market, Outcome, details_of, keyed_request, raises_sqlstate, send, stale_time
from tests.kit.positions import change, change_request
from tests.kit.ticks import Ticker

EURUSD = "EURUSD"
# EURUSD stands at 1.1000/1.1002.
SIDES = ("sell", "buy")
BETTER, BACK = {"sell": ("1.1040", "1.1042"), "buy": ("1.0960", "1.0962")}, ("1.1000", "1.1002")


@pytest.fixture
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    """A database of its own, because a price touches whatever waits; its books must hold in the end."""
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def ticker(market: Market) -> Iterator[Ticker]:
    with Ticker.opened(market) as ticker:
        yield ticker


def place(market: Market, user: User, side: str = "sell", /, **fields: object) -> Outcome:
    trail: Mapping[str, object] = {} if "trail_percent" in fields else {"trail_amount": "0.0020"}
    order_type = "trailing_stop_limit" if "limit_offset" in fields else "trailing_stop"
    return market.place(
        user, **{"order_type": order_type, "side": side, "limit_price": None, "quantity": "1", **trail, **fields}
    )


def order_of(market: Market, user: User) -> dict[str, Any]:
    (order,) = [row for row in market.rows("orders", user) if row["order_type"].startswith("trailing")]
    return order


def trail_of(market: Market, user: User) -> tuple[Decimal, Decimal]:
    """Mark and level."""
    (row,) = market.rows("trailing_levels", user)
    return row["mark"], row["level"]


def read(market: Market, user: User, order_id: str) -> dict[str, Any]:
    row = market.trader.execute("SELECT get_order(%s, %s)", (user.user_id, order_id)).fetchone()
    assert row is not None
    return row[0]


class TestPlacing:
    @pytest.mark.parametrize(
        ("side", "trail", "level"),
        [
            ("sell", {"trail_amount": "0.0020"}, "1.0980"),
            ("buy", {"trail_amount": "0.0020"}, "1.1022"),
            ("sell", {"trail_percent": "1"}, "1.0890"),
            # 1.1002 x 1.01 = 1.111202, between two ticks: the farther
            ("buy", {"trail_percent": "1"}, "1.11121"),
            # 1.1000 x 0.99877 = 1.098647
            ("sell", {"trail_percent": "0.123"}, "1.09864"),
        ],
    )
    def test_it_begins_at_the_quote_of_now(self, market: Market, side: str, trail: dict[str, str], level: str) -> None:
        user = market.user()

        placed = place(market, user, side, **trail)

        assert placed["outcome"] == "new"
        assert trail_of(market, user) == (Decimal("1.1002" if side == "buy" else "1.1000"), Decimal(level))
        shown = read(market, user, placed["order_id"])
        assert (shown["trail_mark"], Decimal(shown["trail_level"])) == (
            "1.10020" if side == "buy" else "1.10000", Decimal(level),
        )  # fmt: skip
        assert (shown["stop_price"], shown["limit_price"]) == (None, None)

    def test_without_a_usable_quote_nothing_is_kept(self, market: Market) -> None:
        user = market.user()
        market.quote(EURUSD, "1.1000", "1.1002", stale_time())

        with raises_sqlstate("TR004"):
            place(market, user)

        assert market.counts(user)["orders"] == 0

    @pytest.mark.parametrize(
        ("field", "fields"),
        [
            ("trail_amount", {"trail_amount": None}),
            ("trail_amount", {"trail_percent": "1", "trail_amount": "0.001"}),
            ("trail_amount", {"trail_amount": "0.000001"}),
            ("trail_amount", {"trail_amount": "0"}),
            ("trail_amount", {"trail_amount": "1.1"}),
            ("trail_percent", {"trail_percent": "100"}),
            ("trail_percent", {"trail_percent": "0"}),
            ("trail_percent", {"order_type": "stop", "trail_amount": None, "trail_percent": "1", "stop_price": "1.09"}),
            ("limit_offset", {"limit_offset": "0.000001"}),
            ("limit_offset", {"limit_offset": "-0.001"}),
            ("limit_offset", {"limit_offset": "1.0980"}),
            ("limit_offset", {"order_type": "trailing_stop_limit"}),
            ("limit_offset", {"order_type": "trailing_stop", "limit_offset": "0.001"}),
            ("stop_price", {"stop_price": "1.09"}),
            ("limit_price", {"limit_price": "1.09"}),
            ("stop_loss", {"stop_loss": "1.2"}),
            ("take_profit", {"take_profit": "1"}),
            ("time_in_force", {"time_in_force": "ioc"}),
        ],
    )
    def test_what_does_not_fit_is_refused(self, market: Market, field: str, fields: dict[str, object]) -> None:
        user = market.user()

        with raises_sqlstate("TR006") as caught:
            place(market, user, **fields)

        assert details_of(caught.value)["field"] == field
        assert market.counts(user)["orders"] == 0

    def test_its_margin_is_judged_at_its_level(self, market: Market) -> None:
        """At 1:100 a lot costs 1,102.20 at the level of a buy and 1,100.20 at the ask."""
        assert place(market, market.user(balance="1102.19"), "buy")["code"] == "INSUFFICIENT_MARGIN"
        assert place(market, market.user(balance="1102.20"), "buy")["outcome"] == "new"

    def test_a_denied_one_leaves_no_level(self, market: Market) -> None:
        user = market.user(balance="10")

        assert place(market, user)["outcome"] == "denied"
        assert market.rows("trailing_levels", user) == []


class TestTheMark:
    @pytest.mark.parametrize("side", SIDES)
    def test_it_follows_what_is_better_and_nothing_else(self, market: Market, ticker: Ticker, side: str) -> None:
        user = market.user()
        place(market, user, side)

        steps: list[Decimal] = []
        for quote in (BETTER[side], ("1.1025", "1.1027") if side == "sell" else ("1.0975", "1.0977"), BETTER[side]):
            assert ticker.tick(EURUSD, *quote) == []
            steps.append(trail_of(market, user)[0])

        best = Decimal(BETTER[side][0] if side == "sell" else BETTER[side][1])
        assert steps == [best] * 3
        assert trail_of(market, user)[1] == best + (Decimal("-0.0020") if side == "sell" else Decimal("0.0020"))

    def test_a_percentage_is_of_the_mark(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        place(market, user, trail_percent="10")

        ticker.tick(EURUSD, "1.2000", "1.2002")

        assert trail_of(market, user) == (Decimal("1.2"), Decimal("1.08"))

    def test_a_quote_that_is_not_taken_moves_nothing(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        now = datetime.now(UTC)
        place(market, user)
        ticker.record((EURUSD, "1.1001", "1.1003", now))

        ticker.record((EURUSD, "1.1090", "1.1092", now - timedelta(seconds=1)))
        ticker.record((EURUSD, "1.1090", "1.1092", now))

        assert trail_of(market, user)[0] == Decimal("1.1001")

    def test_a_closed_market_moves_nothing(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        place(market, user)
        market.close("FX")

        ticker.touch(EURUSD, "1.1090", "1.1092")

        assert trail_of(market, user)[0] == Decimal("1.1000")

    def test_a_quote_that_is_too_old_moves_nothing(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        place(market, user)
        market.execute("DELETE FROM quotes WHERE symbol = 'EURUSD'")

        ticker.record((EURUSD, "1.1090", "1.1092", stale_time()))

        assert trail_of(market, user)[0] == Decimal("1.1000")

    def test_every_quote_of_a_batch_counts(self, market: Market, ticker: Ticker) -> None:
        """The peak between two quotes raises the level that the last one touches."""
        user = market.user()
        place(market, user)
        now = datetime.now(UTC)
        peak, after = (EURUSD, "1.1050", "1.1052", now), (EURUSD, "1.1029", "1.1031", now + timedelta(milliseconds=1))

        ticker.record(after, peak)

        assert ticker.work() == ["filled"]
        assert order_of(market, user)["stop_price"] == Decimal("1.1030")

    def test_the_feed_does_not_wait_for_an_account(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        place(market, user)
        with market.database.connect() as other, other.transaction():
            other.execute("SELECT FROM accounts WHERE user_id = %s FOR UPDATE", (user.user_id,))
            other.execute("SELECT FROM trailing_levels WHERE user_id = %s FOR UPDATE", (user.user_id,))
            ticker.prices.execute("SET lock_timeout = 100")

            ticker.touch(EURUSD, "1.1090", "1.1092")

            assert trail_of(market, user)[0] == Decimal("1.1000")
        ticker.touch(EURUSD, "1.1091", "1.1093")
        assert trail_of(market, user)[0] == Decimal("1.1091")


class TestTriggering:
    @pytest.mark.parametrize(
        ("side", "leaves", "touches", "level"),
        [
            ("sell", ("1.10201", "1.1022"), ("1.1020", "1.1022"), "1.1020"),
            ("buy", ("1.0977", "1.09819"), ("1.0980", "1.0982"), "1.0982"),
        ],
    )
    def test_it_is_filled_at_the_quote_that_touches_its_level(
        self, market: Market, ticker: Ticker, side: str, leaves: tuple[str, str], touches: tuple[str, str], level: str
    ) -> None:
        user = market.user()
        place(market, user, side)
        ticker.tick(EURUSD, *BETTER[side])

        assert ticker.tick(EURUSD, *leaves) == []
        assert ticker.tick(EURUSD, *touches) == ["filled"]

        order = order_of(market, user)
        touched = Decimal(touches[0] if side == "sell" else touches[1])
        assert (order["status"], order["stop_price"]) == ("filled", Decimal(level))
        slip = touched - order["average_price"] if side == "sell" else order["average_price"] - touched
        assert slip == order["slippage"] > 0
        assert market.rows("trailing_levels", user) == []

    @pytest.mark.parametrize("side", SIDES)
    def test_a_gap_is_the_owners(self, market: Market, ticker: Ticker, side: str) -> None:
        user = market.user()
        place(market, user, side)

        gap = ("1.0800", "1.0802") if side == "sell" else ("1.1200", "1.1202")
        assert ticker.tick(EURUSD, *gap) == ["filled"]

        order = order_of(market, user)
        if side == "sell":
            assert (order["stop_price"], order["average_price"] < Decimal("1.08")) == (Decimal("1.0980"), True)
        else:
            assert (order["stop_price"], order["average_price"] > Decimal("1.1202")) == (Decimal("1.1022"), True)

    @pytest.mark.parametrize(("side", "quote"), [("sell", ("1.1040", "1.1042")), ("buy", ("1.0960", "1.0962"))])
    def test_the_mark_moves_before_the_level_is_tested(
        self, market: Market, ticker: Ticker, side: str, quote: tuple[str, str]
    ) -> None:
        """At its old level this quote would trigger, at the one that it makes it does not."""
        user = market.user()
        place(market, user, side)
        # as if a level had been left on the wrong side of the market
        market.execute("UPDATE trailing_levels SET level = %s", ("1.2" if side == "sell" else "1.0",))

        assert ticker.tick(EURUSD, *quote) == []
        assert trail_of(market, user)[1] == Decimal("1.1020" if side == "sell" else "1.0982")

    def test_what_is_touched_stands_still_until_it_is_executed(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        place(market, user)
        ticker.touch(EURUSD, "1.0970", "1.0972")

        ticker.touch(EURUSD, "1.1100", "1.1102")

        assert trail_of(market, user) == (Decimal("1.1000"), Decimal("1.0980"))
        assert ticker.work() == ["filled"]
        order = order_of(market, user)
        assert (order["stop_price"], order["average_price"] < Decimal("1.0970")) == (Decimal("1.0980"), True)

    def test_a_repeated_quote_triggers_once(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        place(market, user)
        now = datetime.now(UTC)

        touched = [ticker.record((EURUSD, "1.0970", "1.0972", now))["touched"] for _ in range(3)]

        assert (touched, ticker.work(), ticker.work()) == ([1, 0, 0], ["filled"], [])

    def test_the_audit_names_mark_and_level(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        placed = place(market, user)
        ticker.tick(EURUSD, "1.1040", "1.1042")
        ticker.tick(EURUSD, "1.1020", "1.1022")

        (executed,) = [row for row in market.audit(user, placed["order_id"]) if row["action"] == "EXECUTED"]
        assert Decimal(str(executed["details"]["mark"])) == Decimal("1.1040")
        assert Decimal(str(executed["details"]["level"])) == Decimal("1.1020")
        assert Decimal(str(executed["details"]["trigger_price"])) == Decimal("1.1020")

    def test_refused_by_then_it_is_rejected_and_its_level_goes(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        place(market, user)
        market.execute("UPDATE profiles SET account_status = 'suspended' WHERE id = %s", (user.user_id,))

        assert ticker.tick(EURUSD, "1.0970", "1.0972") == ["rejected"]
        assert (order_of(market, user)["stop_price"], market.rows("trailing_levels", user)) == (Decimal("1.0980"), [])


class TestWithALimit:
    @pytest.mark.parametrize(
        ("side", "through", "back", "level", "limit", "filled"),
        [
            ("sell", ("1.0960", "1.0962"), ("1.0975", "1.0977"), "1.0980", "1.0970", "1.0975"),
            ("buy", ("1.1040", "1.1042"), ("1.1028", "1.1030"), "1.1022", "1.1032", "1.1030"),
        ],
    )
    def test_triggered_it_waits_for_its_limit(
        self, market: Market, ticker: Ticker, side: str, through: tuple[str, str], back: tuple[str, str],
        level: str, limit: str, filled: str,
    ) -> None:  # fmt: skip
        user = market.user()
        placed = place(market, user, side, limit_offset="0.0010")

        assert ticker.tick(EURUSD, *through) == ["triggered"]

        order = order_of(market, user)
        assert (order["status"], order["stop_price"], order["limit_price"]) == (
            "triggered", Decimal(level), Decimal(limit),
        )  # fmt: skip
        assert market.rows("trailing_levels", user) == []
        shown = read(market, user, placed["order_id"])
        assert (Decimal(shown["stop_price"]), shown["trail_mark"], shown["trail_level"]) == (Decimal(level), None, None)
        (triggered,) = [row for row in market.audit(user, order["id"]) if row["action"] == "TRIGGERED"]
        assert Decimal(str(triggered["details"]["level"])) == Decimal(level)

        assert ticker.tick(EURUSD, *back) == ["filled"]
        assert order_of(market, user)["average_price"] == Decimal(filled)

    def test_a_quote_between_level_and_limit_fills_it_at_once(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        place(market, user, limit_offset="0.0010")

        assert ticker.tick(EURUSD, "1.0975", "1.0977") == ["filled"]
        assert order_of(market, user)["average_price"] == Decimal("1.0975")

    def test_without_an_offset_its_level_is_its_limit(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        place(market, user, limit_offset="0")

        assert ticker.tick(EURUSD, "1.0979", "1.0981") == ["triggered"]
        assert order_of(market, user)["limit_price"] == Decimal("1.0980")


class TestTheRow:
    def test_it_goes_with_the_order_that_is_canceled(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        placed = place(market, user)

        market.cancel(user, placed["order_id"])

        assert market.rows("trailing_levels", user) == []
        assert ticker.tick(EURUSD, "1.0500", "1.0502") == []

    def test_it_goes_with_the_order_that_expires(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        expires_at = datetime.now(UTC) + timedelta(milliseconds=300)
        place(market, user, time_in_force="gtd", expires_at=expires_at.isoformat())

        assert ticker.until_touched("AAPL", "149.98", "150.00") == ["expired"]
        assert market.rows("trailing_levels", user) == []

    def test_what_is_replaced_trails_anew_from_the_quote_of_now(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        placed = place(market, user, limit_offset="0.0010")
        ticker.tick(EURUSD, "1.1040", "1.1042")
        ticker.tick(EURUSD, "1.1025", "1.1027")

        changed = send(market.trader, keyed_request(user, order_id=placed["order_id"], quantity="2"), "replace_order")

        assert (changed["outcome"], changed["trail_amount"]) == ("new", Decimal("0.0020"))
        assert trail_of(market, user) == (Decimal("1.1025"), Decimal("1.1005"))

        ticker.tick(EURUSD, "1.0900", "1.0902")
        again = keyed_request(user, order_id=changed["order_id"], quantity="1", limit_offset="0.0020")
        changed = send(market.trader, again, "replace_order")
        assert (changed["outcome"], changed["limit_offset"]) == ("new", Decimal("0.0020"))
        assert trail_of(market, user) == (Decimal("1.0900"), Decimal("1.0880"))

    def test_order_and_row_come_and_go_in_one_transaction(self, market: Market, ticker: Ticker) -> None:
        """Whoever crashes in between leaves neither, or both."""
        user = market.user()
        request = keyed_request(
            user, symbol=EURUSD, order_type="trailing_stop", side="sell", quantity="1", trail_amount="0.0020",
            time_in_force="gtc",
        )  # fmt: skip
        with (
            market.database.connect("function_trader") as connection,
            connection.transaction(force_rollback=True),
        ):
            send(connection, request, "place_order")
        assert (market.rows("orders", user), market.rows("trailing_levels", user)) == ([], [])

        send(market.trader, request, "place_order")
        ticker.touch(EURUSD, "1.0970", "1.0972")
        (claimed,) = ticker.claim(lease_ms=0)
        with ticker.triggers.transaction(force_rollback=True):
            assert ticker.execute(claimed)["state"] == "filled"
        assert (order_of(market, user)["status"], order_of(market, user)["stop_price"]) == ("new", None)
        assert trail_of(market, user) == (Decimal("1.1000"), Decimal("1.0980"))

        assert ticker.work() == ["filled"]

    @pytest.mark.parametrize(
        ("broken", "problem"),
        [
            ("DELETE FROM trailing_levels", "nothing says where it trails"),
            ("UPDATE trailing_levels SET trail_amount = 0.5", "nothing says where it trails"),
            ("UPDATE orders SET trail_amount = 0.5", "nothing says where it trails"),
            (
                "INSERT INTO trailing_levels SELECT user_id, uuidv7(), account_id, kind, symbol, watch, 1, NULL, 2, 1 "
                "FROM trailing_levels",
                "a level trails for it though it does not wait for one",
            ),
            (
                "INSERT INTO trailing_levels SELECT user_id, uuidv7(), account_id, 'position', symbol, watch, "
                "1, NULL, 2, 1 FROM trailing_levels",
                "its stop trails by  from , the level of the feed by 1 at 1",
            ),
        ],
    )
    def test_the_books_tell_what_is_out_of_order(self, market: Market, broken: str, problem: str) -> None:
        place(market, market.user())

        with market.owner.transaction(force_rollback=True):
            market.execute(broken)
            faults = market.book_faults()

        assert {fault[0] for fault in faults} == {"I3"}
        assert any(problem in said for _, _, said in faults), faults

    def test_what_is_looked_up_is_found_by_index(self, market: Market, ticker: Ticker) -> None:
        """Among many that wait, a quote reads the rows that it moves or touches."""
        user = market.user(risk={"max_working_orders": None})
        place(market, user)
        market.execute(
            "INSERT INTO trailing_levels SELECT user_id, uuidv7(), account_id, 'order', symbol, watch, 0.002, NULL, "
            "2 + n / 10000.0, 0.5 FROM trailing_levels CROSS JOIN generate_series(1, 20000) AS n"
        )
        market.execute("ANALYZE trailing_levels")
        before = ticker.reads("trailing_levels")

        ticker.touch(EURUSD, "1.1040", "1.1042")

        assert 0 < ticker.reads("trailing_levels") - before < 100
        assert trail_of_order(market, user) == (Decimal("1.1040"), Decimal("1.1020"))
        market.execute("DELETE FROM trailing_levels WHERE mark > 2")


def trail_of_order(market: Market, user: User) -> tuple[Decimal, Decimal]:
    (row,) = [row for row in market.rows("trailing_levels", user) if row["mark"] < 2]
    return row["mark"], row["level"]


class TestPositions:
    """What a position that trails needs is a row of its own."""

    def trailing(self, market: Market, side: str, **exits: str) -> tuple[User, UUID]:
        user = market.user()
        position_id = UUID(market.trade(user, side=side, quantity="1", **exits)["position_id"])
        market.execute(
            "INSERT INTO trailing_levels SELECT user_id, id, account_id, 'position', symbol, %s, 0.002, NULL, %s, %s "
            "FROM positions WHERE id = %s",
            (*(("bid_falls", "1.1", "1.098") if side == "buy" else ("ask_rises", "1.1002", "1.1022")), position_id),
        )
        return user, position_id

    @pytest.mark.parametrize(("side", "touches"), [("buy", ("1.1020", "1.1022")), ("sell", ("1.0980", "1.0982"))])
    def test_it_leaves_where_its_stop_trails(
        self, market: Market, ticker: Ticker, side: str, touches: tuple[str, str]
    ) -> None:
        user, position_id = self.trailing(market, side)

        assert ticker.tick(EURUSD, *BETTER["sell" if side == "buy" else "buy"]) == []
        assert ticker.tick(EURUSD, *touches) == ["filled"]

        (position,) = market.rows("positions", user)
        (closing,) = [row for row in market.rows("orders", user) if row["component_name"] == "trailing_stop"]
        assert (position["id"], position["status"], closing["slippage"] > 0) == (position_id, "closed", True)
        assert market.rows("trailing_levels", user) == []

    def test_a_fixed_stop_loss_comes_before_it_and_it_before_the_take_profit(
        self, market: Market, ticker: Ticker
    ) -> None:
        told: list[str] = []
        for exits in ({"stop_loss": "1.0900"}, {"take_profit": "1.0900"}):
            user, position_id = self.trailing(market, "buy")
            for name, price in exits.items():
                market.execute(f"UPDATE positions SET {name} = %s WHERE id = %s", (price, position_id))
            ticker.tick(EURUSD, "1.0890", "1.0892")
            told += [row["component_name"] for row in market.rows("orders", user) if row["component_name"]]
            ticker.tick(EURUSD, *BACK)

        assert told == ["stop_loss", "trailing_stop"]

    def test_closed_by_its_owner_it_trails_no_more(self, market: Market, ticker: Ticker) -> None:
        user, position_id = self.trailing(market, "buy")
        ticker.touch(EURUSD, "1.0970", "1.0972")

        market.close_out(user, position_id)

        assert (market.rows("trailing_levels", user), ticker.work()) == ([], ["idle"])

    def test_while_its_owner_changes_something_else_it_follows_every_quote(
        self, market: Market, ticker: Ticker
    ) -> None:
        user = market.user()
        position_id = market.trade(user)["position_id"]
        change(market, user, position_id, trailing_distance="0.002")
        with market.database.connect("function_trader", autocommit=False) as changing:
            send(changing, change_request(user, position_id, take_profit="1.2"), "change_position")
            ticker.touch(EURUSD, "1.1100", "1.1102")
            changing.commit()

        ticker.touch(EURUSD, "1.1090", "1.1092")

        assert trail_of(market, user) == (Decimal("1.1100"), Decimal("1.1080"))


def test_two_feeds_and_a_cancel_do_not_wait_for_each_other(market: Market, ticker: Ticker) -> None:
    user = market.user()
    placed = place(market, user)
    with market.database.connect("function_trader") as canceling, canceling.transaction():
        send(canceling, keyed_request(user, order_id=placed["order_id"]), "cancel_order")
        ticker.prices.execute("SET lock_timeout = 100")
        try:
            assert ticker.touch(EURUSD, "1.0970", "1.0972") == 1
        except psycopg.errors.LockNotAvailable:
            pytest.fail("the feed waited for an account")
    assert ticker.work() == ["idle"]
