"""Whatever is held and however prices run: a stop-out closes what the rule says, in its order."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from tests.kit import MigratedTemplate, User
from tests.kit.orders import QUOTES, Market
from tests.kit.risk import stop_out_step
from trading.accounts import Worth, round_money
from trading.conversion import Rates
from trading.instruments import Instrument
from trading.positions import Position, realized_pnl, unrealized_pnl
from trading.pricing import MarketPrice, commission, fill_price
from trading.risk import ExposedPosition, first_to_close, stop_out_due

STOP_OUT_LEVEL = Decimal(20)
TIER = "gold"
CALENDARS = ("FX", "XNYS")
FOREX = ("EURUSD", "GBPUSD", "USDJPY")
CENT = Decimal("0.01")


@dataclass(frozen=True)
class Trade:
    symbol: str
    side: str
    quantity: Decimal


@dataclass(frozen=True)
class Round:
    """How far the prices have moved from where they began, and which markets are closed."""

    factors: Mapping[str, Decimal]
    closed: frozenset[str]


def numbers(least: str, most: str, places: int) -> st.SearchStrategy[Decimal]:
    return st.decimals(Decimal(least), Decimal(most), allow_nan=False, allow_infinity=False, places=places)


sides = st.sampled_from(["buy", "sell"])
trades = st.lists(
    st.builds(Trade, st.sampled_from(FOREX), sides, numbers("0.5", "3", 1))
    | st.builds(Trade, st.just("AAPL"), sides, numbers("10", "300", 0)),
    min_size=2,
    max_size=6,
)
rounds = st.lists(
    st.builds(
        Round,
        st.fixed_dictionaries({symbol: numbers("0.93", "1.07", 4) for symbol in QUOTES}),
        st.frozensets(st.sampled_from(CALENDARS), max_size=1),
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    """One database for all examples: each has a user of its own. The books must hold after all of them."""
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market:
            yield market
            assert market.book_faults() == []
    finally:
        scratch.drop()


@pytest.fixture(scope="module")
def risk(market: Market) -> Iterator[psycopg.Connection[Any]]:
    with market.database.connect("function_risk") as connection:
        yield connection


@dataclass
class Oracle:
    """An account by the formulas of the layer: what it is worth, and what a stop-out does to it."""

    market: Market
    user: User
    currency: str

    def __post_init__(self) -> None:
        with self.market.owner.cursor(row_factory=dict_row) as cursor:
            facts = cursor.execute("SELECT * FROM instruments WHERE symbol = ANY (%s)", (list(QUOTES),)).fetchall()
        self.instruments = {row["symbol"]: Instrument.from_row(row) for row in facts}
        self.calendars = {row["symbol"]: row["calendar"] for row in facts}

    def look(self, closed: frozenset[str]) -> None:
        """Read the account, its positions and the prices as they are now."""
        quotes = self.market.execute("SELECT symbol, bid, ask, volatility FROM quotes")
        self.rates = Rates({symbol: MarketPrice(bid, ask, volatility) for symbol, bid, ask, volatility in quotes})
        self.closed = closed
        self.rows = {row["id"]: row for row in self.market.rows("positions", self.user) if row["status"] == "open"}
        self.pnl = {position_id: self.gain(row) for position_id, row in self.rows.items()}

    def gain(self, row: Mapping[str, Any]) -> Decimal:
        symbol = row["symbol"]
        price = self.rates.quotes[symbol]
        return unrealized_pnl(self.position(row), self.instruments[symbol], price, self.currency, self.rates)

    def position(self, row: Mapping[str, Any]) -> Position:
        return Position(row["side"], row["quantity"], row["entry_price"], row["margin_used"])

    def worth(self) -> Worth:
        balance = self.market.account(self.user)["balance"]
        return Worth(
            balance,
            sum(self.pnl.values(), Decimal(0)),
            sum((row["margin_used"] for row in self.rows.values()), Decimal(0)),
        )

    def is_due(self) -> bool:
        return stop_out_due("margin", STOP_OUT_LEVEL, self.worth().margin_level)

    def next_position(self) -> UUID | None:
        chosen = first_to_close(
            ExposedPosition(
                position_id,
                self.pnl[position_id],
                row["created_at"],
                self.calendars[row["symbol"]] not in self.closed,
            )
            for position_id, row in self.rows.items()
        )
        return chosen.position_id if chosen else None

    def costs_of_closing(self, position_id: UUID) -> tuple[Decimal, Decimal]:
        """What closing it realizes, and what its equity then is less by."""
        row = self.rows[position_id]
        instrument, price = self.instruments[row["symbol"]], self.rates.quotes[row["symbol"]]
        side = "sell" if row["side"] == "long" else "buy"
        seed = f"{self.user.account_id}:{position_id}"
        filled = fill_price(instrument, price, side, row["quantity"], seed=seed, after_hours=False)
        realized = realized_pnl(
            self.position(row), row["quantity"], filled.price, instrument, self.currency, self.rates
        )
        charged = -round_money(
            self.rates.convert(
                -commission(instrument, row["quantity"], TIER), instrument.quote_currency, self.currency
            ),
            self.currency,
        )
        return realized, self.pnl[position_id] - realized + charged


def move(market: Market, prices: Round) -> None:
    market.execute("UPDATE market_calendars SET always_open = true")
    for calendar in prices.closed:
        market.close(calendar)
    for symbol, (bid, ask) in QUOTES.items():
        tick = Decimal(1).scaleb(-5 if symbol.endswith("USD") else -3) if symbol in FOREX else CENT
        moved = (Decimal(bid) * prices.factors[symbol]).quantize(tick)
        market.quote(symbol, str(moved), str(moved + Decimal(ask) - Decimal(bid)))


@settings(max_examples=100, deadline=None)
@given(currency=st.sampled_from(["USD", "EUR", "GBP"]), balance=numbers("2000", "6000", 2), held=trades, runs=rounds)
def test_steps_close_what_the_rule_says_and_cost_no_more_than_closing_costs(
    market: Market,
    risk: psycopg.Connection[Any],
    currency: str,
    balance: Decimal,
    held: list[Trade],
    runs: list[Round],
) -> None:
    market.prepare()
    user = market.user(currency=currency, balance=balance, tier=TIER)
    for trade in held:
        market.trade(user, symbol=trade.symbol, side=trade.side, quantity=str(trade.quantity))
    oracle = Oracle(market, user, currency)

    for prices in runs:
        move(market, prices)
        oracle.look(prices.closed)
        while True:
            due, expected, before = oracle.is_due(), oracle.next_position(), oracle.worth().equity
            realized, costs = oracle.costs_of_closing(expected) if due and expected else (None, Decimal(0))

            answer = stop_out_step(risk, user)
            event(f"a step: {answer['state']}")

            oracle.look(prices.closed)
            level = oracle.worth().margin_level
            if not due:
                assert answer["state"] == "recovered"
            elif expected is None:
                assert answer["state"] == "waiting"
            else:
                assert answer["state"] == ("more" if oracle.is_due() else "done")
                assert (UUID(answer["position_id"]), answer["realized_pnl"]) == (expected, realized)
                assert costs >= -CENT
            assert abs(before - costs - oracle.worth().equity) < Decimal("1e-9")
            assert answer["margin_level"] == (None if level is None else round_money(level, "USD"))
            if answer["state"] != "more":
                break
        assert not oracle.is_due() or oracle.next_position() is None
