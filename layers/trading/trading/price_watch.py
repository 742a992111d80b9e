"""The watch over prices: notices when they go stale and come back, and tells who listens, once."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from trading.json_text import json_text
from trading.observability import MetricUnit, logger, metrics
from trading.sockets import POSTS_AT_ONCE_MAX, Outcome, Sockets
from trading.store.connections import ConnectionStore
from trading.store.database import Database
from trading.store.price_outages import PriceNotice, claim_price_notices, record_price_notices, watch_prices

# Two rounds of the threads: begun at the last moment, and with nobody answering, they still end within the function's
# time limit.
NOTICES_AT_ONCE_MAX = 2 * POSTS_AT_ONCE_MAX
# As long as telling so many may take; then another watch may try again.
CLAIM_MS = 10_000


def watch_and_tell(database: Database, sockets: Sockets, *, until: float) -> int:
    """Record the outages that begin or end now and tell all connections that do not know; how many were told.

    A connection that takes no message now is left to the next watch. Begins nothing after `until`, on the monotonic
    clock; the posts under way end a moment later.
    """
    state = watch_prices(database)
    if state.entered or state.left:
        logger().warning("prices went stale or came back", extra={"entered": state.entered, "left": state.left})
    metrics().add_metric(name="StalePrices", unit=MetricUnit.Count, value=state.stale)
    told = 0
    while state.untold and time.monotonic() < until:
        notices = claim_price_notices(database, limit=NOTICES_AT_ONCE_MAX, claim_ms=CLAIM_MS)
        if not notices:
            break
        told += _tell(database, sockets, notices)
    return told


def _tell(database: Database, sockets: Sockets, notices: list[PriceNotice]) -> int:
    sockets.prepare()
    with ThreadPoolExecutor(POSTS_AT_ONCE_MAX, thread_name_prefix="prices") as threads:
        outcomes = list(threads.map(partial(_post, sockets), notices))
    told = [notice for notice, outcome in zip(notices, outcomes, strict=True) if outcome is Outcome.DELIVERED]
    gone = [notice.connection_id for notice, outcome in zip(notices, outcomes, strict=True) if outcome is Outcome.GONE]
    if told:
        record_price_notices(database, told)
    if gone:
        ConnectionStore(database).drop(gone)
    return len(told)


def _post(sockets: Sockets, notice: PriceNotice) -> Outcome:
    for text in frames_of(notice):
        outcome = sockets.post(notice.connection_id, text)
        if outcome is not Outcome.DELIVERED:
            return outcome
    return Outcome.DELIVERED


def frames_of(notice: PriceNotice) -> list[str]:
    """The prices_stale messages of a notice: what has become stale, then what is not any more."""
    return [
        json_text({"type": "prices_stale", "data": {"state": state, "symbols": symbols, "timestamp": notice.at}})
        for state, symbols in (("entered", notice.entered), ("left", notice.left))
        if symbols
    ]
