"""Faults on the way of orders that wait: bad prices, batches that come late and twice, workers with a wrong clock."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from tests.kit.builders import User
from tests.kit.fault_runs import RESTING_TYPES, FaultRun
from tests.kit.linked import bracket_request, leg, linked_request, placed, stop_leg
from tests.kit.orders import QUOTE_AGE_MS_MAX, Market
from tests.kit.positions import change
from tests.kit.ticks import Ticker, call, execution_request
from tests.kit.workers import Worker

type StartWorker = Callable[..., Worker]

EURUSD = "EURUSD"
STALE, AHEAD = -(QUOTE_AGE_MS_MAX / 1000 + 1), 2.0
# Each would touch orders and beat marks if it were taken: bid, ask, seconds from now.
BAD_QUOTES = (
    ("0", "1.1002", 0.0),
    ("-1.1", "1.1002", 0.0),
    ("1.1000", "NaN", 0.0),
    ("1.1000", "Infinity", 0.0),
    ("1.3000", "1.0000", 0.0),
    ("1.0400", "1.0402", STALE),
    ("1.2000", "1.2002", STALE),
    ("1.0400", "1.0402", AHEAD),
)
DELIVERIES = 3
SKEW_SECONDS = 300
SCHEDULE = {"version": "2.0"}


@pytest.fixture
def market(run: FaultRun) -> Iterator[Market]:
    with Market.opened(run.database) as market:
        yield market


@pytest.fixture
def ticker(market: Market) -> Iterator[Ticker]:
    with Ticker.opened(market) as ticker:
        yield ticker


def place(market: Market, user: User, **fields: object) -> UUID:
    """An order of 0.2 lots for sale, or of what `fields` say."""
    given = {"quantity": "0.2", "side": "sell", "limit_price": None} | fields
    outcome = market.place(user, **given)
    assert outcome["outcome"] == "new", outcome.text
    return UUID(outcome["order_id"])


def place_all(market: Market, user: User) -> None:
    """An order of every type, groups of orders, one in another one's place, and positions that are to leave."""
    for fields in RESTING_TYPES:
        place(market, user, **fields)
    placed(market, linked_request(user, "oco", leg(), stop_leg()))
    placed(market, bracket_request(user, leg(limit_price="1.0995")))
    market.replace(user, place(market, user, side="buy", limit_price="1.0300"), limit_price="1.0985")
    market.trade(user, stop_loss="1.0900", take_profit="1.1100")
    change(market, user, market.trade(user)["position_id"], trailing_distance="0.002")


def test_a_bad_quote_touches_moves_and_ends_nothing(run: FaultRun, market: Market, ticker: Ticker) -> None:
    """F9 at intake, for all that waits."""
    # given
    user = run.user()
    place_all(market, user)

    def standing() -> list[list[dict[str, Any]]]:
        return [market.rows(table, user) for table in ("orders", "positions", "trailing_levels", "trigger_queue")]

    before = standing()

    # when quotes come that are none
    for bid, ask, seconds in BAD_QUOTES:
        answer = ticker.record((EURUSD, bid, ask, datetime.now(UTC) + timedelta(seconds=seconds)))
        assert (answer["accepted"], answer["touched"]) == (0, 0), (bid, ask, seconds)
    # and an old one where there is no newer
    market.execute("DELETE FROM quotes WHERE symbol = %s", (EURUSD,))
    late = ticker.record((EURUSD, "1.0400", "1.0402", datetime.now(UTC) + timedelta(seconds=STALE)))

    # then nothing has happened, until there is a price again
    assert (late["accepted"], late["touched"], standing()) == (1, 0, before)
    assert len(ticker.tick(EURUSD, "1.0985", "1.0987")) > 3
    run.settle()


def test_batches_that_come_late_and_twice_fill_nothing_twice(
    run: FaultRun, market: Market, ticker: Ticker, dice: random.Random
) -> None:
    """F12, F10: every batch thrice and out of order, every row executed by two workers at once."""
    # given what waits, and more of it than one quote fills
    user = run.user(balance=10_000_000)
    place_all(market, user)
    for fields in ({}, {"display_quantity": "7", "display_variance": "0.5"}):
        place(market, user, side="buy", quantity="60", limit_price="1.0990", **fields)
    begun = datetime.now(UTC)
    quotes = [
        (EURUSD, f"{1.1 + pips / 10_000:.4f}", f"{1.1002 + pips / 10_000:.4f}", begun + timedelta(milliseconds=number))
        for number, pips in enumerate((-4, -12, -14, 8, 12, -12, -15, 102, -3, -110))
    ]
    deliveries = [quotes[max(0, place - late)] for place in range(len(quotes)) for late in range(DELIVERIES)]
    claimed: list[dict[str, Any]] = []
    with ExitStack() as stack:
        workers = [stack.enter_context(run.database.connect("function_triggers")) for _ in range(2)]

        def execute(row: dict[str, Any]) -> list[str]:
            calls = [partial(call, worker, "execute_trigger", execution_request(row)) for worker in workers]
            return [told["state"] for told in run.at_once(calls)]

        # when
        for quote in deliveries:
            ticker.record(*dice.sample([quote, quote], 2))
            rows = ticker.claim()
            claimed += rows
            for row in rows:
                assert "lost" in execute(row)
        # and when messages of all that is done come once more
        assert {state for row in claimed for state in execute(row)} == {"lost"}

    # then no order has more fills than it has lots, and all that a price could touch has ended
    filled = run.execute(
        "SELECT o.order_type, o.status, o.quantity, o.filled_quantity, coalesce(sum(f.quantity), 0) "
        "FROM orders AS o LEFT JOIN fills AS f ON o.user_id = f.user_id AND o.id = f.order_id GROUP BY o.user_id, o.id"
    )
    assert all(row[3] == row[4] <= row[2] for row in filled)
    assert sum(row[1] == "filled" for row in filled) > len(RESTING_TYPES)
    assert (Decimal(60), Decimal(60)) in {(row[2], row[3]) for row in filled}
    run.settle()


def test_workers_with_a_wrong_clock_execute_what_is_due_and_nothing_else(
    run: FaultRun, market: Market, ticker: Ticker, start_worker: StartWorker
) -> None:
    """F15: leases, ends and the times of what happened are the database's."""
    # given orders of which one ends in two minutes, and a worker that has claimed what a price has touched
    user = run.user()
    soon = (datetime.now(UTC) + timedelta(minutes=2)).isoformat()
    ends = place(market, user, side="buy", limit_price="1.0990", time_in_force="gtd", expires_at=soon)
    triggered = place(market, user, order_type="stop_limit", stop_price="1.0992", limit_price="1.0995")
    trailing = place(market, user, order_type="trailing_stop", trail_amount="0.0010")
    replaced = UUID(market.replace(user, place(market, user, limit_price="1.2000"), limit_price="1.1003")["order_id"])
    exits = placed(market, bracket_request(user, leg(order_type="market", limit_price=None)))[1:]
    begun = datetime.now(UTC)
    behind, ahead = (
        start_worker("trigger_orders", role="function_triggers", redis=False, DATABASE_TIMEOUT_MS="5000")
        for _ in range(2)
    )
    ticker.touch(EURUSD, "1.0988", "1.0990")
    behind.send(SCHEDULE, pause="before", clock_seconds=-SKEW_SECONDS)
    behind.wait_until_paused()

    # when one comes whose clock is five minutes ahead, its lease still stands
    ahead.send(SCHEDULE, clock_seconds=SKEW_SECONDS)
    assert ahead.result()["claimed"] == 0
    for _ in range(2):
        behind.go_on()
        behind.wait_until_paused()
    behind.go_on()
    assert behind.result()["states"] == {"filled": 2, "triggered": 1}
    # and when a clock steps back between two of its runs
    for seconds, (bid, ask) in ((SKEW_SECONDS, ("1.0996", "1.0998")), (-SKEW_SECONDS, ("1.1100", "1.1102"))):
        ticker.touch(EURUSD, bid, ask)
        ahead.send(SCHEDULE, clock_seconds=seconds)
        assert ahead.result()["failed"] == 0

    # then each was filled, none ended before its time, and all of it happened when the database says
    rows = {row["id"]: row for row in market.rows("orders", user)}
    assert [rows[each]["status"] for each in (ends, triggered, trailing, replaced, exits[1])] == ["filled"] * 5
    assert rows[exits[0]]["status"] == "canceled"
    times = [
        at for (at,) in run.execute("SELECT created_at FROM events WHERE user_id = %s ORDER BY sequence", user.user_id)
    ]
    assert times == sorted(times)
    within = [rows[ends]["executed_at"], rows[triggered]["triggered_at"], rows[exits[0]]["updated_at"], times[-1]]
    assert all(begun <= at <= datetime.now(UTC) for at in within)
    run.settle()
