"""Relays killed and raced, transactions that commit late or never, clients that are gone or slow: no event is lost."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kit.builders import User, order_request
from tests.kit.fault_runs import FaultRun
from tests.kit.load import Load
from tests.kit.orders import send
from tests.kit.realtime import ConnectionsApi, RelayWorld, in_seconds, soon
from trading.relay import AwakeSign, Relay
from trading.store.relay import RelayStore

CLIENTS = 3
ORDERS = 60
LEASE_MS = 300
KILLED = 0.3
ROLLED_BACK = 0.4
LATE_SECONDS_MAX = 0.03
SWEEP_SECONDS = 20.0


@pytest.fixture
def world(run: FaultRun, redis_url: str) -> Iterator[RelayWorld]:
    api = ConnectionsApi()
    api.start()
    made = RelayWorld(run.database, redis_url, api)
    yield made
    made.close()
    api.stop()


class KilledError(BaseException):
    """The end of a process, for what cannot be killed inside the test's own."""


class MortalStore(RelayStore):
    """A relay's store whose relay is killed now and then between sending and the record of it."""

    dice: random.Random

    def advance(self, *arguments: Any, **options: Any) -> Any:
        """Record, or die instead."""
        if self.dice.random() < KILLED:
            raise KilledError
        return super().advance(*arguments, **options)


def mortal_relay(world: RelayWorld, dice: random.Random) -> Relay:
    """A relay with a name, a connection and leases of its own."""
    store = world.store(lease_ms=LEASE_MS, kind=MortalStore)
    store.dice = dice
    return Relay(store, world.courier(), AwakeSign(world.cache()))


@contextmanager
def in_background(*works: Any) -> Iterator[None]:
    """Each work, a function of an event that is set at the end, in a thread of its own."""
    over = threading.Event()
    faults: list[BaseException] = []

    def guarded(work: Any) -> None:
        try:
            work(over)
        except BaseException as fault:  # noqa: BLE001 - raised again below, in the test's own thread
            faults.append(fault)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if faults:
        raise faults[0]


def test_killed_relays_and_late_commits_skip_no_event(run: FaultRun, world: RelayWorld) -> None:
    """F13: two relays at once, each killed again and again, while transactions commit late or never."""
    # given connected traders, one of whom dawdles
    load = run.load(CLIENTS)
    dawdler = run.user()
    users = [*{client.user: None for client in run.clients}, dawdler]
    for user in users:
        world.connect(str(user.account_id), user, since=0)
    kills = [0]

    def relay(dice: random.Random, over: threading.Event) -> None:
        while not over.is_set():
            try:
                mortal_relay(world, dice).sweep(until=in_seconds(1))
            except KilledError:
                kills[0] += 1

    def dawdle(dice: random.Random, over: threading.Event) -> None:
        with run.database.connect("function_trader", autocommit=False) as connection:
            while not over.is_set():
                send(connection, order_request(dawdler, quantity="0.01"))
                over.wait(dice.random() * LATE_SECONDS_MAX)
                if dice.random() < ROLLED_BACK:
                    connection.rollback()
                else:
                    connection.commit()

    dices = [random.Random(run.dice.random()) for _ in range(3)]
    relays = [lambda over, dice=dice: relay(dice, over) for dice in dices[:2]]
    with in_background(*relays, lambda over: dawdle(dices[2], over)), load.running():
        load.wait_for_orders(ORDERS)

    # when the faults have stopped, then the backlog drains
    successor = world.relay()
    soon(lambda: successor.sweep(until=in_seconds(5)) == 0, seconds=SWEEP_SECONDS)
    assert kills[0] > 0
    # and each event reached its client, the first time in its order
    for user in users:
        check_delivered(world, user, str(user.account_id))
    run.settle(load)


def check_delivered(world: RelayWorld, user: User, connection_id: str) -> None:
    """I7: all of the account's events came, none before the one before it, and both cursors stand at the last."""
    last = world.last(user)
    firsts = list(dict.fromkeys(world.api.sequences(connection_id)))
    assert firsts == list(range(1, last + 1))
    assert (world.pushed(user), world.sent(connection_id)) == (last, last)


def test_clients_that_are_gone_slow_or_broken_do_not_touch_the_order_path(run: FaultRun, world: RelayWorld) -> None:
    """F14."""
    # given a trader with four connections, of which one is well
    client = run.client(run.user())
    user = client.user
    for name in ("well", "gone", "slow", "broken"):
        world.connect(name, user, since=0)
    world.api.gone("gone")
    world.api.slow("slow")

    def break_off(_message: object) -> int:
        raise ConnectionError("the push throws")

    world.api.answers["broken"] = break_off

    def relay(over: threading.Event) -> None:
        working = world.relay()
        while not over.is_set():
            working.sweep(until=in_seconds(1))

    # when orders flow
    load = Load([client])
    with in_background(relay), load.running():
        load.wait_for_orders(ORDERS)

    # then no order noticed, who is gone or slow is forgotten, who is broken in the end too
    assert [one for one in load.acknowledged if one.lost_attempts] == []
    working = world.relay()
    soon(lambda: working.sweep(until=in_seconds(5)) == 0 and world.sent("broken") is None, seconds=SWEEP_SECONDS)
    assert world.value("SELECT array_agg(connection_id) FROM connections") == ["well"]
    assert {"slow", "broken"} <= set(world.api.cut)
    check_delivered(world, user, "well")

    # and a client that comes back catches up from the sequence that it has seen
    seen = world.last(user) // 2
    world.connect("back", user, since=seen)
    working.sweep(until=in_seconds(5))
    assert world.api.sequences("back") == list(range(seen + 1, world.last(user) + 1))
    run.settle(load)
