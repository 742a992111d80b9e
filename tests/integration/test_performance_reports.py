"""What each hour came to: kept once, zeros where nothing was, and listed for officers."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.kit import MigratedTemplate
from tests.kit.alerts import AlertWorld

HOURS = timedelta(hours=1)
NOTHING = {"average": "0", "p50": "0", "p95": "0", "p99": "0"}


@pytest.fixture
def world(migrated: MigratedTemplate) -> Iterator[AlertWorld]:
    with AlertWorld.opened(migrated) as world:
        yield world


def keep(world: AlertWorld, at: datetime) -> int:
    return world.call("keep_performance_reports", at=at.isoformat(), hours_max=3)["kept"]


def test_the_hours_that_are_over_are_reported_once_each(world: AlertWorld) -> None:
    market = world.market
    # given three orders that were filled and one that was refused, all of them in one hour
    user, poor = market.user(), market.user(balance=1)
    if (datetime.now(UTC).minute, datetime.now(UTC).second) >= (59, 45):
        market.execute("SELECT pg_sleep_until(date_trunc('hour', now()) + interval '1 hour 1 second')")
    this_hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for _ in range(3):
        assert market.trade(user, quantity="0.01")["outcome"] == "filled"
    assert market.trade(poor)["outcome"] == "denied"

    # when the last hour, this one and the next are over, then each has its report, once however often that is asked for
    assert keep(world, this_hour + timedelta(minutes=2)) == 1
    assert keep(world, this_hour + HOURS + timedelta(seconds=59)) == 0
    assert keep(world, this_hour + 2 * HOURS + timedelta(minutes=2)) == 2
    assert keep(world, this_hour + 2 * HOURS + timedelta(minutes=3)) == 0

    # then they are listed, the newest first
    page = world.call("list_performance_reports", role="function_incidents", limit=2)
    empty, full = page["reports"]
    assert datetime.fromisoformat(full["hour_start"]) == this_hour
    counts = ("total_orders", "executed_orders", "refused_orders", "failed_orders", "error_rate")
    assert [full[name] for name in counts] == [4, 3, 1, 0, "0.00"]
    assert (full["orders_per_hour"], full["orders_per_minute"], full["orders_per_second"]) == ("3", "0.05", "0.00")
    took = [Decimal(full["latency_ms"][name]) for name in ("p50", "p95", "p99")]
    assert took == sorted(took)
    assert 0 < took[0] < 10_000
    # and an hour without any is zeros
    assert [empty[name] for name in counts] == [0, 0, 0, 0, "0.00"]
    assert empty["latency_ms"] == NOTHING
    (oldest,) = world.call("list_performance_reports", role="function_incidents", limit=2, before=page["next"])[
        "reports"
    ]
    assert datetime.fromisoformat(oldest["hour_start"]) == this_hour - HOURS
    assert world.call("list_performance_reports", role="function_incidents", limit=3)["next"] is None


def test_after_a_long_silence_only_the_last_hours_are_made_up_for(world: AlertWorld) -> None:
    at = datetime(2026, 11, 26, 12, 5, tzinfo=UTC)
    assert keep(world, at) == 1

    assert keep(world, at + 10 * HOURS) == 3

    found = world.market.execute(
        "SELECT extract(hour FROM hour_start AT TIME ZONE 'UTC') FROM performance_reports ORDER BY 1"
    )
    assert [int(hour) for (hour,) in found] == [11, 19, 20, 21]


def test_the_evaluation_keeps_them(world: AlertWorld) -> None:
    assert world.evaluate().reports == 1
    assert world.evaluate().reports == 0
