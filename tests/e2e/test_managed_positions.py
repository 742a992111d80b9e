"""Positions that are managed, end to end: HTTP calls in, answers and WebSocket messages out."""

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
