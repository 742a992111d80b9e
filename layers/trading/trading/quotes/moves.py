"""Which symbols have moved, told in the background and not with every batch."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal

from trading.quotes.provider import Quote

# What moved in this time is told together.
WINDOW_SECONDS = 2.0

type Tell = Callable[[Sequence[str]], None]


class Moves:
    """Gathers the symbols whose prices have changed, and tells them at most once in WINDOW_SECONDS.

    `tell` runs in a thread of its own, so that a slow queue holds no tick up: while it runs, what moves is kept for the
    next time. It must not raise. All methods are called from one thread.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._prices: dict[str, tuple[Decimal, Decimal]] = {}
        self._moved: set[str] = set()
        self._told_at: float | None = None
        self._telling: Future[None] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="moves")

    def note(self, quotes: Iterable[Quote], at: float) -> None:
        """Take `quotes` in; `at` are seconds of a clock that never goes back."""
        for quote in quotes:
            prices = (quote.bid, quote.ask)
            if self._prices.get(quote.symbol) != prices:
                self._prices[quote.symbol] = prices
                self._moved.add(quote.symbol)
        if self._moved and self._may_tell(at):
            self._telling = self._pool.submit(self._tell, sorted(self._moved))
            self._told_at = at
            self._moved.clear()

    def close(self) -> None:
        """Wait for what is under way."""
        self._pool.shutdown()

    def _may_tell(self, at: float) -> bool:
        waited = self._told_at is None or at - self._told_at >= WINDOW_SECONDS
        return waited and (self._telling is None or self._telling.done())
