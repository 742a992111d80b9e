"""Stop-out against hand calculations: who is closed, by which figures, and what stands in the books after it."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.operators import act
from tests.kit.orders import Market, details_of, raises_sqlstate, stale_time
from tests.kit.risk import (
    ASK_AT_THE_LEVEL,
    BALANCE_AT_THE_LEVEL,
    BID_AT_THE_LEVEL,
    REQUEST_ID,
    long_eurusd,
    opened,
    rested,
    stop_out_step,
)
from trading.events import Event, frames_of


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    """One database for the module: every test has users of its own. The books must hold after all of them."""
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market:
            yield market
            assert market.book_faults() == []
    finally:
        scratch.drop()


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    return shared


@pytest.fixture
def risk(market: Market) -> Iterator[psycopg.Connection[Any]]:
    with market.database.connect("function_risk") as connection:
        yield connection


@pytest.fixture
def step(risk: psycopg.Connection[Any]) -> Callable[[User], dict[str, Any]]:
    return lambda user: stop_out_step(risk, user)


def open_positions(market: Market, user: User) -> set[UUID]:
    return {position["id"] for position in market.rows("positions", user) if position["status"] == "open"}


def events(market: Market, user: User) -> list[dict[str, Any]]:
    return sorted(market.rows("events", user), key=lambda event: event["sequence"])


def event_types(market: Market, user: User) -> list[str]:
    return [event["event_type"] for event in events(market, user)]


def frames_of_event(market: Market, user: User) -> list[dict[str, Any]]:
    """What a stream tells of the user's last event."""
    ((sequence, event_type, payload),) = market.execute(
        "SELECT sequence, event_type, payload::text FROM events WHERE account_id = %s ORDER BY sequence DESC LIMIT 1",
        (user.account_id,),
    )
    facts = json.loads(payload, parse_float=Decimal)
    event = Event(user.user_id, user.account_id, sequence, event_type, facts)
    return [json.loads(frame.text, parse_float=Decimal) for frame in frames_of(event)]


def figures(fact: dict[str, Any], *names: str) -> tuple[Decimal, ...]:
    return tuple(Decimal(str(fact[name])) for name in names)


class TestLevel:
    @pytest.mark.parametrize("balance", [BALANCE_AT_THE_LEVEL, BALANCE_AT_THE_LEVEL - Decimal("0.01")])
    def test_at_it_and_a_cent_below_the_position_is_closed(
        self, market: Market, step: Callable[[User], dict[str, Any]], balance: Decimal
    ) -> None:
        # given
        user = long_eurusd(market, balance)
        (position,) = open_positions(market, user)
        market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)

        # when
        answer = step(user)

        # then it is sold at the bid less 0.6 pips: (1.09020 - 1.10026) x 500,000
        assert answer == {
            "state": "done",
            "margin_level": None,
            "threshold": 20,
            "order_id": str(market.rows("orders", user)[-1]["id"]),
            "venue": None,
            "position_id": str(position),
            "quantity": 5,
            "realized_pnl": Decimal("-5030.00"),
            "canceled_orders": [],
            "sequence": 3,
        }
        assert market.account(user)["balance"] == balance - Decimal("5030.00")
        assert open_positions(market, user) == set()
        assert step(user)["state"] == "recovered"

    def test_a_cent_above_it_nothing_happens(self, market: Market, step: Callable[[User], dict[str, Any]]) -> None:
        # given 1,100.27 of equity on 5,501.30
        user = long_eurusd(market, BALANCE_AT_THE_LEVEL + Decimal("0.01"))
        market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)
        before = market.counts(user), market.account(user)

        # when
        answer = step(user)

        # then
        assert (answer["state"], answer["margin_level"], answer["sequence"]) == ("recovered", 20, None)
        assert (market.counts(user), market.account(user)) == before

    def test_the_level_is_the_accounts_own(self, market: Market, step: Callable[[User], dict[str, Any]]) -> None:
        # given two accounts at 20 percent, one of which is carried down to 19
        lax = long_eurusd(market, risk={"stop_out_level": 19})
        strict = long_eurusd(market)
        market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)
        # when / then
        assert (step(lax)["state"], step(strict)["state"]) == ("recovered", "done")

    @pytest.mark.parametrize(("threshold", "level"), [(50, "50.01"), (10, 20), (50, -1)])
    def test_it_lies_between_zero_and_the_margin_call(self, market: Market, threshold: int, level: object) -> None:
        with pytest.raises(psycopg.errors.CheckViolation):
            market.user(risk={"margin_call_threshold": threshold, "stop_out_level": level})

    @pytest.mark.parametrize(
        ("bid", "balance"),
        # (bid - 0.6 pips - 1.10026) x 500,000 of 6,100.26
        [("1.08806", "-29.74"), ("1.05000", "-19059.74")],
    )
    def test_a_gap_beyond_the_balance_leaves_it_negative(
        self, market: Market, step: Callable[[User], dict[str, Any]], bid: str, balance: str
    ) -> None:
        # given equity of 0.26, or of minus 19,029.74
        user = long_eurusd(market)
        market.quote("EURUSD", bid, "1.10020")

        # when
        answer = step(user)

        # then
        assert (answer["state"], market.account(user)["balance"]) == ("done", Decimal(balance))
        assert figures(events(market, user)[-1]["payload"]["account"], "balance", "equity", "margin_used") == (
            Decimal(balance),
            Decimal(balance),
            0,
        )

    def test_a_cash_account_is_never_stopped_out(self, market: Market, step: Callable[[User], dict[str, Any]]) -> None:
        # given a share bought in full that has lost nine tenths
        user = market.user(kind="cash", balance=200)
        opened(market.trade(user, symbol="AAPL"))
        market.quote("AAPL", "14.99", "15.00")
        # when / then
        assert step(user)["state"] == "recovered"


class TestOrder:
    def test_the_largest_loss_first_and_only_as_many_as_it_takes(
        self, market: Market, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given 2 lots of EURUSD (2,200.52 of margin), 2 of GBPUSD at 1.2504 + 0.9 pips (2,500.98) and 10 shares of
        # AAPL at 150.00 (75.00, commission 1.00): 4,776.50 of margin, a balance of 4,999.00
        user = market.user(balance=5000)
        euro = opened(market.trade(user, quantity="2"))
        pound = opened(market.trade(user, symbol="GBPUSD", quantity="2"))
        opened(market.trade(user, symbol="AAPL", quantity="10"))
        # when the euro loses 200,000 x 0.01026 = 2,052 and the pound 200,000 x 0.01049 = 2,098, the shares 0.20
        market.quote("EURUSD", "1.09000", "1.09020")
        market.quote("GBPUSD", "1.24000", "1.24040")
        first = step(user)
        # then the pound goes, at 1.24000 - 0.9 pips: (1.23991 - 1.25049) x 200,000 = -2,116.00. What is left has
        # 4,999.00 - 2,116.00 - 2,052.00 - 0.20 = 830.80 of equity on 2,275.52
        assert UUID(first["position_id"]) == pound
        assert first["state"] == "done"
        assert figures(first, "realized_pnl", "margin_level") == (Decimal("-2116.00"), Decimal("36.51"))
        # when the euro loses another 400
        market.quote("EURUSD", "1.08800", "1.08820")
        second = step(user)
        # then it goes, at 1.08800 - 0.6 pips
        assert UUID(second["position_id"]) == euro
        assert (second["state"], second["realized_pnl"]) == ("done", Decimal("-2464.00"))
        assert market.account(user)["balance"] == Decimal("419.00")
        assert len(open_positions(market, user)) == 1

    def test_more_is_due_while_the_level_stays_down(
        self, market: Market, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given three positions in EURUSD of different sizes
        user = market.user(balance=7000)
        sizes = {opened(market.trade(user, quantity=quantity)): quantity for quantity in ("1", "3", "2")}
        # when their six lots have lost (1.08826 - 1.10026) x 600,000 = 7,200
        market.quote("EURUSD", "1.08826", "1.08846")
        answers = [step(user) for _ in range(4)]
        # then the largest goes first: three lots lose 18 more by slippage, and so on
        assert [answer["state"] for answer in answers] == ["more", "more", "done", "recovered"]
        assert [sizes[UUID(answer["position_id"])] for answer in answers[:3]] == ["3", "2", "1"]
        assert [answer["realized_pnl"] for answer in answers[:3]] == [-3618, -2412, -1206]
        # and the level is that of what is left: (7,000 - 3,618 - 3,600) / 3,300.78, (970 - 1,200) / 1,100.26
        assert [answer["margin_level"] for answer in answers[:3]] == [Decimal("-6.60"), Decimal("-20.90"), None]
        assert market.account(user)["balance"] == Decimal("-236.00")

    def test_of_equal_losses_the_oldest(self, market: Market, step: Callable[[User], dict[str, Any]]) -> None:
        # given three equal positions
        user = market.user(balance=4000)
        positions = [opened(market.trade(user)) for _ in range(3)]
        market.quote("EURUSD", "1.08500", "1.08520")
        # when / then
        assert [UUID(step(user)["position_id"]) for _ in range(3)] == positions

    def test_a_short_is_bought_back(self, market: Market, step: Callable[[User], dict[str, Any]]) -> None:
        # given one lot sold at 1.1000 - 0.6 pips = 1.09994: 1,099.94 of margin
        user = market.user(balance=1200)
        opened(market.trade(user, side="sell"))
        # when the ask rises by 1,000 points
        market.quote("EURUSD", "1.10980", "1.10994")
        answer = step(user)
        # then it is bought at 1.10994 + 0.6 pips
        (order,) = [row for row in market.rows("orders", user) if row["component_name"] == "stop_out"]
        assert (order["side"], order["average_price"]) == ("buy", Decimal("1.11000"))
        assert (answer["realized_pnl"], market.account(user)["balance"]) == (Decimal("-1006.00"), Decimal("194.00"))

    def test_a_netting_accounts_position_goes_whole_beyond_the_largest_order(
        self, market: Market, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given ten lots in two orders, where since then one order may have six
        user = market.user(balance=12_000, position_mode="netting")
        for _ in range(2):
            market.trade(user, quantity="5")
        market.execute("UPDATE instruments SET quantity_max = 6 WHERE symbol = 'EURUSD'")
        market.quote("EURUSD", "1.09000", "1.09020")
        try:
            # when
            answer = step(user)
        finally:
            market.execute("UPDATE instruments SET quantity_max = 1000 WHERE symbol = 'EURUSD'")
        # then (1.08994 - 1.10026) x 1,000,000
        assert (answer["state"], answer["realized_pnl"]) == ("done", Decimal("-10320.00"))

    def test_losses_in_another_currency_compare_in_the_accounts(
        self, market: Market, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given a euro account with a lot of USDJPY bought at 150.010 + 0.001 = 150.011 (1,000 USD / 1.1002 = 908.93 EUR
        # of margin) and a lot of EURUSD at 1.10026 (1,000 EUR)
        user = market.user(currency="EUR", balance=2600)
        yen = opened(market.trade(user, symbol="USDJPY"))
        euro = opened(market.trade(user))
        # when the yen's loss is 1.5 x 100,000 JPY / 148.511 / 1.0910 = 925.78 EUR, and the euro's
        # 0.00926 x 100,000 USD / 1.0910 = 848.76 EUR
        market.quote("USDJPY", "148.511", "148.521")
        market.quote("EURUSD", "1.0910", "1.0912")
        # then 825.46 EUR are 43 percent of 1,908.93
        assert step(user)["margin_level"] == Decimal("43.24")
        # when the yen's loss is 2.3 x 100,000 JPY / 147.711 / 1.0910 = 1,427.22 EUR: 324.02 EUR are 16.97 percent
        market.quote("USDJPY", "147.711", "147.721")
        answer = step(user)
        # then it goes, at 147.711 - 0.001: -230,100 JPY / 147.711 / 1.0910 = -1,427.84 EUR
        assert (UUID(answer["position_id"]), answer["realized_pnl"]) == (yen, Decimal("-1427.84"))
        # and 2,600.00 - 1,427.84 - 848.76 = 323.40 EUR are 32 percent of 1,000
        assert (answer["state"], answer["margin_level"]) == ("done", Decimal("32.34"))
        assert open_positions(market, user) == {euro}

    def test_a_loss_of_many_yen_is_not_a_larger_one(
        self, market: Market, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given the same positions, and 16 percent of 1,908.93 EUR
        user = market.user(currency="EUR", balance=2500)
        yen = opened(market.trade(user, symbol="USDJPY"))
        euro = opened(market.trade(user))
        # when 50,000 JPY are lost, which are 309.65 EUR at 149.511 and 1.0800, and 2,026 USD, which are 1,875.93
        market.quote("USDJPY", "149.511", "149.521")
        market.quote("EURUSD", "1.0800", "1.0802")
        answer = step(user)
        # then the euro goes, at 1.07994: -2,032 USD / 1.0800; 308.87 EUR are 34 percent of 908.93
        assert (UUID(answer["position_id"]), answer["realized_pnl"]) == (euro, Decimal("-1881.48"))
        assert (answer["state"], answer["margin_level"]) == ("done", Decimal("33.98"))
        assert open_positions(market, user) == {yen}


class TestMarket:
    def test_a_closed_market_is_passed_over_and_taken_at_its_open(
        self, market: Market, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given five lots of EURUSD and 100 shares (750.00 of margin, 1.60 of commission) deep in loss, and no forex
        user = market.user(balance=6900)
        euro = opened(market.trade(user, quantity="5"))
        shares = opened(market.trade(user, symbol="AAPL", quantity="100"))
        market.quote("EURUSD", "1.08800", "1.08820")
        market.quote("AAPL", "148.00", "148.02")
        market.close("FX")

        # when
        answers = [step(user) for _ in range(3)]

        # then the shares go, though they lose less, and the euro waits without another event
        assert [answer["state"] for answer in answers] == ["more", "waiting", "waiting"]
        assert UUID(answers[0]["position_id"]) == shares
        assert open_positions(market, user) == {euro}
        assert [answer["sequence"] for answer in answers] == [4, None, None]

        # when the market opens
        market.execute("UPDATE market_calendars SET always_open = true WHERE name = 'FX'")
        opening = step(user)
        # then
        assert (opening["state"], UUID(opening["position_id"])) == ("done", euro)

    def test_a_platform_that_trades_always_closes_at_after_hours_prices(
        self, market: Market, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given
        user = long_eurusd(market)
        market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)
        market.close("FX")
        assert step(user)["state"] == "waiting"
        market.execute("UPDATE platform_settings SET trade_always = true")

        # when
        answer = step(user)

        # then at the bid less 1.2 pips: (1.09014 - 1.10026) x 500,000
        assert (answer["state"], answer["realized_pnl"]) == ("done", Decimal("-5060.00"))

    def test_a_closed_markets_old_quote_values_but_fills_nothing(
        self, market: Market, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given a platform that trades always, and a quote of before the close
        user = long_eurusd(market)
        market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL, stale_time())
        market.close("FX")
        market.execute("UPDATE platform_settings SET trade_always = true")
        # when / then
        answer = step(user)
        assert (answer["state"], answer["margin_level"], answer["sequence"]) == ("waiting", 20, None)

    @pytest.mark.parametrize("symbol", ["EURUSD", "AAPL"])
    def test_a_stale_quote_in_an_open_market_skips_the_account(
        self, market: Market, step: Callable[[User], dict[str, Any]], symbol: str
    ) -> None:
        # given an account of two positions that would be stopped out
        user = market.user(balance=6900)
        opened(market.trade(user, quantity="5"))
        opened(market.trade(user, symbol="AAPL", quantity="100"))
        rested(market, user)
        market.quote("EURUSD", "1.08800", "1.08820", stale_time() if symbol == "EURUSD" else None)
        market.quote("AAPL", "148.00", "148.02", stale_time() if symbol == "AAPL" else None)
        before = market.counts(user)

        # when
        answer = step(user)

        # then nothing is known and nothing is done, to its orders either
        assert (answer["state"], answer["margin_level"], answer["sequence"]) == ("skipped", None, None)
        assert market.counts(user) == before

    def test_a_stale_conversion_skips_the_account(self, market: Market, step: Callable[[User], dict[str, Any]]) -> None:
        # given a euro account in shares that are quoted in dollars
        user = market.user(currency="EUR", balance=1000)
        opened(market.trade(user, symbol="AAPL", quantity="100"))
        market.quote("AAPL", "139.00", "139.02")
        market.quote("EURUSD", "1.1000", "1.1002", stale_time())
        # when / then
        assert step(user)["state"] == "skipped"
        market.quote("EURUSD", "1.1000", "1.1002")
        assert step(user)["state"] == "done"

    def test_a_client_who_may_not_trade_is_stopped_out_all_the_same(
        self, market: Market, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given
        user = long_eurusd(market)
        market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)
        market.execute(
            "UPDATE profiles SET kyc_status = 'rejected', account_status = 'suspended' WHERE id = %s", (user.user_id,)
        )
        market.execute("UPDATE accounts SET trading_state = 'halted' WHERE id = %s", (user.account_id,))
        # when / then
        assert step(user)["state"] == "done"


class TestWorkingOrders:
    def test_they_are_canceled_in_the_first_step(self, market: Market, step: Callable[[User], dict[str, Any]]) -> None:
        # given two orders at rest
        user = long_eurusd(market)
        orders = [rested(market, user, price) for price in ("1.0500", "1.0600")]
        market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)

        # when
        answer = step(user)

        # then they go with the position, in one event
        assert answer["canceled_orders"] == [str(order) for order in orders]
        assert answer["sequence"] == market.account(user)["last_sequence"] == 5
        event = events(market, user)[-1]
        assert event["event_type"] == "stop_out.closed"
        assert [(fact["order_id"], fact["status"]) for fact in event["payload"]["orders"]] == [
            (str(orders[0]), "canceled"),
            (str(orders[1]), "canceled"),
            (answer["order_id"], "pending_new"),
            (answer["order_id"], "filled"),
        ]
        rows = {row["id"]: row for row in market.rows("orders", user)}
        assert [(rows[order]["status"], rows[order]["leaves_quantity"]) for order in orders] == [("canceled", 0)] * 2
        # and each says why in the audit
        canceled = [row for row in market.rows("order_audit_log", user) if row["action"] == "CANCELED"]
        assert [row["order_id"] for row in canceled] == orders
        assert {row["reason"] for row in canceled} == {"Stop-out: margin level 20.00 % is at or below 20 %."}
        assert market.book_faults() == []

    def test_they_are_canceled_even_if_no_position_can_be_closed(
        self, market: Market, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given a market that is closed
        user = long_eurusd(market)
        order = rested(market, user)
        market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)
        market.close("FX")

        # when
        first, second = step(user), step(user)

        # then
        assert (first["state"], first["canceled_orders"], first["sequence"]) == ("waiting", [str(order)], 4)
        assert (second["state"], second["canceled_orders"], second["sequence"]) == ("waiting", [], None)
        event = events(market, user)[-1]
        assert event["event_type"] == "stop_out.canceled"
        assert event["payload"]["risk"] == {
            "type": "stop_out",
            "state": "canceled",
            "margin_level": 20,
            "threshold": 20,
        }
        assert figures(event["payload"]["account"], "equity", "margin_used") == (Decimal("1100.26"), Decimal("5501.30"))
        assert market.book_faults() == []


class TestBooks:
    def test_everything_that_a_step_writes(self, market: Market, step: Callable[[User], dict[str, Any]]) -> None:
        # given 6,000.26 of balance: 1,000.26 of equity are 18.18 percent
        user = long_eurusd(market, "6000.26")
        (opening,) = market.rows("orders", user)
        market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)

        # when
        answer = step(user)

        # then the order says who closed what
        _, order = market.rows("orders", user)
        assert (order["id"], order["parent_order_id"]) == (UUID(answer["order_id"]), None)
        assert (order["symbol"], order["side"], order["order_type"], order["status"]) == (
            "EURUSD",
            "sell",
            "market",
            "filled",
        )
        assert (order["quantity"], order["average_price"], order["slippage"]) == (
            5,
            Decimal("1.0902"),
            Decimal("0.00006"),
        )
        assert (order["reduce_only"], order["component_name"], order["request_id"]) == (True, "stop_out", REQUEST_ID)
        assert (order["idempotency_key"], order["client_order_id"]) == (None, None)
        # and the position, the ledger and the account follow
        (position,) = market.rows("positions", user)
        assert (position["status"], position["quantity"], position["margin_used"]) == ("closed", 0, 0)
        assert (position["order_id"], position["realized_pnl"]) == (opening["id"], Decimal("-5030.00"))
        entries = sorted(market.rows("ledger_entries", user), key=lambda entry: entry["entry_number"])
        assert [(entry["entry_type"], entry["amount"]) for entry in entries[-2:]] == [
            ("realized_pnl", Decimal("-5030.00")),
            ("commission", 0),
        ]
        assert entries[-1]["balance_after"] == market.account(user)["balance"] == Decimal("970.26")
        # and the audit tells it step by step, with the reason
        audit = [row for row in market.rows("order_audit_log", user) if row["order_id"] == order["id"]]
        assert [row["action"] for row in audit] == ["SUBMITTED", "APPROVED", "EXECUTED", "FILLED"]
        assert audit[0]["reason"] == "Stop-out: margin level 18.18 % is at or below 20 %."
        assert (audit[0]["details"]["actor"], audit[0]["details"]["position_id"]) == ("platform", str(position["id"]))
        assert "notice" not in audit[0]["details"]
        # and no key keeps an answer: there are those of the deposit and of the opening order
        assert market.counts(user)["idempotency_keys"] == 2
        assert market.book_faults() == []

    def test_the_event_holds_all_that_a_stream_tells(
        self, market: Market, step: Callable[[User], dict[str, Any]]
    ) -> None:
        # given
        user = long_eurusd(market)
        market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)
        # when
        answer = step(user)
        # then
        event = events(market, user)[-1]
        payload = event["payload"]
        assert (event["event_type"], event["sequence"], event["request_id"]) == ("stop_out.closed", 3, REQUEST_ID)
        assert [fact["status"] for fact in payload["orders"]] == ["pending_new", "filled"]
        assert [fact["order_id"] for fact in payload["fills"]] == [answer["order_id"]]
        assert [(fact["position_id"], fact["status"]) for fact in payload["positions"]] == [
            (answer["position_id"], "closed")
        ]
        assert figures(payload["account"], "balance", "equity", "margin_used") == (
            Decimal("1070.26"),
            Decimal("1070.26"),
            0,
        )
        assert payload["risk"] == {
            "type": "stop_out",
            "state": "closed",
            "margin_level": 20,
            "threshold": 20,
            "position_id": answer["position_id"],
        }

    def test_the_frames_of_the_event(self, market: Market, step: Callable[[User], dict[str, Any]]) -> None:
        # given an order at rest besides
        user = long_eurusd(market)
        order = rested(market, user)
        market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)
        # when
        answer = step(user)
        told = frames_of_event(market, user)
        # then
        assert [(frame.get("type") or frame["event"], frame["sequence"]) for frame in told] == [
            ("order_update", 4),
            ("order_update", 4),
            ("order_update", 4),
            ("order.filled", 4),
            ("position_update", 4),
            ("account_update", 4),
            ("risk_alert", 4),
        ]
        assert [(frame["data"]["order_id"], frame["data"]["status"]) for frame in told[:3]] == [
            (str(order), "cancelled"),
            (answer["order_id"], "pending"),
            (answer["order_id"], "executed"),
        ]
        position, account, alert = (frame["data"] for frame in told[4:])
        assert (position["position_id"], position["status"], position["quantity"]) == (
            answer["position_id"],
            "closed",
            0,
        )
        assert (account["margin_level"], account["margin_used"]) == (None, 0)
        assert alert == {
            "type": "stop_out",
            "state": "closed",
            "margin_level": 20,
            "threshold": 20,
            "position_id": answer["position_id"],
        }

    def test_a_fault_in_the_middle_leaves_nothing(self, market: Market, step: Callable[[User], dict[str, Any]]) -> None:
        # given an account that is to lose orders and a position, and an outbox that takes no event of a stop-out
        user = long_eurusd(market)
        rested(market, user)
        market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)
        before = market.counts(user), market.account(user), open_positions(market, user)
        market.execute("ALTER TABLE events ADD CONSTRAINT no_room CHECK (event_type <> 'stop_out.closed') NOT VALID")
        try:
            # when
            with pytest.raises(psycopg.errors.CheckViolation):
                step(user)
        finally:
            market.execute("ALTER TABLE events DROP CONSTRAINT no_room")
        # then
        assert (market.counts(user), market.account(user), open_positions(market, user)) == before
        assert step(user)["state"] == "done"

    def test_a_traders_order_needs_a_key_and_carries_no_notice(self, market: Market) -> None:
        # given
        user = market.user()
        notice = {"event_type": "stop_out.closed", "reason": "mine", "orders": [], "risk": {"type": "mine"}}
        # when / then
        with raises_sqlstate("TR006") as refused:
            market.trade(user, idempotency_key=None)
        assert details_of(refused.value)["field"] == "idempotency_key"
        # when / then
        market.trade(user, notice=notice)
        event = events(market, user)[-1]
        assert (event["event_type"], event["payload"].get("risk")) == ("order.filled", None)
        (submitted,) = [row for row in market.rows("order_audit_log", user) if row["action"] == "SUBMITTED"]
        assert (submitted["reason"], "notice" in submitted["details"]) == (None, False)

    def test_an_unknown_version_or_account_is_refused(self, risk: psycopg.Connection[Any], market: Market) -> None:
        user = market.user()
        with raises_sqlstate("TR006"):
            risk.execute("SELECT stop_out_step('{\"version\": 2}')")
        with raises_sqlstate("TR001"):
            stop_out_step(risk, User(user.user_id, user.user_id, user.email))


def test_it_has_been_due_since_the_level_or_what_was_closed_last(
    market: Market, risk: psycopg.Connection[Any], step: Callable[[User], dict[str, Any]]
) -> None:
    # given two halves of five lots, in an account of which nothing is recorded yet
    user = market.user(balance=BALANCE_AT_THE_LEVEL)
    for _ in range(2):
        opened(market.trade(user, quantity="2.5"))

    def due_at(bid: str, *, record: bool = False, age: datetime | None = None) -> datetime | None:
        market.quote("EURUSD", bid, str(Decimal(bid) + Decimal("0.0002")), *([age] if age else []))
        if record:
            act(risk, "record_margin_call", {"version": 1, "account_id": str(user.account_id)} | owner)
        ((found,),) = market.execute("SELECT stop_out_due_since(clock_timestamp())")
        return found

    def changed_at() -> datetime:
        return market.rows("margin_call_episodes", user)[-1]["changed_at"]

    owner = {"user_id": str(user.user_id)}
    fallen, recovered = "1.0891", "1.1000"

    # then it is due from the moment in which the level is recorded, not at a mere call, be its price unknown
    assert due_at("1.0920", record=True) is None
    assert due_at("1.0920", age=stale_time()) is None
    assert due_at(fallen, record=True) == changed_at()
    # not while its price has recovered, nor while its market is closed; but while its price is unknown
    assert due_at(recovered) is None
    assert due_at(fallen, age=stale_time()) == changed_at()
    with market.owner.transaction(force_rollback=True):
        market.close("FX")
        assert due_at(fallen) is None
    # an order of its owner changes nothing, what is closed for them does
    assert due_at(fallen) == changed_at()
    market.place(user, quantity="0.01")
    assert due_at(fallen) == changed_at()
    assert step(user)["state"] == "more"
    (closing,) = [row for row in market.rows("orders", user) if row["component_name"] == "stop_out"]
    assert due_at(fallen) == closing["created_at"] > changed_at()
    # and an episode that is over says nothing of the next
    assert due_at(recovered, record=True) is None
    assert due_at(fallen) is None
