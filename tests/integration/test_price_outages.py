"""Prices that go stale and come back: recorded once, audited, and told once to each connection that hears prices."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.kit.builders import make_user, set_quote
from tests.kit.realtime import ConnectionsApi, RelayWorld
from tests.kit.servers import ScratchDatabase
from trading.price_watch import watch_and_tell
from trading.store.database import Database
from trading.store.price_outages import PriceState, claim_price_notices, watch_prices

SYMBOLS = ("BTCUSD", "EURUSD", "GBPUSD")


class Watched(RelayWorld):
    """Three symbols, two of a market that is open unless a test closes it."""

    def execute(self, statement: str, *parameters: object) -> list[Any]:
        with self.database.connect() as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def quote(self, *symbols: str, seconds_old: float = 0) -> None:
        for symbol in symbols:
            set_quote(self.database, symbol, "1.1", "1.2", datetime.now(UTC) - timedelta(seconds=seconds_old))

    def session(self, opened_seconds_ago: float, *, closes_in: float = 3600) -> None:
        """The one session of FX."""
        self.execute("DELETE FROM market_sessions WHERE calendar = 'FX'")
        self.execute(
            "INSERT INTO market_sessions (calendar, opens_at, closes_at) "
            "VALUES ('FX', now() - %s * interval '1 s', now() + %s * interval '1 s')",
            opened_seconds_ago,
            closes_in,
        )

    def hear(self, connection_id: str, *symbols: str, channels: tuple[str, ...] = ("market_data",)) -> None:
        self.connect(connection_id, make_user(self.database), channels=channels)
        self.execute("UPDATE connections SET symbols = %s WHERE connection_id = %s", list(symbols), connection_id)

    def watch(self) -> PriceState:
        return watch_prices(self.relay_database)

    def tell(self) -> int:
        return watch_and_tell(self.relay_database, self.sockets, until=time.monotonic() + 5)

    def told(self, connection_id: str) -> list[tuple[str, list[str]]]:
        posted = self.api.posted[connection_id]
        assert all(message["type"] == "prices_stale" for message in posted)
        return [(message["data"]["state"], message["data"]["symbols"]) for message in posted]


@pytest.fixture
def world(database: ScratchDatabase, redis_url: str) -> Iterator[Watched]:
    api = ConnectionsApi()
    api.start()
    world = Watched(database, redis_url, api)
    world.execute("UPDATE instruments SET is_active = symbol = ANY (%s)", list(SYMBOLS))
    world.session(3600)
    world.quote(*SYMBOLS)
    yield world
    world.close()
    api.stop()


def test_an_outage_is_recorded_and_audited_once_and_ends_with_the_next_quote(world: Watched) -> None:
    # given prices of which nothing is to be said
    assert world.watch() == PriceState((), (), 0, untold=False)

    # when two go stale, and are looked at by many at once
    world.quote("EURUSD", "BTCUSD", seconds_old=60)
    with ThreadPoolExecutor(4) as threads:
        databases = [Database(lambda: world.database.url_for("function_prices")) for _ in range(4)]
        found = list(threads.map(watch_prices, databases))
        for each in databases:
            each.close()
    world.quote("EURUSD")
    ended = world.watch()

    # then
    assert sorted(symbol for state in found for symbol in state.entered) == ["BTCUSD", "EURUSD"]
    assert (ended.entered, ended.left, ended.stale) == ((), ("EURUSD",), 1)
    assert world.execute(
        "SELECT symbol, left_at IS NULL, entered_at > quoted_at FROM price_outages ORDER BY symbol"
    ) == [
        ("BTCUSD", True, True),
        ("EURUSD", False, True),
    ]
    audited = world.execute(
        "SELECT action, details FROM platform_audit_log WHERE starts_with(action, 'PRICES') ORDER BY version"
    )
    assert audited[-1] == ("PRICES_STALE_ENDED", {"symbols": ["EURUSD"]})
    assert sorted(symbol for _, details in audited[:-1] for symbol in details["symbols"]) == ["BTCUSD", "EURUSD"]
    assert world.execute("SELECT * FROM verify_audit()") == []


def test_only_a_market_that_is_open_has_outages(world: Watched) -> None:
    # given quotes that are too old, or were never there
    world.quote("EURUSD", seconds_old=60)
    world.execute("DELETE FROM quotes WHERE symbol = 'GBPUSD'")

    # when FX is closed, has just opened, is open, and closes
    seen: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    for opened, closes in ((7200, -3600), (1, 3600), (60, 3600), (60, -1)):
        world.session(opened, closes_in=closes)
        state = world.watch()
        seen.append((state.entered, state.left))

    # then
    both = ("EURUSD", "GBPUSD")
    assert seen == [((), ()), ((), ()), (both, ()), ((), both)]
    # and where markets are traded at all hours, their hours excuse nothing
    world.execute("UPDATE platform_settings SET trade_always = true")
    assert world.watch().entered == both


def test_each_connection_is_told_once_of_what_it_hears(world: Watched) -> None:
    # given
    world.hear("all")
    world.hear("some", "EURUSD", "GBPUSD")
    world.hear("other", "BTCUSD")
    world.hear("orders", channels=("orders",))

    # when prices go stale, are looked at again, one comes back while another goes, and all come back
    world.quote("EURUSD", "GBPUSD", seconds_old=60)
    told = [world.tell(), world.tell()]
    world.hear("late")
    told.append(world.tell())
    world.quote("EURUSD")
    world.quote("BTCUSD", seconds_old=60)
    told.append(world.tell())
    world.quote(*SYMBOLS)
    told += [world.tell(), world.tell()]

    # then
    assert told == [2, 0, 1, 4, 4, 0]
    everything = [
        ("entered", ["EURUSD", "GBPUSD"]),
        ("entered", ["BTCUSD"]),
        ("left", ["EURUSD"]),
        ("left", ["BTCUSD", "GBPUSD"]),
    ]
    assert world.told("all") == world.told("late") == everything
    assert world.told("some") == [everything[0], ("left", ["EURUSD"]), ("left", ["GBPUSD"])]
    assert world.told("other") == [("entered", ["BTCUSD"]), ("left", ["BTCUSD"])]
    assert world.told("orders") == []


def test_who_unsubscribes_hears_no_more_and_who_comes_back_hears_anew(world: Watched) -> None:
    # given
    world.hear("c", "EURUSD", "GBPUSD")
    world.quote("EURUSD", "GBPUSD", seconds_old=60)
    world.tell()

    # when one symbol is given up, then prices altogether, and taken up again
    world.connections.unsubscribe("c", channels=(), symbols=("EURUSD",))
    world.tell()
    world.connections.unsubscribe("c", channels=("market_data",), symbols=())
    world.tell()
    again = world.connections.subscribe(
        "c", channels=("market_data",), symbols=(), since=None, account_id=None, symbols_max=9, hold_ms=0
    )
    world.tell()

    # then
    assert again["prices_stale"] is True
    assert world.told("c") == [("entered", ["EURUSD", "GBPUSD"]), ("entered", ["GBPUSD"])]


def test_a_connection_that_takes_nothing_is_told_later_and_one_that_is_gone_is_forgotten(world: Watched) -> None:
    # given
    for connection_id in ("slow", "gone"):
        world.hear(connection_id)
    world.api.slow("slow")
    world.api.gone("gone")
    world.quote("EURUSD", seconds_old=60)

    # when they are told, again while that is being tried, and once the claim has run out
    told = [world.tell(), world.tell()]
    world.api.answers.clear()
    world.execute("UPDATE connections SET stale_claimed_until = now()")
    told.append(world.tell())

    # then
    assert told == [0, 0, 1]
    assert world.told("slow") == [("entered", ["EURUSD"])]
    assert world.execute("SELECT connection_id FROM connections") == [("slow",)]


def test_two_who_tell_at_once_do_not_take_the_same_connection(world: Watched) -> None:
    for number in range(6):
        world.hear(f"c{number}")
    world.quote("EURUSD", seconds_old=60)
    world.watch()

    with ThreadPoolExecutor(3) as threads:
        databases = [Database(lambda: world.database.url_for("function_relay")) for _ in range(3)]
        claims = list(threads.map(lambda each: claim_price_notices(each, limit=4, claim_ms=9000), databases))
        for each in databases:
            each.close()

    claimed = [notice.connection_id for claim in claims for notice in claim]
    assert len(claimed) == len(set(claimed)) >= 4
