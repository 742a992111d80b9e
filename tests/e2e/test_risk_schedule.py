"""The scheduled risk function: a margin call is told once when it begins and once when it ends, a stop-out as it is."""

from decimal import Decimal

from tests.kit.gateway import eventually
from tests.kit.local_system import LocalSystem
from tests.kit.traders import Message, Stream, Trader, Traders, exact, of_type

SYMBOL = "AUDUSD"
BID, ASK = Decimal("0.66"), Decimal("0.6602")
LOWER_BID = Decimal("0.6525")
LOWEST_BID = Decimal("0.6510")


def run_the_schedule(system: LocalSystem) -> None:
    """Have the scheduled function look at all accounts now, and wait until it has."""
    assert system.invoke("RiskMonitoringFunction")["complete"]


def calls_of(trader: Trader) -> list[str]:
    events = trader.rows("events", "event_type", "sequence")
    return [event["event_type"] for event in events if event["event_type"].startswith("margin_call.")]


def test_a_margin_call_is_told_once_when_it_begins_and_once_when_it_ends(
    local_system: LocalSystem, traders: Traders
) -> None:
    """100 lots of AUDUSD bought at about 0.66 take 10,000,000 / 100 x 0.66 = 66,000 of margin. At a bid of 0.6525 about
    77,000 to 80,000 of the 100,000 are lost: the level is about 30 percent, below the threshold of 50. Back at
    0.66 it is about 150, above the release level of 52.5.
    """
    # given an account that is deep in the market
    trader = traders.new()
    local_system.quote(SYMBOL, BID, ASK)
    assert trader.order(symbol=SYMBOL, quantity=100).status_code == 200
    # when the price falls and the schedule runs
    local_system.quote(SYMBOL, LOWER_BID, LOWER_BID + Decimal("0.0002"))
    run_the_schedule(local_system)
    # then the trader is told
    with trader.stream("risk", since=2) as stream:
        alert = stream.wait_for(of_type("risk_alert", 3)).message
        assert (alert["data"]["type"], alert["data"]["state"]) == ("margin_call", "entered")
        assert alert["data"]["threshold"] == 50
        assert 0 < alert["data"]["margin_level"] < 50
        assert alert["data"]["margin_level"] == Decimal(trader.read("/api/v1/account")["margin_level"])
    # when it runs again while the call stands, then nobody is told again
    run_the_schedule(local_system)
    assert calls_of(trader) == ["margin_call.entered"]
    # when the price is back and it runs, then the end is told
    local_system.quote(SYMBOL, BID, ASK)
    run_the_schedule(local_system)
    with trader.stream("risk", since=2) as stream:
        ended = stream.wait_for(of_type("risk_alert", 4)).message
        assert (ended["data"]["type"], ended["data"]["state"]) == ("margin_call", "left")
        assert ended["data"]["episode_id"] == alert["data"]["episode_id"]
        assert ended["data"]["margin_level"] > Decimal("52.5")
        assert alerts(stream) == ["entered", "left"]
    assert calls_of(trader) == ["margin_call.entered", "margin_call.left"]
    # and the account's audit tells both
    actions = [row["action"] for row in trader.rows("order_audit_log", "action", "version")]
    assert actions[-2:] == ["MARGIN_CALL_ENTERED", "MARGIN_CALL_LEFT"]


def alerts(stream: Stream) -> list[str]:
    frames: list[Message] = [frame for frame in stream.frames() if frame.get("type") == "risk_alert"]
    return [frame["data"]["state"] for frame in frames]


def test_a_stop_out_closes_the_position_and_tells_everything_of_it(local_system: LocalSystem, traders: Traders) -> None:
    """At a bid of 0.6510 about 92,000 to 95,000 of the 100,000 are lost: 66,000 of margin are carried by about 10
    percent, below the stop-out level of 20.
    """
    # given the same account, with an order at rest besides
    trader = traders.new()
    local_system.quote(SYMBOL, BID, ASK)
    opened = exact(trader.order(symbol=SYMBOL, quantity=100))["data"]
    resting = exact(trader.order(symbol=SYMBOL, order_type="limit", price="0.6", quantity="0.1"))["data"]
    # when the price falls through both levels at once and the schedule runs
    local_system.quote(SYMBOL, LOWEST_BID, LOWEST_BID + Decimal("0.0002"))
    run_the_schedule(local_system)
    eventually(lambda: len(calls_of(trader)) == 2, what="the end of the margin call, if another run has closed it out")
    # then the trader is told of the call, the close and the end of the call, in this order
    with trader.stream("orders", "positions", since=3) as stream:
        ended = stream.wait_for(of_type("risk_alert", 6)).message
        assert (ended["data"]["type"], ended["data"]["state"]) == ("margin_call", "left")
        alert = stream.wait_for(of_type("risk_alert", 5)).message
        assert (alert["data"]["type"], alert["data"]["state"], alert["data"]["threshold"]) == ("stop_out", "closed", 20)
        assert 0 < alert["data"]["margin_level"] < 20
        order = stream.wait_for(lambda message: of_type("order_update", 5)(message) and is_executed(message)).message
        assert (order["data"]["side"], order["data"]["quantity"]) == ("sell", 100)
        canceled = stream.wait_for(of_type("order_update", 5)).message
        assert (canceled["data"]["order_id"], canceled["data"]["status"]) == (resting["order_id"], "cancelled")
        position = stream.wait_for(of_type("position_update", 5)).message
        assert (position["data"]["position_id"], position["data"]["status"]) == (opened["position_id"], "closed")
        account = stream.wait_for(of_type("account_update", 5)).message
        assert (account["data"]["margin_used"], account["data"]["margin_level"]) == (0, None)
        assert alerts(stream) == ["entered", "closed", "left"]
    # and the account is what is left after the close, with no position
    (row,) = trader.rows("accounts", "balance")
    assert Decimal(trader.read("/api/v1/account")["balance"]) == row["balance"] == account["data"]["balance"]
    assert account["data"]["balance"] == 100_000 + position["data"]["realized_pnl"] < 20_000
    assert trader.read("/api/v1/positions")["data"] == []
    # and its audit says who closed it and why
    (submitted,) = [
        row
        for row in trader.rows("order_audit_log", "action, reason, order_id, version", "version")
        if row["action"] == "SUBMITTED" and str(row["order_id"]) == order["data"]["order_id"]
    ]
    assert submitted["reason"].startswith("Stop-out: margin level ")


def is_executed(message: Message) -> bool:
    return message["data"]["status"] == "executed"
