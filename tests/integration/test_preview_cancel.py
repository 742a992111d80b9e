"""What canceling orders would end, over HTTP, with nothing written; and that canceling them ends just that."""

import uuid
from decimal import Decimal
from typing import Any

import pytest

from tests.kit import User
from tests.kit.functions import Answer
from tests.kit.linked import bracket_request, leg, linked_request, placed, stop_leg
from tests.kit.ticks import Ticker
from tests.kit.trading_api import TradingApi

CANCEL, CANCEL_ALL = "POST /api/v1/orders/{id}/cancel", "POST /api/v1/orders/cancel-all"


class Api(TradingApi):
    def both(self, route: str, user: User, order_id: object = None, body: object = None) -> tuple[Answer, Answer]:
        """The preview, then the cancellation itself."""
        return self.ask(f"{route}/preview", user, body, subject=order_id), self.ask(route, user, body, subject=order_id)

    def left(self, user: User) -> dict[str, tuple[str, Decimal]]:
        """Status and what is left of each order."""
        rows = self.market.rows("orders", user)
        return {str(row["id"]): (row["status"], row["leaves_quantity"]) for row in rows}


@pytest.fixture
def api(api: TradingApi) -> Api:
    return Api(api.market, api.placing, api.managing)


def test_an_order_by_hand(api: Api, user: User) -> None:
    """One lot of EURUSD at 1.0500 with leverage 100 would tie up 100,000 x 1.05 / 100 = 1,050."""
    order_id = api.market.place(user)["order_id"]
    api.market.place(user)
    before, account = api.market.counts(user), api.market.account(user)

    answers = [api.ask(f"{CANCEL}/preview", user, subject=order_id) for _ in range(3)]

    assert answers[0].status == 200, answers[0].text
    assert answers[0].body == {
        "account_id": str(user.account_id),
        "currency": "USD",
        "data": [
            {
                "order_id": order_id,
                "symbol": "EURUSD",
                "order_type": "LIMIT",
                "side": "BUY",
                "contingency": None,
                "quantity": "1",
                "filled_quantity": "0",
                "leaves_quantity": "1",
                "price": "1.05000",
                "margin": "1050.00",
            }
        ],
        "linked": [],
        "left": 0,
        "in_flight": 0,
        "working_orders_before": 2,
        "working_orders_after": 1,
    }
    # and nothing has come of it
    assert len({answer.text for answer in answers}) == 1
    assert (api.market.counts(user), api.market.account(user)) == (before, account)


@pytest.mark.parametrize(
    ("fields", "price", "margin"),
    [
        ({"order_type": "stop", "limit_price": None, "stop_price": "1.2"}, "1.20000", "1200.00"),
        ({"order_type": "stop_limit", "stop_price": "1.2", "limit_price": "1.21"}, "1.21000", "1210.00"),
        ({"order_type": "trailing_stop", "limit_price": None, "trail_amount": "0.0198"}, "1.12000", "1120.00"),
        (
            {
                "order_type": "trailing_stop_limit",
                "limit_price": None,
                "trail_amount": "0.0198",
                "limit_offset": "0.01",
            },
            "1.13000",
            "1130.00",
        ),
        ({"order_type": "market", "limit_price": None, "time_in_force": "cls"}, "1.10020", "1100.20"),
    ],
    ids=lambda each: each.get("order_type") if isinstance(each, dict) else each,
)
def test_what_its_rest_would_tie_up(api: Api, user: User, fields: dict[str, Any], price: str, margin: str) -> None:
    order_id = api.market.place(user, **fields)["order_id"]

    (told,) = api.ask(f"{CANCEL}/preview", user, subject=order_id).body["data"]

    assert (told["price"], told["margin"]) == (price, margin)


def test_what_only_reduces_would_tie_up_nothing(api: Api) -> None:
    # given a netting trader with one lot, and orders to sell that lot and two
    user = api.market.user(position_mode="netting")
    api.market.trade(user)
    orders = [api.market.place(user, side="sell", limit_price="1.2", quantity=lots)["order_id"] for lots in ("1", "2")]

    told = [api.ask(f"{CANCEL}/preview", user, subject=each).body["data"][0]["margin"] for each in orders]

    assert told == ["0.00", "1200.00"]


def test_without_a_rate_the_margin_is_not_told(api: Api) -> None:
    user = api.market.user(currency="GBP")
    order_id = api.market.place(user, symbol="USDJPY", limit_price="140")["order_id"]
    api.market.execute("DELETE FROM quotes WHERE symbol = 'GBPUSD'")

    preview, done = api.both(CANCEL, user, order_id)

    assert (preview.body["data"][0]["margin"], done.status) == (None, 200)


def test_what_cannot_be_canceled_is_refused_as_the_cancellation_is(api: Api, user: User) -> None:
    # given what is filled, canceled, on its way to a venue, somebody else's, and not there
    filled = api.market.trade(user)["order_id"]
    canceled = api.market.place(user)["order_id"]
    api.market.cancel(user, canceled)
    sent = api.market.place(user)["order_id"]
    api.market.execute("ALTER TABLE orders DISABLE TRIGGER USER")
    api.market.execute("UPDATE orders SET status = 'pending_new' WHERE id = %s", (sent,))
    theirs = api.market.place(api.market.user())["order_id"]

    told = [api.both(CANCEL, user, each) for each in (filled, canceled, sent, theirs, uuid.uuid4())]
    in_flight = api.ask(f"{CANCEL_ALL}/preview", user).body

    # then it is refused in the same words
    assert [done.status for _, done in told] == [409, 409, 409, 404, 404]
    assert [(preview.status, preview.body) for preview, _ in told] == [(done.status, done.body) for _, done in told]
    # and of many, what is on its way is told
    assert (in_flight["data"], in_flight["left"], in_flight["in_flight"]) == ([], 0, 1)
    api.market.execute("UPDATE orders SET status = 'new' WHERE id = %s", (sent,))
    api.market.execute("ALTER TABLE orders ENABLE TRIGGER USER")


def test_a_stop_loss_that_is_required_stays_as_in_the_cancellation(api: Api) -> None:
    # given a bracket that is open, of an account whose positions need a stop loss
    user = api.market.user(risk={"stop_loss_required": True})
    entry = leg(order_type="market", limit_price=None)
    _, stop_loss, take_profit = placed(api.market, bracket_request(user, entry))

    told, done = api.both(CANCEL, user, stop_loss)
    swept, swept_indeed = api.both(CANCEL_ALL, user, body={})

    assert told.status == done.status == 400
    assert told.body["error"] == done.body["error"] == "RISK_LIMIT_VIOLATION"
    assert told.body["details"] == done.body["details"]
    assert [order["order_id"] for order in swept.body["data"]] == [str(take_profit)]
    assert (swept_indeed.status, swept.body["left"]) == (200, swept_indeed.body["left"])
    assert api.left(user)[str(stop_loss)][0] == "new"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"symbol": None}, 400),
        ({"symbol": "EURUSX"}, 404),
        ({"side": "up"}, 400),
        ({"order_type": "stopp"}, 400),
        ({"account_id": "x"}, 400),
        ({"quantity": 1}, 400),
    ],
    ids=str,
)
def test_filters_are_read_as_the_cancellation_reads_them(
    api: Api, user: User, body: dict[str, Any], status: int
) -> None:
    preview, done = api.both(CANCEL_ALL, user, None, body)

    assert (preview.status, preview.body) == (done.status, done.body)
    assert done.status == status


def test_a_key_is_refused(api: Api, user: User) -> None:
    order_id = api.market.place(user)["order_id"]

    answer = api.ask(f"{CANCEL}/preview", user, {"idempotency_key": "a-key"}, subject=order_id)

    assert (answer.status, answer.body["details"]["field"]) == (400, "idempotency_key")


GROUPS: dict[str, Any] = {
    "oco": lambda user: linked_request(user, "oco", leg(quantity="50"), stop_leg(quantity="50")),
    "oto": lambda user: linked_request(
        user, "oto", leg(quantity="50"), stop_leg(quantity="7"), leg(side="sell", limit_price="1.2")
    ),
    "bracket": lambda user: bracket_request(user, leg(quantity="50")),
}
# Of what is linked with a parent that was not filled, and with one that was in part.
OUTCOMES = {
    "oco": ({"UNCHANGED"}, {"UNCHANGED"}),
    "oto": ({"CANCELLED"}, {"REDUCED"}),
    "bracket": ({"CANCELLED", "UNCHANGED"}, {"REDUCED", "UNCHANGED"}),
}
FILTERS = [{}, {"side": "buy"}, {"side": "sell"}, {"order_type": "limit"}, {"order_type": "stop"}, {"symbol": "AAPL"}]


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("touched", [False, True], ids=["untouched", "filled in part"])
def test_what_is_linked_ends_and_stays_as_was_told(api: Api, kind: str, touched: bool) -> None:
    """Each order of a group, and each set of filters, of a group of its own of each: first told, then done."""
    market = api.market
    user = market.user(balance=100_000_000, risk={"max_position_size": None})
    places = 2 if kind == "oco" else 3
    outcomes: set[str] = set()
    with Ticker.opened(market) as ticker:
        for case in [*range(places), *FILTERS]:
            market.quote("EURUSD", "1.1000", "1.1002")
            ids = [str(each) for each in placed(market, GROUPS[kind](user))]
            if touched:
                # 28.93 of 50 lots stand at one quote
                ticker.tick("EURUSD", "1.0947", "1.0949")
            single = isinstance(case, int)
            before = api.left(user)

            preview, done = (
                api.both(CANCEL, user, ids[case]) if isinstance(case, int) else api.both(CANCEL_ALL, user, None, case)
            )

            assert (preview.status, done.status) == (200, 200)
            told, after = preview.body, api.left(user)
            ended = [each["order_id"] for each in told["data"]]
            assert ended == ([done.body["id"]] if single else [each["id"] for each in done.body["canceled"]])
            outcomes |= {each["outcome"] for each in told["linked"]}
            # what is linked is left with what was told, in the state that was told
            for each in told["linked"]:
                status, leaves = after[each["order_id"]]
                assert Decimal(each["leaves_quantity_after"]) == leaves
                assert (each["outcome"] == "CANCELLED") == (status == "canceled")
                assert (each["outcome"] == "UNCHANGED") == (after[each["order_id"]] == before[each["order_id"]])
            # and nothing else has changed
            named = {each["order_id"] for each in (*told["data"], *told["linked"])}
            assert {each for each in after if after[each] != before[each]} <= named
            working = [status in ("new", "triggered", "partially_filled") for status, _ in after.values()]
            assert told["working_orders_after"] == sum(working)
            market.cancel_all(user)
    assert outcomes == OUTCOMES[kind][touched]
