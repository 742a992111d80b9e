"""POST /api/v1/positions/{id}/change/preview: where a change would leave a position's levels, with nothing written."""

import json
import uuid
from typing import Any

import pytest

from tests.kit import User
from tests.kit.functions import Answer
from tests.kit.orders import stale_time
from tests.kit.trading_api import TradingApi

PREVIEW = "POST /api/v1/positions/{id}/change/preview"
CHANGE = "PATCH /api/v1/positions/{id}"


class Api(TradingApi):
    def ask_of(self, route: str, user: User, position_id: object, body: object) -> Answer:
        return self.ask(route, user, body, subject=position_id)

    def previewed(self, user: User, position_id: object, body: object) -> dict[str, Any]:
        answer = self.ask_of(PREVIEW, user, position_id, body)
        assert answer.status == 200, answer.text
        return answer.body


@pytest.fixture
def api(api: TradingApi) -> Api:
    return Api(api.market, api.placing, api.managing)


@pytest.fixture
def position_id(api: Api, user: User) -> str:
    """100 AAPL bought at 150.00, slippage besides; AAPL stands at 149.98 / 150.00."""
    return api.market.trade(user, symbol="AAPL", quantity="100")["position_id"]


def test_levels_by_hand(api: Api, user: User, position_id: str) -> None:
    """100 lots of one share each: at 145.50 they lose 100 x (150.00 - 145.50) = 450, at 160.00 they gain 1,000."""
    told = api.previewed(user, position_id, {"stop_loss": 145.5, "take_profit_amount": "1000"})

    quoted_at = told.pop("quoted_at")
    assert told == {
        "account_id": str(user.account_id),
        "position_id": position_id,
        "symbol": "AAPL",
        "side": "LONG",
        "quantity": "100",
        "entry_price": "150.00",
        "current_price": "149.98",
        "currency": "USD",
        "version": 1,
        "before": {"stop_loss": None, "take_profit": None, "trailing_distance": None},
        "after": {
            "stop_loss": {"price": "145.50", "realized_pnl": "-450.00"},
            "take_profit": {"price": "160.00", "realized_pnl": "1000.00"},
            "trailing_distance": None,
        },
    }
    assert quoted_at


def test_nothing_is_written_however_often_it_is_asked(api: Api, user: User, position_id: str) -> None:
    before = api.market.counts(user), api.market.account(user), api.market.rows("positions", user)

    answers = [api.ask_of(PREVIEW, user, position_id, {"trailing_distance": "2.50"}) for _ in range(3)]

    assert len({answer.text for answer in answers}) == 1
    assert (api.market.counts(user), api.market.account(user), api.market.rows("positions", user)) == before


def test_a_trail_is_told_with_the_stop_where_the_feed_has_moved_it(api: Api, user: User, position_id: str) -> None:
    # given a stop that trails by 2.50, and a bid that has risen by 10 since
    assert api.ask_of(CHANGE, user, position_id, {"trailing_distance": "2.50"}).status == 200
    api.market.quote("AAPL", "159.98", "160.00")
    api.market.execute("SELECT move_trailing_levels(ARRAY['AAPL'], clock_timestamp())")

    # when it is to stand still, then be tighter
    still = api.previewed(user, position_id, {"trailing_distance": None})
    tighter = api.previewed(user, position_id, {"trailing_distance": "1"})

    # then its stop is the one of now, and the new one begins at the mark of now
    stop = {"price": "157.48", "realized_pnl": "748.00"}
    assert still["before"] == {"stop_loss": stop, "take_profit": None, "trailing_distance": "2.50"}
    assert still["after"] == {"stop_loss": stop, "take_profit": None, "trailing_distance": None}
    assert tighter["after"] == {
        "stop_loss": {"price": "158.98", "realized_pnl": "898.00"}, "take_profit": None, "trailing_distance": "1.00",
    }  # fmt: skip


def test_without_a_rate_the_levels_are_told_and_the_money_is_not(api: Api) -> None:
    # given a position of an account in euros, and no fresh rate from dollars
    user = api.market.user(currency="EUR")
    position_id = api.market.trade(user, symbol="AAPL", quantity="100")["position_id"]
    api.market.quote("EURUSD", "1.1000", "1.1002", stale_time())

    told = api.previewed(user, position_id, {"stop_loss": "140"})

    # then a level by its price is told, as it is set, without what it brings
    assert told["after"]["stop_loss"] == {"price": "140.00", "realized_pnl": None}
    assert api.ask_of(CHANGE, user, position_id, {"stop_loss": "140"}).status == 200


def test_levels_of_what_nobody_quotes_any_more_can_be_taken_away(api: Api, user: User, position_id: str) -> None:
    api.market.execute("DELETE FROM quotes WHERE symbol = 'AAPL'")

    told = api.previewed(user, position_id, {"take_profit": None})

    assert (told["current_price"], told["quoted_at"], told["after"]["take_profit"]) == (None, None, None)


REFUSED = [
    {},
    {"stop_loss": "0"},
    {"stop_loss": "149.98"},
    {"stop_loss": "149.985"},
    {"take_profit": "149.98"},
    {"take_profit_amount": "0.5", "stop_loss": "150"},
    {"trailing_distance": "149.98"},
    {"breakeven": True},
    {"stop_loss": "140", "stop_loss_amount": "5"},
    {"stop_loss": "140", "trailing_distance": "5"},
    {"stop_loss": "140", "version": 7},
    {"quantity": "1"},
]


@pytest.mark.parametrize("body", REFUSED, ids=json.dumps)
def test_it_is_refused_as_the_change_is(api: Api, user: User, position_id: str, body: dict[str, Any]) -> None:
    preview, change = (api.ask_of(route, user, position_id, body) for route in (PREVIEW, CHANGE))

    assert change.status >= 400
    assert (preview.status, preview.body) == (change.status, change.body)


def test_it_is_refused_as_the_change_is_whatever_stands_in_the_way(api: Api, user: User, position_id: str) -> None:
    """One position after the other that cannot be changed so."""
    market = api.market
    bound = market.user(risk={"stop_loss_required": True, "stop_loss_max_percent": 5})
    held = market.trade(bound, symbol="AAPL", quantity="100", stop_loss="145")["position_id"]
    theirs = market.trade(market.user(), symbol="AAPL", quantity="100")["position_id"]
    closed = market.trade(user, symbol="AAPL", quantity="100")["position_id"]
    market.close_out(user, closed)
    told: list[tuple[int, str]] = []

    def both(who: User, subject: object, body: dict[str, Any]) -> None:
        preview, change = (api.ask_of(route, who, subject, body) for route in (PREVIEW, CHANGE))
        assert (preview.status, preview.body) == (change.status, change.body)
        told.append((change.status, change.body["error"]))

    # what the account's limits keep where it is, what is not there, what is closed
    both(bound, held, {"stop_loss": None})
    both(bound, held, {"stop_loss": "120"})
    both(user, theirs, {"stop_loss": "140"})
    both(user, uuid.uuid4(), {"stop_loss": "140"})
    both(user, closed, {"stop_loss": "140"})
    # and what has no usable price
    market.quote("AAPL", "149.98", "150.00", stale_time())
    preview, change = (api.ask_of(route, user, position_id, {"stop_loss": "140"}) for route in (PREVIEW, CHANGE))

    assert told == [
        (400, "RISK_LIMIT_VIOLATION"),
        (400, "RISK_LIMIT_VIOLATION"),
        (404, "NOT_FOUND"),
        (404, "NOT_FOUND"),
        (409, "CONFLICT"),
    ]
    assert (preview.status, preview.body) == (change.status, change.body)
    assert (preview.status, preview.headers["Retry-After"]) == (503, "1")


def test_who_may_not_trade_may_ask_and_the_market_may_be_closed(api: Api, user: User, position_id: str) -> None:
    api.market.execute("UPDATE profiles SET account_status = 'suspended' WHERE id = %s", (user.user_id,))
    api.market.close("XNYS")
    api.market.quote("AAPL", "149.98", "150.00", stale_time())

    assert api.previewed(user, position_id, {"stop_loss": "140"})["after"]["stop_loss"]["price"] == "140.00"
    assert api.ask_of(CHANGE, user, position_id, {"stop_loss": "140"}).status == 200


def test_a_key_is_refused(api: Api, user: User, position_id: str) -> None:
    answer = api.ask_of(PREVIEW, user, position_id, {"stop_loss": "140", "idempotency_key": "a-key"})

    assert (answer.status, answer.body["details"]["field"]) == (400, "idempotency_key")
