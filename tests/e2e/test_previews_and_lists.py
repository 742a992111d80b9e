"""Asking before ordering, and finding afterwards: previews, filters, history and the profile over HTTP."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import httpx
import pytest

from tests.kit.local_system import LocalSystem
from tests.kit.traders import Trader, Traders, error_of, exact

PREVIEW, ORDERS = "/api/v1/orders/preview", "/api/v1/orders"
TICK = Decimal("0.01")


@pytest.fixture
def cola(local_system: LocalSystem) -> Iterator[str]:
    """A stock whose price stands still for one test."""
    local_system.quote("KO", "70", "70.02")
    yield "KO"
    local_system.quote("KO")


def previewed(trader: Trader, **fields: object) -> dict[str, object]:
    body = {"symbol": "KO", "order_type": "MARKET", "side": "BUY", "quantity": "100"} | fields
    response = trader.http.post(PREVIEW, json=body)
    assert response.status_code == httpx.codes.OK, response.text
    return exact(response)


def test_what_is_previewed_is_what_is_executed(traders: Traders, cola: str) -> None:
    """100 KO at 70.00 / 70.02, leverage 20, gold: 0.02 x 100 x 0.8 = 1.60 of commission, 70.02 x 100 / 20 of margin."""
    # given a trader who asks first
    trader = traders.new()
    told = previewed(trader)
    assert (told["accepted"], told["commission"], told["currency"]) == (True, "1.60", "USD")
    # then nothing has happened by it
    assert trader.rows("orders") == []
    assert trader.read("/api/v1/account")["free_margin"] == told["free_margin_before"] == "100000.00"
    # when the order is sent
    data = exact(trader.order(symbol=cola, quantity=100))["data"]
    # then it comes to what was told, its price but for the random part of the slippage
    details = data["execution_details"]
    assert details["commission"] == told["commission"]
    assert abs(Decimal(details["execution_price"]) - Decimal(str(told["price"]))) <= TICK
    left = Decimal(trader.read("/api/v1/account")["free_margin"])
    assert abs(left - Decimal(str(told["free_margin_after"]))) <= 2 * 100 * TICK


def test_what_would_be_denied_is_told_before(traders: Traders, cola: str) -> None:
    # given an order that no account of 100,000 can carry
    trader = traders.new()
    told = previewed(trader, quantity="50000")
    # when it is sent all the same
    denied = error_of(trader.order(symbol=cola, quantity=50_000))
    # then the code is the same, and the preview was kept nowhere
    refusal = told["refusal"]
    assert isinstance(refusal, dict)
    assert (told["accepted"], refusal["code"]) == (False, "INSUFFICIENT_MARGIN")
    assert denied["code"] == refusal["code"]
    assert len(trader.rows("orders", order_by="created_at")) == 1


def test_orders_are_found_by_what_they_are(traders: Traders, cola: str) -> None:
    # given three orders of a trader, the last one denied
    trader = traders.new()
    first = exact(trader.order(symbol=cola, quantity=10, client_order_id="first"))["data"]["order_id"]
    between = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    second = exact(trader.order(side="sell"))["data"]["order_id"]
    denied = error_of(trader.order(symbol=cola, quantity=50_000))["details"]["order_id"]

    def found(**query: str) -> list[str]:
        response = trader.http.get(ORDERS, params=query)
        assert response.status_code == httpx.codes.OK, response.text
        return [order["id"] for order in exact(response)["data"]]

    # then each filter narrows
    assert found(symbol=cola) == [denied, first]
    assert found(side="SELL") == [second]
    assert found(client_order_id="first") == [first]
    assert found(status="REJECTED", symbol=cola) == [denied]
    assert found(**{"from": between}) == [denied, second]
    assert found(to=between) == [first]
    # and the history holds all that is closed, page by page
    page = trader.read("/api/orders/history?limit=2")
    assert [order["id"] for order in page["data"]] == [denied, second]
    assert [order["id"] for order in trader.read(f"/api/orders/history?cursor={page['next_cursor']}")["data"]] == [
        first
    ]


def test_the_plain_paths_serve_a_front_end(traders: Traders) -> None:
    # given a trader with a position
    trader = traders.new()
    trader.order()
    # when a front end asks
    profile = trader.read("/api/user/profile")
    # then it learns who trades under which limits
    assert profile["id"] == str(trader.user_id)
    assert [account["id"] for account in profile["accounts"]] == [str(trader.account_id)]
    assert profile["accounts"][0]["limits"].keys() >= {"max_positions", "max_daily_loss"}
    assert trader.read("/api/positions")["total"] == 1
    assert trader.read("/api/v1/positions?status=closed") == {"data": [], "next_cursor": None}
    assert trader.read("/api/health")["status"] == "ok"
