"""A system whose prices are a recording."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from local.servers import free_port
from tests.kit.local_system import LocalSystem, wait_until
from tests.kit.traders import Trader, error_of, exact, execute

pytestmark = pytest.mark.timeout(180)


def test_recorded_prices_are_traded_on_and_no_others(system_folder: Path) -> None:
    # given ten minutes of EURUSD, a quote a second that rises by a tick, played ten times as fast
    path = system_folder / "eurusd-ticks.csv"
    start = datetime(2013, 1, 1, 22, tzinfo=UTC)
    rows = [
        f"{(start + timedelta(seconds=number)).isoformat()},{Decimal('1.1') + number * Decimal('0.00001')},1.2"
        for number in range(600)
    ]
    path.write_text("\n".join(["timestamp,bid,ask", *rows]) + "\n")
    system = LocalSystem(system_folder / "replay", free_port())
    chosen = ["QUOTE_PROVIDER=replay", f"QUOTE_REPLAY_FILE={path}", "QUOTE_REPLAY_SPEED=10"]
    try:
        system.start([*system.command, *chosen])
        trader = Trader(system, "gold@example.com", system.token())

        def bid() -> Decimal | None:
            found = execute(system, "SELECT bid, source FROM quotes WHERE symbol = 'EURUSD' AND source = 'replay'")
            return found[0]["bid"] if found else None

        # when it plays
        wait_until(lambda: bid() is not None, 30, "a recorded quote")
        first = bid()
        assert first is not None
        wait_until(lambda: (bid() or first) >= first + Decimal("0.0002"), 30, "twenty more of them")
        # then it is traded on as it stands
        executed = trader.order(side="sell")
        assert executed.status_code == 200, executed.text
        price = Decimal(exact(executed)["data"]["execution_details"]["execution_price"])
        assert Decimal("1.1") < price < Decimal("1.1061")
        # and what the recording has not has no price
        assert execute(system, "SELECT DISTINCT symbol FROM quotes") == [{"symbol": "EURUSD"}]
        assert error_of(trader.order(symbol="GBPUSD"))["code"] == "MARKET_DATA_UNAVAILABLE"
        trader.close()
    finally:
        system.stop()
