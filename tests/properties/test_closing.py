"""Closing at the present marks moves equity by its costs alone, and books what the layer's formulas say."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from tests.kit import MigratedTemplate
from tests.kit.orders import Market
from trading.accounts import round_money
from trading.conversion import Rates
from trading.instruments import Instrument
from trading.positions import Position, margin_after_reducing, realized_pnl, unrealized_pnl
from trading.pricing import MarketPrice, commission

EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Forex in both directions, a stock with commission and a yen cross; each with its price at the opening.
OPENINGS = {
    "EURUSD": ("1.10000", "1.10020", "0.00001"),
    "USDJPY": ("150.000", "150.010", "0.001"),
    "AAPL": ("149.98", "150.00", "0.01"),
}
RATES = {"EURUSD": ("1.1000", "1.1002"), "GBPUSD": ("1.2500", "1.2504"), "USDJPY": ("150.000", "150.010")}
# What the roundings of two amounts may add up to.
CENT = Decimal("0.01")


@pytest.fixture(scope="module")
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    """One market; the books must hold after all examples."""
    with Market.checked(migrated) as market:
        market.execute("UPDATE instruments SET slippage_variation = 0.9, slippage_max = slippage_max + 10")
        yield market


def instrument_of(market: Market, symbol: str) -> Instrument:
    with market.owner.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute("SELECT * FROM instruments WHERE symbol = %s", (symbol,)).fetchone()
    assert row is not None
    return Instrument.from_row(row)


def rates_of(market: Market) -> Rates:
    rows = market.execute("SELECT symbol, bid, ask, volatility FROM quotes")
    return Rates({symbol: MarketPrice(bid, ask, volatility) for symbol, bid, ask, volatility in rows})


@dataclass(frozen=True)
class Case:
    """A position of `lots` smallest quantities, of which `closed_lots` are closed after the market moved."""

    symbol: str
    side: str
    currency: str
    position_mode: str
    tier: str
    lots: int
    closed_lots: int
    moved_ticks: int


@EXAMPLES
@given(
    case=st.builds(
        Case,
        symbol=st.sampled_from(sorted(OPENINGS)),
        side=st.sampled_from(["buy", "sell"]),
        currency=st.sampled_from(["USD", "EUR", "GBP"]),
        position_mode=st.sampled_from(["hedging", "netting"]),
        tier=st.sampled_from(["bronze", "platinum"]),
        lots=st.integers(2, 50),
        closed_lots=st.integers(1, 50),
        moved_ticks=st.integers(-400, 400),
    )
)
def test_a_close_costs_slippage_and_commission_and_nothing_else(market: Market, case: Case) -> None:
    # given a position, and a market that has moved since
    for name, quote in RATES.items():
        market.quote(name, *quote)
    symbol, currency = case.symbol, case.currency
    bid, ask, tick = map(Decimal, OPENINGS[symbol])
    market.quote(symbol, str(bid), str(ask))
    instrument = instrument_of(market, symbol)
    unit = instrument.quantity_min
    user = market.user(currency=currency, tier=case.tier, position_mode=case.position_mode, balance=1_000_000)
    opened = market.trade(user, symbol=symbol, side=case.side, quantity=str(case.lots * unit))
    market.quote(symbol, str(bid + case.moved_ticks * tick), str(ask + case.moved_ticks * tick))
    rates = rates_of(market)
    (row,) = market.rows("positions", user)
    held = Position(row["side"], row["quantity"], row["entry_price"], row["margin_used"])
    balance = market.account(user)["balance"]
    equity = Decimal(market.worth(user)["equity"])

    # when a part of it or the whole is closed
    part = min(case.closed_lots, case.lots) * unit
    closed = market.close_out(user, opened["position_id"], quantity=str(part))

    # then what is booked is what the formulas say
    charged = -round_money(
        rates.convert(-commission(instrument, part, case.tier), instrument.quote_currency, currency), currency
    )
    realized = realized_pnl(held, part, closed["execution_price"], instrument, currency, rates)
    left = margin_after_reducing(held, part, currency)
    assert (closed["realized_pnl"], closed["commission"]) == (realized, charged)
    assert closed["position"]["margin_used"] == left
    assert market.account(user)["balance"] == balance + realized - charged
    # and equity has lost the commission and what the price slipped from its mark on the part that was closed
    taken = Position(held.side, part, held.entry_price, Decimal(0))
    rest = Position(held.side, held.quantity - part, held.entry_price, Decimal(0))
    at_mark, at_rest, before = (
        unrealized_pnl(position, instrument, rates.quotes[symbol], currency, rates) for position in (taken, rest, held)
    )
    slipped = at_mark - realized
    after = Decimal(market.worth(user)["equity"])
    assert abs(at_mark + at_rest - before) < CENT
    assert abs(equity - after - charged - slipped) <= CENT
    # and the slippage is the fill's own
    if instrument.quote_currency == currency:
        assert abs(slipped - closed["slippage"] * part * instrument.contract_size) <= CENT
