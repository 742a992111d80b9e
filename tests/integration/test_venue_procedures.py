"""Orders that are executed elsewhere, in the database: accepted, attempted, filled, ended."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

from tests.kit.builders import User, order_request
from tests.kit.mutations import tampered
from tests.kit.orders import Market, details_of, raises_sqlstate, stale_time
from tests.kit.servers import MigratedTemplate
from tests.kit.venues import PAIR, STOCK, VENUE, VenueWorld, fill_of
from trading.errors import ErrorCode, TradingError
from trading.store.database import Database
from trading.store.venues import RoutedOrder


@pytest.fixture(scope="module")
def module_world(migrated: MigratedTemplate) -> Iterator[VenueWorld]:
    scratch = migrated.clone()
    try:
        with VenueWorld.opened(scratch) as world:
            yield world
    finally:
        scratch.drop()


@pytest.fixture
def world(module_world: VenueWorld) -> Iterator[VenueWorld]:
    """The module's world with its quotes as they were; whatever a test does, the books are in order after it."""
    module_world.market.prepare()
    module_world.market.quote(STOCK, "149.98", "150.00")
    module_world.market.quote(PAIR, "1.1000", "1.1002")
    yield module_world
    assert module_world.market.book_faults() == []


def positions(market: Market, user: User) -> list[tuple[Any, ...]]:
    return [(row["side"], row["quantity"], row["entry_price"], row["status"]) for row in market.rows("positions", user)]


class TestAcceptance:
    def test_an_order_waits_for_its_venue_with_its_margin_reserved(self, world: VenueWorld) -> None:
        # given / when ten shares at 150.00, slipping by 0.05 pips of 0.01 to the tick, leverage 20, spread 0.02
        user = world.market.user(tier="bronze")
        accepted = world.accept(user)
        # then
        assert accepted["outcome"] == "pending_new"
        assert (accepted["status"], accepted["venue"]) == ("pending_new", VENUE)
        (order,) = world.market.rows("orders", user)
        assert (order["status"], order["leaves_quantity"], order["filled_quantity"]) == ("pending_new", 10, 0)
        assert world.market.counts(user) | {"orders": 1, "fills": 0, "positions": 0} == world.market.counts(user)
        # and 75.00 of margin, 1.00 of commission and 0.20 of spread are kept for it
        assert world.reserved(user) == Decimal("76.20")
        assert world.events(user) == ["order.pending_new"]
        actions = [(row["action"], row["status"]) for row in world.market.rows("order_audit_log", user)]
        assert actions[-2:] == [("SUBMITTED", "pending_new"), ("APPROVED", "pending_new")]

    @pytest.mark.parametrize(
        ("side", "allowed", "worst"),
        [("buy", "0.0010", "1.1012"), ("sell", "0.0010", "1.0990"), ("sell", "2", "0.00001"), ("buy", None, None)],
    )
    def test_its_venue_is_told_the_worst_price_that_is_wanted(
        self, world: VenueWorld, side: str, allowed: str | None, worst: str | None
    ) -> None:
        routed = world.sent(world.market.user(), symbol=PAIR, quantity="1", side=side, max_slippage=allowed)
        assert routed.order.worst_price == (None if worst is None else Decimal(worst))
        assert world.route(routed)["reference_price"] == Decimal("1.1002" if side == "buy" else "1.1000")

    def test_its_key_is_answered_again(self, world: VenueWorld) -> None:
        user = world.market.user()
        request = order_request(user, symbol=STOCK)
        first, second = world.send(request), world.send(request)
        assert (first.replayed, second.replayed) == (False, True)
        assert first.text == second.text
        assert world.market.counts(user)["orders"] == 1
        with raises_sqlstate("TR003"):
            world.send(request | {"request_hash": "another"})

    def test_racers_under_one_key_make_one_order(self, world: VenueWorld) -> None:
        user = world.market.user()
        request = order_request(user, symbol=STOCK)
        barrier = Barrier(8)

        def race(_: int) -> str:
            with world.market.database.connect("function_trader") as connection:
                barrier.wait()
                row = connection.execute("SELECT (accept_order(%s) -> 'answer')::text", (Jsonb(request),)).fetchone()
            assert row is not None
            return row[0]

        with ThreadPoolExecutor(8) as threads:
            answers = set(threads.map(race, range(8)))
        assert len(answers) == 1
        assert world.market.counts(user)["orders"] == 1

    def test_twenty_in_flight_cannot_spend_the_same_margin(self, world: VenueWorld) -> None:
        # given an account that can carry eleven orders of 76.20
        user = world.market.user(tier="bronze", balance="850", risk={"max_positions": None})
        # when twenty are sent, and none has come back
        outcomes = [world.accept(user)["outcome"] for _ in range(20)]
        # then
        assert outcomes == ["pending_new"] * 11 + ["denied"] * 9
        assert world.reserved(user) == 11 * Decimal("76.20")
        *_, last = [row["details"] for row in world.market.rows("order_audit_log", user) if row["action"] == "APPROVED"]
        assert Decimal(str(last["free_margin_after"])) == 850 - 11 * Decimal("76.20")
        assert Decimal(world.market.rows("orders", user)[-1]["quantity"]) == 10
        assert world.market.rows("orders", user)[-1]["failure_code"] == "INSUFFICIENT_MARGIN"

    def test_an_order_that_is_executed_here_counts_what_is_in_flight(self, world: VenueWorld) -> None:
        user = world.market.user(balance="1000")
        assert world.accept(user, quantity="120")["outcome"] == "pending_new"
        refused = world.market.trade(user, symbol="AAPL", quantity="120")
        assert (refused["outcome"], refused["code"]) == ("denied", "INSUFFICIENT_MARGIN")

    def test_a_cash_account_cannot_sell_its_shares_twice(self, world: VenueWorld) -> None:
        # given ten shares, filled at the venue
        user = world.market.user(kind="cash", balance="5000")
        world.fill(world.sent(user), "10", "150.00")
        # when six are sold, and another six before the first are
        first = world.accept(user, side="sell", quantity="6")
        second = world.accept(user, side="sell", quantity="6")
        third = world.accept(user, side="sell", quantity="4")
        # then
        assert (first["outcome"], third["outcome"]) == ("pending_new", "pending_new")
        assert (second["outcome"], second["code"]) == ("denied", "INSUFFICIENT_POSITION")
        assert second["details"]["held_quantity"] == 4
        assert world.reserved(user) == 0

    def test_only_sales_of_it_that_are_on_their_way_take_from_a_position(self, world: VenueWorld) -> None:
        # given ten shares, another purchase and a sale of something else on their way, and a sale that was refused
        user = world.market.user(position_mode="netting")
        world.fill(world.sent(user), "10", "150.00")
        world.accept(user, quantity="3")
        world.accept(user, symbol=PAIR, side="sell", quantity="1")
        refused = world.sent(user, side="sell", quantity="6")
        world.store.end(refused, "rejected", code="VENUE_REJECTED", reason="closed today", retry_attempt=0)
        # when all ten are sold
        sale = world.sent(user, side="sell", quantity="10")
        # then it takes them, and reserves nothing
        assert (world.route(sale)["adds_exposure"], world.route(sale)["margin_reserved"]) == (False, 0)

    @pytest.mark.parametrize(
        ("limit", "value", "accepted", "beside"),
        [
            ("max_positions", 2, 2, {}),
            ("daily_trade_limit", 3, 3, {}),
            ("max_position_size", 25, 2, {}),
            # with what is held read along with the exposure
            ("max_position_size", 25, 2, {"max_exposure": 1_000_000}),
        ],
    )
    def test_limits_count_what_is_in_flight(
        self, world: VenueWorld, limit: str, value: int, accepted: int, beside: dict[str, int]
    ) -> None:
        user = world.market.user(risk={limit: value} | beside)
        outcomes = [world.accept(user) for _ in range(accepted + 1)]
        assert [outcome["outcome"] for outcome in outcomes] == ["pending_new"] * accepted + ["denied"]
        assert outcomes[-1]["code"] == "RISK_LIMIT_VIOLATION"
        assert outcomes[-1]["details"]["field"] == limit

    @pytest.mark.parametrize(
        ("limit", "value"), [("max_positions", 1), ("max_daily_loss", "1000"), ("max_drawdown_percent", "10")]
    )
    def test_limits_count_what_is_held_and_what_it_has_lost(self, world: VenueWorld, limit: str, value: object) -> None:
        # given a lot that has lost a hundred pips and the spread, 1,020 of 10,000 dollars
        user = world.market.user(balance="10000", risk={limit: value})
        world.market.trade(user, symbol="EURUSD")
        world.market.quote("EURUSD", "1.0900", "1.0902")
        # when
        denied = world.accept(user)
        # then
        assert (denied["outcome"], denied["details"]["field"]) == ("denied", limit)

    def test_it_keeps_the_highest_equity_that_it_was_judged_at(self, world: VenueWorld) -> None:
        # given an order that was sent at the top, at 12,000 dollars
        user = world.market.user(balance="10000", risk={"max_drawdown_percent": "5"})
        world.market.trade(user, symbol="EURUSD")
        world.market.quote("EURUSD", "1.1200", "1.1202")
        assert world.accept(user)["outcome"] == "pending_new"
        # when a third of the profit is left
        world.market.quote("EURUSD", "1.1070", "1.1072")
        # then
        assert world.accept(user)["details"]["field"] == "max_drawdown_percent"

    @pytest.mark.parametrize(
        ("limit", "value"), [("max_positions", 1), ("daily_trade_limit", 1), ("max_position_size", 19)]
    )
    def test_limits_of_orders_that_are_executed_here_count_it_too(
        self, world: VenueWorld, limit: str, value: int
    ) -> None:
        user = world.market.user(risk={limit: value})
        assert world.accept(user)["outcome"] == "pending_new"

        resting = world.market.place(user, symbol=STOCK, quantity="10", limit_price="140.00")

        assert (resting["outcome"], resting.answer.get("details", {}).get("limit")) == ("denied", limit)

    @pytest.mark.parametrize("limit", ["max_positions", "daily_trade_limit"])
    def test_so_do_those_of_a_symbol_that_goes_to_no_venue(self, world: VenueWorld, limit: str) -> None:
        user = world.market.user(risk={limit: 1})
        assert world.accept(user)["outcome"] == "pending_new"

        denied = world.market.trade(user)

        assert (denied["outcome"], denied["details"]["limit"]) == ("denied", limit)

    @pytest.mark.parametrize(
        ("facts", "overrides", "code"),
        [
            ({"kyc": "pending"}, {}, "KYC_REQUIRED"),
            ({"status": "suspended"}, {}, "ACCOUNT_NOT_ACTIVE"),
            ({}, {"quantity": "100000"}, "INSUFFICIENT_MARGIN"),
            ({}, {"max_slippage": "0", "symbol": PAIR}, "SLIPPAGE_EXCEEDED"),
            ({"kind": "cash"}, {"side": "sell"}, "INSUFFICIENT_POSITION"),
            ({"position_mode": "netting"}, {"reduce_only": True}, "INSUFFICIENT_POSITION"),
        ],
    )
    def test_it_is_judged_as_an_order_of_ours(
        self, world: VenueWorld, facts: dict[str, Any], overrides: dict[str, Any], code: str
    ) -> None:
        user = world.market.user(**facts)
        denied = world.accept(user, **overrides)
        assert (denied["outcome"], denied["code"]) == ("denied", code)
        assert world.market.rows("venue_routes", user) == []
        assert world.reserved(user) == 0

    def test_who_may_not_open_any_more_may_close(self, world: VenueWorld) -> None:
        user = world.market.user(position_mode="netting")
        world.fill(world.sent(user), "10", "150.00")
        world.market.execute("UPDATE profiles SET account_status = 'suspended' WHERE id = %s", (user.user_id,))
        assert world.accept(user, side="sell")["outcome"] == "pending_new"
        assert world.accept(user)["code"] == "ACCOUNT_NOT_ACTIVE"

    def test_without_a_fresh_price_nothing_is_kept(self, world: VenueWorld) -> None:
        user = world.market.user()
        world.market.quote(STOCK, "149.98", "150.00", stale_time())
        with raises_sqlstate("TR004"):
            world.accept(user)
        assert world.market.counts(user)["orders"] == 0

    def test_a_stale_price_of_something_else_that_is_held_keeps_nothing(self, world: VenueWorld) -> None:
        user = world.market.user()
        world.market.trade(user, symbol="EURUSD")
        world.market.quote("EURUSD", "1.1000", "1.1002", stale_time())
        with raises_sqlstate("TR004"):
            world.accept(user)
        assert world.market.counts(user)["orders"] == 1

    def test_a_stop_loss_above_the_price_of_a_purchase_is_refused(self, world: VenueWorld) -> None:
        with raises_sqlstate("TR006") as caught:
            world.accept(world.market.user(), stop_loss="151.00")
        assert details_of(caught.value)["field"] == "stop_loss"

    def test_only_market_orders_go_out(self, world: VenueWorld) -> None:
        with raises_sqlstate("TR006") as caught:
            world.accept(world.market.user(), order_type="limit")
        assert details_of(caught.value)["field"] == "order_type"

    def test_an_instrument_that_came_back_is_executed_here(self, world: VenueWorld) -> None:
        user = world.market.user()
        assert world.accept(user, symbol="AAPL")["outcome"] == "filled"
        assert world.market.rows("venue_routes", user) == []


class TestClaim:
    def test_one_copy_follows_an_order(self, world: VenueWorld) -> None:
        user = world.market.user()
        routed = world.sent(user)
        assert (routed.state, routed.attempts) == ("new", 1)
        assert world.another_store().claim([routed.id], limit=1) == []

    def test_who_takes_it_over_knows_that_it_may_have_been_sent(self, world: VenueWorld) -> None:
        # given a copy that was killed before it could say anything
        routed = world.sent(world.market.user())
        world.market.execute(
            "UPDATE venue_routes SET lease_expires_at = now() WHERE order_id = %s", (routed.id.order_id,)
        )
        # when
        (again,) = world.another_store().claim([routed.id], limit=1)
        # then
        assert (again.state, again.attempts) == ("unknown", 1)
        assert again.fencing > routed.fencing
        # and the first one, coming back, changes nothing
        assert not world.store.record(routed, "EXECUTED", retry_attempt=0, step="submit")
        assert [action for action, *_ in world.audit(routed)] == ["SUBMITTED", "APPROVED"]

    def test_copies_at_once_share_what_is_due(self, world: VenueWorld) -> None:
        # given
        ids = {world.accept(world.market.user())["order_id"] for _ in range(12)}
        barrier = Barrier(4)

        def claim(_: int) -> list[str]:
            router = Database(lambda: world.market.database.url_for("function_router"))
            try:
                store = world.another_store(router)
                barrier.wait()
                return [str(routed.id.order_id) for _ in range(10) for routed in store.claim(None, limit=2)]
            finally:
                router.close()

        # when / then each is claimed once
        with ThreadPoolExecutor(4) as threads:
            claimed = [order_id for share in threads.map(claim, range(4)) for order_id in share]
        assert sorted(order_id for order_id in claimed if order_id in ids) == sorted(ids)

    def test_a_settled_order_is_claimed_by_nobody(self, world: VenueWorld) -> None:
        routed = world.sent(world.market.user())
        world.fill(routed, "10", "150.00")
        world.store.release(routed, due_ms=0)
        assert world.store.claim([routed.id], limit=1) == []

    def test_an_order_of_somebody_else_is_not_found_by_its_id(self, world: VenueWorld) -> None:
        routed = world.sent(world.market.user())
        world.store.release(routed, due_ms=0)
        stranger = world.market.user()
        assert world.store.claim([type(routed.id)(stranger.user_id, routed.id.order_id)], limit=1) == []


class TestAttempts:
    def test_an_attempt_is_audited_once(self, world: VenueWorld) -> None:
        routed = world.sent(world.market.user())
        for _ in range(2):
            assert world.store.record(routed, "EXECUTED", retry_attempt=0, step="submit", error_code="TIMEOUT")
        assert world.audit(routed)[2:] == [("EXECUTED", "pending_new", "TIMEOUT", 0)]
        assert (world.route(routed)["state"], world.route(routed)["attempts"]) == ("unknown", 1)

    def test_a_known_order_is_working(self, world: VenueWorld) -> None:
        routed = world.sent(world.market.user())
        assert world.store.record(routed, "RECOVERED", retry_attempt=1, step="look_up", venue_order_id="V7")
        assert world.route(routed)["state"] == "working"
        assert world.order(routed)["venue_order_id"] == "V7"

    def test_the_owner_is_told_once_that_the_outcome_is_not_known(self, world: VenueWorld) -> None:
        user = world.market.user()
        routed = world.sent(user)
        for attempt in (4, 5):
            world.store.record(
                routed, "EXECUTED", retry_attempt=attempt, step="look_up", error_code="TIMEOUT", unresolved=True
            )
        assert world.events(user) == ["order.pending_new", "order.in_flight"]
        (fact,) = world.market.last_event(user)["payload"]["orders"]
        assert (fact["status"], fact["failure_code"]) == ("pending_new", "VENUE_UNAVAILABLE")
        assert world.order(routed)["status"] == "pending_new"


class TestFills:
    def test_a_fill_is_booked_as_calculated_by_hand(self, world: VenueWorld) -> None:
        """Ten shares at 150.10 by a bronze USD account of 100,000, leverage 20.

        margin       10 x 150.10 / 20 = 75.05
        commission   0.02 x 10 = 0.20, at least 1.00
        balance      100,000 - 1.00 = 99,999.00
        slippage     150.10 - 150.00, the ask at acceptance, = 0.10
        """
        user = world.market.user(tier="bronze")
        routed = world.sent(user)
        world.fill(routed, "10", "150.10", "T1")
        order = world.order(routed)
        assert (order["status"], order["average_price"], order["leaves_quantity"]) == ("filled", Decimal("150.10"), 0)
        assert order["venue_order_id"] == "V1"
        assert (order["commission"], order["slippage"]) == (Decimal("1.00"), Decimal("0.10"))
        assert order["total_cost"] == Decimal("76.05")
        (position,) = world.market.rows("positions", user)
        assert (position["margin_used"], position["id"]) == (Decimal("75.05"), order["position_id"])
        assert world.market.account(user)["balance"] == Decimal("99999.00")
        assert world.reserved(user) == 0
        assert world.events(user) == ["order.pending_new", "order.filled"]
        (fill,) = world.market.rows("fills", user)
        assert (fill["venue"], fill["trade_id"], fill["price"]) == (VENUE, "T1", Decimal("150.10"))

    def test_a_better_tier_pays_less(self, world: VenueWorld) -> None:
        """A hundred shares by a gold account: 0.02 x 100 x 0.8."""
        routed = world.sent(world.market.user(tier="gold"), quantity="100")
        world.fill(routed, "100", "150.10")
        assert world.order(routed)["commission"] == Decimal("1.60")

    def test_parts_come_to_what_the_whole_costs(self, world: VenueWorld) -> None:
        # given / when three parts at three prices: (3 x 150 + 3 x 151 + 4 x 149) / 10 = 149.9
        user = world.market.user(tier="bronze")
        routed = world.sent(user)
        states = []
        for quantity, price in (("3", "150"), ("3", "151"), ("4", "149")):
            world.fill(routed, quantity, price)
            states.append((world.order(routed)["status"], world.order(routed)["leaves_quantity"], world.reserved(user)))
        # then the reservation goes with them, and the minimum commission is paid once
        assert states == [
            ("partially_filled", 7, Decimal("53.34")),
            ("partially_filled", 4, Decimal("30.48")),
            ("filled", 0, Decimal(0)),
        ]
        order = world.order(routed)
        assert (order["average_price"], order["commission"]) == (Decimal("149.9"), Decimal("1.00"))
        assert positions(world.market, user) == [("long", 10, Decimal("149.9"), "open")]
        assert world.events(user)[1:] == ["order.partial", "order.partial", "order.filled"]

    def test_a_fill_told_twice_is_booked_once(self, world: VenueWorld) -> None:
        user = world.market.user()
        routed = world.sent(user)
        fill = fill_of("4", "150", "T-twice")
        news = [world.store.book_fill(routed, "V1", fill, 0).news for _ in range(3)]
        assert news == [True, False, False]
        assert world.market.counts(user)["fills"] == 1

    def test_copies_that_tell_it_at_once_book_it_once(self, world: VenueWorld) -> None:
        user = world.market.user()
        routed = world.sent(user)
        request = {
            "version": 1, "user_id": str(user.user_id), "order_id": str(routed.id.order_id), "venue": VENUE,
            "trade_id": f"T-{uuid4()}", "quantity": "10", "price": "150",
        }  # fmt: skip
        barrier = Barrier(6)

        def tell(_: int) -> str:
            with world.market.database.connect("function_router") as connection:
                barrier.wait()
                row = connection.execute("SELECT book_venue_fill(%s) ->> 'outcome'", (Jsonb(request),)).fetchone()
            assert row is not None
            return row[0]

        with ThreadPoolExecutor(6) as threads:
            assert sorted(threads.map(tell, range(6))) == ["booked"] + ["known"] * 5

    @pytest.mark.parametrize("quantity", ["7", "6.1"])
    def test_an_overfill_is_refused(self, world: VenueWorld, quantity: str) -> None:
        user = world.market.user()
        routed = world.sent(user)
        world.fill(routed, "4", "150")
        with raises_conflict():
            world.fill(routed, quantity, "150")
        assert world.order(routed)["filled_quantity"] == 4

    def test_a_trade_id_stands_for_one_trade(self, world: VenueWorld) -> None:
        user = world.market.user()
        routed = world.sent(user)
        world.fill(routed, "4", "150", "T-same")
        with raises_conflict():
            world.fill(routed, "4", "151", "T-same")
        with raises_conflict():
            world.fill(routed, "5", "150", "T-same")
        other = world.sent(user)
        with raises_conflict():
            world.fill(other, "4", "150", "T-same")

    def test_two_venues_may_name_their_trades_alike(self, world: VenueWorld) -> None:
        user = world.market.user()
        world.fill(world.sent(user), "10", "150", "T-alike")
        world.market.execute("UPDATE instruments SET venue = 'paper' WHERE symbol = %s", (PAIR,))
        try:
            elsewhere = world.sent(user, symbol=PAIR, quantity="1")
        finally:
            world.market.execute("UPDATE instruments SET venue = %s WHERE symbol = %s", (VENUE, PAIR))
        world.fill(elsewhere, "1", "1.1002", "T-alike")
        assert world.order(elsewhere)["status"] == "filled"

    def test_a_fill_after_the_cancel_is_booked(self, world: VenueWorld) -> None:
        # given an order of which four have filled before it was canceled here
        user = world.market.user()
        routed = world.sent(user)
        world.fill(routed, "4", "150")
        cancel_here(world, routed)
        # when three more arrive, then it stays canceled; when the last arrive, it is filled after all
        world.fill(routed, "3", "150")
        assert (world.order(routed)["status"], world.order(routed)["leaves_quantity"]) == ("canceled", 0)
        world.fill(routed, "3", "150")
        assert world.order(routed)["status"] == "filled"
        assert world.route(routed)["state"] == "done"

    def test_a_fill_after_its_venue_has_ended_it_reserves_nothing(self, world: VenueWorld) -> None:
        user = world.market.user()
        routed = world.sent(user)
        world.fill(routed, "4", "150")
        world.store.end(routed, "canceled", code="VENUE_CANCELED", reason="killed", retry_attempt=0)
        world.fill(routed, "3", "150")
        assert (world.order(routed)["status"], world.order(routed)["filled_quantity"]) == ("canceled", 7)
        assert world.reserved(user) == 0

    def test_a_refused_order_takes_no_fill(self, world: VenueWorld) -> None:
        routed = world.sent(world.market.user())
        world.store.end(routed, "rejected", code="VENUE_REJECTED", reason="no", retry_attempt=0)
        with raises_conflict():
            world.fill(routed, "10", "150")

    def test_what_another_venue_says_of_it_is_refused(self, world: VenueWorld) -> None:
        routed = world.sent(world.market.user())
        with raises_conflict():
            world.fill(replace(routed, venue="paper"), "10", "150")

    @pytest.mark.parametrize(
        ("quantity", "price", "trade_id"),
        [
            ("0", "1", "T"),
            ("-1", "1", "T"),
            ("1", "0", "T"),
            ("NaN", "1", "T"),
            ("1", "NaN", "T"),
            ("1", "1", ""),
            ("1", "1", "T" * 129),
            ("1", "1", None),
        ],
    )
    def test_a_fill_of_nothing_or_without_a_name_is_refused(
        self, world: VenueWorld, quantity: str, price: str, trade_id: str | None
    ) -> None:
        routed = world.sent(world.market.user())
        request = {
            "version": 1, "user_id": str(routed.id.user_id), "order_id": str(routed.id.order_id), "venue": VENUE,
            "trade_id": trade_id, "quantity": quantity, "price": price,
        }  # fmt: skip
        with pytest.raises(TradingError, match="VALIDATION_FAILED"):
            world.router.call("book_venue_fill", request)
        assert world.order(routed)["filled_quantity"] == 0

    def test_it_is_booked_whatever_became_of_the_instrument_and_its_price(self, world: VenueWorld) -> None:
        # given an order in flight; the instrument is withdrawn and its feed dies
        user = world.market.user(currency="EUR")
        routed = world.sent(user)
        world.market.quote(STOCK, "149.98", "150.00", stale_time())
        world.market.quote("EURUSD", "1.1000", "1.1002", stale_time())
        world.market.execute("UPDATE instruments SET is_active = false WHERE symbol = %s", (STOCK,))
        try:
            # when / then
            world.fill(routed, "10", "150")
            assert world.order(routed)["status"] == "filled"
        finally:
            world.market.execute("UPDATE instruments SET is_active = true WHERE symbol = %s", (STOCK,))

    def test_netting_adds_reduces_and_turns_a_position_round(self, world: VenueWorld) -> None:
        # given ten long at 150, and a sale of ten in flight
        user = world.market.user(position_mode="netting")
        world.fill(world.sent(user), "10", "150")
        selling = world.sent(user, side="sell")
        # when four are sold, then the rest of the position is sold by an order of ours elsewhere
        world.fill(selling, "4", "151")
        assert positions(world.market, user) == [("long", 6, Decimal(150), "open")]
        take_from_position(world, user, "2")
        world.fill(selling, "6", "152", "T-round")
        # then the last trade closes four and opens two, as two parts of one trade
        assert positions(world.market, user) == [
            ("long", 0, Decimal(150), "closed"),
            ("short", 2, Decimal(152), "open"),
        ]
        fills = {row["trade_id"]: row["quantity"] for row in world.market.rows("fills", user)}
        assert (fills["T-round"], fills["T-round/opened"]) == (4, 2)
        # and told again it is the same trade
        assert not world.store.book_fill(selling, "V1", fill_of("6", "152", "T-round"), 0).news
        # realized: 4 x 1 + 4 x 2 by the venue, 2 x -0.02 by the sale at 149.98
        realized = sum(row["realized_pnl"] for row in world.market.rows("fills", user))
        assert realized == Decimal("11.96") + slipped(world, user)

    def test_hedging_keeps_the_parts_of_an_order_in_one_position(self, world: VenueWorld) -> None:
        user = world.market.user()
        first, second = world.sent(user), world.sent(user)
        for routed in (first, second, first):
            world.fill(routed, "5", "150")
        assert sorted(row["quantity"] for row in world.market.rows("positions", user)) == [5, 10]

    def test_margin_in_another_currency(self, world: VenueWorld) -> None:
        """One lot of the pair at 1.1005 for a USD account, leverage 100: 100,000 / 100 x 1.1005 = 1,100.50."""
        user = world.market.user()
        world.fill(world.sent(user, symbol=PAIR, quantity="1"), "1", "1.1005")
        (position,) = world.market.rows("positions", user)
        assert position["margin_used"] == Decimal("1100.50")


class TestEnd:
    def test_a_refusal_rejects_the_order_and_frees_its_margin(self, world: VenueWorld) -> None:
        user = world.market.user()
        routed = world.sent(user)
        ended = world.store.end(routed, "rejected", code="VENUE_REJECTED", reason="closed today", retry_attempt=0)
        order = world.order(routed)
        assert (ended.status, order["status"], order["failure_code"]) == ("rejected", "rejected", "VENUE_REJECTED")
        assert order["failure_reason"] == "closed today"
        assert world.reserved(user) == 0
        assert world.audit(routed)[-1] == ("REJECTED", "rejected", None, 0)
        told = world.market.last_event(user)
        assert (told["event_type"], told["request_id"]) == ("order.rejected", order["request_id"])

    def test_an_order_with_fills_is_canceled_and_keeps_them(self, world: VenueWorld) -> None:
        user = world.market.user()
        routed = world.sent(user)
        world.fill(routed, "4", "150")
        ended = world.store.end(routed, "rejected", code="VENUE_CANCELED", reason="killed", retry_attempt=0)
        assert (ended.status, world.order(routed)["filled_quantity"]) == ("canceled", 4)
        assert world.reserved(user) == 0

    def test_an_order_canceled_here_is_settled_by_its_venues_word(self, world: VenueWorld) -> None:
        user = world.market.user()
        routed = world.sent(user)
        world.fill(routed, "4", "150")
        cancel_here(world, routed)
        assert world.reserved(user) > 0
        world.store.end(routed, "canceled", code="VENUE_CANCELED", reason="as asked", retry_attempt=0)
        assert (world.order(routed)["status"], world.route(routed)["state"]) == ("canceled", "done")
        assert world.reserved(user) == 0

    def test_it_ends_once(self, world: VenueWorld) -> None:
        user = world.market.user()
        routed = world.sent(user)
        news = [
            world.store.end(routed, "rejected", code="VENUE_REJECTED", reason="no", retry_attempt=0).news
            for _ in range(2)
        ]
        assert news == [True, False]
        assert world.events(user).count("order.rejected") == 1

    @pytest.mark.parametrize("missing", ["status", "code", "reason"])
    def test_it_says_how_and_why(self, world: VenueWorld, missing: str) -> None:
        routed = world.sent(world.market.user())
        request = {
            "version": 1, "user_id": str(routed.id.user_id), "order_id": str(routed.id.order_id), "status": "rejected",
            "code": "VENUE_REJECTED", "reason": "no", "retry_attempt": 0,
        }  # fmt: skip
        with pytest.raises(TradingError, match="VALIDATION_FAILED"):
            world.router.call("reject_venue_order", request | {missing: None})
        assert world.order(routed)["status"] == "pending_new"

    def test_an_order_of_ours_is_not_a_venues_to_end(self, world: VenueWorld) -> None:
        user = world.market.user()
        filled = world.market.trade(user)
        request = {
            "version": 1, "user_id": str(user.user_id), "order_id": filled["order_id"], "status": "rejected",
            "code": "VENUE_REJECTED", "reason": "no",
        }  # fmt: skip
        with pytest.raises(TradingError) as caught:
            world.router.call("reject_venue_order", request)
        assert caught.value.code is ErrorCode.CONFLICT


class TestChecker:
    """verify_books finds what the procedures would never do."""

    @pytest.mark.parametrize(
        ("damage", "invariant", "problem"),
        [
            ("UPDATE accounts SET margin_reserved = margin_reserved + 1 WHERE user_id = %(user)s", "I3", "reserved "),
            (
                "UPDATE venue_routes SET state = 'done', margin_reserved = 0 WHERE order_id = %(order)s",
                "I3",
                "its state is partially_filled, its route is done",
            ),
            (
                "DELETE FROM venue_routes WHERE order_id = %(pending)s",
                "I3",
                "its state is pending_new, its route is missing",
            ),
            (
                "UPDATE orders SET filled_quantity = 5, leaves_quantity = 5 WHERE id = %(order)s",
                "I3",
                "filled 5, its fills sum to 4",
            ),
            (
                "UPDATE venue_routes SET venue = 'paper' WHERE order_id = %(order)s",
                "I3",
                "filled at mock, sent to paper",
            ),
            (
                "UPDATE venue_routes AS r SET closes_position_id = p.id FROM positions AS p "
                "WHERE p.user_id = %(user)s AND r.order_id = %(order)s",
                "I3",
                "the audit names another position that it was sent to close",
            ),
            (
                "DELETE FROM events WHERE user_id = %(user)s AND event_type = 'order.partial'",
                "I3",
                "its newest event tells of pending_new",
            ),
            (
                "DELETE FROM events WHERE user_id = %(user)s AND event_type = 'order.partial'",
                "I3",
                "no event tells of this fill",
            ),
            (
                "UPDATE events SET payload = jsonb_set(payload, '{positions,0,position_id}', '\"another\"') "
                "WHERE user_id = %(user)s AND event_type = 'order.partial'",
                "I3",
                "no event tells of this fill",
            ),
            (
                "UPDATE order_audit_log SET details = details || '{\"free_margin_after\": -1}' "
                "WHERE order_id = %(order)s AND action = 'APPROVED'",
                "I4",
                "was sent out and left free margin -1",
            ),
        ],
    )
    def test_it_finds(self, world: VenueWorld, damage: str, invariant: str, problem: str) -> None:
        user = world.market.user()
        routed, pending = world.sent(user), world.sent(user)
        world.fill(routed, "4", "150")
        ids = {"user": user.user_id, "order": routed.id.order_id, "pending": pending.id.order_id}
        with tampered(world.market, damage, **ids):
            faults = world.market.book_faults()
        assert any(broken == invariant and problem in said for broken, _, said in faults), faults


def raises_conflict() -> Any:
    return pytest.raises(TradingError, match="CONFLICT")


def cancel_here(world: VenueWorld, routed: RoutedOrder) -> None:
    """Cancel what is left, as the owner's own cancel does it, with its audit and event."""
    with world.market.owner.transaction():
        world.market.execute(
            "CREATE TEMPORARY TABLE canceled ON COMMIT DROP AS SELECT a AS account, o AS order_row "
            "FROM accounts AS a CROSS JOIN LATERAL cancel_order_rows(a, ARRAY[%s::uuid], clock_timestamp()) AS o "
            "WHERE a.id = %s",
            (routed.id.order_id, routed.account_id),
        )
        world.market.execute(
            "UPDATE accounts AS a SET last_sequence = a.last_sequence + 1, audit_version = a.audit_version + 1, "
            "audit_head = append_audit(c.account, (c.order_row).id, "
            "ARRAY[ROW('CANCELED', 'canceled', '{}'::jsonb, NULL, NULL)::audit_entry], clock_timestamp()) "
            "FROM canceled AS c WHERE a.id = (c.account).id"
        )
        world.market.execute(
            "SELECT append_event(c.account, (c.account).last_sequence + 1, 'order.canceled', jsonb_build_object("
            "'orders', jsonb_build_array(routed_order_fact(c.order_row))), NULL, clock_timestamp()) FROM canceled AS c"
        )


def take_from_position(world: VenueWorld, user: User, quantity: str) -> None:
    """Sell from the netting position by our own hand, past the venue, as a stop-out would."""
    world.market.execute("UPDATE instruments SET venue = 'internal' WHERE symbol = %s", (STOCK,))
    try:
        assert world.market.trade(user, symbol=STOCK, side="sell", quantity=quantity)["outcome"] == "filled"
    finally:
        world.market.execute("UPDATE instruments SET venue = %s WHERE symbol = %s", (VENUE, STOCK))


def slipped(world: VenueWorld, user: User) -> Decimal:
    """What the sale by our own hand lost to slippage below 149.98."""
    (fill,) = [row for row in world.market.rows("fills", user) if row["venue"] == "internal"]
    return (fill["price"] - Decimal("149.98")) * fill["quantity"]
