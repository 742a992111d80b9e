"""Alerts from their opening to their end: one however many evaluate, told in time, past what is down."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.kit import MigratedTemplate
from tests.kit.alerts import ROLE, AlertWorld, answer_of
from tests.kit.orders import raises_sqlstate
from trading.alerting import AlertReport
from trading.alerts import Figure
from trading.cache import Cache
from trading.database_silence import OutageMemory
from trading.store.database import Database

MINUTES = timedelta(minutes=1)
SECONDS = timedelta(seconds=1)
# A database that answers nobody.
GONE = "postgresql://nobody@127.0.0.1:9/none"
OFFICER = "01a1fc5d-0000-7000-8000-00000000cafe"


class Gauge:
    """A figure of the test's own, in place of that of a collector."""

    def __init__(self, name: str, value: int | None) -> None:
        self.name = name
        self.value = value

    def __call__(self, _windows: Sequence[int], _at: datetime | None) -> list[Figure]:
        value = None if self.value is None else Decimal(self.value)
        return [Figure(self.name, value, 0 if value is None else 1)]


def broken(_windows: Sequence[int], _at: datetime | None) -> list[Figure]:
    raise RuntimeError("no figures today")


@pytest.fixture
def world(migrated: MigratedTemplate) -> Iterator[AlertWorld]:
    with AlertWorld.opened(migrated) as world:
        yield world
        assert world.market.book_faults() == []
        assert world.market.execute("SELECT * FROM verify_audit()") == []


def act(world: AlertWorld, procedure: str, alert_id: object, **fields: object) -> dict[str, Any]:
    """The answer to an officer who acts on an alert, under a key of its own unless given one."""
    key = str(uuid4())
    said = {"actor": OFFICER, "idempotency_key": key, "request_hash": key, "idempotency_key_days": 30} | fields
    return world.call(procedure, role="function_incidents", alert_id=str(alert_id), **said)


def silent(world: AlertWorld) -> Any:
    """The rule of margin's silence, with its figure in hand: critical, escalating, cleared below 120."""
    world.only("MARGIN_WATCH_SILENT")
    return Gauge("margin_scan_age_seconds", 400)


def evaluate(world: AlertWorld, gauge: Gauge, after: timedelta) -> AlertReport:
    # In place of the collector that counts the same figure.
    return world.evaluate(after, collectors={"server": gauge})


def test_it_opens_escalates_by_time_until_somebody_takes_it_on_and_ends(world: AlertWorld) -> None:
    gauge = silent(world)

    # when it is breached, then the team is told, once, and an incident begins
    assert evaluate(world, gauge, 0 * MINUTES).opened == 1
    assert evaluate(world, gauge, 1 * MINUTES).opened == 0
    team = [("MARGIN_WATCH_SILENT", "opened", channel) for channel in ("email", "slack", "sms")]
    assert world.inbox.told() == team
    # after five minutes the engineering manager
    evaluate(world, gauge, 5 * MINUTES + SECONDS)
    evaluate(world, gauge, 6 * MINUTES)
    told = [(notice.level, notice.addressee, notice.channel) for notice in world.inbox.notices[3:]]
    assert sorted(told) == [(2, "engineering_manager", "management"), (2, "engineering_manager", "phone")]
    assert world.inbox.notices[-1].headline == "[STILL CRITICAL] Nobody watches margin"

    # when somebody has taken it on, then the CTO is not told
    ((alert_id,),) = world.alerts("id")
    taken = act(world, "acknowledge_alert", alert_id, note="looking")
    assert (taken["state"], taken["acknowledged_by"], taken["note"]) == ("acknowledged", OFFICER, "looking")
    evaluate(world, gauge, 20 * MINUTES)
    assert len(world.inbox.notices) == 5

    # between the thresholds it goes on; at the lower one it ends, and all who were told are told that
    gauge.value = 200
    evaluate(world, gauge, 21 * MINUTES)
    assert world.alerts("state", "last_value", "worst_value") == [("open", 200, 400)]
    gauge.value = 120
    assert evaluate(world, gauge, 22 * MINUTES).cleared == 1
    cleared = [channel for _, kind, channel in world.inbox.told() if kind == "cleared"]
    assert cleared == ["email", "management", "phone", "slack", "sms"]

    # and the timeline and the audit have all of it
    kinds = [kind for kind, _ in world.timeline() if kind != "notified"]
    assert kinds == ["opened", "escalated", "acknowledged", "cleared"]
    ((incident_id,),) = world.market.execute("SELECT id FROM incidents WHERE closed_at IS NOT NULL")
    incident = world.call("get_incident", role="function_incidents", incident_id=str(incident_id))
    assert [event["place"] for event in incident["timeline"]] == list(range(1, 15))
    assert incident["alert"]["state"] == "cleared"
    actions = [row[0] for row in world.market.execute("SELECT action FROM platform_audit_log ORDER BY version")]
    assert actions == ["ALERT_OPENED", "ALERT_ESCALATED", "ALERT_ACKNOWLEDGED", "ALERT_CLEARED"]


def test_unacknowledged_it_reaches_the_cto_before_thirty_minutes(world: AlertWorld) -> None:
    gauge = silent(world)
    addressees: list[tuple[int, str]] = []

    for minute in range(31):
        before = len(world.inbox.notices)
        evaluate(world, gauge, minute * MINUTES)
        addressees += [(minute, name) for name in {notice.addressee for notice in world.inbox.notices[before:]}]

    assert addressees == [(0, "team"), (5, "engineering_manager"), (15, "cto")]


def test_a_person_ends_it_and_it_opens_again_while_it_is_breached(world: AlertWorld) -> None:
    gauge = silent(world)
    evaluate(world, gauge, 0 * MINUTES)
    ((alert_id,),) = world.alerts("id")

    # given a reason, the alert is resolved, and the same request again hears the same
    answer = act(world, "resolve_alert", alert_id, note="restarted", idempotency_key="k", request_hash="h")
    again = act(world, "resolve_alert", alert_id, note="restarted", idempotency_key="k", request_hash="h")
    assert (answer["state"], answer["resolved_by"], answer["replayed"]) == ("resolved", OFFICER, False)
    assert again == answer | {"replayed": True}
    # not without one, not twice, not under a used key, not what is not there
    for sqlstate, alert, fields in [
        ("TR006", alert_id, {}),
        ("TR010", alert_id, {"note": "again"}),
        ("TR003", alert_id, {"note": "other", "idempotency_key": "k"}),
        ("TR001", UUID(int=1), {"note": "what"}),
    ]:
        with raises_sqlstate(sqlstate):
            act(world, "resolve_alert", alert, **fields)
    with raises_sqlstate("TR010"):
        act(world, "acknowledge_alert", alert_id)

    evaluate(world, gauge, 1 * MINUTES)
    assert world.alerts() == [
        ("MARGIN_WATCH_SILENT", "", "resolved"),
        ("MARGIN_WATCH_SILENT", "", "open"),
    ]
    page = world.call("list_alerts", role="function_incidents", state="open", severity="critical", limit=1)
    assert [alert["state"] for alert in page["alerts"]] == ["open"]
    listed = world.call("list_alerts", role="function_incidents", limit=1)
    older = world.call("list_alerts", role="function_incidents", before=listed["next"], limit=1)
    assert [alert["state"] for alert in older["alerts"]] == ["resolved"]


def test_nothing_is_said_of_what_nobody_observed(world: AlertWorld) -> None:
    gauge = silent(world)
    gauge.value = None
    evaluate(world, gauge, 0 * MINUTES)
    assert world.alerts() == []

    # and an alert does not end because its figure has gone
    gauge.value = 400
    evaluate(world, gauge, 1 * MINUTES)
    gauge.value = None
    evaluate(world, gauge, 2 * MINUTES)
    assert world.alerts("state") == [("open",)]


def test_a_breach_that_passes_before_its_time_opens_nothing(world: AlertWorld) -> None:
    gauge = silent(world)
    world.market.execute("UPDATE alert_rules SET for_seconds = 120 WHERE name = 'MARGIN_WATCH_SILENT'")

    for minute, value in enumerate((400, 200, 400, 400)):
        gauge.value = value
        evaluate(world, gauge, minute * MINUTES)
    assert world.alerts() == []
    evaluate(world, gauge, 4 * MINUTES)
    assert world.alerts("state") == [("open",)]


def test_copies_at_once_make_one_alert_and_one_message_a_channel(world: AlertWorld) -> None:
    gauge = silent(world)
    start = threading.Barrier(6)
    databases = [Database(lambda: world.market.database.url_for(ROLE)) for _ in range(6)]

    def run(database: Database) -> AlertReport:
        start.wait(30)
        return world.evaluate(0 * MINUTES, database=database, collectors={"server": gauge})

    with ThreadPoolExecutor(6) as pool:
        reports = list(pool.map(run, databases))
    for database in databases:
        database.close()

    assert sum(report.opened for report in reports) == 1
    assert len(world.alerts()) == 1
    assert [channel for _, _, channel in world.inbox.told()] == ["email", "slack", "sms"]


def test_who_takes_it_on_while_it_escalates_stops_the_clock_whoever_was_first(world: AlertWorld) -> None:
    gauge = silent(world)
    start = threading.Barrier(3)

    def together(run: Callable[[], object]) -> object:
        start.wait(30)
        return run()

    for _ in range(4):
        # given an alert that two copies are about to escalate, when somebody takes it on
        evaluate(world, gauge, 0 * MINUTES)
        (alert_id,) = (found for found, state in world.alerts("id", "state") if state == "open")
        databases = [Database(lambda: world.market.database.url_for(ROLE)) for _ in range(2)]
        runs: list[Callable[[], object]] = [
            lambda database=database: world.evaluate(
                5 * MINUTES + SECONDS, database=database, collectors={"server": gauge}
            )
            for database in databases
        ]
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(together, [*runs, lambda alert=alert_id: act(world, "acknowledge_alert", alert)]))
        for database in databases:
            database.close()
        # then it escalated once or not at all, and goes no further
        evaluate(world, gauge, 16 * MINUTES)
        levels = world.market.execute("SELECT escalation_level FROM alerts WHERE id = %s", (alert_id,))
        told = world.market.execute(
            "SELECT count(*) FROM alert_notifications WHERE alert_id = %s AND kind = 'escalated'", (alert_id,)
        )
        assert (levels, told) in ([([(1,)], [(0,)]), ([(2,)], [(2,)])])
        act(world, "resolve_alert", alert_id, note="again")
        world.market.execute("UPDATE alert_evaluation SET evaluated_at = clock_timestamp()")


def test_a_channel_that_is_down_is_replaced_at_once_and_tried_again(world: AlertWorld) -> None:
    gauge = silent(world)
    # given that neither the team's chat nor mail nor short messages go out
    world.inbox.down = {"slack", "email"}
    world.inbox.missing = {"sms"}

    # then who is on call is told in their place, once
    report = evaluate(world, gauge, 0 * MINUTES)
    assert (report.sent, report.not_sent) == (1, 3)
    assert world.inbox.told() == [("MARGIN_WATCH_SILENT", "opened", "phone")]
    # when they are up again, then they hear of it too
    world.inbox.down = set()
    evaluate(world, gauge, 90 * SECONDS)
    assert [channel for _, _, channel in world.inbox.told()] == ["email", "phone", "slack"]
    states = world.market.execute("SELECT channel, state, attempts FROM alert_notifications ORDER BY channel")
    assert states == [("email", "sent", 2), ("phone", "sent", 1), ("slack", "sent", 2), ("sms", "failed", 1)]


def test_when_nobody_can_be_reached_it_ends_in_the_log_and_tries_are_bounded(world: AlertWorld) -> None:
    gauge = silent(world)
    world.inbox.down = {"slack", "email", "sms", "phone"}

    for minute in range(5):
        evaluate(world, gauge, minute * MINUTES)

    assert world.inbox.told() == [("MARGIN_WATCH_SILENT", "opened", "log")]
    states = world.market.execute("SELECT channel, state, attempts FROM alert_notifications ORDER BY channel")
    assert states == [
        ("email", "failed", 3),
        ("log", "sent", 1),
        ("phone", "failed", 3),
        ("slack", "failed", 3),
        ("sms", "failed", 3),
    ]


def test_a_channel_that_breaks_is_down_and_silences_no_other(world: AlertWorld) -> None:
    gauge = silent(world)
    # given a chat whose address cannot be read: no failure that a channel knows of
    world.inbox.broken = {"slack"}
    world.inbox.down = {"email"}
    world.inbox.missing = {"sms"}

    report = evaluate(world, gauge, 0 * MINUTES)

    assert (report.sent, report.not_sent) == (1, 3)
    assert world.inbox.told() == [("MARGIN_WATCH_SILENT", "opened", "phone")]
    errors = dict(world.market.execute("SELECT channel, last_error FROM alert_notifications WHERE state = 'pending'"))
    assert errors == {"slack": "RuntimeError", "email": "it is down"}


def test_a_message_that_copies_die_of_comes_after_the_others(world: AlertWorld) -> None:
    gauge = silent(world)
    world.evaluate(0 * MINUTES, collectors={"server": gauge}, time_left_ms=lambda: 0)

    # given three copies that claim a message each, and die
    claimed = [
        world.call(
            "claim_notifications",
            holder=str(uuid4()),
            limit=1,
            lease_ms=1000,
            at=(datetime.now(UTC) + minute * MINUTES).isoformat(),
        )
        for minute in range(3)
    ]

    assert sorted(notice["channel"] for (notice,) in claimed) == ["email", "slack", "sms"]


def test_what_was_to_be_tried_again_is_dropped_once_it_is_over(world: AlertWorld) -> None:
    gauge = silent(world)
    # given a chat that is down, in whose place others were told
    world.inbox.down = {"slack"}
    evaluate(world, gauge, 0 * MINUTES)

    # when it is up again, but the alert has ended before the next try
    gauge.value = 100
    evaluate(world, gauge, 30 * SECONDS)
    world.inbox.down = set()
    evaluate(world, gauge, 95 * SECONDS)

    # then it hears that it is over, and not after that that it has begun
    assert [(kind, channel) for _, kind, channel in world.inbox.told() if channel == "slack"] == [("cleared", "slack")]


def test_a_message_of_a_copy_that_died_is_sent_by_the_next(world: AlertWorld) -> None:
    gauge = silent(world)
    # given a run that books the alert and dies before it sends anything
    evaluate_nothing = world.evaluate(0 * MINUTES, collectors={"server": gauge}, time_left_ms=lambda: 0)
    assert (evaluate_nothing.opened, evaluate_nothing.sent) == (1, 0)
    world.call("claim_notifications", holder=str(uuid4()), limit=10, lease_ms=60_000, at=str(datetime.now(UTC)))

    # while its lease lasts nobody sends, then the next run does
    assert evaluate(world, gauge, 30 * SECONDS).sent == 0
    assert evaluate(world, gauge, 2 * MINUTES).sent == 3


def test_a_collector_that_fails_is_an_alert_and_silences_no_other(world: AlertWorld) -> None:
    world.only("COLLECTOR_FAILED", "MARGIN_WATCH_SILENT")
    gauge = Gauge("margin_scan_age_seconds", 400)

    report = world.evaluate(0 * MINUTES, collectors={"queues": broken, "server": gauge})
    assert report.failed == ["queues"]
    assert world.alerts() == [("COLLECTOR_FAILED", "queues", "open"), ("MARGIN_WATCH_SILENT", "", "open")]

    # also one that the database refuses
    world.market.execute("REVOKE EXECUTE ON FUNCTION collect_price_figures(jsonb) FROM function_alerts")
    assert world.evaluate(1 * MINUTES, collectors={"server": gauge}).failed == ["prices"]
    assert world.alerts()[2:] == [("COLLECTOR_FAILED", "prices", "open")]
    assert ("COLLECTOR_FAILED", "queues", "cleared") in world.alerts()


def test_a_silent_database_is_told_past_it_and_booked_when_it_is_back(world: AlertWorld) -> None:
    # given rules that were read, with another copy that shares no memory but the rules' book
    world.only("DATABASE_FAILURE")
    world.evaluate(-8 * MINUTES)
    gone = Database(lambda: GONE)
    world.inbox.down = {"slack"}

    # when the database is gone for six minutes, then the team is told at once and the manager at five, each once
    for minute in range(-7, 0):
        assert world.evaluate(minute * MINUTES, database=gone).silent
    told = [(notice.level, notice.addressee, notice.channel) for notice in world.inbox.notices]
    assert sorted(told) == [
        (1, "team", "database_team"),
        (1, "team", "email"),
        (1, "team", "phone"),
        (1, "team", "sms"),
        (2, "engineering_manager", "management"),
        (2, "engineering_manager", "phone"),
    ]

    # when it is back, then its alert stands from when it began, nobody is told again, and a minute later it ends
    report = world.evaluate()
    assert (report.silent, report.sent) == (False, 0)
    ((rule, opened_at, level),) = world.alerts("rule", "opened_at", "escalation_level")
    assert (rule, level) == ("DATABASE_FAILURE", 2)
    assert abs(datetime.now(UTC) - 7 * MINUTES - opened_at) < 30 * SECONDS
    assert world.evaluate(61 * SECONDS).cleared == 1
    assert [kind for kind, _ in world.timeline() if kind != "notified"][:2] == ["opened", "cleared"]
    assert world.memory.outage() is None


def test_without_rules_the_silence_is_told_by_the_last_resort_and_shared_over_redis(
    world: AlertWorld, redis_url: str
) -> None:
    # given two copies that have never seen the rules, with one Redis
    caches = [Cache(lambda: redis_url, timeout_ms=1000) for _ in range(2)]
    gone = Database(lambda: GONE)
    for cache in caches:
        world.evaluate(0 * MINUTES, database=gone, memory=OutageMemory(cache))
    assert [channel for _, _, channel in world.inbox.told()] == ["database_team", "email", "phone", "slack", "sms"]

    # when one of them sees the database again, then it books what either told
    world.only("DATABASE_FAILURE")
    world.evaluate(memory=OutageMemory(caches[1]))
    assert world.alerts() == [("DATABASE_FAILURE", "", "open")]
    assert world.market.execute("SELECT DISTINCT state FROM alert_notifications") == [("sent",)]
    assert OutageMemory(caches[0]).outage() is None
    for cache in caches:
        cache.close()


def test_what_is_enabled_is_an_operators_and_the_rest_the_files(world: AlertWorld) -> None:
    from database.load_reference_data import load

    world.market.execute("UPDATE alert_rules SET enabled = false, threshold = 7 WHERE name = 'ORDER_EXECUTION_FAILURE'")

    load(world.market.database.url)

    kept = world.market.execute("SELECT enabled, threshold FROM alert_rules WHERE name = 'ORDER_EXECUTION_FAILURE'")
    assert kept == [(False, 5)]


def test_the_timeline_is_never_changed(world: AlertWorld) -> None:
    evaluate(world, silent(world), 0 * MINUTES)

    for statement in ("UPDATE incident_events SET actor = 'me'", "DELETE FROM incident_events"):
        with raises_sqlstate("TR007"):
            world.market.execute(statement)
    with world.market.database.connect("function_incidents") as connection:
        assert answer_of(connection, "get_incident", incident_id=str(uuid4())) is None
