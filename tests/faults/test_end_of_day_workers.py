"""Runs of the end of the day, killed on the way: the next one charges what is left, and nothing twice."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kit.fault_runs import FaultRun
from tests.kit.financing import ROLE, financed, hold_schedules, roll, set_rate
from tests.kit.orders import Market
from tests.kit.risk import opened
from tests.kit.workers import Worker

SCHEDULE = {"version": "2.0"}
TIME_LEFT_MS = 50_000


@pytest.fixture
def market(run: FaultRun) -> Iterator[Market]:
    with Market.opened(run.database) as market:
        hold_schedules(market)
        set_rate(market, "EURUSD", "-2.5", "1", markup="0.5")
        yield market


def rollover_of(worker: Worker) -> dict[str, Any]:
    worker.send(SCHEDULE, time_left_ms=TIME_LEFT_MS)
    return worker.result()["rollover"]


@pytest.mark.parametrize(("moment", "done"), [("before", 0), ("after", 1)])
def test_killed_about_the_first_of_three_accounts(
    run: FaultRun, market: Market, start_worker: Callable[..., Worker], moment: str, done: int
) -> None:
    # given three accounts to charge, and a run that is on its way into the first, or just out of it
    users = [run.user() for _ in range(3)]
    for user in users:
        opened(market.trade(user))
    roll(market)
    first, second = (start_worker("end_of_day", role=ROLE, redis=False) for _ in range(2))
    first.send(SCHEDULE, pause=moment, time_left_ms=TIME_LEFT_MS)
    assert first.wait_until_paused() == moment

    # when it is killed there, and the next run comes, and one more
    first.kill()
    assert sum(len(financed(market, user)) for user in users) == done
    left, again = rollover_of(second), rollover_of(second)

    # then each was charged once, and the roll is finished
    assert [len(financed(market, user)) for user in users] == [1] * 3
    assert (left["charged"], left["rolls_finished"], again["charged"], again["rolls_open"]) == (3 - done, 1, 0, 0)
    run.settle()
