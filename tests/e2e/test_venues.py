"""Orders for other venues over HTTP and WebSocket: a silent venue, its recovery, and what the trader sees of it."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local.servers import free_port
from tests.kit.local_system import LocalSystem, wait_until
from tests.kit.traders import Message, Trader, Traders, error_of, exact, of_type
from tests.kit.venues import make_venue_instrument

# So that a timeout and its waits take a moment and not the half minute that they take in earnest.
PARAMETERS = "VenueTimeoutMs=400 OrderRetryWaitMs=50 MockLatencyMs=5"
# The feed that runs already does not know these instruments: nobody renews their quotes.
LASTING: Mapping[str, Any] = {"quote_age_ms_max": 3_600_000}
SETTLED_SECONDS = 15.0


@pytest.fixture(scope="module")
def system(system_folder: Path) -> Iterator[LocalSystem]:
    system = LocalSystem(system_folder / "venues", free_port(), PARAMETERS)
    try:
        system.start()
        with psycopg.connect(system.database_url, autocommit=True) as owner:
            for symbol in ("TEST_TIMEOUT", "TEST_TIMEOUT_KEPT", "TEST_PARTIAL"):
                make_venue_instrument(owner, symbol, **LASTING)
            make_venue_instrument(owner, "TEST_PAPER", venue="paper", slippage_variation=0, **LASTING)
            make_venue_instrument(owner, "TEST_NOWHERE", venue="nowhere", **LASTING)
        for symbol in ("TEST_TIMEOUT", "TEST_TIMEOUT_KEPT", "TEST_PARTIAL", "TEST_PAPER", "TEST_NOWHERE"):
            system.quote(symbol, "99.98", "100.00")
        yield system
    finally:
        system.stop()


@pytest.fixture(scope="module")
def all_traders(system: LocalSystem) -> Traders:
    return Traders(system, 10)


def order_when(trader: Trader, order_id: str, status: str) -> Message:
    """The order as GET shows it, once it has come to `status`."""
    wait_until(
        lambda: trader.read(f"/api/v1/orders/{order_id}")["status"] == status, SETTLED_SECONDS, f"{order_id} {status}"
    )
    return trader.read(f"/api/v1/orders/{order_id}")


def audit_of(trader: Trader, order_id: str) -> list[tuple[str, str, str | None, int | None]]:
    rows = trader.read(f"/api/v1/orders/{order_id}/audit")["data"]
    return [(row["action"], row["status"], row["error_code"], row["retry_attempt"]) for row in rows]


RECOVERED = [
    ("SUBMITTED", "PENDING", None, None),
    ("APPROVED", "PENDING", None, None),
    ("EXECUTED", "PENDING", "TIMEOUT", 0),
    ("RECOVERED", "PENDING", None, 1),
    ("FILLED", "FILLED", None, 1),
]


def test_a_venue_times_out_and_the_order_recovers(traders: Traders) -> None:
    # given a trader who listens, and a venue that loses the first submission of each order and says nothing
    trader = traders.new()
    with trader.stream("orders") as stream:
        # when
        sent = trader.order(symbol="TEST_TIMEOUT", quantity="10", idempotency_key="once")
        # then it is answered at once
        assert sent.status_code == 200, sent.text
        data = exact(sent)["data"]
        assert set(data) == {"order_id", "position_id", "status", "order_details"}
        assert data["status"] == "pending"
        # and the trader sees it pending, then filled at 100, with nothing of the recovery between
        filled = stream.wait_for(of_type("order.filled")).message
        assert (filled["order_id"], filled["status"], filled["price_at_fill"]) == (data["order_id"], "FILLED", 100)
        updates = [frame for frame in stream.frames() if frame.get("type") == "order_update"]
        assert [update["data"]["status"] for update in updates] == ["pending", "executed"]
    # and the audit tells of it, with one order and one fill
    order = order_when(trader, data["order_id"], "FILLED")
    assert audit_of(trader, data["order_id"]) == RECOVERED
    assert (len(order["fills"]), order["average_price"], order["filled_quantity"]) == (1, "100.00", "10")
    assert order["fills"][0]["venue"] == "mock"
    assert len(trader.rows("orders")) == len(trader.rows("positions")) == len(trader.rows("fills")) == 1
    # and the key still has its first answer
    again = trader.order(symbol="TEST_TIMEOUT", quantity="10", idempotency_key="once")
    assert (exact(again)["data"], again.headers["Idempotency-Replayed"]) == (data, "true")
    assert len(trader.rows("orders")) == 1


def test_a_submission_that_arrived_is_found_and_not_repeated(traders: Traders) -> None:
    trader = traders.new()
    sent = trader.order("/api/v1/orders", symbol="TEST_TIMEOUT_KEPT", quantity="10", side="SELL")
    assert sent.status_code == 201, sent.text
    body = exact(sent)
    assert (body["status"], body["side"], body["filled_quantity"]) == ("PENDING", "SELL", "0")
    order = order_when(trader, body["id"], "FILLED")
    assert audit_of(trader, body["id"]) == RECOVERED
    assert (len(order["fills"]), order["average_price"]) == (1, "99.98")


def test_parts_arrive_one_by_one(traders: Traders) -> None:
    trader = traders.new()
    with trader.stream("orders") as stream:
        order_id = exact(trader.order(symbol="TEST_PARTIAL", quantity="10"))["data"]["order_id"]
        part = stream.wait_for(of_type("order.partial")).message
    assert (part["order_id"], part["status"], part["quantity_filled"], part["total_filled"]) == (
        order_id,
        "PARTIAL",
        5,
        5,
    )
    assert order_when(trader, order_id, "PARTIAL")["filled_quantity"] == "5"


def test_the_paper_venue_fills_at_the_quote(traders: Traders) -> None:
    trader = traders.new()
    order_id = exact(trader.order(symbol="TEST_PAPER", quantity="10"))["data"]["order_id"]
    order = order_when(trader, order_id, "FILLED")
    assert [fill["venue"] for fill in order["fills"]] == ["paper"]
    assert Decimal(order["average_price"]) == 100
    assert [action for action, *_ in audit_of(trader, order_id)] == ["SUBMITTED", "APPROVED", "EXECUTED", "FILLED"]


def test_a_venue_that_is_not_served_refuses_and_keeps_nothing(traders: Traders) -> None:
    trader = traders.new()
    refused = trader.order(symbol="TEST_NOWHERE", quantity="10", idempotency_key="again")
    assert refused.status_code == 503
    assert error_of(refused)["code"] == "VENUE_UNAVAILABLE"
    assert refused.headers["Retry-After"] == "60"
    assert trader.rows("orders") == []


def test_the_books_are_in_order(system: LocalSystem) -> None:
    with psycopg.connect(system.database_url, autocommit=True) as owner:
        assert owner.execute("SELECT * FROM verify_books()").fetchall() == []
