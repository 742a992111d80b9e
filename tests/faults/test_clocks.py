"""Workers whose clocks are wrong by five minutes, and step back: only a token's times are judged by them."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from tests.kit.builders import User, set_quote
from tests.kit.fault_runs import QUOTE_AGE_MS, FaultRun
from tests.kit.functions import bearer, http_event, make_token, order_event
from tests.kit.workers import Worker

type StartWorker = Callable[..., Worker]

SKEW_SECONDS = 300
TURNS = 6
BRONZE_LIMIT = 10


def lasting(user: User, **claims: object) -> dict[str, str]:
    """The header of a token that is good by any of the clocks."""
    now = int(time.time())
    return bearer(make_token(user, **{"iat": now - 1000, "exp": now + 1000} | claims))


def test_orders_are_told_in_the_database_s_order_and_time_whatever_the_workers_say(
    run: FaultRun, start_worker: StartWorker
) -> None:
    """F15: one worker ahead, one behind, and one that steps back in mid-run, by turns on one account."""
    # given
    user = run.user()
    begun = datetime.now(UTC)
    ahead, behind, stepping = start_worker(), start_worker(), start_worker()
    clocks = [(ahead, [SKEW_SECONDS]), (behind, [-SKEW_SECONDS]), (stepping, [SKEW_SECONDS, -SKEW_SECONDS])]

    # when
    told: list[str] = []
    for turn in range(TURNS):
        for worker, seconds in clocks:
            event = order_event(user) | {"headers": lasting(user)}
            answer = worker.call(event, clock_seconds=seconds[turn * len(seconds) // TURNS])
            assert answer.status == 200, answer.text
            told.append(answer.body["data"]["order_id"])

    # then the events are in the order of the calls, without a gap, at times that the database gave
    events = run.execute(
        "SELECT payload -> 'orders' -> 0 ->> 'order_id', sequence, created_at FROM events "
        "WHERE user_id = %s AND event_type = 'order.filled' ORDER BY sequence",
        user.user_id,
    )
    assert [order_id for order_id, _, _ in events] == told
    times = [at for _, _, at in events]
    assert times == sorted(times)
    assert begun - timedelta(seconds=5) < times[0] <= times[-1] < datetime.now(UTC) + timedelta(seconds=5)
    run.settle()


@pytest.mark.parametrize("with_redis", [True, False], ids=["counted in Redis", "counted in PostgreSQL"])
def test_the_limit_has_one_clock(run: FaultRun, start_worker: StartWorker, with_redis: bool) -> None:
    """F15: a minute by the worker that is ahead begins no new window, and by the one behind none stays full."""
    # given a bronze user's calls, by turns to both
    user = run.user()
    ahead, behind = start_worker(redis=with_redis), start_worker(redis=with_redis)
    clocks = {ahead: SKEW_SECONDS, behind: -SKEW_SECONDS}

    # when
    answers = [
        worker.call(order_event(user) | {"headers": lasting(user, tier="bronze")}, clock_seconds=seconds)
        for _ in range(BRONZE_LIMIT // 2 + 1)
        for worker, seconds in clocks.items()
    ]

    # then the eleventh is refused, by either, and told the same true time
    assert [answer.status for answer in answers] == [200] * BRONZE_LIMIT + [429] * 2
    for answer in answers[BRONZE_LIMIT:]:
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert abs(int(answer.headers["X-RateLimit-Reset"]) - time.time()) <= 61
    run.settle()


@pytest.mark.parametrize("seconds", [SKEW_SECONDS, -SKEW_SECONDS])
def test_the_age_of_a_price_is_the_database_s_to_judge(run: FaultRun, start_worker: StartWorker, seconds: int) -> None:
    """F15, F9: neither does a fresh price go stale by the worker's clock, nor an old one become fresh."""
    # given a price that is older than it may be
    user = run.user()
    worker = start_worker()
    event = order_event(user) | {"headers": lasting(user)}
    set_quote(run.database, "EURUSD", "1.1", "1.1002", datetime.now(UTC) - timedelta(milliseconds=QUOTE_AGE_MS + 1000))

    # when
    stale = worker.call(event, clock_seconds=seconds)
    set_quote(run.database, "EURUSD", "1.1", "1.1002")
    fresh = worker.call(event, clock_seconds=seconds)

    # then
    assert (stale.status, stale.body["error"]["code"]) == (503, "MARKET_DATA_UNAVAILABLE")
    assert fresh.status == 200, fresh.text
    run.settle()


def test_a_token_is_refused_where_the_clock_says_that_it_is_not_its_time(
    run: FaultRun, start_worker: StartWorker
) -> None:
    """F15: a wrong clock shuts out; the caller's next worker lets in."""
    # given a token of a moment ago that lasts for two minutes
    user = run.user()
    worker = start_worker()
    now = int(time.time())
    event = order_event(user) | {"headers": lasting(user, iat=now, exp=now + 120)}

    # when
    refused = [worker.call(event, clock_seconds=seconds) for seconds in (SKEW_SECONDS, -SKEW_SECONDS)]
    answer = worker.call(event)

    # then
    assert [each.status for each in refused] == [401, 401]
    assert [each.body["error"]["details"]["constraint"] for each in refused] == ["expired", "not valid yet"]
    assert answer.status == 200, answer.text
    assert "Idempotency-Replayed" not in answer.headers
    run.settle()


def test_a_worker_behind_keeps_no_price_for_longer_than_it_is_fresh(
    run: FaultRun, start_worker: StartWorker, redis_url: str
) -> None:
    """F15, I10: to its clock every price is of the future."""
    # given
    user = run.user()
    event = http_event("GET /functions/v1/get-stock-price", headers=lasting(user), query={"symbol": "EURUSD"})

    # when
    answer = start_worker("get_price").call(event, clock_seconds=-SKEW_SECONDS)

    # then
    assert answer.headers["X-Cache"] == "miss", answer.text
    with redis.Redis.from_url(redis_url) as server:
        left: Any = server.pttl("quote:EURUSD")
    assert 0 < left <= QUOTE_AGE_MS
