"""Replacing and canceling orders, closing positions, end to end: HTTP calls in, answers and WebSocket messages out."""

import uuid
from decimal import Decimal

from tests.kit.local_system import LocalSystem
from tests.kit.traders import Message, Traders, exact, execute, of_type

ORDERS = "/api/v1/orders"


def order_updates(frames: list[Message], order_id: str) -> list[str]:
    return [
        frame["data"]["status"]
        for frame in frames
        if frame.get("type") == "order_update" and frame["data"]["order_id"] == order_id
    ]


def test_a_trader_cancels_a_pending_order(local_system: LocalSystem, traders: Traders) -> None:
    """The quickstart's scenario 7: a limit order of 100 AAPL at 140.00 waits, is canceled, and the audit says why."""
    # given a market above the limit, and a trader who listens
    local_system.quote("AAPL", "149.98", "150")
    trader = traders.new()
    with trader.stream("orders") as stream:
        # when a limit order is sent
        placed = trader.http.post(
            ORDERS, json={"symbol": "AAPL", "quantity": 100, "order_type": "LIMIT", "price": 140.00}
        )
        # then it waits, and the trader hears of it
        assert placed.status_code == 201, placed.text
        order_id = exact(placed)["id"]
        assert exact(placed)["status"] == "PENDING"
        heard = stream.wait_for(of_type("order_update", 2)).message
        assert (heard["data"]["order_id"], heard["data"]["status"]) == (order_id, "pending")
        assert heard["data"]["limit_price"] == Decimal("140.00")
        (waiting,) = trader.read(f"{ORDERS}?status=PENDING")["data"]
        assert (waiting["id"], waiting["price"], waiting["leaves_quantity"]) == (order_id, "140.00", "100")

        # when it is canceled
        canceled = trader.http.post(f"{ORDERS}/{order_id}/cancel")

        # then so it says, everywhere
        assert canceled.status_code == 200, canceled.text
        assert (exact(canceled)["id"], exact(canceled)["status"]) == (order_id, "CANCELLED")
        heard = stream.wait_for(of_type("order_update", 3)).message
        assert heard["request_id"] == canceled.headers["x-request-id"]
        assert order_updates(stream.frames(), order_id) == ["pending", "cancelled"]
    assert trader.read(f"{ORDERS}/{order_id}")["status"] == "CANCELLED"
    audit = trader.read(f"{ORDERS}/{order_id}/audit")["data"]
    assert [(row["action"], row["status"], row["reason"]) for row in audit] == [
        ("SUBMITTED", "PENDING", None),
        ("APPROVED", "PENDING", None),
        ("CANCELLED", "CANCELLED", "User requested cancellation"),
    ]
    # and it cannot be canceled again, nor was anything moved
    again = trader.http.post(f"{ORDERS}/{order_id}/cancel")
    assert (again.status_code, exact(again)["error"]) == (409, "ORDER_NOT_CANCELABLE")
    assert trader.read("/api/v1/account")["balance"] == "100000.00"
    assert execute(local_system, "SELECT * FROM verify_books()") == []
    local_system.quote("AAPL")


def test_a_trader_opens_and_closes_in_a_browser(local_system: LocalSystem, traders: Traders) -> None:
    """1 lot of EURUSD bought at 1.10000 / 1.10020, then closed in two parts at 1.10500 / 1.10520."""
    # given a position of a browser session that listens
    local_system.quote("EURUSD", "1.1", "1.1002")
    trader, csrf = traders.in_browser()
    trader.http.headers["X-CSRF-Token"] = csrf
    with trader.stream("orders", "positions") as stream:
        opened = exact(trader.order(quantity=1))["data"]
        path = f"/api/v1/positions/{opened['position_id']}/close"
        local_system.quote("EURUSD", "1.105", "1.1052")

        # when a part is closed, twice under one key, and then the rest
        key = {"Idempotency-Key": str(uuid.uuid4())}
        part, repeated = (trader.http.post(path, json={"quantity": "0.4"}, headers=key) for _ in range(2))
        rest = trader.http.post(path)

        # then each told what it left, and the part was closed once
        assert [answer.status_code for answer in (part, repeated, rest)] == [200, 200, 200], part.text + rest.text
        assert repeated.headers["idempotency-replayed"] == "true"
        assert repeated.text == part.text
        left, gone = exact(part)["position"], exact(rest)["position"]
        assert (left["status"], left["quantity"], gone["status"], gone["quantity"]) == ("OPEN", "0.6", "CLOSED", "0")
        # and the WebSocket the same, in order
        stream.wait_for(of_type("account_update", 4))
        positions = [frame["data"] for frame in stream.frames() if frame.get("type") == "position_update"]
        assert [(fact["status"], fact["quantity"]) for fact in positions] == [
            ("open", Decimal(1)),
            ("open", Decimal("0.6")),
            ("closed", Decimal(0)),
        ]
    # and the profit is what the two fills brought, on the balance
    entry = Decimal(opened["execution_details"]["execution_price"])
    brought = [
        (Decimal(answer["average_price"]) - entry) * 100_000 * Decimal(answer["quantity"])
        for answer in (exact(part), exact(rest))
    ]
    assert [Decimal(exact(answer)["realized_pnl"]) for answer in (part, rest)] == brought
    account = trader.read("/api/v1/account")
    assert Decimal(account["balance"]) == Decimal(account["equity"]) == 100_000 + sum(brought)
    assert (account["open_positions"], account["margin_used"]) == (0, "0.00")
    local_system.quote("EURUSD")


def test_a_trader_moves_an_order_and_clears_the_rest(local_system: LocalSystem, traders: Traders) -> None:
    """A limit of 100 AAPL at 140.00 is moved to 141.50, then everything that waits is canceled at once."""
    # given a market above the limits, and a trader who listens
    local_system.quote("AAPL", "149.98", "150")
    trader = traders.new()
    limit = {"symbol": "AAPL", "quantity": 100, "order_type": "LIMIT"}
    with trader.stream("orders") as stream:
        placed = exact(trader.http.post(ORDERS, json={**limit, "price": "140.00"}))

        # when it is previewed elsewhere, and moved there, twice under one key
        change = {"price": "141.50", "version": 1}
        preview = trader.http.post(f"{ORDERS}/preview", json={"replaces_order_id": placed["id"], **change})
        key = {"Idempotency-Key": str(uuid.uuid4())}
        moved, repeated = (trader.http.patch(f"{ORDERS}/{placed['id']}", json=change, headers=key) for _ in range(2))

        # then another order has its place
        assert (preview.status_code, exact(preview)["accepted"], exact(preview)["price"]) == (200, True, "141.50")
        assert (moved.status_code, repeated.text) == (200, moved.text), moved.text
        assert repeated.headers["idempotency-replayed"] == "true"
        order = exact(moved)
        assert (order["price"], order["replaces_order_id"], order["replaced"]["version"]) == ("141.50", placed["id"], 2)
        # and one event told both
        stream.wait_for(lambda message: is_update_of(message, order["id"]))
        told = [frame for frame in stream.frames() if frame.get("type") == "order_update" and frame["sequence"] == 3]
        assert [(frame["data"]["order_id"], frame["data"]["status"]) for frame in told] == [
            (placed["id"], "cancelled"),
            (order["id"], "pending"),
        ]
        assert told[1]["data"]["replaces_order_id"] == placed["id"]
        assert {frame["request_id"] for frame in told} == {moved.headers["x-request-id"]}

        # when somebody moves the old one, who has not heard of it
        late = trader.http.patch(f"{ORDERS}/{placed['id']}", json=change)

        # then they are shown what became of it
        assert (late.status_code, exact(late)["error"]) == (409, "CONFLICT")
        shown = exact(late)["details"]["order"]
        now = trader.read(f"{ORDERS}/{placed['id']}")
        assert shown == {name: now[name] for name in shown}
        assert (shown["status"], shown["version"]) == ("REPLACED", 2)

        # when 25 more wait and all are canceled
        more = [exact(trader.http.post(ORDERS, json={**limit, "price": "130.00"}))["id"] for _ in range(25)]
        cleared = trader.http.post(f"{ORDERS}/cancel-all", json={"symbol": "AAPL"})

        # then it says of which, in the answer and in one message
        assert cleared.status_code == 200, cleared.text
        assert [each["id"] for each in exact(cleared)["canceled"]] == [order["id"], *more]
        heard = stream.wait_for(of_type("orders_update")).message
        assert [each["order_id"] for each in heard["data"]["orders"]] == [order["id"], *more]
        assert (heard["data"]["part"], heard["data"]["parts"]) == (1, 1)
        assert heard["request_id"] == cleared.headers["x-request-id"]
        # and it is the one event after those of the orders
        assert heard["sequence"] == 3 + 25 + 1
    assert trader.read(f"{ORDERS}?status=PENDING")["data"] == []
    states = [row["status"] for row in trader.rows("orders")]
    assert (states.count("replaced"), states.count("canceled")) == (1, 26)
    assert execute(local_system, "SELECT * FROM verify_books()") == []
    local_system.quote("AAPL")


def is_update_of(message: Message, order_id: str) -> bool:
    return message.get("type") == "order_update" and message["data"]["order_id"] == order_id
