"""What has moved is told together, once a window, and never by whoever ticks."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from trading.quotes.moves import WINDOW_SECONDS, Moves
from trading.quotes.provider import Quote

AT = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
WAIT_SECONDS = 5.0


class Listener:
    """Hears what has moved; while it is held, its caller waits."""

    def __init__(self) -> None:
        self.heard: list[list[str]] = []
        self.let_go = threading.Event()
        self.let_go.set()
        self._changed = threading.Condition()

    def __call__(self, symbols: Sequence[str]) -> None:
        self.let_go.wait(WAIT_SECONDS)
        with self._changed:
            self.heard.append(list(symbols))
            self._changed.notify_all()

    def await_calls(self, count: int) -> list[list[str]]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.heard) >= count, WAIT_SECONDS)
        return self.heard


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def moves(listener: Listener) -> Iterator[Moves]:
    moves = Moves(listener)
    yield moves
    listener.let_go.set()
    moves.close()


def quote(symbol: str, bid: str, spread: int = 1) -> Quote:
    return Quote(symbol, Decimal(bid), Decimal(bid) + spread, AT, "test")


def tick_until(moves: Moves, listener: Listener, count: int, *, at: float) -> None:
    """Tick until the listener has heard `count` times; it may not be back from the last time yet."""
    for _ in range(1000):
        if len(listener.heard) >= count:
            break
        moves.note([], at=at)
        threading.Event().wait(0.005)


def test_what_moved_in_a_window_is_told_together(moves: Moves, listener: Listener) -> None:
    # given a first quote, which is news
    moves.note([quote("EURUSD", "1")], at=100.0)
    assert listener.await_calls(1) == [["EURUSD"]]
    # when two move, one of them twice, and a third stands still, within the window
    moves.note([quote("GBPUSD", "2"), quote("EURUSD", "1")], at=100.5)
    moves.note([quote("AUDUSD", "3"), quote("GBPUSD", "2.1"), quote("EURUSD", "1")], at=101.0)
    moves.note([], at=100 + WINDOW_SECONDS)
    # then
    assert listener.await_calls(2)[1] == ["AUDUSD", "GBPUSD"]


def test_nothing_is_told_of_prices_that_stand_still(moves: Moves, listener: Listener) -> None:
    moves.note([quote("EURUSD", "1")], at=0.0)
    moves.note([quote("EURUSD", "1")], at=10.0)
    moves.close()
    assert listener.heard == [["EURUSD"]]


def test_either_side_alone_is_a_move(moves: Moves, listener: Listener) -> None:
    for count, moved in enumerate(
        (quote("EURUSD", "1"), quote("EURUSD", "1", spread=2), quote("EURUSD", "2")), start=1
    ):
        moves.note([moved], at=10.0 * count)
        tick_until(moves, listener, count, at=10.0 * count)
    assert listener.heard == [["EURUSD"]] * 3


def test_a_slow_listener_holds_nobody_up_and_misses_nothing(moves: Moves, listener: Listener) -> None:
    # given a listener that does not come back
    listener.let_go.clear()
    moves.note([quote("EURUSD", "1")], at=0.0)
    # when prices go on moving, then ticks go on
    for second in range(1, 10):
        moves.note([quote("GBPUSD", str(second))], at=float(second))
    # when it comes back
    listener.let_go.set()
    listener.await_calls(1)
    # then the next tick tells what has moved meanwhile
    tick_until(moves, listener, 2, at=20.0)
    assert listener.heard == [["EURUSD"], ["GBPUSD"]]
