"""Each minute: streams quotes until the next copy takes over, so that prices never stop."""

import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

from trading.cache import cache
from trading.observability import MetricUnit, instrumented, logger, metrics
from trading.queue import send_price_watch, start_triggers, watch_holders
from trading.quotes.fan_out import FanOut
from trading.quotes.feed import Clock, Feed, give_back, wait_for_lease
from trading.quotes.moves import Moves
from trading.quotes.providers import make_provider
from trading.settings import settings
from trading.sockets import sockets
from trading.store.connection import database
from trading.store.quotes import Lease, list_feed_instruments


def stream(_event: dict[str, Any], context: Any) -> dict[str, object]:
    """Wait for the lease, then feed until little time is left; what was done."""
    metrics().add_metric(name="FeedRuns", unit=MetricUnit.Count, value=1)
    # Slow to make, and there may be time for it while the copy before still feeds.
    sockets().prepare()
    clock = Clock(lambda: datetime.now(UTC), time.monotonic, time.sleep, context.get_remaining_time_in_millis)
    lease = wait_for_lease(database(), clock)
    if lease is None:
        logger().info("another copy feeds")
        return {"outcome": "not_needed", "steps": 0}
    return _feed(lease, clock)


def _feed(lease: Lease, clock: Clock) -> dict[str, object]:
    fan_out = FanOut(sockets().post)
    moves = Moves(watch_holders)
    try:
        instruments = list_feed_instruments(database())
        feed = Feed(
            partial(make_provider, settings(), instruments),
            instruments,
            database=database(),
            cache=cache(),
            fan_out=fan_out,
            moves=moves,
            start_triggers=start_triggers,
            order_watch=send_price_watch,
            clock=clock,
            quotes_per_second=settings().quotes_per_second,
        )
        kept = feed.run(lease)
    finally:
        fan_out.close()
        moves.close()
        give_back(database(), lease)
    metrics().add_metric(name="QuoteSteps", unit=MetricUnit.Count, value=feed.steps)
    metrics().add_metric(name="QuoteInterruptions", unit=MetricUnit.Count, value=feed.interruptions)
    return {"outcome": "done" if kept else "taken_over", "steps": feed.steps, "interruptions": feed.interruptions}


handler = instrumented(stream)
