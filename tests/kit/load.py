"""Clients who order without pause while faults are injected, and repeat what got no answer under the same key."""

import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from tests.kit.traders import Trader, exact

RETRY_SECONDS = 0.05
ORDER_SECONDS_MAX = 60.0


class Client(Protocol):
    """Somebody who orders, by whatever way."""

    def attempt(self, key: str, number: int) -> Mapping[str, Any] | None:
        """Send the client's order `number` once; its answer, None when nothing is known of its outcome.

        A repeated attempt is the same order under the same key. An answer names its `order_id`, a denial too.
        """
        ...


@dataclass(frozen=True, slots=True)
class OverHttp:
    """A trader of a running system who buys and sells by turns."""

    trader: Trader

    def attempt(self, key: str, number: int) -> Mapping[str, Any] | None:
        """As Client says; an answer of 5xx says nothing of the outcome."""
        side = "buy" if number % 2 else "sell"
        try:
            response = self.trader.order(side=side, quantity="0.01", idempotency_key=key)
        except httpx.TransportError:
            return None
        if response.status_code >= 500:
            return None
        assert response.status_code == 200, response.text
        return exact(response)["data"]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An order that was answered: when (monotonic), with what, after how many attempts without an answer."""

    client: Client
    key: str
    answer: Mapping[str, Any]
    at: float
    lost_attempts: int

    @property
    def order_id(self) -> str:
        """The order that the answer names."""
        return self.answer["order_id"]


class Load:
    """One thread a client, each with one order under way at a time."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self.clients = list(clients)
        self.acknowledged: list[Acknowledged] = []
        self.faults: list[BaseException] = []
        self._over = threading.Event()
        self._news = threading.Condition()
        self._threads = [threading.Thread(target=self._trade, args=pair) for pair in enumerate(clients)]

    @contextmanager
    def running(self) -> Iterator["Load"]:
        """Orders flow inside; afterwards each one that was sent has its answer."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()
        if self.faults:
            raise self.faults[0]

    def wait_for_orders(self, count: int, seconds: float = ORDER_SECONDS_MAX) -> None:
        """Return when `count` more orders are acknowledged than at the call."""
        with self._news:
            wanted = len(self.acknowledged) + count
            done = self._news.wait_for(lambda: self.faults or len(self.acknowledged) >= wanted, seconds)
        assert done, f"not {count} more orders in {seconds} s"

    def wait_for_one_since(self, moment: float, seconds: float) -> float:
        """When the first order after `moment` (monotonic) was acknowledged; AssertionError if none is in time."""

        def first() -> float | None:
            return min((one.at for one in self.acknowledged if one.at > moment), default=None)

        with self._news:
            assert self._news.wait_for(lambda: self.faults or first(), seconds), f"no order in {seconds} s"
            return first() or moment

    def _trade(self, place: int, client: Client) -> None:
        try:
            for number in itertools.count():
                if self._over.is_set():
                    return
                acknowledged = self._order(client, f"load-{place}-{number}", number)
                with self._news:
                    self.acknowledged.append(acknowledged)
                    self._news.notify_all()
        except BaseException as fault:  # noqa: BLE001 - raised again by `running`, in the test's own thread
            with self._news:
                self.faults.append(fault)
                self._news.notify_all()

    def _order(self, client: Client, key: str, number: int) -> Acknowledged:
        deadline = time.monotonic() + ORDER_SECONDS_MAX
        for lost in itertools.count():
            assert time.monotonic() < deadline, f"{key} of {client} has no answer after {lost} attempts"
            answer = client.attempt(key, number)
            if answer is not None:
                return Acknowledged(client, key, answer, time.monotonic(), lost)
            threading.Event().wait(RETRY_SECONDS)
        raise AssertionError("counting does not end")
