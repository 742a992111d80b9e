"""change_position: what each form of a level means, what it is held against, what is kept of it, and the races."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.mutations import remove_text
from tests.kit.orders import (
    Market,
    deadlocks,
    details_of,
    keyed_request,
    raises_sqlstate,
    send,
    stale_time,
    told_at_once,
)
from tests.kit.positions import change, change_request, levels_of, row_of
from tests.kit.risk import stop_out_step


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
def long(market: Market, trader: User) -> str:
    """1 lot of EURUSD bought at 1.10026, and the market above it: 1.1050 / 1.1052."""
    opened = market.trade(trader)
    market.quote("EURUSD", "1.1050", "1.1052")
    return opened["position_id"]


@pytest.fixture
def short(market: Market, trader: User) -> str:
    """Half a lot of EURUSD sold at 1.09994, and the market below it: 1.0950 / 1.0952."""
    opened = market.trade(trader, side="sell", quantity="0.5")
    market.quote("EURUSD", "1.0950", "1.0952")
    return opened["position_id"]


class TestForms:
    @pytest.mark.parametrize(
        ("asked", "stop_loss", "take_profit"),
        [
            ({"stop_loss": "1.095"}, "1.095", None),
            ({"stop_loss": "1.1049"}, "1.1049", None),
            ({"stop_loss_distance": "0.005"}, "1.09526", None),
            ({"stop_loss_amount": "250"}, "1.09776", None),  # 250 / 100,000 = 0.0025
            ({"stop_loss_amount": "250.50"}, "1.09776", None),  # 0.002505: one tick less is lost
            ({"breakeven": True}, "1.10026", None),
            ({"take_profit": "1.12"}, None, "1.12"),
            ({"take_profit_distance": "0.01"}, None, "1.11026"),
            ({"take_profit_amount": "1000"}, None, "1.11026"),
            ({"take_profit_amount": "1000.01"}, None, "1.11027"),  # what was asked for at least
            ({"stop_loss_amount": "100", "take_profit": "1.2"}, "1.09926", "1.2"),
        ],
    )
    def test_of_a_long(
        self,
        market: Market,
        trader: User,
        long: str,
        asked: dict[str, Any],
        stop_loss: str | None,
        take_profit: str | None,
    ) -> None:
        change(market, trader, long, **asked)

        wanted = [None if price is None else Decimal(price) for price in (stop_loss, take_profit)]
        assert levels_of(market, trader, long) == (*wanted, None, None)

    @pytest.mark.parametrize(
        ("asked", "stop_loss", "take_profit"),
        [
            ({"stop_loss": "1.0953"}, "1.0953", None),
            ({"stop_loss_distance": "0.005"}, "1.10494", None),
            ({"stop_loss_amount": "250.30"}, "1.10494", None),  # 250.30 / 50,000 = 0.005006
            ({"breakeven": True}, "1.09994", None),
            ({"take_profit": "1.09"}, None, "1.09"),
            ({"take_profit_distance": "0.01"}, None, "1.08994"),
            ({"take_profit_amount": "500.10"}, None, "1.08993"),
        ],
    )
    def test_of_a_short(
        self,
        market: Market,
        trader: User,
        short: str,
        asked: dict[str, Any],
        stop_loss: str | None,
        take_profit: str | None,
    ) -> None:
        change(market, trader, short, **asked)

        wanted = [None if price is None else Decimal(price) for price in (stop_loss, take_profit)]
        assert levels_of(market, trader, short) == (*wanted, None, None)

    def test_an_amount_is_converted_as_the_loss_that_it_is(self, market: Market, trader: User) -> None:
        # given half a lot of USDJPY bought at 150.011, and USDJPY at 150.000 / 150.010
        opened = market.trade(trader, symbol="USDJPY", quantity="0.5")

        change(market, trader, opened["position_id"], stop_loss_amount="100", take_profit_amount="100")

        # then a loss of 100 USD costs 15,000.0 yen at the bid, 0.3000 a unit; a profit 15,001 at the ask, 0.30002
        stop_loss, take_profit, *_ = levels_of(market, trader, opened["position_id"])
        assert (stop_loss, take_profit) == (Decimal("149.711"), Decimal("150.312"))

    def test_a_trail_of_a_long_begins_at_the_bid(self, market: Market, trader: User, long: str) -> None:
        change(market, trader, long, trailing_distance="0.002")

        assert levels_of(market, trader, long) == (Decimal("1.1030"), None, Decimal("0.002"), Decimal("1.1050"))

    def test_a_trail_of_a_short_begins_at_the_ask(self, market: Market, trader: User, short: str) -> None:
        change(market, trader, short, trailing_distance="0.002")

        assert levels_of(market, trader, short) == (Decimal("1.0972"), None, Decimal("0.002"), Decimal("1.0952"))

    def test_what_is_left_out_stays(self, market: Market, trader: User, long: str) -> None:
        change(market, trader, long, trailing_distance="0.002")

        change(market, trader, long, take_profit="1.2")

        assert levels_of(market, trader, long) == (
            Decimal("1.1030"), Decimal("1.2"), Decimal("0.002"), Decimal("1.1050"),
        )  # fmt: skip

    def test_null_removes(self, market: Market, trader: User, long: str) -> None:
        change(market, trader, long, stop_loss="1.09", take_profit="1.2")

        change(market, trader, long, stop_loss=None, take_profit=None)

        assert levels_of(market, trader, long) == (None, None, None, None)

    def test_a_trail_that_is_removed_leaves_its_stop_where_it_is(self, market: Market, trader: User, long: str) -> None:
        change(market, trader, long, trailing_distance="0.002")

        change(market, trader, long, trailing_distance=None)

        assert levels_of(market, trader, long) == (Decimal("1.1030"), None, None, None)

    @pytest.mark.parametrize(
        ("asked", "left"),
        [
            ({"stop_loss": None}, None),
            ({"stop_loss": "1.1"}, "1.1"),
            ({"stop_loss": "1.1", "trailing_distance": None}, "1.1"),
            ({"breakeven": True}, "1.10026"),
        ],
    )
    def test_a_stop_of_another_form_ends_the_trail(
        self, market: Market, trader: User, long: str, asked: dict[str, Any], left: str | None
    ) -> None:
        change(market, trader, long, trailing_distance="0.002")

        change(market, trader, long, **asked)

        assert levels_of(market, trader, long) == (left and Decimal(left), None, None, None)

    def test_an_average_entry_between_two_ticks_is_rounded_for_the_holder(self, market: Market) -> None:
        # given a long of 1.10026 and 1.10527 in one: 1.102765
        user = market.user(position_mode="netting")
        position_id = market.trade(user)["position_id"]
        market.quote("EURUSD", "1.1050", "1.10521")
        market.trade(user)
        assert row_of(market, user, position_id)["entry_price"] == Decimal("1.102765")

        change(market, user, position_id, breakeven=True, take_profit_distance="0.01")

        assert levels_of(market, user, position_id)[:2] == (Decimal("1.10277"), Decimal("1.11277"))

    def test_an_order_with_a_stop_loss_ends_the_trail_of_what_it_adds_to(self, market: Market) -> None:
        user = market.user(position_mode="netting")
        position_id = market.trade(user)["position_id"]
        change(market, user, position_id, trailing_distance="0.002")

        market.trade(user, stop_loss="1.05")

        assert levels_of(market, user, position_id) == (Decimal("1.05"), None, None, None)


class TestRefusal:
    """What raises, keeps nothing and leaves the key free."""

    def refused(self, market: Market, user: User, sqlstate: str, position_id: object, **asked: Any) -> Any:
        before = market.counts(user), market.account(user), market.rows("positions", user)
        with raises_sqlstate(sqlstate) as caught:
            change(market, user, position_id, **asked)
        assert (market.counts(user), market.account(user), market.rows("positions", user)) == before
        return details_of(caught.value)

    @pytest.mark.parametrize(
        ("form", "value", "constraint"),
        [
            ("stop_loss", "1.1050", "below the bid 1.1050"),
            ("stop_loss", "1.1100", "below the bid 1.1050"),
            ("take_profit", "1.1050", "above the bid 1.1050"),
            ("take_profit", "1.10", "above the bid 1.1050"),
            ("take_profit_distance", "0.004", "such that its level, 1.10426, lies above the bid 1.1050"),
            ("take_profit_amount", "400", "such that its level, 1.10426, lies above the bid 1.1050"),
            ("stop_loss_distance", "1.2", "such that its level, -0.09974, lies above 0"),
            ("stop_loss_amount", "200000", "such that its level, -0.89974, lies above 0"),
            ("trailing_distance", "1.2", "such that its level, -0.0950, lies above 0"),
        ],
    )
    def test_the_wrong_side_of_a_long(
        self, market: Market, trader: User, long: str, form: str, value: str, constraint: str
    ) -> None:
        details = self.refused(market, trader, "TR006", long, **{form: value})

        assert (details["field"], details["value"], details["constraint"]) == (form, value, constraint)

    @pytest.mark.parametrize(
        ("form", "value", "constraint"),
        [
            ("stop_loss", "1.0952", "above the ask 1.0952"),
            ("stop_loss", "1.09", "above the ask 1.0952"),
            ("take_profit", "1.0952", "below the ask 1.0952"),
            ("take_profit_distance", "0.004", "such that its level, 1.09594, lies below the ask 1.0952"),
        ],
    )
    def test_the_wrong_side_of_a_short(
        self, market: Market, trader: User, short: str, form: str, value: str, constraint: str
    ) -> None:
        details = self.refused(market, trader, "TR006", short, **{form: value})

        assert (details["field"], details["constraint"]) == (form, constraint)

    def test_breakeven_while_the_market_is_on_the_wrong_side(self, market: Market, trader: User, long: str) -> None:
        market.quote("EURUSD", "1.10026", "1.1004")

        details = self.refused(market, trader, "TR006", long, breakeven=True)

        assert details == {
            "field": "breakeven",
            "value": "true",
            "constraint": "such that its level, 1.10026, lies below the bid 1.10026",
        }

    @pytest.mark.parametrize(
        "form", ["stop_loss", "take_profit", "stop_loss_distance", "take_profit_distance", "trailing_distance"]
    )
    def test_a_price_between_two_ticks(self, market: Market, trader: User, long: str, form: str) -> None:
        details = self.refused(market, trader, "TR006", long, **{form: "0.010001"})

        assert (details["field"], details["constraint"]) == (form, "a positive multiple of 0.00001")

    @pytest.mark.parametrize("value", ["0", "-1", "NaN", "Infinity", "10000000000000000000"])
    @pytest.mark.parametrize("form", ["stop_loss", "stop_loss_amount", "trailing_distance", "take_profit_distance"])
    def test_a_number_that_nobody_can_mean(
        self, market: Market, trader: User, long: str, form: str, value: str
    ) -> None:
        assert self.refused(market, trader, "TR006", long, **{form: value})["field"] == form

    @pytest.mark.parametrize(
        ("asked", "field", "beside"),
        [
            ({"stop_loss": "1.09", "stop_loss_distance": "0.01"}, "stop_loss_distance", "stop_loss"),
            ({"stop_loss": None, "breakeven": True}, "breakeven", "stop_loss"),
            ({"stop_loss": "1.09", "trailing_distance": "0.01"}, "trailing_distance", "stop_loss"),
            ({"breakeven": True, "stop_loss_amount": "1"}, "breakeven", "stop_loss_amount"),
            ({"take_profit": "1.2", "take_profit_amount": "1"}, "take_profit_amount", "take_profit"),
        ],
    )
    def test_two_forms_of_one_level(
        self, market: Market, trader: User, long: str, asked: dict[str, Any], field: str, beside: str
    ) -> None:
        details = self.refused(market, trader, "TR006", long, **asked)

        assert (details["field"], details["constraint"]) == (field, f"left out beside {beside}")

    def test_nothing_to_change(self, market: Market, trader: User, long: str) -> None:
        assert self.refused(market, trader, "TR006", long)["field"] == "levels"

    def test_a_stale_quote(self, market: Market, trader: User, long: str) -> None:
        market.quote("EURUSD", "1.1050", "1.1052", stale_time())

        assert self.refused(market, trader, "TR004", long, stop_loss="1.09")["value"] == "EURUSD"

    def test_a_stale_rate_of_an_amount(self, market: Market, trader: User) -> None:
        # given a position of GBPJPY's kind: its amounts go through USDJPY
        user = market.user(currency="EUR")
        position_id = market.trade(user, symbol="AAPL", quantity="10")["position_id"]
        market.quote("EURUSD", "1.1050", "1.1052", stale_time())

        assert self.refused(market, user, "TR004", position_id, stop_loss_amount="10")["value"] == "EURUSD"
        assert change(market, user, position_id, stop_loss="140")["outcome"] == "changed"

    def test_an_instrument_that_is_traded_no_more(self, market: Market, trader: User, long: str) -> None:
        market.execute("UPDATE instruments SET is_active = false WHERE symbol = 'EURUSD'")
        try:
            assert self.refused(market, trader, "TR004", long, stop_loss="1.09")["value"] == "EURUSD"
        finally:
            market.execute("UPDATE instruments SET is_active = true WHERE symbol = 'EURUSD'")

    def test_a_position_that_is_closed(self, market: Market, trader: User, long: str) -> None:
        market.close_out(trader, long)

        details = self.refused(market, trader, "TR010", long, stop_loss="1.09")

        assert details == {"field": "status", "value": "closed", "constraint": "an open position"}

    def test_a_position_that_is_not_there_or_somebody_elses(self, market: Market, trader: User, long: str) -> None:
        assert self.refused(market, market.user(), "TR001", long, stop_loss="1.09")["field"] == "id"
        assert self.refused(market, trader, "TR001", uuid.uuid4(), stop_loss="1.09")["field"] == "id"

    def test_another_version_tells_what_there_is(self, market: Market, trader: User, long: str) -> None:
        change(market, trader, long, stop_loss="1.09")

        details = self.refused(market, trader, "TR010", long, version=1, stop_loss="1.08")

        assert (details["field"], details["value"], details["constraint"]) == ("version", "1", "the version 2")
        assert (details["position"]["id"], details["position"]["stop_loss"]) == (long, "1.09000")
        assert details["position"]["version"] == 2

    def test_without_a_key(self, market: Market, trader: User, long: str) -> None:
        details = self.refused(market, trader, "TR006", long, stop_loss="1.09", idempotency_key=None)

        assert details["field"] == "idempotency_key"


class TestWhoAndWhen:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE profiles SET account_status = 'suspended' WHERE id = %(user)s",
            "UPDATE profiles SET kyc_status = 'rejected' WHERE id = %(user)s",
            "UPDATE accounts SET trading_state = 'halted' WHERE user_id = %(user)s",
            "UPDATE platform_settings SET trading_state = 'halted'",
            "UPDATE instruments SET trading_state = 'halted' WHERE symbol = 'EURUSD'",
        ],
    )
    def test_who_may_not_open_may_protect(self, market: Market, trader: User, long: str, statement: str) -> None:
        market.execute(statement, {"user": trader.user_id})

        assert change(market, trader, long, stop_loss="1.09")["outcome"] == "changed"

    def test_while_the_market_is_closed_its_last_quote_holds(self, market: Market, trader: User, long: str) -> None:
        market.quote("EURUSD", "1.1050", "1.1052", stale_time())
        market.close("FX")

        assert change(market, trader, long, stop_loss="1.09")["outcome"] == "changed"

    def test_what_only_removes_needs_no_quote(self, market: Market, trader: User, long: str) -> None:
        change(market, trader, long, trailing_distance="0.01", take_profit="1.2")
        market.execute("DELETE FROM quotes")

        changed = change(market, trader, long, stop_loss=None, trailing_distance=None, take_profit=None)

        assert (changed["position"]["current_price"], changed["position"]["unrealized_pnl"]) == (None, None)
        assert levels_of(market, trader, long) == (None, None, None, None)


class TestBooks:
    def test_the_rows_of_a_change(self, market: Market, trader: User, long: str) -> None:
        before, account = market.counts(trader), market.account(trader)

        changed = change(market, trader, long, trailing_distance="0.002", request_id="request-7")

        written = {table: count - before[table] for table, count in market.counts(trader).items()}
        after = market.account(trader)
        assert {table for table, count in written.items() if count} == {
            "order_audit_log", "audit_pii", "events", "idempotency_keys",
        }  # fmt: skip
        assert set(written.values()) == {0, 1}
        assert (after["balance"], after["last_sequence"]) == (account["balance"], account["last_sequence"] + 1)
        assert changed["sequence"] == after["last_sequence"]

    def test_the_audit_tells_before_and_after(self, market: Market, trader: User, long: str) -> None:
        change(market, trader, long, stop_loss="1.09")

        change(market, trader, long, trailing_distance="0.002", request_id="request-7")
        change(market, trader, long, take_profit="1.2", request_id="request-8")

        row, last = sorted(market.rows("order_audit_log", trader), key=lambda row: row["version"])[-2:]
        details = row["details"]
        assert (row["action"], row["order_id"], row["status"]) == ("POSITION_CHANGED", None, None)
        assert details["asked"] == {"trailing_distance": "0.002"}
        assert (float(details["before"]["stop_loss"]), details["before"]["version"]) == (1.09, 2)
        assert (float(details["position"]["stop_loss"]), float(details["position"]["trail_distance"])) == (1.103, 0.002)
        assert details["position"]["position_id"] == long
        assert (details["request_id"], last["details"]["request_id"]) == ("request-7", "request-8")
        assert float(last["details"]["before"]["trail_distance"]) == 0.002

    def test_the_event_tells_position_and_account(self, market: Market, trader: User, long: str) -> None:
        change(market, trader, long, take_profit="1.2", request_id="request-7")

        event = market.last_event(trader)
        payload = market.last_payload(trader)
        (position,) = payload["positions"]
        assert (event["event_type"], event["request_id"]) == ("position.changed", "request-7")
        assert (position["position_id"], position["take_profit"], position["stop_loss"]) == (long, Decimal("1.2"), None)
        assert (position["version"], position["status"]) == (2, "open")
        # (1.1050 - 1.10026) x 100,000
        assert (position["current_price"], position["unrealized_pnl"]) == (Decimal("1.1050"), 474)
        assert payload["account"]["margin_used"] == Decimal("1100.26")

    def test_the_answer_is_the_position_as_it_is_read(self, market: Market, trader: User, long: str) -> None:
        changed = change(market, trader, long, stop_loss_amount="100")

        row = market.trader.execute("SELECT list_positions(%s, NULL)", (trader.user_id,)).fetchone()
        assert row is not None
        assert [changed["position"]] == row[0]
        assert (changed["position"]["stop_loss"], changed["position"]["version"]) == ("1.09926", 2)

    def test_each_fill_and_each_change_is_a_version(self, market: Market, trader: User, long: str) -> None:
        change(market, trader, long, version=1, stop_loss="1.09")
        market.close_out(trader, long, quantity="0.4")

        assert change(market, trader, long, version=3, stop_loss="1.08")["position"]["version"] == 4

    @pytest.mark.parametrize(
        ("tamper", "problem"),
        [
            ("take_profit = 2", "the audit tells another position: take_profit is 2, by the audit none"),
            (
                "trail_distance = 0.003",
                "the audit tells another position: trail_distance is 0.003, by the audit 0.002",
            ),
            ("stop_loss = 1.1031", "its stop trails at 1.1031, its mark is 1.1050"),
            ("stop_loss = 1.1020, trail_mark = 1.1040", "its stop trails at 1.1020, its mark is 1.1040"),
        ],
    )
    def test_the_books_see_a_level_that_nobody_set(
        self, market: Market, trader: User, long: str, tamper: str, problem: str
    ) -> None:
        change(market, trader, long, trailing_distance="0.002")

        with market.owner.transaction(force_rollback=True):
            market.execute(f"UPDATE positions SET {tamper} WHERE id = %s", (long,))
            faults = market.book_faults()

        assert (long, problem) in [(subject, told) for _, subject, told in faults]

    def test_a_level_that_the_feed_has_moved_is_in_order_and_one_behind_the_stop_is_not(
        self, market: Market, trader: User, long: str
    ) -> None:
        change(market, trader, long, trailing_distance="0.002")
        moved = "UPDATE trailing_levels SET mark = mark + %(by)s, level = level + %(by)s WHERE subject_id = %(id)s"

        with market.owner.transaction(force_rollback=True):
            market.execute(moved, {"by": "0.005", "id": long})
            assert market.book_faults() == []
        with market.owner.transaction(force_rollback=True):
            market.execute(moved, {"by": "-0.005", "id": long})
            ((_, subject, problem),) = market.book_faults()
        assert (subject, problem[:20]) == (long, "its stop trails by 0")


class TestReplayAndRaces:
    def test_the_same_answer_byte_for_byte_whatever_has_changed_since(
        self, market: Market, trader: User, long: str
    ) -> None:
        request = change_request(trader, long, stop_loss="1.09", version=1)
        first = send(market.trader, request, "change_position")
        change(market, trader, long, stop_loss="1.08")
        market.execute("DELETE FROM quotes")

        second = send(market.trader, request, "change_position")

        assert (first.replayed, second.replayed) == (False, True)
        assert first.text == second.text

    def test_other_content_under_the_key(self, market: Market, trader: User, long: str) -> None:
        request = change_request(trader, long, stop_loss="1.09")
        send(market.trader, request, "change_position")

        with raises_sqlstate("TR003"):
            send(market.trader, request | {"request_hash": "another"}, "change_position")

    def test_twenty_callers_with_one_key_change_once(self, market: Market, trader: User, long: str) -> None:
        request = change_request(trader, long, trailing_distance="0.002")

        told = told_at_once(market, [("change_position", request)] * 20)

        assert sorted(told) == ["changed"] + ["replayed"] * 19
        assert row_of(market, trader, long)["version"] == 2

    def test_of_ten_who_saw_one_version_one_changes_it(self, market: Market, trader: User, long: str) -> None:
        requests = [change_request(trader, long, version=1, stop_loss=f"1.0{place}") for place in range(10, 20)]

        told = told_at_once(market, [("change_position", request) for request in requests])

        assert sorted(told) == ["TR010"] * 9 + ["changed"]

    def test_without_the_look_at_the_version_each_overwrites_the_other(self, migrated: MigratedTemplate) -> None:
        scratch = migrated.clone()
        try:
            with Market.opened(scratch) as market:
                trader = market.user()
                position_id = market.trade(trader)["position_id"]
                look = "PERFORM refuse_position_version(position_before, request ->> 'expected_version');"
                remove_text(market.owner, "judge_change", look)
                requests = [change_request(trader, position_id, version=1, stop_loss=f"1.0{n}") for n in range(10, 14)]

                told = told_at_once(market, [("change_position", request) for request in requests])

                assert told == ["changed"] * 4
        finally:
            scratch.drop()

    def test_a_change_against_a_close(self, market: Market, trader: User) -> None:
        before = deadlocks(market)
        for _ in range(10):
            position_id = market.trade(trader)["position_id"]
            told = told_at_once(
                market,
                [
                    ("change_position", change_request(trader, position_id, stop_loss="1.09")),
                    ("close_position", keyed_request(trader, position_id=position_id)),
                ],
            )
            # then the change came before the close, or found nothing to change
            assert told in (["changed", "filled"], ["TR010", "filled"])
            row = row_of(market, trader, position_id)
            assert (row["status"], row["stop_loss"] is None) == ("closed", told[0] == "TR010")
        assert deadlocks(market) == before
        assert market.book_faults() == []

    def test_a_change_against_a_stop_out(self, market: Market) -> None:
        before = deadlocks(market)
        for _ in range(5):
            # given an account that the market has brought to its stop-out level
            market.quote("EURUSD", "1.1000", "1.1002")
            user = market.user(balance=1200)
            position_id = market.trade(user)["position_id"]
            market.quote("EURUSD", "1.0900", "1.0902")

            with ThreadPoolExecutor(2) as pool, market.database.connect("function_risk") as risk:
                changing = pool.submit(_change_told, market, user, position_id)
                stopping = pool.submit(stop_out_step, risk, user)
                told = [changing.result(), stopping.result()["state"]]

            assert told in (["changed", "done"], ["TR010", "done"])
            assert row_of(market, user, position_id)["status"] == "closed"
        assert deadlocks(market) == before
        assert market.book_faults() == []


def _change_told(market: Market, user: User, position_id: str) -> str:
    try:
        return change(market, user, position_id, stop_loss="1.05")["outcome"]
    except psycopg.Error as error:
        return error.sqlstate or repr(error)
