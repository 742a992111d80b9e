"""A router in a process of its own, to be killed behind a submission: `python -m tests.kit.route_process USER ORDER`.

It says "submitted" once the venue has the order, and then waits to be killed.
"""

import sys
import time
from uuid import UUID, uuid4

from trading.brokers.protocol import OrderDesk, VenueOrder, VenueReport
from trading.brokers.registry import broker
from trading.routing import RetryPolicy, Router
from trading.store.connection import database
from trading.store.venues import OrderId, VenueStore


class Hanging(OrderDesk):
    """The venue, but its answer to a submission never comes."""

    def status(self, client_order_id: str) -> VenueReport:
        return broker("mock").status(client_order_id)

    def cancel(self, client_order_id: str) -> VenueReport:
        return broker("mock").cancel(client_order_id)

    def submit(self, order: VenueOrder) -> VenueReport:
        broker("mock").submit(order)
        sys.stdout.write("submitted\n")
        sys.stdout.flush()
        time.sleep(60)
        raise AssertionError("not killed")


if __name__ == "__main__":
    store = VenueStore(database(), uuid4(), lease_ms=int(sys.argv[3]))
    router = Router(store, lambda _: Hanging(), RetryPolicy(), lambda _: None)
    router.route([OrderId(UUID(sys.argv[1]), UUID(sys.argv[2]))], until=time.monotonic() + 60)
