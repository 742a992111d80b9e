"""The relay: pushes what happened to accounts to their WebSockets and the Redis channel.

Started by the queue, with the accounts that have news, and every minute by the schedule, for whatever was missed.
"""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid4

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.typing import LambdaContext

from trading.cache import cache
from trading.delivery import Courier
from trading.json_body import parse_json_object
from trading.observability import MetricUnit, instrumented, logger, metrics, set_correlation_id
from trading.price_watch import watch_and_tell
from trading.queue import REQUEST_ID
from trading.relay import (
    LEASE_MS,
    POST_RETRY_MS,
    POST_RETRY_MS_MAX,
    PUBLISH_RETRY_MS,
    WIND_UP_SECONDS,
    AwakeSign,
    Relay,
)
from trading.settings import settings
from trading.sockets import POSTS_AT_ONCE_MAX, sockets
from trading.store.connection import database
from trading.store.connections import ConnectionStore
from trading.store.keys import purge_expired_keys
from trading.store.relay import RelayStore
from trading.subscriptions import close_expired

MESSAGE_BYTES_MAX = 4 * 1024
# What a message without a version is of. A later one comes again until the release that can read it is there.
MESSAGE_VERSION = 1
# For answering and for Lambda's own work after the handler.
MARGIN_SECONDS = 1.0
# Closing connections may take this much of a sweep.
CLOSING_SECONDS_MAX = 8.0
# And telling of stale prices this much.
TELLING_SECONDS_MAX = 4.0


@lru_cache(maxsize=1)
def relay() -> Relay:
    """The relay of this execution environment, with a name of its own in its leases."""
    store = RelayStore(
        database(),
        uuid4(),
        lease_ms=LEASE_MS,
        publish_retry_ms=PUBLISH_RETRY_MS,
        post_retry_ms=POST_RETRY_MS,
        post_retry_ms_max=POST_RETRY_MS_MAX,
    )
    threads = ThreadPoolExecutor(max_workers=POSTS_AT_ONCE_MAX, thread_name_prefix="push")
    return Relay(store, Courier(sockets(), cache(), threads), AwakeSign(cache()))


@instrumented
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Deliver for the accounts of a batch of messages, or sweep; the batch's messages that could not be read."""
    until = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - WIND_UP_SECONDS - MARGIN_SECONDS
    if "Records" not in event:
        set_correlation_id(f"sweep-{context.aws_request_id}")
        return sweep(until)
    set_correlation_id(",".join(request_ids(event["Records"])) or f"relay-{context.aws_request_id}")
    metrics().add_metric(name="MessagesReceived", unit=MetricUnit.Count, value=len(event["Records"]))
    accounts = {account for record in event["Records"] if (account := _account_or_none(record)) is not None}
    if accounts:
        relay().deliver_and_linger(accounts, linger_seconds=settings().relay_linger_seconds, until=until)
    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    # Delivery failed for all or for none; what remains to be told apart is who sent something unreadable.
    return dict(process_partial_response(event, lambda record: account_of(record.body), processor, context))


def sweep(until: float) -> dict[str, Any]:
    """Tell of stale prices, deliver what was missed, close connections that may not stay, remove expired keys."""
    told = watch_and_tell(database(), sockets(), until=min(until, time.monotonic() + TELLING_SECONDS_MAX))
    swept = relay().sweep(until=until)
    closed = close_expired(
        ConnectionStore(database()), sockets(), until=min(until, time.monotonic() + CLOSING_SECONDS_MAX)
    )
    metrics().add_metric(name="AccountsSwept", unit=MetricUnit.Count, value=swept)
    done = {
        "prices_told": told,
        "accounts": swept,
        "connections_closed": closed,
        "keys_purged": purge_expired_keys(database()),
    }
    logger().info("swept", extra=done)
    return done


def request_ids(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The requests that caused the messages of a batch, each once."""
    attributes = (record.get("messageAttributes", {}).get(REQUEST_ID, {}) for record in records)
    return list(dict.fromkeys(given for attribute in attributes if (given := attribute.get("stringValue"))))


def account_of(body: str) -> UUID:
    """The account that a message names; ValueError for a message that names none, or that another release wrote."""
    message = parse_json_object(body.encode("utf-8", errors="surrogatepass"), MESSAGE_BYTES_MAX)
    if message.get("version", MESSAGE_VERSION) != MESSAGE_VERSION:
        raise ValueError(f"a message of another version than {MESSAGE_VERSION}")
    if not isinstance(message.get("account_id"), str):
        raise ValueError('a message must be {"account_id": "..."}')
    return UUID(message["account_id"])


def _account_or_none(record: dict[str, Any]) -> UUID | None:
    try:
        return account_of(record["body"])
    except ValueError:
        return None
