"""Orders that wait for a price, end to end: placed by HTTP, touched by the feed, told on the WebSocket."""

from decimal import Decimal

from tests.kit.gateway import eventually
from tests.kit.local_system import LocalSystem
from tests.kit.traders import Traders, exact, execute, of_type

ORDERS = "/api/v1/orders"


def test_an_order_is_triggered_and_its_position_leaves_at_its_take_profit(
    local_system: LocalSystem, traders: Traders
) -> None:
    # given a limit order below the market, with exits, and its owner who listens
    local_system.quote("GBPUSD", "1.3000", "1.3002")
    trader = traders.new()
    with trader.stream("orders", "positions") as stream:
        placed = trader.http.post(
            ORDERS,
            json={
                "symbol": "GBPUSD",
                "order_type": "LIMIT",
                "quantity": "0.5",
                "price": "1.2950",
                "stop_loss": "1.2900",
                "take_profit": "1.3050",
                "time_in_force": "DAY",
            },
        )
        assert (placed.status_code, exact(placed)["status"]) == (201, "PENDING"), placed.text
        stream.wait_for(of_type("order_update", 2))

        # when the ask comes down to its limit
        local_system.quote("GBPUSD", "1.2947", "1.2949")

        # then it is filled at the quote, not at its limit, and its owner hears of it
        filled = stream.wait_for(of_type("order_update", 3)).message["data"]
        assert (filled["order_id"], filled["status"]) == (exact(placed)["id"], "executed")
        assert filled["execution_price"] == Decimal("1.2949")
        opened = stream.wait_for(of_type("position_update", 3)).message["data"]
        assert (opened["status"], opened["quantity"], opened["entry_price"]) == (
            "open",
            Decimal("0.5"),
            Decimal("1.2949"),
        )

        # when the bid comes up to its take profit
        local_system.quote("GBPUSD", "1.3051", "1.3053")

        # then it is closed at the quote
        closed = stream.wait_for(of_type("position_update", 4)).message["data"]
        assert (closed["status"], closed["quantity"]) == ("closed", 0)
    account = trader.read("/api/v1/account")
    assert Decimal(account["balance"]) == Decimal("100000.00") + (Decimal("1.3051") - Decimal("1.2949")) * 50_000
    audit = trader.read(f"{ORDERS}/{exact(placed)['id']}/audit")["data"]
    assert [row["action"] for row in audit] == ["SUBMITTED", "APPROVED", "EXECUTED", "FILLED"]
    assert execute(local_system, "SELECT * FROM verify_books()") == []
    local_system.quote("GBPUSD")


def test_an_order_is_held_until_another_symbols_price_has_come(local_system: LocalSystem, traders: Traders) -> None:
    # given a market order that is held for the franc, and its owner who listens
    local_system.quote("AUDUSD", "0.6500", "0.6502")
    local_system.quote("USDCHF", "0.8000", "0.8002")
    trader = traders.new()
    condition = {"symbol": "USDCHF", "watch": "BID", "direction": "AT_OR_ABOVE", "level": "0.8050"}
    with trader.stream("orders") as stream:
        asked = {"symbol": "AUDUSD", "order_type": "MARKET", "quantity": "0.1", "conditions": [condition]}
        placed = trader.http.post(ORDERS, json=asked)
        assert (placed.status_code, exact(placed)["status"]) == (201, "PENDING"), placed.text

        # when the franc comes to its level
        local_system.quote("USDCHF", "0.8051", "0.8053")
        filled = stream.wait_for(of_type("order.filled")).message

    # then its owner has heard of each step, in order
    updates = [message for message in stream.messages() if message.get("type") == "order_update"]
    told = [(update["data"]["status"], "met_at" in update["data"]["conditions"][0]) for update in updates[:2]]
    assert told == [("pending", False), ("pending", True)]
    assert updates[-1]["data"]["status"] == "executed"
    sequences = [update["sequence"] for update in updates]
    assert sequences == sorted(sequences)
    assert filled["order_id"] == exact(placed)["id"]
    local_system.quote("AUDUSD")
    local_system.quote("USDCHF")


def test_an_order_that_may_not_rest_is_filled_or_canceled_at_once(local_system: LocalSystem, traders: Traders) -> None:
    local_system.quote("USDCHF", "0.8000", "0.8002")
    trader = traders.new()

    def told(price: str, time_in_force: str) -> str:
        answer = trader.http.post(
            ORDERS,
            json={
                "symbol": "USDCHF",
                "order_type": "LIMIT",
                "quantity": "0.1",
                "price": price,
                "time_in_force": time_in_force,
            },
        )
        assert answer.status_code == 201, answer.text
        return exact(answer)["status"]

    assert [told("0.8002", "FOK"), told("0.8001", "FOK"), told("0.8010", "IOC"), told("0.7990", "IOC")] == [
        "FILLED", "CANCELLED", "FILLED", "CANCELLED",
    ]  # fmt: skip
    local_system.quote("USDCHF")


def test_groups_of_orders_follow_each_other_and_are_told_in_sequence(
    local_system: LocalSystem, traders: Traders
) -> None:
    # given a bracket below the market and two orders that cancel each other, and their owner who listens
    local_system.quote("AUDUSD", "0.6600", "0.6602")
    trader = traders.new()
    order = {"symbol": "AUDUSD", "quantity": "0.5", "order_type": "LIMIT", "side": "BUY"}
    with trader.stream("orders") as stream:

        def place(kind: str, **body: object) -> list[str]:
            answer = trader.http.post(f"{ORDERS}/{kind}", json=body)
            assert answer.status_code == 201, answer.text
            return [each["id"] for each in exact(answer)["orders"]]

        entry, loss, profit = place(
            "bracket",
            entry=order | {"price": "0.6550"},
            take_profit={"limit_price": "0.6650"},
            stop_loss={"stop_price": "0.6500"},
        )
        above = order | {"order_type": "STOP", "stop_price": "0.6700"}
        below, breakout = place("oco", orders=[order | {"price": "0.6450"}, above])

        def hears(since: int, *expected: tuple[str, str]) -> None:
            def told() -> list[tuple[str, str]]:
                return [
                    (frame["data"]["order_id"], frame["data"]["status"])
                    for frame in stream.frames()
                    if frame.get("type") == "order_update" and frame["sequence"] > since
                ]

            eventually(lambda: told() == [*expected], what=f"frames after {since}")

        hears(1, *((each, "pending") for each in (entry, loss, profit, below, breakout)))

        # when the ask comes down to the entry, it is filled and sets its exits to work
        local_system.quote("AUDUSD", "0.6547", "0.6549")
        hears(3, (entry, "executed"), (loss, "pending"), (profit, "pending"))

        # when the bid comes up to the take profit, it is filled and the stop loss is canceled
        local_system.quote("AUDUSD", "0.6651", "0.6653")
        hears(6, (profit, "executed"), (loss, "cancelled"))

        # when one of the two is filled, the other one is canceled
        local_system.quote("AUDUSD", "0.6700", "0.6702")
        hears(8, (breakout, "executed"), (below, "cancelled"))
        assert stream.sequences() == list(range(2, 11))
    states = {each["id"]: each["status"] for each in trader.read(ORDERS)["data"]}
    assert [states[each] for each in (entry, profit, loss, breakout, below)] == [
        "FILLED", "FILLED", "CANCELLED", "FILLED", "CANCELLED",
    ]  # fmt: skip
    open_ones = [each for each in trader.rows("positions") if each["status"] == "open"]
    assert [each["quantity"] for each in open_ones] == [Decimal("0.5")]
    assert execute(local_system, "SELECT * FROM verify_books()") == []
    local_system.quote("AUDUSD")
