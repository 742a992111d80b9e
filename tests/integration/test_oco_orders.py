"""Two orders of which one cancels the other: placed together, reduced by each other's fills."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.linked import canceling, events, executing, leg, linked_request, place_linked, placed, states, stop_leg
from tests.kit.orders import Market, at_once, raises_sqlstate, send
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


def both(user: User, **fields: object) -> dict[str, object]:
    """Buy one lot below the market or above it."""
    return linked_request(user, "oco", leg(), stop_leg(), **fields)


class TestPlacing:
    def test_both_rest_and_name_each_other(self, market: Market) -> None:
        user = market.user()

        outcome = place_linked(market, both(user))

        first, second = outcome["orders"]
        assert [order["status"] for order in (first, second)] == ["new", "new"]
        assert [order["contingency"] for order in (first, second)] == ["oco", "oco"]
        assert (first["linked_order_ids"], second["linked_order_ids"]) == ([second["order_id"]], [first["order_id"]])
        # one event tells of both, and the audit of each
        (event,) = [row for row in market.rows("events", user) if row["event_type"] == "order.linked"]
        assert [order["order_id"] for order in event["payload"]["orders"]] == [first["order_id"], second["order_id"]]
        for order in (first, second):
            assert [row["action"] for row in market.audit(user, order["order_id"])] == ["SUBMITTED", "APPROVED"]

    def test_what_comes_with_them_is_kept(self, market: Market) -> None:
        user = market.user()
        earlier = market.place(user)["order_id"]
        legs = (leg(parent_order_id=earlier), stop_leg())

        ids = placed(market, linked_request(user, "oco", *legs, request_id="request-1", idempotency_key_days=7))

        orders = {row["id"]: row for row in market.rows("orders", user)}
        kept = max(market.rows("idempotency_keys", user), key=lambda row: row["created_at"])
        assert [orders[order_id]["parent_order_id"] for order_id in ids] == [UUID(earlier), None]
        assert market.last_event(user)["request_id"] == "request-1"
        assert kept["expires_at"] - kept["created_at"] == timedelta(days=7)
        # at 1.0950 and at 1.1050
        assert [market.audit(user, order_id)[-1]["details"]["margin"] for order_id in ids] == [1095, 1105]

    def test_a_repeat_hears_the_same(self, market: Market) -> None:
        user = market.user()
        request = both(user)

        first, second = place_linked(market, request), place_linked(market, request)

        assert (first.replayed, second.replayed) == (False, True)
        assert first.text == second.text
        assert len(market.rows("orders", user)) == 2

    def test_twenty_callers_with_one_key_place_one_pair(self, market: Market) -> None:
        user = market.user()
        request = both(user)

        told = at_once(market, [lambda connection: send(connection, request, "place_linked_orders")] * 20)

        assert sorted(outcome.replayed for outcome in told) == [False] + [True] * 19
        assert len({outcome.text for outcome in told}) == 1
        assert len(market.rows("orders", user)) == 2

    def test_the_first_that_is_refused_is_denied_and_none_rests(self, market: Market) -> None:
        user = market.user(balance="1098")

        outcome = place_linked(market, both(user))

        (denied,) = market.rows("orders", user)
        assert (outcome["outcome"], outcome["code"]) == ("denied", "INSUFFICIENT_MARGIN")
        assert (denied["status"], denied["order_type"]) == ("denied", "stop")
        assert place_linked(market, both(user))["outcome"] == "denied"

    def test_both_count_against_the_number_of_working_orders(self, market: Market) -> None:
        user = market.user(risk={"max_working_orders": 1})

        denied = place_linked(market, both(user))

        assert denied["code"] == "RISK_LIMIT_VIOLATION"
        assert "cancel some first" in denied["message"]

    def test_one_that_the_quote_of_now_touches_is_filled_and_the_other_canceled(self, market: Market) -> None:
        user = market.user()

        ids = placed(market, linked_request(user, "oco", leg(limit_price="1.1010"), stop_leg()))

        assert states(market, user, ids) == [("filled", 1, 0, 0), ("canceled", 0, 0, 0)]

    @pytest.mark.parametrize(
        ("orders", "field"),
        [
            ([leg()], "orders"),
            ([leg(), leg(), leg()], "orders"),
            ([leg(), stop_leg(symbol="GBPUSD", stop_price="1.3000")], "symbol"),
            ([leg(), stop_leg(quantity="2")], "quantity"),
            ([leg(), leg(time_in_force="ioc")], "time_in_force"),
            ([leg(), leg(order_type="market", limit_price=None)], "order_type"),
            ([leg(client_order_id="mine"), leg(client_order_id="mine")], "client_order_id"),
        ],
    )
    def test_what_does_not_fit_keeps_nothing(self, market: Market, orders: list[dict[str, object]], field: str) -> None:
        user = market.user()
        before = market.counts(user)

        with raises_sqlstate("TR006") as caught:
            place_linked(market, linked_request(user, "oco", *orders))

        assert f'"{field}"' in str(caught.value.diag.message_detail)
        assert market.counts(user) == before


class TestFills:
    def test_a_fill_cancels_the_other_in_the_same_transaction(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        ids = placed(market, both(user))

        assert ticker.tick(EURUSD, "1.0948", "1.0950") == ["filled"]

        assert states(market, user, ids) == [("filled", 1, 0, 0), ("canceled", 0, 0, 0)]
        last = market.audit(user, ids[1])[-1]
        assert (last["action"], last["reason"]) == ("CANCELED", "Its linked order was filled")
        assert events(market, user)[-2:] == ["order.filled", "order.canceled"]
        (transactions,) = market.execute(
            "SELECT count(DISTINCT xmin::text) FROM orders WHERE user_id = %s", (user.user_id,)
        )[0]
        assert transactions == 1

    def test_each_fill_in_part_takes_its_quantity_off_the_other(self, market: Market, ticker: Ticker) -> None:
        """EURUSD stands 28.93 lots deep."""
        user = market.user(balance="1000000", risk={"max_position_size": None})
        ids = placed(market, linked_request(user, "oco", leg(quantity="70"), stop_leg(quantity="70")))

        first = ticker.tick(EURUSD, "1.0948", "1.0950") + ticker.tick(EURUSD, "1.0947", "1.0949")
        between = states(market, user, ids)
        versions = [row["version"] for row in market.rows("orders", user) if row["id"] in ids]
        second = ticker.tick(EURUSD, "1.1050", "1.1052")

        parts, rest = 2 * Decimal("28.93"), Decimal("12.14")
        assert (first, second) == (["partially_filled"] * 2, ["canceled"])
        assert (between, versions) == ([("partially_filled", parts, rest, 0), ("new", 0, rest, 0)], [3, 3])
        # each has filled its part, and what the other has filled is canceled
        assert states(market, user, ids) == [("canceled", parts, 0, 0), ("canceled", rest, 0, 0)]
        reduced = [row for row in market.audit(user, ids[1]) if row["action"] == "REDUCED"]
        assert [Decimal(str(row["details"]["leaves_quantity"])) for row in reduced] == [Decimal("41.07"), rest]
        assert "order.reduced" in events(market, user)

    def test_the_end_of_one_leaves_the_other(self, market: Market, ticker: Ticker) -> None:
        user = market.user()
        ids = placed(market, both(user))

        market.cancel(user, ids[0])

        assert states(market, user, ids) == [("canceled", 0, 0, 0), ("new", 0, 1, 0)]
        assert ticker.tick(EURUSD, "1.1050", "1.1052") == ["filled"]

    @pytest.mark.parametrize("_turn", range(3))
    def test_two_that_are_touched_at_once_fill_one_quantity(self, market: Market, ticker: Ticker, _turn: int) -> None:
        user = market.user()
        placed(market, both(user))
        ticker.touch(EURUSD, "1.0948", "1.0950")
        ticker.touch(EURUSD, "1.1050", "1.1052")
        claimed = ticker.claim()

        told = at_once(market, [executing(market, row) for row in claimed])

        assert len(claimed) == 2
        assert sorted(told) == ["filled", "idle"]
        assert sum(fill["quantity"] for fill in market.rows("fills", user)) == 1

    @pytest.mark.parametrize("_turn", range(3))
    def test_a_fill_against_a_cancel_of_the_other(self, market: Market, ticker: Ticker, _turn: int) -> None:
        user = market.user()
        ids = placed(market, both(user))
        ticker.touch(EURUSD, "1.0948", "1.0950")
        (claimed,) = ticker.claim()

        told = at_once(market, [executing(market, claimed), canceling(user, ids[1])])

        assert told[0] == "filled"
        assert told[1] in {"canceled", "TR009"}
        assert states(market, user, ids) == [("filled", 1, 0, 0), ("canceled", 0, 0, 0)]
