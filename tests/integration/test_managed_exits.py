"""Levels that are changed, and prices that touch them: what was set last is what counts, whoever comes first."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.orders import Market, deadlocks, keyed_request, send
from tests.kit.positions import change, change_request, row_of
from tests.kit.ticks import Ticker

EURUSD = "EURUSD"


@pytest.fixture
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    """A database of its own, because a price touches whatever waits; its books must hold in the end."""
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def ticker(market: Market) -> Iterator[Ticker]:
    with Ticker.opened(market) as ticker:
        yield ticker


@pytest.fixture
def trader(market: Market) -> User:
    return market.user()


@pytest.mark.parametrize(
    ("levels", "leaves", "touches", "component"),
    [
        ({"stop_loss_amount": "500"}, ("1.09527", "1.0955"), ("1.09526", "1.0955"), "stop_loss"),
        ({"trailing_distance": "0.003"}, ("1.0971", "1.0973"), ("1.0970", "1.0972"), "stop_loss"),
        ({"take_profit_distance": "0.01"}, ("1.11025", "1.1104"), ("1.11026", "1.1104"), "take_profit"),
    ],
)
def test_a_level_that_was_set_is_the_one_that_a_price_touches(
    market: Market,
    ticker: Ticker,
    trader: User,
    levels: dict[str, Any],
    leaves: tuple[str, str],
    touches: tuple[str, str],
    component: str,
) -> None:
    # given a long from 1.10026 whose level was far away before
    position_id = market.trade(trader, stop_loss="1.01", take_profit="1.3")["position_id"]
    change(market, trader, position_id, **levels)

    assert ticker.tick(EURUSD, *leaves) == []
    assert ticker.tick(EURUSD, *touches) == ["filled"]

    closing = max(market.rows("orders", trader), key=lambda row: row["id"])
    assert (row_of(market, trader, position_id)["status"], closing["component_name"]) == ("closed", component)


@pytest.mark.parametrize("levels", [{"stop_loss": None}, {"stop_loss": "1.09"}])
def test_a_stop_that_is_taken_away_before_it_is_executed_does_nothing(
    market: Market, ticker: Ticker, trader: User, levels: dict[str, Any]
) -> None:
    # given a stop that a price has touched, in the queue still
    position_id = market.trade(trader, stop_loss="1.0995")["position_id"]
    assert ticker.touch(EURUSD, "1.0994", "1.0996") == 1

    change(market, trader, position_id, **levels)

    assert ticker.work() == ["idle"]
    assert (row_of(market, trader, position_id)["status"], ticker.queued()) == ("open", 0)


def test_what_a_close_by_leaves_leaves_at_its_stop(market: Market, ticker: Ticker, trader: User) -> None:
    # given a touched stop of a long of which a short has taken a part meanwhile
    long = market.trade(trader, stop_loss="1.0995")["position_id"]
    short = market.trade(trader, side="sell", quantity="0.4")["position_id"]
    ticker.touch(EURUSD, "1.0994", "1.0996")
    send(market.trader, keyed_request(trader, position_id=long, opposite_position_id=short), "close_by")

    assert ticker.work() == ["filled"]

    closing = max(market.rows("orders", trader), key=lambda row: row["id"])
    assert (float(closing["quantity"]), row_of(market, trader, long)["status"]) == (0.6, "closed")


def test_a_change_against_a_trigger(market: Market, ticker: Ticker, trader: User) -> None:
    before = deadlocks(market)
    for _ in range(10):
        # given a stop that a price has touched
        ticker.touch(EURUSD, "1.1000", "1.1002")
        position_id = market.trade(trader, stop_loss="1.0995")["position_id"]
        ticker.touch(EURUSD, "1.0994", "1.0996")

        # when it is taken away while it is executed
        with ThreadPoolExecutor(2) as pool:
            changing = pool.submit(_told, market, change_request(trader, position_id, stop_loss=None))
            executing = pool.submit(ticker.work)
            told = (changing.result(), *executing.result())

        # then one of the two came first, and the other found what it left
        assert told in {("changed", "idle"), ("TR010", "filled")}
        assert row_of(market, trader, position_id)["status"] == ("open" if told[0] == "changed" else "closed")
    assert deadlocks(market) == before


def _told(market: Market, request: dict[str, Any]) -> str:
    try:
        return send(market.trader, request, "change_position")["outcome"]
    except psycopg.Error as error:
        return error.sqlstate or repr(error)


@pytest.mark.parametrize(
    ("side", "moves", "turns", "level"),
    [
        ("buy", [("1.1050", "1.1052"), ("1.1040", "1.1042")], ("1.1020", "1.1022"), "1.10200"),
        ("sell", [("1.0950", "1.0952"), ("1.0960", "1.0962")], ("1.0980", "1.0982"), "1.09820"),
    ],
)
def test_a_stop_that_trails_follows_the_market_and_never_turns_back(
    market: Market,
    ticker: Ticker,
    trader: User,
    side: str,
    moves: list[tuple[str, str]],
    turns: tuple[str, str],
    level: str,
) -> None:
    position_id = market.trade(trader, side=side)["position_id"]
    change(market, trader, position_id, trailing_distance="0.003")

    assert [ticker.tick(EURUSD, *quote) for quote in moves] == [[], []]
    (shown,) = position_of(market, trader)
    assert shown["stop_loss"] == level

    assert ticker.tick(EURUSD, *turns) == ["filled"]
    closing = max(market.rows("orders", trader), key=lambda row: row["id"])
    assert closing["component_name"] == "trailing_stop"


@pytest.mark.parametrize("stop", [{"stop_loss": "1.1080"}, {"trailing_distance": "0.002"}])
def test_a_stop_that_is_set_after_a_quote_does_not_take_it(
    market: Market, ticker: Ticker, trader: User, stop: dict[str, str]
) -> None:
    """A take profit was touched, nobody has executed it yet, and the market has gone on."""
    position_id = market.trade(trader, take_profit="1.1050")["position_id"]
    ticker.touch("EURUSD", "1.1050", "1.1052")
    ticker.touch("EURUSD", "1.1100", "1.1102")

    change(market, trader, position_id, take_profit="1.1200", **stop)

    assert ticker.work() == ["idle"]
    assert ticker.tick("EURUSD", "1.1081", "1.1083") == []
    assert ticker.tick("EURUSD", "1.1080", "1.1082") == ["filled"]


def test_a_trail_that_is_ended_leaves_the_stop_where_it_had_come_to(
    market: Market, ticker: Ticker, trader: User
) -> None:
    position_id = market.trade(trader)["position_id"]
    change(market, trader, position_id, trailing_distance="0.003")
    ticker.tick(EURUSD, "1.1050", "1.1052")

    change(market, trader, position_id, trailing_distance=None)
    ticker.tick(EURUSD, "1.1080", "1.1082")

    (shown,) = position_of(market, trader)
    assert (shown["stop_loss"], shown["trailing_distance"]) == ("1.10200", None)
    assert market.execute("SELECT count(*) FROM trailing_levels") == [(0,)]


def position_of(market: Market, user: User) -> list[dict[str, Any]]:
    row = market.trader.execute("SELECT list_positions(%s, NULL)", (user.user_id,)).fetchone()
    assert row is not None
    return row[0]
