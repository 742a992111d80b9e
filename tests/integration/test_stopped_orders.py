"""What becomes of orders that were there before trading was stopped, when their price comes: each kind, in each state.

Those who net are long two lots of EURUSD, bought at 1.1002; the price goes to 1.0900/1.0902 or to 1.1100/1.1102.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.kill_switch import Officer
from tests.kit.linked import bracket_request, leg, linked_request, placed
from tests.kit.orders import Market, keyed_request, send
from tests.kit.ticks import Ticker

type Fields = dict[str, object]

DOWN, UP = ("1.0900", "1.0902"), ("1.1100", "1.1102")
STOPPED = ("rejected", "TRADING_HALTED", 0)
ABOVE_110: Fields = {"symbol": "EURUSD", "watch": "bid", "direction": "at_or_above", "level": "1.1050"}


@dataclass(frozen=True)
class Kind:
    """Orders that are placed, the price that comes, and what the last of them then is: status, code, filled lots."""

    place: Callable[[Market, User, Ticker], UUID]
    price: tuple[str, str]
    ends: tuple[str, str | None, float]
    mode: str = "netting"


def one(**fields: object) -> Callable[[Market, User, Ticker], UUID]:
    def place(market: Market, user: User, _: Ticker) -> UUID:
        outcome = market.place(user, **fields)
        assert outcome["outcome"] == "new", outcome.answer
        return UUID(outcome["order_id"])

    return place


def begun_iceberg(**fields: object) -> Callable[[Market, User, Ticker], UUID]:
    """An order of which a part was filled before."""

    def place(market: Market, user: User, _: Ticker) -> UUID:
        outcome = market.place(user, quantity="1", display_quantity="0.1", **fields)
        assert outcome["outcome"] == "partially_filled", outcome.answer
        return UUID(outcome["order_id"])

    return place


def group(kind: str, *legs: Fields, last: int = -1) -> Callable[[Market, User, Ticker], UUID]:
    def place(market: Market, user: User, _: Ticker) -> UUID:
        request = (
            bracket_request(user, dict(legs[0]))
            if kind == "bracket"
            else linked_request(user, kind, *(dict(each) for each in legs))
        )
        return placed(market, request)[last]

    return place


AT_MARKET = leg(order_type="market", limit_price=None, quantity="1")
KINDS: dict[str, Kind] = {
    "limit that adds": Kind(one(limit_price="1.0950"), DOWN, STOPPED),
    "limit that reduces": Kind(one(side="sell", limit_price="1.1050"), UP, ("filled", None, 1)),
    "limit that turns": Kind(one(side="sell", limit_price="1.1050", quantity="3"), UP, STOPPED),
    "limit that may only reduce": Kind(
        one(side="sell", limit_price="1.1050", quantity="3", reduce_only=True), UP, ("canceled", None, 2)
    ),
    "stop that adds": Kind(one(order_type="stop", limit_price=None, stop_price="1.1050"), UP, STOPPED),
    "stop that reduces": Kind(
        one(side="sell", order_type="stop", limit_price=None, stop_price="1.0950"), DOWN, ("filled", None, 1)
    ),
    "stop that turns": Kind(
        one(side="sell", order_type="stop", limit_price=None, stop_price="1.0950", quantity="3"), DOWN, STOPPED
    ),
    "stop limit that adds": Kind(one(order_type="stop_limit", stop_price="1.1050", limit_price="1.1200"), UP, STOPPED),
    "trailing stop that reduces": Kind(
        one(side="sell", order_type="trailing_stop", limit_price=None, trail_amount="0.0050"), DOWN, ("filled", None, 1)
    ),
    "conditional that adds": Kind(one(order_type="market", limit_price=None, conditions=[ABOVE_110]), UP, STOPPED),
    "conditional that reduces": Kind(
        one(order_type="market", limit_price=None, side="sell", conditions=[ABOVE_110]), UP, ("filled", None, 1)
    ),
    "the next part of an iceberg that adds": Kind(
        begun_iceberg(limit_price="1.1002"), DOWN, ("canceled", "TRADING_HALTED", 0.1)
    ),
    "the next part of an iceberg that reduces": Kind(
        begun_iceberg(side="sell", limit_price="1.1000"), UP, ("partially_filled", None, 0.2)
    ),
    "one of two that adds": Kind(group("oco", leg(limit_price="1.0800"), leg(limit_price="1.0950")), DOWN, STOPPED),
    "one of two that reduces": Kind(
        group("oco", leg(side="sell", limit_price="1.2000"), leg(side="sell", limit_price="1.1050")),
        UP,
        ("filled", None, 1),
    ),
    "a child that adds": Kind(group("oto", AT_MARKET, leg(limit_price="1.0950")), DOWN, STOPPED),
    "a child whose parent adds": Kind(
        group("oto", leg(limit_price="1.0950"), leg(limit_price="1.0850")), DOWN, ("canceled", None, 0)
    ),
    "the stop loss of a bracket": Kind(
        group("bracket", AT_MARKET, last=1), ("1.0890", "1.0892"), ("filled", None, 1), mode="hedging"
    ),
    "the take profit of a bracket": Kind(group("bracket", AT_MARKET), UP, ("filled", None, 1), mode="hedging"),
    "an order of a hedging account": Kind(one(side="sell", limit_price="1.1050"), UP, STOPPED, mode="hedging"),
}


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    return shared


@pytest.mark.parametrize("state", ["reducing", "halted"])
def test_what_adds_is_refused_at_its_price_and_what_reduces_is_filled(market: Market, state: str) -> None:
    ends: dict[str, tuple[str, str | None, float]] = {}
    with Ticker.opened(market) as ticker, Officer.opened(market) as officer:
        for name, kind in KINDS.items():
            # given an order, and trading that is stopped then
            market.quote("EURUSD", "1.1000", "1.1002")
            user = market.user(position_mode=kind.mode)
            if kind.mode == "netting":
                market.trade(user, quantity="2")
            order_id = kind.place(market, user, ticker)
            officer.set_state("symbol", state, symbol="EURUSD")

            # when its price comes
            ticker.tick("EURUSD", *kind.price)

            officer.set_state("symbol", "active", symbol="EURUSD")
            (row,) = [row for row in market.rows("orders", user) if row["id"] == order_id]
            ends[name] = (row["status"], row["failure_code"], float(row["filled_quantity"]))

    # then
    assert ends == {name: kind.ends for name, kind in KINDS.items()}


@pytest.mark.parametrize("state", ["reducing", "halted"])
def test_who_holds_may_leave_protect_and_cancel(market: Market, state: str) -> None:
    with Ticker.opened(market) as ticker, Officer.opened(market) as officer:
        # given a hedging trader with a long, a short and an order at rest, and one with a stop
        user, protected = market.user(), market.user()
        bought, sold = (market.trade(user, side=side)["position_id"] for side in ("buy", "sell"))
        resting = market.place(user)["order_id"]
        market.trade(protected, stop_loss="1.0950")
        officer.set_state("symbol", state, symbol="EURUSD")

        # when
        def change(procedure: str, **fields: object) -> str:
            return send(market.trader, keyed_request(user, **fields), procedure)["outcome"]

        outcomes = [
            change("change_position", position_id=bought, levels={"stop_loss": "1.0500"}),
            change("close_position", position_id=bought, quantity="0.5"),
            change("close_by", position_id=bought, opposite_position_id=sold),
            change("cancel_order", order_id=resting),
        ]
        ticker.tick("EURUSD", *DOWN)
        officer.set_state("symbol", "active", symbol="EURUSD")

    # then
    assert outcomes == ["changed", "filled", "filled", "canceled"]
    assert market.rows("positions", protected)[0]["status"] == "closed"


@pytest.mark.parametrize(("state", "reduces"), [("reducing", "new"), ("halted", "denied")])
def test_a_replacement_is_a_new_order(market: Market, state: str, reduces: str) -> None:
    with Officer.opened(market) as officer:
        user = market.user(position_mode="netting")
        market.trade(user, quantity="2")
        adding = market.place(user)["order_id"]
        reducing = market.place(user, side="sell", limit_price="1.2000")["order_id"]
        officer.set_state("symbol", state, symbol="EURUSD")

        outcomes = [
            market.replace(user, adding, quantity="0.5")["outcome"],
            market.replace(user, reducing, quantity="0.5")["outcome"],
        ]
        officer.set_state("symbol", "active", symbol="EURUSD")

    assert outcomes == ["denied", reduces]
