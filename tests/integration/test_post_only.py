"""Orders that only rest: refused where the quote of now would fill them, and limits like any other once they rest."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.kit import MigratedTemplate
from tests.kit.linked import leg, linked_request, place_linked
from tests.kit.orders import Market, details_of, keyed_request, raises_sqlstate, send, stale_time
from tests.kit.ticks import Ticker

EURUSD = "EURUSD"


@pytest.fixture
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.mark.parametrize(
    ("side", "crosses", "rests"), [("buy", "1.1002", "1.1001"), ("sell", "1.1000", "1.1001")]
)  # EURUSD stands at 1.1000/1.1002
def test_it_rests_or_is_refused(market: Market, side: str, crosses: str, rests: str) -> None:
    user = market.user()

    with raises_sqlstate("TR006") as caught:
        market.place(user, side=side, limit_price=crosses, post_only=True)

    assert details_of(caught.value)["field"] == "limit_price"
    assert market.counts(user)["orders"] == 0
    assert market.place(user, side=side, limit_price=rests, post_only=True)["outcome"] == "new"
    assert market.rows("orders", user)[0]["post_only"] is True
    assert market.last_payload(user)["orders"][0]["post_only"] is True


def test_once_it_rests_it_takes_a_gap(market: Market) -> None:
    user = market.user()
    market.place(user, limit_price="1.0950", post_only=True)

    with Ticker.opened(market) as ticker:
        assert ticker.tick(EURUSD, "1.0900", "1.0902") == ["filled"]

    assert market.rows("orders", user)[0]["average_price"] == Decimal("1.0902")


def test_what_replaces_it_only_rests_too(market: Market) -> None:
    user = market.user()
    placed = market.place(user, limit_price="1.0950", post_only=True)

    with raises_sqlstate("TR006") as caught:
        send(market.trader, keyed_request(user, order_id=placed["order_id"], limit_price="1.1002"), "replace_order")

    assert details_of(caught.value)["field"] == "limit_price"
    assert [row["status"] for row in market.rows("orders", user)] == ["new"]


def test_without_a_usable_quote_nothing_is_kept(market: Market) -> None:
    user = market.user()
    market.quote(EURUSD, "1.1000", "1.1002", stale_time())

    with raises_sqlstate("TR004"):
        market.place(user, limit_price="1.0950", post_only=True)

    assert market.counts(user)["orders"] == 0


def test_while_the_market_is_closed_the_last_quote_decides(market: Market) -> None:
    user = market.user()
    market.quote(EURUSD, "1.1000", "1.1002", stale_time())
    market.close("FX")

    with raises_sqlstate("TR006"):
        market.place(user, limit_price="1.1002", post_only=True)

    assert market.place(user, limit_price="1.1001", post_only=True)["outcome"] == "new"


@pytest.mark.parametrize(
    "fields", [{"time_in_force": "ioc"}, {"order_type": "stop_limit", "stop_price": "1.2", "limit_price": "1.21"}]
)
def test_only_a_limit_that_rests(market: Market, fields: dict[str, object]) -> None:
    with raises_sqlstate("TR006") as caught:
        market.place(market.user(), post_only=True, **fields)

    assert details_of(caught.value)["field"] == "post_only"


def test_a_child_that_is_held_for_its_parent_is_not(market: Market) -> None:
    with raises_sqlstate("TR006") as caught:
        place_linked(market, linked_request(market.user(), "oto", leg(), leg(post_only=True)))

    assert (details_of(caught.value)["field"], details_of(caught.value)["place"]) == ("post_only", 2)
