"""What the relay loses when it is killed, raced, or fails halfway: nothing."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.builders import make_user
from tests.kit.realtime import ConnectionsApi, RelayWorld, add_event, in_seconds, soon
from tests.kit.servers import ScratchDatabase
from trading.delivery import FAILED_ATTEMPTS_MAX
from trading.relay import AwakeSign, Relay
from trading.sockets import Outcome
from trading.store.relay import Advance, Delivered, RelayStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def world(database: ScratchDatabase, redis_url: str) -> Iterator[RelayWorld]:
    api = ConnectionsApi()
    api.start()
    world = RelayWorld(database, redis_url, api)
    yield world
    world.close()
    api.stop()


def test_killed_between_publishing_and_the_record_of_it(world: RelayWorld) -> None:
    # given a relay that ends when everything is sent and nothing is recorded
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    world.happen(trader)
    world.happen(trader)
    store = world.store(lease_ms=300)

    def killed(*_arguments: object) -> Any:
        raise KeyboardInterrupt

    store.advance = killed  # type: ignore[method-assign]
    doomed = Relay(store, world.courier(), AwakeSign(world.cache()))

    with world.listening(trader) as heard:
        with pytest.raises(KeyboardInterrupt):
            doomed.deliver([trader.account_id], until=in_seconds(5))

        # when the lease has run out and another relay looks
        successor = world.relay()
        soon(lambda: successor.sweep(until=in_seconds(5)) == 0 and world.pushed(trader) == 2)
        soon(lambda: len(heard) == 20)

    # then all of it came twice, with the same sequences, and is recorded
    assert world.api.sequences("c") == [1, 2, 1, 2]
    assert [message["sequence"] for message in heard] == [1] * 5 + [2] * 5 + [1] * 5 + [2] * 5
    assert (world.pushed(trader), world.sent("c")) == (2, 2)


def test_killed_for_real_while_pushing(world: RelayWorld, tmp_path: Path) -> None:
    # given a relay in a process of its own, that is killed when the third message arrives
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    for _ in range(3):
        world.happen(trader)
    arrived = threading.Event()
    killed = threading.Event()

    def third(_message: object) -> int:
        if len(world.api.posted["c"]) == 2 and not killed.is_set():
            arrived.set()
            killed.wait(10)
        return 200

    world.api.answers["c"] = third
    for name, text in {"database": world.database.url_for("function_relay"), "redis": world.redis_url}.items():
        (tmp_path / name).write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kit.relay_process", str(trader.account_id)],
        cwd=ROOT,
        env=os.environ
        | {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'layers/trading'}",
            "DATABASE_SECRET": f"file:{tmp_path / 'database'}",
            "REDIS_SECRET": f"file:{tmp_path / 'redis'}",
            "CONNECTIONS_ENDPOINT": world.api.endpoint,
        },
    )
    try:
        assert arrived.wait(30)
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
        killed.set()
        before = world.api.sequences("c")

        # when another relay is asked again and again, as the sweep does
        successor = world.relay()
        soon(lambda: successor.sweep(until=in_seconds(5)) == 0 and world.sent("c") == 3, seconds=20)
    finally:
        process.kill()
        process.wait()

    # then nothing is lost, and what came again came in order
    after = world.api.sequences("c")
    assert after[: len(before)] == before
    assert after[-3:] == [1, 2, 3]
    assert set(after) == {1, 2, 3}
    assert world.pushed(trader) == 3


def test_two_relays_at_once_serve_an_account_one_after_the_other(world: RelayWorld) -> None:
    # given a connection with one frame an event, so few that a lease has time for all: an event that is cut short comes
    # again whole
    trader = make_user(world.database, balance=0)
    world.connect("c", trader, channels=("account",))
    relays = [world.relay(), world.relay()]
    start = threading.Barrier(len(relays) + 1)

    def work(relay: Relay) -> None:
        start.wait()
        relay.deliver_and_linger([trader.account_id], linger_seconds=1, until=in_seconds(20))

    threads = [threading.Thread(target=work, args=(relay,)) for relay in relays]
    for thread in threads:
        thread.start()

    # when events keep coming while both are awake
    start.wait()
    with world.database.connect() as connection:
        for _ in range(60):
            add_event(connection, trader)
    for thread in threads:
        thread.join()

    # then each event came, in order, once
    assert [message["sequence"] for message in world.api.posted["c"]] == list(range(1, 61))


@pytest.mark.parametrize("by_itself", [False, True], ids=["by another relay", "by the same relay"])
def test_who_comes_back_after_its_lease_changes_nothing(world: RelayWorld, by_itself: bool) -> None:
    # given a relay whose lease ran out, and was taken anew
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    world.happen(trader)
    first = world.store(lease_ms=1)
    (stale,) = first.claim([trader.account_id], recent_ms=None, limit=1).streams
    second = first if by_itself else world.store()
    soon(lambda: bool(second.claim([trader.account_id], recent_ms=None, limit=1).streams))
    leased = "SELECT (lease_holder, lease_fencing)::text FROM event_streams"
    before = world.value(leased)

    # when the work under the first lease is recorded
    advanced = first.advance([Delivered(stale, 1, False, (Advance(stale.cursors[0], 1, False),), ())])

    # then the relay is told, and neither the cursors nor the newer lease have moved
    assert advanced.lost == {trader.account_id}
    assert (world.pushed(trader), world.sent("c")) == (0, 0)
    assert world.value(leased) == before


def test_an_event_that_commits_while_another_relay_is_finishing_is_not_left_behind(world: RelayWorld) -> None:
    # given an account under the lease of a relay that has read its events already
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    world.happen(trader)
    holder = world.store(lease_ms=600)
    assert holder.claim([trader.account_id], recent_ms=None, limit=1).streams

    # when the message of the next event is handled by another relay, late enough to be no recent event any more
    world.happen(trader)
    world.age_events()
    world.relay().deliver_and_linger([trader.account_id], linger_seconds=0, until=in_seconds(10))

    # then it has waited for the lease
    assert world.api.sequences("c") == [1, 2]


def test_a_transaction_that_commits_late_or_never_makes_no_gap(world: RelayWorld) -> None:
    # given a transaction that holds the account's next sequence, and one that was rolled back
    trader, other = make_user(world.database, balance=0), make_user(world.database, balance=0)
    world.connect("c", trader)
    world.connect("o", other)
    relay = world.relay()
    with world.database.connect(autocommit=False) as late, world.database.connect(autocommit=False) as never:
        add_event(late, trader)
        add_event(never, other)
        world.happen(make_user(world.database, balance=0))
        relay.deliver([trader.account_id, other.account_id], until=in_seconds(5))
        assert world.api.sequences("c") == []

        # when
        never.rollback()
        late.commit()
    world.happen(trader)
    world.happen(other)
    relay.deliver([trader.account_id, other.account_id], until=in_seconds(5))

    # then
    assert world.api.sequences("c") == [1, 2]
    assert world.api.sequences("o") == [1]


def test_a_connection_that_is_gone_is_forgotten(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database, balance=0)
    world.connect("gone", trader)
    world.connect("alive", trader)
    world.api.gone("gone")
    world.happen(trader)

    # when
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    assert world.api.sequences("alive") == [1]
    assert world.value("SELECT array_agg(connection_id) FROM connections") == ["alive"]
    assert world.sent("gone") is None


def test_a_slow_consumer_is_cut_and_holds_nobody_up(world: RelayWorld) -> None:
    # given
    trader, other = make_user(world.database, balance=0), make_user(world.database, balance=0)
    world.connect("slow", trader)
    world.connect("quick", trader)
    world.connect("other", other)
    world.api.slow("slow")
    waiting = threading.Event()
    served_meanwhile: list[bool] = []

    def slow(_message: object) -> int:
        # The answer waits until the others have theirs, or until it is clear that they never will.
        served_meanwhile.append(waiting.wait(0.9))
        return 429

    world.api.answers["slow"] = slow

    def last(message: dict[str, Any]) -> int:
        if message.get("type") == "account_update" and world.api.posted["quick"][3:] and world.api.posted["other"][3:]:
            waiting.set()
        return 200

    world.api.answers["quick"] = world.api.answers["other"] = last
    world.happen(trader)
    world.happen(other)

    # when
    world.relay().deliver([trader.account_id, other.account_id], until=in_seconds(10))

    # then
    assert served_meanwhile[0]
    assert world.api.sequences("quick") == world.api.sequences("other") == [1]
    assert world.api.cut == ["slow"]
    assert world.value("SELECT count(*) FROM connections WHERE connection_id = 'slow'") == 0


def test_a_consumer_that_is_slow_for_a_moment_is_kept(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    statuses = iter([429, 429])
    world.api.answers["c"] = lambda _message: next(statuses, 200)
    world.happen(trader)

    # when
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    assert len(world.api.posted["c"]) == 5
    assert world.api.cut == []


def test_a_post_that_fails_is_tried_again_later(world: RelayWorld) -> None:
    # given an API that fails at the second message, once
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    statuses = iter([200, 500])
    world.api.answers["c"] = lambda _message: next(statuses, 200)
    world.happen(trader)
    world.happen(trader)
    relay = world.relay()

    # when
    relay.deliver([trader.account_id], until=in_seconds(5))
    first = world.api.sequences("c")
    soon(lambda: relay.sweep(until=in_seconds(5)) == 1)

    # then what is sent again has the same sequence, and order is kept
    assert first == [1]
    assert world.api.sequences("c") == [1, 2]
    assert len(world.api.posted["c"]) == 1 + 10
    assert world.value("SELECT failed_attempts FROM connection_streams") == 0


def test_a_connection_that_only_fails_is_cut_in_the_end(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    world.api.answers["c"] = lambda _message: 500
    world.happen(trader)
    relay = world.relay()

    # when
    failures = 0
    while world.sent("c") is not None:
        failures += relay.sweep(until=in_seconds(5))

    # then
    assert failures == FAILED_ATTEMPTS_MAX
    assert world.api.cut == ["c"]


def test_without_redis_the_websocket_goes_on_and_publishing_follows_later(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    world.happen(trader)
    world.happen(trader)

    # when Redis is gone
    world.relay(redis_url="redis://127.0.0.1:9/0").deliver([trader.account_id], until=in_seconds(5))
    meanwhile = (world.api.sequences("c"), world.pushed(trader))

    # and when it is back
    relay = world.relay()
    with world.listening(trader) as heard:
        soon(lambda: relay.sweep(until=in_seconds(5)) == 1)
        soon(lambda: len(heard) == 10)

    # then
    assert meanwhile == ([1, 2], 0)
    assert [message["sequence"] for message in heard] == [1] * 5 + [2] * 5
    assert world.api.sequences("c") == [1, 2]


def test_an_event_that_cannot_be_told_does_not_stop_the_stream(world: RelayWorld) -> None:
    # given
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    world.happen(trader, orders=[{"status": "unheard of"}])
    world.happen(trader)

    # when
    world.relay().deliver([trader.account_id], until=in_seconds(5))

    # then
    assert world.api.sequences("c") == [1, 2]
    assert world.api.types("c")[0] == "sequence"


def test_history_that_was_removed_is_passed_over(world: RelayWorld) -> None:
    # given
    trader, bare = make_user(world.database, balance=0), make_user(world.database, balance=0)
    for _ in range(3):
        world.happen(trader)
        world.happen(bare)
    with world.database.connect() as connection:
        connection.execute("DELETE FROM events WHERE sequence < 3 OR account_id = %s", (bare.account_id,))
    world.connect("c", trader, since=0)
    world.connect("bare", bare, since=0)

    # when
    world.relay().deliver([trader.account_id, bare.account_id], until=in_seconds(5))

    # then
    assert world.api.sequences("c") == [3]
    assert (world.api.sequences("bare"), world.sent("bare"), world.pushed(bare)) == ([], 3, 3)


def test_nothing_is_sent_once_the_lease_may_be_over(world: RelayWorld) -> None:
    # given a stream whose time to send is up
    trader = make_user(world.database, balance=0)
    world.connect("c", trader)
    world.happen(trader)
    store = world.store()
    claim = store.claim([trader.account_id], recent_ms=None, limit=1)
    events = store.read([(claim.streams[0], 0)], limit=10)

    # when
    (delivery,) = world.courier().start(claim.streams, events, deadline=in_seconds(-1))
    soon(delivery.done)
    store.advance([delivery.delivered()])

    # then
    assert world.api.posted["c"] == []
    assert (world.pushed(trader), world.sent("c")) == (0, 0)


def test_the_functions_role_can_only_call_functions(world: RelayWorld) -> None:
    import psycopg

    with world.database.connect("function_relay") as connection:
        for table in ("event_streams", "connections", "connection_streams", "events", "accounts"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT * FROM {table}".encode())
        for internal in ("leased_streams('{}')", "accounts_behind('{}')", "place_cursors('{}', NULL)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT {internal}".encode())


def test_an_endpoint_that_does_not_answer_is_given_up(world: RelayWorld) -> None:
    # given
    release = threading.Event()
    world.api.answers["c"] = lambda _message: 200 if release.wait(10) else 500

    # when
    outcome = world.sockets.post("c", "{}")
    release.set()

    # then
    assert outcome is Outcome.FAILED


def test_a_claim_of_an_unknown_account_finds_nothing(world: RelayWorld) -> None:
    store: RelayStore = world.store()
    claim = store.claim([make_user(world.database, balance=0).user_id], recent_ms=None, limit=5)
    assert (claim.streams, claim.busy) == ((), frozenset())
