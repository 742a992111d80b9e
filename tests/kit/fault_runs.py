"""A run under faults on one database: clients of the procedures that move money, and the one checker that closes it."""

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
from tests.kit.builders import User, make_user, order_request
from tests.kit.gateway import eventually
from tests.kit.load import Acknowledged, Load
from tests.kit.orders import Market
from tests.kit.servers import ScratchDatabase
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
# What the sessions of clients are called in the database.
CLIENT = "load"

type Request = dict[str, object]


@dataclass(frozen=True, slots=True)
class Operation:
    """A procedure that takes one keyed request, and how a client's next request of it is drawn.

    `refusals` are the errors that it may end in under a load, with nothing kept: what it meant is gone by then. What
    it makes is an order under its key, or it `changes` one that is there.
    """

    procedure: str
    draw: Callable[["ProcedureClient"], Request]
    refusals: frozenset[ErrorCode] = frozenset()
    changes: bool = False


def market_order(client: "ProcedureClient") -> Request:
    """A small market order: on a netting account it adds to the position or reduces it, as it comes."""
    symbol = client.dice.choice(("EURUSD", "GBPUSD", "AAPL"))
    quantity = client.dice.choice(("0.1", "0.2", "0.3"))
    return order_request(client.user, symbol=symbol, side=client.dice.choice(("buy", "sell")), quantity=quantity)


def resting_order(client: "ProcedureClient") -> Request:
    """A limit far below the market, so that it rests."""
    return order_request(client.user, side="buy", order_type="limit", limit_price="1.0500", quantity="0.1")


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


def _change(client: "ProcedureClient", **fields: object) -> Request:
    common = ("version", "user_id", "idempotency_key_days", "request_id", "ip_address", "user_agent", "email")
    return {name: value for name, value in order_request(client.user).items() if name in common} | fields


MARKET_ORDER = Operation("execute_order_atomic", market_order)
RESTING_ORDER = Operation("place_order", resting_order)
# Every procedure that moves money or positions by an order takes part in the load by a line here.
OPERATIONS = (
    MARKET_ORDER,
    RESTING_ORDER,
    Operation(
        "cancel_order", cancellation, frozenset({ErrorCode.NOT_FOUND, ErrorCode.ORDER_NOT_CANCELABLE}), changes=True
    ),
    Operation("replace_order", replacement, frozenset({ErrorCode.NOT_FOUND, ErrorCode.ORDER_NOT_CANCELABLE})),
    Operation("close_position", closing, frozenset({ErrorCode.NOT_FOUND, ErrorCode.CONFLICT})),
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
        except TradingError as error:
            if error.code in operation.refusals:
                return {"refused": error.code}
            if error.code is not ErrorCode.DATABASE_UNAVAILABLE:
                raise
            return None
        if answer["outcome"] == "new":
            self.orders.append(answer["order_id"])
        if answer.get("position_id"):
            self.positions.append(answer["position_id"])
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
                told[one.client.user][one.key] = one.order_id
                if not one.client.sent[one.key][0].changes:
                    made[one.client.user][one.key] = one.order_id
        for user, answers in told.items():
            orders = self.execute("SELECT idempotency_key, id::text FROM orders WHERE user_id = %s", user.user_id)
            keys = self.execute(
                "SELECT idempotency_key, answer ->> 'order_id' FROM idempotency_keys "
                "WHERE user_id = %s AND answer ? 'order_id'",
                user.user_id,
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


@contextmanager
def fault_run(database: ScratchDatabase, dice: random.Random) -> Iterator[FaultRun]:
    """A run on `database`, its clients closed at the end."""
    run = FaultRun(database, dice)
    try:
        yield run
    finally:
        run.close()
