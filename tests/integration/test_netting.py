"""A netting account: orders that turn its position round, orders that may only reduce it, and its mode."""

from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from tests.kit import MigratedTemplate, User, order_request
from tests.kit.orders import Market, at_once, deadlocks, raises_sqlstate, send
from tests.kit.ticks import Ticker

EURUSD = "EURUSD"


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    """One database for the module; the books must hold after all tests."""
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    return shared


@pytest.fixture
def ticker(market: Market) -> Iterator[Ticker]:
    with Ticker.opened(market) as ticker:
        yield ticker


@pytest.fixture
def trader(market: Market) -> User:
    """Netting, long one lot of EURUSD at 1.10026 with 1100.26 of margin."""
    return long_trader(market)


def long_trader(market: Market, **facts: Any) -> User:
    user = market.user(position_mode="netting", **facts)
    assert market.trade(user)["outcome"] == "filled"
    return user


def held(market: Market, user: User) -> list[tuple[Any, ...]]:
    """Side, quantity, entry price and margin of the positions, the newest last."""
    names = ("status", "side", "quantity", "entry_price", "margin_used")
    return [tuple(row[name] for name in names) for row in market.rows("positions", user)]


def unlimited(**limits: object) -> dict[str, object]:
    """Limits of which only those given bind."""
    return dict.fromkeys(("max_position_size", "max_positions", "daily_trade_limit", "max_daily_loss")) | limits


class TestTurning:
    def test_the_old_position_closes_whole_and_the_rest_opens_a_new_one(self, market: Market, trader: User) -> None:
        # given one lot long at 1.10026, when three are sold at 1.1000 - 0.00006
        answer = market.trade(trader, side="sell", quantity="3", stop_loss="1.2", take_profit="1.05").answer

        # then one is closed at a loss of 0.00032 x 100,000, and two are short with their margin
        assert held(market, trader) == [
            ("closed", "long", 0, Decimal("1.10026"), 0),
            ("open", "short", 2, Decimal("1.09994"), Decimal("2199.88")),
        ]
        closed, opened = market.rows("positions", trader)
        assert (closed["realized_pnl"], opened["realized_pnl"]) == (Decimal("-32.00"), 0)
        assert (closed["stop_loss"], opened["stop_loss"], opened["take_profit"]) == (
            None,
            Decimal("1.2"),
            Decimal("1.05"),
        )
        # and the answer is that of any filled order
        first = market.trade(market.user()).answer
        assert first.keys() <= answer.keys()
        assert (answer["outcome"], answer["status"], answer["quantity"]) == ("filled", "filled", 3)
        assert (answer["execution_price"], answer["slippage"]) == (Decimal("1.09994"), Decimal("0.00006"))
        assert (answer["realized_pnl"], answer["margin"], answer["total_cost"]) == (
            Decimal("-32.00"), Decimal("2199.88"), Decimal("2199.88"),
        )  # fmt: skip
        assert answer["position_id"] == str(opened["id"])
        assert market.account(trader)["balance"] == Decimal("99968.00")

    def test_it_is_one_order_with_one_event_and_each_of_its_steps_in_the_audit(
        self, market: Market, trader: User
    ) -> None:
        before = market.counts(trader)
        answer = market.trade(trader, side="sell", quantity="3")

        added = {table: now - before[table] for table, now in market.counts(trader).items()}
        assert (added["orders"], added["fills"], added["positions"], added["events"]) == (1, 2, 1, 1)
        event = market.last_event(trader)
        assert (event["event_type"], event["sequence"]) == ("order.filled", answer["sequence"])
        assert [fact["status"] for fact in event["payload"]["orders"]] == ["pending_new", "filled"]
        assert str(event["payload"]["orders"][1]["average_price"]) == "1.09994"
        assert [fact["status"] for fact in event["payload"]["positions"]] == ["closed", "open"]
        assert [
            (Decimal(str(fact["realized_pnl"])), Decimal(str(fact["unrealized_pnl"])))
            for fact in event["payload"]["positions"]
        ] == [(-32, 0), (0, -52)]
        assert [(fact["total_filled"], fact["leaves_quantity"]) for fact in event["payload"]["fills"]] == [
            (1, 2), (3, 0),
        ]  # fmt: skip
        assert str(event["payload"]["account"]["margin_used"]) == "2199.88"
        audit = market.audit(trader, answer["order_id"])
        assert [(row["action"], row["status"]) for row in audit] == [
            ("SUBMITTED", "pending_new"),
            ("APPROVED", "pending_new"),
            ("EXECUTED", "pending_new"),
            ("FILLED", "partially_filled"),
            ("FILLED", "filled"),
        ]
        assert [row["pii_digest"] is None for row in audit] == [False, True, True, True, True]
        # and how much was left: 99968.00 less 2199.88 of margin and 52.00 of spread and slippage
        assert Decimal(str(audit[2]["details"]["free_margin_after"])) == Decimal("97716.12")

    def test_a_repeat_gets_the_same_bytes_and_turns_nothing(self, market: Market, trader: User) -> None:
        request = order_request(trader, side="sell", quantity="3")

        first, second = send(market.trader, request), send(market.trader, request)

        assert (first.replayed, second.replayed, second.text) == (False, True, first.text)
        assert len(market.rows("positions", trader)) == 2

    def test_the_commission_is_that_of_the_whole_quantity(self, market: Market) -> None:
        # given 302 shares at 0.018 each for silver, which is 5.436
        user = market.user(position_mode="netting", tier="silver", balance=1_000_000)
        market.trade(user, symbol="AAPL", quantity="302")

        # when twice as many are sold for 10.872
        turned = market.trade(user, symbol="AAPL", side="sell", quantity="604")

        # then both parts together are rounded once
        charged = [row["commission"] for row in market.rows("fills", user)]
        assert charged == [Decimal("5.44"), Decimal("5.44"), Decimal("5.43")]
        assert turned["commission"] == Decimal("10.87")

    def test_parts_below_the_smallest_commission_pay_it_once(self, market: Market) -> None:
        user = market.user(position_mode="netting")
        market.trade(user, symbol="AAPL", quantity="3")
        smallest = market.trade(market.user(), symbol="AAPL", side="sell", quantity="7")["commission"]

        turned = market.trade(user, symbol="AAPL", side="sell", quantity="7")

        assert [row["commission"] for row in market.rows("fills", user)] == [smallest, smallest, 0]
        assert turned["commission"] == smallest > 0

    @pytest.mark.parametrize(("balance", "outcome"), [("2283.88", "filled"), ("2283.87", "denied")])
    def test_margin_is_judged_after_the_release(self, market: Market, balance: str, outcome: str) -> None:
        """Closing costs 32.00; then 2199.88 of margin and 52.00 of spread and slippage have to be free."""
        user = long_trader(market, balance=balance)
        before = held(market, user)

        told = market.trade(user, side="sell", quantity="3").answer

        assert told["outcome"] == outcome
        if outcome == "filled":
            assert Decimal(market.worth(user)["free_margin"]) == 0
        else:
            # denied as a whole
            assert (told["code"], held(market, user)) == ("INSUFFICIENT_MARGIN", before)
            assert (told["details"]["required"], told["details"]["available"]) == ("2251.88", "2251.87")
            assert told["details"]["margin_level"] is None
            assert market.account(user)["balance"] == Decimal(balance)

    def test_the_level_it_is_refused_at_is_that_of_what_stays(self, market: Market) -> None:
        """Ten shares take 75.00 of margin, 1.00 of commission and 0.20 of spread; closing the lot costs 32.00."""
        user = long_trader(market, balance=3000)
        market.trade(user, symbol="AAPL", quantity="10")

        denied = market.trade(user, side="sell", quantity="4")

        # equity 2966.80 over 75.00
        assert (denied["details"]["available"], denied["details"]["margin_level"]) == ("2891.80", "3955.73")

    def test_a_realized_profit_pays_for_the_new_margin(self, market: Market) -> None:
        # given an account that holds all it can, and a price that rose by 200 pips
        user = long_trader(market, balance="1126.26")
        market.quote(EURUSD, "1.1200", "1.1202")

        assert market.trade(user, side="sell", quantity="2.5")["outcome"] == "filled"

    def test_who_may_only_reduce_does_not_turn(self, market: Market, trader: User) -> None:
        market.execute("UPDATE profiles SET account_status = 'suspended' WHERE id = %s", (trader.user_id,))

        turned, closed = (market.trade(trader, side="sell", quantity=lots) for lots in ("1.01", "1"))

        assert (turned["code"], closed["outcome"]) == ("ACCOUNT_NOT_ACTIVE", "filled")

    def test_the_limits_bind_what_is_opened(self, market: Market) -> None:
        # given room for one position of two lots
        user = long_trader(market, risk=unlimited(max_positions=1, max_position_size=2))

        too_large = market.trade(user, side="sell", quantity="3.01")
        fits = market.trade(user, side="sell", quantity="3")

        assert (too_large["code"], too_large["details"]["value"]) == ("RISK_LIMIT_VIOLATION", "2.01")
        assert fits["outcome"] == "filled"

    def test_a_cash_account_never_turns(self, market: Market) -> None:
        user = market.user(kind="cash", balance=20_000)
        market.trade(user, symbol="AAPL", quantity="10")

        denied = market.trade(user, symbol="AAPL", side="sell", quantity="11")

        assert (denied["code"], denied["details"]["held_quantity"]) == ("INSUFFICIENT_POSITION", 10)

    def test_a_stale_price_of_something_else_keeps_nothing(self, market: Market, trader: User) -> None:
        market.trade(trader, symbol="AAPL")
        market.execute("UPDATE quotes SET quoted_at = quoted_at - interval '1 hour' WHERE symbol = 'AAPL'")

        with raises_sqlstate("TR004"):
            market.trade(trader, side="sell", quantity="3")
        assert market.trade(trader, side="sell", quantity="1")["outcome"] == "filled"

    def test_twenty_callers_turn_it_to_and_fro(self, market: Market) -> None:
        # given one lot long, when twenty sell two and twenty buy two
        user = long_trader(market, balance=10_000_000, risk=unlimited())
        requests = [order_request(user, side=side, quantity="2") for side in ("buy", "sell") * 10]

        told = at_once(market, [partial(send, request=request) for request in requests])

        (position,) = [row for row in market.rows("positions", user) if row["status"] == "open"]
        assert {outcome["outcome"] for outcome in told} == {"filled"}
        assert (position["side"], position["quantity"]) == ("long", 1)
        assert deadlocks(market) == 0
        assert market.book_faults() == []


class TestTurningAtATouch:
    def test_a_stop_turns_the_position_round(self, market: Market, ticker: Ticker, trader: User) -> None:
        placed = market.place(
            trader, order_type="stop", side="sell", quantity="3", limit_price=None, stop_price="1.0950"
        )

        assert placed["outcome"] == "new"
        assert ticker.tick(EURUSD, "1.0950", "1.0952") == ["filled"]

        # then one is closed at a loss against 1.10026, and two are short, at a price below the quote that touched it
        (order,) = [row for row in market.rows("orders", trader) if row["order_type"] == "stop"]
        price = Decimal("1.0950") - order["slippage"]
        assert held(market, trader)[1] == ("open", "short", 2, price, price * 2000)
        assert market.account(trader)["balance"] == 100_000 + (price - Decimal("1.10026")) * 100_000
        assert market.last_event(trader)["event_type"] == "order.filled"
        # and the audit tells by how much it slipped, and what it left
        (executed,) = [row["details"] for row in market.audit(trader, order["id"]) if row["action"] == "EXECUTED"]
        assert (executed["reduces"], Decimal(str(executed["slipped"]))) == (False, order["slippage"])
        assert Decimal(str(executed["free_margin_after"])) == Decimal(market.worth(trader)["free_margin"])

    @pytest.mark.parametrize(("balance", "outcome"), [("1736.00", "new"), ("1735.99", "denied")])
    def test_its_margin_is_judged_at_its_own_price_when_it_is_placed(
        self, market: Market, balance: str, outcome: str
    ) -> None:
        """Closing at 1.1050 brings 474.00, and two lots short at it take 2210.00."""
        user = long_trader(market, balance=balance)

        placed = market.place(user, side="sell", quantity="3", limit_price="1.1050")

        assert placed["outcome"] == outcome

    def test_at_the_touch_it_is_judged_again_and_rejected_as_a_whole(self, market: Market, ticker: Ticker) -> None:
        # given what is enough for the lot and its turn, then another position that takes it
        user = long_trader(market, balance=4000)
        market.place(user, side="sell", quantity="3", limit_price="1.1050")
        market.trade(user, symbol="GBPUSD", quantity="1.8")
        before = held(market, user)

        assert "rejected" in ticker.tick(EURUSD, "1.1050", "1.1052")

        (order,) = [row for row in market.rows("orders", user) if row["order_type"] == "limit"]
        assert (order["failure_code"], held(market, user)) == ("INSUFFICIENT_MARGIN", before)

    def test_in_parts_as_the_depth_goes(self, market: Market, ticker: Ticker) -> None:
        """EURUSD trades 28.93 lots in a second: the first part closes 20 and opens, the second adds."""
        user = market.user(position_mode="netting", balance=10_000_000, risk=unlimited())
        market.trade(user, quantity="20")
        market.place(user, side="sell", quantity="50", limit_price="1.1050")

        states = ticker.tick(EURUSD, "1.1050", "1.1052") + ticker.tick(EURUSD, "1.1051", "1.1053")

        assert states == ["partially_filled", "filled"]
        status, side, quantity, *_ = held(market, user)[-1]
        assert (status, side, quantity) == ("open", "short", 30)

    def test_a_limit_that_is_touched_as_it_comes_tells_what_was_realized(self, market: Market, trader: User) -> None:
        placed = market.place(trader, side="sell", quantity="3", limit_price="1.0990")

        assert (placed["outcome"], placed["realized_pnl"]) == ("filled", Decimal("-26.00"))
        assert placed["position_id"] == str(market.rows("positions", trader)[-1]["id"])


class TestReduceOnly:
    def test_more_than_is_held_is_cut_to_it_and_the_rest_is_canceled(self, market: Market, trader: User) -> None:
        answer = market.trade(trader, side="sell", quantity="3", reduce_only=True).answer

        # then one lot was filled at its own price, and the order says what was asked for
        assert held(market, trader) == [("closed", "long", 0, Decimal("1.10026"), 0)]
        (order,) = [row for row in market.rows("orders", trader) if str(row["id"]) == answer["order_id"]]
        assert (order["status"], order["quantity"], order["filled_quantity"], order["leaves_quantity"]) == (
            "canceled", 3, 1, 0,
        )  # fmt: skip
        assert (answer["outcome"], answer["quantity"], answer["filled_quantity"]) == ("canceled", 3, 1)
        assert (answer["execution_price"], answer["realized_pnl"]) == (Decimal("1.09994"), Decimal("-32.00"))
        assert (answer["margin"], answer["total_cost"]) == (0, 0)
        audit = market.audit(trader, answer["order_id"])
        assert [row["action"] for row in audit] == ["SUBMITTED", "APPROVED", "EXECUTED", "FILLED", "CANCELED"]
        assert audit[-1]["reason"] == "Nothing is left to reduce"

    def test_a_repeat_is_told_the_same(self, market: Market, trader: User) -> None:
        request = order_request(trader, side="sell", quantity="3", reduce_only=True)

        first, second = send(market.trader, request), send(market.trader, request)

        assert (second.replayed, second.text) == (True, first.text)

    def test_slippage_and_commission_are_those_of_what_is_filled(self, market: Market) -> None:
        user = market.user(position_mode="netting", balance=1_000_000)
        market.trade(user, symbol="AAPL", quantity="100")
        alone = market.trade(market.user(), symbol="AAPL", side="sell", quantity="100")

        cut = market.trade(user, symbol="AAPL", side="sell", quantity="1000", reduce_only=True)

        assert (cut["commission"], cut["slippage"]) == (alone["commission"], alone["slippage"])

    def test_twelve_at_once_close_what_there_is_and_no_more(self, market: Market) -> None:
        # given ten lots, when twelve callers may each sell up to three
        user = market.user(position_mode="netting", risk=unlimited())
        market.trade(user, quantity="10")
        requests = [order_request(user, side="sell", quantity="3", reduce_only=True) for _ in range(12)]

        told = at_once(market, [partial(send, request=request) for request in requests])

        outcomes = sorted(outcome.answer.get("code", outcome["outcome"]) for outcome in told)
        assert outcomes == ["INSUFFICIENT_POSITION"] * 8 + ["canceled"] + ["filled"] * 3
        assert [row["status"] for row in market.rows("positions", user)] == ["closed"]
        assert deadlocks(market) == 0
        assert market.book_faults() == []

    def test_one_that_rests_may_ask_for_more_than_is_held(self, market: Market, ticker: Ticker, trader: User) -> None:
        market.execute("UPDATE profiles SET account_status = 'suspended' WHERE id = %s", (trader.user_id,))
        placed = market.place(trader, side="sell", quantity="3", limit_price="1.1050", reduce_only=True)
        approved = market.audit(trader, placed["order_id"])[-1]

        assert (placed["outcome"], approved["details"]["reduces"]) == ("new", True)
        assert ticker.tick(EURUSD, "1.1050", "1.1052") == ["canceled"]
        assert held(market, trader) == [("closed", "long", 0, Decimal("1.10026"), 0)]

    def test_a_cash_account_sells_what_it_has(self, market: Market) -> None:
        user = market.user(kind="cash", balance=20_000)
        market.trade(user, symbol="AAPL", quantity="10")

        cut = market.trade(user, symbol="AAPL", side="sell", quantity="11", reduce_only=True)

        assert (cut["outcome"], cut["filled_quantity"]) == ("canceled", 10)
