"""Procedures that lock several rows, against each other: by the order in docs/architecture.md none deadlocks."""

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.alerts import answer_of
from tests.kit.operators import operator_request
from tests.kit.orders import Market, keyed_request, order_request, resting_request
from tests.kit.ticks import execution_request

SECONDS_RACED = 3.0
# A reason of ours to say no, as the business has it: what is raced may meet an account that is suspended by now.
OURS = "TR"
OFFICER = {"actor": "officer", "reason": "a race"}


@pytest.fixture(scope="module")
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


def slowed(market: Market, table: str, event: str) -> None:
    """Let every row of `table` take its time, so that two who meet there surely do."""
    market.execute(f"""
        CREATE OR REPLACE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(0.25); RETURN NEW; END';
        CREATE TRIGGER slow BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION take_time();
    """)


def at_once(market: Market, *calls: tuple[str, str, Mapping[str, object]]) -> list[Any]:
    """The answers of (role, procedure, request) called together, the next a moment after the one before."""
    with ExitStack() as held, ThreadPoolExecutor(len(calls)) as pool:
        asked: list[Any] = []
        for role, procedure, request in calls:
            connection = held.enter_context(market.database.connect(role))
            asked.append(pool.submit(answer_of, connection, procedure, **request))
            time.sleep(0.1)
        return [each.result(30) for each in asked]


def test_two_batches_of_quotes_queue_what_has_expired_in_the_order_of_what_they_touch(market: Market) -> None:
    # given an order of each symbol that has run out, and that the next quote of its symbol touches too
    soon = datetime.now(UTC) + timedelta(seconds=1)
    first, second = sorted((market.user(), market.user()), key=lambda user: user.user_id)
    for user, symbol, price in ((first, "GBPUSD", "1.2000"), (second, "EURUSD", "1.0500")):
        market.place(user, symbol=symbol, limit_price=price, time_in_force="gtd", expires_at=soon.isoformat())
    market.execute("SELECT pg_sleep_until(%s)", (soon + timedelta(milliseconds=50),))
    slowed(market, "trigger_queue", "INSERT")

    # when both quotes come at once
    batches: list[tuple[str, str, Mapping[str, object]]] = [
        ("function_prices", "record_quotes", {"source": "test", "quotes": [{"symbol": symbol, "bid": bid, "ask": bid}]})
        for symbol, bid in (("EURUSD", "1.0400"), ("GBPUSD", "1.1900"))
    ]
    answers = at_once(market, *batches)

    # then each is queued once, and neither batch is lost
    market.execute("DROP TRIGGER slow ON trigger_queue")
    assert sum(answer["touched"] for answer in answers) == 2
    assert market.execute("SELECT count(*) FROM trigger_queue") == [(2,)]
    market.execute("DELETE FROM trigger_queue")


def test_the_relay_and_a_connection_that_leaves_lock_connections_before_their_cursors(market: Market) -> None:
    # given a connection that listens to an account with news, which the relay has claimed
    user = market.user()
    with market.database.connect("function_relay") as relay:
        until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        account = str(user.account_id)
        answer_of(relay, "register_connection", connection_id="c", protocol=None, source_ip=None)
        answer_of(
            relay,
            "authenticate_connection",
            connection_id="c",
            user_id=str(user.user_id),
            role="trader",
            expires_at=until,
            connections_max=5,
        )
        answer_of(
            relay, "subscribe_connection", connection_id="c", channels=["orders"], symbols=[], symbols_max=5, hold_ms=0
        )
        market.trade(user)
        holder = str(uuid.uuid4())
        claimed = answer_of(
            relay, "claim_streams", holder=holder, limit=1, lease_ms=60_000, account_ids=[account], recent_ms=None
        )
    (stream,) = claimed["streams"]
    slowed(market, "connection_streams", "UPDATE")

    # when it is found gone while it leaves
    cursor = {"connection_id": "c", "subscription": stream["connections"][0]["subscription"], "sent_sequence": 1}
    told = {"account_id": account, "fencing": stream["fencing"], "pushed_sequence": 1, "publish_failed": False}
    waits = {"publish_retry_ms": 1, "post_retry_ms": 1, "post_retry_ms_max": 1}
    answers = at_once(
        market,
        (
            "function_relay",
            "advance_streams",
            waits | {"holder": holder, "streams": [told | {"cursors": [cursor | {"failed": False}]}], "gone": ["c"]},
        ),
        ("function_relay", "drop_connections", {"connection_ids": ["c"]}),
    )

    # then one of them has forgotten it
    market.execute("DROP TRIGGER slow ON connection_streams")
    assert answers[0]["lost"] == []
    assert market.execute("SELECT count(*) FROM connections") == [(0,)]


def test_none_of_those_that_lock_several_rows_waits_for_another_in_a_circle(market: Market) -> None:
    """Everybody at once, over the same few rows, each again and again in an order of chance."""
    prepared(market)
    users = [market.user(balance=1_000_000) for _ in range(3)]
    ends_at = time.monotonic() + SECONDS_RACED
    done: dict[str, int] = {}
    gate = threading.Barrier(len(ACTORS))

    def act(name: str, role: str, calls: "Acts") -> None:
        chance = random.Random(name)
        with market.database.connect(role) as connection:
            gate.wait(30)
            while time.monotonic() < ends_at:
                procedure, request = chance.choice(calls)(chance.choice(users), chance)
                try:
                    followed(connection, procedure, answer_of(connection, procedure, **request))
                except psycopg.Error as error:
                    if not (error.sqlstate or "").startswith(OURS):
                        raise
                done[name] = done.get(name, 0) + 1

    with ThreadPoolExecutor(len(ACTORS)) as pool:
        running = [pool.submit(act, name, *actor) for name, actor in ACTORS.items()]
        wait(running)
    for each in running:
        each.result()
    assert min(done.get(name, 0) for name in ACTORS) >= 5, done
    settled(market)


type Request = tuple[str, dict[str, Any]]
type Acts = list[Callable[[User, random.Random], Request]]


def price(_user: User, chance: random.Random) -> Request:
    bids = {"EURUSD": f"1.{chance.randrange(900, 1300):04d}", "GBPUSD": f"1.{chance.randrange(2000, 2900):04d}"}
    batch = [{"symbol": symbol, "bid": bid, "ask": bid} for symbol, bid in bids.items()]
    chance.shuffle(batch)
    return "record_quotes", {"source": "race", "quotes": batch[: chance.randrange(1, 3)]}


def armed(_user: User, chance: random.Random) -> Request:
    scope = chance.choice([{"scope": "platform"}, {"scope": "symbol", "symbol": chance.choice(["EURUSD", "GBPUSD"])}])
    return "set_trading_state", keyed(chance) | scope | {"trading_state": chance.choice(["active", "reducing"])}


def wound_down(_user: User, chance: random.Random) -> Request:
    return "start_wind_down", keyed(chance) | {"scope": "symbol", "symbol": "EURUSD", "action": "cancel_orders"}


def limited(_user: User, chance: random.Random) -> Request:
    limits = {"max_positions": chance.randrange(500, 900)}
    return "change_risk_defaults", keyed(chance) | {"tier": chance.choice(["gold", "silver"]), "limits": limits}


def stopped(user: User, chance: random.Random) -> Request:
    targets: list[dict[str, object]] = [
        {"kind": "account_suspension", "target": str(user.account_id)},
        {"kind": "ip_block", "target": f"198.51.100.{chance.randrange(3)}"},
        {"kind": "maintenance"},
    ]
    # Over at once: the next of its kind takes its place.
    return "start_intervention", OFFICER | chance.choice(targets) | {"seconds": 1}


def taken_back(_user: User, _chance: random.Random) -> Request:
    return "list_interventions", {"filter": "active"}


def spared(_user: User, chance: random.Random) -> Request:
    return "change_never_blocked", OFFICER | {"action": chance.choice(["add", "remove"]), "network": "192.0.2.0/24"}


def erased(_user: User, chance: random.Random) -> Request:
    return "erase_security_data", OFFICER | {"address": f"198.51.100.{chance.randrange(3)}"}


def noted(_user: User, chance: random.Random) -> Request:
    key = f"{int(time.time())}|authentication_failure|signature|198.51.100.{chance.randrange(3)}|"
    counts = {key: 20}
    return "record_security_events", {"batch_id": str(uuid.uuid4()), "counts": counts, "agents": {}, "lost": 0}


def judged(_user: User, _chance: random.Random) -> Request:
    return "evaluate_security", {}


def read(_user: User, chance: random.Random) -> Request:
    rules = ("PRICES_STALE", "CIRCUIT_BREAKER", "TRIGGER_BACKLOG")
    readings = [
        {"rule": rule, "subject": "", "verdict": chance.choice(["breached", "good"]), "value": 1, "samples": 1}
        for rule in rules
    ]
    return "record_readings", {"release": f"race-{chance.randrange(3)}", "readings": readings, "samples": []}


def told(_user: User, _chance: random.Random) -> Request:
    return "claim_notifications", {"holder": str(uuid.UUID(int=1)), "limit": 5, "lease_ms": 1000}


def watched(_user: User, _chance: random.Random) -> Request:
    return "watch_prices", {}


def traded(user: User, chance: random.Random) -> Request:
    request = order_request(user, symbol=chance.choice(["EURUSD", "GBPUSD"]), quantity="0.01")
    return "execute_order_atomic", dict(request)


def placed(user: User, chance: random.Random) -> Request:
    return "place_order", dict(
        resting_request(user, quantity="0.01", limit_price=f"1.{chance.randrange(900, 1100):04d}")
    )


def canceled(user: User, _chance: random.Random) -> Request:
    return "cancel_orders", dict(keyed_request(user))


def changed(user: User, chance: random.Random) -> Request:
    status = chance.choice(["active", "suspended"])
    return "change_account", dict(operator_request(user, account_status=status))


def triggered(_user: User, _chance: random.Random) -> Request:
    return "claim_triggers", {"holder": str(uuid.UUID(int=1)), "users": 2, "limit": 10, "lease_ms": 1000}


def unwound(_user: User, _chance: random.Random) -> Request:
    return "claim_wind_downs", {"holder": str(uuid.UUID(int=1)), "limit": 2, "lease_ms": 1000}


def margined(user: User, chance: random.Random) -> Request:
    account = {"user_id": str(user.user_id), "account_id": str(user.account_id)}
    return chance.choice(["stop_out_step", "record_margin_call", "trip_account_breaker"]), account


def scanned(_user: User, chance: random.Random) -> Request:
    return chance.choice(
        [
            ("monitor_margin", {"accounts_max": 10, "calls_max": 10}),
            ("watch_breakers", {"within_s": 60, "accounts_max": 10}),
        ]
    )


ACTORS: Mapping[str, tuple[str, Acts]] = {
    "a feed": ("function_prices", [price, watched]),
    "another feed": ("function_prices", [price]),
    "a risk officer": ("function_risk_officer", [armed, wound_down, limited]),
    "an officer": ("function_incidents", [stopped, taken_back, spared, erased]),
    "the watch over security": ("function_security", [stopped, taken_back, noted, judged, erased]),
    "alerts": ("function_alerts", [read, told]),
    "more alerts": ("function_alerts", [read, told]),
    "a trader": ("function_trader", [traded, placed, canceled]),
    "an operator": ("function_operator", [changed]),
    "triggers": ("function_triggers", [triggered, unwound]),
    "risk": ("function_risk", [margined, scanned]),
}


def followed(connection: psycopg.Connection[Any], procedure: str, answer: Any) -> None:
    """What comes of an answer: what was claimed is executed, what is in force is taken back."""
    match procedure:
        case "claim_triggers":
            for claimed in answer:
                answer_of(connection, "execute_trigger", **execution_request(claimed))
        case "claim_wind_downs":
            for claimed in answer:
                lease = {"holder": str(uuid.UUID(int=1)), "lease_ms": 1000}
                answer_of(connection, "wind_down_step", **claimed, **lease)
        case "claim_notifications":
            for notice in answer:
                # Only the log cannot fail.
                outcome = "sent" if notice["channel"] == "log" else "failed"
                said = {"outcome": outcome, "error": "down", "attempts_max": 2}
                answer_of(connection, "report_notification", holder=str(uuid.UUID(int=1)), id=notice["id"], **said)
        case "list_interventions":
            for found in answer["interventions"][:2]:
                answer_of(connection, "undo_intervention", id=found["id"], actor="officer")
        case _:
            pass


def keyed(chance: random.Random) -> dict[str, Any]:
    return OFFICER | {"idempotency_key": str(chance.random()), "request_hash": "hash"}


def prepared(market: Market) -> None:
    """Breakers that trip at a cent, and rules that open at once."""
    market.execute("UPDATE symbol_breakers SET move_percent = 1 WHERE symbol IN ('EURUSD', 'GBPUSD')")
    market.execute("UPDATE alert_rules SET for_seconds = 0, clear_for_seconds = 0")


def settled(market: Market) -> None:
    assert market.execute("SELECT * FROM verify_audit()") == []
    found = market.execute(
        "SELECT count(*) FROM pg_locks AS l INNER JOIN pg_database AS d ON d.oid = l.database "
        "WHERE NOT l.granted AND d.datname = current_database()"
    )
    assert found == [(0,)]
