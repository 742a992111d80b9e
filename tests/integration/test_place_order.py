"""place_order: what rests, what is denied with its prices, and what is refused and leaves nothing behind."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.builders import deposit
from tests.kit.orders import (
    ORDER_TABLES,
    Market,
    deadlocks,
    details_of,
    raises_sqlstate,
    resting_request,
    send,
    stale_time,
    told_at_once,
)

# Resting orders on EURUSD at 1.1000/1.1002, and the margin of one lot at their own price: lots x 100,000 x price / 100.
OWN_PRICES: dict[str, tuple[dict[str, object], str]] = {
    "limit": ({"order_type": "limit", "limit_price": "1.05"}, "1050"),
    "stop": ({"order_type": "stop", "limit_price": None, "stop_price": "1.11"}, "1110"),
    "stop_limit": ({"order_type": "stop_limit", "stop_price": "1.11", "limit_price": "1.12"}, "1120"),
}
every_type = pytest.mark.parametrize("order_type", OWN_PRICES)


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    """One database for the module; its books must hold after all tests."""
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    return shared


def another_account(market: Market, user: User) -> User:
    """A second account of `user`, netting, with money."""
    ((account_id,),) = market.execute(
        "WITH a AS (INSERT INTO accounts (user_id, currency, position_mode) VALUES (%s, 'USD', 'netting') RETURNING *) "
        "INSERT INTO risk_settings (user_id, account_id) SELECT user_id, id FROM a RETURNING account_id",
        (user.user_id,),
    )
    deposit(market.owner, user.user_id, account_id, 100_000)
    return replace(user, account_id=account_id)


class TestResting:
    @every_type
    def test_it_waits_with_its_prices(self, market: Market, order_type: str) -> None:
        user = market.user()
        prices, margin = OWN_PRICES[order_type]

        placed = market.place(user, **prices)

        (order,) = market.rows("orders", user)
        limit, stop = prices.get("limit_price"), prices.get("stop_price")
        assert (order["status"], order["order_type"], order["time_in_force"]) == ("new", order_type, "gtc")
        assert (order["quantity"], order["filled_quantity"], order["leaves_quantity"]) == (1, 0, 1)
        assert order["limit_price"] == (Decimal(str(limit)) if limit else None)
        assert order["stop_price"] == (Decimal(str(stop)) if stop else None)
        # and the audit says what had to be free
        submitted, approved = market.audit(user, placed["order_id"])
        assert (submitted["action"], submitted["status"]) == ("SUBMITTED", "pending_new")
        assert (approved["action"], approved["status"]) == ("APPROVED", "new")
        assert approved["details"] == {"margin": Decimal(margin), "commission": 0, "reduces": False}

    def test_the_answer_tells_the_order_and_its_prices_to_the_tick(self, market: Market) -> None:
        user = market.user()

        placed = market.place(user, symbol="AAPL", quantity="100", limit_price="140", client_order_id="mine")

        answer = placed.answer
        assert '"limit_price": 140.00' in placed.text
        assert set(answer) == {
            "outcome", "order_id", "account_id", "client_order_id", "symbol", "side", "order_type", "quantity",
            "limit_price", "stop_price", "time_in_force", "status", "filled_quantity", "leaves_quantity",
            "average_price", "expires_at", "failure_code", "failure_reason", "created_at", "sequence", "transact_time",
        }  # fmt: skip
        assert (answer["outcome"], answer["status"], answer["client_order_id"]) == ("new", "new", "mine")
        assert answer["account_id"] == str(user.account_id)

    def test_its_event_tells_it_once(self, market: Market) -> None:
        user = market.user()

        placed = market.place(user)

        event = market.last_event(user)
        (fact,) = event["payload"]["orders"]
        assert (event["event_type"], event["sequence"]) == ("order.new", placed["sequence"])
        assert (fact["order_id"], fact["status"]) == (placed["order_id"], "new")
        assert (Decimal(str(fact["limit_price"])), fact["leaves_quantity"]) == (Decimal("1.05"), 1)
        assert set(event["payload"]) == {"orders"}

    def test_all_rows_are_of_one_transaction_and_nothing_is_filled(self, market: Market) -> None:
        user = market.user()

        market.place(user, client_order_id="mine")

        ((transaction,),) = market.execute("SELECT xmin::text FROM orders WHERE user_id = %s", (user.user_id,))
        written = {
            table: market.execute(
                f"SELECT count(*) FROM {table} WHERE user_id = %s AND xmin::text = %s", (user.user_id, transaction)
            )[0][0]
            for table in (*ORDER_TABLES, "accounts")
        }
        once = dict.fromkeys((*ORDER_TABLES, "accounts"), 1)
        assert written == once | {"order_audit_log": 2, "fills": 0, "positions": 0, "ledger_entries": 0}

    def test_everything_that_was_asked_is_kept(self, market: Market) -> None:
        user = market.user()
        parent = market.place(user)["order_id"]
        asked: dict[str, object] = {
            "client_order_id": "mine", "parent_order_id": parent, "execution_instructions": {"note": "a"},
            "strategy_id": "s", "signal_id": "i", "component_name": "c", "metadata": {"a": 1},
        }  # fmt: skip

        market.place(user, stop_loss="1.0400", take_profit="1.0600", max_slippage="0.0002", **asked)

        (order,) = [row for row in market.rows("orders", user) if row["client_order_id"]]
        assert (order["stop_loss"], order["take_profit"]) == (Decimal("1.04"), Decimal("1.06"))
        assert order["max_slippage"] == Decimal("0.0002")
        assert {name: order[name] for name in asked} == asked | {"parent_order_id": UUID(parent)}

    def test_nothing_is_reserved(self, market: Market) -> None:
        # given margin for one order of 1050
        user = market.user(balance=1050)

        outcomes = [market.place(user)["outcome"] for _ in range(2)]

        worth = market.worth(user)
        assert outcomes == ["new", "new"]
        assert (worth["free_margin"], worth["margin_used"]) == ("1050.00", "0.00")

    def test_a_closed_market_lets_it_wait(self, market: Market) -> None:
        market.close("FX")

        assert market.place(market.user())["outcome"] == "new"
        # what may not wait is denied
        assert market.place(market.user(), limit_price="1.2", time_in_force="ioc")["code"] == "MARKET_CLOSED"

    def test_a_limit_needs_no_quote_where_nothing_is_converted(self, market: Market) -> None:
        market.execute("DELETE FROM quotes")

        assert market.place(market.user())["outcome"] == "new"

    def test_on_the_far_side_of_the_market_it_is_filled_at_the_quote(self, market: Market) -> None:
        user = market.user()

        placed = market.place(user, limit_price="1.2000")

        assert (placed["outcome"], placed["execution_price"], placed["slippage"]) == ("filled", Decimal("1.1002"), 0)
        assert [row["action"] for row in market.audit(user, placed["order_id"])] == [
            "SUBMITTED", "APPROVED", "EXECUTED", "FILLED",
        ]  # fmt: skip
        assert placed["sequence"] == market.last_event(user)["sequence"] == 3


class TestDenial:
    @pytest.mark.parametrize(
        ("facts", "code"),
        [
            ({"kyc": "pending"}, "KYC_REQUIRED"),
            ({"status": "suspended"}, "ACCOUNT_NOT_ACTIVE"),
            ({"risk": {"max_position_size": "0.5"}}, "RISK_LIMIT_VIOLATION"),
            ({"risk": {"max_positions": 0}}, "RISK_LIMIT_VIOLATION"),
            ({"risk": {"daily_trade_limit": 0}}, "RISK_LIMIT_VIOLATION"),
            ({"risk": {"max_daily_loss": 0}}, "RISK_LIMIT_VIOLATION"),
            ({"risk": {"max_working_orders": 0}}, "RISK_LIMIT_VIOLATION"),
            ({"balance": 1}, "INSUFFICIENT_MARGIN"),
            ({"balance": 1, "kind": "cash"}, "INSUFFICIENT_FUNDS"),
        ],
    )
    @every_type
    def test_a_denied_order_is_kept_with_its_prices(
        self, market: Market, facts: dict[str, Any], code: str, order_type: str
    ) -> None:
        user = market.user(**facts)
        prices, _ = OWN_PRICES[order_type]

        denied = market.place(user, client_order_id="mine", **prices)

        (order,) = market.rows("orders", user)
        limit, stop = prices.get("limit_price"), prices.get("stop_price")
        assert (denied["outcome"], denied["code"]) == ("denied", code)
        assert (order["status"], order["failure_code"], order["leaves_quantity"]) == ("denied", code, 0)
        assert order["limit_price"] == (Decimal(str(limit)) if limit else None)
        assert order["stop_price"] == (Decimal(str(stop)) if stop else None)
        assert [row["action"] for row in market.audit(user, denied["order_id"])] == ["SUBMITTED", "REJECTED"]
        assert market.last_event(user)["event_type"] == "order.denied"
        assert market.counts(user)["client_order_ids"] == 1

    @pytest.mark.parametrize("state", ["reducing", "halted"])
    def test_while_trading_is_halted(self, market: Market, state: str) -> None:
        user = market.user()
        market.execute("UPDATE platform_settings SET trading_state = %s", (state,))

        assert market.place(user)["code"] == "TRADING_HALTED"

    @pytest.mark.parametrize(("order_type", "short"), [(name, short) for name in OWN_PRICES for short in (0, "0.01")])
    def test_the_margin_at_its_own_price_must_be_free(
        self, market: Market, order_type: str, short: Decimal | int
    ) -> None:
        prices, margin = OWN_PRICES[order_type]
        user = market.user(balance=Decimal(margin) - Decimal(short))

        told = market.place(user, **prices).answer

        if short:
            assert (told["code"], told["details"]["required"]) == ("INSUFFICIENT_MARGIN", margin + ".00")
        else:
            assert told["outcome"] == "new"

    @pytest.mark.parametrize(("balance", "outcome"), [("14001.60", "new"), ("14001.59", "denied")])
    def test_a_cash_account_needs_the_whole_price_and_the_commission(
        self, market: Market, balance: str, outcome: str
    ) -> None:
        # given 100 AAPL at 140.00, and 0.02 a share x 0.8 for gold
        user = market.user(kind="cash", balance=balance)

        told = market.place(user, symbol="AAPL", quantity="100", limit_price="140").answer

        assert told["outcome"] == outcome
        assert told.get("code") == (None if outcome == "new" else "INSUFFICIENT_FUNDS")

    def test_a_cash_account_sells_what_it_holds_and_no_more(self, market: Market) -> None:
        # given a holding that took all the money
        user = market.user(kind="cash", balance="15003.60")
        market.trade(user, symbol="AAPL", quantity="100")
        sale = {"symbol": "AAPL", "side": "sell", "limit_price": "160"}

        held = market.place(user, quantity="100", **sale)
        more = market.place(user, quantity="101", **sale)
        nothing = market.place(user, side="sell", quantity="1")

        assert held["outcome"] == "new"
        assert (more["code"], more["details"]["held_quantity"]) == ("INSUFFICIENT_POSITION", 100)
        assert (nothing["code"], nothing["message"]) == (
            "INSUFFICIENT_POSITION", "You hold nothing here that you could sell to close.",
        )  # fmt: skip

    def test_so_many_may_work_at_once(self, market: Market) -> None:
        # given one in another account of theirs, which does not count
        user = market.user(risk={"max_working_orders": 2})
        market.place(another_account(market, user))
        first, second = market.place(user), market.place(user)

        third = market.place(user)
        market.cancel(user, first["order_id"])
        after_a_cancel = market.place(user)

        assert third["code"] == "RISK_LIMIT_VIOLATION"
        assert third["details"] == {
            "field": "max_working_orders",
            "value": "3",
            "constraint": "at most 2",
            "limit": "max_working_orders",
        }
        assert (second["outcome"], after_a_cancel["outcome"]) == ("new", "new")

    @pytest.mark.parametrize(
        ("state", "fields"),
        [
            ("partially_filled", {"quantity": "50", "limit_price": "1.1002"}),
            ("triggered", {"order_type": "limit_if_touched", "stop_price": "1.1002"}),
        ],
    )
    def test_one_that_has_begun_works_on(self, market: Market, state: str, fields: dict[str, object]) -> None:
        user = market.user(balance=10_000_000, risk={"max_working_orders": 1, "max_position_size": None})
        assert market.place(user, **fields)["outcome"] == state

        denied = market.place(user)

        assert (denied["code"], "cancel one first" in denied["message"]) == ("RISK_LIMIT_VIOLATION", True)

    def test_no_limit_on_working_orders_does_not_bind(self, market: Market) -> None:
        user = market.user(risk={"max_working_orders": None})

        assert {market.place(user)["outcome"] for _ in range(101)} == {"new"}

    def test_a_hundred_may_work_unless_told_otherwise(self, market: Market) -> None:
        user = market.user()

        told = [market.place(user)["outcome"] for _ in range(101)]

        assert (told.count("new"), told[-1]) == (100, "denied")


class TestReduceOnly:
    @pytest.fixture
    def trader(self, market: Market) -> User:
        """A netting account whose margin is all but used up, long one lot of EURUSD."""
        user = market.user(position_mode="netting", balance="1126.26")
        market.trade(user)
        return user

    @pytest.mark.parametrize("reduce_only", [True, False])
    def test_what_only_reduces_needs_no_margin(self, market: Market, trader: User, reduce_only: bool) -> None:
        placed = market.place(trader, side="sell", limit_price="1.2", reduce_only=reduce_only)

        approved = market.audit(trader, placed["order_id"])[-1]
        assert placed["outcome"] == "new"
        assert approved["details"] == {"margin": None, "commission": 0, "reduces": True}

    def test_open_to_who_may_not_trade(self, market: Market, trader: User) -> None:
        market.execute("UPDATE profiles SET account_status = 'suspended' WHERE id = %s", (trader.user_id,))
        market.execute("UPDATE platform_settings SET trading_state = 'reducing'")

        outcomes = [
            market.place(trader, side="sell", quantity="0.4", reduce_only=True, **fields)["outcome"]
            for fields in ({"limit_price": "1.2"}, {"limit_price": "1.0", "time_in_force": "ioc"})
        ]

        assert outcomes == ["new", "filled"]

    @pytest.mark.parametrize(
        "halt",
        [
            "UPDATE platform_settings SET trading_state = 'halted'",
            "UPDATE instruments SET trading_state = 'halted' WHERE symbol = 'EURUSD'",
            "UPDATE accounts SET trading_state = 'halted' WHERE user_id = %(user)s",
        ],
    )
    def test_while_halted_it_may_not_wait_either(self, market: Market, trader: User, halt: str) -> None:
        market.execute(halt, {"user": trader.user_id})

        denied = market.place(trader, side="sell", limit_price="1.2", reduce_only=True)

        assert (denied["code"], denied["details"]["value"]) == ("TRADING_HALTED", "halted")

    @pytest.mark.parametrize("fields", [{"side": "buy"}, {"side": "sell", "symbol": "GBPUSD"}])
    def test_it_must_reduce_what_is_there(self, market: Market, trader: User, fields: dict[str, object]) -> None:
        denied = market.place(trader, limit_price="1.2", reduce_only=True, **fields)

        assert denied["code"] == "INSUFFICIENT_POSITION"

    def test_what_another_account_holds_is_not_reduced(self, market: Market, trader: User) -> None:
        denied = market.place(another_account(market, trader), side="sell", limit_price="1.2", reduce_only=True)

        assert denied["code"] == "INSUFFICIENT_POSITION"

    def test_it_takes_no_exits(self, market: Market, trader: User) -> None:
        with raises_sqlstate("TR006") as caught:
            market.place(trader, side="sell", limit_price="1.2", reduce_only=True, stop_loss="1.3")

        assert details_of(caught.value)["field"] == "stop_loss"

    def test_a_hedging_account_has_none(self, market: Market) -> None:
        with raises_sqlstate("TR006") as caught:
            market.place(market.user(), reduce_only=True)

        assert details_of(caught.value)["field"] == "reduce_only"

    def test_a_hedging_account_opens_whatever_it_holds(self, market: Market) -> None:
        user = market.user(balance="1126.26")
        market.trade(user)

        assert market.place(user, side="sell", limit_price="1.2")["code"] == "INSUFFICIENT_MARGIN"


class TestRefusal:
    """What raises, keeps nothing and leaves the key free."""

    def refused(self, market: Market, sqlstate: str, **overrides: object) -> dict[str, Any]:
        user = market.user()
        before = market.counts(user)
        with raises_sqlstate(sqlstate) as caught:
            market.place(user, **overrides)
        assert market.counts(user) == before
        return details_of(caught.value)

    @pytest.mark.parametrize(
        ("side", "stop", "constraint"),
        [
            ("buy", "1.1002", "above the ask 1.1002"),
            ("buy", "1.0900", "above the ask 1.1002"),
            ("sell", "1.1000", "below the bid 1.1000"),
            ("sell", "1.2000", "below the bid 1.1000"),
        ],
    )
    @pytest.mark.parametrize("order_type", ["stop", "stop_limit"])
    def test_a_stop_on_the_wrong_side_of_the_market(
        self, market: Market, side: str, stop: str, constraint: str, order_type: str
    ) -> None:
        limit = "1.1" if order_type == "stop_limit" else None

        details = self.refused(market, "TR006", order_type=order_type, side=side, stop_price=stop, limit_price=limit)

        assert details == {"field": "stop_price", "value": stop, "constraint": constraint}

    @pytest.mark.parametrize(("side", "stop"), [("buy", "1.10021"), ("sell", "1.09999")])
    def test_one_tick_further_it_waits(self, market: Market, side: str, stop: str) -> None:
        placed = market.place(market.user(), order_type="stop", side=side, stop_price=stop, limit_price=None)

        assert placed["outcome"] == "new"

    def test_a_stop_whose_side_nobody_can_tell(self, market: Market) -> None:
        market.quote("EURUSD", "1.1000", "1.1002", stale_time())

        details = self.refused(market, "TR004", order_type="stop", stop_price="1.2", limit_price=None)

        assert details["value"] == "EURUSD"

    def test_while_the_market_is_closed_its_last_quote_tells(self, market: Market) -> None:
        market.quote("EURUSD", "1.1000", "1.1002", stale_time())
        market.close("FX")

        details = self.refused(market, "TR006", order_type="stop", stop_price="1.1", limit_price=None)

        assert details["field"] == "stop_price"
        assert market.place(market.user(), order_type="stop", stop_price="1.2", limit_price=None)["outcome"] == "new"

    def test_other_positions_are_valued_at_fresh_quotes(self, market: Market) -> None:
        user = market.user()
        market.trade(user, symbol="AAPL", quantity="1")
        market.quote("AAPL", "100", "100.02", stale_time())

        with raises_sqlstate("TR004") as caught:
            market.place(user)

        assert details_of(caught.value)["value"] == "AAPL"

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"order_type": "market", "limit_price": None}, "order_type"),
            ({"order_type": "iceberg"}, "order_type"),
            ({"order_type": None}, "order_type"),
            ({"time_in_force": "opg"}, "time_in_force"),
            ({"order_type": "stop", "limit_price": None, "stop_price": "1.2", "time_in_force": "ioc"}, "time_in_force"),
            ({"time_in_force": "gtd"}, "expires_at"),
            ({"time_in_force": "gtd", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
            ({"time_in_force": "gtc", "expires_at": "2090-01-01T00:00:00Z"}, "expires_at"),
            ({"time_in_force": None}, "time_in_force"),
            ({"limit_price": None}, "limit_price"),
            ({"stop_price": "1.2"}, "stop_price"),
            ({"order_type": "stop", "stop_price": "1.2"}, "limit_price"),
            ({"order_type": "stop", "limit_price": None}, "stop_price"),
            ({"limit_price": "1.050001"}, "limit_price"),
            ({"limit_price": "0"}, "limit_price"),
            ({"limit_price": "-1.05"}, "limit_price"),
            ({"limit_price": "NaN"}, "limit_price"),
            ({"limit_price": "Infinity"}, "limit_price"),
            ({"order_type": "stop", "limit_price": None, "stop_price": "1.2000001"}, "stop_price"),
            ({"stop_loss": "1.05"}, "stop_loss"),
            ({"take_profit": "1.05"}, "take_profit"),
            ({"side": "sell", "limit_price": "1.2", "stop_loss": "1.2"}, "stop_loss"),
            ({"order_type": "stop", "limit_price": None, "stop_price": "1.2", "stop_loss": "1.2"}, "stop_loss"),
            ({"quantity": "0.015"}, "quantity"),
            ({"side": "long"}, "side"),
            ({"max_slippage": "-1"}, "max_slippage"),
            ({"version": 2}, "version"),
            ({"idempotency_key": None}, "idempotency_key"),
        ],
    )
    def test_a_field_that_does_not_fit(self, market: Market, fields: dict[str, object], field: str) -> None:
        assert self.refused(market, "TR006", **fields)["field"] == field

    def test_an_unknown_symbol(self, market: Market) -> None:
        assert self.refused(market, "TR002", symbol="NOSUCH")["field"] == "symbol"

    def test_an_account_of_somebody_else(self, market: Market) -> None:
        assert self.refused(market, "TR001", account_id=str(market.user().account_id))["field"] == "account_id"

    def test_a_client_order_id_that_was_used(self, market: Market) -> None:
        user = market.user()
        market.trade(user, client_order_id="mine")

        with raises_sqlstate("TR005"):
            market.place(user, client_order_id="mine")


class TestReplay:
    def test_the_same_answer_whatever_has_changed_since(self, market: Market) -> None:
        user = market.user()
        request = resting_request(user)
        first = send(market.trader, request, "place_order")
        market.execute("UPDATE platform_settings SET trading_state = 'halted'")
        market.cancel(user, first["order_id"])

        second = send(market.trader, request, "place_order")

        assert second.replayed
        assert first.text == second.text

    def test_other_content_under_the_key(self, market: Market) -> None:
        user = market.user()
        request = resting_request(user)
        send(market.trader, request, "place_order")

        with raises_sqlstate("TR003"):
            send(market.trader, request | {"request_hash": "another"}, "place_order")

    def test_twenty_callers_with_one_key_place_one_order(self, market: Market) -> None:
        user = market.user()

        told = told_at_once(market, [("place_order", resting_request(user))] * 20)

        assert (told.count("new"), told.count("replayed")) == (1, 19)
        assert market.counts(user)["orders"] == 1
        assert deadlocks(market) == 0

    def test_racers_cannot_pass_the_limit_on_working_orders(self, market: Market) -> None:
        user = market.user(risk={"max_working_orders": 5})

        told = told_at_once(market, [("place_order", resting_request(user)) for _ in range(20)])

        assert (told.count("new"), told.count("RISK_LIMIT_VIOLATION")) == (5, 15)
        assert deadlocks(market) == 0
