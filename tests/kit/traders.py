"""Users of a running local system: their HTTP calls, their WebSockets, and what the database holds of them."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Self
from urllib.parse import urlencode

import httpx
import psycopg
from psycopg.rows import dict_row
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.kit.builders import order_body
from tests.kit.local_system import LocalSystem

type Message = dict[str, Any]

EXECUTE_ORDER = "/functions/v1/execute-order"
HTTP_SECONDS = 30.0
STREAM_SECONDS = 15.0


def execute(system: LocalSystem, statement: str, *parameters: object) -> list[dict[str, Any]]:
    """The rows of a statement, run as the owner of the database."""
    with psycopg.connect(system.database_url, autocommit=True) as connection:
        cursor = connection.cursor(row_factory=dict_row)
        cursor.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []


def exact(response: httpx.Response) -> Any:
    """The body of an answer, its numbers without loss."""
    return json.loads(response.text, parse_float=Decimal)


def error_of(response: httpx.Response) -> Message:
    """The error in an answer of /functions/v1; fails on any other form."""
    body = exact(response)
    assert set(body) == {"success", "error", "context"}, body
    assert body["success"] is False
    assert set(body["error"]) == {"code", "message", "details"}, body
    return body["error"]


@dataclass
class Trader:
    """A user with a token and one account. `close` it, or use it in a `with`."""

    system: LocalSystem
    email: str
    token: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.token}", **self.headers}
        self.http = self.system.client(headers=headers, timeout=HTTP_SECONDS)
        row = execute(
            self.system,
            "SELECT a.user_id, a.id FROM accounts AS a JOIN profiles AS p ON p.id = a.user_id WHERE p.email = %s",
            self.email,
        )[0]
        self.user_id: uuid.UUID = row["user_id"]
        self.account_id: uuid.UUID = row["id"]

    def close(self) -> None:
        """Close the connections of its calls."""
        self.http.close()

    def order(self, path: str = EXECUTE_ORDER, /, **fields: object) -> httpx.Response:
        """Ask for a market order, by default for 0.1 lots of EURUSD bought; None leaves a field out."""
        return self.http.post(path, json=order_body(**fields))

    def read(self, path: str) -> Any:
        """What GET of a path answers; it has to be 200."""
        response = self.http.get(path)
        assert response.status_code == httpx.codes.OK, response.text
        return exact(response)

    def rows(self, table: str, columns: str = "*", order_by: str = "id") -> list[dict[str, Any]]:
        """The user's rows of a table, as the owner of the database sees them."""
        return execute(
            self.system, f"SELECT {columns} FROM {table} WHERE user_id = %s ORDER BY {order_by}", self.user_id
        )

    def stream(self, *channels: str, symbols: Sequence[str] = (), since: int | None = None) -> "Stream":
        """A WebSocket that authenticated by its first message and subscribed to `channels`."""
        stream = Stream(self.system.websocket_url)
        try:
            stream.send({"type": "auth", "token": self.token})
            stream.wait_for(of_type("connection_acknowledged"))
            stream.subscribe(*channels, symbols=symbols, since=since)
        except BaseException:
            stream.close()
            raise
        return stream


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message, and when it came on the monotonic clock."""

    message: Message
    at: float


class Stream:
    """A WebSocket whose messages are kept as they come in. Close it, or use it in a `with`."""

    def __init__(self, url: str, *, subprotocol: str | None = None, **query: str) -> None:
        offered = [Subprotocol(subprotocol)] if subprotocol else None
        address = f"{url}?{urlencode(query)}" if query else url
        self._open = ExitStack()
        self.connection: ClientConnection = self._open.enter_context(
            connect(address, subprotocols=offered, proxy=None, open_timeout=STREAM_SECONDS)
        )
        self.arrivals: list[Arrival] = []
        self.closed = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._open.close()
        self._reader.join()

    def send(self, message: Message) -> None:
        """Send a message as JSON."""
        self.connection.send(json.dumps(message))

    def subscribe(self, *channels: str, symbols: Sequence[str] = (), since: int | None = None) -> Message:
        """Subscribe; the answer."""
        wanted: Message = {"type": "subscribe", "channels": list(channels), "symbols": list(symbols)}
        self.send(wanted if since is None else wanted | {"since": since})
        return self.wait_for(of_type("subscribed")).message

    def wait_for(self, wanted: Callable[[Message], bool], seconds: float = STREAM_SECONDS) -> Arrival:
        """The first message that is `wanted`, whether it is here or still to come; AssertionError if it never comes."""
        with self._news:
            came = self._news.wait_for(
                lambda: self.closed or any(wanted(arrival.message) for arrival in self.arrivals), seconds
            )
            found = next((arrival for arrival in self.arrivals if wanted(arrival.message)), None)
        assert found is not None, f"{'closed' if came else f'not in {seconds} s'}; so far {self.messages()[-20:]}"
        return found

    def wait_until_closed(self, seconds: float = STREAM_SECONDS) -> None:
        """Wait for the end of the connection."""
        with self._news:
            assert self._news.wait_for(lambda: self.closed, seconds), f"still open after {seconds} s"

    def messages(self) -> list[Message]:
        """What came so far."""
        with self._news:
            return [arrival.message for arrival in self.arrivals]

    def frames(self) -> list[Message]:
        """What came so far of the account's events."""
        return [message for message in self.messages() if is_event(message)]

    def sequences(self) -> list[int]:
        """The sequences of the account's events in the order in which they first came."""
        return list(dict.fromkeys(frame["sequence"] for frame in self.frames()))

    def _read(self) -> None:
        try:
            while True:
                text = self.connection.recv()
                arrival = Arrival(json.loads(text, parse_float=Decimal), time.monotonic())
                with self._news:
                    self.arrivals.append(arrival)
                    self._news.notify_all()
        except ConnectionClosed:
            with self._news:
                self.closed = True
                self._news.notify_all()


def is_event(message: Message) -> bool:
    """Whether a message tells of an event of an account, and no answer or price."""
    return "sequence" in message and message.get("type") != "subscribed"


def of_type(name: str, sequence: int | None = None) -> Callable[[Message], bool]:
    """Whether a message has that type, or event name, and that sequence where one is given."""
    return lambda message: (
        name in (message.get("type"), message.get("event")) and sequence in (None, message.get("sequence"))
    )


class Traders:
    """Hands out users of a system, each load account once; they are not rate limited and no risk limit binds them."""

    def __init__(self, system: LocalSystem, load_accounts: int) -> None:
        self.system = system
        system.load_accounts(load_accounts)
        self._emails: Iterator[str] = iter([f"load-{number:04d}@example.com" for number in range(1, load_accounts + 1)])
        self._open: list[Trader] = []

    def new(self) -> Trader:
        """A load account that no test has had: 100,000 USD, hedging, leverage 100."""
        return self.named(next(self._emails))

    def named(self, email: str) -> Trader:
        """The user of an address, as an API client."""
        return self._keep(Trader(self.system, email, self.system.token(email)))

    def in_browser(self, email: str | None = None) -> tuple[Trader, str]:
        """A browser session of a user, by default of a new load account, which sends no CSRF token; its CSRF token."""
        email = email or next(self._emails)
        issued = self.system.issue(email, session=True)
        assert issued.csrf_token is not None
        return self._keep(Trader(self.system, email, issued.token)), issued.csrf_token

    def close(self) -> None:
        """Close the connections of all of them."""
        for trader in self._open:
            trader.close()
        self._open.clear()

    def _keep(self, trader: Trader) -> Trader:
        self._open.append(trader)
        return trader
