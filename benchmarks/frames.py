"""From an order's transaction to its WebSocket frame, with a relay awake and with one that the queue has to start; and
from the quote that touches a resting order to the frame of its fill.

Times are of this machine's one clock: from the transaction's own time (`events.created_at`, taken under the account's
lock, so that its writes and its commit are inside) to the arrival of the event's first frame at a connected client.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal

import redis

from benchmarks.http_client import OrderClient
from benchmarks.rounds import percentile, table
from benchmarks.running_system import load_tokens, running_system
from local.demo_accounts import LOAD_PREFIX
from tests.kit.local_system import LocalSystem, wait_until
from tests.kit.traders import Message, Stream, Trader, exact, execute
from trading.relay import AWAKE_KEY, DRAIN_SECONDS

AWAKE_ORDERS_A_ROUND = 30
# Random, so that orders do not fall into step with the relay, which looks every 50 ms.
PAUSE_SECONDS_MAX = 0.1
FRAME_SECONDS_MAX = 20.0
ORDERS = "/api/v1/orders"
# Always traded, and often quoted anew by the simulator.
TOUCHED, TICK = "BTCUSD", Decimal(1)
TOUCHES_A_ROUND = 5
# The walk of the price may lead away from an order for long; then another one is placed closer to it.
TOUCH_SECONDS_MAX = 3.0
TOUCH_TRIES = 20
SLEEP_SECONDS_MAX = 60.0


class Watched:
    """A trader whose frames are received."""

    def __init__(self, system: LocalSystem, trader: Trader, stream: Stream, token: str) -> None:
        self.system = system
        self._trader = trader
        self._stream = stream
        self._orders = OrderClient(system.api_url, token)
        self._wall = time.time() - time.monotonic()

    def order(self) -> int:
        """Have an order executed, and wait for its frame; the event's sequence."""
        known = self._last()
        self._orders.order()
        wait_until(lambda: self._last() > known, FRAME_SECONDS_MAX, "a frame of the order")
        return self._last()

    def seconds(self, sequences: Sequence[int]) -> list[float]:
        """How long after its transaction's time the first frame of each event came, ascending."""
        arrived: dict[int, float] = {}
        for arrival in self._stream.arrivals:
            if "sequence" in arrival.message:
                arrived.setdefault(arrival.message["sequence"], arrival.at + self._wall)
        statement = "SELECT sequence, extract(epoch FROM created_at) AS at FROM events WHERE account_id = %s"
        happened = {
            row["sequence"]: float(row["at"]) for row in execute(self.system, statement, self._trader.account_id)
        }
        return sorted(arrived[sequence] - happened[sequence] for sequence in sequences)

    def touched(self) -> float:
        """Let an order rest a tick below the ask until the feed's quote touches it; from that quote to its frame."""
        for _ in range(TOUCH_TRIES):
            order_id = self._rest()
            with suppress(AssertionError):
                return self._stream.wait_for(_is_fill_of(order_id), TOUCH_SECONDS_MAX).at + self._since_quote(order_id)
            self._trader.http.post(f"{ORDERS}/{order_id}/cancel", json={})
        raise RuntimeError(f"none of {TOUCH_TRIES} orders was touched within {TOUCH_SECONDS_MAX} s")

    def _rest(self) -> str:
        """Place an order that rests; its id."""
        placed: Mapping[str, str] = {}
        while placed.get("status") != "PENDING":
            price = self._trader.read(f"/api/v1/prices?symbols={TOUCHED}")["prices"][0]
            placed = exact(self._trader.http.post(ORDERS, json=_resting(Decimal(price["ask"]) - TICK)))
        return placed["id"]

    def _since_quote(self, order_id: str) -> float:
        """What the monotonic clock takes to become seconds since the quote that touched the order."""
        statement = (
            "SELECT extract(epoch FROM (details ->> 'quoted_at')::timestamptz) AS at FROM order_audit_log "
            "WHERE order_id = %s AND action = 'EXECUTED'"
        )
        (row,) = execute(self.system, statement, order_id)
        return self._wall - float(row["at"])

    def _last(self) -> int:
        return max((arrival.message.get("sequence", 0) for arrival in self._stream.arrivals), default=0)


def _is_fill_of(order_id: str) -> Callable[[Message], bool]:
    return lambda message: message.get("event") == "order.filled" and message["order_id"] == order_id


def _resting(price: Decimal) -> dict[str, object]:
    return {"symbol": TOUCHED, "order_type": "LIMIT", "side": "BUY", "quantity": "0.01", "price": str(price)}


@contextmanager
def watched(system: LocalSystem) -> Iterator[Watched]:
    """A load account that is connected and subscribed to its orders."""
    (token,) = load_tokens(system, 1)
    trader = Trader(system, f"{LOAD_PREFIX}0001@example.com", token)
    try:
        with trader.stream("orders") as stream:
            yield Watched(system, trader, stream, token)
    finally:
        trader.close()


def run(rounds: int, seconds: float) -> None:  # noqa: ARG001 - events are counted, not timed
    """Measure and print."""
    with running_system(load_accounts=1) as system, watched(system) as trader:
        with redis.Redis.from_url(system.redis_url) as server:
            trader.order()
            asleep = [_order_of_a_sleeper(trader, server) for _ in range(rounds)]
            awake = [_order_while_awake(trader, server) for _ in range(rounds * AWAKE_ORDERS_A_ROUND)]
            touched = sorted(trader.touched() for _ in range(rounds * TOUCHES_A_ROUND))
        rows = [_row("awake", trader.seconds(awake)), _row("asleep: queue, start, frame", trader.seconds(asleep))]
    rows.append(_row("from the quote that touches a resting order", touched))
    table("From the transaction to its WebSocket frame", ("relay", "events", "p50 ms", "p99 ms", "longest ms"), rows)


def _order_of_a_sleeper(trader: Watched, server: "redis.Redis") -> int:
    """An order that finds no relay awake, nor one that is winding up and would look once more."""
    wait_until(lambda: not server.exists(AWAKE_KEY), SLEEP_SECONDS_MAX, "the relay's sign taken down")
    time.sleep(DRAIN_SECONDS + 1)
    if server.exists(AWAKE_KEY):
        raise RuntimeError("a relay was woken by somebody else")
    return trader.order()


def _order_while_awake(trader: Watched, server: "redis.Redis") -> int:
    time.sleep(random.uniform(0, PAUSE_SECONDS_MAX))
    if not server.exists(AWAKE_KEY):
        # The relay's run was over; this order, which does not count, begins the next one.
        trader.order()
        wait_until(lambda: server.exists(AWAKE_KEY), FRAME_SECONDS_MAX, "the relay awake")
    return trader.order()


def _row(name: str, seconds: Sequence[float]) -> Sequence[str]:
    numbers = (percentile(seconds, 50), percentile(seconds, 99), seconds[-1])
    return name, str(len(seconds)), *(f"{number * 1000:.1f}" for number in numbers)
