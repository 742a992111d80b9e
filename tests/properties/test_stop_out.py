"""Whatever is held and however prices run: a stop-out closes what the rule says, in its order."""

from collections.abc import Iterator, Mapping, Sequence
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
from tests.kit.risk import make_profile, run_monitoring, stop_out_step, watch_by
from trading.accounts import Worth, round_money
from trading.conversion import Rates
from trading.hedges import Sides
from trading.instruments import Instrument
from trading.margin_levels import ExposedPosition, StopOutPolicy, first_to_close, judged_level, stop_out_due
from trading.positions import Position, realized_pnl, unrealized_pnl
from trading.pricing import MarketPrice, commission, fill_price
from trading.store.database import Database
from trading.store.risk import RiskStore

STOP_OUT_LEVEL = Decimal(20)
RELEASE_LEVEL = Decimal(21)
TIER = "gold"
CALENDARS = ("FX", "XNYS")
FOREX = ("EURUSD", "GBPUSD", "USDJPY")
# What hedges need of the margin of both sides, in percent.
HEDGED = {"EURUSD": Decimal(50), "GBPUSD": Decimal(100), "USDJPY": Decimal(75), "AAPL": Decimal(0)}
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
            for policy in StopOutPolicy:
                make_profile(market, policy, policy=policy)
            for hedged in HEDGED.items():
                market.execute("UPDATE instruments SET hedged_margin_percent = %s WHERE symbol = %s", hedged[::-1])
            yield market
            assert market.book_faults() == []
    finally:
        scratch.drop()


@pytest.fixture(scope="module")
def risk(market: Market) -> Iterator[psycopg.Connection[Any]]:
    with market.database.connect("function_risk") as connection:
        yield connection


@pytest.fixture(scope="module")
def store(market: Market) -> Iterator[RiskStore]:
    with_role = Database(lambda: market.database.url_for("function_risk"))
    yield RiskStore(with_role)
    with_role.close()


@dataclass
class Oracle:
    """An account by the formulas of the layer: what it is worth, and what a stop-out does to it."""

    market: Market
    user: User
    currency: str
    policy: StopOutPolicy

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
        self.balance = self.market.account(self.user)["balance"]

    def gain(self, row: Mapping[str, Any]) -> Decimal:
        symbol = row["symbol"]
        price = self.rates.quotes[symbol]
        return unrealized_pnl(self.position(row), self.instruments[symbol], price, self.currency, self.rates)

    def position(self, row: Mapping[str, Any]) -> Position:
        return Position(row["side"], row["quantity"], row["entry_price"], row["margin_used"])

    def sides(self, symbol: str) -> Sides:
        sides = Sides(HEDGED[symbol], *[Decimal(0)] * 4)
        for row in self.rows.values():
            if row["symbol"] == symbol:
                sides = sides.with_more(row["side"], row["quantity"], row["margin_used"])
        return sides

    def worth(self) -> Worth:
        booked = sum((row["margin_used"] for row in self.rows.values()), Decimal(0))
        credit = sum((self.sides(symbol).credit(self.currency) for symbol in QUOTES), Decimal(0))
        return Worth(self.balance, sum(self.pnl.values(), Decimal(0)), booked - credit)

    def level(self) -> Decimal | None:
        return judged_level(self.worth(), len(self.rows))

    def is_due(self) -> bool:
        return stop_out_due("margin", STOP_OUT_LEVEL, self.level())

    def uncovered(self, row: Mapping[str, Any]) -> Decimal:
        return self.sides(row["symbol"]).uncovered(row["side"])

    def next_position(self) -> UUID | None:
        chosen = first_to_close(
            (
                ExposedPosition(
                    position_id,
                    self.pnl[position_id],
                    row["margin_used"],
                    row["created_at"],
                    self.calendars[row["symbol"]] not in self.closed,
                    HEDGED[row["symbol"]] < 100 and not self.uncovered(row),
                )
                for position_id, row in self.rows.items()
            ),
            self.policy,
        )
        return chosen.position_id if chosen else None

    def restores(self, position_id: UUID, quantity: Decimal) -> bool:
        """Whether closing so much of it is enough for the account to be left in peace."""
        row, worth = self.rows[position_id], self.worth()
        _, costs = self.costs_of_closing(position_id, quantity)
        kept = round_money(row["margin_used"] * (row["quantity"] - quantity) / row["quantity"], self.currency)
        released, before = row["margin_used"] - kept, self.sides(row["symbol"])
        lost = before.credit(self.currency) - before.with_more(row["side"], -quantity, -released).credit(self.currency)
        after = Worth(worth.equity - costs, Decimal(0), worth.margin_used - released + lost)
        if not after.margin_used:
            return after.equity >= 0
        level = after.margin_level
        return level is not None and level > STOP_OUT_LEVEL and level >= RELEASE_LEVEL

    def is_what_goes(self, position_id: UUID, quantity: Decimal) -> bool:
        """Whether the policy closes so much of it."""
        row = self.rows[position_id]
        step = self.instruments[row["symbol"]].quantity_step
        # As far as it is not covered, margin falls with each lot; from there on it rises or falls.
        ends = {min(row["quantity"], self.uncovered(row)), row["quantity"]} - {Decimal(0)}
        enough = any(self.restores(position_id, end) for end in ends)
        if self.policy is not StopOutPolicy.SMALLEST_PARTIAL_STEP or not enough:
            return quantity == row["quantity"]
        less = quantity - step
        return self.restores(position_id, quantity) and (less == 0 or not self.restores(position_id, less))

    def costs_of_closing(self, position_id: UUID, quantity: Decimal) -> tuple[Decimal, Decimal]:
        """What closing so much of it realizes, and what its equity then is less by."""
        row = self.rows[position_id]
        instrument, price = self.instruments[row["symbol"]], self.rates.quotes[row["symbol"]]
        side = "sell" if row["side"] == "long" else "buy"
        seed = f"{self.user.account_id}:{position_id}"
        filled = fill_price(instrument, price, side, quantity, seed=seed, after_hours=False)
        realized = realized_pnl(self.position(row), quantity, filled.price, instrument, self.currency, self.rates)
        charged = -round_money(
            self.rates.convert(-commission(instrument, quantity, TIER), instrument.quote_currency, self.currency),
            self.currency,
        )
        return realized, self.pnl[position_id] * quantity / row["quantity"] - realized + charged


def move(market: Market, prices: Round) -> None:
    market.execute("UPDATE market_calendars SET always_open = true")
    for calendar in prices.closed:
        market.close(calendar)
    for symbol, (bid, ask) in QUOTES.items():
        tick = Decimal(1).scaleb(-5 if symbol.endswith("USD") else -3) if symbol in FOREX else CENT
        moved = (Decimal(bid) * prices.factors[symbol]).quantize(tick)
        market.quote(symbol, str(moved), str(moved + Decimal(ask) - Decimal(bid)))


given_accounts = given(
    currency=st.sampled_from(["USD", "EUR", "GBP"]),
    policy=st.sampled_from(list(StopOutPolicy)),
    balance=numbers("2000", "6000", 2),
    held=trades,
    runs=rounds,
)


def trading_user(market: Market, currency: str, policy: StopOutPolicy, balance: Decimal, held: Sequence[Trade]) -> User:
    market.prepare()
    user = watch_by(market, market.user(currency=currency, balance=balance, tier=TIER), policy)
    for trade in held:
        market.trade(user, symbol=trade.symbol, side=trade.side, quantity=str(trade.quantity))
    return user


@settings(max_examples=70, deadline=None)
@given_accounts
def test_steps_close_what_the_rule_says_and_cost_no_more_than_closing_costs(
    market: Market,
    risk: psycopg.Connection[Any],
    currency: str,
    policy: StopOutPolicy,
    balance: Decimal,
    held: list[Trade],
    runs: list[Round],
) -> None:
    user = trading_user(market, currency, policy, balance, held)
    oracle = Oracle(market, user, currency, policy)

    for prices in runs:
        move(market, prices)
        oracle.look(prices.closed)
        while True:
            due, expected, before = oracle.is_due(), oracle.next_position(), oracle.worth().equity

            answer = stop_out_step(risk, user)
            event(f"a step by {policy}: {answer['state']}")

            costs = Decimal(0)
            if due and expected:
                assert UUID(answer["position_id"]) == expected
                assert oracle.is_what_goes(expected, answer["quantity"])
                realized, costs = oracle.costs_of_closing(expected, answer["quantity"])
                assert (answer["realized_pnl"], costs >= -CENT) == (realized, True)
            oracle.look(prices.closed)
            level = oracle.level()
            if not due:
                assert answer["state"] == "recovered"
            elif expected is None:
                assert answer["state"] == "waiting"
            else:
                assert answer["state"] == ("more" if oracle.is_due() else "done")
            assert abs(before - costs - oracle.worth().equity) < Decimal("1e-9")
            assert answer["margin_level"] == (None if level is None else round_money(level, "USD"))
            if answer["state"] != "more":
                break
        assert not oracle.is_due() or oracle.next_position() is None


@settings(max_examples=15, deadline=None)
@given_accounts
def test_the_watch_leaves_nobody_who_should_be_stopped_out(
    market: Market,
    store: RiskStore,
    currency: str,
    policy: StopOutPolicy,
    balance: Decimal,
    held: list[Trade],
    runs: list[Round],
) -> None:
    user = trading_user(market, currency, policy, balance, held)
    oracle = Oracle(market, user, currency, policy)

    for prices in runs:
        move(market, prices)
        report = run_monitoring(store)
        event(f"a run closed {report.positions_closed} positions")

        # Whoever is below the level has nothing that could be closed, and no order at rest; of all accounts so far.
        assert (report.complete, report.failed, report.unfinished) == (True, 0, 0)
        assert run_monitoring(store).positions_closed == 0
        oracle.look(prices.closed)
        assert not oracle.is_due() or oracle.next_position() is None
        # And its episode stands where the level is.
        episodes = market.execute(
            "SELECT level_name FROM margin_call_episodes WHERE user_id = %s AND left_at IS NULL", (user.user_id,)
        )
        standing = market.execute(
            "SELECT level_name, due FROM margin_levels(ARRAY[%s]::uuid[], clock_timestamp())", (user.account_id,)
        )
        assert standing == [(episodes[0][0] if episodes else None, None)]
