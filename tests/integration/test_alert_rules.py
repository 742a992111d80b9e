"""Every alert rule, fired and cleared by the figures that it is about."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.alerts import AlertWorld
from tests.kit.venues import PAIR, VenueWorld

SECONDS = timedelta(seconds=1)
UNBOUND = {"max_positions": None, "daily_trade_limit": None, "max_daily_loss": None, "max_position_size": None}
ORDER_RULES = {
    "ORDER_EXECUTION_FAILURE",
    "ORDER_ERRORS",
    "ORDER_ERROR_RATE",
    "ORDER_LATENCY",
    "ORDER_LATENCY_ON_CALL",
    "SLOW_ORDERS",
    "REJECTIONS",
}


@pytest.fixture
def world(migrated: MigratedTemplate) -> Iterator[AlertWorld]:
    with AlertWorld.opened(migrated) as world:
        yield world
        assert world.market.book_faults() == []


def open_rules(world: AlertWorld) -> set[str]:
    return {rule for rule, _, state in world.alerts() if state == "open"}


def test_orders(world: AlertWorld, migrated: MigratedTemplate) -> None:
    """Of 50 orders 30 are refused, 12 take over a second, 2 fail; then come 400 good ones."""
    with VenueWorld.joined(world.market) as venues:
        market = world.market
        trader = market.user(balance=10_000_000, risk=UNBOUND)
        poor = market.user(balance=1, risk=UNBOUND)
        world.only(*ORDER_RULES)

        # given orders that a venue is slow with, or refuses, and orders without margin
        routed = [venues.sent(trader, symbol=PAIR, quantity="0.01") for _ in range(14)]
        for _ in range(30):
            assert market.trade(poor)["outcome"] == "denied"
        market.execute("SELECT pg_sleep(1.05)")
        for each in routed[:12]:
            venues.fill(each, "0.01", "1.1002")
        for each in routed[12:]:
            venues.store.end(each, "rejected", code="VENUE_REJECTED", reason="no", retry_attempt=0)
        fill_some(world, trader, 8)

        # when the minute's run comes by, then what can be said of 20 orders is said
        assert world.evaluate().opened == 5
        assert open_rules(world) == ORDER_RULES - {"ORDER_ERRORS", "ORDER_ERROR_RATE"}
        # and of 100 orders the rest
        fill_some(world, trader, 78)
        world.evaluate()
        assert open_rules(world) == ORDER_RULES

        # when only good ones have come for a while, then each ends, in its time
        fill_some(world, trader, 310)
        world.evaluate()
        world.evaluate(31 * SECONDS)
        assert "ORDER_ERRORS" not in open_rules(world)
        world.evaluate(62 * SECONDS)
        assert open_rules(world) == set()
        assert {state for _, _, state in world.alerts()} == {"cleared"}


def fill_some(world: AlertWorld, trader: User, orders: int) -> None:
    for place in range(orders):
        side = "buy" if place % 2 else "sell"
        assert world.market.trade(trader, quantity="0.01", side=side)["outcome"] == "filled"
