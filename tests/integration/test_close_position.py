"""close_position: what a close books, against hand calculations; who may close, and that it happens once."""

import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.kit import MigratedTemplate, User, order_request
from tests.kit.orders import (
    ORDER_TABLES,
    Market,
    deadlocks,
    details_of,
    keyed_request,
    raises_sqlstate,
    send,
    stale_time,
    told_at_once,
)


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


class TestWhole:
    """EURUSD bought at 1.10026 (1.1002 and 0.6 pips), then quoted 1.1050/1.1052 and sold at 1.10494."""

    @pytest.fixture
    def position_id(self, market: Market, trader: User) -> str:
        opened = market.trade(trader, stop_loss="1.05")
        market.quote("EURUSD", "1.1050", "1.1052")
        return opened["position_id"]

    def test_it_realizes_what_the_fill_brings(self, market: Market, trader: User, position_id: str) -> None:
        closed = market.close_out(trader, position_id)

        # then (1.10494 - 1.10026) x 100,000, and all margin is free again
        worth = market.worth(trader)
        assert closed["outcome"] == "filled"
        assert (closed["side"], closed["quantity"]) == ("sell", 1)
        assert (closed["execution_price"], closed["slippage"]) == (Decimal("1.10494"), Decimal("0.00006"))
        assert (closed["realized_pnl"], closed["margin"], closed["commission"]) == (468, 0, 0)
        assert (worth["balance"], worth["equity"], worth["margin_used"]) == ("100468.00", "100468.00", "0.00")
        assert (worth["open_positions"], worth["margin_level"]) == (0, None)

    def test_the_answer_tells_the_position_as_it_is_left(self, market: Market, trader: User, position_id: str) -> None:
        closed = market.close_out(trader, position_id)

        position = closed["position"]
        assert (position["position_id"], position["status"], position["side"]) == (position_id, "closed", "long")
        assert (position["quantity"], position["margin_used"], position["realized_pnl"]) == (0, 0, 468)

    def test_the_rows_of_a_close(self, market: Market, trader: User, position_id: str) -> None:
        before = market.counts(trader)

        closed = market.close_out(trader, position_id)

        written = {table: count - before[table] for table, count in market.counts(trader).items()}
        order = max(market.rows("orders", trader), key=lambda row: row["id"])
        (position,) = market.rows("positions", trader)
        entries = sorted(market.rows("ledger_entries", trader), key=lambda row: row["entry_number"])[-2:]
        once = dict.fromkeys(ORDER_TABLES, 1)
        assert written == once | {
            "positions": 0, "ledger_entries": 2, "order_audit_log": 4, "client_order_ids": 0,
        }  # fmt: skip
        assert (str(order["id"]), order["reduce_only"], order["order_type"]) == (closed["order_id"], True, "market")
        assert str(order["position_id"]) == position_id
        assert [(entry["entry_type"], entry["amount"], entry["balance_after"]) for entry in entries] == [
            ("realized_pnl", 468, 100_468),
            ("commission", 0, 100_468),
        ]
        assert (position["status"], position["quantity"], position["margin_used"]) == ("closed", 0, 0)
        assert position["closed_at"] == order["executed_at"]
        assert position["stop_loss"] == Decimal("1.05")

    def test_the_audit_says_which_position_was_meant(self, market: Market, trader: User, position_id: str) -> None:
        closed = market.close_out(trader, position_id)

        rows = market.audit(trader, closed["order_id"])
        assert [row["action"] for row in rows] == ["SUBMITTED", "APPROVED", "EXECUTED", "FILLED"]
        assert rows[0]["details"]["position_id"] == position_id
        assert rows[1]["details"]["reduces"] is True

    def test_the_event_tells_order_fill_position_and_account(
        self, market: Market, trader: User, position_id: str
    ) -> None:
        closed = market.close_out(trader, position_id, request_id="request-7")

        event = market.last_event(trader)
        payload = event["payload"]
        assert (event["event_type"], event["sequence"]) == ("order.filled", closed["sequence"])
        assert event["request_id"] == "request-7"
        assert [fact["status"] for fact in payload["orders"]] == ["pending_new", "filled"]
        assert (payload["positions"][0]["status"], payload["account"]["balance"]) == ("closed", 100_468)

    def test_all_rows_are_of_one_transaction(self, market: Market, trader: User, position_id: str) -> None:
        closed = market.close_out(trader, position_id)

        ((transaction,),) = market.execute("SELECT xmin::text FROM orders WHERE id = %s", (closed["order_id"],))
        for table in ("fills", "positions", "ledger_entries", "order_audit_log", "events", "accounts"):
            ((count,),) = market.execute(
                f"SELECT count(*) FROM {table} WHERE user_id = %s AND xmin::text = %s", (trader.user_id, transaction)
            )
            assert count > 0, table


class TestFigures:
    def test_a_short_is_bought_back_at_the_ask(self, market: Market, trader: User) -> None:
        # given a short from 1.09994, then 1.0900/1.0902
        opened = market.trade(trader, side="sell", quantity="0.5")
        market.quote("EURUSD", "1.0900", "1.0902")

        closed = market.close_out(trader, opened["position_id"])

        assert (closed["side"], closed["execution_price"]) == ("buy", Decimal("1.09026"))
        assert closed["realized_pnl"] == 484  # (1.09994 - 1.09026) x 50,000

    def test_a_part_releases_its_share_of_the_margin(self, market: Market, trader: User) -> None:
        opened = market.trade(trader)
        market.quote("EURUSD", "1.1050", "1.1052")

        closed = market.close_out(trader, opened["position_id"], quantity="0.3")

        # then 0.7 x 1100.26 = 770.182 stays, 0.3 x 468 is realized, and the rest stands at (1.1050 - 1.10026) x 70,000
        (position,) = market.rows("positions", trader)
        told = closed["position"]
        assert closed["realized_pnl"] == Decimal("140.40")
        assert (position["status"], position["quantity"], position["margin_used"]) == (
            "open",
            Decimal("0.7"),
            Decimal("770.18"),
        )
        assert (told["status"], told["quantity"], told["margin_used"]) == ("open", Decimal("0.7"), Decimal("770.18"))
        assert told["unrealized_pnl"] == Decimal("331.80")
        assert market.worth(trader)["equity"] == "100472.20"

    def test_parts_add_up_to_the_whole(self, market: Market, trader: User) -> None:
        opened = market.trade(trader)
        market.quote("EURUSD", "1.1050", "1.1052")

        parts = [market.close_out(trader, opened["position_id"], quantity=part) for part in ("0.33", "0.33")]
        rest = market.close_out(trader, opened["position_id"])

        assert rest["quantity"] == Decimal("0.34")
        assert sum(part["realized_pnl"] for part in [*parts, rest]) == 468
        assert market.worth(trader)["margin_used"] == "0.00"

    def test_a_profit_in_yen_is_changed_at_the_ask(self, market: Market, trader: User) -> None:
        # given USDJPY bought at 150.011
        opened = market.trade(trader, symbol="USDJPY", quantity="0.5")
        market.quote("USDJPY", "151.012", "151.021")

        closed = market.close_out(trader, opened["position_id"])

        # then 0.6 pips of 0.001 is one tick: 151.011; 1.000 x 50,000 / 151.021
        assert closed["execution_price"] == Decimal("151.011")
        assert closed["realized_pnl"] == Decimal("331.08")

    def test_a_stock_pays_commission_again(self, market: Market, trader: User) -> None:
        opened = market.trade(trader, symbol="AAPL", quantity="100")

        closed = market.close_out(trader, opened["position_id"])

        # then (149.98 - 150.00) x 100, and 1.60 twice
        assert (closed["realized_pnl"], closed["commission"]) == (-2, Decimal("1.60"))
        assert market.account(trader)["balance"] == Decimal("99994.80")

    def test_a_cash_holding_closes_by_selling(self, market: Market) -> None:
        user = market.user(kind="cash", balance="15003.60")
        opened = market.trade(user, symbol="AAPL", quantity="100")
        market.quote("AAPL", "155.00", "155.02")

        closed = market.close_out(user, opened["position_id"])

        assert (closed["side"], closed["realized_pnl"]) == ("sell", 500)
        assert market.worth(user)["free_margin"] == "15500.40"  # 15,003.60 - 1.60 + 500 - 1.60

    def test_a_netting_position_closes_like_any_other(self, market: Market) -> None:
        user = market.user(position_mode="netting")
        opened = market.trade(user)
        market.trade(user)

        closed = market.close_out(user, opened["position_id"])

        assert closed["quantity"] == 2
        assert market.worth(user)["open_positions"] == 0

    def test_hedging_closes_the_position_that_is_named(self, market: Market, trader: User) -> None:
        one, other = market.trade(trader), market.trade(trader)

        market.close_out(trader, other["position_id"])

        states = {str(row["id"]): row["status"] for row in market.rows("positions", trader)}
        assert states == {one["position_id"]: "open", other["position_id"]: "closed"}

    def test_it_slips_more_after_hours(self, market: Market, trader: User) -> None:
        opened = market.trade(trader)
        market.close("FX")
        market.execute("UPDATE platform_settings SET trade_always = true")

        assert market.close_out(trader, opened["position_id"])["slippage"] == Decimal("0.00012")

    def test_it_may_lose_more_than_there_is(self, market: Market) -> None:
        # given an account that a fall of 500 pips takes below zero
        user = market.user(balance=1200)
        opened = market.trade(user)
        market.quote("EURUSD", "1.0500", "1.0502")

        closed = market.close_out(user, opened["position_id"])

        assert closed["realized_pnl"] == -5032  # (1.04994 - 1.10026) x 100,000
        assert market.account(user)["balance"] == -3832


class TestWhoMay:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE profiles SET account_status = 'suspended' WHERE id = %(user)s",
            "UPDATE profiles SET account_status = 'closed' WHERE id = %(user)s",
            "UPDATE profiles SET kyc_status = 'rejected' WHERE id = %(user)s",
            "UPDATE accounts SET trading_state = 'halted' WHERE user_id = %(user)s",
            "UPDATE platform_settings SET trading_state = 'reducing'",
            "UPDATE platform_settings SET trading_state = 'halted'",
            "UPDATE instruments SET trading_state = 'halted' WHERE symbol = 'EURUSD'",
            "UPDATE risk_settings SET max_position_size = 0.01, max_positions = 0, daily_trade_limit = 0, "
            "max_daily_loss = 0 WHERE user_id = %(user)s",
        ],
    )
    @pytest.mark.parametrize("quantity", [None, "0.4"])
    def test_who_may_not_open_may_close(
        self, market: Market, trader: User, statement: str, quantity: str | None
    ) -> None:
        opened = market.trade(trader)
        market.execute(statement, {"user": trader.user_id})

        closed = market.close_out(trader, opened["position_id"], quantity=quantity)

        assert closed["outcome"] == "filled"

    def test_without_any_free_margin(self, market: Market) -> None:
        user = market.user(balance="1126.26")
        opened = market.trade(user)
        market.quote("EURUSD", "1.0990", "1.0992")

        assert market.close_out(user, opened["position_id"], quantity="0.1")["outcome"] == "filled"

    def test_stale_quotes_of_other_positions_do_not_matter(self, market: Market, trader: User) -> None:
        opened = market.trade(trader)
        market.trade(trader, symbol="AAPL")
        market.quote("AAPL", "100", "100.02", stale_time())

        assert market.close_out(trader, opened["position_id"])["outcome"] == "filled"


class TestDenial:
    def denied(self, market: Market, user: User, position_id: str, **fields: object) -> dict[str, Any]:
        before = market.account(user)
        denied = market.close_out(user, position_id, **fields).answer
        order = max(market.rows("orders", user), key=lambda row: row["id"])
        assert denied["outcome"] == "denied"
        assert "position" not in denied
        assert (str(order["id"]), order["status"], order["failure_code"]) == (
            denied["order_id"],
            "denied",
            denied["code"],
        )
        assert market.last_event(user)["event_type"] == "order.denied"
        assert market.account(user)["balance"] == before["balance"]
        assert market.worth(user)["open_positions"] == 1
        return denied

    def test_more_than_is_held(self, market: Market, trader: User) -> None:
        opened = market.trade(trader)

        denied = self.denied(market, trader, opened["position_id"], quantity="1.01")

        assert denied["code"] == "INSUFFICIENT_POSITION"
        assert denied["details"] == {
            "field": "quantity", "value": "1.01", "constraint": "at most 1", "held_quantity": 1,
        }  # fmt: skip

    def test_while_the_market_is_closed(self, market: Market, trader: User) -> None:
        opened = market.trade(trader)
        market.close("FX")

        denied = self.denied(market, trader, opened["position_id"])

        assert (denied["code"], denied["details"]["opens_at"]) == ("MARKET_CLOSED", None)

    def test_more_slippage_than_allowed(self, market: Market, trader: User) -> None:
        opened = market.trade(trader)

        denied = self.denied(market, trader, opened["position_id"], max_slippage="0.00005")

        assert denied["code"] == "SLIPPAGE_EXCEEDED"
        assert market.close_out(trader, opened["position_id"], max_slippage="0.00006")["outcome"] == "filled"


class TestRefusal:
    """What raises, keeps nothing and leaves the key free."""

    def refused(self, market: Market, user: User, sqlstate: str, position_id: object, **fields: object) -> Any:
        before, account = market.counts(user), market.account(user)
        with raises_sqlstate(sqlstate) as caught:
            market.close_out(user, position_id, **fields)
        assert (market.counts(user), market.account(user)) == (before, account)
        return details_of(caught.value)

    def test_a_position_that_is_closed(self, market: Market, trader: User) -> None:
        opened = market.trade(trader)
        market.close_out(trader, opened["position_id"])

        details = self.refused(market, trader, "TR010", opened["position_id"])

        assert details == {"field": "status", "value": "closed", "constraint": "an open position"}

    def test_a_position_that_is_not_there_or_somebody_elses(self, market: Market, trader: User) -> None:
        theirs = market.trade(market.user())["position_id"]

        assert self.refused(market, trader, "TR001", uuid.uuid4())["field"] == "id"
        assert self.refused(market, trader, "TR001", theirs)["field"] == "id"

    def test_a_stale_price(self, market: Market, trader: User) -> None:
        opened = market.trade(trader)
        market.quote("EURUSD", "1.1000", "1.1002", stale_time())

        assert self.refused(market, trader, "TR004", opened["position_id"])["value"] == "EURUSD"

    def test_an_instrument_that_is_traded_no_more(self, market: Market, trader: User) -> None:
        opened = market.trade(trader)
        market.execute("UPDATE instruments SET is_active = false WHERE symbol = 'EURUSD'")
        try:
            assert self.refused(market, trader, "TR004", opened["position_id"])["value"] == "EURUSD"
        finally:
            market.execute("UPDATE instruments SET is_active = true WHERE symbol = 'EURUSD'")

    @pytest.mark.parametrize("quantity", ["0", "-1", "0.009", "0.015", "1000.01", "NaN", "Infinity"])
    def test_a_part_out_of_the_bounds(self, market: Market, trader: User, quantity: str) -> None:
        opened = market.trade(trader)

        details = self.refused(market, trader, "TR006", opened["position_id"], quantity=quantity)

        assert details["field"] == "quantity"

    @pytest.mark.parametrize("named", [True, False])
    def test_the_whole_is_closed_whatever_the_bounds(self, market: Market, trader: User, named: bool) -> None:
        # given bounds that came after the position
        opened = market.trade(trader, quantity="0.05")
        bounds = "UPDATE instruments SET quantity_min = %s, quantity_step = %s WHERE symbol = 'EURUSD'"
        market.execute(bounds, ("0.1", "0.1"))
        try:
            closed = market.close_out(trader, opened["position_id"], quantity="0.05" if named else None)
        finally:
            market.execute(bounds, ("0.01", "0.01"))

        assert closed["outcome"] == "filled"

    @pytest.mark.parametrize("slippage", ["-0.1", "NaN"])
    def test_a_slippage_that_nobody_can_mean(self, market: Market, trader: User, slippage: str) -> None:
        opened = market.trade(trader)

        details = self.refused(market, trader, "TR006", opened["position_id"], max_slippage=slippage)

        assert details["field"] == "max_slippage"

    def test_without_a_key(self, market: Market, trader: User) -> None:
        opened = market.trade(trader)

        details = self.refused(market, trader, "TR006", opened["position_id"], idempotency_key=None)

        assert details["field"] == "idempotency_key"

    @pytest.mark.parametrize("field", ["price", "commission", "margin", "side", "symbol", "notice"])
    def test_nothing_but_what_a_caller_may_say_is_taken(self, market: Market, trader: User, field: str) -> None:
        opened = market.trade(trader)

        closed = market.close_out(trader, opened["position_id"], **{field: "9"})

        submitted = market.audit(trader, closed["order_id"])[0]["details"]
        assert (closed["symbol"], closed["execution_price"]) == ("EURUSD", Decimal("1.09994"))
        assert submitted.get(field) in (None, "sell", "EURUSD")


class TestReplayAndRaces:
    def test_the_same_answer_byte_for_byte_whatever_has_changed_since(self, market: Market, trader: User) -> None:
        request = keyed_request(trader, position_id=market.trade(trader)["position_id"], quantity="0.4")
        first = send(market.trader, request, "close_position")
        market.close_out(trader, request["position_id"])
        market.execute("DELETE FROM quotes")

        second = send(market.trader, request, "close_position")

        assert second.replayed
        assert first.text == second.text
        assert first["position"]["quantity"] == Decimal("0.6")

    def test_a_denial_is_told_again(self, market: Market, trader: User) -> None:
        request = keyed_request(trader, position_id=market.trade(trader)["position_id"], quantity="2")

        first, second = [send(market.trader, request, "close_position") for _ in range(2)]

        assert (first.replayed, second.replayed, second["outcome"]) == (False, True, "denied")
        assert first.text == second.text

    def test_other_content_under_the_key(self, market: Market, trader: User) -> None:
        request = keyed_request(trader, position_id=market.trade(trader)["position_id"], quantity="0.4")
        send(market.trader, request, "close_position")

        with raises_sqlstate("TR003"):
            send(market.trader, request | {"request_hash": "another"}, "close_position")

    def test_twenty_keys_close_once(self, market: Market, trader: User) -> None:
        position_id = market.trade(trader)["position_id"]
        calls = [("close_position", keyed_request(trader, position_id=position_id)) for _ in range(20)]

        told = told_at_once(market, calls)

        assert (told.count("filled"), told.count("TR010")) == (1, 19)
        assert market.counts(trader)["fills"] == 2
        assert market.worth(trader)["open_positions"] == 0
        assert deadlocks(market) == 0

    def test_twenty_callers_with_one_key_are_told_the_same(self, market: Market, trader: User) -> None:
        request = keyed_request(trader, position_id=market.trade(trader)["position_id"])

        told = told_at_once(market, [("close_position", request)] * 20)

        assert (told.count("filled"), told.count("replayed")) == (1, 19)
        assert deadlocks(market) == 0

    def test_parts_that_race_never_close_more_than_there_is(self, market: Market, trader: User) -> None:
        position_id = market.trade(trader)["position_id"]
        calls = [("close_position", keyed_request(trader, position_id=position_id, quantity="0.3")) for _ in range(12)]

        told = told_at_once(market, calls)

        (position,) = market.rows("positions", trader)
        assert (told.count("filled"), told.count("INSUFFICIENT_POSITION")) == (3, 9)
        assert (position["status"], position["quantity"]) == ("open", Decimal("0.1"))
        assert deadlocks(market) == 0

    def test_a_close_races_with_orders_on_the_same_netting_position(self, market: Market) -> None:
        # given a position that others add to and take from while it is closed
        user = market.user(position_mode="netting", balance=10_000_000, risk={"daily_trade_limit": None})
        position_id = market.trade(user, quantity="5")["position_id"]
        calls: list[tuple[str, dict[str, object]]] = [
            ("close_position", keyed_request(user, position_id=position_id)) for _ in range(4)
        ]
        calls += [("execute_order_atomic", order_request(user)) for _ in range(8)]
        calls += [("execute_order_atomic", order_request(user, side="sell", quantity="0.5")) for _ in range(8)]

        told = told_at_once(market, calls)

        # then it was closed once, however large it was then, and what came after made positions of its own
        assert told[:4].count("filled") == 1
        assert told[:4].count("TR010") == 3
        rows = {str(row["id"]): row for row in market.rows("positions", user)}
        assert rows[position_id]["status"] == "closed"
        assert sum(row["status"] == "open" for row in rows.values()) <= 1
        assert deadlocks(market) == 0
        assert market.book_faults() == []
