"""The mock venue of tests and demonstrations: slow, refusing a share of orders, and silent on demand.

What it does beyond filling at the touched side of the quote, or at 100 without one, goes by the symbol:

    TEST_TIMEOUT       loses the first submission of an order and says nothing; a look-up does not find it
    TEST_TIMEOUT_KEPT  takes the first submission and says nothing; a look-up finds it
    TEST_PARTIAL       fills half at once and the rest after `partial_seconds`
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import uuid4

from trading.brokers.book import Decision, Markets, VenueBook
from trading.brokers.protocol import VenueFill, VenueOrder, VenueReport, VenueTimeoutError
from trading.brokers.simulated import SimulatedBroker
from trading.pricing import slippage_draw

LOST = "TEST_TIMEOUT"
KEPT = "TEST_TIMEOUT_KEPT"
PARTIAL = "TEST_PARTIAL"
PRICE_WITHOUT_QUOTE = Decimal(100)
FIRST_SUFFIX = "/first"


@dataclass(frozen=True, slots=True)
class MockTerms:
    """How the mock venue behaves. `failure_rate` is the share of orders that it refuses, drawn by seed and client id.

    `timeout_seconds` is the time limit of a call, which a silent venue lets pass.
    """

    latency_seconds: float = 0.05
    failure_rate: Decimal = Decimal(0)
    seed: int = 1
    timeout_seconds: float = 5.0
    partial_seconds: float = 2.0


class MockBroker(SimulatedBroker):
    """A venue that behaves by `terms`; `sleep` is how its time passes."""

    def __init__(
        self,
        name: str,
        book: VenueBook,
        markets: Markets,
        clock: Callable[[], datetime],
        terms: MockTerms,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(name, book, markets, clock)
        self._terms = terms
        self._sleep = sleep

    def ping(self) -> float:
        """Its latency."""
        super().ping()
        self._sleep(self._terms.latency_seconds)
        return self._terms.latency_seconds

    def submit(self, order: VenueOrder) -> VenueReport:
        """As the protocol says, but for the symbols that are silent at first."""
        self.ping()
        if order.symbol in (LOST, KEPT) and self._is_first(order):
            if order.symbol == KEPT:
                self.take(order)
            self._sleep(self._terms.timeout_seconds)
            raise VenueTimeoutError(f"{self.name} did not answer in {self._terms.timeout_seconds} s")
        return super().submit(order)

    def status(self, client_order_id: str) -> VenueReport:
        """As the protocol says."""
        self.ping()
        return super().status(client_order_id)

    def decide(self, order: VenueOrder, now: datetime) -> Decision:
        """Refused by the draw, else filled: whole, or in two halves."""
        market = self._markets(order.symbol)
        name = f"MOCK-{uuid4()}"
        currency = market.instrument.quote_currency if market else "USD"
        size = market.instrument.contract_size if market else Decimal(1)
        if slippage_draw(f"{self._terms.seed}:{order.client_order_id}") < self._terms.failure_rate:
            return Decision(order, name, now, (), currency, size, "refused by the mock venue's draw")
        price = PRICE_WITHOUT_QUOTE
        if market is not None:
            price = market.price.ask if order.side == "buy" else market.price.bid
        if order.symbol != PARTIAL:
            return Decision(order, name, now, (VenueFill(f"{name}-1", order.quantity, price, now),), currency, size)
        half = order.quantity / 2
        later = now + timedelta(seconds=self._terms.partial_seconds)
        fills = (VenueFill(f"{name}-1", half, price, now), VenueFill(f"{name}-2", order.quantity - half, price, later))
        return Decision(order, name, now, fills, currency, size)

    def _is_first(self, order: VenueOrder) -> bool:
        _, created = self._book.keep(order.client_order_id + FIRST_SUFFIX, {"symbol": order.symbol})
        return created
