"""A run under faults on one database: clients of the procedures that move money, and the one checker that closes it."""

import itertools
import random
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from database.verify import book_faults
from tests.kit import ticks
from tests.kit.builders import User, make_user, order_request
from tests.kit.gateway import eventually
from tests.kit.linked import bracket_request, leg, linked_request, stop_leg
from tests.kit.load import Acknowledged, Load
from tests.kit.orders import Market
from tests.kit.servers import ScratchDatabase
from tests.kit.ticks import execution_request
from trading.errors import ErrorCode, TradingError
from trading.store.database import Database

# Longer than any run, so that no price goes stale while servers are down.
QUOTE_AGE_MS = 3_600_000
NO_LIMITS: dict[str, object] = {
    "max_position_size": None,
    "max_positions": None,
    "daily_trade_limit": None,
    "max_daily_loss": None,
}
SETTLING_SECONDS = 20.0
REPLAYS = 20
TICK_SECONDS = 0.02
OF_A_PLAN = "close-all:%"
# What the sessions of clients are called in the database.
CLIENT = "load"

type Request = dict[str, object]


@dataclass(frozen=True, slots=True)
class Operation:
    """A procedure that takes one keyed request, and how a client's next request of it is drawn.

    `refusals` are the errors that it may end in under a load, with nothing kept: what it meant is gone by then, or was
    of another kind. It `makes` so many orders, one of them under its key, several under none.
    """

    procedure: str
    draw: Callable[["ProcedureClient"], Request]
    refusals: frozenset[ErrorCode] = frozenset()
    makes: int = 1


def market_order(client: "ProcedureClient") -> Request:
    """A small market order: on a netting account it adds to the position or reduces it, as it comes."""
    symbol = client.dice.choice(("EURUSD", "GBPUSD", "AAPL"))
    quantity = client.dice.choice(("0.1", "0.2", "0.3"))
    return order_request(client.user, symbol=symbol, side=client.dice.choice(("buy", "sell")), quantity=quantity)


def resting_order(client: "ProcedureClient") -> Request:
    """A limit far below the market, so that it rests."""
    return order_request(client.user, side="buy", order_type="limit", limit_price="1.0500", quantity="0.1")


def order_of_any_type(client: "ProcedureClient") -> Request:
    """An order that waits for a price or a time near the market, or hides a part of itself."""
    fields = client.dice.choice(RESTING_TYPES)
    return order_request(client.user, **{"quantity": "0.2", "side": client.dice.choice(("buy", "sell"))} | fields)


def pair(client: "ProcedureClient") -> Request:
    """Two orders of which a fill cancels the other."""
    both = (leg(limit_price="1.0990", quantity="0.2"), stop_leg(stop_price="1.1015", quantity="0.2"))
    return _keyless(linked_request(client.user, "oco", *both))


def parent_with_child(client: "ProcedureClient") -> Request:
    """An order at the market, and one that works once that is filled."""
    parent = leg(order_type="market", limit_price=None, quantity="0.2")
    return _keyless(linked_request(client.user, "oto", parent, stop_leg(stop_price="1.1010", quantity="0.1")))


def bracket(client: "ProcedureClient") -> Request:
    """An entry near the market with its exits."""
    exits = {"take_profit": {"limit_price": "1.1015"}, "stop_loss": {"stop_price": "1.0985"}}
    return _keyless(bracket_request(client.user, leg(limit_price="1.0995", quantity="0.2"), **exits))


def cancellation(client: "ProcedureClient") -> Request:
    """The cancellation of an order of the client's that may rest, or never did."""
    return _change(client, order_id=client.dice.choice(client.orders) if client.orders else str(client.user.user_id))


def replacement(client: "ProcedureClient") -> Request:
    """Another order, at another limit, in the place of one of the client's that may rest."""
    limit = client.dice.choice(("1.0400", "1.0450"))
    order = client.dice.choice(client.orders) if client.orders else str(client.user.user_id)
    return _change(client, order_id=order, limit_price=limit)


def closing(client: "ProcedureClient") -> Request:
    """The close of a position of the client's, whole or in part, that may be closed already."""
    part = client.dice.choice(({}, {"quantity": "0.1"}))
    position = client.dice.choice(client.positions) if client.positions else str(client.user.user_id)
    return _change(client, position_id=position, **part)


def levels(client: "ProcedureClient") -> Request:
    """Other levels for a position of the client's, that may be closed already."""
    asked = client.dice.choice(({"trailing_distance": "0.01"}, {"stop_loss": None, "take_profit": None}))
    position = client.dice.choice(client.positions) if client.positions else str(client.user.user_id)
    return _change(client, position_id=position, levels=asked)


def closing_by(client: "ProcedureClient") -> Request:
    """The close of a long position against a short one, of which either may be closed already."""
    long, short = (client.held.get(side, [str(client.user.user_id)]) for side in ("buy", "sell"))
    return _change(client, position_id=client.dice.choice(long), opposite_position_id=client.dice.choice(short))


def closing_all(client: "ProcedureClient") -> Request:
    """The plan to close what loses, a few at a time; `send` closes what it names."""
    return _change(client, which="losers", positions_max=3)


def _keyless(request: Request) -> Request:
    return {name: value for name, value in request.items() if name not in ("idempotency_key", "request_hash")}


def _change(client: "ProcedureClient", **fields: object) -> Request:
    common = ("version", "user_id", "idempotency_key_days", "request_id", "ip_address", "user_agent", "email")
    return {name: value for name, value in order_request(client.user).items() if name in common} | fields


# EURUSD stands at 1.1000/1.1002 and goes up and down by 20 pips while it ticks.
RESTING_TYPES: tuple[Request, ...] = (
    {"order_type": "limit", "side": "buy", "limit_price": "1.0990", "stop_loss": "1.0980", "take_profit": "1.1015"},
    {"order_type": "limit", "side": "buy", "limit_price": "1.0400", "display_quantity": "0.1", "post_only": True},
    {"order_type": "stop", "side": "buy", "stop_price": "1.1010"},
    {"order_type": "stop_limit", "side": "sell", "stop_price": "1.0990", "limit_price": "1.0988"},
    {"order_type": "market_if_touched", "side": "buy", "stop_price": "1.0992"},
    {"order_type": "limit_if_touched", "side": "sell", "stop_price": "1.1010", "limit_price": "1.1012"},
    {"order_type": "trailing_stop", "trail_amount": "0.0010"},
    {"order_type": "trailing_stop_limit", "trail_percent": "0.1", "limit_offset": "0.0002"},
    {"order_type": "limit", "side": "buy", "limit_price": "1.0400", "time_in_force": "cls"},
)
GONE = frozenset({ErrorCode.NOT_FOUND, ErrorCode.CONFLICT})
# What is asked of a limit order alone finds another one, and a pair may be none.
OF_ANOTHER_KIND = frozenset({ErrorCode.VALIDATION_FAILED})
MARKET_ORDER = Operation("execute_order_atomic", market_order)
RESTING_ORDER = Operation("place_order", resting_order)
# A position on either side of a hedging account.
LONG, SHORT = (
    Operation("execute_order_atomic", lambda client, s=side: order_request(client.user, side=s, quantity="0.2"))
    for side in ("buy", "sell")
)
# Every procedure that moves money or positions by an order takes part in the load by a line here.
OPERATIONS = (
    MARKET_ORDER,
    RESTING_ORDER,
    # A pair that is touched at once, or a price that has come, is another kind of order by now.
    Operation("place_order", order_of_any_type, OF_ANOTHER_KIND),
    Operation("place_linked_orders", pair, OF_ANOTHER_KIND, makes=2),
    Operation("place_linked_orders", parent_with_child, OF_ANOTHER_KIND, makes=2),
    Operation("place_linked_orders", bracket, OF_ANOTHER_KIND, makes=3),
    Operation("cancel_order", cancellation, frozenset({ErrorCode.NOT_FOUND, ErrorCode.ORDER_NOT_CANCELABLE}), makes=0),
    Operation("replace_order", replacement, GONE | OF_ANOTHER_KIND | {ErrorCode.ORDER_NOT_CANCELABLE}),
    Operation("close_position", closing, GONE),
    Operation("close_by", closing_by, GONE | OF_ANOTHER_KIND),
    Operation("change_position", levels, GONE | OF_ANOTHER_KIND, makes=0),
    Operation("plan_closes", closing_all, makes=0),
)


class ProcedureClient:
    """A worker's view of the database: one connection, the requests that it has sent, what they made."""

    def __init__(
        self, url: Callable[[], str], user: User, dice: random.Random, operations: Sequence[Operation] = OPERATIONS
    ) -> None:
        self.user = user
        self.dice = dice
        self.opened = 0
        self.sent: dict[str, tuple[Operation, Request]] = {}
        self.orders: list[str] = []
        self.positions: list[str] = []
        self.held: dict[str, list[str]] = {}
        self._url = url
        self._operations = operations
        self.database = Database(self._counted_url)

    def attempt(self, key: str, number: int) -> Mapping[str, Any] | None:
        """As Client says, of any of the client's operations."""
        return self.send(key, self.sent[key][0] if key in self.sent else self.dice.choice(self._operations))

    def send(self, key: str, operation: Operation) -> Mapping[str, Any] | None:
        """An attempt of one operation. An error that it may end in is {"refused"}, any other one is raised."""
        if key not in self.sent:
            request = operation.draw(self) | {"idempotency_key": key, "request_hash": f"hash of {key}"}
            self.sent[key] = (operation, request)
        try:
            answer = self.call(key)["answer"]
            for planned in answer.get("positions", ()) if answer["outcome"] == "planned" else ():
                asked = self.sent[key][1] | {"position_id": planned["position_id"]}
                self.database.call("close_planned", asked)
        except TradingError as error:
            if error.code in operation.refusals:
                return {"refused": error.code}
            if error.code is not ErrorCode.DATABASE_UNAVAILABLE:
                raise
            return None
        if answer["outcome"] == "new":
            self.orders.append(answer["order_id"])
        self.orders += [order["order_id"] for order in answer.get("orders", ())]
        if answer.get("position_id"):
            self.positions.append(answer["position_id"])
            if operation.procedure == "execute_order_atomic" and self.sent[key][1]["symbol"] == "EURUSD":
                self.held.setdefault(str(self.sent[key][1]["side"]), []).append(answer["position_id"])
        return answer

    def call(self, key: str) -> Any:
        """Send what was sent under `key`, and give what the procedure returns."""
        operation, request = self.sent[key]
        return self.database.call(operation.procedure, request)

    def _counted_url(self) -> str:
        self.opened += 1
        return self._url()


class FaultRun:
    """A database whose markets are open and whose prices hold, and what happens on it."""

    def __init__(self, database: ScratchDatabase, dice: random.Random) -> None:
        self.database = database
        self.dice = dice
        self.clients: list[ProcedureClient] = []
        with Market.opened(database) as market:
            market.execute("UPDATE instruments SET quote_age_ms_max = %s", (QUOTE_AGE_MS,))

    def execute(self, statement: str, *parameters: object) -> list[Any]:
        """The rows of a statement run as the owner."""
        with self.database.connect() as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def elsewhere(self, statement: str) -> None:
        """Run a statement from another database of the server, as when this one takes no connections."""
        with psycopg.connect(self.database.postgres.url(database="postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def value(self, statement: str, *parameters: object) -> Any:
        """The first column of the first row."""
        return self.execute(statement, *parameters)[0][0]

    def user(self, **facts: Any) -> User:
        """A user whom no risk limit binds."""
        return make_user(self.database, risk=NO_LIMITS, **facts)

    def users(self, count: int) -> list[User]:
        """Users of each kind of account by turns."""
        kinds = ({"position_mode": "hedging"}, {"position_mode": "netting"}, {"kind": "cash"})
        return [self.user(**kinds[number % len(kinds)]) for number in range(count)]

    def client(self, user: User, operations: Sequence[Operation] = OPERATIONS) -> ProcedureClient:
        """A client with dice of its own, so that the others' pace does not change what it draws."""
        dice = random.Random(self.dice.random())
        url = f"{self.database.url_for('function_trader')}?application_name={CLIENT}"
        client = ProcedureClient(lambda: url, user, dice, operations)
        self.clients.append(client)
        return client

    def load(self, count: int) -> Load:
        """As many clients, each with an account of its own but for the last two, who share one."""
        users = self.users(count - 1)
        return Load([self.client(user) for user in [*users, users[-1]]])

    @contextmanager
    def ticking(self) -> Iterator[None]:
        """EURUSD goes up and down inside, and two workers execute what it touches; at the end nothing is queued."""
        over = threading.Event()
        threads = ThreadPoolExecutor(3)
        works = [threads.submit(self._feed, over), *(threads.submit(self.execute_touched, over) for _ in range(2))]
        try:
            yield
        finally:
            over.set()
            threads.shutdown()
        for work in works:
            work.result()

    def record(self, symbol: str, bid: str, ask: str) -> None:
        """A quote of now, which touches what it does."""
        with self.database.connect("function_prices") as connection:
            _record(connection, symbol, bid, ask)

    def execute_touched(self, over: threading.Event | None = None) -> list[str]:
        """Work off what quotes have touched, until `over` and nothing is queued; the states that it came to."""
        holder, states = uuid.uuid4(), list[str]()
        asked = {"holder": str(holder), "users": 3, "limit": 20, "lease_ms": 60_000}
        with self.database.connect("function_triggers") as connection:
            while True:
                last = over is None or over.is_set()
                claimed = ticks.call(connection, "claim_triggers", asked)
                for row in claimed:
                    states.append(ticks.call(connection, "execute_trigger", execution_request(row, holder))["state"])
                if last and not claimed:
                    return states
                if over and not claimed:
                    over.wait(TICK_SECONDS)

    def _feed(self, over: threading.Event) -> None:
        with self.database.connect("function_prices") as connection:
            for number in itertools.count():
                pips = abs(number % 80 - 40) - 20
                _record(connection, "EURUSD", f"{1.1 + pips / 10_000:.4f}", f"{1.1002 + pips / 10_000:.4f}")
                if over.wait(TICK_SECONDS):
                    return

    def at_once(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """What each call returned, all of them begun together."""
        start = threading.Barrier(len(calls))

        def begin(call: Callable[[], Any]) -> Any:
            start.wait()
            return call()

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(begin, calls))

    @contextmanager
    def held(self, user: User) -> Iterator["HeldCalls"]:
        """The user's account stays locked inside; whoever was begun there wants it at the end, all at once."""
        calls = HeldCalls(self)
        with self.database.connect(autocommit=False) as holder:
            holder.execute("SELECT FROM accounts WHERE user_id = %s FOR NO KEY UPDATE", (user.user_id,))
            try:
                yield calls
            finally:
                holder.rollback()
                calls.join()

    def settle(self, load: Load | None = None, *, deadlocks: int = 0) -> None:
        """The final checker: I1 to I7 in SQL, I1, I5 and I8 as callers see them, and I9.

        The database's own count of deadlocks has to be `deadlocks`.
        """
        eventually(lambda: not self.hanging(), seconds=SETTLING_SECONDS, what="the end of every transaction and wait")
        with self.database.connect() as connection:
            assert book_faults(connection) == []
        if load is not None:
            self.check_acknowledged(load)
        for client in self.clients:
            order = client.send(f"after the faults {uuid.uuid4()}", MARKET_ORDER)
            assert order, "no order goes through after the faults"
        # A session reports what it counted at its end.
        self.close()
        eventually(lambda: self.sessions(CLIENT) == 0, what="the end of the clients' sessions")
        assert self.deadlocks() == deadlocks

    def check_acknowledged(self, load: Load) -> None:
        """Each answered key is kept with its answer's order, no other key has one, and it is answered again."""
        clients = [client for client in load.clients if isinstance(client, ProcedureClient)]
        told: dict[User, dict[str, str]] = {client.user: {} for client in clients}
        made: dict[User, dict[str, str]] = {client.user: {} for client in clients}
        answered: list[tuple[ProcedureClient, Acknowledged]] = []
        for one in load.acknowledged:
            if isinstance(one.client, ProcedureClient) and "refused" not in one.answer:
                answered.append((one.client, one))
                if "order_id" not in one.answer:
                    continue
                told[one.client.user][one.key] = one.order_id
                if one.client.sent[one.key][0].makes == 1:
                    made[one.client.user][one.key] = one.order_id
        for user, answers in told.items():
            # The platform's own orders have no key; those of a plan have keys that were made of it.
            orders = self.execute(
                "SELECT idempotency_key, id::text FROM orders WHERE user_id = %s AND idempotency_key NOT LIKE %s",
                user.user_id,
                OF_A_PLAN,
            )
            keys = self.execute(
                "SELECT idempotency_key, answer ->> 'order_id' FROM idempotency_keys "
                "WHERE user_id = %s AND answer ? 'order_id' AND idempotency_key NOT LIKE %s",
                user.user_id,
                OF_A_PLAN,
            )
            assert len(orders) == len(dict(orders)), "a key has two orders"
            assert (dict(orders), dict(keys)) == (made[user], answers), "answers and orders differ"
        for client, one in self.dice.sample(answered, min(REPLAYS, len(answered))):
            assert client.call(one.key) == {"replayed": True, "answer": one.answer}

    def hanging(self) -> list[Any]:
        """Sessions that sit in a transaction or wait for a lock."""
        return self.execute(
            "SELECT pid, usename, state, query FROM pg_stat_activity WHERE datname = current_database() "
            "AND (state LIKE 'idle in transaction%%' OR wait_event_type = 'Lock')"
        )

    def waiting(self) -> int:
        """How many of the function's sessions wait for a lock."""
        return self.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND wait_event_type = 'Lock' AND usename = 'function_trader'"
        )

    def sessions(self, application: str = "") -> int:
        """How many sessions of the function's role are open, by default those of workers."""
        return self.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'function_trader' "
            "AND application_name = %s",
            application,
        )

    def deadlocks(self) -> int:
        """How many deadlocks the server has ended in this database."""
        return self.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")

    def close(self) -> None:
        """Close the clients' connections."""
        for client in self.clients:
            client.database.close()


class HeldCalls:
    """Calls that wait for a locked account, in the order in which they were begun. `outcomes` is whole at the end."""

    def __init__(self, run: FaultRun) -> None:
        self.outcomes: list[Any] = []
        self._run = run
        self._threads: list[threading.Thread] = []

    def begin(self, *calls: Callable[[], Any]) -> None:
        """Begin calls and return when all of them wait."""
        for call in calls:
            self.outcomes.append(None)
            thread = threading.Thread(target=self._call, args=(len(self.outcomes) - 1, call))
            self._threads.append(thread)
            thread.start()
        wanted = len(self._threads)
        eventually(lambda: self._run.waiting() == wanted, what=f"{wanted} calls that wait")

    def join(self) -> None:
        """Wait for the end of all."""
        for thread in self._threads:
            thread.join()

    def _call(self, number: int, call: Callable[[], Any]) -> None:
        try:
            self.outcomes[number] = call()
        except Exception as error:  # noqa: BLE001 - it is an outcome
            self.outcomes[number] = error


def _record(connection: psycopg.Connection[Any], symbol: str, bid: str, ask: str) -> None:
    quotes = [{"symbol": symbol, "bid": bid, "ask": ask}]
    ticks.call(connection, "record_quotes", {"source": "test", "quotes": quotes})


@contextmanager
def fault_run(database: ScratchDatabase, dice: random.Random) -> Iterator[FaultRun]:
    """A run on `database`, its clients closed at the end."""
    run = FaultRun(database, dice)
    try:
        yield run
    finally:
        run.close()
