"""Automatic responses: begun once by a critical alert, bounded, and undone by one call."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import UUID

import boto3
import pytest
from moto import mock_aws

from tests.kit import MigratedTemplate, TestServers
from tests.kit.alerts import ROLE, AlertWorld, NoResponder
from tests.kit.functions import Context, function_environment, load_function
from tests.kit.security import OFFICER_ID, STRANGER, Watch
from trading.alert_responses import Limits, Responses, carry_out
from trading.alerts import Figure
from trading.errors import ErrorCode, TradingError
from trading.reserved_concurrency import LambdaCapacity
from trading.store.alerts import AlertStore
from trading.store.database import Database
from trading.store.interventions import InterventionStore

MINUTES = timedelta(minutes=1)
# The accounts that the relay was told of.
TOLD: list[UUID] = []
LIMITS = Limits("execute_order", concurrency_max=60, standby_provider="replay")


@pytest.fixture
def world(migrated: MigratedTemplate) -> Iterator[AlertWorld]:
    with AlertWorld.opened(migrated) as world:
        TOLD.clear()
        world.responder = Responses(store_of(world), LIMITS, TOLD.append)
        yield world
        assert world.market.book_faults() == []


def store_of(world: AlertWorld) -> InterventionStore:
    return InterventionStore(world.database, "alerts-1")


def fire(world: AlertWorld, rule: str) -> None:
    """Let the alert of `rule` open by its own figure, and respond."""
    figure, threshold, comparison, window = world.market.execute(
        "SELECT figure, threshold, comparison, window_seconds FROM alert_rules WHERE name = %s", (rule,)
    )[0]
    value = threshold + (1 if comparison == "above" else -1)
    world.only(rule)
    world.market.execute("UPDATE alert_rules SET for_seconds = 0 WHERE name = %s", (rule,))
    world.evaluate(collectors={"probe": lambda _w, _at: [Figure(figure, value, 1000, "", window)]})


def interventions(world: AlertWorld, *columns: str) -> list[tuple[Any, ...]]:
    return world.market.execute(f"SELECT {', '.join(columns)} FROM interventions ORDER BY kind, id")


def undo(world: AlertWorld, kind: str) -> None:
    """What an officer's DELETE does."""
    for (found,) in world.market.execute("SELECT id FROM interventions WHERE kind = %s", (kind,)):
        world.call("undo_intervention", role="function_incidents", id=str(found), actor=str(OFFICER_ID))


@dataclass
class FakeCapacity:
    """Functions' concurrency by name; the names in `refused` cannot be set."""

    reserved_by: dict[str, int | None]
    refused: set[str] = field(default_factory=set)

    def reserved(self, function: str) -> int | None:
        return self.reserved_by[function]

    def reserve(self, function: str, concurrency: int) -> None:
        if function in self.refused:
            raise TradingError(ErrorCode.INTERNAL_ERROR, "refused")
        self.reserved_by[function] = concurrency


def test_failing_orders_raise_concurrency_and_begin_maintenance_until_undone(world: AlertWorld) -> None:
    fire(world, "ORDER_EXECUTION_FAILURE")
    world.evaluate()

    # then each is begun once, by the rule, for a while
    begun = interventions(world, "kind", "target", "actor", "rule", "expires_at - started_at <= interval '2 hours'")
    who = ("rule:ORDER_EXECUTION_FAILURE", "ORDER_EXECUTION_FAILURE", True)
    assert begun == [("maintenance", "platform", *who), ("reserved_concurrency", "execute_order", *who)]
    kinds = [kind for kind, _ in world.timeline() if kind != "notified"]
    assert kinds == ["opened", "response_started", "response_started"]

    # when the function carries them out, then as much is reserved as is configured, and no more
    capacity = FakeCapacity({"execute_order": 40})
    assert carry_out(store_of(world), capacity, limits=LIMITS) == 1
    assert carry_out(store_of(world), capacity, limits=LIMITS) == 0
    assert capacity.reserved_by == {"execute_order": 60}
    # when they are undone, then what was before is given back
    undo(world, "maintenance")
    undo(world, "reserved_concurrency")
    assert carry_out(store_of(world), capacity, limits=LIMITS) == 1
    assert capacity.reserved_by == {"execute_order": 40}
    assert interventions(world, "undone_by") == [(str(OFFICER_ID),)] * 2


def test_copies_at_once_begin_a_response_once(world: AlertWorld) -> None:
    # given an alert whose responses are due
    world.responder = NoResponder()
    fire(world, "ORDER_EXECUTION_FAILURE")
    world.market.execute("UPDATE alert_responses SET state = 'due', ended_at = NULL")
    start = Barrier(4)

    def run(database: Database) -> None:
        responses = Responses(InterventionStore(database, "alerts-1"), LIMITS, TOLD.append)
        store = AlertStore(database)
        due = store.due_responses(limit=10)
        start.wait(30)
        for each in due:
            store.report_response(each, done=True, details=responses.begin(each))

    # when four copies find them at once, then each is begun, and told in the incident, once
    databases = [Database(lambda: world.market.database.url_for(ROLE)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, databases))
    for database in databases:
        database.close()
    assert interventions(world, "kind") == [("maintenance",), ("reserved_concurrency",)]
    started = world.market.execute(
        "SELECT details ->> 'kind', count(*) FROM incident_events WHERE kind = 'response_started' "
        "AND details ? 'intervention_ids' GROUP BY 1 ORDER BY 1"
    )
    assert started == [("maintenance", 1), ("reserved_concurrency", 1)]


@pytest.mark.parametrize(
    ("before", "set_by_hand", "after"),
    [(40, None, 40), (40, 50, 50), (80, None, 80), (None, None, None)],
    ids=["given back", "changed meanwhile", "more already", "nothing reserved"],
)
def test_concurrency_is_never_lowered_and_never_taken_from_somebody(
    world: AlertWorld, before: int | None, set_by_hand: int | None, after: int | None
) -> None:
    fire(world, "REQUEST_FAILURE")
    capacity = FakeCapacity({"execute_order": before})

    carry_out(store_of(world), capacity, limits=LIMITS)
    raised = capacity.reserved_by["execute_order"]
    assert raised == (60 if before == 40 else before)
    if set_by_hand:
        capacity.reserved_by["execute_order"] = set_by_hand
    undo(world, "reserved_concurrency")
    carry_out(store_of(world), capacity, limits=LIMITS)

    assert capacity.reserved_by["execute_order"] == after


def test_a_crash_between_the_change_and_its_note_does_not_lose_what_was_before(world: AlertWorld) -> None:
    fire(world, "REQUEST_FAILURE")
    capacity = FakeCapacity({"execute_order": 40})
    # given a run that raised it and died before it could say so
    (intervention,) = store_of(world).to_carry_out("reserved_concurrency")
    store_of(world).note(intervention.id, {"previous": 40})
    capacity.reserved_by["execute_order"] = 60

    carry_out(store_of(world), capacity, limits=LIMITS)
    undo(world, "reserved_concurrency")
    carry_out(store_of(world), capacity, limits=LIMITS)

    assert capacity.reserved_by["execute_order"] == 40


@pytest.mark.parametrize("lambda_is_down", [False, True])
def test_one_that_begins_before_the_last_is_given_back_is_not_lost_with_it(
    world: AlertWorld, lambda_is_down: bool
) -> None:
    fire(world, "REQUEST_FAILURE")
    capacity = FakeCapacity({"execute_order": 40})
    carry_out(store_of(world), capacity, limits=LIMITS)
    # given one that is over, but still to be given back, when an officer begins another
    undo(world, "reserved_concurrency")
    store_of(world).start(
        "reserved_concurrency", "execute_order", {"concurrency": 60}, seconds=600, reason="more", rule="x", key="k"
    )
    if lambda_is_down:
        capacity.refused = {"execute_order"}
        carry_out(store_of(world), capacity, limits=LIMITS)
        capacity.refused.clear()

    for _ in range(2):
        carry_out(store_of(world), capacity, limits=LIMITS)
    assert capacity.reserved_by == {"execute_order": 60}
    undo(world, "reserved_concurrency")
    carry_out(store_of(world), capacity, limits=LIMITS)
    assert capacity.reserved_by == {"execute_order": 40}


def test_what_cannot_be_carried_out_comes_again(world: AlertWorld) -> None:
    fire(world, "REQUEST_FAILURE")
    capacity = FakeCapacity({"execute_order": 40}, {"execute_order"})

    assert carry_out(store_of(world), capacity, limits=LIMITS) == 0
    told = "SELECT outcome ->> 'error', carried_out_at IS NULL FROM interventions WHERE kind = 'reserved_concurrency'"
    assert world.market.execute(told) == [("refused", True)]
    capacity.refused.clear()
    assert carry_out(store_of(world), capacity, limits=LIMITS) == 1
    assert world.market.execute(told) == [(None, False)]


def test_stale_prices_ask_for_the_standby_and_say_when_there_is_none(world: AlertWorld) -> None:
    fire(world, "PRICES_STALE")
    assert interventions(world, "kind", "target", "parameters") == [
        ("price_provider", "quotes", {"provider": "replay"})
    ]
    assert "\nAutomatic responses: price_provider due. GET" in world.inbox.notices[0].text

    # without one, it fails three times, and people are told and read so in the incident
    key = {"idempotency_key": "k", "request_hash": "k", "idempotency_key_days": 1, "actor": str(OFFICER_ID)}
    ((alert_id,),) = world.alerts("id")
    world.call("resolve_alert", role="function_incidents", alert_id=str(alert_id), note="seen", **key)
    world.responder = Responses(store_of(world), Limits(), TOLD.append)
    fire(world, "PRICES_STALE")
    for _ in range(3):
        world.evaluate()
    failed = world.market.execute("SELECT attempts, outcome FROM alert_responses WHERE state = 'failed'")
    assert failed == [(3, {"error": "QUOTE_STANDBY_PROVIDER is not set."})]
    assert [kind for kind, _ in world.timeline()].count("response_failed") == 1
    worse = [notice for notice in world.inbox.notices if notice.kind == "worsened"]
    assert sorted(notice.channel for notice in worse) == ["email", "slack", "sms"]
    assert "price_provider failed (QUOTE_STANDBY_PROVIDER is not set)." in worse[0].text
    assert len(interventions(world, "id")) == 1


def test_a_threat_blocks_addresses_and_suspends_only_whom_several_rules_have_found(world: AlertWorld) -> None:
    market = world.market
    market.execute("UPDATE security_rules SET response = NULL, response_seconds = NULL")
    with (
        market.database.connect("function_incidents") as officer,
        market.database.connect("function_security") as guard,
    ):
        watch = Watch(market, officer, guard)
        # given forged tokens from one address, a user whom one rule has found, one whom three have, and one who has
        # nothing but much to do: orders, symbols, more requests than the limit takes
        once, often, busy = market.user(), market.user(), market.user()
        market.execute("UPDATE security_rules SET threshold = 1 WHERE rule IN ('rapid_orders', 'symbol_diversity')")
        assert market.trade(busy)["outcome"] == "filled"
        watch.happened("rate_limit_exceeded|user", 20, user=busy, address="198.51.100.12")
        other = "198.51.100.13"
        for address in (STRANGER, other):
            watch.happened("authentication_failure|signature", 10, address=address)
        watch.happened("privilege_escalation|role", 3, user=once, address="198.51.100.10")
        watch.happened("privilege_escalation|role", 3, user=often, address="198.51.100.11")
        watch.happened("data_access|not_found", 20, user=often, address="198.51.100.11")
        watch.found()
        assert [rule for rule, _ in watch.found()].count("correlation_of_user") == 1, "not of the busy one"

    # when the alert opens
    world.only("SECURITY_THREAT")
    world.evaluate()

    # then just these are stopped, each with an end
    blocked = market.execute(
        "SELECT host(p.ip_address) FROM interventions AS i INNER JOIN security_pii AS p ON p.row_id = i.id"
    )
    assert sorted(blocked) == sorted([(STRANGER,), (other,)])
    assert interventions(world, "kind", "target") == [
        ("account_suspension", str(often.account_id)),
        ("ip_block", None),
        ("ip_block", None),
    ]
    status = dict(market.execute("SELECT id, account_status FROM profiles"))
    assert [status[user.user_id] for user in (once, often, busy)] == ["active", "suspended", "active"]
    assert [often.account_id] == TOLD
    # and one call gives the account back
    undo(world, "account_suspension")
    assert dict(market.execute("SELECT id, account_status FROM profiles"))[often.user_id] == "active"


def test_each_new_threat_is_told_and_answered_while_the_alert_goes_on(world: AlertWorld) -> None:
    market = world.market
    market.execute("UPDATE security_rules SET response = NULL, response_seconds = NULL")
    world.only("SECURITY_THREAT")

    def attack(*addresses: str) -> tuple[list[str], int, int]:
        """Who is told, how many are blocked in all, and how often a response was begun, after a run."""
        for address in addresses:
            watch.happened("authentication_failure|signature", 10, address=address)
        watch.found()
        before = len(world.inbox.notices)
        world.evaluate()
        told = [f"{each.kind} {each.channel} {each.value.normalize():f}" for each in world.inbox.notices[before:]]
        begun = [kind for kind, _ in world.timeline()].count("response_started")
        return sorted(told), len(interventions(world, "id")), begun

    with (
        market.database.connect("function_incidents") as officer,
        market.database.connect("function_security") as guard,
    ):
        watch = Watch(market, officer, guard)
        assert attack(STRANGER) == (["opened management 1", "opened security_team 1"], 1, 2)
        # when it just goes on, then nothing is told or begun again
        assert attack() == ([], 1, 2)
        # when there is another, then it is blocked, and told once
        assert attack("198.51.100.20") == (["worsened management 2", "worsened security_team 2"], 2, 3)
        assert attack() == ([], 2, 3)
        assert world.inbox.notices[-1].headline == "[WORSE, CRITICAL] A threat is active"
        # when one is ours, then people decide about it, and it is not tried again
        market.execute("INSERT INTO never_blocked VALUES ('198.51.100.21/32', 'an office', 'a test')")
        assert attack("198.51.100.21") == (["worsened management 3", "worsened security_team 3"], 2, 4)
        assert attack() == ([], 2, 4)
        # when there are very many, then no more are blocked than one alert may
        told, blocked, _ = attack(*(f"198.51.100.{number}" for number in range(30, 52)))
        assert (told, blocked) == (["worsened management 25", "worsened security_team 25"], 20)
        assert attack()[:2] == ([], 20)


@mock_aws
def test_lambda_is_told_by_the_name_that_it_knows() -> None:
    client: Any = boto3.client("iam")
    role = client.create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    functions: Any = boto3.client("lambda")
    functions.create_function(
        FunctionName="deployed", Role=role, Code={"ZipFile": b""}, Handler="a.b", Runtime="python3.13"
    )
    capacity = LambdaCapacity({"execute_order": "deployed", "gone": "nothing"})

    assert capacity.reserved("execute_order") is None
    capacity.reserve("execute_order", 60)
    assert capacity.reserved("execute_order") == 60
    assert functions.get_function_concurrency(FunctionName="deployed")["ReservedConcurrentExecutions"] == 60
    for unknown in ("gone", "another"):
        with pytest.raises(TradingError):
            capacity.reserve(unknown, 1)


def test_the_function_evaluates_and_tells_in_its_log(
    world: AlertWorld,
    servers: TestServers,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world.market.execute("UPDATE margin_scan SET updated_at = clock_timestamp() - interval '10 minutes'")
    world.only("MARGIN_WATCH_SILENT", "ORDER_EXECUTION_FAILURE")
    variables = {"ALERT_SINK": "log", "ALERT_CONCURRENCY_MAX": "60", "RELEASE_VERSION": "1.2.3"}

    with function_environment(
        monkeypatch, tmp_path, database=world.market.database, redis_url=redis_url, role=ROLE, **variables
    ):
        answer = load_function("evaluate_alerts")({}, Context())

    assert (answer["opened"], answer["sent"], answer["not_sent"], answer["failed"]) == (1, 3, 0, [])
    assert "[CRITICAL] Nobody watches margin" in capsys.readouterr().out
    assert world.market.execute("SELECT version FROM releases") == [("1.2.3",)]
