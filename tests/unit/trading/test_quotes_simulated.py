"""The simulated provider: repeatable, on the tick, around the reference, with crosses that agree."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from trading.quotes.provider import FeedInstrument, Quote
from trading.quotes.simulated import SimulatedProvider

AT = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)
PER_SECOND = 4


def instrument(symbol: str, price: str, tick: str, spread: str, **more: object) -> FeedInstrument:
    facts: dict[str, object] = {
        "asset_class": "forex",
        "base_currency": symbol[:3],
        "quote_currency": symbol[3:],
        "volatility": Decimal("0.005"),
        "age_ms_max": 5000,
    }
    return FeedInstrument(
        symbol=symbol,
        tick_size=Decimal(tick),
        reference_price=Decimal(price),
        reference_spread=Decimal(spread),
        **(facts | more),  # pyright: ignore[reportArgumentType]
    )


EURUSD = instrument("EURUSD", "1.16", "0.00001", "0.00008")
USDJPY = instrument("USDJPY", "152", "0.001", "0.01")
EURJPY = instrument("EURJPY", "176.32", "0.001", "0.015")
AAPL = instrument("AAPL", "265", "0.01", "0.02", asset_class="stock", base_currency="AAPL", quote_currency="USD")
ALL = (EURUSD, USDJPY, EURJPY, AAPL)
SYMBOLS = [each.symbol for each in ALL]


def provider(*instruments: FeedInstrument, seed: int = 7) -> SimulatedProvider:
    return SimulatedProvider(instruments or ALL, seed=seed, quotes_per_second=PER_SECOND)


def walk(source: SimulatedProvider, steps: int, symbols: list[str] | None = None) -> list[list[Quote]]:
    return [source.quotes(symbols or SYMBOLS, AT + timedelta(seconds=step / PER_SECOND)) for step in range(steps)]


def mid(quote: Quote) -> Decimal:
    return (quote.bid + quote.ask) / 2


def test_the_same_seed_and_times_give_the_same_quotes_in_whatever_order_the_instruments_come() -> None:
    assert walk(provider(), 50) == walk(provider(*reversed(ALL)), 50)


def test_another_seed_gives_other_quotes() -> None:
    assert walk(provider(seed=1), 10) != walk(provider(seed=2), 10)


def test_what_is_asked_for_does_not_change_the_walk() -> None:
    together = [quotes[0] for quotes in walk(provider(), 20)]
    alone = [quotes[0] for quotes in walk(provider(), 20, ["EURUSD"])]
    assert alone == together


def test_quotes_are_marked_stamped_two_sided_and_on_the_tick() -> None:
    for quotes in walk(provider(), 200):
        for each, quote in zip(ALL, quotes, strict=True):
            assert quote.symbol == each.symbol
            assert quote.source == "simulated"
            assert AT <= quote.time <= AT + timedelta(seconds=50)
            assert quote.bid % each.tick_size == 0
            assert quote.ask % each.tick_size == 0
            assert each.tick_size <= quote.ask - quote.bid <= each.reference_spread * 2


def test_the_spread_stands_for_a_while_and_then_changes() -> None:
    spreads = [quotes[0].ask - quotes[0].bid for quotes in walk(provider(), 30 * PER_SECOND * 20)]

    changes = sum(one != other for one, other in itertools.pairwise(spreads))
    assert 1 <= changes <= 20


def test_prices_move_and_stay_near_the_reference() -> None:
    quotes = [quotes[0] for quotes in walk(provider(), 4000)]

    assert len({mid(quote) for quote in quotes}) > 50
    assert all(abs(mid(quote) / EURUSD.reference_price - 1) < Decimal("0.01") for quote in quotes)


def test_a_price_far_off_is_pulled_back() -> None:
    still = instrument("EURUSD", "1.16", "0.00001", "0.00008", volatility=Decimal("0.0001"))
    source = provider(still)
    source.set_by_hand("EURUSD", Decimal("1.30000"), Decimal("1.30010"))

    first, *_, last = [quotes[0] for quotes in walk(source, 4000, ["EURUSD"])]

    # Four a day: 4000 steps of a quarter second take 1000 s, which pulls about 4.5 % of the way.
    way = (mid(first) - mid(last)) / (mid(first) - still.reference_price)
    assert Decimal("0.03") < way < Decimal("0.06")


def test_the_movement_is_as_large_as_the_volatility_says() -> None:
    mids = [mid(quotes[0]) for quotes in walk(provider(), 6000)]

    returns = [abs(after / before - 1) for before, after in itertools.pairwise(mids)]
    scaled = sum(returns, Decimal(0)) / len(returns) * Decimal(86400 * PER_SECOND).sqrt()
    assert Decimal("0.85") < scaled / EURUSD.volatility < Decimal("1.25")


def test_a_cross_follows_its_two_pairs_with_the_dollar() -> None:
    for eurusd, usdjpy, eurjpy, _ in walk(provider(), 500):
        implied = mid(eurusd) * mid(usdjpy)
        assert abs(mid(eurjpy) - implied) < Decimal("0.01")


def test_a_cross_without_its_pairs_walks_by_itself() -> None:
    quotes = [quotes[0] for quotes in walk(provider(EURJPY), 200, ["EURJPY"])]
    assert len({mid(quote) for quote in quotes}) > 10


def test_it_goes_on_from_the_recorded_quotes() -> None:
    recorded = instrument("EURUSD", "1.16", "0.00001", "0.00008", bid=Decimal("1.2"), ask=Decimal("1.20008"))

    (quote,) = provider(recorded).quotes(["EURUSD"], AT)

    assert abs(mid(quote) - Decimal("1.20004")) < Decimal("0.001")


def test_crosses_agree_with_a_price_set_by_hand() -> None:
    source = provider()
    source.set_by_hand("EURUSD", Decimal("1.3"), Decimal("1.3002"))

    _, usdjpy, eurjpy, _ = source.quotes(SYMBOLS, AT)

    assert abs(mid(eurjpy) / mid(usdjpy) - Decimal("1.3001")) < Decimal("0.001")


@pytest.mark.parametrize("symbols", [["NOSUCH"], []])
def test_a_symbol_that_it_does_not_have_is_left_out(symbols: list[str]) -> None:
    assert provider().quotes(symbols, AT) == []


def test_a_price_never_falls_to_nothing() -> None:
    cheap = instrument("EURUSD", "0.00001", "0.00001", "0.00002", volatility=Decimal(3))
    assert all(quotes[0].bid >= cheap.tick_size for quotes in walk(provider(cheap), 500, ["EURUSD"]))
