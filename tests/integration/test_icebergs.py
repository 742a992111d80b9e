"""Orders that show a part of themselves: how much one quote fills, and that it can be worked out again."""

from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.kit import MigratedTemplate, User
from tests.kit.orders import Market, details_of, keyed_request, raises_sqlstate, send
from tests.kit.ticks import Ticker
from trading.pricing import slippage_draw

EURUSD = "EURUSD"
STEP = Decimal("0.01")


@pytest.fixture
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def ticker(market: Market) -> Iterator[Ticker]:
    with Ticker.opened(market) as ticker:
        yield ticker


def fills(market: Market, user: User) -> list[Decimal]:
    return [row["quantity"] for row in sorted(market.rows("fills", user), key=lambda row: row["transact_time"])]


def order_of(market: Market, user: User) -> dict[str, Any]:
    (order,) = [row for row in market.rows("orders", user) if row["order_type"] == "limit"]
    return order


@pytest.mark.parametrize(
    ("side", "limit", "quotes"),
    [
        ("buy", "1.0950", [("1.0948", "1.0950"), ("1.0946", "1.0948"), ("1.0947", "1.0949")]),
        ("sell", "1.1050", [("1.1050", "1.1052"), ("1.1052", "1.1054"), ("1.1051", "1.1053")]),
    ],
)
def test_each_quote_fills_what_is_shown(
    market: Market, ticker: Ticker, side: str, limit: str, quotes: list[tuple[str, str]]
) -> None:
    user = market.user()
    market.place(user, side=side, quantity="2.5", limit_price=limit, display_quantity="1")

    states = [ticker.tick(EURUSD, *quote) for quote in quotes]

    assert states == [["partially_filled"], ["partially_filled"], ["filled"]]
    assert fills(market, user) == [1, 1, Decimal("0.5")]
    # and its fills are told with what it shows
    assert market.last_payload(user)["orders"][0]["display_quantity"] == 1


def test_the_smaller_of_depth_and_what_is_shown(market: Market, ticker: Ticker) -> None:
    """EURUSD trades 2,500,000 lots a day: 28.93 in a second."""
    user = market.user(balance="1000000", risk={"max_position_size": None})
    market.place(user, quantity="60", limit_price="1.0950", display_quantity="40")

    ticker.tick(EURUSD, "1.0940", "1.0942")

    assert fills(market, user) == [Decimal("28.93")]


def test_what_is_touched_as_it_comes_takes_one_part_at_once(market: Market, ticker: Ticker) -> None:
    user = market.user()

    placed = market.place(user, quantity="2", limit_price="1.2", display_quantity="0.5")

    assert (placed["outcome"], placed["filled_quantity"]) == ("partially_filled", Decimal("0.5"))
    assert (placed["display_quantity"], placed["display_variance"]) == (Decimal("0.5"), None)
    assert ticker.tick(EURUSD, "1.1000", "1.1002") == ["partially_filled"]


def test_a_part_varies_by_a_draw_that_anybody_can_repeat(market: Market, ticker: Ticker) -> None:
    user = market.user(balance="1000000", risk={"max_position_size": None})
    market.place(user, quantity="10", limit_price="1.0950", display_quantity="1", display_variance="0.5")

    for n in range(30):
        if order_of(market, user)["status"] != "filled":
            ticker.tick(EURUSD, "1.0940", f"1.0942{n % 10}")

    order, filled, expected = order_of(market, user), Decimal(0), list[Decimal]()
    while filled < 10:
        draw = slippage_draw(f"{order['id']}:{filled.normalize():f}")
        part = (1 + Decimal("0.5") * (2 * draw - 1)).quantize(STEP, ROUND_HALF_UP)
        expected.append(min(part, 10 - filled))
        filled += expected[-1]
    assert fills(market, user) == expected
    assert len(set(expected)) > 1


def test_what_is_replaced_hides_as_much(market: Market, ticker: Ticker) -> None:
    user = market.user()
    placed = market.place(user, quantity="2", limit_price="1.2", display_quantity="0.5", display_variance="0")

    asked = keyed_request(user, order_id=placed["order_id"], quantity="0.8", limit_price="1.0950")
    changed = send(market.trader, asked, "replace_order")

    assert (changed["quantity"], changed["display_quantity"], changed["display_variance"]) == (
        Decimal("0.3"), Decimal("0.3"), 0,
    )  # fmt: skip


def test_what_is_replaced_may_hide_nothing_any_more(market: Market) -> None:
    user = market.user()
    placed = market.place(user, quantity="2", display_quantity="0.5", display_variance="0.1")

    market.replace(user, placed["order_id"], display_quantity=None)

    assert market.rows("orders", user)[-1]["display_quantity"] is None
    assert market.rows("orders", user)[-1]["display_variance"] is None


def test_reduce_only_shows_its_parts_too(market: Market, ticker: Ticker) -> None:
    user = market.user(position_mode="netting")
    market.trade(user, quantity="2")
    market.place(user, side="sell", quantity="2", limit_price="1.1050", reduce_only=True, display_quantity="1")
    market.trade(user, side="sell", quantity="0.5")

    states = ticker.tick(EURUSD, "1.1050", "1.1052") + ticker.tick(EURUSD, "1.1051", "1.1053")

    assert states == ["partially_filled", "canceled"]
    assert order_of(market, user)["filled_quantity"] == Decimal("1.5")


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("display_quantity", {"display_quantity": "1.01"}),
        ("display_quantity", {"display_quantity": "0.015"}),
        ("display_quantity", {"display_quantity": "0"}),
        ("display_quantity", {"display_quantity": "0.5", "time_in_force": "ioc"}),
        ("display_quantity", {"display_quantity": "0.5", "order_type": "stop_limit", "stop_price": "1.2"}),
        ("display_variance", {"display_quantity": "0.5", "display_variance": "1.1"}),
        ("display_variance", {"display_quantity": "0.5", "display_variance": "-0.1"}),
        ("display_variance", {"display_variance": "0.5"}),
    ],
)
def test_what_does_not_fit_is_refused(market: Market, field: str, fields: dict[str, object]) -> None:
    user = market.user()

    with raises_sqlstate("TR006") as caught:
        market.place(user, quantity="1", **fields)

    assert details_of(caught.value)["field"] == field
    assert market.counts(user)["orders"] == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shown=st.integers(1, 500), left=st.integers(1, 1000), filled=st.integers(0, 1000), variance=st.integers(0, 100),
    seed=st.uuids(),
)  # fmt: skip
@example(shown=1, left=100, filled=0, variance=100, seed=UUID(int=9))  # 0.004 lots, before they are a step
def test_a_part_is_what_its_draw_says_on_the_step_and_within_its_bounds(
    market: Market, shown: int, left: int, filled: int, variance: int, seed: UUID
) -> None:
    (row,) = market.execute(
        "SELECT displayed_slice(jsonb_populate_record(NULL::orders, jsonb_build_object('id', %s, 'leaves_quantity', "
        "%s * 0.01, 'filled_quantity', %s * 0.01, 'display_quantity', %s * 0.01, 'display_variance', %s * 0.01)), "
        "jsonb_populate_record(NULL::order_terms, '{\"quantity_step\": 0.01}'))",
        (seed, left, filled, shown, variance),
    )

    draw = slippage_draw(f"{seed}:{(filled * STEP).normalize():f}")
    wanted = (shown * STEP * (1 + variance * STEP * (2 * draw - 1))).quantize(STEP, ROUND_HALF_UP)
    assert row == (min(left * STEP, max(STEP, wanted)),)
