"""Quotes to the connections that want them: the newest of each symbol, as fast as each connection takes it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event

from trading.json_text import json_text
from trading.quotes.provider import Quote
from trading.sockets import Outcome

# A connection is sent a symbol at most once in this time, with the newest quote.
ROUND_SECONDS = 0.25
# One connection is sent at most this much in a round: those longest not heard of come first, the others follow.
FRAMES_A_ROUND_MAX = 20
# A quote whose prices stand still is repeated this often, so that it does not look stale.
UNCHANGED_AFTER = timedelta(seconds=1)
WORKERS = 8

_NEVER = datetime.min.replace(tzinfo=UTC)

type Post = Callable[[str, str], Outcome]
type Subscriptions = Mapping[str, frozenset[str] | None]


@dataclass(slots=True)
class _Listener:
    """A connection, what it wants (None: every symbol), and the last quote that it was sent of each symbol."""

    connection_id: str
    symbols: frozenset[str] | None
    sent: dict[str, Quote] = field(default_factory=dict[str, Quote])
    sending: Future[Outcome] | None = None

    def due(self, newest: Mapping[str, Quote]) -> list[Quote]:
        """What to send in this round, the symbols longest not heard of first."""
        wanted: Iterable[str] = newest if self.symbols is None else self.symbols & newest.keys()
        due = [newest[symbol] for symbol in wanted if self._is_news(newest[symbol])]
        due.sort(key=lambda quote: (self._heard_at(quote.symbol), quote.symbol))
        return due[:FRAMES_A_ROUND_MAX]

    def _heard_at(self, symbol: str) -> datetime:
        last = self.sent.get(symbol)
        return last.time if last else _NEVER

    def _is_news(self, quote: Quote) -> bool:
        last = self.sent.get(quote.symbol)
        if last is None:
            return True
        changed = (last.bid, last.ask) != (quote.bid, quote.ask)
        return quote.time > last.time and (changed or quote.time - last.time >= UNCHANGED_AFTER)


class FanOut:
    """Posts market_data frames in the background.

    A connection that is still taking the last round's frames is passed over, so a slow one neither holds up the
    others nor gathers a backlog: what it gets next is the newest. All methods are called from one thread.
    """

    def __init__(self, post: Post) -> None:
        self._post = post
        self._listeners: dict[str, _Listener] = {}
        self._gone: set[str] = set()
        self._closing = Event()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="fan-out")

    def subscribe(self, subscriptions: Subscriptions) -> None:
        """Replace who wants what: symbols by connection id, None for every symbol."""
        before = self._listeners
        self._listeners = {}
        for connection_id, symbols in subscriptions.items():
            listener = before.get(connection_id) or _Listener(connection_id, symbols)
            listener.symbols = symbols
            self._listeners[connection_id] = listener
        self._gone &= subscriptions.keys()

    def publish(self, newest: Mapping[str, Quote]) -> None:
        """One round: send each connection that is ready what it wants of the newest quotes, by symbol."""
        for listener in self._listeners.values():
            self._settle(listener)
            if listener.sending is not None or listener.connection_id in self._gone:
                continue
            if due := listener.due(newest):
                listener.sent |= {quote.symbol: quote for quote in due}
                listener.sending = self._pool.submit(self._send, listener.connection_id, due)

    def take_gone(self) -> list[str]:
        """The connections found closed that have not been told of yet."""
        gone = sorted(self._gone & self._listeners.keys())
        for connection_id in gone:
            del self._listeners[connection_id]
        return gone

    def close(self) -> None:
        """Wait for the posts that are under way: at most one of each connection."""
        self._closing.set()
        self._pool.shutdown(cancel_futures=True)
        for listener in self._listeners.values():
            self._settle(listener)

    def _settle(self, listener: _Listener) -> None:
        if listener.sending is None or not listener.sending.done():
            return
        if not listener.sending.cancelled() and listener.sending.result() is Outcome.GONE:
            self._gone.add(listener.connection_id)
        listener.sending = None

    def _send(self, connection_id: str, quotes: Sequence[Quote]) -> Outcome:
        for quote in quotes:
            outcome = self._post(connection_id, frame_of(quote))
            if outcome is not Outcome.DELIVERED or self._closing.is_set():
                return outcome  # the rest is left: what comes next is newer
        return Outcome.DELIVERED


def frame_of(quote: Quote) -> str:
    """The market_data message of `quote`, its prices as exact JSON numbers."""
    data = {
        "symbol": quote.symbol,
        "bid": quote.bid,
        "ask": quote.ask,
        "spread": quote.ask - quote.bid,
        "timestamp": quote.time,
    }
    return json_text({"type": "market_data", "data": data})
