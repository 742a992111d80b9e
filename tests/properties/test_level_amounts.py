"""A stop loss or take profit by its amount is the nearest tick that loses no more, or brings no less, than was said."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import psycopg
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.kit import MigratedTemplate
from tests.kit.orders import Market
from tests.kit.positions import change, levels_of, row_of

EXAMPLES = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Each symbol with its price at the opening.
OPENINGS = {
    "EURUSD": ("1.10000", "1.10020"),
    "USDJPY": ("150.000", "150.010"),
    "AAPL": ("149.98", "150.00"),
}
RATES = {"EURUSD": ("1.1000", "1.1002"), "GBPUSD": ("1.2500", "1.2504"), "USDJPY": ("150.000", "150.010")}


@pytest.fixture(scope="module")
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    """One market; the books must hold after all examples."""
    with Market.checked(migrated) as market:
        yield market


@dataclass(frozen=True)
class Case:
    """A position of `lots` smallest quantities, perhaps of two fills, and an amount in account currency."""

    symbol: str
    side: str
    currency: str
    lots: int
    added_lots: int
    form: str
    cents: int


def worth(money: Fraction, symbol: str, currency: str) -> Fraction:
    """`money` of the symbol's quote currency in `currency`, exactly, by RATES: a gain at bid, a loss at ask."""
    gain = money > 0

    def side(pair: str, *, bid: bool) -> Fraction:
        return Fraction(Decimal(RATES[pair][0 if bid else 1]))

    dollars = money / side("USDJPY", bid=not gain) if symbol == "USDJPY" else money
    return dollars if currency == "USD" else dollars / side(f"{currency}USD", bid=not gain)


@EXAMPLES
@given(
    case=st.builds(
        Case,
        symbol=st.sampled_from(sorted(OPENINGS)),
        side=st.sampled_from(["buy", "sell"]),
        currency=st.sampled_from(["USD", "EUR", "GBP"]),
        lots=st.integers(1, 50),
        added_lots=st.integers(0, 7),
        form=st.sampled_from(["stop_loss_amount", "take_profit_amount"]),
        cents=st.integers(100, 200_000),
    )
)
def test_the_level_is_the_nearest_tick_that_keeps_the_word(market: Market, case: Case) -> None:
    # given a position whose entry price may lie between two ticks
    for name, quote in (OPENINGS | RATES).items():
        market.quote(name, *quote)
    rows = market.execute(
        "SELECT quantity_min, contract_size, tick_size FROM instruments WHERE symbol = %s", (case.symbol,)
    )
    unit, contract_size, tick = rows[0]
    user = market.user(currency=case.currency, position_mode="netting", balance=1_000_000)
    opened = market.trade(user, symbol=case.symbol, side=case.side, quantity=str(case.lots * unit))
    if case.added_lots:
        bid, ask = map(Decimal, OPENINGS[case.symbol])
        market.quote(case.symbol, str(bid + tick), str(ask + tick))
        market.trade(user, symbol=case.symbol, side=case.side, quantity=str(case.added_lots * unit))
        market.quote(case.symbol, str(bid), str(ask))
    row = row_of(market, user, opened["position_id"])
    amount = Fraction(case.cents, 100)

    # when a level is given by an amount that the market has not reached yet
    try:
        change(market, user, opened["position_id"], **{case.form: str(Decimal(case.cents) / 100)})
    except psycopg.Error as error:
        if error.sqlstate != "TR006":
            raise
        assume(False)

    # then it lies on the tick, and keeps the word, which the next tick would not
    stop_loss, take_profit, *_ = levels_of(market, user, opened["position_id"])
    up = Fraction(1 if case.side == "buy" else -1)

    def brings(level: Fraction) -> Fraction:
        moved = (level - Fraction(row["entry_price"])) * up
        return worth(moved * Fraction(row["quantity"]) * Fraction(contract_size), case.symbol, case.currency)

    level = stop_loss if case.form == "stop_loss_amount" else take_profit
    assert level is not None
    assert level % tick == 0
    wanted = -amount if case.form == "stop_loss_amount" else amount
    assert brings(Fraction(level)) >= wanted > brings(Fraction(level) - up * Fraction(tick))
