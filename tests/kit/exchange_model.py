"""An exchange by docs/orders.md, in memory: the oracle that the engine is held to.

Slow and plain, one rule after the other as the page has them. Hedging accounts in open markets with fresh prices; the
formulas of price, commission and margin are the layer's. Ids are the caller's, because the database makes them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Literal
from uuid import UUID

from trading.accounts import Account, Worth, round_money
from trading.conversion import Rates
from trading.instruments import Instrument
from trading.margin import required_margin
from trading.orders import Side
from trading.positions import Position, margin_after_reducing, realized_pnl, unrealized_pnl
from trading.pricing import EXACT, MarketPrice, commission, fill_price

ZERO = Decimal(0)
WORKING = ("new", "triggered", "partially_filled")
STOPS = ("stop", "stop_limit", "trailing_stop", "trailing_stop_limit")
TRIGGERED_FIRST = ("stop_limit", "limit_if_touched", "trailing_stop_limit")
SECONDS_A_DAY = 86_400
OPPOSITE: Mapping[Side, Side] = {"buy": "sell", "sell": "buy"}
OPENING_SIDE: Mapping[str, Side] = {"long": "buy", "short": "sell"}

type Kind = Literal["order", "condition", "stop_loss", "take_profit", "expiry"]


@dataclass(frozen=True, slots=True)
class Quote:
    """A two-sided price and its time."""

    symbol: str
    bid: Decimal
    ask: Decimal
    at: datetime

    def touched_side(self, side: Side) -> Decimal:
        """Buys look at the ask, sells at the bid."""
        return self.ask if side == "buy" else self.bid


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where a price has to be once before an order works."""

    symbol: str
    watch: Literal["bid", "ask"]
    direction: Literal["at_or_above", "at_or_below"]
    level: Decimal

    def is_met_by(self, quote: Quote) -> bool:
        """At the level, or beyond it."""
        price = quote.bid if self.watch == "bid" else quote.ask
        return price >= self.level if self.direction == "at_or_above" else price <= self.level


@dataclass(frozen=True, slots=True)
class Asked:
    """What an order asks for; prices as its type has them."""

    symbol: str
    side: Side
    quantity: Decimal
    order_type: str = "market"
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str = "gtc"
    expires_at: datetime | None = None
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    max_slippage: Decimal | None = None
    trail_amount: Decimal | None = None
    trail_percent: Decimal | None = None
    limit_offset: Decimal | None = None
    conditions: tuple[Wanted, ...] = ()

    @property
    def trails(self) -> bool:
        return self.trail_amount is not None or self.trail_percent is not None


@dataclass(eq=False, slots=True)
class ModelCondition:
    """A condition of an order; the id is known while the database looks for it."""

    order: "ModelOrder"
    wanted: Wanted
    is_met: bool = False
    id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Fill:
    """A trade; money in account currency."""

    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    commission: Decimal
    realized_pnl: Decimal


@dataclass(eq=False, slots=True)
class ModelOrder:
    """An order, its state and the states that it went through."""

    id: UUID
    asked: Asked
    status: str = "pending_new"
    states: list[str] = field(default_factory=lambda: ["pending_new"])
    fills: list[Fill] = field(default_factory=list[Fill])
    failure_code: str | None = None
    # Of one that trails: the best price since it was placed, and the level that stays behind it.
    mark: Decimal | None = None
    level: Decimal | None = None
    conditions: list[ModelCondition] = field(init=False)

    def __post_init__(self) -> None:
        self.conditions = [ModelCondition(self, wanted) for wanted in self.asked.conditions]

    @property
    def is_held(self) -> bool:
        return not all(condition.is_met for condition in self.conditions)

    @property
    def trails(self) -> bool:
        """Until it is touched and has been executed."""
        return self.asked.trails and self.status == "new"

    @property
    def stop_price(self) -> Decimal | None:
        return self.level if self.asked.trails else self.asked.stop_price

    @property
    def limit_price(self) -> Decimal | None:
        """Of one that trails it follows from its level."""
        offset = self.asked.limit_offset
        if offset is None or self.level is None:
            return self.asked.limit_price
        return self.level + offset if self.asked.side == "buy" else self.level - offset

    @property
    def filled(self) -> Decimal:
        return sum((fill.quantity for fill in self.fills), ZERO)

    @property
    def leaves(self) -> Decimal:
        return self.asked.quantity - self.filled if self.status in WORKING else ZERO

    @property
    def average_price(self) -> Decimal | None:
        return weighted((fill.quantity, fill.price) for fill in self.fills) if self.fills else None

    @property
    def commission(self) -> Decimal:
        return sum((fill.commission for fill in self.fills), ZERO)

    def become(self, status: str, code: str | None = None) -> None:
        """Enter a state; a code says why it failed."""
        self.status = status
        self.failure_code = code
        if self.states[-1] != status:
            self.states.append(status)

    def is_touched_by(self, quote: Quote) -> bool:
        """Whether what it waits for has come; nothing touches what is held, anything a market order that is not."""
        if self.is_held or self.asked.order_type == "market":
            return not self.is_held
        price, stop = quote.touched_side(self.asked.side), self.stop_price
        if self.status == "new" and stop is not None:
            wants_worse = self.asked.order_type in STOPS
            return is_worse(price, stop, self.asked.side) if wants_worse else is_better(price, stop, self.asked.side)
        assert self.limit_price is not None
        return is_better(price, self.limit_price, self.asked.side)

    def follow(self, quote: Quote, tick: Decimal) -> None:
        """Move the mark to a better price, and the level with it: on the tick, the farther one of two."""
        price, buys = quote.touched_side(self.asked.side), self.asked.side == "buy"
        if self.mark is not None and not is_beaten(self.mark, price, self.asked.side):
            return
        self.mark = price
        with localcontext(EXACT):
            distance = self.asked.trail_amount or price * (self.asked.trail_percent or ZERO) / 100
            ticks = (price + distance if buys else price - distance) / tick
            self.level = ticks.to_integral_value(ROUND_CEILING if buys else ROUND_FLOOR) * tick


@dataclass(eq=False, slots=True)
class ModelPosition:
    """A position and the order that opened it; the id is known when the database has told it."""

    order: ModelOrder
    symbol: str
    held: Position
    stop_loss: Decimal | None
    take_profit: Decimal | None
    realized_pnl: Decimal = ZERO
    id: UUID | None = None

    @property
    def is_open(self) -> bool:
        return self.held.quantity > 0

    @property
    def leaving_side(self) -> Side:
        return OPPOSITE[OPENING_SIDE[self.held.side]]

    def exit_touched_by(self, quote: Quote) -> Literal["stop_loss", "take_profit"] | None:
        """A stop loss before a take profit."""
        price, side = quote.touched_side(self.leaving_side), self.leaving_side
        if self.stop_loss is not None and is_worse(price, self.stop_loss, side):
            return "stop_loss"
        if self.take_profit is not None and is_better(price, self.take_profit, side):
            return "take_profit"
        return None


@dataclass(eq=False, slots=True)
class ModelAccount:
    """An account and all that happened in it, in order."""

    id: UUID
    terms: Account
    tier: str
    balance: Decimal
    is_active: bool = True
    orders: list[ModelOrder] = field(default_factory=list[ModelOrder])
    positions: list[ModelPosition] = field(default_factory=list[ModelPosition])
    fills: list[Fill] = field(default_factory=list[Fill])

    @property
    def margin_used(self) -> Decimal:
        """As the positions are booked."""
        return sum((position.held.margin_used for position in self.positions), ZERO)

    @property
    def held(self) -> list[tuple[str, Position]]:
        return [(position.symbol, position.held) for position in self.positions if position.is_open]


@dataclass(eq=False, slots=True)
class Touch:
    """A row of the queue. `round` is the place of its quote among those of its symbol in one batch."""

    account: ModelAccount
    subject: ModelOrder | ModelCondition | ModelPosition
    kind: Kind
    quote: Quote | None
    round: int = 1
    holder: UUID | None = None
    fencing: int = 0
    leased: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What the caller is told: the order's state, `refused` where nothing is kept, and the code of what failed."""

    state: str
    code: str | None = None


def is_better(price: Decimal, level: Decimal, side: Side) -> bool:
    """At the level or better for who trades `side`."""
    return price <= level if side == "buy" else price >= level


def is_worse(price: Decimal, level: Decimal, side: Side) -> bool:
    """At the level or worse for who trades `side`."""
    return is_better(price, level, OPPOSITE[side])


def is_beaten(mark: Decimal, price: Decimal, side: Side) -> bool:
    """Whether a stop that trails for `side` has a better mark in the price."""
    return price < mark if side == "buy" else price > mark


def weighted(parts: Iterable[tuple[Decimal, Decimal]]) -> Decimal:
    """The average price of (quantity, price)."""
    known = list(parts)
    with localcontext(EXACT):
        return sum((quantity * price for quantity, price in known), ZERO) / sum(
            (quantity for quantity, _ in known), ZERO
        )


def depth(instrument: Instrument) -> Decimal:
    """The lots at the touched side of one quote: what is traded in a second of an average day."""
    steps = instrument.daily_volume // (SECONDS_A_DAY * instrument.quantity_step)
    return max(instrument.quantity_min, steps * instrument.quantity_step)


@dataclass(slots=True)
class Exchange:
    """Accounts, the standing quotes and the queue of what they have touched."""

    instruments: Mapping[str, Instrument]
    # Percent of the margin of both sides that hedges need; all of it where a symbol is not named.
    hedged: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])
    accounts: list[ModelAccount] = field(default_factory=list[ModelAccount])
    quotes: dict[str, Quote] = field(default_factory=dict[str, Quote])
    # As fractions of the price: what the market is like, told by who records the quotes.
    volatility: dict[str, Decimal] = field(default_factory=dict[str, Decimal])
    queue: list[Touch] = field(default_factory=list[Touch])

    # --- what clients do ------------------------------------------------------------------------------------------

    def trade(self, account: ModelAccount, order_id: UUID, asked: Asked) -> Told:
        """A market order: filled at once, at the quote with slippage, whole."""
        order = ModelOrder(order_id, asked)
        code = None if account.is_active else "ACCOUNT_NOT_ACTIVE"
        price, slippage = self._slipped(self.quotes[asked.symbol], asked.side, asked.quantity)
        if code is None and asked.max_slippage is not None and slippage > asked.max_slippage:
            code = "SLIPPAGE_EXCEEDED"
        if code is None and not self._exits_fit(asked, price):
            return Told("refused", "TR006")
        quote = self.quotes[asked.symbol]
        if code is None and not self._has_margin(account, order, asked.quantity, price, quote):
            code = "INSUFFICIENT_MARGIN"
        account.orders.append(order)
        if code is not None:
            order.become("denied", code)
        else:
            self._open(account, order, asked.quantity, price)
        return Told(order.status, code)

    def place(self, account: ModelAccount, order_id: UUID, asked: Asked) -> Told:
        """An order that waits, unless the present quote touches it and nothing holds it."""
        order, quote = self._new_order(order_id, asked), self.quotes[asked.symbol]
        told = self._judge(account, order, quote)
        if told.state == "refused":
            return told
        account.orders.append(order)
        order.become(told.state, told.code)
        if told.state == "denied":
            return told
        for condition in order.conditions:
            condition.is_met = condition.wanted.is_met_by(self.quotes[condition.wanted.symbol])
        all_or_nothing = asked.time_in_force == "fok" and depth(self.instruments[asked.symbol]) < asked.quantity
        if order.is_touched_by(quote) and not all_or_nothing:
            self._act(account, order, quote)
        if asked.time_in_force in ("ioc", "fok") and order.status in WORKING:
            order.become("canceled")
        return Told(order.status, order.failure_code if order.status == "rejected" else None)

    def replace(self, account: ModelAccount, order: ModelOrder, order_id: UUID, changes: Mapping[str, Decimal]) -> Told:
        """A new order for what is left of the old one, judged and touched as if it were placed now, or not at all."""
        quantity = changes.get("quantity", order.asked.quantity)
        if order.status not in WORKING:
            return Told("refused", "TR009")
        if quantity <= order.filled:
            return Told("refused", "TR006")
        asked = replace(order.asked, **{**changes, "quantity": quantity - order.filled})
        new, quote = self._new_order(order_id, asked), self.quotes[asked.symbol]
        told = self._judge(account, new, quote)
        if told.state == "refused":
            return told
        new.become(told.state, told.code)
        if told.state == "new" and new.is_touched_by(quote):
            self._act(account, new, quote)
            if new.status == "rejected":
                code, new = new.failure_code, ModelOrder(order_id, asked)
                new.become("denied", code)
        if new.status != "denied":
            order.become("replaced")
        account.orders.append(new)
        return Told(new.status, new.failure_code)

    def cancel(self, order: ModelOrder) -> Told:
        """What works can be canceled."""
        if order.status not in WORKING:
            return Told("refused", "TR009")
        order.become("canceled")
        return Told("canceled")

    def close(self, account: ModelAccount, position: ModelPosition, quantity: Decimal) -> Told:
        """A position, or a part of it, at the market; open to everybody."""
        if not position.is_open:
            return Told("refused", "TR010")
        price, _ = self._slipped(self.quotes[position.symbol], position.leaving_side, quantity)
        self._reduce(account, position, quantity, price)
        return Told("filled")

    # --- what a quote does ----------------------------------------------------------------------------------------

    def record(self, batch: Sequence[Quote]) -> int:
        """One batch, those of a symbol by time; how many were newer than what stood. What they touch is queued."""
        accepted, rounds = 0, dict.fromkeys((quote.symbol for quote in batch), 0)
        for quote in sorted(batch, key=lambda quote: quote.at):
            rounds[quote.symbol] += 1
            standing = self.quotes.get(quote.symbol)
            if standing is None or quote.at > standing.at:
                accepted += 1
                self.quotes[quote.symbol] = quote
                self._queue_touched(quote, rounds[quote.symbol])
        return accepted

    def expire(self, account: ModelAccount, order: ModelOrder) -> None:
        """Its time is over: queued, in the place of a touch that came later."""
        self.queue = [touch for touch in self.queue if touch.subject is not order]
        self.queue.append(Touch(account, order, "expiry", None))

    def claim(self, holder: UUID, *, lasts: bool) -> list[Touch]:
        """Lease what is queued but of accounts of which somebody has a lease."""
        taken = {id(touch.account) for touch in self.queue if touch.leased}
        claimed = [touch for touch in self.queue if id(touch.account) not in taken]
        for touch in claimed:
            touch.holder, touch.leased, touch.fencing = holder, lasts, touch.fencing + 1
        return claimed

    def leases_run_out(self) -> None:
        """Whoever holds one has taken too long."""
        for touch in self.queue:
            touch.leased = False

    def execute(self, subject: UUID, holder: UUID, fencing: int) -> str:
        """One row of the queue, at the quote that touched; the state that it came to."""
        mine = [touch for touch in self.queue if touch.subject.id == subject]
        if not mine or (mine[0].holder, mine[0].fencing) != (holder, fencing):
            return "lost"
        self.queue.remove(mine[0])
        if isinstance(mine[0].subject, ModelOrder):
            return self._execute_order(mine[0], mine[0].subject)
        if isinstance(mine[0].subject, ModelCondition):
            return self._execute_condition(mine[0], mine[0].subject)
        return self._execute_exit(mine[0], mine[0].subject)

    def _new_order(self, order_id: UUID, asked: Asked) -> ModelOrder:
        order = ModelOrder(order_id, asked)
        if asked.trails:
            order.follow(self.quotes[asked.symbol], self.instruments[asked.symbol].tick_size)
        return order

    def _judge(self, account: ModelAccount, order: ModelOrder, quote: Quote) -> Told:
        """What an order that waits is told as it comes: new, denied, or refused with nothing kept."""
        asked = order.asked
        own_price = order.limit_price or order.stop_price or quote.touched_side(asked.side)
        if not account.is_active:
            return Told("denied", "ACCOUNT_NOT_ACTIVE")
        if not (self._stop_waits(asked, quote) and self._exits_fit(asked, own_price)):
            return Told("refused", "TR006")
        if not self._has_margin(account, order, asked.quantity, own_price, None):
            return Told("denied", "INSUFFICIENT_MARGIN")
        return Told("new")

    def _queue_touched(self, quote: Quote, place: int) -> None:
        queued = {id(touch.subject) for touch in self.queue}
        tick = self.instruments[quote.symbol].tick_size
        for account in self.accounts:
            for order in account.orders:
                if order.trails and order.asked.symbol == quote.symbol and id(order) not in queued:
                    # before the level is tested; what is touched stands still
                    order.follow(quote, tick)
                waits = order.asked.symbol == quote.symbol and order.status in WORKING and id(order) not in queued
                if waits and order.is_touched_by(quote):
                    self.queue.append(Touch(account, order, "order", quote, place))
                for condition in order.conditions if order.status in WORKING else ():
                    waits = condition.wanted.symbol == quote.symbol and not condition.is_met
                    if waits and id(condition) not in queued and condition.wanted.is_met_by(quote):
                        self.queue.append(Touch(account, condition, "condition", quote, place))
            for position in account.positions:
                waits = position.symbol == quote.symbol and position.is_open and id(position) not in queued
                if waits and (kind := position.exit_touched_by(quote)):
                    self.queue.append(Touch(account, position, kind, quote, place))

    def _execute_order(self, touch: Touch, order: ModelOrder) -> str:
        if order.status not in WORKING:
            return "idle"
        ends_at = order.asked.expires_at
        if touch.quote is None or (ends_at is not None and ends_at <= touch.quote.at):
            order.become("expired")
        elif order.is_touched_by(touch.quote):
            self._act(touch.account, order, touch.quote)
        else:
            return "idle"
        return order.status

    def _execute_condition(self, touch: Touch, condition: ModelCondition) -> str:
        """With the last one the order works as if it were placed now."""
        assert touch.quote is not None
        order = condition.order
        standing, ends_at = self.quotes[order.asked.symbol], order.asked.expires_at
        if order.status not in WORKING:
            return "idle"
        if ends_at is not None and ends_at <= touch.quote.at:
            order.become("expired")
            return order.status
        condition.is_met = True
        if order.is_touched_by(standing):
            if ends_at is not None and ends_at <= standing.at:
                order.become("expired")
            else:
                self._act(touch.account, order, standing)
        return order.status

    def _execute_exit(self, touch: Touch, position: ModelPosition) -> str:
        assert touch.quote is not None
        if not position.is_open:
            return "idle"
        side, quantity = position.leaving_side, position.held.quantity
        price = touch.quote.touched_side(side)
        if position.exit_touched_by(touch.quote) == "stop_loss":
            price, _ = self._slipped(touch.quote, side, quantity)
        self._reduce(touch.account, position, quantity, price)
        return "filled"

    def _act(self, account: ModelAccount, order: ModelOrder, quote: Quote) -> None:
        """An order at a quote that touches it."""
        if order.status == "new" and order.asked.order_type in TRIGGERED_FIRST:
            order.become("triggered")
            if not order.is_touched_by(quote):
                return
        if order.limit_price is not None:
            quantity = min(order.leaves, depth(self.instruments[order.asked.symbol]))
            price, slippage = quote.touched_side(order.asked.side), ZERO
        else:
            quantity = order.leaves
            price, slippage = self._slipped(quote, order.asked.side, quantity)
        code = None
        if not account.is_active:
            code = "ACCOUNT_NOT_ACTIVE"
        elif order.asked.max_slippage is not None and slippage > order.asked.max_slippage:
            code = "SLIPPAGE_EXCEEDED"
        elif not self._has_margin(account, order, quantity, price, quote):
            code = "INSUFFICIENT_MARGIN"
        if code is not None:
            order.become("canceled" if order.fills else "rejected", code)
        else:
            self._open(account, order, quantity, price)

    # --- what is booked -------------------------------------------------------------------------------------------

    def _open(self, account: ModelAccount, order: ModelOrder, quantity: Decimal, price: Decimal) -> None:
        """A fill of an order: it opens a position of its own, or adds to the one that the order has opened."""
        asked = order.asked
        charged = self._commission(account, order, quantity)
        margin = self._margin(account, asked.symbol, quantity, price)
        fill = Fill(asked.symbol, asked.side, quantity, price, charged, ZERO)
        mine = [position for position in account.positions if position.order is order and position.is_open]
        if mine:
            held = mine[0].held
            entry = weighted([(held.quantity, held.entry_price), (quantity, price)])
            mine[0].held = Position(held.side, held.quantity + quantity, entry, held.margin_used + margin)
        else:
            side = "long" if asked.side == "buy" else "short"
            account.positions.append(
                ModelPosition(
                    order, asked.symbol, Position(side, quantity, price, margin), asked.stop_loss, asked.take_profit
                )
            )
        self._book(account, order, fill)

    def _reduce(self, account: ModelAccount, position: ModelPosition, quantity: Decimal, price: Decimal) -> None:
        """A fill of an order of its own that takes from a position."""
        instrument, held = self.instruments[position.symbol], position.held
        currency, rates = account.terms.currency, self._rates()
        order = ModelOrder(UUID(int=0), Asked(position.symbol, position.leaving_side, quantity))
        gained = realized_pnl(held, quantity, price, instrument, currency, rates)
        charged = self._commission(account, order, quantity)
        margin = margin_after_reducing(held, quantity, currency)
        position.held = Position(held.side, held.quantity - quantity, held.entry_price, margin)
        position.realized_pnl += gained
        account.orders.append(order)
        self._book(account, order, Fill(position.symbol, order.asked.side, quantity, price, charged, gained))

    def _book(self, account: ModelAccount, order: ModelOrder, fill: Fill) -> None:
        order.fills.append(fill)
        account.fills.append(fill)
        account.balance += fill.realized_pnl - fill.commission
        order.become("filled" if order.filled == order.asked.quantity else "partially_filled")

    # --- what it costs --------------------------------------------------------------------------------------------

    def worth(self, account: ModelAccount) -> Worth:
        """Marked at the standing quotes."""
        rates = self._rates()
        marked = (
            unrealized_pnl(
                position.held,
                self.instruments[position.symbol],
                rates.quotes[position.symbol],
                account.terms.currency,
                rates,
            )
            for position in account.positions
            if position.is_open
        )
        margin_used = account.margin_used - self._credit(account, account.held)
        return Worth(account.balance, sum(marked, ZERO), margin_used)

    def _has_margin(
        self, account: ModelAccount, order: ModelOrder, quantity: Decimal, price: Decimal, quote: Quote | None
    ) -> bool:
        """With the commission, and the new position marked at the other side of the quote that fills it, if any."""
        margin = self._margin(account, order.asked.symbol, quantity, price)
        side = "long" if order.asked.side == "buy" else "short"
        opened = Position(side, quantity, price, margin)
        with_it = [*account.held, (order.asked.symbol, opened)]
        covered = self._credit(account, with_it) - self._credit(account, account.held)
        needed = margin - covered + self._commission(account, order, quantity)
        if quote is not None:
            instrument, marked = self.instruments[order.asked.symbol], self._priced(quote)
            needed -= unrealized_pnl(opened, instrument, marked, account.terms.currency, self._rates())
        return needed <= self.worth(account).free_margin

    def _credit(self, account: ModelAccount, held: Sequence[tuple[str, Position]]) -> Decimal:
        """Of what is covered on both sides, at the average of each, all but the percent of its instrument."""
        credit = ZERO
        for symbol, percent in self.hedged.items():
            sides = [[each for name, each in held if (name, each.side) == (symbol, side)] for side in OPENING_SIDE]
            lots = [sum((each.quantity for each in side), ZERO) for side in sides]
            if not all(lots):
                continue
            with localcontext(EXACT):
                each_lot = [
                    sum((each.margin_used for each in side), ZERO) / of for side, of in zip(sides, lots, strict=True)
                ]
                credit += round_money(sum(each_lot) * min(lots) * (1 - percent / 100), account.terms.currency)
        return credit

    def _margin(self, account: ModelAccount, symbol: str, quantity: Decimal, price: Decimal) -> Decimal:
        return required_margin(account.terms, self.instruments[symbol], quantity, price, self._rates())

    def _commission(self, account: ModelAccount, order: ModelOrder, quantity: Decimal) -> Decimal:
        """Of a part: what the whole until now would cost in one, less what it would have cost without this part."""
        instrument = self.instruments[order.asked.symbol]

        def of_one(lots: Decimal) -> Decimal:
            amount = -commission(instrument, lots, account.tier) if lots else ZERO
            currency = account.terms.currency
            return -round_money(self._rates().convert(amount, instrument.quote_currency, currency), currency)

        return of_one(order.filled + quantity) - of_one(order.filled)

    def _slipped(self, quote: Quote, side: Side, quantity: Decimal) -> tuple[Decimal, Decimal]:
        instrument = self.instruments[quote.symbol]
        filled = fill_price(instrument, self._priced(quote), side, quantity, seed=None, after_hours=False)
        return filled.price, filled.slippage

    def _priced(self, quote: Quote) -> MarketPrice:
        return MarketPrice(quote.bid, quote.ask, self.volatility[quote.symbol])

    def _rates(self) -> Rates:
        return Rates({symbol: self._priced(quote) for symbol, quote in self.quotes.items()})

    @staticmethod
    def _stop_waits(asked: Asked, quote: Quote) -> bool:
        """A stop waits for the market to come to it; where that is when it is not held any more, nobody knows."""
        if asked.order_type not in ("stop", "stop_limit") or asked.conditions:
            return True
        assert asked.stop_price is not None
        return not is_worse(quote.touched_side(asked.side), asked.stop_price, asked.side)

    @staticmethod
    def _exits_fit(asked: Asked, price: Decimal) -> bool:
        """A stop loss on the losing side of the price, a take profit on the winning one."""
        sign = 1 if asked.side == "buy" else -1
        loss, profit = asked.stop_loss, asked.take_profit
        return (loss is None or (price - loss) * sign > 0) and (profit is None or (profit - price) * sign > 0)
