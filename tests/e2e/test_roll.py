"""A roll from end to end: whoever held over it is charged once and told, whatever becomes of the worker."""

from decimal import Decimal
from typing import Any

import psutil
import psycopg

from tests.kit.gateway import eventually
from tests.kit.local_system import LocalSystem
from tests.kit.processes import workers_of
from tests.kit.traders import Trader, Traders, execute, of_type

SYMBOL = "NZDUSD"
BID, ASK = Decimal("0.66"), Decimal("0.6602")
ROLL_DATE = "2026-01-05"
RUN_SECONDS_MAX = 60
# The local system's markup alone: 100,000 x 0.66 x 2.5 % / 365 = 4.5205
CHARGE = Decimal("-4.52")


def roll(system: LocalSystem) -> None:
    """Let the symbol be rolled now, with its last quote before it, as if the feed had kept it."""
    execute(
        system,
        "WITH r AS (INSERT INTO instrument_rolls (symbol, roll_date, rolled_at, days) "
        "VALUES (%s, %s, clock_timestamp(), 1) RETURNING symbol, rolled_at) "
        "INSERT INTO roll_quotes SELECT symbol, rolled_at, %s, %s FROM r",
        SYMBOL, ROLL_DATE, BID, ASK,
    )  # fmt: skip


def charges(trader: Trader) -> list[Decimal]:
    entries = trader.rows("ledger_entries", "entry_type, amount", "entry_number")
    return [entry["amount"] for entry in entries if entry["entry_type"] == "financing"]


def financing_of(trader: Trader) -> list[Any]:
    return [position["financing"] for position in trader.read("/api/v1/positions")["data"]]


def kill_workers(system: LocalSystem) -> int:
    """Kill whoever runs the end of the day; how many did."""
    killed = 0
    for worker in workers_of(system, "end-of-day"):
        try:
            worker.kill()
            killed += 1
        except psutil.NoSuchProcess:
            pass
    return killed


def test_three_accounts_are_charged_once_though_a_worker_is_killed_between_them(
    local_system: LocalSystem, traders: Traders
) -> None:
    # given three accounts that hold a lot over the roll, of which the second, in the order of a run, is kept locked
    local_system.quote(SYMBOL, BID, ASK)
    holders = sorted((traders.new() for _ in range(3)), key=lambda trader: trader.user_id)
    for trader in holders:
        assert trader.order(symbol=SYMBOL, quantity=1).status_code == 200
    first, second, third = holders
    roll(local_system)
    with psycopg.connect(local_system.database_url) as lock:
        lock.execute("SELECT FROM accounts WHERE id = %s FOR UPDATE", (second.account_id,))

        # when a run has charged the first, and is killed while it waits for the second
        local_system.invoke("EndOfDayFunction", wait=False)
        eventually(lambda: charges(first), seconds=RUN_SECONDS_MAX, what="the first charge")
        assert kill_workers(local_system) > 0
        assert charges(second) == []

    # and another run comes
    local_system.invoke("EndOfDayFunction")

    # then each was charged once, and sees it beside its position
    assert [charges(trader) for trader in holders] == [[CHARGE]] * 3
    assert [financing_of(trader) for trader in holders] == [[str(CHARGE)]] * 3
    # and is told through the queue
    with third.stream("positions", since=2) as stream:
        told = stream.wait_for(of_type("position_update", 3)).message["data"]
        assert (told["financing_charged"], told["financing"]) == (CHARGE, CHARGE)
