"""The engine and its oracle side by side: whatever is done is done to both, told alike, and compared."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from tests.kit.builders import User
from tests.kit.exchange_model import (
    WORKING,
    Asked,
    Exchange,
    ModelAccount,
    ModelOrder,
    ModelPosition,
    Quote,
    Told,
)
from tests.kit.fault_runs import NO_LIMITS
from tests.kit.orders import QUOTES, Market, Outcome
from tests.kit.ticks import HOLDER, Ticker
from trading.accounts import Account
from trading.instruments import Instrument

LEVERAGE = Decimal(100)
# Longer than a run of many steps takes on a slow machine: nothing gets stale and no lease runs out by itself.
QUOTE_AGE_MS_MAX = 3_600_000
LEASE_MS = 3_600_000
NEVER = datetime.min.replace(tzinfo=UTC)
# Averages and conversions of PostgreSQL end after some twenty places, the oracle's after eighty.
ALIKE = Decimal("1e-9")
# Percent of the margin of both sides that a hedge needs; the third symbol gives nothing back.
HEDGED = {"EURUSD": Decimal(50), "USDJPY": Decimal(0), "AAPL": Decimal(100)}


@dataclass(slots=True)
class LiveExchange:
    """Accounts on the database, followed by the oracle. Each step asserts that both are told the same."""

    market: Market
    ticker: Ticker
    model: Exchange
    users: dict[UUID, User] = field(default_factory=dict[UUID, User])
    last_at: datetime = NEVER

    @classmethod
    @contextmanager
    def opened(cls, market: Market) -> Iterator[Self]:
        """On a prepared market, with its quotes as the standing ones."""
        market.execute("UPDATE instruments SET quote_age_ms_max = %s", (QUOTE_AGE_MS_MAX,))
        for hedged in HEDGED.items():
            market.execute("UPDATE instruments SET hedged_margin_percent = %s WHERE symbol = %s", hedged[::-1])
        with market.owner.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute("SELECT * FROM instruments WHERE symbol = ANY (%s)", (list(QUOTES),)).fetchall()
        with Ticker.opened(market) as ticker:
            live = cls(market, ticker, Exchange({row["symbol"]: Instrument.from_row(row) for row in rows}, HEDGED))
            live.look_at_quotes()
            yield live

    def look_at_quotes(self) -> None:
        """Take over the prices as they stand, and how volatile they are."""
        for symbol, bid, ask, at, volatility in self.market.execute(
            "SELECT symbol, bid, ask, quoted_at, volatility FROM quotes"
        ):
            self.model.quotes[symbol] = Quote(symbol, bid, ask, at)
            self.model.volatility[symbol] = volatility
            self.last_at = max(self.last_at, at)

    def account(self, *, currency: str = "USD", tier: str = "gold", balance: Decimal | int = 200_000) -> ModelAccount:
        """A new hedging account without limits, which have tests of their own."""
        limits = NO_LIMITS | {"max_working_orders": None}
        user = self.market.user(currency=currency, tier=tier, balance=balance, leverage=LEVERAGE, risk=limits)
        account = ModelAccount(user.account_id, Account(currency, "margin", LEVERAGE), tier, Decimal(balance))
        self.users[account.id] = user
        self.model.accounts.append(account)
        return account

    # --- what clients do ------------------------------------------------------------------------------------------

    def trade(self, account: ModelAccount, asked: Asked) -> ModelOrder | None:
        """A market order; None where nothing is kept."""
        return self._order(account, asked, self.market.trade, self.model.trade)

    def place(self, account: ModelAccount, asked: Asked) -> ModelOrder | None:
        """An order that waits for a price; None where nothing is kept."""
        return self._order(account, asked, self.market.place, self.model.place)

    def cancel(self, account: ModelAccount, order: ModelOrder) -> None:
        """Cancel an order in whatever state it is."""
        told, _ = outcome_of(lambda: self.market.cancel(self.users[account.id], order.id))
        same(told, self.model.cancel(order), order)

    def replace(self, account: ModelAccount, order: ModelOrder, **changes: Decimal) -> ModelOrder | None:
        """Put another order in the place of one, in whatever state it is; None where nothing is kept."""
        given = {name: str(value) for name, value in changes.items()}
        told, order_id = outcome_of(lambda: self.market.replace(self.users[account.id], order.id, **given))
        same(told, self.model.replace(account, order, order_id, changes), (order, changes))
        self._learn_positions(account)
        return None if told.state == "refused" else account.orders[-1]

    def close(self, account: ModelAccount, position: ModelPosition, quantity: Decimal) -> None:
        """Close so much of a position, open or not."""
        user = self.users[account.id]
        told, _ = outcome_of(lambda: self.market.close_out(user, position.id, quantity=str(quantity)))
        same(told, self.model.close(account, position, quantity), position)
        self._learn_positions(account)

    def suspend(self, account: ModelAccount, *, suspended: bool) -> None:
        """Whether its owner may open positions."""
        self.market.execute(
            "UPDATE profiles SET account_status = %s WHERE id = %s",
            ("suspended" if suspended else "active", self.users[account.id].user_id),
        )
        account.is_active = not suspended

    def _order(
        self,
        account: ModelAccount,
        asked: Asked,
        send: Callable[..., Outcome],
        follow: Callable[[ModelAccount, UUID, Asked], Told],
    ) -> ModelOrder | None:
        given = asdict(asked)
        conditions = [{name: str(value) for name, value in wanted.items()} for wanted in given.pop("conditions")]
        fields: dict[str, object] = {name: str(value) for name, value in given.items() if value is not None}
        if conditions:
            fields |= {"conditions": conditions}
        if asked.limit_price is None and (conditions or asked.order_type != "market"):
            fields |= {"limit_price": None}  # the builder gives one
        told, order_id = outcome_of(lambda: send(self.users[account.id], **fields))
        same(told, follow(account, order_id, asked), asked)
        self._learn_positions(account)
        if told.state == "refused":
            return None
        self._learn_conditions(account.orders[-1])
        return account.orders[-1]

    def _learn_positions(self, account: ModelAccount) -> None:
        """The ids that the database gave to new positions; an order's second one follows its first."""
        if all(position.id for position in account.positions):
            return
        rows = self.market.execute(
            "SELECT id, order_id FROM positions WHERE user_id = %s ORDER BY id", (self.users[account.id].user_id,)
        )
        known = {position.id for position in account.positions}
        for position_id, order_id in rows:
            if position_id not in known:
                mine = [it for it in account.positions if it.order.id == order_id and it.id is None]
                assert mine, "a position that the oracle does not know"
                mine[0].id = position_id
        assert all(position.id for position in account.positions), "a position that was not opened"

    def _learn_conditions(self, order: ModelOrder) -> None:
        """The ids that the database gave to what it looks for."""
        rows = self.market.execute("SELECT place, id FROM order_conditions WHERE order_id = %s", (order.id,))
        for place, condition_id in rows if order.conditions else ():
            order.conditions[place - 1].id = condition_id

    # --- what a quote does ----------------------------------------------------------------------------------------

    def next_at(self) -> datetime:
        """A time for the next quote: now, and after all before."""
        self.last_at = max(datetime.now(UTC), self.last_at + timedelta(microseconds=1))
        return self.last_at

    def quote(self, symbol: str, bid: Decimal, ask: Decimal) -> None:
        """One quote of now."""
        self.record([Quote(symbol, bid, ask, self.next_at())])

    def record(self, batch: Sequence[Quote]) -> None:
        """One batch, and what it queues."""
        queued = self.ticker.queued()
        before = self._clock()
        answer = self.ticker.record(*((quote.symbol, str(quote.bid), str(quote.ask), quote.at) for quote in batch))
        accepted = self.model.record(batch)
        self._follow_expiries(before)
        same(
            (answer["accepted"], answer["touched"]), (accepted, len(self.model.queue) - queued), "accepted and touched"
        )
        for symbol, volatility in self.market.execute("SELECT symbol, volatility FROM quotes"):
            self.model.volatility[symbol] = volatility
        self._compare_queue()

    def claim(self, holder: UUID, *, lasts: bool = True) -> list[dict[str, Any]]:
        """Lease what there is; a lease that does not last is one of a worker that dies with it."""
        claimed = self.ticker.claim(holder, lease_ms=LEASE_MS if lasts else 0)
        expected = self.model.claim(holder, lasts=lasts)
        same(
            {(row["subject_id"], row["fencing"]) for row in claimed},
            {(str(touch.subject.id), touch.fencing) for touch in expected},
            "what is claimed",
        )
        touches = {str(touch.subject.id): touch for touch in expected}
        for account in self.model.accounts:
            mine = [touches[row["subject_id"]].quote for row in claimed if row["account_id"] == str(account.id)]
            times = [quote.at for quote in mine if quote]
            same(times, sorted(times), "the order in which an account's are executed")
        return claimed

    def leases_run_out(self) -> None:
        """As if their time had passed."""
        self.market.execute("UPDATE trigger_queue SET lease_expires_at = clock_timestamp()")
        self.model.leases_run_out()

    def execute(self, claimed: dict[str, Any], holder: UUID) -> str:
        """One claimed row; what became of it."""
        state = self.ticker.execute(claimed, holder)["state"]
        same(state, self.model.execute(UUID(claimed["subject_id"]), holder, claimed["fencing"]), claimed)
        for account in self.model.accounts:
            if str(account.id) == claimed["account_id"]:
                self._learn_positions(account)
        return state

    def work(self, holder: UUID = HOLDER) -> list[str]:
        """All that is queued, whoever has it."""
        self.leases_run_out()
        return [self.execute(claimed, holder) for claimed in self.claim(holder)]

    def _clock(self) -> datetime:
        return self.market.execute("SELECT clock_timestamp()")[0][0]

    def _follow_expiries(self, before: datetime) -> None:
        """Which orders the database's clock ended in a batch is its to say, between the clock before and after."""
        rows = self.market.execute("SELECT subject_id FROM trigger_queue WHERE kind = 'expiry'")
        ended, after = {row[0] for row in rows}, self._clock()
        for account in self.model.accounts:
            for order in account.orders:
                ends_at = order.asked.expires_at
                if ends_at is None or order.status not in WORKING:
                    continue
                queued = [touch for touch in self.model.queue if touch.subject is order]
                if order.id in ended and not (queued and queued[0].kind == "expiry"):
                    # a touch of the batch's first quote would have come before
                    assert ends_at <= after, "an order that expired before its end"
                    assert not (queued and queued[0].round == 1), "an expiry before a touch that came first"
                    self.model.expire(account, order)
                assert queued or order.id in ended or ends_at > before, "an order that should have expired"

    # --- comparing ------------------------------------------------------------------------------------------------

    def compare(self) -> None:
        """Every account, order, fill, position and row of the queue against the oracle's, and the invariants."""
        self._compare_queue()
        for account in self.model.accounts:
            user = self.users[account.id]
            self._compare_account(account, user)
            self._compare_orders(account, user)
            self._compare_trades(account, user)

    def _compare_queue(self) -> None:
        rows = self.market.execute("SELECT subject_id, kind, bid, ask, quoted_at, lease_fencing FROM trigger_queue")
        expected = {
            touch.subject.id: (
                touch.kind,
                touch.quote and (touch.quote.bid, touch.quote.ask, touch.quote.at),
                touch.fencing,
            )
            for touch in self.model.queue
        }
        found = {row[0]: (row[1], None if row[1] == "expiry" else row[2:5], row[5]) for row in rows}
        same(found, expected, "the queue")

    def _compare_account(self, account: ModelAccount, user: User) -> None:
        (row,) = self.market.execute(
            "SELECT w.balance, w.margin_used, w.hedged_margin_credit, w.unrealized_pnl, "
            "(SELECT sum(amount) FROM ledger_entries WHERE user_id = %(id)s), "
            "(SELECT sum(margin_used) FROM positions WHERE user_id = %(id)s AND status = 'open'), "
            "(SELECT array_agg(sequence::bigint ORDER BY sequence) FROM events WHERE user_id = %(id)s), "
            "a.last_sequence FROM accounts AS a CROSS JOIN account_valuation(a.user_id, a.id) AS w "
            "WHERE a.user_id = %(id)s",
            {"id": user.user_id},
        )
        balance, margin_used, credit, unrealized, ledger, open_margin, sequences, last_sequence = row
        worth = self.model.worth(account)
        same((balance, margin_used), (worth.balance, worth.margin_used), "balance and margin")
        alike(unrealized, worth.unrealized_pnl, "unrealized P&L")
        same(
            (ledger, open_margin or 0),
            (balance, margin_used + credit),
            "the sums of the ledger and of the open margins",
        )
        same(sequences or [], list(range(1, last_sequence + 1)), "the events' sequence")

    def _compare_orders(self, account: ModelAccount, user: User) -> None:
        rows = {row["id"]: row for row in self.market.rows("orders", user)}
        states = self._states(user)
        same(len(rows), len(account.orders), "the number of orders")
        for order in account.orders:
            if order.id.int == 0:  # the platform's own, which the fills show
                continue
            row = rows[order.id]
            names = ("status", "filled_quantity", "leaves_quantity", "failure_code", "commission")
            expected = (order.status, order.filled, order.leaves, order.failure_code, order.commission)
            same(tuple(row[name] for name in names), expected, order)
            same(states[order.id], order.states, order)
            if order.status in WORKING:
                same(row["filled_quantity"] + row["leaves_quantity"], row["quantity"], order)
                same(row["held_quantity"], row["quantity"] if order.is_held else 0, order)
            met = [condition["met_at"] is not None for condition in row["conditions"] or ()]
            same(met, [condition.is_met for condition in order.conditions], order)
            if order.average_price is not None:
                alike(row["average_price"], order.average_price, order)
        rows = self.market.execute(
            "SELECT subject_id, mark, level FROM trailing_levels WHERE user_id = %s", (user.user_id,)
        )
        trailing = {it.id: (it.mark, it.level) for it in account.orders if it.trails}
        same({row[0]: row[1:] for row in rows}, trailing, "what trails")

    def _states(self, user: User) -> dict[UUID, list[str]]:
        """The states that each order went through, as the audit tells."""
        states: dict[UUID, list[str]] = {}
        rows = self.market.execute(
            "SELECT order_id, status FROM order_audit_log WHERE user_id = %s AND order_id IS NOT NULL ORDER BY version",
            (user.user_id,),
        )
        for order_id, status in rows:
            gone_through = states.setdefault(order_id, [])
            if gone_through[-1:] != [status]:
                gone_through.append(status)
        return states

    def _compare_trades(self, account: ModelAccount, user: User) -> None:
        rows = self.market.execute(
            "SELECT symbol, side, quantity, price, commission, realized_pnl FROM fills WHERE user_id = %s ORDER BY id",
            (user.user_id,),
        )
        expected = [
            (fill.symbol, fill.side, fill.quantity, fill.price, fill.commission, fill.realized_pnl)
            for fill in account.fills
        ]
        same(rows, expected, "the fills")
        positions = {row["id"]: row for row in self.market.rows("positions", user)}
        same(set(positions), {position.id for position in account.positions}, "the positions")
        for position in account.positions:
            assert position.id is not None
            row, held = positions[position.id], position.held
            status = "open" if position.is_open else "closed"
            names = ("symbol", "side", "quantity", "margin_used", "realized_pnl", "status")
            same(
                tuple(row[name] for name in names),
                (position.symbol, held.side, held.quantity, held.margin_used, position.realized_pnl, status),
                position,
            )
            alike(row["entry_price"], held.entry_price, position)

    # --- ending ---------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """End all that still waits or is held, so that who follows on the same database is alone."""
        for account in self.model.accounts:
            user = self.users[account.id]
            for row in self.market.rows("orders", user):
                if row["status"] in WORKING:
                    self.market.cancel(user, row["id"])
            for row in self.market.rows("positions", user):
                if row["status"] == "open":
                    self.market.close_out(user, row["id"])
        self.market.execute("DELETE FROM trigger_queue")


def outcome_of(send: Callable[[], Outcome]) -> tuple[Told, UUID]:
    """What a caller is told, and the order's id, zero where nothing is kept."""
    try:
        outcome = send()
    except psycopg.Error as error:
        if not (error.sqlstate or "").startswith("TR"):
            raise
        return Told("refused", error.sqlstate), UUID(int=0)
    answer = outcome.answer
    return Told(answer["outcome"], answer.get("code")), UUID(answer["order_id"])


def same(found: object, expected: object, what: object) -> None:
    """AssertionError that shows both, where the engine's is not the oracle's."""
    assert found == expected, f"{what}: {found}, expected {expected}"


def alike(found: Decimal, expected: Decimal, what: object) -> None:
    """The same but for the places at which PostgreSQL ends a quotient."""
    assert abs(found - expected) < ALIKE, f"{what}: {found}, expected {expected}"
