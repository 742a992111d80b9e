"""The relay: takes accounts with undelivered events under lease, has them delivered, records how far it got."""

import time
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any
from uuid import UUID

from trading.cache import Cache, CacheUnavailableError
from trading.delivery import Courier, Delivery
from trading.events import Event
from trading.observability import MetricUnit, logger, metrics
from trading.queue import RELAY_TRUST_SECONDS
from trading.store.relay import RelayStore, Stream

AWAKE_KEY = "relay:awake"
AWAKE_MS = 1000
AWAKE_RENEWAL_SECONDS = 0.3

LEASE_MS = 5000
# Sending ends this long after a lease was asked for: a post begun then is over before the lease is.
SEND_SECONDS_MAX = 2.5
# What has to happen after the last claim of a run: sending, the posts under way, the record of it.
WIND_UP_SECONDS = SEND_SECONDS_MAX + 2.0

STREAMS_AT_ONCE_MAX = 16
EVENTS_PER_READ_MAX = 100
PUBLISH_RETRY_MS = 2000
POST_RETRY_MS = 500
POST_RETRY_MS_MAX = 15_000

POLL_SECONDS = 0.05
# New events are looked for among those this young. An event is stamped before its transaction commits, so now and then
# the window is as wide as a transaction can be long.
RECENT_MS = 1000
RECENT_MS_MAX = 10_000
WIDE_LOOK_SECONDS = 1.0
# After the sign is taken away, orders that saw it may still commit and send no message.
DRAIN_SECONDS = RELAY_TRUST_SECONDS + 0.5

SWEEP_ACCOUNTS_MAX = 500
SWEEP_ROUNDS_MAX = 50


class AwakeSign:
    """The key in Redis by which orders know that their events are found without a message."""

    def __init__(self, cache: Cache, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._clock = clock
        self._renew_at = 0.0

    def show(self) -> None:
        """Put it up, or keep it up. Without Redis nobody sees it, and every order sends its message."""
        now = self._clock()
        if now >= self._renew_at:
            self._renew_at = now + AWAKE_RENEWAL_SECONDS
            self._run(lambda client: client.set(AWAKE_KEY, "1", px=AWAKE_MS))

    def remove(self) -> None:
        """Take it down if it is up; it falls by itself after AWAKE_MS."""
        if self._renew_at > 0:
            self._renew_at = 0.0
            self._run(lambda client: client.delete(AWAKE_KEY))

    def _run(self, action: Callable[[Any], object]) -> None:
        try:
            self._cache.run(action)
        except CacheUnavailableError as error:
            logger().debug("the relay's sign is not set", extra={"cause": str(error)})


class Relay:
    """One copy of the relay. Any number may run at once; an account is served by one of them at a time."""

    def __init__(
        self,
        store: RelayStore,
        courier: Courier,
        sign: AwakeSign,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._courier = courier
        self._sign = sign
        self._clock = clock
        self._sleep = sleep
        self._under_way: list[Delivery] = []
        self._wide_look_at = 0.0

    def deliver(self, account_ids: Collection[UUID], *, until: float) -> None:
        """Deliver what these accounts have, and leave alone those that another relay is serving.

        `until` is on the monotonic clock; the run ends at most WIND_UP_SECONDS later. Raises TradingError when the
        database is gone: leases run out, and the sweep finds what is left.
        """
        self._run(lambda: self._rounds(set(account_ids), until=until, polling=False))

    def deliver_and_linger(self, account_ids: Collection[UUID], *, linger_seconds: float, until: float) -> None:
        """Deliver, then stay for the next events of any account until none came for `linger_seconds`.

        Accounts that another relay is serving are waited for: it may have looked just before their newest event.
        Time limit and errors as in `deliver`.
        """

        def stay() -> None:
            left = self._rounds(
                set(account_ids), until=until - DRAIN_SECONDS, polling=True, awake=True, idle_seconds=linger_seconds
            )
            self._sign.remove()
            self._rounds(left, until=until, polling=True, seconds_min=DRAIN_SECONDS)

        self._run(stay)

    def sweep(self, *, until: float) -> int:
        """Deliver whatever any account has left; how many accounts were found."""
        found = 0
        for _ in range(SWEEP_ROUNDS_MAX):
            behind = self._store.accounts_behind(limit=SWEEP_ACCOUNTS_MAX)
            found += len(behind)
            if not behind or self._clock() >= until:
                break
            self.deliver(behind, until=until)
        return found

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        finally:
            # No thread may send on after the invocation, whatever ended it.
            wait(self._pushes())
            self._under_way.clear()
            self._sign.remove()

    def _rounds(
        self,
        pending: set[UUID],
        *,
        until: float,
        polling: bool,
        awake: bool = False,
        idle_seconds: float = 0.0,
        seconds_min: float = 0.0,
    ) -> set[UUID]:
        """Claim and deliver until there is no more to do, or `until`; the accounts that are left.

        Polling looks for events of all accounts and waits for busy ones; it ends after `seconds_min`, and only when
        there was nothing to do for `idle_seconds`.
        """
        started_at = last_work_at = self._clock()
        while True:
            if awake:
                self._sign.show()
            pending |= self._record()
            if self._clock() < until:
                pending = self._claim(pending, polling=polling)
            now = self._clock()
            if self._under_way or (pending and now < until):
                last_work_at = now
            elif now >= until or (now - started_at >= seconds_min and now - last_work_at >= idle_seconds):
                return pending
            self._pause()

    def _claim(self, pending: set[UUID], *, polling: bool) -> set[UUID]:
        """Start on what is free; the accounts that are to be asked for again."""
        room = STREAMS_AT_ONCE_MAX - len(self._under_way)
        if room <= 0 or not (pending or polling):
            return pending
        deadline = self._clock() + SEND_SECONDS_MAX
        claim = self._store.claim(pending, recent_ms=self._recent_ms() if polling else None, limit=room)
        if claim.streams:
            self._under_way += self._courier.start(claim.streams, self._events(claim.streams), deadline=deadline)
        if not polling and len(claim.streams) < room:
            return set()  # what is left is being served by another relay
        # Our own come back as behind when they are recorded.
        return set(claim.busy) - {delivery.stream.account_id for delivery in self._under_way}

    def _events(self, streams: Collection[Stream]) -> dict[UUID, list[Event]]:
        cursors = {
            (stream.account_id, after): (stream, after)
            for stream in streams
            for after in [
                *(cursor.sent_sequence for cursor in stream.cursors),
                *([stream.pushed_sequence] if stream.publish else []),
            ]
        }
        return self._store.read(cursors.values(), limit=EVENTS_PER_READ_MAX) if cursors else {}

    def _record(self) -> set[UUID]:
        """Record the deliveries that are over; the accounts that have more."""
        done = [delivery for delivery in self._under_way if delivery.done()]
        if not done:
            return set()
        self._under_way = [delivery for delivery in self._under_way if delivery not in done]
        for delivery in done:
            delivery.log()
        advanced = self._store.advance([delivery.delivered() for delivery in done])
        if advanced.lost:
            logger().warning("leases ran out before the work was recorded", extra={"accounts": len(advanced.lost)})
            metrics().add_metric(name="RelayLeaseLost", unit=MetricUnit.Count, value=len(advanced.lost))
        return set(advanced.behind)

    def _pause(self) -> None:
        pushes = self._pushes()
        if pushes:
            wait(pushes, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        elif not self._under_way:
            self._sleep(POLL_SECONDS)

    def _pushes(self) -> list[Future[Any]]:
        return [push for delivery in self._under_way for push in delivery.pushes.values() if not push.done()]

    def _recent_ms(self) -> int:
        now = self._clock()
        if now < self._wide_look_at:
            return RECENT_MS
        self._wide_look_at = now + WIDE_LOOK_SECONDS
        return RECENT_MS_MAX
