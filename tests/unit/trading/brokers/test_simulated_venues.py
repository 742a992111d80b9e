"""The paper and the mock venue: one decision an order, however often and by whomever it is asked for."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.instruments import AAPL, EURUSD, price
from trading.brokers.book import Record, VenueMarket
from trading.brokers.mock import MockBroker, MockTerms
from trading.brokers.paper import PaperBroker
from trading.brokers.protocol import (
    Broker,
    UnknownOrderError,
    VenueOrder,
    VenuePosition,
    VenueRefusedError,
    VenueReport,
    VenueTimeoutError,
    VenueUnavailableError,
)
from trading.pricing import fill_price

T0 = datetime(2026, 3, 2, 10, tzinfo=UTC)
MARKET = VenueMarket(AAPL, price("149.98", "150.00", "0.012"), False)


class MemoryBook:
    """A venue's book in this process; it outlives the brokers that share it."""

    def __init__(self) -> None:
        self.kept: dict[str, Record] = {}

    def keep(self, name: str, record: Record) -> tuple[Record, bool]:
        created = name not in self.kept
        return self.kept.setdefault(name, record), created

    def find(self, name: str) -> Record | None:
        return self.kept.get(name)

    def records(self) -> Iterator[Record]:
        return iter(self.kept.values())


class World:
    """A book, a market, and time that passes when a venue sleeps."""

    def __init__(self) -> None:
        self.book = MemoryBook()
        self.market: VenueMarket | None = MARKET
        self.now = T0

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def paper(self) -> PaperBroker:
        return connected(PaperBroker("paper", self.book, lambda _: self.market, lambda: self.now))

    def mock(self, **terms: Any) -> MockBroker:
        made = MockBroker("mock", self.book, lambda _: self.market, lambda: self.now, MockTerms(**terms), self.sleep)
        return connected(made)


def connected[B: Broker](broker: B) -> B:
    broker.connect()
    return broker


def order(name: str = "order-1", **fields: Any) -> VenueOrder:
    given: dict[str, Any] = {"symbol": "AAPL", "side": "buy", "quantity": Decimal(10), "worst_price": None} | fields
    return VenueOrder(client_order_id=name, order_type="market", time_in_force="gtc", **given)


@pytest.fixture
def world() -> World:
    return World()


PROVIDERS: list[Callable[[World], Broker]] = [World.paper, World.mock]


@pytest.mark.parametrize("provider", PROVIDERS)
class TestEveryVenue:
    def test_a_client_id_is_filled_once(self, world: World, provider: Callable[[World], Broker]) -> None:
        # given an order that was filled
        first = provider(world).submit(order())
        # when it is sent again, to a copy with nothing but the book, at another price
        world.market = VenueMarket(AAPL, price("99.98", "100.00"), False)
        again = provider(world).submit(order())
        # then it is the same order, and the position is that of one
        assert again == first == provider(world).status("order-1")
        assert first.state == "filled"
        assert provider(world).positions() == [VenuePosition("AAPL", Decimal(10))]

    def test_an_order_that_never_came_is_unknown(self, world: World, provider: Callable[[World], Broker]) -> None:
        for ask in (provider(world).status, provider(world).cancel):
            with pytest.raises(UnknownOrderError):
                ask("order-1")

    def test_nothing_goes_out_without_a_connection(self, world: World, provider: Callable[[World], Broker]) -> None:
        broker = provider(world)
        broker.disconnect()
        assert not broker.is_connected()
        calls: list[Callable[[], object]] = [
            broker.ping,
            broker.account,
            broker.positions,
            lambda: broker.submit(order()),
            lambda: broker.status("order-1"),
            lambda: broker.cancel("order-1"),
            lambda: broker.subscribe(print),
        ]
        for call in calls:
            with pytest.raises(VenueUnavailableError) as caught:
                call()
            assert not caught.value.sent
        assert world.book.kept == {}

    def test_listeners_hear_of_an_order_once(self, world: World, provider: Callable[[World], Broker]) -> None:
        heard: list[VenueReport] = []
        broker = provider(world)
        broker.subscribe(heard.append)
        report = broker.submit(order())
        broker.submit(order())
        assert heard == [report]

    def test_who_left_hears_no_more(self, world: World, provider: Callable[[World], Broker]) -> None:
        heard: list[VenueReport] = []
        broker = provider(world)
        broker.subscribe(heard.append)
        broker.disconnect()
        broker.connect()
        broker.submit(order())
        assert heard == []

    def test_trades_move_cash_and_positions(self, world: World, provider: Callable[[World], Broker]) -> None:
        bought = provider(world).submit(order("1")).fills[0]
        sold = provider(world).submit(order("2", side="sell", quantity=Decimal(4))).fills[0]
        assert provider(world).positions() == [VenuePosition("AAPL", Decimal(6))]
        assert provider(world).account().cash == {"USD": 4 * sold.price - 10 * bought.price}

    def test_cash_moves_by_the_contract(self, world: World, provider: Callable[[World], Broker]) -> None:
        world.market = VenueMarket(EURUSD, price("1.1000", "1.1002"), False)
        (fill,) = provider(world).submit(order(symbol="EURUSD", quantity=Decimal(2))).fills
        assert provider(world).account().cash == {"USD": -2 * 100_000 * fill.price}

    def test_a_canceled_order_that_is_filled_stays_filled(
        self, world: World, provider: Callable[[World], Broker]
    ) -> None:
        provider(world).submit(order())
        assert provider(world).cancel("order-1").state == "filled"


class TestPaper:
    @given(name=st.text("abcdef0123456789", min_size=1, max_size=36), side=st.sampled_from(["buy", "sell"]))
    def test_it_fills_by_the_formulas_with_the_client_id_as_seed(self, name: str, side: Any) -> None:
        found = fill_price(AAPL, MARKET.price, side, Decimal(10), seed=f"paper:{name}", after_hours=False)
        (fill,) = World().paper().submit(order(name, side=side)).fills
        assert (fill.price, fill.quantity) == (found.price, 10)

    def test_a_price_worse_than_wanted_is_refused_for_good(self, world: World) -> None:
        for _ in range(2):
            with pytest.raises(VenueRefusedError, match="150"):
                world.paper().submit(order(worst_price=Decimal("149.99")))
            world.market = VenueMarket(AAPL, price("99.98", "100.00"), False)
        assert world.paper().status("order-1").state == "rejected"
        assert world.paper().positions() == []

    def test_a_price_that_is_just_wanted_is_taken(self, world: World) -> None:
        bought = world.paper().submit(order("1")).fills[0].price
        sold = world.paper().submit(order("2", side="sell")).fills[0].price
        assert world.paper().submit(order("3", worst_price=bought)).state == "filled"
        assert world.paper().submit(order("4", side="sell", worst_price=sold)).state == "filled"
        with pytest.raises(VenueRefusedError):
            world.paper().submit(order("5", side="sell", worst_price=sold + Decimal("0.01")))

    def test_without_a_fresh_price_nothing_is_decided(self, world: World) -> None:
        world.market = None
        with pytest.raises(VenueUnavailableError) as caught:
            world.paper().submit(order())
        assert (caught.value.sent, world.book.kept) == (False, {})

    def test_what_was_decided_is_told_without_a_price_too(self, world: World) -> None:
        first = world.paper().submit(order())
        world.market = None
        assert world.paper().submit(order()) == first


class TestMock:
    def test_each_call_takes_its_latency(self, world: World) -> None:
        broker = world.mock(latency_seconds=0.05)
        assert broker.ping() == 0.05
        broker.submit(order())
        broker.status("order-1")
        assert world.now - T0 == timedelta(seconds=0.15)

    @pytest.mark.parametrize(("side", "touched"), [("sell", "149.98"), ("buy", "150.00")])
    def test_it_fills_at_the_touched_side(self, world: World, side: str, touched: str) -> None:
        report = world.mock().submit(order(side=side))
        assert report.venue_order_id.startswith("MOCK-")
        assert [fill.price for fill in report.fills] == [Decimal(touched)]

    def test_it_fills_at_a_hundred_without_a_quote(self, world: World) -> None:
        world.market = None
        assert world.mock().submit(order()).fills[0].price == 100

    def test_it_refuses_its_share_of_orders_and_the_same_ones_again(self, world: World) -> None:
        def refused() -> set[int]:
            names: set[int] = set()
            for number in range(400):
                try:
                    world.mock(failure_rate=Decimal("0.05")).submit(order(f"order-{number}"))
                except VenueRefusedError:
                    names.add(number)
            return names

        first = refused()
        assert 8 <= len(first) <= 36
        assert refused() == first

    @pytest.mark.parametrize(("symbol", "found"), [("TEST_TIMEOUT", False), ("TEST_TIMEOUT_KEPT", True)])
    def test_it_is_silent_about_a_first_submission(self, world: World, symbol: str, found: bool) -> None:
        # when / then the time limit passes without an answer
        with pytest.raises(VenueTimeoutError):
            world.mock(timeout_seconds=5.0, latency_seconds=0).submit(order(symbol=symbol))
        assert world.now - T0 == timedelta(seconds=5)
        # and a look-up finds it, or not
        if found:
            assert world.mock().status("order-1").state == "filled"
        else:
            with pytest.raises(UnknownOrderError):
                world.mock().status("order-1")
        # and the second submission is answered
        assert world.mock().submit(order(symbol=symbol)).state == "filled"
        assert len(world.mock().positions()) == 1

    def test_a_part_is_followed_by_the_rest(self, world: World) -> None:
        broker = world.mock(partial_seconds=2.0, latency_seconds=0)
        assert [fill.quantity for fill in broker.submit(order(symbol="TEST_PARTIAL")).fills] == [5]
        world.sleep(2)
        report = broker.status("order-1")
        assert (report.state, [fill.quantity for fill in report.fills]) == ("filled", [5, 5])
        assert len({fill.trade_id for fill in report.fills}) == 2

    def test_a_cancel_keeps_the_rest_from_coming(self, world: World) -> None:
        heard: list[VenueReport] = []
        broker = world.mock(partial_seconds=2.0, latency_seconds=0)
        broker.submit(order(symbol="TEST_PARTIAL"))
        broker.subscribe(heard.append)
        assert broker.cancel("order-1").state == "canceled"
        world.sleep(10)
        report = broker.status("order-1")
        assert (report.state, [fill.quantity for fill in report.fills]) == ("canceled", [5])
        assert [told.state for told in heard] == ["canceled"]
