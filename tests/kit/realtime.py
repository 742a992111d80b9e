"""What tests of the relay and the WebSocket need: an @connections API of our own, events, connections, a relay."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from psycopg.types.json import Jsonb

from tests.kit.builders import User
from tests.kit.servers import ScratchDatabase
from trading.cache import Cache
from trading.delivery import Courier
from trading.events import CHANNELS
from trading.relay import AwakeSign, Relay
from trading.sockets import POSTS_AT_ONCE_MAX, Sockets, connections_client
from trading.store.connections import ConnectionStore
from trading.store.database import Database
from trading.store.relay import RelayStore

type Message = dict[str, Any]

ORDER_ID = "0198b1de-0000-7000-8000-0000000000aa"
POSITION_ID = "0198b1de-0000-7000-8000-0000000000bb"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # as many threads as push connect at the same moment


class ConnectionsApi:
    """An @connections API: every connection is open until told otherwise, and what is posted is kept.

    `answers` holds, by connection id, functions that are asked before a post is taken: a status other than 200 is
    answered in its place. moto has no such API that ever answers 410 or 429.
    """

    def __init__(self) -> None:
        self.posted: dict[str, list[Message]] = defaultdict(list)
        self.cut: list[str] = []
        self.answers: dict[str, Callable[[Message], int]] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler_class(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def endpoint(self) -> str:
        """What CONNECTIONS_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._server.server_port}/realtime"

    def start(self) -> None:
        """Serve until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End; threads that are held in an answer end by themselves."""
        self._server.shutdown()
        self._server.server_close()

    def gone(self, connection_id: str) -> None:
        """From now on the connection is closed."""
        self.answers[connection_id] = lambda _message: 410

    def slow(self, connection_id: str) -> None:
        """From now on the connection takes no message."""
        self.answers[connection_id] = lambda _message: 429

    def sequences(self, connection_id: str) -> list[int]:
        """The sequences in the order of their first frame, each once for each uninterrupted run of it."""
        found: list[int] = []
        for message in self.posted[connection_id]:
            if "sequence" in message and message.get("type") != "subscribed" and found[-1:] != [message["sequence"]]:
                found.append(message["sequence"])
        return found

    def types(self, connection_id: str) -> list[str]:
        """The types, or event names, of the messages in order."""
        return [message.get("type") or message["event"] for message in self.posted[connection_id]]

    def post(self, connection_id: str, body: bytes) -> int:
        """Take a message."""
        message: Message = json.loads(body, parse_float=Decimal)
        status = self.answers.get(connection_id, lambda _message: 200)(message)
        if status == 200:
            with self._lock:
                self.posted[connection_id].append(message)
        return status

    def delete(self, connection_id: str) -> int:
        """Cut a connection."""
        with self._lock:
            self.cut.append(connection_id)
        self.gone(connection_id)
        return 204


def _handler_class(api: ConnectionsApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self._answer(api.post(self._connection_id(), body))

        def do_DELETE(self) -> None:
            self._answer(api.delete(self._connection_id()))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            pass

        def _connection_id(self) -> str:
            return unquote(self.path.rpartition("/")[2])

        def _answer(self, status: int) -> None:
            name = {410: "GoneException", 429: "LimitExceededException"}.get(status, "InternalServerError")
            body = b"" if status < 300 else json.dumps({"message": name}).encode()
            self.send_response(status)
            if body:
                self.send_header("x-amzn-errortype", name)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


class RelayWorld:
    """A database, a Redis and an @connections API, and what a relay does between them."""

    def __init__(self, database: ScratchDatabase, redis_url: str, api: ConnectionsApi) -> None:
        self.database = database
        self.redis_url = redis_url
        self.api = api
        self.relay_database = Database(lambda: database.url_for("function_relay"))
        self.connections = ConnectionStore(self.relay_database)
        self.sockets = Sockets(lambda: connections_client(api.endpoint))
        self.sockets.prepare()
        self._closing: list[Callable[[], None]] = [self.relay_database.close]

    def store[T: RelayStore](self, *, lease_ms: int = 5000, kind: type[T] = RelayStore) -> T:
        """The procedures, called by a relay with a name of its own and a connection of its own."""
        database = Database(lambda: self.database.url_for("function_relay"))
        self._closing.append(database.close)
        return kind(
            database, uuid4(), lease_ms=lease_ms, publish_retry_ms=100, post_retry_ms=100, post_retry_ms_max=400
        )

    def courier(self, *, redis_url: str | None = None) -> Courier:
        """A courier with threads of its own."""
        threads = ThreadPoolExecutor(POSTS_AT_ONCE_MAX)
        self._closing.append(threads.shutdown)
        return Courier(self.sockets, self.cache(redis_url), threads)

    def relay(self, *, lease_ms: int = 5000, redis_url: str | None = None) -> Relay:
        """A relay of its own."""
        return Relay(self.store(lease_ms=lease_ms), self.courier(redis_url=redis_url), AwakeSign(self.cache(redis_url)))

    def cache(self, redis_url: str | None = None) -> Cache:
        """A client of Redis, or of what is at `redis_url`."""
        cache = Cache(lambda: redis_url or self.redis_url, timeout_ms=1000)
        self._closing.append(cache.close)
        return cache

    def connect(
        self,
        connection_id: str,
        user: User,
        *,
        channels: tuple[str, ...] = CHANNELS,
        since: int | None = None,
        token_seconds: int = 600,
    ) -> None:
        """A connection of `user` that is subscribed and waits for nothing."""
        self.connections.register(connection_id, protocol=None, source_ip="203.0.113.9")
        self.connections.authenticate(
            connection_id,
            user_id=user.user_id,
            role="trader",
            expires_at=datetime.now(UTC) + timedelta(seconds=token_seconds),
            connections_max=100,
        )
        self.connections.acknowledge(connection_id)
        self.connections.subscribe(
            connection_id, channels=channels, symbols=(), since=since, account_id=None, symbols_max=100, hold_ms=1000
        )
        self.connections.release(connection_id)

    def happen(self, user: User, *, request_id: str | None = None, **payload: object) -> int:
        """One more event of the user's account, committed; its sequence. By default an order is filled."""
        with self.database.connect() as connection:
            return add_event(connection, user, request_id=request_id, **payload)

    def age_events(self) -> None:
        """Let all events be a minute old, so that they are found by what they are and not by being recent."""
        with self.database.connect() as connection:
            connection.execute("UPDATE events SET created_at = created_at - interval '1 minute'")

    def value(self, statement: str, *parameters: object) -> Any:
        """The first column of the first row, read as the owner."""
        with self.database.connect() as connection:
            row = connection.execute(statement.encode(), parameters).fetchone()
            return row[0] if row else None

    def sent(self, connection_id: str) -> int | None:
        """How far the connection's cursor is; None when it is not known any more."""
        return self.value("SELECT sent_sequence FROM connection_streams WHERE connection_id = %s", connection_id)

    def pushed(self, user: User) -> int:
        """How far the account is published."""
        statement = "SELECT pushed_sequence FROM event_streams WHERE account_id = %s"
        return self.value(statement, user.account_id) or 0

    def last(self, user: User) -> int:
        """The account's last sequence."""
        return self.value("SELECT last_sequence FROM accounts WHERE id = %s", user.account_id)

    @contextmanager
    def listening(self, user: User) -> Iterator[list[Message]]:
        """What comes on the user's Redis channel, as it comes."""
        import redis

        heard: list[Message] = []
        client = redis.Redis.from_url(self.redis_url, decode_responses=True)
        subscription = client.pubsub(ignore_subscribe_messages=True)
        subscription.subscribe(
            **{f"orders:{user.user_id}": lambda message: heard.append(json.loads(message["data"], parse_float=Decimal))}
        )
        thread = subscription.run_in_thread(sleep_time=0.01, daemon=True)
        try:
            yield heard
        finally:
            thread.stop()
            thread.join()
            subscription.close()
            client.close()

    def close(self) -> None:
        """Close what was opened."""
        for close in reversed(self._closing):
            close()


def add_event(connection: Any, user: User, *, request_id: str | None = None, **payload: object) -> int:
    """Book an event as procedures do: the account's row first, then the event under its next sequence.

    One statement, so that both commit together on any connection: a relay that sees the sequence without its event
    takes the event for removed history, and passes it over.
    """
    row = connection.execute(
        "WITH account AS (UPDATE accounts SET last_sequence = last_sequence + 1 WHERE id = %s RETURNING last_sequence) "
        "INSERT INTO events (user_id, account_id, sequence, event_type, payload, request_id, created_at) "
        "SELECT %s, %s, last_sequence, 'order.filled', %s, %s, clock_timestamp() FROM account RETURNING sequence",
        (user.account_id, user.user_id, user.account_id, Jsonb(payload or filled_order()), request_id),
    ).fetchone()
    return row[0]


def filled_order(**order: object) -> dict[str, object]:
    """The facts of a market order that was filled: pending first, then filled, its fill, position and account."""
    fact: dict[str, object] = {
        "order_id": ORDER_ID,
        "client_order_id": None,
        "symbol": "EURUSD",
        "side": "buy",
        "order_type": "market",
        "quantity": Decimal("1.50"),
        "filled_quantity": Decimal(0),
        "status": "pending_new",
    } | order
    done = {
        "status": "filled",
        "filled_quantity": Decimal("1.50"),
        "average_price": Decimal("1.10020"),
        "executed_at": "2026-03-02T10:00:00.000001Z",
    }
    return {
        "orders": [fact, fact | done],
        "fills": [
            {
                "order_id": ORDER_ID,
                "fill_id": "0198b1de-0000-7000-8000-0000000000cc",
                "trade_id": "T1",
                "quantity": Decimal("1.50"),
                "price": Decimal("1.10020"),
                "total_filled": Decimal("1.50"),
                "leaves_quantity": Decimal(0),
                "transact_time": "2026-03-02T10:00:00.000001Z",
            }
        ],
        "positions": [
            {
                "position_id": POSITION_ID,
                "symbol": "EURUSD",
                "side": "long",
                "quantity": Decimal("1.50"),
                "entry_price": Decimal("1.10020"),
                "current_price": Decimal("1.10000"),
                "unrealized_pnl": Decimal("-30.00"),
                "margin_used": Decimal("1650.30"),
                "realized_pnl": Decimal("0.00"),
                "status": "open",
            }
        ],
        "account": {
            "currency": "USD",
            "balance": Decimal("99997.50"),
            "equity": Decimal("99967.50"),
            "margin_used": Decimal("1650.30"),
            "free_margin": Decimal("98317.20"),
            "margin_level": Decimal("6057.53"),
        },
    }


def soon(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until `condition` holds; AssertionError when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.005)


def in_seconds(seconds: float) -> float:
    """A point on the monotonic clock."""
    return time.monotonic() + seconds
