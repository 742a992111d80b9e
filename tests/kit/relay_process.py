"""A relay in a process of its own, to be killed: `python -m tests.kit.relay_process ACCOUNT_ID`."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

from trading.cache import cache
from trading.delivery import Courier
from trading.relay import AwakeSign, Relay
from trading.sockets import sockets
from trading.store.connection import database
from trading.store.relay import RelayStore

if __name__ == "__main__":
    store = RelayStore(
        database(), uuid4(), lease_ms=5000, publish_retry_ms=100, post_retry_ms=100, post_retry_ms_max=400
    )
    relay = Relay(store, Courier(sockets(), cache(), ThreadPoolExecutor(4)), AwakeSign(cache()))
    relay.deliver([UUID(sys.argv[1])], until=time.monotonic() + 30)
