"""The feed: pulls quotes from a provider, records them, caches them and hands them to those who listen."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from trading.cache import Cache, CacheUnavailableError
from trading.errors import ErrorCode, TradingError
from trading.observability import logger
from trading.quotes.fan_out import ROUND_SECONDS, FanOut
from trading.quotes.moves import Moves
from trading.quotes.provider import FeedInstrument, Quote, QuoteProvider
from trading.quotes.quote_cache import write_quotes
from trading.settings import ConfigurationError
from trading.store.connections import ConnectionStore
from trading.store.database import Database
from trading.store.price_outages import watch_prices
from trading.store.quotes import (
    Lease,
    Recorded,
    acquire_lease,
    feed_provider,
    lease_is_awaited,
    list_market_data_connections,
    record_quotes,
    release_lease,
)

LEASE_NAME = "quotes"
# Longer than a lease lasts that nobody renews (3 s), and than the copy before takes to see that it is awaited and end.
LEASE_WAIT_SECONDS = 15.0
LEASE_POLL_SECONDS = 0.25
LOOK_AROUND_SECONDS = 1.0
CONNECTIONS_MAX = 500
# While it feeds, a look at all prices is ordered this often for a time at which most quotes of now would be stale: when
# the feed dies, those looks that are ordered already find out.
WATCH_EVERY_SECONDS = 5.0
WATCH_AFTER_SECONDS = 15
DATABASE_PAUSE_SECONDS = 0.5
# Left for the last posts and for giving back the lease, so that the function's time limit kills nothing.
REMAINING_MS_MIN = 4_000


@dataclass(frozen=True, slots=True)
class Clock:
    """Time for the feed: `now` is aware, `seconds` never goes back, `remaining_ms` is what the invocation has left."""

    now: Callable[[], datetime]
    seconds: Callable[[], float]
    sleep: Callable[[float], None]
    remaining_ms: Callable[[], int]

    def time_is_left(self) -> bool:
        """False once it is time to end."""
        return self.remaining_ms() > REMAINING_MS_MIN


class Feed:
    """One provider's quotes on their way into the database, the cache and the listeners.

    `provide` makes the provider of a name, and of None the one that is configured.
    `steps` and `interruptions` count what was done, and how often the database did not answer.
    """

    def __init__(
        self,
        provide: Callable[[str | None], QuoteProvider],
        instruments: Sequence[FeedInstrument],
        *,
        database: Database,
        cache: Cache,
        fan_out: FanOut,
        moves: Moves,
        start_triggers: Callable[[], None],
        order_watch: Callable[[int], None],
        clock: Clock,
        quotes_per_second: int,
    ) -> None:
        self._provide = provide
        self._provider = provide(None)
        # The provider that an intervention wants; None: the feed's own.
        self._wanted: str | None = None
        self._symbols = [each.symbol for each in instruments]
        self._age_ms_max = {each.symbol: each.age_ms_max for each in instruments}
        self._database = database
        self._cache = cache
        self._fan_out = fan_out
        self._moves = moves
        self._start_triggers = start_triggers
        self._order_watch = order_watch
        self._clock = clock
        self._interval = 1 / quotes_per_second
        # In steps, not by the clock, so that a step that comes a moment early is not skipped.
        self._steps_a_round = math.ceil(quotes_per_second * ROUND_SECONDS)
        self._newest: dict[str, Quote] = {}
        self._looked_around_at = -math.inf
        self._watch_ordered_at = -math.inf
        self._awaited = False
        self.steps = 0
        self.interruptions = 0

    def run(self, lease: Lease) -> bool:
        """Step after step until another copy waits for the lease, or the time is up: True. False when another copy has
        taken the feed over.
        """
        due = self._clock.seconds()
        while self._clock.time_is_left() and not self._awaited:
            try:
                self.step(lease)
            except TradingError as error:
                if error.code is ErrorCode.CONFLICT:
                    return False
                if error.code is not ErrorCode.DATABASE_UNAVAILABLE:
                    raise
                self._note_interruption(error)
            # A late step is not made up for: the next one comes on the beat.
            due = max(due + self._interval, self._clock.seconds() - self._interval)
            self._clock.sleep(max(0.0, due - self._clock.seconds()))
        return True

    def step(self, lease: Lease) -> None:
        """Pull, record, start what was touched, have accounts watched, cache, hand on.

        TradingError CONFLICT when the lease is lost.
        """
        looks_around = self._clock.seconds() - self._looked_around_at >= LOOK_AROUND_SECONDS
        if looks_around:
            self._take_wanted_provider()
        now = self._clock.now()
        offered = self._provider.quotes(self._symbols, now)
        recorded = record_quotes(self._database, self._provider.name, offered, lease)
        if recorded.triggers_due:
            self._start_triggers()
        standing = self._standing(offered, recorded)
        self._moves.note(standing, self._clock.seconds())
        self._newest |= {quote.symbol: quote for quote in standing}
        self._keep(standing, now)
        self.steps += 1
        if looks_around:
            self._look_around(lease)
        if self.steps % self._steps_a_round == 0:
            self._fan_out.publish(self._newest)

    def _standing(self, offered: Sequence[Quote], recorded: Recorded) -> list[Quote]:
        """What the database now has: held prices in place of those offered, nothing that was refused."""
        for symbol, reason in recorded.refused.items():
            logger().warning("quote refused", extra={"symbol": symbol, "reason": reason, "source": self._provider.name})
        standing: list[Quote] = []
        for quote in offered:
            if quote.symbol in recorded.refused:
                continue
            if held := recorded.held.get(quote.symbol):
                bid, ask, source = held
                self._provider.set_by_hand(quote.symbol, bid, ask)
                standing.append(replace(quote, bid=bid, ask=ask, source=source))
            else:
                standing.append(quote)
        return standing

    def _keep(self, quotes: Sequence[Quote], now: datetime) -> None:
        try:
            write_quotes(self._cache, quotes, self._age_ms_max, now)
        except CacheUnavailableError as error:
            logger().debug("quotes were not cached", extra={"cause": str(error)})

    def _look_around(self, lease: Lease) -> None:
        """Who wants prices, whether another copy waits, and whether any prices are stale."""
        if gone := self._fan_out.take_gone():
            ConnectionStore(self._database).drop(gone)
        self._fan_out.subscribe(list_market_data_connections(self._database, CONNECTIONS_MAX))
        self._awaited = lease_is_awaited(self._database, lease)
        self._watch()
        self._looked_around_at = self._clock.seconds()

    def _watch(self) -> None:
        """Have it told at once what nobody knows yet of stale prices, and found out later whether there are any."""
        if watch_prices(self._database).untold:
            self._order_watch(0)
        if self._clock.seconds() - self._watch_ordered_at >= WATCH_EVERY_SECONDS:
            self._order_watch(WATCH_AFTER_SECONDS)
            self._watch_ordered_at = self._clock.seconds()

    def _take_wanted_provider(self) -> None:
        """Switch to the provider that an intervention names, or back when it is over."""
        wanted = feed_provider(self._database, LEASE_NAME, self._wanted)
        if wanted == self._wanted:
            return
        try:
            self._provider = self._provide(wanted)
        except ConfigurationError as error:
            logger().error("the provider cannot be switched", extra={"provider": wanted, "cause": str(error)})
            return
        self._wanted = wanted
        logger().warning("the feed's provider is switched", extra={"provider": self._provider.name})

    def _note_interruption(self, error: TradingError) -> None:
        self.interruptions += 1
        logger().warning("the feed waits for the database", extra={"cause": str(error.__cause__)})
        self._clock.sleep(DATABASE_PAUSE_SECONDS)


def wait_for_lease(database: Database, clock: Clock) -> Lease | None:
    """The lease of the feed, as soon as the copy before makes way or is silent; None when it keeps it.

    The time that the database does not answer does not count.
    """
    give_up = clock.seconds() + LEASE_WAIT_SECONDS
    while clock.seconds() < give_up and clock.time_is_left():
        try:
            if lease := acquire_lease(database, LEASE_NAME):
                return lease
        except TradingError as error:
            if error.code is not ErrorCode.DATABASE_UNAVAILABLE:
                raise
            logger().warning("the feed waits for the database", extra={"cause": str(error.__cause__)})
            give_up = clock.seconds() + LEASE_WAIT_SECONDS
        clock.sleep(LEASE_POLL_SECONDS)
    return None


def give_back(database: Database, lease: Lease) -> None:
    """Let the next copy begin at once. Without the database it waits until the lease has run out."""
    try:
        release_lease(database, lease)
    except TradingError as error:
        logger().warning("the feed's lease was not given back", extra={"cause": str(error.__cause__)})
