"""Whatever prices, cancels and closes come in whatever order, linked orders never fill more than they may together."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit import MigratedTemplate, User
from tests.kit.linked import bracket_request, leg, linked_request, placed, stop_leg
from tests.kit.orders import Market
from tests.kit.ticks import Ticker

EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORKING = ("new", "triggered", "partially_filled")
# 28.93 lots of EURUSD stand at one quote.
LARGE = "50"
LEVELS = ("1.0880", "1.0890", "1.0900", "1.0945", "1.0948", "1.1000", "1.1050", "1.1100", "1.1110")
SPREADS = ("0.0002", "0.0010")

quotes = st.tuples(st.just("quote"), st.sampled_from(LEVELS), st.sampled_from(SPREADS))
cancels = st.tuples(st.just("cancel"), st.integers(0, 2), st.none())
closes = st.tuples(st.just("close"), st.sampled_from(["1", "10", None]), st.none())
steps = st.lists(st.one_of(quotes, quotes, quotes, cancels, closes), min_size=1, max_size=12)
kinds = st.sampled_from(["oco", "oto", "bracket", "bracket at the market", "bracket with a limit"])


@pytest.fixture(scope="module")
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    """One market; the books must hold after all examples."""
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture(scope="module")
def ticker(market: Market) -> Iterator[Ticker]:
    with Ticker.opened(market) as ticker:
        yield ticker


def request_of(kind: str, user: User) -> dict[str, object]:
    entry = leg(quantity=LARGE)
    match kind:
        case "oco":
            return linked_request(user, kind, entry, stop_leg(quantity=LARGE))
        case "oto":
            return linked_request(user, kind, entry, stop_leg(quantity="7"), leg(side="sell", limit_price="1.1050"))
        case "bracket at the market":
            return bracket_request(user, leg(quantity=LARGE, order_type="market", limit_price=None))
        case "bracket with a limit":
            return bracket_request(user, entry, stop_loss={"stop_price": "1.0900", "limit_price": "1.0890"})
        case _:
            return bracket_request(user, entry)


def take(market: Market, ticker: Ticker, user: User, ids: list[UUID], step: tuple[str, Any, Any]) -> None:
    """Do one step; what it does not find is left."""
    try:
        match step:
            case ("quote", bid, spread):
                ticker.tick("EURUSD", bid, str(Decimal(bid) + Decimal(spread)))
            case ("cancel", place, _):
                market.cancel(user, ids[min(place, len(ids) - 1)])
            case (_, quantity, _):
                for position in [row for row in market.rows("positions", user) if row["status"] == "open"][:1]:
                    market.close_out(user, position["id"], **({"quantity": quantity} if quantity else {}))
    except psycopg.Error as error:
        if error.sqlstate not in ("TR006", "TR009", "TR010"):
            raise


def check(kind: str, rows: list[dict[str, Any]]) -> None:
    """What holds of the group after each step."""
    first, *others = rows
    for row in rows:
        left = row["quantity"] - row["filled_quantity"] - row["canceled_quantity"] if row["status"] in WORKING else 0
        assert row["leaves_quantity"] == left >= row["held_quantity"] >= 0
    if kind == "oco":
        assert sum(row["filled_quantity"] for row in rows) <= first["quantity"]
    elif kind == "oto":
        for child in others:
            assert child["filled_quantity"] * first["quantity"] <= child["quantity"] * first["filled_quantity"]
    else:
        assert sum(row["filled_quantity"] for row in others) <= first["filled_quantity"]


@EXAMPLES
@given(kinds, st.sampled_from(["hedging", "netting"]), steps)
def test_they_never_fill_more_than_they_may(
    market: Market, ticker: Ticker, kind: str, position_mode: str, taken: list[tuple[str, Any, Any]]
) -> None:
    # given a group of its own at a price that touches none of it
    market.quote("EURUSD", "1.1000", "1.1002")
    user = market.user(balance="1000000", position_mode=position_mode, risk={"max_position_size": None})
    ids = placed(market, request_of(kind, user))

    # when things happen to it
    for step in taken:
        take(market, ticker, user, ids, step)
        rows = {row["id"]: row for row in market.rows("orders", user)}
        check(kind, [rows[order_id] for order_id in ids])

    # then exits have turned no position round, and nothing of it is left to the next example
    if kind.startswith("bracket"):
        assert {row["side"] for row in market.rows("positions", user)} <= {"long"}
    assert market.book_faults() == []
    for order_id in ids:
        take(market, ticker, user, ids, ("cancel", ids.index(order_id), None))
