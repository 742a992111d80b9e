"""The feed on real stores: record, cache, hand on; the lease; what happens when a store is gone."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
import redis
from psycopg.types.json import Jsonb

from tests.kit import ScratchDatabase, make_user
from trading.cache import Cache
from trading.errors import ErrorCode, TradingError
from trading.quotes.fan_out import FanOut
from trading.quotes.feed import (
    LEASE_NAME,
    LEASE_WAIT_SECONDS,
    WATCH_AFTER_SECONDS,
    Clock,
    Feed,
    give_back,
    wait_for_lease,
)
from trading.quotes.moves import Moves
from trading.quotes.provider import FeedInstrument, Quote
from trading.settings import ConfigurationError
from trading.sockets import Outcome
from trading.store.database import Database
from trading.store.quotes import (
    Lease,
    acquire_lease,
    lease_is_awaited,
    list_feed_instruments,
    list_quotes,
    release_lease,
)

NOWHERE = "postgresql://nobody@127.0.0.1:9/none"


@dataclass
class ScriptedProvider:
    """Gives what it is told to, stamped with the time of asking."""

    prices: dict[str, tuple[str, str]]
    name: str = "simulated"
    by_hand: list[tuple[str, Decimal, Decimal]] = field(default_factory=list)

    def quotes(self, symbols: Sequence[str], now: datetime) -> list[Quote]:
        return [
            Quote(symbol, Decimal(bid), Decimal(ask), now, self.name)
            for symbol, (bid, ask) in self.prices.items()
            if symbol in symbols
        ]

    def set_by_hand(self, symbol: str, bid: Decimal, ask: Decimal) -> None:
        self.by_hand.append((symbol, bid, ask))


@dataclass
class Time:
    """A clock that moves only when somebody sleeps; `on_sleep` is what happens meanwhile."""

    now: datetime
    seconds: float = 0.0
    until: float = 60.0
    on_sleep: Callable[[], None] = lambda: None

    def clock(self) -> Clock:
        return Clock(
            lambda: self.now, lambda: self.seconds, self.sleep, lambda: int((self.until - self.seconds) * 1000)
        )

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.now += timedelta(seconds=seconds)
        self.on_sleep()


@dataclass
class World:
    """A feed with everything around it."""

    scratch: ScratchDatabase
    redis_url: str
    provider: ScriptedProvider
    time: Time
    database_url: str = ""
    standby: ScriptedProvider = field(
        default_factory=lambda: ScriptedProvider({"EURUSD": ("1.20000", "1.20020")}, "replay")
    )
    posts: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    started: list[None] = field(default_factory=list[None])
    watches: list[int] = field(default_factory=list[int])
    moved: list[Sequence[str]] = field(default_factory=list[Sequence[str]])
    outcome: Outcome = Outcome.DELIVERED
    opened: list[Any] = field(default_factory=list)

    def database(self) -> Database:
        made = Database(lambda: self.database_url)
        self.opened.append(made)
        return made

    def feed(self, database: Database, *, quotes_per_second: int = 4) -> Feed:
        cache = Cache(lambda: self.redis_url, timeout_ms=1000)
        fan_out = FanOut(self.post)
        # Posts at once and in this thread: what is due is then known without waiting.
        fan_out._pool.shutdown()
        fan_out._pool = _Inline()  # pyright: ignore[reportAttributeAccessIssue]
        moves = Moves(self.moved.append)
        self.opened += [cache, moves]
        return Feed(
            self.provide,
            list_feed_instruments(database),
            database=database,
            cache=cache,
            fan_out=fan_out,
            moves=moves,
            start_triggers=partial(self.started.append, None),
            order_watch=self.watches.append,
            clock=self.time.clock(),
            quotes_per_second=quotes_per_second,
        )

    def provide(self, wanted: str | None) -> ScriptedProvider:
        if wanted not in {None, self.standby.name}:
            raise ConfigurationError("not configured")
        return self.standby if wanted else self.provider

    def ask(self, procedure: str, **request: object) -> Any:
        """The answer of a procedure to an officer."""
        said = {"version": 1, "actor": "tests", "parameters": {"provider": "replay"}, **request}
        with self.scratch.connect("function_incidents") as connection:
            return connection.execute(f"SELECT {procedure}(%s)".encode(), (Jsonb(said),)).fetchall()[0][0]

    def close_moves(self) -> None:
        """Wait until what has moved is told."""
        for each in self.opened:
            if isinstance(each, Moves):
                each.close()

    def post(self, connection_id: str, text: str) -> Outcome:
        self.posts.append((connection_id, json.loads(text, parse_float=Decimal)["data"]))
        return self.outcome

    def cached(self, symbol: str) -> dict[str, Any] | None:
        with redis.Redis.from_url(self.redis_url) as client:
            value: Any = client.get(f"quote:{symbol}")
        return json.loads(value) if value else None

    def stored(self, symbol: str) -> Quote | None:
        database = self.database()
        return list_quotes(database, [symbol])[0].quote

    def owner(self, statement: str, *parameters: object) -> list[Any]:
        with self.scratch.connect() as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def listen(self, connection_id: str, symbols: list[str]) -> None:
        user = make_user(self.scratch)
        self.owner(
            "INSERT INTO connections "
            "(connection_id, user_id, role, authenticated_at, token_expires_at, channels, symbols) "
            "VALUES (%s, %s, 'trader', now(), now() + interval '1 hour', '{market_data}', %s)",
            connection_id,
            user.user_id,
            symbols,
        )


class _Inline:
    def submit(self, call: Callable[..., Outcome], *arguments: object) -> Future[Outcome]:
        done: Future[Outcome] = Future()
        done.set_result(call(*arguments))
        return done

    def shutdown(self, **_options: object) -> None:
        return


@pytest.fixture
def world(database: ScratchDatabase, redis_url: str) -> Iterator[World]:
    prices = {"EURUSD": ("1.10000", "1.10020"), "AAPL": ("265.00", "265.02")}
    made = World(
        scratch=database,
        redis_url=redis_url,
        provider=ScriptedProvider(prices),
        time=Time(datetime.now(UTC) - timedelta(seconds=2)),
        database_url=database.url_for("function_prices"),
    )
    yield made
    for each in made.opened:
        each.close()


@pytest.fixture
def lease(world: World) -> Lease:
    acquired = acquire_lease(world.database(), LEASE_NAME)
    assert acquired is not None
    return acquired


def test_a_step_records_caches_and_hands_on(world: World, lease: Lease) -> None:
    world.listen("one", ["EURUSD"])
    feed = world.feed(world.database())

    feed.step(lease)

    assert world.stored("EURUSD") == Quote(
        "EURUSD", Decimal("1.10000"), Decimal("1.10020"), world.time.now, "simulated"
    )
    assert world.cached("AAPL") == {
        "bid": "265.00",
        "ask": "265.02",
        "time": world.time.now.isoformat(),
        "source": "simulated",
    }
    assert world.posts == [
        (
            "one",
            {
                "symbol": "EURUSD",
                "bid": Decimal("1.10000"),
                "ask": Decimal("1.10020"),
                "spread": Decimal("0.00020"),
                "timestamp": world.time.now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            },
        )
    ]


def test_what_a_price_touches_is_started_at_each_step_until_a_worker_has_it(world: World, lease: Lease) -> None:
    feed = world.feed(world.database())
    feed.step(lease)
    assert world.started == []
    user = make_user(world.scratch)
    world.owner(
        "INSERT INTO trigger_queue (user_id, subject_id, account_id, kind, quoted_at, touched_at) "
        "VALUES (%s, uuidv7(), %s, 'expiry', now(), now())",
        user.user_id,
        user.account_id,
    )

    world.time.sleep(0.25)
    feed.step(lease)
    world.time.sleep(0.25)
    feed.step(lease)
    assert len(world.started) == 2

    world.owner("UPDATE trigger_queue SET lease_expires_at = now() + interval '1 minute'")
    world.time.sleep(0.25)
    feed.step(lease)
    assert len(world.started) == 2


def test_those_who_hold_what_moved_are_watched_once_a_window(world: World, lease: Lease) -> None:
    # given a symbol that moves at every step and one that stands still
    world.provider.prices = {"EURUSD": ("1.1000", "1.1002"), "GBPUSD": ("1.2500", "1.2504")}
    feed = world.feed(world.database())
    # when
    for step in range(10):
        world.provider.prices["EURUSD"] = (f"1.100{step}", "1.1020")
        feed.step(lease)
        world.time.sleep(0.25)
    world.close_moves()
    # then
    assert world.moved == [["EURUSD", "GBPUSD"], ["EURUSD"]]


def test_the_cache_forgets_a_quote_when_it_is_no_longer_fresh(world: World, lease: Lease) -> None:
    world.feed(world.database()).step(lease)

    with redis.Redis.from_url(world.redis_url) as client:
        left = {symbol: client.pttl(f"quote:{symbol}") for symbol in ("EURUSD", "AAPL")}
    assert 0 < left["EURUSD"] <= 5000  # pyright: ignore[reportOperatorIssue]
    assert 5000 < left["AAPL"] <= 10000  # pyright: ignore[reportOperatorIssue]


def test_a_price_set_by_hand_stands_everywhere(world: World, lease: Lease) -> None:
    world.listen("one", [])
    held = {"version": 1, "source": "manual", "quotes": [{"symbol": "EURUSD", "bid": "1.2", "ask": "1.2002"}]}
    world.owner("SELECT record_quotes(%s)", Jsonb(held))
    world.time.now = datetime.now(UTC)
    feed = world.feed(world.database())

    feed.step(lease)

    assert world.stored("EURUSD") == Quote("EURUSD", Decimal("1.2"), Decimal("1.2002"), world.time.now, "manual")
    assert world.cached("EURUSD") == {
        "bid": "1.20000",
        "ask": "1.20020",
        "time": world.time.now.isoformat(),
        "source": "manual",
    }
    assert ("EURUSD", Decimal("1.2")) in [(data["symbol"], data["bid"]) for _, data in world.posts]
    assert world.provider.by_hand == [("EURUSD", Decimal("1.2"), Decimal("1.2002"))]


def test_an_intervention_switches_the_provider_of_a_running_feed_and_gives_it_back(world: World, lease: Lease) -> None:
    feed = world.feed(world.database())
    sources: list[str] = []

    def steps() -> None:
        for _ in range(2):
            world.time.seconds += 0.6
            world.time.now += timedelta(milliseconds=100)
            feed.step(lease)
        stored = world.stored("EURUSD")
        assert stored is not None
        sources.append(stored.source)

    # given a feed that runs
    steps()
    # when the standby is asked for, then it gives the prices within a second
    started = world.ask("start_intervention", kind="price_provider", target=LEASE_NAME, seconds=60, reason="a test")
    steps()
    # and a provider that is not configured changes nothing
    world.owner('UPDATE interventions SET parameters = \'{"provider": "none"}\'')
    steps()
    world.owner('UPDATE interventions SET parameters = \'{"provider": "replay"}\'')
    steps()
    # when it is undone, then the feed's own gives them again
    world.ask("undo_intervention", id=started["intervention"]["id"])
    steps()
    steps()

    assert sources == ["simulated", "replay", "replay", "replay", "simulated", "simulated"]
    assert world.owner("SELECT carried_out_at IS NULL, reverted_at IS NULL FROM interventions") == [(False, False)]


def test_a_refused_quote_goes_nowhere_and_the_others_go_on(world: World, lease: Lease) -> None:
    world.listen("one", [])
    world.provider.prices["EURUSD"] = ("1.2", "1.1")

    world.feed(world.database()).step(lease)

    assert world.stored("EURUSD") is None
    assert world.cached("EURUSD") is None
    assert [data["symbol"] for _, data in world.posts] == ["AAPL"]


def test_without_redis_quotes_are_recorded_and_handed_on(world: World, lease: Lease) -> None:
    world.redis_url = "redis://127.0.0.1:9/0"
    world.listen("one", ["EURUSD"])

    world.feed(world.database()).step(lease)

    assert world.stored("EURUSD") is not None
    assert len(world.posts) == 1


def test_faster_quotes_are_conflated_to_one_message_in_a_quarter_second(world: World, lease: Lease) -> None:
    # given 20 quotes a second, each other than the last, for 2 seconds
    world.listen("one", ["EURUSD"])
    feed = world.feed(world.database(), quotes_per_second=20)
    times: list[float] = []
    for step in range(40):
        world.provider.prices["EURUSD"] = (f"1.1{step:03}", f"1.2{step:03}")
        before = len(world.posts)
        feed.step(lease)
        times += [world.time.seconds] * (len(world.posts) - before)
        world.time.sleep(0.05)

    # then
    assert len(times) == 8
    assert all(after - before >= 0.25 - 1e-9 for before, after in itertools.pairwise(times))
    assert world.posts[-1][1]["bid"] == Decimal("1.1039")


def test_a_connection_that_is_gone_is_dropped(world: World, lease: Lease) -> None:
    world.listen("one", ["EURUSD"])
    world.outcome = Outcome.GONE
    feed = world.feed(world.database())

    for _ in range(10):
        feed.step(lease)
        world.time.sleep(0.25)

    assert len(world.posts) == 1
    assert world.owner("SELECT * FROM connections") == []


def test_new_subscriptions_are_heard_of_within_a_second(world: World, lease: Lease) -> None:
    feed = world.feed(world.database())
    feed.step(lease)
    world.listen("late", ["EURUSD"])

    for _ in range(5):
        world.time.sleep(0.25)
        feed.step(lease)

    assert [connection_id for connection_id, _ in world.posts][:1] == ["late"]


def test_looks_at_prices_are_ordered_for_when_it_may_have_died_and_at_once_for_who_does_not_know(
    world: World, lease: Lease
) -> None:
    # given a provider of two symbols, and a listener to one that has no price
    world.owner("UPDATE instruments SET is_active = symbol IN ('EURUSD', 'AAPL', 'BTCUSD')")
    world.owner("UPDATE platform_settings SET trade_always = true")
    world.listen("one", ["BTCUSD"])
    feed = world.feed(world.database())

    # when it feeds for 7 s, and somebody tells the listener after one
    for step in range(28):
        feed.step(lease)
        world.time.now, world.time.seconds = datetime.now(UTC), world.time.seconds + 0.25
        if step == 3:
            world.owner("UPDATE connections SET stale_told = '{BTCUSD}'")

    # then
    assert world.watches == [0, WATCH_AFTER_SECONDS, WATCH_AFTER_SECONDS]
    assert world.owner("SELECT symbol FROM price_outages") == [("BTCUSD",)]


def test_it_runs_on_the_beat_until_little_time_is_left(world: World, lease: Lease) -> None:
    world.time.now = datetime.now(UTC) - timedelta(minutes=1)
    world.time.until = 14.0
    feed = world.feed(world.database())

    assert feed.run(lease) is True

    assert 38 <= feed.steps <= 41
    assert world.time.until - world.time.seconds >= 3.5


def test_a_lost_connection_costs_nothing_but_a_reopening(world: World, lease: Lease) -> None:
    # given a feed whose server process is ended at each third beat
    beats = 0

    def kill() -> None:
        nonlocal beats
        beats += 1
        if beats % 3 == 0:
            world.owner("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'function_prices'")

    world.time.now = datetime.now(UTC) - timedelta(minutes=1)
    world.time.until = 8.0
    world.time.on_sleep = kill
    feed = world.feed(world.database())

    # when, then
    assert feed.run(lease) is True
    assert feed.steps >= 15
    assert feed.interruptions == 0


def test_it_waits_for_a_database_that_is_gone_and_goes_on(world: World, lease: Lease) -> None:
    # given a database that cannot be reached for a while
    database = world.database()
    feed = world.feed(database)
    there = world.database_url
    database.close()
    world.database_url = NOWHERE

    def come_back() -> None:
        if feed.interruptions >= 3:
            world.database_url = there

    world.time.now = datetime.now(UTC) - timedelta(minutes=1)
    world.time.until = 14.0
    world.time.on_sleep = come_back

    # when, then
    assert feed.run(lease) is True
    assert feed.interruptions == 3
    assert feed.steps > 10
    assert world.stored("EURUSD") is not None


def test_who_has_lost_the_lease_writes_nothing_and_ends(world: World, lease: Lease) -> None:
    # given a copy that was silent for so long that another took over
    feed = world.feed(world.database())
    world.owner("UPDATE feed_leases SET expires_at = clock_timestamp()")
    newer = acquire_lease(world.database(), LEASE_NAME)

    assert feed.run(lease) is False

    assert newer == Lease(LEASE_NAME, lease.fence + 1)
    assert feed.steps == 0
    assert world.stored("EURUSD") is None


def test_a_lease_is_one_copy_s_until_given_back_or_expired(world: World, lease: Lease) -> None:
    other = world.database()

    assert acquire_lease(other, LEASE_NAME) is None
    release_lease(other, replace(lease, fence=lease.fence - 1))
    assert acquire_lease(other, LEASE_NAME) is None
    release_lease(other, lease)
    assert acquire_lease(other, LEASE_NAME) == Lease(LEASE_NAME, lease.fence + 1)
    assert acquire_lease(other, "another feed") == Lease("another feed", 1)


def test_each_batch_renews_the_lease(world: World, lease: Lease) -> None:
    feed = world.feed(world.database())
    world.owner("UPDATE feed_leases SET expires_at = clock_timestamp() + interval '1 ms'")

    feed.step(lease)

    ((left,),) = world.owner("SELECT expires_at - clock_timestamp() FROM feed_leases")
    assert timedelta(seconds=2) < left <= timedelta(seconds=3)


def test_a_copy_that_died_is_followed_while_its_quotes_are_fresh(world: World, lease: Lease) -> None:
    # given the time that another copy needs to begin
    beginning = timedelta(seconds=1.5)
    runs_out = "SELECT max(expires_at) - clock_timestamp() FROM feed_leases"
    ((granted,),) = world.owner(runs_out)

    # when a copy dies after its first batch
    world.feed(world.database()).step(lease)

    # then its lease has run out before
    ((renewed,),) = world.owner(runs_out)
    ((fresh,),) = world.owner("SELECT min(quote_age_ms_max) * interval '1 millisecond' FROM instruments")
    assert max(granted, renewed) + beginning <= fresh


def test_it_makes_way_for_a_copy_that_waits(world: World, lease: Lease) -> None:
    # given a feed that has time left, and a copy that comes after three seconds
    other = world.database()
    granted: list[Lease] = []

    def come_after_three_seconds() -> None:
        if world.time.seconds >= 3 and (acquired := acquire_lease(other, LEASE_NAME)):
            granted.append(acquired)

    world.time.now = datetime.now(UTC) - timedelta(minutes=1)
    world.time.on_sleep = come_after_three_seconds
    feed = world.feed(world.database())

    # when
    assert feed.run(lease) is True

    # then it has ended within a second, and fed until then
    assert 3 < world.time.seconds < 4.5
    assert feed.steps >= 4 * 3
    assert granted == []

    # and when the other has taken over, nobody waits any more
    give_back(world.database(), lease)
    come_after_three_seconds()
    assert granted == [Lease(LEASE_NAME, lease.fence + 1)]
    assert not lease_is_awaited(other, granted[0])


def test_it_makes_way_for_nobody_who_waits_no_more(world: World, lease: Lease) -> None:
    # given a copy that asked for the lease, and did not come again
    assert acquire_lease(world.database(), LEASE_NAME) is None
    assert lease_is_awaited(world.database(), lease)
    world.owner("UPDATE feed_leases SET expires_at = clock_timestamp() WHERE name <> %s", LEASE_NAME)
    world.time.now = datetime.now(UTC) - timedelta(minutes=1)
    world.time.until = 14.0
    feed = world.feed(world.database())

    # when, then
    assert feed.run(lease) is True
    assert feed.steps >= 38


def test_the_next_copy_waits_for_the_lease_and_takes_over(world: World, lease: Lease) -> None:
    first = world.database()

    def end_after_three_seconds() -> None:
        if world.time.seconds >= 3:
            give_back(first, lease)

    world.time.on_sleep = end_after_three_seconds

    assert wait_for_lease(world.database(), world.time.clock()) == Lease(LEASE_NAME, lease.fence + 1)
    assert 3 <= world.time.seconds < 4


def test_the_next_copy_gives_up_when_the_lease_is_kept(world: World, lease: Lease) -> None:
    world.owner("UPDATE feed_leases SET expires_at = clock_timestamp() + interval '1 hour'")

    assert wait_for_lease(world.database(), world.time.clock()) is None
    assert LEASE_WAIT_SECONDS <= world.time.seconds < LEASE_WAIT_SECONDS + 1


def test_the_wait_outlasts_a_database_that_is_gone(world: World) -> None:
    there, world.database_url = world.database_url, NOWHERE

    def come_back() -> None:
        if world.time.seconds > LEASE_WAIT_SECONDS + 1:
            world.database_url = there

    world.time.on_sleep = come_back

    assert wait_for_lease(world.database(), world.time.clock()) is not None


def test_giving_back_is_left_alone_without_a_database(world: World, lease: Lease) -> None:
    world.database_url = NOWHERE
    give_back(world.database(), lease)

    assert world.owner("SELECT fence FROM feed_leases") == [(lease.fence,)]


def test_other_faults_end_the_feed(world: World, lease: Lease) -> None:
    feed = world.feed(world.database())
    feed._provider = replace(world.provider, name="")

    with pytest.raises(TradingError) as caught:
        feed.run(lease)
    assert caught.value.code is ErrorCode.VALIDATION_FAILED


def test_the_feed_knows_active_instruments_and_their_last_prices(world: World, lease: Lease) -> None:
    world.feed(world.database()).step(lease)
    world.owner("UPDATE instruments SET is_active = false WHERE symbol = 'GBPUSD'")

    instruments = {each.symbol: each for each in list_feed_instruments(world.database())}

    assert "GBPUSD" not in instruments
    assert instruments["EURUSD"] == FeedInstrument(
        symbol="EURUSD",
        asset_class="forex",
        base_currency="EUR",
        quote_currency="USD",
        tick_size=Decimal("0.00001"),
        reference_price=Decimal("1.16"),
        reference_spread=Decimal("0.00008"),
        volatility=Decimal("0.004"),
        age_ms_max=5000,
        bid=Decimal("1.1"),
        ask=Decimal("1.1002"),
    )
    assert instruments["MSFT"].bid is None
