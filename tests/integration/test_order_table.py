"""Every order type on either side, with every time in force, in an open and in a closed session: one table."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.kit import MigratedTemplate
from tests.kit.orders import Market, details_of
from tests.kit.ticks import Ticker

SYMBOL = "AAPL"
# AAPL stands at 149.98/150.00. What each type is given to buy and to sell, away from the market, and the two quotes
# that bring it to its fill: the first triggers a stop limit and lets a stop trail, the second fills what is left.
# What only shows half of itself is a limit order.
HALF: dict[str, object] = {"order_type": "limit", "display_quantity": "5"}
PRICES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "market": ({}, {}),
    "limit": ({"limit_price": "140"}, {"limit_price": "160"}),
    "iceberg": (HALF | {"limit_price": "140"}, HALF | {"limit_price": "160"}),
    "stop": ({"stop_price": "160"}, {"stop_price": "140"}),
    "stop_limit": ({"stop_price": "160", "limit_price": "165"}, {"stop_price": "140", "limit_price": "135"}),
    "market_if_touched": ({"stop_price": "140"}, {"stop_price": "160"}),
    "limit_if_touched": ({"stop_price": "140", "limit_price": "135"}, {"stop_price": "160", "limit_price": "165"}),
    "trailing_stop": ({"trail_amount": "5"}, {"trail_amount": "5"}),
    "trailing_stop_limit": ({"trail_amount": "5", "limit_offset": "50"}, {"trail_amount": "5", "limit_offset": "50"}),
}
FALLS, RISES = [("139.00", "139.02"), ("134.00", "134.02")], [("161.00", "161.02"), ("166.00", "166.02")]
COMES: dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {
    "market": ([], []),
    "limit": (FALLS, RISES),
    "iceberg": (FALLS, RISES),
    "stop": (RISES, FALLS),
    "stop_limit": (RISES[:1], FALLS[:1]),
    "market_if_touched": (FALLS, RISES),
    "limit_if_touched": (FALLS, RISES),
    "trailing_stop": ([FALLS[1], ("150.00", "150.02")], [RISES[1], ("150.00", "150.02")]),
    "trailing_stop_limit": ([FALLS[1], ("150.00", "150.02")], [RISES[1], ("150.00", "150.02")]),
}
WAITS = {"day": "rests", "gtc": "rests", "gtd": "rests", "ioc": "refused", "fok": "refused", "opg": "refused",
         "cls": "refused"}  # fmt: skip
# What becomes of each type as it is placed, by its time in force, while the market is open.
PLACED: dict[str, dict[str, str]] = {
    "market": {"day": "filled", "gtc": "filled", "gtd": "refused", "ioc": "filled", "fok": "filled", "opg": "timed",
               "cls": "timed"},
    "limit": {"day": "rests", "gtc": "rests", "gtd": "rests", "ioc": "canceled", "fok": "canceled", "opg": "timed",
              "cls": "timed"},
} | {name: WAITS for name in PRICES if name not in ("market", "limit")}  # fmt: skip
# In a closed session what would be filled or canceled at once is denied; the rest waits for the opening.
CLOSED = {"filled": "denied", "canceled": "denied"}
SIDES = ("buy", "sell")
ROWS = list(itertools.product(PRICES, SIDES, WAITS))


@pytest.fixture(scope="module")
def opened(migrated: MigratedTemplate) -> Iterator[Market]:
    """In a session that lasts for hours, with the next one tomorrow."""
    with Market.checked(migrated) as market:
        now = datetime.now(UTC)
        market.close("XNYS", now - timedelta(hours=1))
        tomorrow = now + timedelta(hours=23)
        market.execute("INSERT INTO market_sessions VALUES ('XNYS', %s, %s)", (tomorrow, tomorrow + timedelta(hours=8)))
        yield market


@pytest.fixture(scope="module")
def closed(migrated: MigratedTemplate) -> Iterator[Market]:
    """Between two sessions."""
    with Market.checked(migrated) as market:
        market.close("XNYS", datetime.now(UTC) + timedelta(hours=1))
        yield market


def placed(market: Market, order_type: str, side: str, time_in_force: str) -> tuple[str, str | None]:
    """What became of such an order as it was placed, and its id."""
    market.quote(SYMBOL, "149.98", "150.00")
    user = market.user(balance="1000000")
    expires_at = (datetime.now(UTC) + timedelta(hours=2)).isoformat() if time_in_force == "gtd" else None
    fields = {
        "order_type": order_type, "symbol": SYMBOL, "side": side, "quantity": "10", "time_in_force": time_in_force,
        "limit_price": None, "expires_at": expires_at, **PRICES[order_type][side == "sell"],
    }  # fmt: skip
    at_once = order_type == "market" and time_in_force not in ("opg", "cls")
    try:
        outcome = market.trade(user, **_given(fields)) if at_once else market.place(user, **fields)
    except psycopg.Error as error:
        if error.sqlstate != "TR006" or details_of(error)["field"] not in ("time_in_force", "display_quantity"):
            raise
        return "refused", None
    order = outcome.answer
    if order["outcome"] == "denied":
        assert order["code"] == "MARKET_CLOSED"
    if order["outcome"] != "new":
        return order["outcome"], order["order_id"]
    (row,) = market.rows("orders", user)
    return "timed" if row["active_at"] else "rests", order["order_id"]


def _given(fields: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


@pytest.mark.parametrize(("order_type", "side", "time_in_force"), ROWS)
def test_in_an_open_session(opened: Market, order_type: str, side: str, time_in_force: str) -> None:
    came, order_id = placed(opened, order_type, side, time_in_force)

    assert came == PLACED[order_type][time_in_force]
    if came == "rests":
        with Ticker.opened(opened) as ticker:
            for bid, ask in COMES[order_type][side == "sell"]:
                ticker.tick(SYMBOL, bid, ask)
        (state,) = opened.execute("SELECT status FROM orders WHERE id = %s", (order_id,))
        assert state == ("filled",)


@pytest.mark.parametrize(("order_type", "side", "time_in_force"), ROWS)
def test_in_a_closed_session(closed: Market, order_type: str, side: str, time_in_force: str) -> None:
    came, order_id = placed(closed, order_type, side, time_in_force)

    expected = PLACED[order_type][time_in_force]
    assert came == CLOSED.get(expected, expected)
    if came == "rests":
        with Ticker.opened(closed) as ticker:
            touched = [ticker.touch(SYMBOL, *quote) for quote in COMES[order_type][side == "sell"]]
        assert not any(touched)
        (state,) = closed.execute("SELECT status FROM orders WHERE id = %s", (order_id,))
        assert state == ("new",)
