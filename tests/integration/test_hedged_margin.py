"""Hedged margin: what longs and shorts of one symbol need together, against hand calculations (docs/risk.md)."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from local.diagnosis import diagnosis_lines
from tests.kit import MigratedTemplate, User
from tests.kit.builders import make_other_account, order_request
from tests.kit.operators import act, operator_request
from tests.kit.orders import Market, keyed_request, send
from tests.kit.risk import make_profile, opened, stop_out_step, watch_by
from tests.kit.ticks import Ticker
from tests.kit.venues import PAIR, VenueWorld

# A lot of EURUSD is bought at 1.1002 + 0.6 pips and sold at 1.1000 - 0.6 pips: 1,100.26 and 1,099.94 of margin.


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    """One database for the module, in which hedges need half; its books must hold after all tests."""
    with Market.checked(migrated) as market:
        make_profile(market, "in_parts", policy="smallest_partial_step")
        yield market


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    hedges_need(shared, 50)
    return shared


@pytest.fixture(scope="module")
def risk(shared: Market) -> Iterator[psycopg.Connection[Any]]:
    with shared.database.connect("function_risk") as connection:
        yield connection


def hedges_need(market: Market, percent: int) -> None:
    market.execute("UPDATE instruments SET hedged_margin_percent = %s", (percent,))


def margin_of(market: Market, user: User) -> tuple[Decimal, Decimal]:
    """What the account uses and what its hedges need not hold; the events, the watch and the summary say the same."""
    worth = market.worth(user)
    used, credit = Decimal(worth["margin_used"]), Decimal(worth["hedged_margin_credit"])
    told = market.last_payload(user)["account"]
    assert (told["margin_used"], told["hedged_margin_credit"]) == (used, credit)
    assert sum(row["margin_used"] for row in market.rows("positions", user)) == used + credit
    (watched,) = market.execute(
        "SELECT margin_used, hedged_margin_credit, round(margin_level, 2)::text "
        "FROM margin_levels(ARRAY[%s]::uuid[], clock_timestamp())",
        (user.account_id,),
    )
    assert watched == (used, credit, worth["margin_level"])
    return used, credit


class TestFigures:
    @pytest.mark.parametrize(
        ("currency", "percent", "trades", "used", "credit"),
        [
            ("USD", 50, [("buy", "1")], "1100.26", "0"),
            ("USD", 50, [("buy", "1"), ("buy", "0.4")], "1540.36", "0"),
            # (1,100.26 + 1,099.94) x 50 %
            ("USD", 50, [("buy", "1"), ("sell", "1")], "1100.10", "1100.10"),
            # (1,100.26 x 0.4 + 439.98) x 50 % = 440.042
            ("USD", 50, [("buy", "1"), ("sell", "0.4")], "1100.20", "440.04"),
            ("USD", 50, [("sell", "0.4"), ("buy", "1")], "1100.20", "440.04"),
            ("USD", 25, [("buy", "1"), ("sell", "1")], "550.05", "1650.15"),
            ("USD", 0, [("buy", "1"), ("sell", "0.4")], "660.16", "880.08"),
            ("USD", 0, [("buy", "1"), ("sell", "1")], "0.00", "2200.20"),
            ("USD", 100, [("buy", "1"), ("sell", "1")], "2200.20", "0"),
            # In the base currency no price matters.
            ("EUR", 50, [("buy", "1"), ("sell", "1")], "1000.00", "1000.00"),
        ],
    )
    def test_of_one_symbol(
        self, market: Market, currency: str, percent: int, trades: list[tuple[str, str]], used: str, credit: str
    ) -> None:
        hedges_need(market, percent)
        user = market.user(currency=currency)
        for side, quantity in trades:
            opened(market.trade(user, side=side, quantity=quantity))
        assert margin_of(market, user) == (Decimal(used), Decimal(credit))

    def test_what_was_opened_at_other_prices_counts_by_the_average_of_its_side(self, market: Market) -> None:
        # given longs of 1 at 1.10026 and 0.5 at 1.20026, and a short of 0.6 at 1.19994
        user = market.user()
        opened(market.trade(user))
        market.quote("EURUSD", "1.2000", "1.2002")
        opened(market.trade(user, quantity="0.5"))
        opened(market.trade(user, side="sell", quantity="0.6"))
        # then margins of 1,700.39 for 1.5 and of 719.96 for 0.6: (1,700.39 x 0.6 / 1.5 + 719.96) x 50 % = 700.058
        assert margin_of(market, user) == (Decimal("1720.29"), Decimal("700.06"))

    def test_in_a_third_currency(self, market: Market) -> None:
        # given a lot of USDJPY on either side, 100,000 USD / 100 / 1.1002 = 908.93 EUR each, and a long that is alone
        user = market.user(currency="EUR")
        for side in ("buy", "sell"):
            opened(market.trade(user, symbol="USDJPY", side=side))
        opened(market.trade(user, symbol="GBPUSD", quantity="0.1"))
        # then 10,000 GBP x 1.2500 / 1.1002 / 100 = 113.62 EUR of it
        assert margin_of(market, user) == (Decimal("1022.55"), Decimal("908.93"))

    def test_opposite_positions_of_two_symbols_cover_nothing(self, market: Market) -> None:
        user = market.user()
        opened(market.trade(user))
        opened(market.trade(user, symbol="GBPUSD", side="sell"))
        assert margin_of(market, user)[1] == 0

    def test_what_the_users_other_account_holds_covers_nothing(self, market: Market) -> None:
        user = market.user()
        accounts = (user, make_other_account(market.owner, user))
        for account, side in zip(accounts, ("buy", "sell"), strict=True):
            for _ in range(2):
                opened(market.trade(account, side=side, quantity="0.5"))
        # then neither has a credit by the watch or by what sums it
        asked = "SELECT account_margin_credit(%s, %s, 'USD'), hedged_margin_credit FROM margin_levels(ARRAY[%s], now())"
        for account in accounts:
            named = (account.user_id, account.account_id, account.account_id)
            assert market.execute(asked, named) == [(0, 0)]

    def test_a_percent_that_changes_counts_at_once(self, market: Market) -> None:
        user = market.user()
        for side in ("buy", "sell"):
            opened(market.trade(user, side=side))
        hedges_need(market, 10)
        assert market.worth(user)["margin_used"] == "220.02"

    def test_the_summary_of_positions_adds_up_to_the_account(self, market: Market) -> None:
        user = market.user()
        for symbol, side in (("EURUSD", "buy"), ("EURUSD", "sell"), ("GBPUSD", "buy")):
            opened(market.trade(user, symbol=symbol, side=side))
        ((held,),) = market.execute("SELECT summarize_positions(%s, NULL)", (user.user_id,))
        assert [each["hedged_margin_credit"] for each in held] == ["1100.10", "0.00"]
        assert sum(Decimal(each["margin_used"]) for each in held) == margin_of(market, user)[0]


def pair(market: Market, user: User, short: str = "1", long: str = "1") -> tuple[str, str]:
    """A long and a short of EURUSD."""
    bought, sold = (market.trade(user, side=side, quantity=lots) for side, lots in (("buy", long), ("sell", short)))
    return str(opened(bought)), str(opened(sold))


class TestOpening:
    def test_what_covers_needs_only_what_the_pair_needs_more(self, market: Market) -> None:
        # given a long of 1,100.26 that stands at -26, and 150 free
        user = market.user(balance="1276.26")
        opened(market.trade(user))
        assert market.worth(user)["free_margin"] == "150.00"
        # when a lot is sold: 1,099.94 less 1,100.10 of credit, and 26 for the spread
        opened(market.trade(user, side="sell"))
        # then
        assert margin_of(market, user)[0] == Decimal("1100.10")
        assert market.worth(user)["free_margin"] == "124.16"
        # and as much again on both sides is refused
        denied = market.trade(user, side="sell", quantity="2")
        assert (denied["code"], denied["details"]["required"]) == ("INSUFFICIENT_MARGIN", "2251.88")
        # and the diagnosis tells the same
        ((found,),) = market.execute("SELECT diagnose_margin(%s)", (user.email,))
        told = "\n".join(diagnosis_lines(found))
        assert "margin used 2200.20, the sum of the positions, as the audit tells: 2200.20" in told
        assert "less 1100.10, because longs and shorts of one symbol cover each other: 1100.10" in told
        assert "would need about 2251.88 USD of margin, commission and spread now; 124.16 is free" in told

    def test_an_order_that_rests_is_judged_so_when_it_is_placed_and_when_it_is_touched(self, market: Market) -> None:
        # given a long and 150 free
        user = market.user(balance="1276.26")
        opened(market.trade(user))
        # when
        resting = market.place(user, side="sell", limit_price="1.1010")
        assert resting["outcome"] == "new", resting.answer
        with Ticker.opened(market) as ticker:
            states = ticker.tick("EURUSD", "1.1010", "1.1012")
        # then it fills at 1.1010, for 1,101.00: (1,100.26 + 1,101.00) x 50 %
        assert states == ["filled"]
        assert margin_of(market, user) == (Decimal("1100.63"), Decimal("1100.63"))

    def test_without_a_hedge_it_is_refused_at_the_touch(self, market: Market) -> None:
        # given an order that rests on the strength of a long, which is closed meanwhile
        hedges_need(market, 0)
        user = market.user(balance="1276.26")
        long = opened(market.trade(user))
        order = market.place(user, side="sell", quantity="1.2", limit_price="1.1010")["order_id"]
        market.close_out(user, long)
        # when
        with Ticker.opened(market) as ticker:
            states = ticker.tick("EURUSD", "1.1010", "1.1012")
        # then
        assert states == ["rejected"]
        (row,) = [row for row in market.rows("orders", user) if str(row["id"]) == order]
        assert row["failure_code"] == "INSUFFICIENT_MARGIN"

    def test_a_replacement_is_judged_so(self, market: Market) -> None:
        user = market.user(balance="1276.26")
        opened(market.trade(user))
        order = market.place(user, side="sell", quantity="0.5", limit_price="1.1010")["order_id"]
        replaced = market.replace(user, order, quantity="1")
        assert replaced["outcome"] == "new"
        denied = market.replace(user, replaced["order_id"], quantity="3")
        assert denied["code"] == "INSUFFICIENT_MARGIN"

    def test_what_turns_a_position_round_covers_nothing(self, market: Market) -> None:
        # given a netting account whose long of one lot goes before two are short, for 2,199.88
        user = market.user(balance="2000", position_mode="netting")
        opened(market.trade(user))
        # when
        denied = market.trade(user, side="sell", quantity="3")
        # then
        assert denied["code"] == "INSUFFICIENT_MARGIN"

    def test_what_is_in_flight_covers_once(self, market: Market) -> None:
        # given a long whose instrument is traded elsewhere, and 150 free
        user = market.user(balance="1276.26")
        opened(market.trade(user))
        market.execute("UPDATE instruments SET venue = 'mock' WHERE symbol = 'EURUSD'")
        try:
            first, second = (
                send(market.trader, order_request(user, side="sell", quantity="1"), "accept_order") for _ in range(2)
            )
        finally:
            market.execute("UPDATE instruments SET venue = 'internal' WHERE symbol = 'EURUSD'")
        # then the second would find the long covered
        assert (first["outcome"], second["outcome"], second["code"]) == ("pending_new", "denied", "INSUFFICIENT_MARGIN")
        # and what is reserved of the first is its spread, less what the pair needs less than the long
        assert market.account(user)["margin_reserved"] == Decimal("25.84")

    def test_what_is_in_flight_for_something_else_does_not_cover(self, market: Market) -> None:
        with VenueWorld.joined(market) as world:
            hedges_need(market, 50)
            # given two who hold two halves of a lot
            quiet, busy = market.user(balance="100000"), market.user(balance="100000")
            for user in (quiet, busy, quiet, busy):
                world.fill(world.sent(user, symbol=PAIR, quantity="0.5"), "0.5", "1.1002")
            # and one of them a purchase and a close on their way, and a sale that was refused
            world.accept(busy, symbol=PAIR, quantity="1")
            half = str(market.rows("positions", busy)[0]["id"])
            send(market.trader, keyed_request(busy, position_id=half), "close_position")
            refused = world.sent(busy, symbol=PAIR, side="sell", quantity="1")
            world.store.end(refused, "rejected", code="VENUE_REJECTED", reason="closed today", retry_attempt=0)
            # when both sell a lot
            sales = [world.sent(user, symbol=PAIR, side="sell", quantity="1") for user in (quiet, busy)]
            # then they need the same for it
            first, second = (world.route(sale)["margin_required"] for sale in sales)
            assert 0 < first == second


class TestClosing:
    def test_one_side_that_goes_leaves_the_other_with_all_of_its_margin(self, market: Market) -> None:
        # given hedges that need nothing, on an account that could not hold one side alone
        hedges_need(market, 0)
        user = market.user(balance="1500")
        long, _ = pair(market, user)
        send_money(market, user, "withdraw", "1000")
        assert margin_of(market, user)[0] == 0
        # when the long is closed: nobody is refused for margin who closes
        closed = market.close_out(user, long)
        # then the short needs 1,099.94, and the watch judges
        assert closed["outcome"] == "filled"
        assert margin_of(market, user) == (Decimal("1099.94"), 0)
        assert Decimal(market.worth(user)["free_margin"]) < 0

    def test_closing_both_against_each_other_frees_both(self, market: Market) -> None:
        user = market.user()
        long, short = pair(market, user, short="0.4")
        send(market.trader, keyed_request(user, position_id=long, opposite_position_id=short), "close_by")
        assert margin_of(market, user) == (Decimal("660.16"), 0)

    def test_no_more_can_be_withdrawn_than_the_pair_leaves(self, market: Market) -> None:
        # given 2,000 less the spread twice
        user = market.user(balance="2000")
        pair(market, user)
        assert send_money(market, user, "withdraw", "900")["code"] == "INSUFFICIENT_FUNDS"
        assert send_money(market, user, "withdraw", "847.90")["outcome"] == "booked"
        assert market.worth(user)["free_margin"] == "0.00"


def send_money(market: Market, user: User, procedure: str, amount: str) -> dict[str, Any]:
    with market.database.connect("function_operator") as connection:
        return act(connection, procedure, operator_request(user, amount=amount))


class TestStopOut:
    def test_a_hedge_goes_behind_what_is_not_covered(self, market: Market, risk: psycopg.Connection[Any]) -> None:
        # given a pair that has lost more on one side than a long of GBPUSD has, at the stop-out level
        user = market.user(balance="3000")
        pair(market, user)
        alone = opened(market.trade(user, symbol="GBPUSD", quantity="1"))
        market.quote("EURUSD", "1.0700", "1.0702")
        market.quote("GBPUSD", "1.2256", "1.2260")
        # when
        answer = stop_out_step(risk, user)
        # then
        assert (answer["position_id"], answer["state"]) == (str(alone), "done")
        assert margin_of(market, user) == (Decimal("1100.10"), Decimal("1100.10"))

    def test_where_all_is_covered_the_policy_decides(self, market: Market, risk: psycopg.Connection[Any]) -> None:
        # given a pair whose spread has eaten up what there was
        user = market.user(balance="1200")
        long, short = pair(market, user)
        market.quote("EURUSD", "1.0900", "1.1010")
        # when
        first, second = stop_out_step(risk, user), stop_out_step(risk, user)
        # then the larger loss goes, and as the other alone needs as much, it goes too
        assert [(each["position_id"], each["state"]) for each in (first, second)] == [(long, "more"), (short, "done")]

    def test_what_needs_no_margin_is_stopped_out_below_zero(
        self, market: Market, risk: psycopg.Connection[Any]
    ) -> None:
        # given hedges that need nothing, and an account that its spread takes below zero
        hedges_need(market, 0)
        user = market.user(balance="1200")
        pair(market, user)
        market.quote("EURUSD", "1.0950", "1.1050")
        assert stop_out_step(risk, user)["state"] == "recovered"  # 168 are left
        market.quote("EURUSD", "1.0940", "1.1060")
        # when
        run = [stop_out_step(risk, user)["state"] for _ in range(2)]
        # then, and its level is told as none while nothing is used
        assert run == ["more", "done"]
        assert (market.worth(user)["margin_level"], stop_out_step(risk, user)["state"]) == (None, "recovered")

    @pytest.mark.parametrize(
        ("percent", "balance", "before", "part", "state", "level"),
        [
            # What is not covered is enough: 420.92 on 2,002.31.
            (50, "1500", "19.18", "0.18", "done", "21.02"),
            # It is not, but three quarters of both sides are more than one of them: 291.12 on 1,386.05.
            (75, "1378", "10.91", "1.48", "done", "21.00"),
            # Nothing is.
            (50, "1178", "4.54", "2", "more", "8.00"),
        ],
    )
    def test_in_parts(  # each column is one of the table
        self,
        market: Market,
        risk: psycopg.Connection[Any],
        percent: int,
        balance: str,
        before: str,
        part: str,
        state: str,
        level: str,
    ) -> None:
        # given two lots that have lost 2,052, of which one is covered by a short that has gained 974
        hedges_need(market, percent)
        user = watch_by(market, market.user(balance=10_000), "in_parts")
        long, _ = pair(market, user, long="2")
        send_money(market, user, "adjust", str(Decimal(balance) - 10_000))
        market.quote("EURUSD", "1.0900", "1.0902")
        # when
        answer = stop_out_step(risk, user)
        # then
        assert (answer["position_id"], answer["quantity"], answer["state"], answer["margin_level"]) == (
            long,
            Decimal(part),
            state,
            Decimal(level),
        )
        assert market.last_payload(user)["risk"]["margin_level"] == Decimal(before)
