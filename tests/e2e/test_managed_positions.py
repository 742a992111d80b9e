"""Positions that are managed, end to end: HTTP calls in, answers and WebSocket messages out."""

import uuid
from decimal import Decimal

from tests.kit.local_system import LocalSystem
from tests.kit.traders import Traders, exact, execute, of_type


def test_a_trader_protects_a_position_and_hears_of_it(local_system: LocalSystem, traders: Traders) -> None:
    # given a position of a trader who listens
    local_system.quote("EURUSD", "1.1", "1.1002")
    trader = traders.new()
    with trader.stream("positions") as stream:
        opened = exact(trader.order(quantity=1))["data"]
        path = f"/api/v1/positions/{opened['position_id']}"

        # when it gets a stop by what may be lost, then one that trails, and then none
        stopped = trader.http.patch(path, json={"stop_loss_amount": "500", "take_profit": 1.2, "version": 1})
        trailing = trader.http.patch(path, json={"trailing_distance": "0.0025"})
        bare = trader.http.patch(path, json={"stop_loss": None, "take_profit": None})
        late = trader.http.patch(path, json={"stop_loss": 1.05, "version": 2})

        # then each answer is the position as it was then
        assert [answer.status_code for answer in (stopped, trailing, bare, late)] == [200, 200, 200, 409], late.text
        entry = Decimal(opened["execution_details"]["execution_price"])
        assert Decimal(exact(stopped)["stop_loss"]) == entry - Decimal("0.005")
        assert (exact(trailing)["stop_loss"], exact(trailing)["trailing_distance"]) == ("1.09750", "0.00250")
        assert (exact(bare)["stop_loss"], exact(bare)["version"]) == (None, 4)
        assert exact(late)["details"]["position"] == trader.read("/api/v1/positions")["data"][0]
        # and the WebSocket said the same, in order; a level that is gone is null
        stream.wait_for(of_type("position_update", 5))
        told = [frame["data"] for frame in stream.frames() if frame.get("type") == "position_update"][1:]
        assert [(fact["stop_loss"], fact["take_profit"], fact["trailing_distance"]) for fact in told] == [
            (entry - Decimal("0.005"), Decimal("1.2"), None),
            (Decimal("1.0975"), Decimal("1.2"), Decimal("0.0025")),
            (None, None, None),
        ]
        assert [fact["version"] for fact in told] == [2, 3, 4]
    assert execute(local_system, "SELECT * FROM verify_books()") == []
    local_system.quote("EURUSD")


def test_a_trader_closes_the_losers_then_nets_out_the_rest(local_system: LocalSystem, traders: Traders) -> None:
    # given two longs of EURUSD with a profit between them, a short with a loss, and a short of now
    local_system.quote("EURUSD", "1.1", "1.1002")
    trader = traders.new()
    with trader.stream("orders", "positions") as stream:
        long = exact(trader.order(quantity=1))["data"]["position_id"]
        loser = exact(trader.order(quantity="0.5", side="sell"))["data"]["position_id"]
        local_system.quote("EURUSD", "1.105", "1.1052")
        short = exact(trader.order(quantity="0.4", side="sell"))["data"]["position_id"]
        local_system.quote("EURUSD", "1.104", "1.1042")

        # when the losers are closed, twice under one key
        key = {"Idempotency-Key": str(uuid.uuid4())}
        path = "/api/v1/positions/close-all"
        closed, repeated = (
            trader.http.post(path, json={"which": "losers", "symbol": "EURUSD"}, headers=key) for _ in range(2)
        )

        # then the one that lost is closed, once
        assert (closed.status_code, repeated.text) == (200, closed.text), closed.text
        assert repeated.headers["idempotency-replayed"] == "true"
        assert [attempt["position_id"] for attempt in exact(closed)["data"]] == [loser]
        assert (exact(closed)["closed"], exact(closed)["left"]) == (1, 0)

        # when the long is closed by the short
        (before,) = trader.read("/api/v1/positions/summary")["data"]
        netted = trader.http.post(f"/api/v1/positions/{long}/close-by", json={"opposite_position_id": short})

        # then 0.6 lots are left, and the two entry prices are realized without spread
        assert netted.status_code == 200, netted.text
        assert (before["long_quantity"], before["short_quantity"], before["net_quantity"]) == ("1", "0.4", "0.6")
        (after,) = trader.read("/api/v1/positions/summary")["data"]
        assert (after["long_quantity"], after["short_quantity"], after["positions"]) == ("0.6", "0", 1)
        gained = (Decimal(before["short_entry_price"]) - Decimal(before["long_entry_price"])) * 40_000
        assert Decimal(exact(netted)["realized_pnl"]) == gained
        # and the WebSocket told both fills under one sequence, and both positions
        stream.wait_for(of_type("account_update", 6))
        last = [frame for frame in stream.frames() if frame.get("sequence") == 6]
        assert [frame.get("event") for frame in last if "event" in frame] == ["order.partial", "order.filled"]
        told = [frame["data"] for frame in last if frame.get("type") == "position_update"]
        assert [(fact["position_id"], fact["status"]) for fact in told] == [(long, "open"), (short, "closed")]
    assert execute(local_system, "SELECT * FROM verify_books()") == []
    local_system.quote("EURUSD")
