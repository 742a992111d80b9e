"""The integration scenarios of the order-execution quickstart, over HTTP and WebSocket on a whole local system.

Where the design decided otherwise, the test says so in its text. Scenario 4 stands in test_venues.py, scenario 7 in
test_changing_orders.py.
"""

import uuid
from collections.abc import Iterator
from decimal import Decimal

import psycopg
import pytest

from tests.kit.builders import make_user
from tests.kit.local_system import LocalSystem
from tests.kit.traders import Trader, Traders, exact, of_type

ORDERS = "/api/v1/orders"


@pytest.fixture
def apple_at_150(local_system: LocalSystem) -> Iterator[None]:
    """AAPL trading at $150."""
    local_system.quote("AAPL", "149.98", "150.00")
    yield
    local_system.quote("AAPL")


def cash_trader(system: LocalSystem, traders: Traders, balance: str) -> Trader:
    """A trader of their own with a cash account of that many dollars."""
    email = f"cash-{uuid.uuid4()}@example.com"
    with psycopg.connect(system.database_url, autocommit=True) as owner:
        make_user(owner, email=email, kind="cash", balance=balance)
    return traders.named(email)


@pytest.mark.usefixtures("apple_at_150")
class TestScenarios:
    def test_1_the_set_up_is_verified_by_health_and_a_first_order(
        self, local_system: LocalSystem, traders: Traders
    ) -> None:
        trader = cash_trader(local_system, traders, "15100")
        # when the API is asked for its health
        health = exact(trader.http.get("/api/v1/health"))
        # then it answers ok and when
        assert health["status"] == "ok"
        assert set(health) == {"status", "timestamp"}
        # when an order comes without a side and without a key
        response = trader.http.post(ORDERS, json={"symbol": "AAPL", "quantity": 100, "order_type": "MARKET"})
        # then it is 201 with the order's details
        assert response.status_code == 201, response.text
        assert exact(response)["trader_id"] == str(trader.user_id)

    def test_2_a_market_order_fills_at_once(self, local_system: LocalSystem, traders: Traders) -> None:
        """$1.60 of commission and $2.00 of spread have to be paid too, which the quickstart leaves out."""
        # given $15,003.60 and AAPL at $150
        trader = cash_trader(local_system, traders, "15003.60")
        with trader.stream("orders") as stream:
            # when 100 shares are bought
            response = trader.http.post(
                ORDERS, json={"symbol": "AAPL", "quantity": 100, "order_type": "MARKET", "side": "BUY"}
            )
            # then the order is filled at $150.00; how fast is measured by the benchmarks
            assert response.status_code == 201, response.text
            order = exact(response)
            assert (order["status"], order["average_price"]) == ("FILLED", "150.00")
            # and the trader hears PENDING, then FILLED
            filled = stream.wait_for(of_type("order.filled"))
            assert (filled.message["quantity_filled"], filled.message["price_at_fill"]) == (100, Decimal("150.00"))
            told = [m["data"]["status"] for m in stream.messages() if m.get("type") == "order_update"]
            assert told == ["pending", "executed"]
        # and there are one order, one fill and its log
        assert [row["filled_quantity"] for row in trader.rows("orders")] == [100]
        assert [(row["quantity"], row["price"]) for row in trader.rows("fills")] == [(100, Decimal("150.00"))]
        actions = [row["action"] for row in trader.read(f"{ORDERS}/{order['id']}/audit")["data"]]
        assert actions == ["SUBMITTED", "APPROVED", "EXECUTED", "FILLED"]

    def test_3_an_order_beyond_the_funds_says_what_is_needed_and_what_is_there(
        self, local_system: LocalSystem, traders: Traders
    ) -> None:
        """The quickstart keeps no entry; here the denied order stays, because compliance asks for it."""
        # given $5,000
        trader = cash_trader(local_system, traders, "5000")
        # when 100 shares at $150 are bought
        response = trader.http.post(
            ORDERS, json={"symbol": "AAPL", "quantity": 100, "order_type": "MARKET", "side": "BUY"}
        )
        # then the answer is 400 in the words of the contract
        assert response.status_code == 400
        body = exact(response)
        assert body["error"] == "INSUFFICIENT_FUNDS"
        assert body["message"] == "Insufficient funds for $15,000 order; available: $5,000"
        assert body["details"]["available_balance"] == 5000
        assert 15_000 <= body["details"]["required_balance"] <= 15_010
        # and nothing is bought or booked
        assert trader.rows("fills") == []
        assert [row["status"] for row in trader.rows("orders")] == ["denied"]
        assert trader.read("/api/v1/account")["balance"] == "5000.00"

    def test_6_the_audit_of_an_order_is_complete_and_in_order(
        self, local_system: LocalSystem, traders: Traders
    ) -> None:
        # given an executed order
        trader = cash_trader(local_system, traders, "15100")
        order = exact(trader.http.post(ORDERS, json={"symbol": "AAPL", "quantity": 100, "order_type": "MARKET"}))
        # when its audit is read
        audit = trader.read(f"{ORDERS}/{order['id']}/audit")
        # then it has the four entries with the states of the contract
        assert audit["total"] == 4
        assert [(row["action"], row["status"]) for row in audit["data"]] == [
            ("SUBMITTED", "PENDING"),
            ("APPROVED", "PENDING"),
            ("EXECUTED", "PENDING"),
            ("FILLED", "FILLED"),
        ]
        for row in audit["data"]:
            assert (row["order_id"], row["trader_id"]) == (order["id"], str(trader.user_id))
            assert (row["reason"], row["retry_attempt"]) == (None, None)
        times = [row["timestamp"] for row in audit["data"]]
        assert times == sorted(times)
        # and compliance reads it too, another trader does not
        compliance = traders.named("compliance@example.com")
        assert compliance.read(f"{ORDERS}/{order['id']}/audit") == audit
        assert traders.new().http.get(f"{ORDERS}/{order['id']}/audit").status_code == 404
