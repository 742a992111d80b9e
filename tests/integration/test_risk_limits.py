"""Each limit: one step below it, at it and one step above; wherever an order is judged; and raced by 20 callers."""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.kit import MigratedTemplate, User
from tests.kit.linked import bracket_request, leg, linked_request, place_linked, placed
from tests.kit.orders import (
    Market,
    Outcome,
    details_of,
    keyed_request,
    raises_sqlstate,
    resting_request,
    send,
    told_at_once,
)
from tests.kit.ticks import Ticker

CALLERS = 20
TAKEN, DENIED = "new", "RISK_LIMIT_VIOLATION"
BELOW_AT_ABOVE = (TAKEN, TAKEN, DENIED)
# A loss that has reached its limit is a loss too many.
REACHED = (TAKEN, DENIED, DENIED)
# An account that nothing binds but what a test gives.
UNBOUND: dict[str, object] = {
    "max_order_notional": None,
    "max_position_size": None,
    "max_positions": None,
    "max_working_orders": None,
    "daily_trade_limit": None,
    "max_daily_loss": None,
    "price_collar_percent": None,
}

type Fields = dict[str, object]

CONDITION: Fields = {"symbol": "GBPUSD", "watch": "bid", "direction": "at_or_above", "level": "1.3100"}
TRAILING: Fields = {
    "order_type": "trailing_stop_limit",
    "limit_price": None,
    "trail_amount": "0.0100",
    "limit_offset": "0.0005",
}


@dataclass(frozen=True)
class Limit:
    """A limit, and three situations about it; EURUSD stands at 1.1000/1.1002, an order rests at 1.0500.

    `trades` are executed and `rests` placed before `order` is. Each of the three has a step of its own in one of them.
    """

    name: str
    risk: tuple[Fields, Fields, Fields] | Fields
    order: tuple[Fields, Fields, Fields] | Fields = field(default_factory=dict)
    trades: tuple[list[Fields], list[Fields], list[Fields]] | list[Fields] = field(default_factory=list)
    rests: tuple[list[Fields], list[Fields], list[Fields]] | list[Fields] = field(default_factory=list)
    expected: tuple[str, str, str] = BELOW_AT_ABOVE
    field: str | None = None
    message: str = "Your limit is"


def three(name: str, values: tuple[object, object, object], **fields: object) -> tuple[Fields, Fields, Fields]:
    """The same but for one value."""
    below, at, above = ({name: value} | fields for value in values)
    return below, at, above


def lots(below: str, at: str, above: str) -> tuple[Fields, Fields, Fields]:
    return three("quantity", (below, at, above))


def times(*counts: int, **fields: object) -> Any:
    """So many of one kind in each situation; each of another size, so that none is another's duplicate."""
    return tuple([{"quantity": f"0.{place + 1:02}"} | fields for place in range(count)] for count in counts)


LIMITS = (
    Limit("max_order_quantity", {"max_order_quantity": 2}, lots("1.99", "2", "2.01"), field="quantity"),
    # 1 lot x 100,000 x 1.05
    Limit("max_order_notional", {"max_order_notional": 105_000}, lots("0.99", "1", "1.01"), field="quantity"),
    Limit("max_position_size", {"max_position_size": 2}, lots("0.99", "1", "1.01"), trades=[{"quantity": "1"}]),
    Limit("max_positions", {"max_positions": 2}, trades=times(0, 1, 2)),
    Limit("max_working_orders", {"max_working_orders": 2}, rests=times(0, 1, 2)),
    # a long of 1 lot at the bid of 1.1 and the order: 110,000 + 105,000
    Limit("max_exposure", {"max_exposure": 215_000}, lots("0.99", "1", "1.01"), trades=[{"quantity": "1"}]),
    # GBPUSD at a bid of 1.25 and EURUSD at 1.25: half and half
    Limit(
        "max_concentration_percent",
        {"max_concentration_percent": 50},
        three("quantity", ("0.99", "1", "1.01"), limit_price="1.25"),
        trades=[{"symbol": "GBPUSD", "quantity": "1"}],
        expected=("filled", "filled", DENIED),
    ),
    Limit("order_rate_limit", {"order_rate_limit": 2, "order_rate_window_s": 3600}, rests=times(0, 1, 2)),
    Limit("daily_trade_limit", {"daily_trade_limit": 2}, trades=times(1, 2, 3), expected=REACHED),
    # a lot bought at 1.10026 stands at -26
    Limit(
        "max_daily_loss",
        three("max_daily_loss", ("26.01", "26", "25.99")),
        trades=[{"quantity": "1"}],
        expected=REACHED,
    ),
    Limit(
        "max_drawdown_percent",
        three("max_drawdown_percent", ("0.0261", "0.026", "0.0259")),
        trades=[{"quantity": "1"}],
        expected=REACHED,
    ),
    Limit(
        "stop_loss_required",
        {"stop_loss_required": True},
        ({"stop_loss": "0.5"}, {"stop_loss": "1.0499"}, {}),
        field="stop_loss",
        message="Your orders need a stop loss",
    ),
    Limit(
        "stop_loss_min_percent",
        {"stop_loss_min_percent": 1},
        three("stop_loss", ("0.98999", "0.99", "0.99001"), limit_price="1.0000"),
        field="stop_loss",
        message="Your stop loss must be at least 1 percent away",
    ),
    Limit(
        "stop_loss_max_percent",
        {"stop_loss_max_percent": 1},
        three("stop_loss", ("0.99001", "0.99", "0.98999"), limit_price="1.0000"),
        field="stop_loss",
        message="Your stop loss may be at most 1 percent away",
    ),
    # 10 percent below the ask of 1.1002
    Limit(
        "price_collar_percent",
        {"price_collar_percent": 10},
        three("limit_price", ("0.99019", "0.99018", "0.99017")),
        field="limit_price",
        message="The price lies 10.00 percent away from the quote",
    ),
    Limit(
        "restricted_symbols",
        ({}, {"restricted_symbols": ["GBPUSD"]}, {"restricted_symbols": ["EURUSD"]}),
        field="symbol",
        message="You may not add to EURUSD",
    ),
)
NAMES = [limit.name for limit in LIMITS]


def situation(limit: Limit, place: int) -> tuple[Fields, Fields, list[Fields], list[Fields]]:
    """Settings, order, trades and resting orders of one of the three."""
    risk = limit.risk[place] if isinstance(limit.risk, tuple) else limit.risk
    order = limit.order[place] if isinstance(limit.order, tuple) else limit.order
    trades = limit.trades[place] if isinstance(limit.trades, tuple) else limit.trades
    rests = limit.rests[place] if isinstance(limit.rests, tuple) else limit.rests
    return risk, order, trades, rests


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market:
            yield market
            assert market.book_faults() == []
    finally:
        scratch.drop()


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    return shared


def given_user(market: Market, limit: Limit, place: int, **facts: Any) -> tuple[User, Fields]:
    """Who has done what comes before the order, bound from then on; and the order."""
    risk, order, trades, rests = situation(limit, place)
    user = market.user(risk=UNBOUND, **facts)
    for fields in trades:
        assert market.trade(user, **fields)["outcome"] == "filled"
    for fields in rests:
        assert market.place(user, **fields)["outcome"] == "new"
    bind(market, user, risk)
    return user, order


def bind(market: Market, user: User, risk: Mapping[str, object]) -> None:
    """Set limits by hand, as the owner."""
    for name, value in risk.items():
        market.execute(
            f"UPDATE risk_settings SET {name} = %(value)s, unlimited = array_remove(unlimited, %(name)s) "
            "WHERE user_id = %(user)s",
            {"value": value, "name": name, "user": user.user_id},
        )


def told(outcome: Outcome) -> str:
    return outcome.answer.get("code", outcome["outcome"])


@pytest.mark.parametrize("limit", LIMITS, ids=NAMES)
def test_below_at_and_above(market: Market, limit: Limit) -> None:
    outcomes: list[Outcome] = []
    previews: list[dict[str, Any] | None] = []
    for place in range(3):
        user, order = given_user(market, limit, place)
        previews.append(refusal_of_preview(market, user, order))
        outcomes.append(market.place(user, **order))

    assert tuple(told(outcome) for outcome in outcomes) == limit.expected
    denied = outcomes[2].answer
    assert denied["details"]["limit"] == limit.name
    assert denied["details"]["field"] == (limit.field or limit.name)
    assert denied["details"].keys() == {"field", "value", "constraint", "limit"}
    assert denied["message"].startswith(limit.message)
    # then the preview has told the same
    for outcome, preview in zip(outcomes, previews, strict=True):
        expected = None if outcome["outcome"] != "denied" else {"code": DENIED, "details": outcome["details"]}
        assert (preview and {"code": preview["code"], "details": preview["details"]}) == expected


def refusal_of_preview(market: Market, user: User, order: Fields) -> dict[str, Any] | None:
    request = {name: value for name, value in resting_request(user, **order).items() if name != "version"}
    row = market.trader.execute(
        "SELECT preview_facts(%s, %s, %s)", (user.user_id, user.account_id, Jsonb(request))
    ).fetchone()
    assert row is not None
    return row[0]["refusal"] or row[0]["limit_refusal"]


@pytest.mark.parametrize("beside", [{}, {"max_exposure": 1_000_000}], ids=["alone", "beside an exposure"])
def test_a_size_is_that_of_the_symbol_on_the_orders_side(market: Market, beside: Fields) -> None:
    # given a lot of the symbol on either side, and one of another symbol
    user = market.user(risk=UNBOUND)
    for fields in ({}, {"side": "sell"}, {"symbol": "GBPUSD"}):
        market.trade(user, quantity="1", **fields)
    bind(market, user, {"max_position_size": 2} | beside)

    outcomes = [market.trade(user, quantity=quantity) for quantity in ("1.01", "1")]

    assert [told(outcome) for outcome in outcomes] == [DENIED, "filled"]
    assert (outcomes[0]["details"]["limit"], outcomes[0]["details"]["value"]) == ("max_position_size", "2.01")


class TestTradesOfTheDay:
    def test_an_order_that_ended_with_a_part_filled_is_one(self, market: Market) -> None:
        # given an order of which a part was filled
        user = market.user(risk=UNBOUND | {"daily_trade_limit": 1})
        placed = market.place(user, limit_price="1.1002", display_quantity="0.1")
        assert placed["outcome"] == "partially_filled"

        # when its next part comes, and then the rest is canceled
        with Ticker.opened(market) as ticker:
            assert ticker.tick("EURUSD", "1.1000", "1.1002") == ["partially_filled"]
        market.cancel(user, placed["order_id"])

        # then it was not in its own way, and is in that of the next
        assert market.trade(user)["details"]["limit"] == "daily_trade_limit"


# What is behind an order once it was sent.
SENT_ONCE = {"max_working_orders", "order_rate_limit", "price_collar_percent"}


@pytest.mark.parametrize("limit", [limit for limit in LIMITS if limit.name not in SENT_ONCE], ids=lambda x: x.name)
def test_it_binds_market_orders_replacements_groups_and_touched_orders(market: Market, limit: Limit) -> None:
    # given an order that rests since before the limit was set, of somebody who would break it now
    risk, order, trades, _ = situation(limit, 2)
    order = {name: value for name, value in order.items() if name != "limit_price"} | {"limit_price": "1.0500"}
    if limit.name.startswith("stop_loss_m"):
        order["stop_loss"] = "1.0480" if "min" in limit.name else "0.9"
        risk = {limit.name: 10 if "min" in limit.name else 1}
    if limit.name in ("max_concentration_percent", "max_exposure", "max_order_notional"):
        risk = {limit.name: 1}
    user = market.user(risk=UNBOUND)
    for fields in trades:
        market.trade(user, **fields)
    resting = market.place(user, **order)
    assert resting["outcome"] == "new"
    bind(market, user, risk)

    # when
    at_market = {name: value for name, value in order.items() if name != "limit_price"}
    outcomes = [
        market.trade(user, **at_market),
        market.replace(user, resting["order_id"], client_order_id=str(uuid.uuid4()), limit_price="1.0490"),
        group(market, user, order),
    ]

    # then
    assert [told(outcome) for outcome in outcomes] == [DENIED] * 3
    assert {outcome["details"]["limit"] for outcome in outcomes} == {limit.name}
    # and the one that rests is refused when its price comes
    with Ticker.opened(market) as ticker:
        ticker.tick("EURUSD", "1.0498", "1.0500")
    (order_row,) = [row for row in market.rows("orders", user) if str(row["id"]) == resting["order_id"]]
    assert (order_row["status"], order_row["failure_code"]) == ("rejected", DENIED)


def group(market: Market, user: User, order: Fields) -> Outcome:
    """A parent that is like `order`, with one child."""
    leg = {
        "symbol": "EURUSD",
        "side": "buy",
        "quantity": "1",
        "order_type": "limit",
        "limit_price": "1.0500",
        "time_in_force": "gtc",
    } | order
    child = {name: value for name, value in leg.items() if name != "stop_loss"}
    request = keyed_request(user, kind="oto", orders=[leg, child], account_id=str(user.account_id))
    return send(market.trader, request, "place_linked_orders")


class TestChildrenKeepToTheCollar:
    """Ten percent of the bid of 1.1000, whatever their parent waits for."""

    @pytest.mark.parametrize("parent", [leg(), leg(order_type="market", limit_price=None)], ids=["limit", "market"])
    def test_when_they_are_sent(self, market: Market, parent: Fields) -> None:
        user = market.user(risk=UNBOUND | {"price_collar_percent": 10})

        at, beyond = (
            place_linked(
                market, linked_request(user, "oto", parent, leg(side="sell"), leg(side="sell", limit_price=price))
            )
            for price in ("1.2100", "1.2101")
        )

        assert (told(at), told(beyond)) == ("placed", DENIED)
        assert (beyond["details"]["limit"], beyond["details"]["value"]) == ("price_collar_percent", "1.2101")
        # nothing of the second group is there but what was denied
        assert [row["status"] for row in market.rows("orders", user)].count("denied") == 1
        assert len(market.rows("orders", user)) == 4

    def test_but_for_those_that_can_only_reduce(self, market: Market) -> None:
        user = market.user(position_mode="netting", risk=UNBOUND | {"price_collar_percent": 10})
        child = leg(side="sell", limit_price="2.0000", reduce_only=True)

        assert told(place_linked(market, linked_request(user, "oto", leg(), child))) == "placed"


class TestWhatReducesIsNeverRefused:
    def test_by_any_limit(self, market: Market) -> None:
        user = market.user(position_mode="netting", risk=UNBOUND)
        market.trade(user, quantity="1")
        bind(
            market,
            user,
            {
                "max_order_quantity": "0.01",
                "max_order_notional": 1,
                "max_position_size": "0.01",
                "max_positions": 0,
                "max_exposure": 0,
                "max_concentration_percent": 0,
                "order_rate_limit": 0,
                "duplicate_window_ms": 3_600_000,
                "daily_trade_limit": 0,
                "max_daily_loss": 0,
                "max_drawdown_percent": 0,
                "stop_loss_required": True,
                "price_collar_percent": 0,
                "restricted_symbols": ["EURUSD"],
            },
        )

        outcomes = [
            market.trade(user, side="sell", quantity="0.4"),
            market.trade(user, side="sell", quantity="0.4"),
            market.place(user, side="sell", quantity="0.1", limit_price="2.0000"),
        ]
        position_id = market.rows("positions", user)[0]["id"]
        closed = market.close_out(user, position_id)

        assert [outcome["outcome"] for outcome in outcomes] == ["filled", "filled", "new"]
        assert closed["outcome"] == "filled"
        assert market.cancel(user, outcomes[2]["order_id"])["outcome"] == "canceled"


class TestWhatThePlatformClosesCountsForNothing:
    """Who has sent one order may send a second, whatever the platform has sent for them since."""

    BOUND = UNBOUND | {"order_rate_limit": 2, "order_rate_window_s": 3600, "daily_trade_limit": 2}

    def test_a_stop_of_a_position(self, market: Market) -> None:
        user = market.user(risk=self.BOUND)
        market.trade(user, stop_loss="1.0900")
        with Ticker.opened(market) as ticker:
            ticker.tick("EURUSD", "1.0900", "1.0902")
        (closing,) = [row for row in market.rows("orders", user) if row["reduce_only"]]
        assert closing["status"] == "filled"

        assert [told(market.trade(user, quantity=lots)) for lots in ("0.2", "0.3")] == ["filled", DENIED]

    def test_a_close_of_ones_own_does(self, market: Market) -> None:
        for bound in ("order_rate_limit", "daily_trade_limit"):
            user = market.user(risk=UNBOUND | {bound: 2, "order_rate_window_s": 3600})
            market.close_out(user, market.trade(user)["position_id"])

            assert market.trade(user)["details"]["limit"] == bound


class TestOrdersAtRest:
    @pytest.mark.parametrize("kind", ["oto", "bracket"])
    def test_those_that_a_market_order_brings_count(self, market: Market, kind: str) -> None:
        user = market.user(risk=UNBOUND | {"max_working_orders": 1})
        entry = leg(order_type="market", limit_price=None)
        request = bracket_request(user, entry) if kind == "bracket" else linked_request(user, kind, entry, leg(), leg())

        denied = place_linked(market, request)

        assert (denied["details"]["limit"], denied["details"]["value"]) == ("max_working_orders", "2")
        assert [row["status"] for row in market.rows("orders", user)] == ["denied"]

    @pytest.mark.parametrize("time_in_force", ["ioc", "fok"])
    def test_what_takes_what_there_is_at_once_is_none(self, market: Market, time_in_force: str) -> None:
        user = market.user(risk=UNBOUND | {"max_working_orders": 0})

        assert market.place(user, limit_price="1.1002", time_in_force=time_in_force)["outcome"] == "filled"


class TestWindows:
    """Windows of time, judged at moments that a test chooses."""

    def judged(self, market: Market, user: User, after_ms: int, **fields: object) -> str | None:
        """Which limit a new order breaks, `after_ms` after the account's last one."""
        plain = {"side": "buy", "order_type": "limit", "limit_price": "1.0500", "quantity": "1"}
        request = plain | {"time_in_force": "gtc"} | fields
        (found,) = market.execute(
            """
            SELECT limit_refusal(
                a, t, new_limit_case(%(request)s, NULL, (%(request)s ->> 'quantity')::numeric, 1, 1.05),
                last.at + %(after)s
            ) #>> '{details,limit}'
            FROM accounts AS a
            INNER JOIN order_terms AS t ON t.user_id = a.user_id AND t.account_id = a.id AND t.symbol = 'EURUSD'
            CROSS JOIN LATERAL (SELECT max(created_at) AS at FROM orders AS o WHERE o.user_id = a.user_id) AS last
            WHERE a.user_id = %(user)s
            """,
            {"request": Jsonb(request), "after": timedelta(milliseconds=after_ms), "user": user.user_id},
        )
        return found[0]

    def test_the_same_order_again_within_its_window(self, market: Market) -> None:
        user = market.user(risk=UNBOUND | {"duplicate_window_ms": 500})
        market.place(user)

        assert self.judged(market, user, 499) == "duplicate_window_ms"
        assert self.judged(market, user, 500) is None
        assert self.judged(market, user, 501) is None
        others: list[Fields] = [
            {"side": "sell"},
            {"quantity": "1.01"},
            {"limit_price": "1.0501"},
            {"order_type": "market_if_touched", "limit_price": None, "stop_price": "1.0500"},
        ]
        assert {self.judged(market, user, 0, **other) for other in others} == {None}

    @pytest.mark.parametrize(
        ("asked", "others"),
        [
            (
                {},
                [
                    {"display_quantity": "0.1"},
                    {"stop_loss": "1.0400"},
                    {"take_profit": "1.0700"},
                    {"time_in_force": "day"},
                    {"conditions": [CONDITION]},
                ],
            ),
            ({"display_quantity": "0.1", "display_variance": "0.5"}, [{"display_variance": "0.4"}]),
            ({"conditions": [CONDITION]}, [{"conditions": [CONDITION | {"level": "1.30"}]}, {"conditions": None}]),
            (TRAILING, [{"trail_amount": "0.0101"}, {"limit_offset": "0.0001"}, {"order_type": "trailing_stop"}]),
        ],
        ids=["limit", "iceberg", "conditional", "trailing"],
    )
    def test_an_order_that_asks_for_anything_else_is_another(
        self, market: Market, asked: Fields, others: list[Fields]
    ) -> None:
        user = market.user(risk=UNBOUND | {"duplicate_window_ms": 3_600_000})
        assert market.place(user, **asked)["outcome"] == "new"

        assert self.judged(market, user, 0, **asked) == "duplicate_window_ms"
        assert {self.judged(market, user, 0, **(asked | other)) for other in others} == {None}

    def test_so_is_one_whose_bracket_has_another_exit(self, market: Market) -> None:
        user = market.user(risk=UNBOUND | {"duplicate_window_ms": 3_600_000})
        exits: tuple[Fields, ...] = (
            {},
            {"take_profit": {"limit_price": "1.1200"}},
            {"stop_loss": {"stop_price": "1.0800"}},
            {},
        )

        outcomes = [place_linked(market, bracket_request(user, leg(), **each)) for each in exits]

        assert [outcome["outcome"] for outcome in outcomes] == ["placed", "placed", "placed", "denied"]

    def test_a_close_is_no_order_that_another_one_repeats(self, market: Market) -> None:
        user = market.user(risk=UNBOUND | {"duplicate_window_ms": 3_600_000})
        position_id = market.trade(user)["position_id"]
        market.close_out(user, position_id)

        assert market.trade(user, side="sell", time_in_force="ioc")["outcome"] == "filled"

    def test_orders_in_a_window(self, market: Market) -> None:
        user = market.user(risk=UNBOUND | {"order_rate_limit": 1, "order_rate_window_s": 10})
        market.place(user)

        assert self.judged(market, user, 9_999) == "order_rate_limit"
        assert self.judged(market, user, 10_000) is None

    def test_a_denied_order_counts_for_neither(self, market: Market) -> None:
        user = market.user(
            risk=UNBOUND | {"order_rate_limit": 1, "duplicate_window_ms": 3_600_000, "max_order_quantity": 1}
        )
        denied = market.place(user, quantity="2")
        assert denied["details"]["limit"] == "max_order_quantity"
        bind(market, user, {"max_order_quantity": 2})

        assert market.place(user, quantity="2")["outcome"] == "new"

    def test_a_repeated_key_is_a_replay_and_no_duplicate(self, market: Market) -> None:
        user = market.user(risk=UNBOUND | {"duplicate_window_ms": 3_600_000})
        request = resting_request(user)

        (first, again) = (told_at_once(market, [("place_order", request)])[0] for _ in range(2))
        other = market.place(user)

        assert (first, again) == ("new", "replayed")
        assert other["details"]["limit"] == "duplicate_window_ms"

    def test_a_replacement_is_no_duplicate_of_what_it_replaces(self, market: Market) -> None:
        user = market.user(risk=UNBOUND | {"duplicate_window_ms": 3_600_000})
        placed = market.place(user)

        changed = market.replace(user, placed["order_id"], take_profit="1.2")
        assert changed["outcome"] == "new"
        # nor of one that another has replaced
        assert market.replace(user, changed["order_id"], take_profit=None)["outcome"] == "new"

    def test_a_group_counts_with_all_its_orders(self, market: Market) -> None:
        user = market.user(risk=UNBOUND | {"order_rate_limit": 2, "order_rate_window_s": 3600})

        market.place(user, quantity="3")
        denied = group(market, user, {})

        assert (denied["details"]["limit"], denied["details"]["value"]) == ("order_rate_limit", "3")


RACED: tuple[tuple[Fields, Fields, int], ...] = (
    ({"max_position_size": 7}, {}, 7),
    ({"max_positions": 7}, {}, 7),
    ({"max_working_orders": 7}, {}, 7),
    ({"max_exposure": 735_000}, {}, 6),
    ({"order_rate_limit": 7, "order_rate_window_s": 3600}, {}, 7),
    ({"daily_trade_limit": 7}, {}, 7),
    ({"duplicate_window_ms": 3_600_000}, {}, 1),
    ({"max_daily_loss": "130"}, {}, 5),
    ({"max_drawdown_percent": "0.013"}, {}, 5),
)


@pytest.mark.parametrize(("risk", "order", "passing"), RACED, ids=[next(iter(risk)) for risk, _, _ in RACED])
def test_twenty_at_once_pass_as_far_as_the_limit_goes(
    market: Market, risk: Fields, order: Fields, passing: int
) -> None:
    user = market.user(balance=1_000_000, risk=UNBOUND)
    bind(market, user, risk)
    at_market = "max_working_orders" not in risk
    fields: Fields = {"order_type": "market", "limit_price": None} if at_market else {}

    requests = [resting_request(user, **(fields | order)) for _ in range(CALLERS)]
    procedure = "execute_order_atomic" if at_market else "place_order"
    outcomes = told_at_once(market, [(procedure, request) for request in requests])

    assert outcomes.count("filled" if at_market else "new") == passing
    assert outcomes.count(DENIED) == CALLERS - passing


# Limits of one order alone are the same for each of 20: all pass or none.
@pytest.mark.parametrize("limit", [limit for limit in LIMITS if limit.field], ids=lambda limit: limit.name)
def test_twenty_at_once_are_judged_alike(market: Market, limit: Limit) -> None:
    user, order = given_user(market, limit, 2)

    outcomes = told_at_once(market, [("place_order", resting_request(user, **order)) for _ in range(CALLERS)])

    assert outcomes == [DENIED] * CALLERS


def test_what_rests_is_not_judged_anew_by_what_binds_its_sending(market: Market) -> None:
    # given an order that rests since before these limits were set
    user = market.user(risk=UNBOUND)
    market.place(user, limit_price="1.0950")
    bind(market, user, {"order_rate_limit": 0, "duplicate_window_ms": 3_600_000, "price_collar_percent": 0})

    with Ticker.opened(market) as ticker:
        ticker.tick("EURUSD", "1.0948", "1.0950")

    assert [order["status"] for order in market.rows("orders", user)] == ["filled"]


def test_each_window_reaches_back_as_far_as_it_is_long(market: Market) -> None:
    user = market.user(risk={"order_rate_limit": 2, "order_rate_window_s": 3600, "duplicate_window_ms": 1})
    for limit_price in ("1.0500", "1.0501"):
        assert market.place(user, limit_price=limit_price)["outcome"] == "new"

    assert market.place(user, limit_price="1.0502")["details"]["limit"] == "order_rate_limit"


def test_what_adds_to_a_position_opens_none(market: Market) -> None:
    user = market.user(position_mode="netting", risk={"max_positions": 1})
    market.trade(user)

    assert market.trade(user)["outcome"] == "filled"
    assert market.trade(user, symbol="GBPUSD")["details"]["limit"] == "max_positions"


@pytest.mark.parametrize(("stop_price", "limit_price"), [("1.1100", "1.2200"), ("1.2200", "1.1100")])
def test_the_collar_holds_both_prices_of_an_order(market: Market, stop_price: str, limit_price: str) -> None:
    """An ask of 1.1002: the one is 0.9 percent away, the other 10.9."""
    user = market.user(risk={"price_collar_percent": 10})

    denied = market.place(user, order_type="stop_limit", stop_price=stop_price, limit_price=limit_price)

    assert (denied["outcome"], denied["details"]["limit"]) == ("denied", "price_collar_percent")


class TestTiers:
    def test_an_account_has_its_tiers_limits_its_own_come_first_and_some_are_lifted(self, market: Market) -> None:
        as_tier = market.user(tier="bronze", risk={"price_collar_percent": None})
        own = market.user(tier="bronze", risk={"max_order_quantity": 3})
        lifted = market.user(tier="bronze", risk={"max_order_quantity": None})
        with market.owner.transaction(force_rollback=True):
            market.execute("UPDATE risk_defaults SET max_order_quantity = 2 WHERE tier = 'bronze'")
            found = {
                user: [self.place(market, user, quantity) for quantity in ("2", "3", "4")]
                for user in (as_tier, own, lifted)
            }

        assert found[as_tier] == [TAKEN, DENIED, DENIED]
        assert found[own] == [TAKEN, TAKEN, DENIED]
        assert found[lifted] == [TAKEN, TAKEN, TAKEN]

    def test_restricted_symbols_of_the_tier_and_of_the_account_both_bind(self, market: Market) -> None:
        user = market.user(tier="bronze", risk={"restricted_symbols": ["AAPL"]})
        with market.owner.transaction(force_rollback=True):
            market.execute("UPDATE risk_defaults SET restricted_symbols = '{EURUSD}' WHERE tier = 'bronze'")
            outcomes = [
                self.place(market, user, "1"),
                self.place(market, user, "1", symbol="AAPL", limit_price="149"),
                self.place(market, user, "1", symbol="GBPUSD", limit_price="1.2"),
            ]

        assert outcomes == [DENIED, DENIED, TAKEN]

    def place(self, market: Market, user: User, quantity: str, **fields: object) -> str:
        return told(send(market.owner, resting_request(user, quantity=quantity, **fields), "place_order"))


class TestLeverageProfile:
    @pytest.mark.parametrize(
        ("symbol", "bid", "ask", "quantity", "margin"),
        [
            # ESMA's retail caps: major and minor forex, gold and major indices, commodities, shares, crypto
            ("EURUSD", "1.2", "1.2", "1", "4000.00"),  # 120,000 / 30
            ("AUDUSD", "0.6", "0.6", "1", "3000.00"),  # 60,000 / 20
            ("XAUUSD", "2000", "2000", "1", "10000.00"),  # 200,000 / 20
            ("US500", "5000", "5000", "1", "250.00"),  # 5,000 / 20
            ("US2000", "2000", "2000", "1", "200.00"),  # 2,000 / 10
            ("WTIUSD", "70", "70", "1", "7000.00"),  # 70,000 / 10
            ("AAPL", "150", "150", "100", "3000.00"),  # 15,000 / 5
            ("BTCUSD", "60000", "60000", "1", "30000.00"),  # 60,000 / 2
        ],
    )
    def test_esma_caps_the_leverage_of_each_class(
        self, market: Market, symbol: str, bid: str, ask: str, quantity: str, margin: str
    ) -> None:
        market.execute("UPDATE instruments SET slippage_base = 0, slippage_min = 0 WHERE symbol = %s", (symbol,))
        market.quote(symbol, bid, ask)
        user = market.user(leverage=500, risk=UNBOUND | {"leverage_profile": "esma_retail"})

        filled = market.trade(user, symbol=symbol, quantity=quantity)

        assert Decimal(filled["margin"]) == Decimal(margin)

    def test_a_lower_leverage_of_the_account_stays(self, market: Market) -> None:
        user = market.user(leverage=10, risk=UNBOUND | {"leverage_profile": "esma_retail"})

        assert market.place(user)["outcome"] == "new"
        (row,) = market.execute(
            "SELECT order_margin(a, t, 1, 1.2, now()) FROM accounts a JOIN order_terms t ON t.user_id = a.user_id "
            "WHERE a.user_id = %s AND t.symbol = 'EURUSD'",
            (user.user_id,),
        )
        assert row[0] == 12_000

    def test_each_profile_has_a_cap_for_each_class(self, market: Market) -> None:
        missing = market.execute(
            "SELECT p.profile, i.asset_class FROM (SELECT DISTINCT profile FROM leverage_caps) p "
            "CROSS JOIN (SELECT DISTINCT asset_class FROM instruments) i "
            "EXCEPT SELECT profile, asset_class FROM leverage_caps WHERE symbol = ''"
        )
        wrong = market.execute(
            "SELECT c.symbol FROM leverage_caps c LEFT JOIN instruments i USING (symbol) "
            "WHERE c.symbol <> '' AND c.asset_class IS DISTINCT FROM i.asset_class"
        )

        assert (missing, wrong) == ([], [])


class TestStopLossRequired:
    def test_the_exit_of_a_bracket_is_one(self, market: Market) -> None:
        user = market.user(risk=UNBOUND | {"stop_loss_required": True, "stop_loss_max_percent": 5})
        entry = {
            "symbol": "EURUSD",
            "side": "buy",
            "quantity": "1",
            "order_type": "limit",
            "limit_price": "1.0500",
            "time_in_force": "gtc",
        }
        group = {"kind": "bracket", "orders": [entry], "take_profit": {"limit_price": "1.2"}}

        def bracket(stop_price: str) -> Outcome:
            request = keyed_request(
                user, **group, stop_loss={"stop_price": stop_price}, account_id=str(user.account_id)
            )
            return send(market.trader, request, "place_linked_orders")

        too_far, placed = bracket("0.9"), bracket("1.0")

        assert too_far["details"]["limit"] == "stop_loss_max_percent"
        assert placed["outcome"] == "placed"
        # and it still counts when the entry's price comes
        with Ticker.opened(market) as ticker:
            ticker.tick("EURUSD", "1.0498", "1.0500")
        assert market.rows("orders", user)[1]["status"] == "filled"

    def test_that_of_the_position_which_an_order_adds_to_is_one(self, market: Market) -> None:
        user = market.user(position_mode="netting", risk=UNBOUND | {"stop_loss_required": True})

        first = market.trade(user, stop_loss="1.0")
        second = market.trade(user)
        turned = market.trade(user, side="sell", quantity="3")

        assert (first["outcome"], second["outcome"]) == ("filled", "filled")
        assert turned["details"]["limit"] == "stop_loss_required"

    def test_an_exit_that_was_canceled_is_none(self, market: Market) -> None:
        # given a bracket whose owner takes its stop loss away
        user = market.user(risk=UNBOUND | {"stop_loss_required": True})
        entry, stop_loss, _ = placed(market, bracket_request(user, leg()))
        assert market.cancel(user, stop_loss)["outcome"] == "canceled"

        # when the entry's price comes
        with Ticker.opened(market) as ticker:
            ticker.tick("EURUSD", "1.0948", "1.0950")

        # then it opens nothing
        (row,) = [row for row in market.rows("orders", user) if row["id"] == entry]
        assert (row["status"], row["failure_code"], row["filled_quantity"]) == ("rejected", DENIED, 0)

    def test_an_exit_whose_position_is_closed_may_go(self, market: Market) -> None:
        # given a bracket that was entered in part, as deep as the market is
        user = market.user(balance="1000000", risk=UNBOUND | {"stop_loss_required": True})
        _, stop_loss, _ = placed(market, bracket_request(user, leg(quantity="50")))
        with Ticker.opened(market) as ticker:
            ticker.tick("EURUSD", "1.0948", "1.0950")
        with raises_sqlstate("TR015"):
            market.cancel(user, stop_loss)

        # when that part is closed
        market.close_out(user, market.rows("positions", user)[0]["id"])

        # then what waits for the rest of the entry needs not stay
        assert market.cancel(user, stop_loss)["outcome"] == "canceled"

    @pytest.mark.parametrize(
        ("risk", "outcome"), [({"stop_loss_max_percent": 5}, "filled"), ({"stop_loss_min_percent": 1}, "denied")]
    )
    def test_one_that_trails_is_where_it_has_moved_to(self, market: Market, risk: Fields, outcome: str) -> None:
        # given a position whose stop trails at 100 pips, and a market that rose from 1.10 to 1.20
        user = market.user(position_mode="netting", risk=UNBOUND | risk)
        position_id = market.trade(user, stop_loss="1.0700")["position_id"]
        change = keyed_request(user, position_id=position_id, levels={"trailing_distance": "0.0100"})
        assert send(market.trader, change, "change_position")["outcome"] == "changed"
        with Ticker.opened(market) as ticker:
            ticker.tick("EURUSD", "1.2000", "1.2002")

        # when more is bought: the stop stands at 1.1900, 0.9 percent below
        assert market.trade(user)["outcome"] == outcome

    def test_no_caller_can_say_that_there_is_one(self, market: Market) -> None:
        user = market.user(risk=UNBOUND | {"stop_loss_required": True})

        outcomes = [market.trade(user, exit_stop_price="1.0"), market.place(user, exit_stop_price="1.0")]

        assert [told(outcome) for outcome in outcomes] == [DENIED] * 2


class TestStopLossKept:
    """What an order has to bring, its position may not lose afterwards."""

    @pytest.mark.parametrize(
        ("side", "stop_loss", "further", "closer"),
        [("buy", "1.0900", "1.0400", "1.0950"), ("sell", "1.1100", "1.1600", "1.1050")],
    )
    def test_it_moves_closer_and_not_too_far_away_and_is_not_removed(
        self, market: Market, side: str, stop_loss: str, further: str, closer: str
    ) -> None:
        user = market.user(risk=UNBOUND | {"stop_loss_required": True, "stop_loss_max_percent": 5})
        position_id = market.trade(user, side=side, stop_loss=stop_loss)["position_id"]

        def change(level: str | None) -> Outcome:
            request = keyed_request(user, position_id=position_id, levels={"stop_loss": level})
            return send(market.trader, request, "change_position")

        for level, limit in ((None, "stop_loss_required"), (further, "stop_loss_max_percent")):
            with raises_sqlstate("TR015") as caught:
                change(level)
            assert details_of(caught.value)["limit"] == limit
        assert change(closer)["outcome"] == "changed"

    def test_so_is_the_exit_of_a_bracket_until_the_position_has_another(self, market: Market) -> None:
        # given a bracket whose entry was filled, and an order of another kind
        user = market.user(risk=UNBOUND | {"stop_loss_required": True})
        entry = leg(order_type="market", limit_price=None)
        _, stop_loss, take_profit = placed(market, bracket_request(user, entry))
        resting = market.place(user, stop_loss="1.0")["order_id"]

        # when its owner cancels the stop loss, and then all there is
        with raises_sqlstate("TR015") as caught:
            market.cancel(user, stop_loss)
        swept = market.cancel_all(user)

        # then that stays
        assert details_of(caught.value)["limit"] == "stop_loss_required"
        assert {order["order_id"] for order in swept["canceled"]} == {str(take_profit), resting}
        assert swept["left"] == 0
        # and may go once the position has a stop of its own
        (position,) = market.rows("positions", user)
        change = keyed_request(user, position_id=str(position["id"]), levels={"stop_loss": "1.0900"})
        send(market.trader, change, "change_position")
        assert market.cancel(user, stop_loss)["outcome"] == "canceled"

    def test_without_these_limits_it_may_go(self, market: Market) -> None:
        user = market.user(risk=UNBOUND)
        position_id = market.trade(user, stop_loss="1.0")["position_id"]
        request = keyed_request(user, position_id=position_id, levels={"stop_loss": None})

        assert send(market.trader, request, "change_position")["outcome"] == "changed"


def test_what_a_database_without_limits_reads(market: Market) -> None:
    """A limit that is not set reads nothing."""
    user = market.user(risk=UNBOUND)
    market.trade(user)
    before = scans(market.owner)
    market.execute(
        "SELECT limit_refusal(a, t, new_limit_case(%s, NULL, 1, 1, 1.05), now()) FROM accounts a "
        "JOIN order_terms t ON t.user_id = a.user_id AND t.symbol = 'EURUSD' WHERE a.user_id = %s",
        (Jsonb({"side": "buy"}), user.user_id),
    )

    assert scans(market.owner) == before


def scans(connection: psycopg.Connection[Any]) -> list[Any]:
    """How often the tables that limits read have been scanned by this connection's transaction and before."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    return connection.execute(
        "SELECT relname, seq_scan, idx_scan FROM pg_stat_user_tables "
        "WHERE relname IN ('orders', 'positions', 'account_days') ORDER BY 1"
    ).fetchall()
