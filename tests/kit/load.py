"""Traders who order without pause while faults are injected, and repeat what got no answer under the same key."""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.kit.traders import EXECUTE_ORDER, Trader, exact

RETRY_SECONDS = 0.05
ORDER_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An order that was answered: when (monotonic), with what, after how many attempts without an answer."""

    trader: Trader
    key: str
    status: int
    data: dict[str, Any]
    at: float
    lost_attempts: int

    @property
    def order_id(self) -> str:
        """The order that the answer names; a denial names it as well."""
        return self.data["order_id"]


class Load:
    """One thread a trader, each with one order under way at a time."""

    def __init__(self, traders: Sequence[Trader]) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.faults: list[BaseException] = []
        self._over = threading.Event()
        self._news = threading.Condition()
        self._threads = [threading.Thread(target=self._trade, args=(trader,)) for trader in traders]

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

    def _trade(self, trader: Trader) -> None:
        try:
            for number in itertools.count():
                if self._over.is_set():
                    return
                acknowledged = self._order(trader, f"load-{number}", "buy" if number % 2 else "sell")
                with self._news:
                    self.acknowledged.append(acknowledged)
                    self._news.notify_all()
        except BaseException as fault:  # noqa: BLE001 - raised again by `running`, in the test's own thread
            with self._news:
                self.faults.append(fault)
                self._news.notify_all()

    def _order(self, trader: Trader, key: str, side: str) -> Acknowledged:
        body = {"symbol": "EURUSD", "order_type": "market", "side": side, "quantity": "0.01", "idempotency_key": key}
        deadline = time.monotonic() + ORDER_SECONDS_MAX
        for lost in itertools.count():
            assert time.monotonic() < deadline, f"{key} of {trader.email} has no answer after {lost} attempts"
            try:
                response = trader.http.post(EXECUTE_ORDER, json=body)
            except httpx.TransportError:
                self._pause()
                continue
            if response.status_code >= 500:
                self._pause()
                continue
            assert response.status_code == 200, response.text
            data = exact(response)["data"]
            return Acknowledged(trader, key, response.status_code, data, time.monotonic(), lost)
        raise AssertionError("counting does not end")

    def _pause(self) -> None:
        threading.Event().wait(RETRY_SECONDS)
