"""Triggers that race: workers with workers, exits with exits, a close and a stop-out with a queued stop loss."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.orders import Market, at_once, deadlocks, keyed_request, resting_request, send
from tests.kit.risk import ASK_AT_THE_LEVEL, BALANCE_AT_THE_LEVEL, BID_AT_THE_LEVEL, stop_out_step
from tests.kit.ticks import Ticker, call, execution_request

EURUSD = "EURUSD"
ACCOUNTS = 30


@pytest.fixture
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def ticker(market: Market) -> Iterator[Ticker]:
    with Ticker.opened(market) as ticker:
        yield ticker


def work(market: Market, _connection: psycopg.Connection[Any]) -> list[str]:
    """A worker of its own, of few users a claim, until it finds nothing three times."""
    holder, states, idle = uuid4(), list[str](), 0
    request = {"holder": str(holder), "users": 3, "limit": 4, "lease_ms": 60_000}
    with market.database.connect("function_triggers") as connection:
        while idle < 3:
            claimed = call(connection, "claim_triggers", request)
            idle = 0 if claimed else idle + 1
            for row in claimed:
                states.append(call(connection, "execute_trigger", execution_request(row, holder))["state"])
    assert "lost" not in states
    return states


@pytest.mark.parametrize("_turn", range(3))
def test_workers_on_one_batch_of_many_accounts_execute_each_row_once(
    market: Market, ticker: Ticker, _turn: int
) -> None:
    # given accounts with orders and exits that one batch touches, also while it is worked off
    users = [market.user() for _ in range(ACCOUNTS)]
    for user in users:
        market.trade(user, quantity="0.1", stop_loss="1.0960")
        market.place(user, quantity="0.1", limit_price="1.0950")
        market.place(user, quantity="0.1", order_type="stop", side="sell", limit_price=None, stop_price="1.0950")
        market.place(user, quantity="0.1", limit_price="1.0930")
    before = deadlocks(market)
    touched = ticker.touch(EURUSD, "1.0940", "1.0942")

    # when three workers take it, and the feed goes on
    def feed(_connection: psycopg.Connection[Any]) -> list[str]:
        with Ticker.opened(market) as another:
            for pips in range(20):
                another.touch(EURUSD, f"1.09{39 - pips}", f"1.09{41 - pips}")
        return []

    at_once(market, [*[partial(work, market)] * 3, feed])
    while ticker.queued():
        ticker.work()

    # then everything is filled, once
    assert touched == 3 * ACCOUNTS
    for user in users:
        assert len(market.rows("fills", user)) == 5
        assert [row["status"] for row in market.rows("orders", user)] == ["filled"] * 5
    assert deadlocks(market) == before


def test_a_quote_that_comes_while_an_order_is_placed_leaves_it_to_the_next(market: Market, ticker: Ticker) -> None:
    """It sees no order that is not committed yet, and does not wait for one: no client can hold up the feed."""
    user = market.user()
    with market.database.connect("function_trader", autocommit=False) as placing:
        send(placing, resting_request(user, limit_price="1.0950"), "place_order")

        unseen = ticker.touch(EURUSD, "1.0940", "1.0942")
        placing.commit()

    assert unseen == 0
    assert ticker.tick(EURUSD, "1.0940", "1.0942") == ["filled"]


class TestOnePosition:
    @pytest.mark.parametrize(
        ("first", "second", "component", "price"),
        [
            (("1.0940", "1.0942"), ("1.1060", "1.1062"), "stop_loss", None),
            (("1.1060", "1.1062"), ("1.0940", "1.0942"), "take_profit", "1.1060"),
        ],
    )
    def test_both_exits_in_one_batch_are_one_close_by_the_first(
        self, market: Market, ticker: Ticker, first: tuple[str, str], second: tuple[str, str], component: str,
        price: str | None,
    ) -> None:  # fmt: skip
        user = market.user()
        market.trade(user, stop_loss="1.0950", take_profit="1.1050")
        now = datetime.now(UTC)

        ticker.record((EURUSD, *first, now), (EURUSD, *second, now + timedelta(milliseconds=1)))
        states = ticker.work() + ticker.work()

        closing = max(market.rows("orders", user), key=lambda row: row["created_at"])
        assert (states, closing["component_name"]) == (["filled"], component)
        assert len(market.rows("fills", user)) == 2
        if price is not None:
            assert closing["average_price"] == Decimal(price)

    @pytest.mark.parametrize("_turn", range(5))
    def test_a_close_and_a_stop_out_against_a_stop_loss_that_is_queued(
        self, market: Market, ticker: Ticker, _turn: int
    ) -> None:
        # given a position at the level of its stop-out, with its stop loss touched and claimed
        user = market.user(balance=BALANCE_AT_THE_LEVEL)
        position_id = UUID(market.trade(user, quantity="5", stop_loss="1.0950")["position_id"])
        ticker.touch(EURUSD, BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)
        (claimed,) = ticker.claim()
        before = deadlocks(market)

        # when all three that would end it come at once
        told = at_once(
            market,
            [
                partial(execute, market, claimed),
                partial(close, user, position_id),
                partial(stop_out, market, user),
            ],
        )

        # then one of them has, and the others have seen it
        assert sorted(told) in (
            ["TR010", "filled by the trigger", "recovered"],
            ["closed", "idle", "recovered"],
            ["TR010", "done", "idle"],
        )
        assert len(market.rows("fills", user)) == 2
        assert [row["status"] for row in market.rows("positions", user)] == ["closed"]
        assert (ticker.queued(), deadlocks(market)) == (0, before)


def execute(market: Market, claimed: dict[str, Any], _connection: psycopg.Connection[Any]) -> str:
    with market.database.connect("function_triggers") as connection:
        state = call(connection, "execute_trigger", execution_request(claimed))["state"]
    return "filled by the trigger" if state == "filled" else state


def close(user: User, position_id: UUID, connection: psycopg.Connection[Any]) -> str:
    try:
        send(connection, keyed_request(user, position_id=str(position_id)), "close_position")
    except psycopg.Error as error:
        return error.sqlstate or repr(error)
    return "closed"


def stop_out(market: Market, user: User, _connection: psycopg.Connection[Any]) -> str:
    with market.database.connect("function_risk") as connection:
        return stop_out_step(connection, user)["state"]
