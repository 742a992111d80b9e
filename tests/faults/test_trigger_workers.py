"""Workers that execute what prices have touched, killed on the way: another one finds it, and it is executed once."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kit.fault_runs import FaultRun
from tests.kit.gateway import eventually
from tests.kit.orders import Market
from tests.kit.ticks import Ticker
from tests.kit.workers import Worker

type StartWorker = Callable[..., Worker]

SCHEDULE = {"version": "2.0"}
# A lease is a second longer: how long what a dead worker had is nobody else's.
DATABASE_TIMEOUT_MS = "500"


@pytest.fixture
def market(run: FaultRun) -> Iterator[Market]:
    with Market.opened(run.database) as market:
        yield market


@pytest.fixture
def start_trigger_worker(start_worker: StartWorker) -> Callable[[], Worker]:
    return lambda: start_worker(
        "trigger_orders", role="function_triggers", redis=False, DATABASE_TIMEOUT_MS=DATABASE_TIMEOUT_MS
    )


def states_of(worker: Worker) -> dict[str, int]:
    """What a run of the worker came to."""
    worker.send(SCHEDULE)
    result: dict[str, Any] = worker.result()
    return result["states"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_between_its_claim_and_the_end_of_an_execution(
    run: FaultRun, market: Market, start_trigger_worker: Callable[[], Worker], moment: str
) -> None:
    # given a worker that has claimed an order of an account and the condition that another one is held for, on its way
    # to execute the first or just behind it
    user = run.user()
    market.place(user, limit_price="1.0950")
    condition = {"symbol": "EURUSD", "watch": "ask", "direction": "at_or_below", "level": "1.0960"}
    market.place(user, order_type="market", limit_price=None, conditions=[condition])
    with Ticker.opened(market) as ticker:
        ticker.touch("EURUSD", "1.0940", "1.0942")
    first, second = start_trigger_worker(), start_trigger_worker()
    first.send(SCHEDULE, pause=moment)
    assert first.wait_until_paused() == moment

    # when it is killed there
    first.kill()
    done = len(market.rows("fills", user))
    at_once = states_of(second)
    later = eventually(lambda: states_of(second), what="the end of the dead worker's lease")

    # then what it had not done is left alone while its lease lasts, and done by another one after it, once
    assert (done, at_once, later) == ((0, {}, {"filled": 2}) if moment == "before" else (1, {}, {"filled": 1}))
    assert [row["status"] for row in market.rows("orders", user)] == ["filled"] * 2
    assert len(market.rows("fills", user)) == 2
    assert states_of(second) == {}
    run.settle()
