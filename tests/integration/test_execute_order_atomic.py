"""execute_order_atomic against hand calculations: what fills, what is denied, what leaves nothing behind."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from tests.kit import MigratedTemplate, User, order_request
from tests.kit.orders import (
    ORDER_TABLES,
    Market,
    Outcome,
    at_once,
    deadlocks,
    details_of,
    raises_sqlstate,
    send,
    stale_time,
)


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    """One database for the module: every test has users of its own. The books must hold after all of them."""
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    return shared


def money(value: object) -> Decimal:
    return Decimal(str(value))


class TestFill:
    """Figures that a hand calculation gives. Slippage is base x volatility multiplier pips, to the tick."""

    def test_eurusd_in_dollars(self, market: Market) -> None:
        # given 100,000 USD at 1:100, EURUSD at 1.1000/1.1002, slippage 0.2 x 3 = 0.6 pips
        user = market.user()

        # when one lot is bought
        filled = market.trade(user)

        # then it fills at 1.1002 + 0.00006, ties up 100,000 x 1.10026 / 100, and stands at (1.1000 - 1.10026) x 100,000
        assert filled["outcome"] == "filled"
        assert filled["execution_price"] == Decimal("1.10026")
        assert filled["slippage"] == Decimal("0.00006")
        assert filled["margin"] == Decimal("1100.26")
        assert filled["commission"] == 0
        assert filled["total_cost"] == Decimal("1100.26")
        after = market.worth(user)
        assert money(after["balance"]) == 100_000
        assert money(after["unrealized_pnl"]) == -26
        assert money(after["equity"]) == 99_974
        assert money(after["margin_used"]) == Decimal("1100.26")
        assert money(after["free_margin"]) == Decimal("98873.74")
        assert money(after["margin_level"]) == Decimal("9086.40")

    def test_a_sell_opens_a_short_at_the_bid(self, market: Market) -> None:
        user = market.user()

        filled = market.trade(user, side="sell", quantity="0.1")

        (position,) = market.rows("positions", user)
        assert (position["side"], position["entry_price"]) == ("short", Decimal("1.09994"))
        assert filled["margin"] == Decimal("109.99")  # 10,000 x 1.09994 / 100 = 109.994
        assert money(market.worth(user)["unrealized_pnl"]) == Decimal("-2.60")  # (1.09994 - 1.1002) x 10,000

    def test_a_yen_quote_in_dollars(self, market: Market) -> None:
        # given USDJPY at 150.000/150.010, slippage 0.2 x 3 x 0.001 = 0.0006, which rounds to one tick of 0.001
        user = market.user()

        filled = market.trade(user, symbol="USDJPY", quantity="0.5")

        # then the base is the account's currency: 50,000 / 100; the loss of 0.011 x 50,000 yen is changed at 1 / bid
        assert filled["execution_price"] == Decimal("150.011")
        assert filled["margin"] == 500
        assert money(market.worth(user)["unrealized_pnl"]) == Decimal("-3.67")  # -550 / 150.000

    def test_its_event_marks_the_whole_position(self, market: Market) -> None:
        user = market.user(position_mode="netting")

        for _ in range(2):
            market.trade(user, symbol="USDJPY", quantity="0.5")

        # then what an order opens stands at -550 / 150.000, and what it adds to at all of its lots
        told = [row["payload"]["positions"][0]["unrealized_pnl"] for row in market.rows("events", user)[-2:]]
        assert [money(each) for each in told] == [Decimal("-3.67"), Decimal("-7.33")]

    def test_a_profit_in_yen_is_changed_at_the_ask(self, market: Market) -> None:
        user = market.user()
        market.trade(user, symbol="USDJPY", quantity="0.5")

        market.quote("USDJPY", "151.011", "151.021")

        assert money(market.worth(user)["unrealized_pnl"]) == Decimal("331.08")  # 1.000 x 50,000 / 151.021

    def test_base_equal_to_a_euro_account(self, market: Market) -> None:
        user = market.user(currency="EUR", balance=50_000)

        filled = market.trade(user)

        # then no rate enters the margin: 100,000 / 100; the loss of 26 USD is changed at 1 / 1.1000
        assert filled["margin"] == 1000
        assert filled["currency"] == "EUR"
        assert money(market.worth(user)["unrealized_pnl"]) == Decimal("-23.64")

    def test_a_pound_account_converts_the_base_directly(self, market: Market) -> None:
        # given a GBP account and EURGBP at 0.8690/0.8692
        user = market.user(currency="GBP", balance=50_000)
        market.quote("EURGBP", "0.8690", "0.8692")

        filled = market.trade(user)

        # then 1000 EUR of margin at the bid; -26 USD at 1 / GBPUSD bid
        assert filled["margin"] == 869
        assert money(market.worth(user)["unrealized_pnl"]) == Decimal("-20.80")  # -26 / 1.2500

    def test_a_pound_account_crosses_through_the_dollar(self, market: Market) -> None:
        # given no quote of EURGBP
        user = market.user(currency="GBP", balance=50_000)

        filled = market.trade(user)

        # then 1000 EUR x EURUSD bid / GBPUSD ask = 1000 x 1.1000 / 1.2504 = 879.7185
        assert filled["margin"] == Decimal("879.72")

    def test_a_yen_quote_crosses_into_euros(self, market: Market) -> None:
        # given GBPJPY at 190.000/190.020 and neither EURJPY nor EURGBP quoted; slippage 1 x 2.5 x 0.01 = 0.025
        user = market.user(currency="EUR", balance=50_000)
        market.quote("GBPJPY", "190.000", "190.020")

        filled = market.trade(user, symbol="GBPJPY", quantity="0.2")

        # then 20,000 GBP / 100 x GBPUSD bid / EURUSD ask; -(190.045 - 190.000) x 20,000 JPY / USDJPY bid / EURUSD bid
        assert filled["execution_price"] == Decimal("190.045")
        assert filled["margin"] == Decimal("227.23")  # 200 x 1.2500 / 1.1002 = 227.2314
        assert money(market.worth(user)["unrealized_pnl"]) == Decimal("-5.45")  # -900 / 150.000 / 1.1000 = -5.4545

    def test_account_equal_to_quote_takes_the_open_price(self, market: Market) -> None:
        user = market.user(currency="GBP", balance=50_000)
        market.quote("EURGBP", "0.8690", "0.8692")

        filled = market.trade(user, symbol="EURGBP")

        # then slippage is 1 x 2.5 pips: 0.86945; 1000 EUR at the open price itself
        assert filled["execution_price"] == Decimal("0.86945")
        assert filled["margin"] == Decimal("869.45")

    @pytest.mark.parametrize(
        ("tier", "quantity", "commission"),
        [
            ("bronze", "100", "2.00"),
            ("silver", "100", "1.80"),
            ("gold", "100", "1.60"),
            ("platinum", "100", "1.40"),
            ("bronze", "10", "1.00"),  # 0.20, at least 1
            ("platinum", "60", "1.00"),  # 0.84: the bounds hold after the discount
            ("gold", "4000", "50.00"),  # 64, at most 50
        ],
    )
    def test_a_stock_with_commission(self, market: Market, tier: str, quantity: str, commission: str) -> None:
        # given AAPL at 149.98/150.00, slippage 0.1 pips of 0.01: less than half a tick
        user = market.user(tier=tier)

        filled = market.trade(user, symbol="AAPL", quantity=quantity)

        # then leverage is the instrument's 20, the smaller one
        margin = Decimal(quantity) * 150 / 20
        assert filled["execution_price"] == 150
        assert filled["slippage"] == 0
        assert filled["margin"] == margin
        assert filled["commission"] == Decimal(commission)
        assert filled["total_cost"] == margin + Decimal(commission)
        assert market.account(user)["balance"] == 100_000 - Decimal(commission)

    def test_commission_is_changed_at_the_ask(self, market: Market) -> None:
        user = market.user(currency="EUR", tier="bronze", balance=50_000)

        filled = market.trade(user, symbol="AAPL", quantity="1000")

        # then 20 USD / 1.1000, and 7500 USD of margin / 1.1002
        assert filled["commission"] == Decimal("18.18")
        assert filled["margin"] == Decimal("6816.94")

    def test_a_tie_in_a_conversion_rounds_up(self, market: Market) -> None:
        # given a rate whose reciprocal never ends
        user = market.user(currency="EUR", balance=50_000)
        market.quote("EURUSD", "1.2", "1.2")
        market.quote("AAPL", "150.12", "150.12")

        filled = market.trade(user, symbol="AAPL", quantity="1")

        assert filled["margin"] == Decimal("6.26")  # 150.12 / 20 / 1.2 = 6.255

    def test_a_cash_account_pays_in_full(self, market: Market) -> None:
        user = market.user(kind="cash", balance="15100", tier="bronze")

        filled = market.trade(user, symbol="AAPL", quantity="100")

        assert filled["margin"] == 15_000
        assert money(market.worth(user)["free_margin"]) == 96  # 15,100 - 2 commission - 2 spread - 15,000

    def test_hedging_gives_every_order_a_position(self, market: Market) -> None:
        user = market.user()

        market.trade(user)
        market.trade(user, side="sell", quantity="0.5")
        market.trade(user)

        sides = [(row["side"], row["quantity"]) for row in market.rows("positions", user)]
        assert sides == [("long", 1), ("short", Decimal("0.5")), ("long", 1)]

    def test_the_only_account_is_meant_when_none_is_named(self, market: Market) -> None:
        user = market.user()

        filled = market.trade(user, account_id=None)

        assert filled["account_id"] == str(user.account_id)


class TestRows:
    """What one executed order leaves in the tables."""

    def test_all_rows_are_of_one_transaction(self, market: Market) -> None:
        user = market.user()

        filled = market.trade(user, client_order_id="mine")

        ((transaction,),) = market.execute("SELECT xmin::text FROM orders WHERE user_id = %s", (user.user_id,))
        written = {
            table: market.execute(
                f"SELECT count(*) FROM {table} WHERE user_id = %s AND xmin::text = %s", (user.user_id, transaction)
            )[0][0]
            for table in (*ORDER_TABLES, "accounts")
        }
        assert written == dict.fromkeys((*ORDER_TABLES, "accounts"), 1) | {"order_audit_log": 4}
        assert filled["client_order_id"] == "mine"

    def test_each_row_tells_the_same(self, market: Market) -> None:
        user = market.user()

        filled = market.trade(
            user, symbol="AAPL", quantity="100", stop_loss="140", take_profit="160", request_id="request-1"
        ).answer

        (order,) = market.rows("orders", user)
        (fill,) = market.rows("fills", user)
        (position,) = market.rows("positions", user)
        entries = sorted(market.rows("ledger_entries", user), key=lambda row: row["entry_number"])
        event = max(market.rows("events", user), key=lambda row: row["sequence"])
        audit = sorted(market.rows("order_audit_log", user), key=lambda row: row["version"])[1:]
        assert (order["status"], order["filled_quantity"], order["leaves_quantity"]) == ("filled", 100, 0)
        assert order["average_price"] == fill["price"] == position["entry_price"] == filled["execution_price"]
        assert order["commission"] == fill["commission"] == position["commission_paid"] == filled["commission"]
        assert str(order["id"]) == str(fill["order_id"]) == str(position["order_id"]) == filled["order_id"]
        assert str(position["id"]) == str(fill["position_id"]) == filled["position_id"]
        assert (position["stop_loss"], position["take_profit"]) == (140, 160)
        assert [(e["entry_type"], e["amount"], e["balance_after"]) for e in entries] == [
            ("deposit", 100_000, 100_000),
            ("commission", Decimal("-1.60"), Decimal("99998.40")),
        ]
        assert (event["sequence"], event["event_type"]) == (filled["sequence"], "order.filled")
        assert [fact["status"] for fact in event["payload"]["orders"]] == ["pending_new", "filled"]
        told = {name: facts[-1] for name, facts in market.last_payload(user).items() if name != "account"}
        assert told["orders"]["average_price"] == told["fills"]["price"] == fill["price"]
        assert (told["fills"]["total_filled"], told["fills"]["leaves_quantity"]) == (100, 0)
        assert told["positions"]["current_price"] == Decimal("149.98")
        assert [row["action"] for row in audit] == ["SUBMITTED", "APPROVED", "EXECUTED", "FILLED"]
        assert {row["order_id"] for row in audit} == {order["id"]}
        approved = audit[1]["details"]
        assert (approved["margin"], approved["reduces"]) == (750, False)
        assert Decimal(str(approved["commission"])) == order["commission"]
        executed = audit[2]["details"]
        assert (str(executed["bid"]), executed["ask"], executed["source"]) == ("149.98", 150, "test")
        assert executed["slippage"]["seed"] == f"{user.account_id}:{order['idempotency_key']}"
        assert order["request_id"] == event["request_id"] == "request-1"
        assert order["transaction_id"] == filled["transaction_id"]

    def test_everything_that_was_asked_is_kept(self, market: Market) -> None:
        user = market.user(position_mode="netting")
        parent = market.trade(user)["order_id"]
        asked: dict[str, object] = {
            "client_order_id": "mine", "parent_order_id": parent, "time_in_force": "ioc", "reduce_only": True,
            "max_slippage": Decimal("0.01"), "execution_instructions": {"note": "a"}, "strategy_id": "s",
            "signal_id": "i", "component_name": "c", "metadata": {"a": 1}, "idempotency_key": "k", "request_id": "r",
        }  # fmt: skip

        market.trade(user, **asked | {"side": "sell", "max_slippage": "0.01"})

        (order,) = [row for row in market.rows("orders", user) if row["side"] == "sell"]
        assert {name: order[name] for name in asked} == asked | {"parent_order_id": uuid.UUID(parent)}

    def test_personal_data_stays_out_of_the_audit(self, market: Market) -> None:
        user = market.user()

        market.trade(user, ip_address="198.51.100.7", user_agent="a browser of theirs")

        told = str(market.rows("order_audit_log", user)) + str(market.rows("events", user))
        (pii,) = market.rows("audit_pii", user)
        assert (str(pii["ip_address"]), pii["user_agent"], pii["email"]) == (
            "198.51.100.7",
            "a browser of theirs",
            user.email,
        )
        assert not any(secret in told for secret in ("198.51.100.7", "a browser of theirs", user.email))

    def test_every_moment_is_the_one_taken_after_the_lock(self, market: Market) -> None:
        user = market.user()
        before = datetime.now(UTC)

        filled = market.trade(user)

        (order,) = market.rows("orders", user)
        (fill,) = market.rows("fills", user)
        assert before <= order["executed_at"] == fill["transact_time"] <= datetime.now(UTC)
        assert datetime.fromisoformat(filled["transact_time"]) == order["executed_at"]


def denial_kyc(market: Market) -> tuple[User, dict[str, object], dict[str, Any]]:
    return market.user(kyc="pending"), {}, {"field": "kyc_status", "value": "pending", "constraint": "verified"}


def denial_status(market: Market) -> tuple[User, dict[str, object], dict[str, Any]]:
    user = market.user(status="suspended")
    return user, {}, {"field": "account_status", "value": "suspended", "constraint": "active"}


def denial_halted(market: Market) -> tuple[User, dict[str, object], dict[str, Any]]:
    market.execute("UPDATE platform_settings SET trading_state = 'halted'")
    return market.user(), {}, {"field": "trading_state", "constraint": "active"}


def denial_closed(market: Market) -> tuple[User, dict[str, object], dict[str, Any]]:
    opens_at = datetime(2040, 1, 2, 22, tzinfo=UTC)
    market.close("FX", opens_at)
    return market.user(), {}, {"field": "symbol", "value": "EURUSD", "opens_at": "2040-01-02T22:00:00.000000Z"}


def denial_limit(market: Market) -> tuple[User, dict[str, object], dict[str, Any]]:
    user = market.user(risk={"max_position_size": 2})
    expected = {"field": "max_position_size", "value": "2.01", "constraint": "at most 2", "limit": "max_position_size"}
    return user, {"quantity": "2.01"}, expected


def denial_slippage(market: Market) -> tuple[User, dict[str, object], dict[str, Any]]:
    expected = {"field": "max_slippage", "value": "0.00005", "constraint": "at least 0.00006"}
    return market.user(), {"max_slippage": "0.00005"}, expected


def denial_margin(market: Market) -> tuple[User, dict[str, object], dict[str, Any]]:
    # 1100.26 of margin and 26 of spread and slippage
    expected = {"required": "1126.26", "available": "1126.25", "margin_level": None}
    return market.user(balance="1126.25"), {}, expected


def denial_funds(market: Market) -> tuple[User, dict[str, object], dict[str, Any]]:
    market.quote("AAPL", "150", "150")
    user = market.user(kind="cash", balance=5000)
    expected = {"required_balance": Decimal("15001.60"), "available_balance": Decimal("5000.00")}
    return user, {"symbol": "AAPL", "quantity": "100"}, expected


def denial_position(market: Market) -> tuple[User, dict[str, object], dict[str, Any]]:
    user = market.user(kind="cash", balance=5000)
    expected = {"field": "quantity", "value": "1", "constraint": "at most 0", "held_quantity": 0}
    return user, {"symbol": "AAPL", "side": "sell"}, expected


DENIALS = {
    "KYC_REQUIRED": denial_kyc,
    "ACCOUNT_NOT_ACTIVE": denial_status,
    "TRADING_HALTED": denial_halted,
    "MARKET_CLOSED": denial_closed,
    "RISK_LIMIT_VIOLATION": denial_limit,
    "SLIPPAGE_EXCEEDED": denial_slippage,
    "INSUFFICIENT_MARGIN": denial_margin,
    "INSUFFICIENT_FUNDS": denial_funds,
    "INSUFFICIENT_POSITION": denial_position,
}


class TestDenial:
    """Refusals that are kept, with their reason, because compliance asks for them."""

    @pytest.mark.parametrize("code", DENIALS)
    def test_a_denied_order_is_kept_and_moves_nothing(self, market: Market, code: str) -> None:
        # given a reason to refuse
        user, overrides, details = DENIALS[code](market)
        before, rows_before = market.account(user), market.counts(user)

        # when the order comes
        denied = market.trade(user, **overrides).answer

        # then it is answered with the reason
        assert (denied["outcome"], denied["code"]) == ("denied", code)
        assert denied["details"].items() >= details.items()
        # and one order, two audit rows, one event and the answer are kept, nothing else
        added = {table: now - rows_before[table] for table, now in market.counts(user).items()}
        assert added == dict.fromkeys(ORDER_TABLES, 0) | {
            "orders": 1,
            "order_audit_log": 2,
            "audit_pii": 1,
            "events": 1,
            "idempotency_keys": 1,
        }
        (order,) = market.rows("orders", user)
        assert (order["status"], order["failure_code"], order["failure_reason"]) == ("denied", code, denied["message"])
        assert (order["filled_quantity"], order["average_price"], order["executed_at"]) == (0, None, None)
        audit = sorted(market.rows("order_audit_log", user), key=lambda row: row["version"])[-2:]
        assert [(row["action"], row["status"]) for row in audit] == [
            ("SUBMITTED", "pending_new"),
            ("REJECTED", "denied"),
        ]
        assert audit[1]["reason"] == denied["message"]
        event = max(market.rows("events", user), key=lambda row: row["sequence"])
        assert (event["event_type"], event["sequence"]) == ("order.denied", denied["sequence"])
        (fact,) = event["payload"]["orders"]
        assert (fact["failure_code"], fact["failure_reason"]) == (code, denied["message"])
        assert order["request_id"] == event["request_id"] is not None
        after = market.account(user)
        moved = {name for name in after if after[name] != before[name]}
        assert moved == {"last_sequence", "audit_version", "audit_head", "updated_at"}
        # and a repeat gets the same bytes
        repeat = order_request(user, **overrides)
        first, second = send(market.trader, repeat), send(market.trader, repeat)
        assert (first.replayed, second.replayed) == (False, True)
        assert first.text == second.text

    def test_the_sentence_of_a_cash_account(self, market: Market) -> None:
        user, overrides, _ = denial_funds(market)

        denied = market.trade(user, **overrides)

        assert denied["message"] == "Insufficient funds for $15,000 order; available: $5,000"

    def test_the_sentence_counts_the_commission_when_that_is_what_lacks(self, market: Market) -> None:
        market.quote("AAPL", "150", "150")
        user = market.user(kind="cash", balance="15000.50")

        denied = market.trade(user, symbol="AAPL", quantity="100")

        assert denied["message"] == "Insufficient funds for $15,001.60 order; available: $15,000.50"

    def test_money_reads_as_it_is_written(self, market: Market) -> None:
        told = market.execute(
            "SELECT money_text(amount, currency) FROM (VALUES (-400, 'USD'), (1234567.5, 'EUR'), (1000, 'JPY')) "
            "AS m (amount, currency)"
        )

        assert told == [("-$400",), ("€1,234,567.50",), ("JPY 1,000",)]

    def test_exactly_enough_margin_is_enough(self, market: Market) -> None:
        user = market.user(balance="1126.26")

        filled = market.trade(user)

        assert filled["outcome"] == "filled"
        assert money(market.worth(user)["free_margin"]) == 0

    def test_a_cash_account_cannot_spend_unrealized_profit(self, market: Market) -> None:
        # given 10 shares bought at 150, now worth far more, and 100 left
        user = market.user(kind="cash", balance="1601", tier="platinum")
        market.trade(user, symbol="AAPL", quantity="10")
        market.quote("AAPL", "300", "300")

        denied = market.trade(user, symbol="AAPL", quantity="1")

        assert (denied["code"], denied["details"]["available_balance"]) == ("INSUFFICIENT_FUNDS", 100)

    def test_the_level_of_an_account_that_is_short_of_margin(self, market: Market) -> None:
        user = market.user(balance=2000)
        market.trade(user)

        denied = market.trade(user)

        # equity 1974 over 1100.26 used; 2000 - 26 - 1100.26 free
        assert denied["details"] == {
            "field": "quantity",
            "value": None,
            "constraint": "margin within the free margin",
            "required": "1126.26",
            "available": "873.74",
            "margin_level": "179.41",
        }


class TestNoRow:
    """Faults of the request or of the data: nothing is kept, and the key stays free."""

    def refused(self, market: Market, user: User, sqlstate: str, **overrides: object) -> dict[str, Any]:
        """The details of the fault, after checking that nothing was kept and that the same key then executes."""
        before, rows_before = market.account(user), market.counts(user)
        key = str(uuid.uuid4())
        with raises_sqlstate(sqlstate) as caught:
            market.trade(user, idempotency_key=key, **overrides)
        assert (market.account(user), market.counts(user)) == (before, rows_before)
        return details_of(caught.value) | {"key": key}

    def test_an_unknown_symbol(self, market: Market) -> None:
        details = self.refused(market, market.user(), "TR002", symbol="NOSUCH")

        assert details["value"] == "NOSUCH"

    def test_an_inactive_symbol(self, market: Market) -> None:
        market.execute("UPDATE instruments SET is_active = false WHERE symbol = 'NZDJPY'")

        self.refused(market, market.user(), "TR002", symbol="NZDJPY")

    def test_a_symbol_without_a_quote(self, market: Market) -> None:
        details = self.refused(market, market.user(), "TR004", symbol="AUDUSD")

        assert details["value"] == "AUDUSD"

    def test_a_stale_quote_and_the_key_is_free_afterwards(self, market: Market) -> None:
        user = market.user()
        market.quote("EURUSD", "1.1000", "1.1002", stale_time())
        details = self.refused(market, user, "TR004")

        market.quote("EURUSD", "1.1000", "1.1002")
        filled = market.trade(user, idempotency_key=details["key"])

        assert (filled.replayed, filled["outcome"]) == (False, "filled")

    @pytest.mark.parametrize("column", ["quoted_at", "received_at"])
    def test_age_counts_from_the_older_time(self, market: Market, column: str) -> None:
        market.execute(f"UPDATE quotes SET {column} = %s WHERE symbol = 'EURUSD'", (stale_time(),))

        self.refused(market, market.user(), "TR004")

    def test_a_quote_from_the_future(self, market: Market) -> None:
        market.execute("UPDATE quotes SET quoted_at = %s", (datetime.now(UTC) + timedelta(minutes=5),))

        self.refused(market, market.user(), "TR004")

    def test_a_traded_quote_is_fresh_also_outside_market_hours(self, market: Market) -> None:
        market.close("FX")
        market.execute("UPDATE platform_settings SET trade_always = true")
        market.quote("EURUSD", "1.1000", "1.1002", stale_time())

        self.refused(market, market.user(), "TR004")

    def test_no_way_to_convert(self, market: Market) -> None:
        # given a quote in yen and no yen rate for a euro account
        user = market.user(currency="EUR")
        market.quote("GBPJPY", "190.000", "190.020")
        market.execute("DELETE FROM quotes WHERE symbol = 'USDJPY'")

        self.refused(market, user, "TR004", symbol="GBPJPY")

    @pytest.mark.parametrize(
        ("side", "exits", "field"),
        [
            ("buy", {"stop_loss": "1.10026"}, "stop_loss"),  # at the fill price
            ("buy", {"stop_loss": "1.2"}, "stop_loss"),
            ("buy", {"take_profit": "1.10026"}, "take_profit"),
            ("sell", {"stop_loss": "1.09994"}, "stop_loss"),
            ("sell", {"take_profit": "1.2"}, "take_profit"),
            ("buy", {"stop_loss": "1.000001"}, "stop_loss"),  # between two ticks
            ("buy", {"stop_loss": "NaN"}, "stop_loss"),
            ("sell", {"stop_loss": "Infinity"}, "stop_loss"),
            ("buy", {"stop_loss": "-1"}, "stop_loss"),
            ("sell", {"take_profit": "0"}, "take_profit"),
        ],
    )
    def test_an_exit_on_the_wrong_side(self, market: Market, side: str, exits: dict[str, str], field: str) -> None:
        details = self.refused(market, market.user(), "TR006", side=side, **exits)

        assert (details["field"], details["value"]) == (field, exits[field])

    @pytest.mark.parametrize("quantity", ["0", "-1", "0.009", "0.015", "1000.01", "NaN", "Infinity", "1e30", None])
    def test_a_quantity_out_of_its_bounds(self, market: Market, quantity: str | None) -> None:
        details = self.refused(market, market.user(), "TR006", quantity=quantity)

        assert details["field"] == "quantity"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("side", "long"),
            ("side", None),
            ("order_type", "limit"),
            ("version", 2),
            ("version", "1"),
            ("max_slippage", "NaN"),
            ("max_slippage", "-0.1"),
        ],
    )
    def test_a_field_of_another_form(self, market: Market, field: str, value: object) -> None:
        details = self.refused(market, market.user(), "TR006", **{field: value})

        assert details["field"] == field

    def test_a_client_order_id_that_was_used(self, market: Market) -> None:
        user, other = market.user(), market.user()
        market.trade(user, client_order_id="mine")

        details = self.refused(market, user, "TR005", client_order_id="mine")

        # then it is another account's to use all the same
        assert details["field"] == "client_order_id"
        assert market.trade(other, client_order_id="mine")["outcome"] == "filled"

    def test_a_denied_order_keeps_its_client_order_id(self, market: Market) -> None:
        user = market.user(balance=0)
        assert market.trade(user, client_order_id="mine")["outcome"] == "denied"

        self.refused(market, user, "TR005", client_order_id="mine")

    def test_an_account_of_somebody_else(self, market: Market) -> None:
        user, other = market.user(), market.user()

        details = self.refused(market, user, "TR001", account_id=str(other.account_id))

        assert details["field"] == "account_id"
        assert market.counts(other)["orders"] == 0

    def test_no_account_named_among_several(self, market: Market) -> None:
        user = market.user()
        market.execute("INSERT INTO accounts (user_id, currency) VALUES (%s, 'EUR')", (user.user_id,))

        with raises_sqlstate("TR006") as caught:
            market.trade(user, account_id=None)

        assert details_of(caught.value)["field"] == "account_id"


class TestMaxSlippage:
    def test_what_it_slips_by_is_allowed(self, market: Market) -> None:
        assert market.trade(market.user(), max_slippage="0.00006")["outcome"] == "filled"

    def test_zero_is_a_limit(self, market: Market) -> None:
        user = market.user()

        assert market.trade(user, max_slippage="0")["code"] == "SLIPPAGE_EXCEEDED"
        assert market.trade(user, symbol="AAPL", quantity="100", max_slippage="0")["outcome"] == "filled"

    def test_slippage_grows_after_hours(self, market: Market) -> None:
        market.close("FX")
        market.execute("UPDATE platform_settings SET trade_always = true")

        filled = market.trade(market.user())

        assert filled["slippage"] == Decimal("0.00012")  # the maximum of 0.6 pips, twice

    def test_the_same_key_slips_the_same_in_its_account(self, market: Market) -> None:
        # given slippage with its random part, and an order that was rolled back
        market.execute(
            "UPDATE instruments SET slippage_variation = 0.9, slippage_base = 100, slippage_max = 1000 "
            "WHERE symbol = 'EURUSD'"
        )
        user = market.user(balance=1_000_000, risk={"max_positions": None})
        request = order_request(user, quantity="0.1")
        with market.trader.transaction(force_rollback=True):
            first = send(market.trader, request)

        second = send(market.trader, request)
        others = {market.trade(user, quantity="0.1")["slippage"] for _ in range(5)}
        market.execute("UPDATE instruments SET slippage_base = 0.2, slippage_max = 0.6 WHERE symbol = 'EURUSD'")

        assert first["order_id"] != second["order_id"]
        assert first["slippage"] == second["slippage"]
        assert len(others) > 1


STATES = {
    "platform": "UPDATE platform_settings SET trading_state = %(state)s",
    "instrument": "UPDATE instruments SET trading_state = %(state)s WHERE symbol = 'EURUSD'",
    "account": "UPDATE accounts SET trading_state = %(state)s WHERE id = %(account)s",
}


class TestTradingState:
    @pytest.mark.parametrize("state", ["reducing", "halted"])
    @pytest.mark.parametrize("where", STATES)
    def test_no_new_exposure_but_a_position_may_be_closed(self, market: Market, where: str, state: str) -> None:
        # given a position in a netting account, then a halt
        user = market.user(position_mode="netting")
        market.trade(user)
        market.execute(STATES[where], {"state": state, "account": user.account_id})

        more, closed = market.trade(user), market.trade(user, side="sell")

        assert more["code"] == "TRADING_HALTED"
        assert closed["outcome"] == "filled"

    def test_another_instrument_trades_on(self, market: Market) -> None:
        user = market.user()
        market.execute(STATES["instrument"], {"state": "halted"})

        assert market.trade(user, symbol="AAPL")["outcome"] == "filled"

    @pytest.mark.parametrize(
        ("column", "value", "code"),
        [
            ("account_status", "suspended", "ACCOUNT_NOT_ACTIVE"),
            ("account_status", "closed", "ACCOUNT_NOT_ACTIVE"),
            ("kyc_status", "rejected", "KYC_REQUIRED"),
            ("kyc_status", "pending", "KYC_REQUIRED"),
        ],
    )
    def test_who_may_not_open_may_still_reduce(self, market: Market, column: str, value: str, code: str) -> None:
        user = market.user(position_mode="netting")
        market.trade(user)
        market.execute(f"UPDATE profiles SET {column} = %s WHERE id = %s", (value, user.user_id))

        more = market.trade(user)
        reduced = market.trade(user, side="sell", quantity="0.4")
        closed = market.trade(user, side="sell", quantity="0.6", reduce_only=True)

        assert more["code"] == code
        assert [reduced["outcome"], closed["outcome"]] == ["filled", "filled"]


class TestMarketHours:
    def test_closed_also_for_closing(self, market: Market) -> None:
        user = market.user(position_mode="netting")
        market.trade(user)
        market.close("FX")

        denied = market.trade(user, side="sell")

        assert (denied["code"], denied["details"]["opens_at"]) == ("MARKET_CLOSED", None)

    def test_open_from_the_opening_instant_to_before_the_closing_one(self, market: Market) -> None:
        opens_at = datetime.now(UTC) - timedelta(hours=1)
        market.close("FX", opens_at)

        assert market.trade(market.user())["outcome"] == "filled"

    def test_a_demonstration_may_trade_always(self, market: Market) -> None:
        market.close("FX")
        market.execute("UPDATE platform_settings SET trade_always = true")

        assert market.trade(market.user())["outcome"] == "filled"

    def test_other_markets_keep_their_own_hours(self, market: Market) -> None:
        market.close("FX")

        assert market.trade(market.user(), symbol="AAPL")["outcome"] == "filled"


class TestNetting:
    @pytest.fixture
    def trader(self, market: Market) -> User:
        return market.user(position_mode="netting")

    def test_adding_weighs_the_entry_price(self, market: Market, trader: User) -> None:
        # given one lot at 1.10026
        market.trade(trader, stop_loss="1.05")
        market.quote("EURUSD", "1.1198", "1.1200")

        # when three more are bought at 1.12006
        added = market.trade(trader, quantity="3", take_profit="1.3")

        # then (1.10026 + 3 x 1.12006) / 4, margins added up, exits kept unless given
        (position,) = market.rows("positions", trader)
        assert str(position["id"]) == added["position_id"]
        assert (position["quantity"], position["opened_quantity"]) == (4, 4)
        assert position["entry_price"] == Decimal("1.11511")
        assert position["margin_used"] == Decimal("1100.26") + Decimal("3360.18")
        assert (position["stop_loss"], position["take_profit"]) == (Decimal("1.05"), Decimal("1.3"))

    def test_reducing_books_the_profit_and_releases_margin_in_proportion(self, market: Market, trader: User) -> None:
        # given 0.3 lots at 1.10026 with 330.08 of margin
        market.trade(trader, quantity="0.3")
        market.quote("EURUSD", "1.1198", "1.1200")

        # when 0.1 is sold at 1.1198 - 0.00006
        reduced = market.trade(trader, side="sell", quantity="0.1")

        # then (1.11974 - 1.10026) x 10,000 is booked, and two thirds of the margin stay
        (position,) = market.rows("positions", trader)
        assert reduced["realized_pnl"] == Decimal("194.80")
        assert reduced["total_cost"] == 0
        assert market.account(trader)["balance"] == Decimal("100194.80")
        assert (position["quantity"], position["status"]) == (Decimal("0.2"), "open")
        assert position["margin_used"] == Decimal("220.05")  # 330.08 x 2 / 3 = 220.0533
        assert position["realized_pnl"] == Decimal("194.80")
        assert position["entry_price"] == Decimal("1.10026")
        entries = sorted(market.rows("ledger_entries", trader), key=lambda row: row["entry_number"])
        assert [(e["entry_type"], e["amount"], e["balance_after"]) for e in entries[-2:]] == [
            ("realized_pnl", Decimal("194.80"), Decimal("100194.80")),
            ("commission", 0, Decimal("100194.80")),
        ]

    def test_a_loss_in_another_currency(self, market: Market) -> None:
        # given a short of 0.5 lots of USDJPY at 149.999
        user = market.user(position_mode="netting", currency="EUR")
        market.trade(user, symbol="USDJPY", side="sell", quantity="0.5")
        market.quote("USDJPY", "150.990", "151.000")

        # when it is bought back at 151.001
        closed = market.trade(user, symbol="USDJPY", quantity="0.5")

        # then -1.002 x 50,000 yen / USDJPY bid / EURUSD bid
        assert closed["realized_pnl"] == Decimal("-301.65")  # -50,100 / 150.990 / 1.1000 = -301.646

    def test_closing_releases_everything(self, market: Market, trader: User) -> None:
        market.trade(trader)

        closed = market.trade(trader, side="sell")

        (position,) = market.rows("positions", trader)
        after = market.worth(trader)
        assert closed["realized_pnl"] == Decimal("-32.00")  # 1.09994 - 1.10026
        assert (position["status"], position["quantity"], position["margin_used"]) == ("closed", 0, 0)
        assert position["closed_at"] is not None
        assert (money(after["equity"]), money(after["free_margin"])) == (Decimal("99968.00"), Decimal("99968.00"))
        assert after["margin_level"] is None

    def test_a_position_that_was_closed_is_not_opened_again(self, market: Market, trader: User) -> None:
        market.trade(trader)
        market.trade(trader, side="sell")

        market.trade(trader, side="sell")

        assert [(p["side"], p["status"]) for p in market.rows("positions", trader)] == [
            ("long", "closed"),
            ("short", "open"),
        ]

    @pytest.mark.parametrize("side", ["buy", "sell"])
    def test_reduce_only_never_opens(self, market: Market, trader: User, side: str) -> None:
        denied = market.trade(trader, side=side, reduce_only=True)

        assert denied["code"] == "INSUFFICIENT_POSITION"

    def test_reduce_only_never_adds(self, market: Market, trader: User) -> None:
        market.trade(trader)

        assert market.trade(trader, reduce_only=True)["code"] == "INSUFFICIENT_POSITION"

    def test_reduce_only_in_a_hedging_account(self, market: Market) -> None:
        user = market.user()
        market.trade(user)

        with raises_sqlstate("TR006") as caught:
            market.trade(user, side="sell", reduce_only=True)

        assert details_of(caught.value)["field"] == "reduce_only"

    def test_a_parent_is_an_order_of_the_same_account(self, market: Market) -> None:
        user, other = market.user(), market.user()
        ours, foreign = market.trade(user)["order_id"], market.trade(other)["order_id"]

        market.trade(user, parent_order_id=ours)
        with raises_sqlstate("TR006") as caught:
            market.trade(user, parent_order_id=foreign)

        assert details_of(caught.value)["field"] == "parent_order_id"

    def test_a_reducing_order_takes_no_exits(self, market: Market, trader: User) -> None:
        market.trade(trader)

        with raises_sqlstate("TR006") as caught:
            market.trade(trader, side="sell", stop_loss="1.2")

        assert details_of(caught.value)["field"] == "stop_loss"

    def test_a_loss_above_the_balance_can_be_closed(self, market: Market) -> None:
        # given an account far below zero equity
        user = market.user(position_mode="netting", balance=1200)
        market.trade(user)
        market.quote("EURUSD", "1.0000", "1.0002")

        closed = market.trade(user, side="sell")

        # then (0.99994 - 1.10026) x 100,000 is booked all the same
        assert closed["outcome"] == "filled"
        assert market.account(user)["balance"] == Decimal(1200) - Decimal("10032.00")

    def test_a_cash_account_sells_what_it_holds(self, market: Market) -> None:
        user = market.user(kind="cash", balance=20_000, tier="bronze")
        market.trade(user, symbol="AAPL", quantity="100")

        sold = market.trade(user, symbol="AAPL", side="sell", quantity="40")
        too_much = market.trade(user, symbol="AAPL", side="sell", quantity="60.1")

        assert sold["realized_pnl"] == Decimal("-0.80")  # 149.98 - 150.00
        assert (too_much["code"], too_much["details"]["held_quantity"]) == ("INSUFFICIENT_POSITION", 60)


def limited(limits: dict[str, object]) -> dict[str, object]:
    """Limits of which only those given bind."""
    return dict.fromkeys(("max_position_size", "max_positions", "daily_trade_limit", "max_daily_loss")) | limits


class TestLimits:
    def test_null_is_no_limit(self, market: Market) -> None:
        user = market.user(balance=10_000_000, risk=limited({}))

        outcomes = {market.trade(user, quantity="10")["outcome"] for _ in range(12)}

        assert outcomes == {"filled"}

    def test_position_size_counts_one_side_of_one_symbol(self, market: Market) -> None:
        user = market.user(risk=limited({"max_position_size": 2}))

        assert market.trade(user, quantity="1")["outcome"] == "filled"
        assert market.trade(user, quantity="1.01")["code"] == "RISK_LIMIT_VIOLATION"
        assert market.trade(user, quantity="1")["outcome"] == "filled"  # at the limit
        assert market.trade(user, quantity="0.01")["code"] == "RISK_LIMIT_VIOLATION"
        assert market.trade(user, quantity="2", side="sell")["outcome"] == "filled"
        assert market.trade(user, quantity="2", symbol="GBPUSD")["outcome"] == "filled"

    def test_positions(self, market: Market) -> None:
        user = market.user(position_mode="netting", risk=limited({"max_positions": 2}))

        market.trade(user)
        market.trade(user, symbol="AAPL")
        denied = market.trade(user, symbol="USDJPY")

        assert denied["code"] == "RISK_LIMIT_VIOLATION"
        assert denied["details"] == {
            "field": "max_positions",
            "value": "3",
            "constraint": "at most 2",
            "limit": "max_positions",
        }
        # then adding to one makes none, and closing one makes room
        assert market.trade(user, symbol="AAPL")["outcome"] == "filled"
        assert market.trade(user, side="sell")["outcome"] == "filled"
        assert market.trade(user, symbol="USDJPY")["outcome"] == "filled"

    def test_trades_a_day(self, market: Market) -> None:
        user = market.user(position_mode="netting", risk=limited({"daily_trade_limit": 2}))

        market.trade(user)
        market.trade(user)
        denied = market.trade(user)
        reduced = market.trade(user, side="sell")

        assert denied["code"] == "RISK_LIMIT_VIOLATION"
        assert denied["details"] == {
            "field": "daily_trade_limit",
            "value": "3",
            "constraint": "at most 2",
            "limit": "daily_trade_limit",
        }
        assert reduced["outcome"] == "filled"

    def test_trades_of_another_day_and_denied_ones_do_not_count(self, market: Market) -> None:
        user = market.user(risk=limited({"daily_trade_limit": 1}))
        market.trade(user)
        market.trade(user)
        executed_at = "UPDATE orders SET executed_at = {} WHERE user_id = %s AND status = 'filled'"
        yesterday = executed_at.format("date_trunc('day', now(), 'UTC') - interval '1 microsecond'")
        market.execute(yesterday, (user.user_id,))

        assert market.trade(user)["outcome"] == "filled"
        # as the audit tells it
        market.execute(executed_at.format("created_at"), (user.user_id,))

    def test_no_trades_at_all(self, market: Market) -> None:
        user = market.user(risk=limited({"daily_trade_limit": 0}))

        assert market.trade(user)["code"] == "RISK_LIMIT_VIOLATION"

    @pytest.mark.parametrize(("limit", "outcome"), [("26.01", "filled"), ("26", "denied"), ("25.99", "denied")])
    def test_unrealized_loss_counts(self, market: Market, limit: str, outcome: str) -> None:
        # given a position that stands at -26
        user = market.user(risk=limited({"max_daily_loss": limit}))
        market.trade(user)

        second = market.trade(user)

        assert second["outcome"] == outcome

    def test_realized_loss_counts_and_profit_makes_good_for_it(self, market: Market) -> None:
        # given 32 lost by opening and closing
        user = market.user(position_mode="netting", risk=limited({"max_daily_loss": 32}))
        market.trade(user)
        market.trade(user, side="sell")

        denied = market.trade(user)

        assert denied["code"] == "RISK_LIMIT_VIOLATION"
        assert (denied["details"]["field"], denied["details"]["value"]) == ("max_daily_loss", "32.00")

    def test_commission_counts_as_loss_and_deposits_do_not(self, market: Market) -> None:
        market.quote("AAPL", "150", "150")
        user = market.user(tier="bronze", risk=limited({"max_daily_loss": 4}))

        outcomes = [market.trade(user, symbol="AAPL", quantity="100")["outcome"] for _ in range(3)]

        assert outcomes == ["filled", "filled", "denied"]

    def test_limits_never_bind_a_reduction(self, market: Market) -> None:
        user = market.user(position_mode="netting")
        market.trade(user)
        market.execute(
            "UPDATE risk_settings SET max_position_size = 0.01, max_positions = 0, daily_trade_limit = 0, "
            "max_daily_loss = 0 WHERE user_id = %s",
            (user.user_id,),
        )

        assert market.trade(user, side="sell")["outcome"] == "filled"


class TestOtherQuotes:
    """What the rest of the account stands at, while the order's own symbol is fresh."""

    @pytest.fixture
    def holder(self, market: Market) -> User:
        """A trader who holds AAPL, whose quote then goes stale."""
        user = market.user(position_mode="netting")
        market.trade(user, symbol="AAPL", quantity="100")
        market.quote("AAPL", "100", "100.02", stale_time())
        return user

    def test_a_stale_quote_of_an_open_market_refuses(self, market: Market, holder: User) -> None:
        with raises_sqlstate("TR004") as caught:
            market.trade(holder)

        assert details_of(caught.value)["value"] == "AAPL"

    def test_the_last_quote_of_a_closed_market_counts(self, market: Market, holder: User) -> None:
        market.close("XNYS")

        filled = market.trade(holder)

        # then AAPL stands at -5000: the account after the order says so
        event = max(market.rows("events", holder), key=lambda row: row["sequence"])
        assert filled["outcome"] == "filled"
        assert money(event["payload"]["account"]["unrealized_pnl"]) == -5026

    def test_a_missing_quote_refuses_also_while_its_market_is_closed(self, market: Market, holder: User) -> None:
        market.close("XNYS")
        market.execute("DELETE FROM quotes WHERE symbol = 'AAPL'")

        with raises_sqlstate("TR004"):
            market.trade(holder)

    def test_a_quote_from_the_future_refuses(self, market: Market, holder: User) -> None:
        market.quote("AAPL", "150", "150.02", datetime.now(UTC) + timedelta(minutes=5))

        with raises_sqlstate("TR004"):
            market.trade(holder)

    def test_reducing_needs_no_other_quote(self, market: Market) -> None:
        user = market.user(position_mode="netting")
        market.trade(user)
        market.trade(user, symbol="AAPL")
        market.quote("AAPL", "100", "100.02", stale_time())

        assert market.trade(user, side="sell")["outcome"] == "filled"

    def test_a_stale_conversion_of_an_open_market_refuses(self, market: Market) -> None:
        user = market.user(currency="EUR")
        market.quote("EURUSD", "1.1000", "1.1002", stale_time())

        with raises_sqlstate("TR004") as caught:
            market.trade(user, symbol="AAPL")

        assert details_of(caught.value)["value"] == "EURUSD"

    def test_the_last_conversion_of_a_closed_market_counts(self, market: Market) -> None:
        user = market.user(currency="EUR")
        market.quote("EURUSD", "1.1000", "1.1002", stale_time())
        market.close("FX")

        filled = market.trade(user, symbol="AAPL", quantity="100")

        assert filled["margin"] == Decimal("681.69")  # 750 / 1.1002


class TestReplay:
    def test_the_same_answer_byte_for_byte(self, market: Market) -> None:
        user = market.user()
        request = order_request(user)

        first, second = send(market.trader, request), send(market.trader, request)

        assert (first.replayed, second.replayed) == (False, True)
        assert first.text == second.text
        assert market.counts(user)["orders"] == 1

    def test_it_answers_whatever_has_changed_since(self, market: Market) -> None:
        # given an order, then a halt, a stale price and an account that was emptied
        user = market.user()
        request = order_request(user)
        first = send(market.trader, request)
        market.execute("UPDATE platform_settings SET trading_state = 'halted'")
        market.execute("DELETE FROM quotes")

        second = send(market.trader, request)

        assert second.replayed
        assert first.text == second.text

    def test_other_content_under_the_key(self, market: Market) -> None:
        user = market.user()
        request = order_request(user)
        send(market.trader, request)
        with raises_sqlstate("TR003") as caught:
            send(market.trader, request | {"request_hash": "another"})

        assert details_of(caught.value)["value"] == request["idempotency_key"]
        assert market.counts(user)["orders"] == 1

    def test_a_key_belongs_to_its_account(self, market: Market) -> None:
        one, other = market.user(), market.user()

        first = market.trade(one, idempotency_key="the same", request_hash="one")
        second = market.trade(other, idempotency_key="the same", request_hash="two")

        assert not first.replayed
        assert not second.replayed
        assert first["order_id"] != second["order_id"]

    @pytest.mark.parametrize("balance", [0, 100_000], ids=["denied", "filled"])
    def test_the_key_lives_as_long_as_it_is_told(self, market: Market, balance: int) -> None:
        user = market.user(balance=balance)
        market.trade(user, idempotency_key_days=30)

        kept = max(market.rows("idempotency_keys", user), key=lambda row: row["created_at"])

        assert kept["expires_at"] - kept["created_at"] == timedelta(days=30)


def outcomes_at_once(market: Market, requests: list[dict[str, object]]) -> list[Outcome]:
    return at_once(market, [partial(send, request=request) for request in requests])


class TestRaces:
    def test_fifty_callers_with_one_key(self, market: Market) -> None:
        user = market.user()
        request = order_request(user)

        outcomes = outcomes_at_once(market, [request] * 50)

        assert sum(not outcome.replayed for outcome in outcomes) == 1
        assert len({outcome.text for outcome in outcomes}) == 1
        assert market.counts(user)["orders"] == 1
        assert deadlocks(market) == 0
        assert market.book_faults() == []

    def test_fifty_callers_with_one_key_for_a_denial(self, market: Market) -> None:
        user = market.user(balance=1)

        outcomes = outcomes_at_once(market, [order_request(user)] * 50)

        assert {outcome["code"] for outcome in outcomes} == {"INSUFFICIENT_MARGIN"}
        assert sum(not outcome.replayed for outcome in outcomes) == 1
        assert len({outcome.text for outcome in outcomes}) == 1
        assert market.book_faults() == []

    def test_margin_for_exactly_ten(self, market: Market) -> None:
        # given ten times 1100.26 of margin and 26 of spread and slippage
        user = market.user(balance="11262.60", risk=limited({}))

        outcomes = outcomes_at_once(market, [order_request(user) for _ in range(30)])

        told = [outcome.answer.get("code", "filled") for outcome in outcomes]
        after = market.worth(user)
        assert (told.count("filled"), told.count("INSUFFICIENT_MARGIN")) == (10, 20)
        assert money(after["free_margin"]) == 0
        assert after["open_positions"] == 10
        assert deadlocks(market) == 0
        assert market.book_faults() == []

    def test_two_sides_of_one_netting_position(self, market: Market) -> None:
        # given a position of ten lots
        user = market.user(position_mode="netting", risk=limited({}))
        market.trade(user, quantity="10")

        # when 30 callers sell one lot each
        outcomes = outcomes_at_once(market, [order_request(user, side="sell", reduce_only=True) for _ in range(30)])

        told = [outcome.answer.get("code", "filled") for outcome in outcomes]
        (position,) = market.rows("positions", user)
        assert (told.count("filled"), told.count("INSUFFICIENT_POSITION")) == (10, 20)
        assert (position["status"], position["margin_used"]) == ("closed", 0)
        assert deadlocks(market) == 0
        assert market.book_faults() == []
