"""A market order from the request to the last row: what is answered, booked, audited and read back."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import ROUND_HALF_UP, Decimal

import psycopg
import pytest

from local.environment import set_trade_always
from tests.kit.local_system import LocalSystem
from tests.kit.traders import Trader, Traders, error_of, exact, execute

REST_ORDERS = "/api/v1/orders"
CENT = Decimal("0.01")
DECIMAL_TEXT = re.compile(r"-?[0-9]+(\.[0-9]+)?")
# Every table that an executed order writes, and the column that names the order.
WRITTEN_BY_ORDER = {
    "orders": "id",
    "fills": "order_id",
    "positions": "order_id",
    "ledger_entries": "order_id",
    "order_audit_log": "order_id",
    "idempotency_keys": "(answer ->> 'order_id')::uuid",
}


def cents(amount: Decimal) -> Decimal:
    return amount.quantize(CENT, ROUND_HALF_UP)


def executed_details(trader: Trader, order_id: str) -> dict:
    rows = execute(
        trader.system,
        "SELECT details FROM order_audit_log WHERE user_id = %s AND order_id = %s AND action = 'EXECUTED'",
        trader.user_id,
        order_id,
    )
    assert len(rows) == 1
    return rows[0]["details"]


def slipped(details: dict, reference: str, pip: str, tick: str) -> Decimal:
    """The price that the audit's slippage in pips makes of a reference price."""
    price = Decimal(reference) + Decimal(str(details["slippage"]["pips"])) * Decimal(pip)
    return (price / Decimal(tick)).quantize(Decimal(1), ROUND_HALF_UP) * Decimal(tick)


def test_a_forex_order_is_booked_as_calculated_by_hand(local_system: LocalSystem, traders: Traders) -> None:
    """0.5 lots of EURUSD bought at 1.10000 / 1.10020 by a USD account of 100,000 with leverage 100.

    The audit names a slippage of p pips of 0.0001.

    fill price    1.10020 + p x 0.0001, to the tick of 0.00001; say 1.10031, a slippage of 0.00011
    margin        0.5 x 100,000 / 100 = 500 EUR, at the open price 500 x 1.10031 = 550.155 -> 550.16 USD
    commission    0, forex is paid by the spread
    total cost    550.16 + 0 = 550.16
    balance       100,000.00, nothing is realised yet
    unrealized    (1.10000 - 1.10031) x 50,000 = -15.50, longs are valued at bid
    free margin   100,000.00 - 15.50 - 550.16 = 99,434.34
    """
    # given a price that stands still
    trader = traders.new()
    local_system.quote("EURUSD", "1.1", "1.1002")
    key = str(uuid.uuid4())
    # when half a lot is bought
    response = trader.order(quantity=0.5, idempotency_key=key)
    # then the answer has the form of the contract, every amount as decimal text
    assert response.status_code == 200, response.text
    body = exact(response)
    assert set(body) == {"success", "data", "context"}
    assert body["success"] is True
    assert set(body["context"]) == {"requestId", "executionTime"}
    assert set(body["data"]) == {"order_id", "position_id", "status", "execution_details"}
    assert body["data"]["status"] == "executed"
    details = body["data"]["execution_details"]
    figures = {name: details[name] for name in ("execution_price", "slippage", "commission", "total_cost")}
    assert all(DECIMAL_TEXT.fullmatch(figure) for figure in figures.values()), figures
    # and the figures of the calculation
    told = executed_details(trader, body["data"]["order_id"])
    quoted = (Decimal(str(told["bid"])), Decimal(str(told["ask"])), told["source"])
    assert quoted == (Decimal("1.1"), Decimal("1.1002"), "manual")
    assert told["slippage"]["seed"] == f"{trader.account_id}:{key}"
    price = slipped(told, "1.1002", "0.0001", "0.00001")
    margin = cents(500 * price)
    assert {name: Decimal(figure) for name, figure in figures.items()} == {
        "execution_price": price,
        "slippage": price - Decimal("1.1002"),
        "commission": Decimal(0),
        "total_cost": margin,
    }
    # and the account after it
    unrealized = (Decimal("1.1") - price) * 50_000
    account = trader.read("/api/v1/account")
    assert {name: Decimal(account[name]) for name in ("balance", "unrealized_pnl", "margin_used", "free_margin")} == {
        "balance": Decimal(100_000),
        "unrealized_pnl": cents(unrealized),
        "margin_used": margin,
        "free_margin": cents(100_000 + unrealized - margin),
    }
    assert Decimal(account["equity"]) == cents(100_000 + unrealized)
    assert Decimal(account["margin_level"]) == cents((100_000 + unrealized) * 100 / margin)


def test_a_stock_order_is_booked_as_calculated_by_hand(local_system: LocalSystem, traders: Traders) -> None:
    """100 MSFT sold short at 490.00 / 490.20 by a gold USD account of 100,000; stocks have a leverage of 20.

    fill price    490.00 - p x 0.01 to the tick of 0.01; say 490.00, the slippage of p = 0.1 is below half a tick
    margin        100 x 490.00 / 20 = 2,450.00
    commission    0.02 a share x 100 x 0.8 for gold = 1.60, above the minimum of 1
    total cost    2,450.00 + 1.60 = 2,451.60
    balance       100,000.00 - 1.60 = 99,998.40
    unrealized    (490.00 - 490.20) x 100 = -20.00, shorts are valued at ask
    free margin   99,998.40 - 20.00 - 2,450.00 = 97,528.40
    """
    # given
    trader = traders.new()
    local_system.quote("MSFT", "490", "490.2")
    # when
    response = trader.order(symbol="MSFT", side="sell", quantity=100)
    # then
    assert response.status_code == 200, response.text
    data = exact(response)["data"]
    told = executed_details(trader, data["order_id"])
    price = slipped(told, "490", "-0.01", "0.01")
    margin, commission = cents(100 * price / 20), Decimal("1.60")
    details = data["execution_details"]
    assert Decimal(details["execution_price"]) == price
    assert Decimal(details["slippage"]) == 490 - price
    assert details["commission"] == "1.60"
    assert Decimal(details["total_cost"]) == margin + commission
    account = trader.read("/api/v1/account")
    assert account["balance"] == "99998.40"
    assert Decimal(account["free_margin"]) == cents(100_000 - commission + (price - Decimal("490.2")) * 100 - margin)
    # and the ledger carries the balance after each entry
    entries = trader.rows("ledger_entries", "entry_type, amount, balance_after", order_by="entry_number")
    assert [tuple(entry.values()) for entry in entries] == [
        ("deposit", Decimal(100_000), Decimal(100_000)),
        ("commission", Decimal("-1.60"), Decimal("99998.40")),
    ]


def test_everything_is_written_by_one_transaction(traders: Traders) -> None:
    # given
    trader = traders.new()
    # when
    data = exact(trader.order(quantity=0.2))["data"]
    # then each table holds the order's rows, all of the same transaction
    writers: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    for table, column in WRITTEN_BY_ORDER.items():
        rows = execute(
            trader.system,
            f"SELECT xmin::text AS writer FROM {table} WHERE user_id = %s AND {column} = %s",
            trader.user_id,
            data["order_id"],
        )
        counts[table] = len(rows)
        writers[table] = {row["writer"] for row in rows}
    writers["accounts"] = {row["writer"] for row in trader.rows("accounts", "xmin::text AS writer")}
    events = trader.rows("events", "xmin::text AS writer, event_type, sequence", order_by="sequence")
    writers["events"] = {event["writer"] for event in events if event["event_type"] == "order.filled"}
    assert counts == dict.fromkeys(WRITTEN_BY_ORDER, 1) | {"order_audit_log": 4}
    assert len(set().union(*writers.values())) == 1, writers
    assert [event["event_type"] for event in events] == ["account.deposited", "order.filled"]


def test_the_rest_dialect_answers_201_and_buys_when_no_side_is_given(traders: Traders) -> None:
    # given
    trader = traders.new()
    # when
    body = {"symbol": "EURUSD", "order_type": "MARKET", "quantity": "0.3", "client_order_id": "mine-1"}
    response = trader.http.post(REST_ORDERS, json=body)
    # then the body is the order itself
    assert response.status_code == 201, response.text
    order = exact(response)
    assert {name: order[name] for name in ("status", "side", "order_type", "symbol", "client_order_id")} == {
        "status": "FILLED",
        "side": "BUY",
        "order_type": "MARKET",
        "symbol": "EURUSD",
        "client_order_id": "mine-1",
    }
    assert order["trader_id"] == str(trader.user_id)
    assert (order["quantity"], order["filled_quantity"]) == ("0.3", "0.3")
    # and an error has the form of this dialect, too
    refused = trader.http.post(REST_ORDERS, json=body | {"quantity": "0"})
    assert refused.status_code == 400
    assert set(exact(refused)) == {"error", "message", "details"}
    assert exact(refused)["error"] == "VALIDATION_FAILED"


def test_an_executed_order_is_read_back(traders: Traders) -> None:
    # given an executed order
    trader = traders.new()
    data = exact(trader.order(quantity=0.4))["data"]
    price = data["execution_details"]["execution_price"]
    # when it is read, then it has its fill
    order = trader.read(f"{REST_ORDERS}/{data['order_id']}")
    assert (order["status"], order["average_price"], order["position_id"]) == ("FILLED", price, data["position_id"])
    assert [(fill["quantity_filled"], fill["price_at_fill"]) for fill in order["fills"]] == [("0.4", price)]
    # and its story
    audit = trader.read(f"{REST_ORDERS}/{data['order_id']}/audit")
    assert [row["action"] for row in audit["data"]] == ["SUBMITTED", "APPROVED", "EXECUTED", "FILLED"]
    assert [row["status"] for row in audit["data"]] == ["PENDING", "PENDING", "PENDING", "FILLED"]
    # and the lists know it
    positions = trader.read("/api/v1/positions")
    assert [(one["id"], one["side"], one["quantity"]) for one in positions["data"]] == [
        (data["position_id"], "LONG", "0.4")
    ]
    assert [one["id"] for one in trader.read(REST_ORDERS)["data"]] == [data["order_id"]]
    account = trader.read("/api/v1/account")
    assert (account["open_positions"], account["margin_used"]) == (1, positions["data"][0]["margin_used"])


def test_a_cash_account_is_told_what_it_has(local_system: LocalSystem, traders: Traders) -> None:
    """15,100 USD buy 100 AAPL at 150.00 with 1.60 of commission; 96.40 are left to spend, the spread taken off."""
    # given a cash account that has spent nearly all it had
    trader = traders.named("cash@example.com")
    local_system.quote("AAPL", "149.98", "150")
    first = trader.order(symbol="AAPL", quantity=100)
    assert first.status_code == 200, first.text
    assert exact(first)["data"]["execution_details"]["execution_price"] == "150.00"
    # when it orders the same again
    response = trader.order(symbol="AAPL", quantity=100)
    # then it is denied in these words
    assert response.status_code == 400
    error = error_of(response)
    assert error["code"] == "INSUFFICIENT_FUNDS"
    assert error["message"] == "Insufficient funds for $15,000 order; available: $96.40"
    assert {name: Decimal(error["details"][name]) for name in ("required_balance", "available_balance")} == {
        "required_balance": Decimal("15003.60"),
        "available_balance": Decimal("96.40"),
    }
    # and the denied order is kept
    order = trader.read(f"{REST_ORDERS}/{error['details']['order_id']}")
    assert (order["status"], order["failure_code"]) == ("REJECTED", "INSUFFICIENT_FUNDS")


@contextmanager
def market_hours(system: LocalSystem) -> Iterator[None]:
    """Markets keep their hours inside, and breakers are armed; prices that tests have played with trip none."""
    with psycopg.connect(system.database_url, autocommit=True) as connection:
        connection.execute("UPDATE symbol_breakers SET armed_at = clock_timestamp()")
        set_trade_always(connection, wanted=False)
        try:
            yield
        finally:
            set_trade_always(connection, wanted=True)


def test_a_closed_market_denies_and_an_open_one_trades(local_system: LocalSystem, traders: Traders) -> None:
    # given a symbol whose market is closed now: exchanges all over the world are never all open at once
    trader = traders.new()
    closed = execute(
        local_system,
        "SELECT symbol FROM instruments AS i WHERE i.is_active AND NOT (SELECT c.always_open OR EXISTS ("
        "SELECT FROM market_sessions AS s WHERE s.calendar = c.name AND clock_timestamp() + interval '1 minute' "
        "> s.opens_at AND clock_timestamp() < s.closes_at) FROM market_calendars AS c WHERE c.name = i.calendar) "
        "ORDER BY symbol LIMIT 1",
    )[0]["symbol"]
    with market_hours(local_system):
        # when it is ordered
        denied = trader.order(symbol=closed, quantity=1, idempotency_key="after-hours")
        # then the order is denied and says when to come again
        assert denied.status_code == 400, denied.text
        error = error_of(denied)
        assert error["code"] == "MARKET_CLOSED"
        assert (error["details"]["field"], error["details"]["value"]) == ("symbol", closed)
        assert error["details"]["opens_at"] > trader.read("/api/v1/account")["created_at"]
        # and a market that never closes trades
        assert trader.order(symbol="BTCUSD", quantity="0.01").status_code == 200
    # and the stored denial stands when markets trade always again
    again = trader.order(symbol=closed, quantity=1, idempotency_key="after-hours")
    assert error_of(again) == error
    assert again.headers["idempotency-replayed"] == "true"


def test_an_end_that_nothing_reaches_is_refused_and_leaves_no_trace(traders: Traders) -> None:
    # given
    trader = traders.new()
    # when
    response = trader.order(order_type="limit", price="1.05", time_in_force="gtd")
    # then
    assert response.status_code == 400
    error = error_of(response)
    assert (error["code"], error["details"]["field"], error["details"]["constraint"]) == (
        "VALIDATION_FAILED",
        "expires_at",
        "required",
    )
    assert trader.rows("orders") == []
    keys = trader.rows("idempotency_keys", "idempotency_key", order_by="idempotency_key")
    assert [row["idempotency_key"] for row in keys] == ["load-funding"]


def test_the_audit_cannot_be_changed_by_its_owner(traders: Traders) -> None:
    # given an audited order
    trader = traders.new()
    trader.order()
    # when the owner of the database tries to rewrite it, then every way is shut
    for statement in (
        "UPDATE order_audit_log SET reason = 'another' WHERE user_id = %s",
        "DELETE FROM order_audit_log WHERE user_id = %s",
    ):
        with pytest.raises(psycopg.Error):
            execute(trader.system, statement, trader.user_id)
    with pytest.raises(psycopg.Error):
        execute(trader.system, "TRUNCATE order_audit_log")
    assert len(trader.rows("order_audit_log")) == 5
