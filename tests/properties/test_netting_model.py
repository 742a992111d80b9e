"""Whatever is bought and sold, a netting account holds what a plain model of one holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit import MigratedTemplate, User
from tests.kit.netting import COMMISSION_FACTORS, Contract, Conversion, NettingModel, divided_by
from tests.kit.orders import Market

EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GBPUSD = (Decimal("1.2500"), Decimal("1.2504"))
# Bid and spread of what is traded: a yen pair, which leads to pounds by way of dollars, and a share with a commission.
OPENINGS = {"USDJPY": (Decimal("150.000"), Decimal("0.010")), "AAPL": (Decimal("149.98"), Decimal("0.02"))}
UNBOUND: dict[str, object] = {
    "max_position_size": None,
    "max_positions": None,
    "daily_trade_limit": None,
    "max_daily_loss": None,
}


@pytest.fixture(scope="module")
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    """A market that fills at the quote; its books must hold after all examples."""
    with Market.checked(migrated) as market:
        market.execute("UPDATE instruments SET slippage_base = 0, slippage_min = 0")
        market.quote("GBPUSD", str(GBPUSD[0]), str(GBPUSD[1]))
        yield market


@dataclass(frozen=True)
class Step:
    """An order of `lots` units, at the market or at a limit that the quote touches, after a move."""

    side: str
    lots: int
    moved_ticks: int
    order_type: str


steps = st.builds(
    Step,
    side=st.sampled_from(["buy", "sell"]),
    lots=st.integers(1, 50),
    moved_ticks=st.integers(-300, 300),
    order_type=st.sampled_from(["market", "limit"]),
)


def contract_of(market: Market, symbol: str) -> tuple[Contract, Decimal, Decimal]:
    """The contract as it is in the books, the unit that is traded, and its tick."""
    ((asset_class, *numbers, unit, tick),) = market.execute(
        "SELECT asset_class, contract_size, least(leverage, 30), commission_per_unit, commission_min, commission_max, "
        "quantity_min, tick_size FROM instruments WHERE symbol = %s",
        (symbol,),
    )
    # Ten shares and more, so that some orders are above the smallest commission and none above the quote's depth.
    return Contract(asset_class == "forex", *numbers), Decimal(10) if symbol == "AAPL" else unit, tick


def conversions(symbol: str, bid: Decimal, ask: Decimal) -> tuple[Conversion, Conversion]:
    """From the quote and from the base currency to pounds."""
    from_dollars = divided_by(*GBPUSD)
    if symbol == "AAPL":
        return from_dollars, from_dollars
    from_yen = divided_by(bid, ask)
    return lambda amount: from_dollars(from_yen(amount)), from_dollars


def in_the_books(market: Market, user: User) -> dict[str, Any]:
    """What the rows say of the account, in the words of the model."""
    fills = market.rows("fills", user)
    positions = [row for row in market.rows("positions", user) if row["status"] == "open"]
    assert len(positions) <= 1
    return {
        "lots": sum(row["quantity"] if row["side"] == "long" else -row["quantity"] for row in positions),
        "entry": round(sum(row["entry_price"] for row in positions), 10),
        "margin": sum(row["margin_used"] for row in positions),
        "realized": sum(row["realized_pnl"] for row in fills),
        "commission": sum(row["commission"] for row in fills),
        "balance": market.account(user)["balance"],
    }


def in_the_model(model: NettingModel) -> dict[str, Any]:
    entry = round(Decimal(model.entry.numerator) / Decimal(model.entry.denominator), 10)
    exact = {name: getattr(model, name) for name in ("lots", "margin", "realized", "commission", "balance")}
    return exact | {"entry": entry if model.lots else 0}


@EXAMPLES
@given(
    symbol=st.sampled_from(sorted(OPENINGS)),
    tier=st.sampled_from(sorted(COMMISSION_FACTORS)),
    sequence=st.lists(steps, min_size=2, max_size=8),
)
def test_any_sequence_of_buys_and_sells(market: Market, symbol: str, tier: str, sequence: list[Step]) -> None:
    # given a netting account in pounds, and the model of one
    contract, unit, tick = contract_of(market, symbol)
    user = market.user(
        currency="GBP", tier=tier, leverage=30, position_mode="netting", balance=1_000_000_000, risk=UNBOUND
    )
    model = NettingModel(contract, tier, Fraction(1_000_000_000))
    bid, spread = OPENINGS[symbol]
    for step in sequence:
        # when both are traded at the same price
        bid += step.moved_ticks * tick
        ask = bid + spread
        market.quote(symbol, str(bid), str(ask))
        lots, price = step.lots * unit, ask if step.side == "buy" else bid
        order: dict[str, object] = {"symbol": symbol, "side": step.side, "quantity": str(lots)}
        if step.order_type == "market":
            answer = market.trade(user, **order)
        else:
            answer = market.place(user, limit_price=str(price), **order)
        model.trade(lots if step.side == "buy" else -lots, price, *conversions(symbol, bid, ask))
        # then both hold the same, to the last digit, after each of them
        assert (answer["outcome"], answer["execution_price"]) == ("filled", price)
        assert in_the_books(market, user) == in_the_model(model)
