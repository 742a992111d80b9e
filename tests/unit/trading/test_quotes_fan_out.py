"""The fan-out: newest first, conflated, and no connection waits for another."""

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from trading.quotes.fan_out import FRAMES_A_ROUND_MAX, FanOut, frame_of
from trading.quotes.provider import Quote
from trading.sockets import Outcome

AT = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)
ROUND = timedelta(milliseconds=250)
WAIT_SECONDS = 5.0


class Connections:
    """Connections in memory: what each got, and what each answers. A held one answers when it is let go."""

    def __init__(self) -> None:
        self.got: dict[str, list[dict[str, object]]] = defaultdict(list)
        self.answers: dict[str, Outcome] = {}
        self.held: dict[str, threading.Event] = {}
        self._changed = threading.Condition()

    def post(self, connection_id: str, text: str) -> Outcome:
        with self._changed:
            self.got[connection_id].append(json.loads(text, parse_float=Decimal)["data"])
            self._changed.notify_all()
        if event := self.held.get(connection_id):
            assert event.wait(WAIT_SECONDS)
        return self.answers.get(connection_id, Outcome.DELIVERED)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, WAIT_SECONDS)

    def bids(self, connection_id: str) -> list[object]:
        return [frame["bid"] for frame in self.got[connection_id]]


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
def fan_out(connections: Connections) -> Iterator[FanOut]:
    made = FanOut(connections.post)
    yield made
    for event in connections.held.values():
        event.set()
    made.close()


def quote(symbol: str, bid: str, at: datetime = AT) -> Quote:
    return Quote(symbol, Decimal(bid), Decimal(bid) + Decimal("0.0002"), at, "test")


def newest(*quotes: Quote) -> Mapping[str, Quote]:
    return {each.symbol: each for each in quotes}


def settle(fan_out: FanOut) -> None:
    """Wait for the posts of the last round."""
    for listener in fan_out._listeners.values():
        if listener.sending is not None:
            listener.sending.result(WAIT_SECONDS)


def test_a_frame_has_exact_numbers() -> None:
    frame = frame_of(Quote("EURUSD", Decimal("1.10000"), Decimal("1.10020"), AT, "test"))

    assert frame == (
        '{"type":"market_data","data":{"symbol":"EURUSD","bid":1.10000,"ask":1.10020,"spread":0.00020,'
        '"timestamp":"2026-11-18T12:00:00.000000Z"}}'
    )


def test_each_connection_gets_what_it_wants(fan_out: FanOut, connections: Connections) -> None:
    fan_out.subscribe({"one": frozenset({"EURUSD"}), "all": None, "other": frozenset({"XAUUSD"})})

    fan_out.publish(newest(quote("EURUSD", "1.1"), quote("GBPUSD", "1.3")))
    settle(fan_out)

    assert [frame["symbol"] for frame in connections.got["one"]] == ["EURUSD"]
    assert sorted(str(frame["symbol"]) for frame in connections.got["all"]) == ["EURUSD", "GBPUSD"]
    assert "other" not in connections.got


def test_a_price_that_stands_still_is_repeated_each_second_only(fan_out: FanOut, connections: Connections) -> None:
    fan_out.subscribe({"one": None})

    for step in range(9):
        fan_out.publish(newest(quote("EURUSD", "1.1", AT + step * ROUND)))
        settle(fan_out)

    assert len(connections.got["one"]) == 3


def test_the_same_quote_is_not_sent_twice(fan_out: FanOut, connections: Connections) -> None:
    fan_out.subscribe({"one": None})

    for _ in range(3):
        fan_out.publish(newest(quote("EURUSD", "1.1")))
        settle(fan_out)

    assert connections.bids("one") == [Decimal("1.1")]


def test_a_slow_connection_gets_the_newest_next_and_holds_up_nobody(fan_out: FanOut, connections: Connections) -> None:
    # given one connection whose post hangs
    connections.held["slow"] = threading.Event()
    fan_out.subscribe({"slow": None, "quick": None})

    # when three rounds go by
    for step, bid in enumerate(("1.1", "1.2", "1.3")):
        fan_out.publish(newest(quote("EURUSD", bid, AT + step * ROUND)))
        connections.wait_until(lambda count=step + 1: len(connections.got["quick"]) == count)
        fan_out._listeners["quick"].sending.result(WAIT_SECONDS)  # pyright: ignore[reportOptionalMemberAccess]
    connections.held.pop("slow").set()
    settle(fan_out)
    fan_out.publish(newest(quote("EURUSD", "1.4", AT + 3 * ROUND)))
    settle(fan_out)

    # then it has missed those between
    assert connections.bids("slow") == [Decimal("1.1"), Decimal("1.4")]
    assert connections.bids("quick") == [Decimal(bid) for bid in ("1.1", "1.2", "1.3", "1.4")]


def test_many_symbols_take_turns(fan_out: FanOut, connections: Connections) -> None:
    symbols = [f"S{number:03}" for number in range(FRAMES_A_ROUND_MAX * 2 + 1)]
    fan_out.subscribe({"one": None})

    for step in range(3):
        fan_out.publish(newest(*(quote(symbol, f"1.{step + 1}", AT + step * ROUND) for symbol in symbols)))
        settle(fan_out)
        assert len(connections.got["one"]) <= FRAMES_A_ROUND_MAX * (step + 1)

    assert {frame["symbol"] for frame in connections.got["one"]} == set(symbols)


@pytest.mark.parametrize("outcome", [Outcome.SLOW, Outcome.FAILED])
def test_after_a_post_that_failed_the_rest_of_the_round_is_left(
    fan_out: FanOut, connections: Connections, outcome: Outcome
) -> None:
    connections.answers["one"] = outcome
    fan_out.subscribe({"one": None})

    fan_out.publish(newest(quote("EURUSD", "1.1"), quote("GBPUSD", "1.3")))
    settle(fan_out)

    assert len(connections.got["one"]) == 1
    # It is tried again with what is newer.
    connections.answers.clear()
    fan_out.publish(newest(quote("EURUSD", "1.2", AT + ROUND), quote("GBPUSD", "1.4", AT + ROUND)))
    settle(fan_out)
    assert len(connections.got["one"]) == 3
    assert fan_out.take_gone() == []


def test_a_connection_that_is_gone_is_told_of_once_and_sent_no_more(fan_out: FanOut, connections: Connections) -> None:
    connections.answers["one"] = Outcome.GONE
    fan_out.subscribe({"one": None, "two": None})

    for step in range(3):
        fan_out.publish(newest(quote("EURUSD", f"1.{step + 1}", AT + step * ROUND)))
        settle(fan_out)

    assert len(connections.got["one"]) == 1
    assert len(connections.got["two"]) == 3
    assert fan_out.take_gone() == ["one"]
    assert fan_out.take_gone() == []


def test_who_unsubscribes_hears_no_more(fan_out: FanOut, connections: Connections) -> None:
    fan_out.subscribe({"one": None})
    fan_out.publish(newest(quote("EURUSD", "1.1")))
    settle(fan_out)

    fan_out.subscribe({"two": None})
    fan_out.publish(newest(quote("EURUSD", "1.2", AT + ROUND)))
    settle(fan_out)

    assert connections.bids("one") == [Decimal("1.1")]
    assert connections.bids("two") == [Decimal("1.2")]


def test_a_changed_subscription_keeps_what_was_sent(fan_out: FanOut, connections: Connections) -> None:
    fan_out.subscribe({"one": frozenset({"EURUSD"})})
    fan_out.publish(newest(quote("EURUSD", "1.1"), quote("GBPUSD", "1.3")))
    settle(fan_out)

    fan_out.subscribe({"one": frozenset({"EURUSD", "GBPUSD"})})
    fan_out.publish(newest(quote("EURUSD", "1.1"), quote("GBPUSD", "1.3")))
    settle(fan_out)

    assert connections.bids("one") == [Decimal("1.1"), Decimal("1.3")]


def test_closing_waits_for_the_post_that_is_under_way_and_leaves_the_rest(connections: Connections) -> None:
    # given a connection that is taking the first of two frames
    fan_out = FanOut(connections.post)
    connections.answers["one"] = Outcome.GONE
    taking = connections.held["two"] = threading.Event()
    fan_out.subscribe({"one": None, "two": None})
    fan_out.publish(newest(quote("EURUSD", "1.1"), quote("GBPUSD", "1.3")))
    connections.wait_until(lambda: len(connections.got["two"]) == 1)

    # when
    closing = threading.Thread(target=fan_out.close)
    closing.start()
    assert fan_out._closing.wait(WAIT_SECONDS)
    taking.set()
    closing.join(WAIT_SECONDS)

    # then
    assert not closing.is_alive()
    assert connections.bids("two") == [Decimal("1.1")]
    assert fan_out.take_gone() == ["one"]
