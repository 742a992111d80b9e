"""Recorded prices through a grid of orders, trailing stops and exits: each triggers when and where the oracle says."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import batched, product

import pytest

from tests.kit import MigratedTemplate
from tests.kit.exchange_model import Asked, ModelOrder, Quote
from tests.kit.live_exchange import LiveExchange
from tests.kit.orders import Market
from tests.kit.reference import recorded
from trading.orders import Side

SYMBOL = "USDJPY"
TICK = Decimal("0.001")
TYPES = ("limit", "stop", "market_if_touched", "stop_limit", "limit_if_touched")
# How far stops that trail stay behind, in ticks.
TRAILS = range(2, 338, 4)
SIDES: tuple[Side, ...] = ("buy", "sell")
BARS = 300

type Prices = list[tuple[Decimal, Decimal]]


def ticks() -> Prices:
    """An hour of quotes as they came."""
    return [(Decimal(row["bid"]), Decimal(row["ask"])) for row in recorded("usdjpy-ticks.csv")]


def bars() -> Prices:
    """Some hours of minutes, each as its opening, extremes and close; gaps lie between them."""
    bids, asks = recorded("usdjpy-m1-bid-2013.csv"), recorded("usdjpy-m1-ask-2013.csv")
    names = ("open", "high", "low", "close")
    pairs = [
        (Decimal(bid[name]), Decimal(ask[name]))
        for bid, ask in zip(bids[:BARS], asks[:BARS], strict=True)
        for name in names
    ]
    return [(bid, ask) for bid, ask in pairs if bid <= ask]


@pytest.fixture
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def live(market: Market) -> Iterator[LiveExchange]:
    with LiveExchange.opened(market) as live:
        yield live


def grid(prices: Prices, count: int) -> list[Decimal]:
    """So many levels on the tick, from a little below all prices to a little above them."""
    low, high = min(bid for bid, _ in prices), max(ask for _, ask in prices)
    step = (high - low) / (count - 3)
    return [((low + (place - 1) * step) / TICK).to_integral_value() * TICK for place in range(count)]


def rest(live: LiveExchange, levels: Sequence[Decimal]) -> list[ModelOrder]:
    """An order of every type and side at each level, its limit a few levels on; those that the engine takes."""
    account = live.account(balance=5_000_000)
    ahead = (levels[-1] - levels[0]) / 8 // TICK * TICK
    placed: list[ModelOrder | None] = []
    for level, order_type, side in product(levels, TYPES, SIDES):
        asked = Asked(SYMBOL, side, Decimal(1), order_type, stop_price=level)
        if order_type == "limit":
            asked = replace(asked, limit_price=level, stop_price=None)
        elif "limit" in order_type:
            asked = replace(asked, limit_price=level + ahead * (1 if side == "buy" else -1))
        placed.append(live.place(account, asked))
    return [order for order in placed if order]


def trail(live: LiveExchange, distances: Sequence[int]) -> list[ModelOrder]:
    """Stops of either side that trail by more and more, in price and in percent, at the market and at a limit."""
    account = live.account(balance=5_000_000)
    price = live.model.quotes[SYMBOL].bid
    placed: list[ModelOrder | None] = []
    for ticks, side in product(distances, SIDES):
        amount = Asked(SYMBOL, side, Decimal(1), "trailing_stop", trail_amount=ticks * TICK)
        percent = replace(amount, trail_amount=None, trail_percent=round(ticks * TICK * 100 / price, 6))
        limited = replace(percent, order_type="trailing_stop_limit", limit_offset=ticks % 5 * TICK)
        placed += [live.place(account, (amount, percent, limited)[ticks % 3])]
    return [order for order in placed if order]


def hold(live: LiveExchange, levels: Sequence[Decimal]) -> int:
    """A position each way with every exit that fits it, each other one without the one or the other; how many."""
    account = live.account(balance=5_000_000)
    middle = len(levels) // 2
    for below, above in zip(reversed(levels[:middle]), levels[middle:], strict=True):
        for side, loss, profit in zip(SIDES, (below, above), (above, below), strict=True):
            live.trade(account, Asked(SYMBOL, side, Decimal(1), stop_loss=loss, take_profit=profit))
            live.trade(account, Asked(SYMBOL, side, Decimal(1), stop_loss=loss))
            live.trade(account, Asked(SYMBOL, side, Decimal(1), take_profit=profit))
    return len(account.positions)


def first_touch(order: ModelOrder, quotes: Sequence[Quote]) -> Decimal | None:
    """Where a limit is filled, by one look along the recording."""
    limit, side = order.asked.limit_price, order.asked.side
    assert limit is not None
    touching = (quote for quote in quotes if (quote.ask <= limit if side == "buy" else quote.bid >= limit))
    return next((quote.touched_side(side) for quote in touching), None)


def trailed_to(order: ModelOrder, quotes: Sequence[Quote]) -> Decimal | None:
    """The level at which a stop that trails by an amount was touched, by one look along the recording."""
    distance, sells = order.asked.trail_amount, order.asked.side == "sell"
    assert distance is not None
    mark: Decimal | None = None
    for quote in quotes:
        price = quote.touched_side(order.asked.side)
        mark = price if mark is None else max(mark, price) if sells else min(mark, price)
        if price <= mark - distance if sells else price >= mark + distance:
            return mark - distance if sells else mark + distance
    return None


@pytest.mark.parametrize(
    ("source", "batch_size", "count", "distances"),
    [(ticks, 1, 16, TRAILS[::8]), (ticks, 25, 48, TRAILS), (bars, 40, 16, TRAILS[::8])],
)
def test_each_trigger_is_the_oracles(
    live: LiveExchange, source: Callable[[], Prices], batch_size: int, count: int, distances: Sequence[int]
) -> None:
    # given a grid around all that is recorded, and the first price standing
    prices = source()
    levels = grid(prices, count)
    live.quote(SYMBOL, *prices[0])
    opening = live.model.quotes[SYMBOL]
    orders, trailing, held = rest(live, levels), trail(live, distances), hold(live, levels)
    live.compare()

    # when the recording is run through, a batch at a time, each worked off before the next
    start = live.next_at()
    quotes = [
        Quote(SYMBOL, bid, ask, start + timedelta(microseconds=place))
        for place, (bid, ask) in enumerate(prices[1:], start=1)
    ]
    for batch in batched(quotes, batch_size, strict=False):
        live.record(batch)
        if live.model.queue:
            live.work()

    # then every order, fill and position is the oracle's, and the plainest ones are what a look along it says
    live.compare()
    for order in orders:
        if order.asked.order_type == "limit":
            assert order.average_price == first_touch(order, [opening, *quotes])
    for order in trailing:
        if order.asked.trail_amount is not None:
            touched = trailed_to(order, [opening, *quotes])
            assert (order.level if order.status == "filled" else None) == touched
    triggered = [order for order in orders if order.status != "new"]
    trailed = [order for order in trailing if order.status != "new"]
    closed = [position for account in live.model.accounts for position in account.positions if not position.is_open]
    assert len(orders) > count * 6
    assert len(trailed) > len(trailing) / 4
    assert len(triggered) > len(orders) / 2
    assert held > count
    assert len(closed) > held / 4
