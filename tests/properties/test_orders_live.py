"""Whatever is ordered, quoted, claimed, dropped and repeated: the engine does what the oracle of docs/orders.md does.

`ORDER_EXAMPLES=200 make test TESTS="tests/properties/test_orders_live.py --timeout=0"` runs 200 lives of 40 steps, not
a few; SEED=n repeats those of a run that failed. The life that failed is told step by step and not made shorter: that
takes minutes, in which it would be stopped.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, event, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.kit import MigratedTemplate
from tests.kit.exchange_model import WORKING, Asked, ModelAccount, ModelOrder, ModelPosition, Quote, Wanted
from tests.kit.live_exchange import LiveExchange
from tests.kit.orders import QUOTES, Market
from tests.kit.seeds import SEEDS, seeded
from trading.orders import Side

EXAMPLES_VARIABLE = "ORDER_EXAMPLES"
EXAMPLES = 15
STEPS = 40
# Of each symbol: how far apart levels lie, the tick, and quantities; the last is more than stands at one quote.
GRID = {
    "EURUSD": ("0.0010", "0.0001", ("0.5", "1", "60")),
    "USDJPY": ("0.100", "0.010", ("0.5", "1", "45")),
    "AAPL": ("0.10", "0.01", ("10", "1800", "1800")),
}
RESTING = ("limit", "stop", "stop_limit", "market_if_touched", "limit_if_touched")
TRAILING = ("trailing_stop", "trailing_stop_limit")
WORKERS = (UUID(int=1), UUID(int=2))
SOON = timedelta(milliseconds=300)

symbols = st.sampled_from(sorted(GRID))
sides = st.sampled_from(["buy", "sell"])
picks = st.integers(0, 999)
steps = st.sampled_from(range(7))
times = st.sampled_from(["gtc", "gtc", "gtc", "gtd", "ioc", "fok"])
# Distances of stop loss and take profit, in steps of the grid; -1 is on the wrong side, 0 none.
exits = st.tuples(*[st.sampled_from([0, 0, 0, 1, 1, 2, 3, 5, 8, -1])] * 2)
# In ticks; ten are a step, so that asks come to levels exactly as bids do.
spreads = st.sampled_from([1, 4, 10, 10, 10])
# Symbol, steps (now and then a gap), spread.
moves = st.tuples(symbols, st.sampled_from([-12, -3, -2, -1, -1, 0, 1, 1, 2, 3, 12]), spreads)
batches = st.lists(moves, min_size=1, max_size=6)
what_workers_do = st.sampled_from(
    ["nothing", "claim", "die", "come back", "run out", "execute", "execute", "again", "work", "work"]
)

type Move = tuple[str, int, int]
type Want = tuple[str, Literal["bid", "ask"], Literal["at_or_above", "at_or_below"], int]


@dataclass(frozen=True)
class Wish:
    """An order, in steps of the grid from the price of the moment."""

    account: int
    symbol: str
    side: Side
    size: int
    exits: tuple[int, int]
    order_type: str = "market"
    # To where it waits; `astray` on the other side, where a stop is refused and anything else is touched.
    distance: int = 0
    astray: bool = False
    # From there to the limit of an order with both.
    leeway: int = 0
    time_in_force: str = "gtc"
    ends_soon: bool = False
    capped: bool = False
    wants: Sequence[Want] = ()


leeways = st.sampled_from(range(-3, 4))
rarely = st.sampled_from([False] * 5 + [True])
trades = st.builds(Wish, picks, symbols, sides, picks, exits)
wishes = st.builds(
    Wish, picks, symbols, sides, picks, exits, st.sampled_from(RESTING + TRAILING), steps, rarely, leeways, times,
    rarely, rarely,
)  # fmt: skip
# Another symbol, or its own: which side, from where, and how many steps of the grid from the price of the moment.
wants = st.tuples(symbols, st.sampled_from(["bid", "ask"]), st.sampled_from(["at_or_above", "at_or_below"]), leeways)
held_wishes = st.builds(
    Wish, picks, symbols, sides, picks, exits, st.sampled_from(("market", *RESTING)), steps, rarely, leeways,
    st.sampled_from(["gtc", "gtc", "gtd"]), rarely, rarely, st.lists(wants, min_size=1, max_size=3),
)  # fmt: skip
some_wishes = st.one_of(wishes, wishes, held_wishes)


class OrdersLive(RuleBasedStateMachine):
    """Accounts, traders, a feed and two workers."""

    def __init__(self, market: Market) -> None:
        super().__init__()
        self.closing = ExitStack()
        market.prepare()
        self.live = self.closing.enter_context(LiveExchange.opened(market))
        self.places = dict.fromkeys(GRID, 0)
        self.batches: list[list[Quote]] = []
        self.claimed: list[tuple[UUID, dict[str, Any]]] = []
        self.holds = True

    @initialize(traded=st.lists(trades, min_size=2, max_size=4), placed=st.lists(some_wishes, min_size=4, max_size=8))
    def open_accounts(self, traded: list[Wish], placed: list[Wish]) -> None:
        """One that can carry all, one that can hardly carry any, one that has to convert."""
        self.live.account(tier="silver")
        self.live.account(balance=4_000)
        self.live.account(currency="EUR", tier="bronze", balance=60_000)
        for wish in traded:
            self.trade(wish)
        for wish in placed:
            self.place(wish)

    # --- traders --------------------------------------------------------------------------------------------------

    @rule(wish=trades)
    def trade(self, wish: Wish) -> None:
        price = self.price(wish.symbol, self.places[wish.symbol])
        asked = Asked(wish.symbol, wish.side, self.quantity(wish), **self.exits(wish, price))
        order = self.live.trade(self.account(wish.account), asked)
        event(f"traded: {outcome(order)}")

    def place(self, wish: Wish) -> None:
        order = self.live.place(self.account(wish.account), self.resting(wish))
        event(f"placed: {'held ' if wish.wants else ''}{wish.order_type} {outcome(order)}")

    @rule(order=picks)
    def cancel(self, order: int) -> None:
        placed = [(account, it) for account in self.live.model.accounts for it in account.orders if it.id.int]
        if placed:
            self.live.cancel(*placed[order % len(placed)])

    @rule(order=picks, level=leeways, size=picks, what=st.sampled_from(["price", "quantity", "both"]))
    def replace(self, order: int, level: int, size: int, what: str) -> None:
        """Another price or quantity, or both, of an order in whatever state."""
        known = [
            (account, it)
            for account in self.live.model.accounts
            for it in account.orders
            if it.id.int and not it.asked.conditions and it.asked.expires_at is None
        ]
        # Mostly one that works, and rather one of which a part is filled.
        working = [one for one in known if one[1].status in WORKING]
        parted = [one for one in working if one[1].fills]
        chosen_from = (parted if order % 2 else None) or (working if order % 5 else None) or known
        if chosen_from:
            account, chosen = chosen_from[order % len(chosen_from)]
            replaced = self.live.replace(account, chosen, **self.changes(chosen.asked, level, size, what))
            event(f"replaced: {chosen.asked.order_type} {outcome(replaced)}")

    @rule(position=picks, whole=st.booleans())
    def close(self, position: int, whole: bool) -> None:
        opened = [(account, it) for account in self.live.model.accounts for it in account.positions]
        if opened:
            account, chosen = opened[position % len(opened)]
            self.live.close(account, chosen, self.part(chosen, whole=whole))

    @rule(account=picks, batch=batches, wish=wishes)
    def while_suspended(self, account: int, batch: list[Move], wish: Wish) -> None:
        """What one account may not open any more, and can still close."""
        suspended = self.account(account)
        self.live.suspend(suspended, suspended=True)
        self.place(wish)
        self.record(batch)
        self.act(WORKERS[0], "work")
        self.live.suspend(suspended, suspended=False)

    # --- the feed -------------------------------------------------------------------------------------------------

    @rule(
        placed=st.lists(some_wishes, max_size=3), batch=batches, worker=st.sampled_from(WORKERS), does=what_workers_do
    )
    def live_on(self, placed: list[Wish], batch: list[Move], worker: UUID, does: str) -> None:
        """Orders come, prices move, and a worker may see to it."""
        for wish in placed:
            self.place(wish)
        self.record(batch)
        self.act(worker, does)

    def record(self, batch: list[Move]) -> None:
        quotes = [self.moved(*move) for move in batch]
        # the engine takes them by their times
        self.batches.append(sorted(quotes, key=lambda quote: quote.bid))
        self.live.record(self.batches[-1])

    @rule(batch=picks)
    def repeat_a_batch(self, batch: int) -> None:
        """Late, or a duplicate: each of it is as old as what stands, or older, and touches nothing."""
        if self.batches:
            queued = len(self.live.model.queue)
            self.live.record(self.batches[batch % len(self.batches)])
            assert all(touch.kind == "expiry" for touch in self.live.model.queue[queued:])

    # --- workers --------------------------------------------------------------------------------------------------

    @rule(worker=st.sampled_from(WORKERS), does=what_workers_do)
    def worker(self, worker: UUID, does: str) -> None:
        self.act(worker, does)

    def act(self, worker: UUID, does: str) -> None:
        match does:
            case "claim":  # and begins
                self.claimed += [(worker, row) for row in self.live.claim(worker)]
                self.execute(1)
            case "die":
                self.claimed += [(worker, row) for row in self.live.claim(worker, lasts=False)]
            case "come back":  # to rows that it has claimed anew since
                late = self.live.claim(worker, lasts=False)
                self.claimed += [(worker, row) for row in self.live.claim(worker)]
                for row in late[:2]:
                    event(f"executed: {row['kind']} {self.live.execute(row, worker)}")
            case "run out":
                self.live.leases_run_out()
            case "execute":
                self.execute(4)
            case "again":  # somebody comes back, or is told twice
                self.execute(2, again=True)
            case "work":
                for state in self.live.work():
                    event(f"worked off: {state}")
            case _:
                assert does == "nothing"

    def execute(self, count: int, *, again: bool = False) -> None:
        """The newest of what was claimed, by who has the lease or has lost it."""
        chosen = self.claimed[-count:]
        for holder, row in chosen:
            event(f"executed: {row['kind']} {self.live.execute(row, holder)}")
        if not again:
            self.claimed = self.claimed[:-count]

    # --- what holds -----------------------------------------------------------------------------------------------

    @invariant()
    def is_as_the_oracle_says(self) -> None:
        self.holds = False
        self.live.compare()
        self.holds = True

    def teardown(self) -> None:
        with self.closing:
            try:
                if self.holds:
                    self.live.work()
                    self.live.compare()
            finally:
                self.live.leave()

    # --- choices --------------------------------------------------------------------------------------------------

    def account(self, pick: int) -> ModelAccount:
        return self.live.model.accounts[pick % len(self.live.model.accounts)]

    def resting(self, wish: Wish) -> Asked:
        """What the wish comes to at the price of the moment."""
        rises = (wish.order_type in ("stop", "stop_limit")) == (wish.side == "buy")
        if wish.order_type in TRAILING:
            return self.trailing(wish)
        level = self.places[wish.symbol] + (1 if rises != wish.astray else -1) * wish.distance
        waits = self.price(wish.symbol, level)
        limit = waits if wish.order_type == "limit" else self.price(wish.symbol, level + wish.leeway)
        ends_at = self.live.next_at() + (SOON if wish.ends_soon else timedelta(days=1))
        time = wish.time_in_force if wish.order_type == "limit" or wish.time_in_force == "gtd" else "gtc"
        return Asked(
            wish.symbol,
            wish.side,
            self.quantity(wish),
            wish.order_type,
            limit_price=limit if "limit" in wish.order_type else None,
            stop_price=waits if wish.order_type not in ("limit", "market") else None,
            time_in_force=time,
            expires_at=ends_at if time == "gtd" else None,
            max_slippage=Decimal(GRID[wish.symbol][1]) if wish.capped else None,
            conditions=tuple(self.wanted(*want) for want in wish.wants),
            **({} if wish.order_type == "market" else self.exits(wish, limit if "limit" in wish.order_type else waits)),
        )

    def trailing(self, wish: Wish) -> Asked:
        """By an amount or a percentage, which puts its level between two ticks."""
        distance = (wish.distance + 1) * Decimal(GRID[wish.symbol][0])
        return Asked(
            wish.symbol,
            wish.side,
            self.quantity(wish),
            wish.order_type,
            trail_amount=None if wish.astray else distance,
            trail_percent=Decimal("0.137") if wish.astray else None,
            limit_offset=abs(wish.leeway) * distance if wish.order_type == "trailing_stop_limit" else None,
            max_slippage=Decimal(GRID[wish.symbol][1]) if wish.capped else None,
        )

    def changes(self, asked: Asked, level: int, size: int, what: str) -> dict[str, Decimal]:
        """Of an order; what trails can have another quantity alone."""
        sizes, price = GRID[asked.symbol][2], self.price(asked.symbol, self.places[asked.symbol] + level)
        names = [name for name in ("limit_price", "stop_price") if getattr(asked, name) is not None]
        changed = dict.fromkeys(names, price) if what != "quantity" else {}
        return changed if changed and what == "price" else changed | {"quantity": Decimal(sizes[size % len(sizes)])}

    def wanted(
        self, symbol: str, watch: Literal["bid", "ask"], direction: Literal["at_or_above", "at_or_below"], away: int
    ) -> Wanted:
        return Wanted(symbol, watch, direction, self.price(symbol, self.places[symbol] + away))

    def quantity(self, wish: Wish) -> Decimal:
        sizes = GRID[wish.symbol][2]
        return Decimal(sizes[wish.size % len(sizes)])

    def price(self, symbol: str, level: int) -> Decimal:
        return Decimal(QUOTES[symbol][0]) + level * Decimal(GRID[symbol][0])

    def exits(self, wish: Wish, price: Decimal) -> dict[str, Any]:
        step = Decimal(GRID[wish.symbol][0]) * (1 if wish.side == "buy" else -1)
        loss, profit = wish.exits
        return {
            "stop_loss": price - loss * step if loss else None,
            "take_profit": price + profit * step if profit else None,
        }

    def part(self, position: ModelPosition, *, whole: bool) -> Decimal:
        instrument, held = self.live.model.instruments[position.symbol], position.held.quantity
        half = held / 2 // instrument.quantity_step * instrument.quantity_step
        return held if whole or half < instrument.quantity_min else half

    def moved(self, symbol: str, move: int, spread: int) -> Quote:
        """Where the price has gone; it comes back from far away."""
        self.places[symbol] = max(-14, min(14, self.places[symbol] + move))
        bid = self.price(symbol, self.places[symbol])
        return Quote(symbol, bid, bid + spread * Decimal(GRID[symbol][1]), self.live.next_at())


def outcome(order: ModelOrder | None) -> str:
    """In words of the statistics."""
    if order is None:
        return "refused"
    return f"{order.status} {order.failure_code or ''}"


@pytest.fixture(scope="module")
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    """One database for all lives: each has accounts of its own. The books must hold after all of them."""
    with Market.checked(migrated) as market:
        yield market


def test_a_life_of_orders(market: Market) -> None:
    examples = int(os.environ.get(EXAMPLES_VARIABLE) or EXAMPLES)

    @seed(seeded().randrange(SEEDS))
    class Life(OrdersLive):
        def __init__(self) -> None:
            super().__init__(market)

    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=False,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
