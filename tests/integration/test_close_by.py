"""close_by: two opposite positions closed against each other, against hand calculations, and that the books hold."""

import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.mutations import remove_text
from tests.kit.orders import (
    Market,
    Outcome,
    deadlocks,
    details_of,
    keyed_request,
    raises_sqlstate,
    send,
    stale_time,
    told_at_once,
)
from tests.kit.positions import change, row_of


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


@pytest.fixture
def pair(market: Market, trader: User) -> tuple[str, str]:
    """1 lot of EURUSD bought at 1.10026, 0.4 lots sold at 1.10494 (1.1050 less 0.6 pips)."""
    bought = market.trade(trader)["position_id"]
    market.quote("EURUSD", "1.1050", "1.1052")
    return bought, market.trade(trader, side="sell", quantity="0.4")["position_id"]


def pair_request(user: User, position_id: str, opposite_id: str, **fields: object) -> dict[str, object]:
    return keyed_request(user, position_id=position_id, opposite_position_id=opposite_id, **fields)


def close_by(market: Market, user: User, position_id: str, opposite_id: str, **fields: object) -> Outcome:
    return send(market.trader, pair_request(user, position_id, opposite_id, **fields), "close_by")


class TestFigures:
    def test_the_difference_of_the_entry_prices_is_realized(
        self, market: Market, trader: User, pair: tuple[str, str]
    ) -> None:
        long, short = pair

        closed = close_by(market, trader, long, short)

        # then (1.10494 - 1.10026) x 40,000, at the short's entry price and whatever the market is
        assert (closed["outcome"], closed["execution_price"]) == ("filled", Decimal("1.10494"))
        assert (closed["realized_pnl"], closed["commission"], closed["slippage"]) == (Decimal("187.20"), 0, 0)
        assert (closed["closed_quantity"], closed["quantity"]) == (Decimal("0.4"), Decimal("0.8"))
        assert market.account(trader)["balance"] == Decimal("100187.20")
        # and the margin of both is released: 0.6 x 1100.26 stays
        left, gone = row_of(market, trader, long), row_of(market, trader, short)
        assert (left["status"], left["quantity"], left["margin_used"]) == ("open", Decimal("0.6"), Decimal("660.16"))
        assert (gone["status"], gone["quantity"], gone["margin_used"]) == ("closed", 0, 0)
        assert (left["realized_pnl"], gone["realized_pnl"]) == (Decimal("187.20"), 0)

    def test_named_the_other_way_the_sum_is_the_same(self, market: Market, trader: User, pair: tuple[str, str]) -> None:
        long, short = pair

        closed = close_by(market, trader, short, long)

        assert (closed["execution_price"], closed["realized_pnl"]) == (Decimal("1.10026"), Decimal("187.20"))
        assert row_of(market, trader, short)["realized_pnl"] == Decimal("187.20")

    def test_equity_gains_the_spread_that_closing_would_have_cost(
        self, market: Market, trader: User, pair: tuple[str, str]
    ) -> None:
        before = Decimal(market.worth(trader)["equity"])

        close_by(market, trader, *pair)

        # then 0.0002 x 40,000
        assert Decimal(market.worth(trader)["equity"]) - before == 8

    def test_a_part_leaves_both(self, market: Market, trader: User, pair: tuple[str, str]) -> None:
        closed = close_by(market, trader, *pair, quantity="0.1")

        assert closed["realized_pnl"] == Decimal("46.80")
        assert [row_of(market, trader, each)["quantity"] for each in pair] == [Decimal("0.9"), Decimal("0.3")]

    def test_the_result_is_converted_at_the_present_rate(self, market: Market, trader: User) -> None:
        # given USDJPY bought at 150.011 and sold at 151.011, and then 152.000 / 152.010
        long = market.trade(trader, symbol="USDJPY", quantity="0.5")["position_id"]
        market.quote("USDJPY", "151.012", "151.021")
        short = market.trade(trader, symbol="USDJPY", side="sell", quantity="0.5")["position_id"]
        market.quote("USDJPY", "152.000", "152.010")

        closed = close_by(market, trader, long, short)

        assert closed["realized_pnl"] == Decimal("328.93")  # 1.000 x 50,000 / 152.010

    def test_a_stock_pays_no_commission(self, market: Market, trader: User) -> None:
        long = market.trade(trader, symbol="AAPL", quantity="100")["position_id"]
        short = market.trade(trader, symbol="AAPL", side="sell", quantity="100")["position_id"]
        before = market.account(trader)["balance"]

        closed = close_by(market, trader, long, short)

        # then (149.98 - 150.00) x 100
        assert (closed["realized_pnl"], closed["commission"]) == (-2, 0)
        assert market.account(trader)["balance"] == before - 2

    def test_levels_of_what_is_left_stay(self, market: Market, trader: User, pair: tuple[str, str]) -> None:
        change(market, trader, pair[0], trailing_distance="0.002")

        closed = close_by(market, trader, *pair)

        assert (closed["position"]["trailing_distance"], closed["position"]["version"]) == ("0.00200", 3)


class TestBooks:
    def test_it_is_one_order_with_a_fill_of_each(self, market: Market, trader: User, pair: tuple[str, str]) -> None:
        before = market.counts(trader)

        closed = close_by(market, trader, *pair)

        written = {table: count - before[table] for table, count in market.counts(trader).items()}
        assert written == {
            "orders": 1, "fills": 2, "positions": 0, "ledger_entries": 4, "order_audit_log": 5, "audit_pii": 1,
            "events": 1, "idempotency_keys": 1, "client_order_ids": 0,
        }  # fmt: skip
        fills = [row for row in market.rows("fills", trader) if str(row["order_id"]) == closed["order_id"]]
        told = [(str(row["position_id"]), row["side"], row["quantity"], row["commission"]) for row in fills]
        assert told == [(pair[1], "buy", Decimal("0.4"), 0), (pair[0], "sell", Decimal("0.4"), 0)]
        entries = sorted(market.rows("ledger_entries", trader), key=lambda row: row["entry_number"])[-4:]
        assert [(entry["entry_type"], entry["amount"]) for entry in entries] == [
            ("realized_pnl", 0), ("commission", 0), ("realized_pnl", Decimal("187.20")), ("commission", 0),
        ]  # fmt: skip
        rows = market.audit(trader, closed["order_id"])
        assert [(row["action"], row["status"]) for row in rows] == [
            ("SUBMITTED", "pending_new"),
            ("APPROVED", "pending_new"),
            ("EXECUTED", "pending_new"),
            ("FILLED", "partially_filled"),
            ("FILLED", "filled"),
        ]
        assert rows[0]["details"]["opposite_position_id"] == pair[1]

    def test_the_event_tells_both_fills_and_positions(
        self, market: Market, trader: User, pair: tuple[str, str]
    ) -> None:
        close_by(market, trader, *pair, request_id="request-7")

        event = market.last_event(trader)
        payload = market.last_payload(trader)
        assert (event["event_type"], event["request_id"]) == ("order.filled", "request-7")
        assert [(fill["total_filled"], fill["leaves_quantity"]) for fill in payload["fills"]] == [
            (Decimal("0.4"), Decimal("0.4")),
            (Decimal("0.8"), 0),
        ]
        booked = {str(row["id"]) for row in market.rows("fills", trader) if str(row["position_id"]) in pair}
        assert {fill["fill_id"] for fill in payload["fills"]} < booked
        assert len({fill["fill_id"] for fill in payload["fills"]}) == 2
        assert [fact["position_id"] for fact in payload["positions"]] == list(pair)
        assert [fact["status"] for fact in payload["positions"]] == ["open", "closed"]
        assert payload["account"]["margin_used"] == Decimal("660.16")

    def test_the_books_hold_after_each_form(self, market: Market, trader: User, pair: tuple[str, str]) -> None:
        close_by(market, trader, *pair, quantity="0.1")
        close_by(market, trader, pair[1], pair[0])

        assert market.book_faults() == []

    def test_the_books_see_a_fill_that_was_not_written(self, migrated: MigratedTemplate) -> None:
        scratch = migrated.clone()
        try:
            with Market.opened(scratch) as market:
                trader = market.user()
                long, short = (market.trade(trader, side=side)["position_id"] for side in ("buy", "sell"))
                remove_text(
                    market.owner,
                    "book_close_by",
                    "v_opposite := write_position(v_asked, p_account, v_first, p_opposite, p_at);",
                )
                close_by(market, trader, long, short)

                assert market.book_faults() != []
        finally:
            scratch.drop()


class TestWhoAndWhen:
    def test_a_closed_market_and_stale_quotes_do_not_matter(
        self, market: Market, trader: User, pair: tuple[str, str]
    ) -> None:
        market.close("FX")
        market.quote("EURUSD", "1.2", "1.3", stale_time())

        assert close_by(market, trader, *pair)["realized_pnl"] == Decimal("187.20")

    def test_without_any_quote(self, market: Market, trader: User, pair: tuple[str, str]) -> None:
        market.execute("DELETE FROM quotes")

        closed = close_by(market, trader, *pair)

        assert (closed["realized_pnl"], closed["position"]["current_price"]) == (Decimal("187.20"), None)

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE profiles SET account_status = 'suspended' WHERE id = %(user)s",
            "UPDATE platform_settings SET trading_state = 'halted'",
            "UPDATE risk_settings SET daily_trade_limit = 0, max_daily_loss = 0 WHERE user_id = %(user)s",
        ],
    )
    def test_who_may_not_open_may_net_out(
        self, market: Market, trader: User, pair: tuple[str, str], statement: str
    ) -> None:
        market.execute(statement, {"user": trader.user_id})

        assert close_by(market, trader, *pair)["outcome"] == "filled"


class TestRefusal:
    """What raises, keeps nothing and leaves the key free."""

    def refused(self, market: Market, user: User, sqlstate: str, *pair: str, **fields: object) -> Any:
        before = market.counts(user), market.account(user), market.rows("positions", user)
        with raises_sqlstate(sqlstate) as caught:
            close_by(market, user, pair[0], pair[1], **fields)
        assert (market.counts(user), market.account(user), market.rows("positions", user)) == before
        return details_of(caught.value)

    def test_the_same_side(self, market: Market, trader: User, pair: tuple[str, str]) -> None:
        other = market.trade(trader)["position_id"]

        details = self.refused(market, trader, "TR006", pair[0], other)

        assert (details["field"], details["value"]) == ("opposite_position_id", other)

    def test_itself(self, market: Market, trader: User, pair: tuple[str, str]) -> None:
        assert self.refused(market, trader, "TR006", pair[0], pair[0])["field"] == "opposite_position_id"

    def test_another_symbol(self, market: Market, trader: User, pair: tuple[str, str]) -> None:
        other = market.trade(trader, symbol="GBPUSD", side="sell")["position_id"]

        assert self.refused(market, trader, "TR006", pair[0], other)["field"] == "opposite_position_id"

    def test_another_account(self, market: Market, trader: User, pair: tuple[str, str]) -> None:
        theirs = market.trade(market.user(), side="sell")["position_id"]

        assert self.refused(market, trader, "TR001", pair[0], theirs)["field"] == "opposite_position_id"
        assert self.refused(market, trader, "TR001", theirs, pair[0])["field"] == "id"
        assert self.refused(market, trader, "TR001", pair[0], str(uuid.uuid4()))["field"] == "opposite_position_id"

    @pytest.mark.parametrize("quantity", ["0", "-1", "0.41", "0.005", "0.015", "NaN", "Infinity"])
    def test_a_quantity_out_of_its_bounds(
        self, market: Market, trader: User, pair: tuple[str, str], quantity: str
    ) -> None:
        details = self.refused(market, trader, "TR006", *pair, quantity=quantity)

        assert (details["field"], details["value"]) == ("quantity", quantity)

    @pytest.mark.parametrize("which", [0, 1])
    def test_one_that_is_closed(self, market: Market, trader: User, pair: tuple[str, str], which: int) -> None:
        market.close_out(trader, pair[which])

        assert self.refused(market, trader, "TR010", *pair)["value"] == "closed"

    def test_an_instrument_that_is_traded_no_more(self, market: Market, trader: User, pair: tuple[str, str]) -> None:
        market.execute("UPDATE instruments SET is_active = false WHERE symbol = 'EURUSD'")
        try:
            assert self.refused(market, trader, "TR004", *pair)["value"] == "EURUSD"
        finally:
            market.execute("UPDATE instruments SET is_active = true WHERE symbol = 'EURUSD'")

    def test_a_stale_rate(self, market: Market) -> None:
        user = market.user(currency="EUR")
        pair = [market.trade(user, symbol="AAPL", side=side, quantity="10")["position_id"] for side in ("buy", "sell")]
        market.quote("EURUSD", "1.1000", "1.1002", stale_time())

        assert self.refused(market, user, "TR004", *pair)["value"] == "EURUSD"

    def test_without_a_key(self, market: Market, trader: User, pair: tuple[str, str]) -> None:
        assert self.refused(market, trader, "TR006", *pair, idempotency_key=None)["field"] == "idempotency_key"


class TestReplayAndRaces:
    def test_the_same_answer_byte_for_byte(self, market: Market, trader: User, pair: tuple[str, str]) -> None:
        request = pair_request(trader, *pair)
        first = send(market.trader, request, "close_by")
        market.close_out(trader, pair[0])
        market.execute("DELETE FROM quotes")

        second = send(market.trader, request, "close_by")

        assert (first.replayed, second.replayed, second.text) == (False, True, first.text)

    def test_twenty_callers_with_one_key_close_once(self, market: Market, trader: User, pair: tuple[str, str]) -> None:
        request = pair_request(trader, *pair, quantity="0.1")

        told = told_at_once(market, [("close_by", request)] * 20)

        assert sorted(told) == ["filled"] + ["replayed"] * 19
        assert row_of(market, trader, pair[1])["quantity"] == Decimal("0.3")

    def test_both_ways_round_at_once(self, market: Market, trader: User) -> None:
        before = deadlocks(market)
        for _ in range(10):
            long, short = (market.trade(trader, side=side, quantity="0.1")["position_id"] for side in ("buy", "sell"))

            told = told_at_once(
                market,
                [("close_by", pair_request(trader, long, short)), ("close_by", pair_request(trader, short, long))],
            )

            assert sorted(told) == ["TR010", "filled"]
        assert deadlocks(market) == before

    def test_against_a_close_of_one_of_them(self, market: Market, trader: User) -> None:
        for _ in range(10):
            long, short = (market.trade(trader, side=side, quantity="0.1")["position_id"] for side in ("buy", "sell"))

            told = told_at_once(
                market,
                [
                    ("close_by", pair_request(trader, long, short)),
                    ("close_position", keyed_request(trader, position_id=short)),
                ],
            )

            assert sorted(told) == ["TR010", "filled"]
            assert row_of(market, trader, short)["status"] == "closed"
        assert market.book_faults() == []
