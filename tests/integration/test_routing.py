"""Routing on a real database: silent, late and repeating venues, copies at once, a copy that is killed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from tests.kit.functions import (
    Context,
    bearer,
    call,
    function_environment,
    http_event,
    load_function,
    make_token,
)
from tests.kit.kill_switch import Officer
from tests.kit.realtime import soon
from tests.kit.scripted_broker import FakeTime, LookUp, ScriptedBroker, Submission
from tests.kit.servers import MigratedTemplate
from tests.kit.venues import STOCK, VenueWorld, make_venue_instrument
from trading.brokers import registry
from trading.routing import RetryPolicy, Router, RoutingReport
from trading.store.venues import OrderId

ROOT = Path(__file__).parents[2]
SUBMISSIONS = st.sampled_from(Submission.__value__.__args__)
LOOK_UPS = st.sampled_from(LookUp.__value__.__args__)
# Each run takes an order further; whatever a venue does for a while, it is settled within these.
RUNS_MAX = 12
SILENT: list[Submission] = ["lose", "lose", "lose", "lose"]


@pytest.fixture(scope="module")
def module_world(migrated: MigratedTemplate) -> Iterator[VenueWorld]:
    scratch = migrated.clone()
    try:
        with VenueWorld.opened(scratch) as world:
            for symbol in ("TEST_TIMEOUT", "TEST_TIMEOUT_KEPT", "TEST_PARTIAL"):
                make_venue_instrument(world.market.owner, symbol)
                world.market.quote(symbol, "99.98", "100.00")
            make_venue_instrument(world.market.owner, "TEST_PAPER", venue="paper")
            world.market.quote("TEST_PAPER", "99.98", "100.00")
            yield world
    finally:
        scratch.drop()


@pytest.fixture
def world(module_world: VenueWorld) -> Iterator[VenueWorld]:
    yield module_world
    assert module_world.market.book_faults() == []


def router_of(world: VenueWorld, venue: ScriptedBroker, time: FakeTime) -> Router:
    return Router(
        world.another_store(), lambda _: venue, RetryPolicy(), lambda _: None, clock=time.clock, sleep=time.sleep
    )


def let_time_pass(world: VenueWorld, order: OrderId) -> None:
    """As if the next sweep came, long after the last submission and after every lease."""
    world.market.execute(
        "UPDATE venue_routes SET due_at = created_at, lease_expires_at = NULL, "
        "submitted_at = submitted_at - interval '1 hour' WHERE order_id = %s AND state <> 'done'",
        (order.order_id,),
    )


class TestAnyVenue:
    @given(
        submissions=st.lists(SUBMISSIONS, max_size=8),
        look_ups=st.lists(LOOK_UPS, max_size=12),
        side=st.sampled_from(["buy", "sell"]),
        mode=st.sampled_from(["netting", "hedging"]),
    )
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_every_order_is_settled_as_its_venue_has_it(
        self, world: VenueWorld, submissions: list[Submission], look_ups: list[LookUp], side: str, mode: str
    ) -> None:
        # given a venue that behaves like this for a while, and an order
        venue, time = ScriptedBroker(submissions, look_ups), FakeTime()
        user = world.market.user(position_mode=mode)
        order = OrderId(user.user_id, UUID(world.accept(user, side=side)["order_id"]))
        # when it is followed until it is settled
        for _ in range(RUNS_MAX):
            report = router_of(world, venue, time).route([order], until=time.now + 1000)
            assert report.failed == 0
            if report == RoutingReport():
                break
            if str(order.order_id) in venue._orders:
                venue.go_on(str(order.order_id))
            let_time_pass(world, order)
        # then there is one order, filled by what the venue traded and by nothing else
        (row,) = world.market.rows("orders", user)
        traded = venue.traded(str(order.order_id))
        assert row["status"] in ("filled", "rejected")
        assert row["filled_quantity"] == traded == sum(fill["quantity"] for fill in world.market.rows("fills", user))
        assert (row["status"] == "filled") == (traded == row["quantity"])
        assert world.reserved(user) == 0
        assert world.market.book_faults() == []

    @given(
        submissions=st.lists(SUBMISSIONS.filter(lambda name: "part" not in name and name != "work"), max_size=6),
        look_ups=st.lists(LOOK_UPS.filter(lambda name: name != "late"), max_size=8),
    )
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_a_venue_that_forgets_ids_still_trades_an_order_once(
        self, world: VenueWorld, submissions: list[Submission], look_ups: list[LookUp]
    ) -> None:
        venue, time = ScriptedBroker(submissions, look_ups, reuses_ids=True), FakeTime()
        user = world.market.user()
        order = OrderId(user.user_id, UUID(world.accept(user)["order_id"]))
        for _ in range(RUNS_MAX):
            router_of(world, venue, time).route([order], until=time.now + 1000)
            let_time_pass(world, order)
        assert venue.traded(str(order.order_id)) in (0, 10)
        (row,) = world.market.rows("orders", user)
        assert row["filled_quantity"] == venue.traded(str(order.order_id))


class TestLostMessage:
    def test_an_order_is_answered_and_found_by_the_sweep(
        self, world: VenueWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        # given a function whose queues cannot be reached
        user = world.market.user()
        environment = function_environment(
            monkeypatch, tmp_path, database=world.market.database, VENUES="mock:mock", ALLOW_MOCK_VENUE="true"
        )
        body = {"symbol": STOCK, "order_type": "market", "side": "buy", "quantity": 10, "idempotency_key": "k"}
        event = http_event("POST /functions/v1/execute-order", headers=bearer(make_token(user)), body=json.dumps(body))
        with environment:
            # when
            answer = call(load_function("execute_order"), event)
        # then
        assert (answer.status, answer.body["data"]["status"]) == (200, "pending")
        time = FakeTime()
        router_of(world, ScriptedBroker(), time).sweep(until=time.now + 1000)
        assert world.market.rows("orders", user)[0]["status"] == "filled"


class TestAudit:
    def test_a_timeout_and_its_recovery_read_as_they_happened(self, world: VenueWorld) -> None:
        user = world.market.user()
        order = OrderId(user.user_id, UUID(world.accept(user)["order_id"]))
        router_of(world, ScriptedBroker(["lose", "fill"]), FakeTime()).route([order], until=10**6)
        (filled,) = world.market.rows("orders", user)
        found = world.market.execute(
            "SELECT action, status, details ->> 'error_code', retry_attempt FROM order_audit_log "
            "WHERE order_id = %s ORDER BY version",
            (filled["id"],),
        )
        assert found == [
            ("SUBMITTED", "pending_new", None, None),
            ("APPROVED", "pending_new", None, None),
            ("EXECUTED", "pending_new", "TIMEOUT", 0),
            ("RECOVERED", "pending_new", None, 1),
            ("FILLED", "filled", None, 1),
        ]
        assert len(world.market.rows("fills", user)) == 1


class TestStopped:
    """Trading is stopped after an order was accepted, and before it is at its venue."""

    @pytest.mark.parametrize("scope", ["platform", "symbol", "account"])
    def test_what_would_open_does_not_leave_any_more(self, world: VenueWorld, scope: str) -> None:
        # given
        user = world.market.user()
        order = OrderId(user.user_id, UUID(world.accept(user)["order_id"]))
        subject = {"symbol": {"symbol": STOCK}, "account": {"account_id": str(user.account_id)}}.get(scope, {})
        venue, time = ScriptedBroker(), FakeTime()
        with Officer.opened(world.market) as officer:
            officer.set_state(scope, "reducing", **subject)

            # when
            router_of(world, venue, time).route([order], until=time.now + 1000)
            officer.set_state(scope, "active", **subject)

        # then
        (row,) = world.market.rows("orders", user)
        assert (row["status"], row["failure_code"]) == ("rejected", "TRADING_HALTED")
        assert (venue.submitted, world.reserved(user)) == ([], 0)

    def test_what_closes_still_leaves(self, world: VenueWorld) -> None:
        user = world.market.user(position_mode="netting")
        world.fill(world.sent(user), "10", "150.00")
        order = OrderId(user.user_id, UUID(world.accept(user, side="sell")["order_id"]))
        venue, time = ScriptedBroker(), FakeTime()
        with Officer.opened(world.market) as officer:
            officer.set_state("symbol", "halted", symbol=STOCK)
            router_of(world, venue, time).route([order], until=time.now + 1000)
            officer.set_state("symbol", "active", symbol=STOCK)

        assert world.market.rows("orders", user)[-1]["status"] == "filled"

    @pytest.mark.parametrize(("look_up", "status"), [("tell", "rejected"), ("late", "filled")])
    def test_what_may_have_left_is_looked_for_and_not_sent_again(
        self, world: VenueWorld, look_up: LookUp, status: str
    ) -> None:
        # given an order whose submission was not answered
        user = world.market.user()
        order = OrderId(user.user_id, UUID(world.accept(user)["order_id"]))
        venue, time = ScriptedBroker(["lose"], ["timeout", "timeout", "timeout", "timeout", look_up]), FakeTime()
        router_of(world, venue, time).route([order], until=time.now + 1000)
        let_time_pass(world, order)

        # when trading is stopped before the next look
        with Officer.opened(world.market) as officer:
            officer.set_state("symbol", "halted", symbol=STOCK)
            for _ in range(3):
                router_of(world, venue, time).route([order], until=time.now + 1000)
                let_time_pass(world, order)
            officer.set_state("symbol", "active", symbol=STOCK)

        # then it is as its venue has it
        assert len(venue.submitted) == 1
        assert world.market.rows("orders", user)[0]["status"] == status


class TestSweep:
    def test_it_finds_what_no_message_came_for(self, world: VenueWorld) -> None:
        users = [world.market.user() for _ in range(3)]
        for user in users:
            world.accept(user)
        time = FakeTime()
        report = router_of(world, ScriptedBroker(), time).sweep(until=time.now + 1000)
        assert report.settled >= 3
        assert {world.market.rows("orders", user)[0]["status"] for user in users} == {"filled"}

    def test_it_leaves_alone_what_is_not_due(self, world: VenueWorld) -> None:
        user = world.market.user()
        order = OrderId(user.user_id, UUID(world.accept(user)["order_id"]))
        time = FakeTime()
        venue = ScriptedBroker(SILENT)
        router_of(world, venue, time).route([order], until=time.now + 1000)
        router_of(world, venue, time).sweep(until=time.now + 1000)
        assert venue.looked_up == 4
        let_time_pass(world, order)
        router_of(world, venue, time).sweep(until=time.now + 1000)
        assert world.market.rows("orders", user)[0]["status"] == "rejected"

    def test_an_impossible_word_of_a_venue_is_left_to_a_person(self, world: VenueWorld) -> None:
        # given a venue that trades twice what it was sent
        user = world.market.user()
        order = OrderId(user.user_id, UUID(world.accept(user)["order_id"]))
        venue, time = ScriptedBroker(), FakeTime()
        router_of(world, venue, time).route([order], until=time.now + 1000)
        other = OrderId(user.user_id, UUID(world.accept(user)["order_id"]))
        venue._fills[str(other.order_id)] = list(venue._fills[str(order.order_id)])
        # when / then the second order is neither filled nor lost
        report = router_of(world, venue, time).route([other], until=time.now + 1000)
        assert report == RoutingReport(claimed=1, failed=1)
        assert [row["status"] for row in world.market.rows("orders", user)] == ["filled", "pending_new"]


class TestKilledCopy:
    def test_another_finds_the_order_by_its_id_and_books_it_once(
        self, world: VenueWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        user = world.market.user()
        order = OrderId(user.user_id, UUID(world.accept(user)["order_id"]))
        environment = function_environment(
            monkeypatch,
            tmp_path,
            database=world.market.database,
            role="function_router",
            VENUES="mock:mock",
            ALLOW_MOCK_VENUE="true",
        )
        with environment:
            registry.broker.cache_clear()
            # given a copy that is killed when its venue has the order and nothing is booked
            arguments = ["-m", "tests.kit.route_process", str(order.user_id), str(order.order_id), "300"]
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'layers' / 'trading'}"},
                stdout=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            assert process.stdout.readline() == "submitted\n"
            process.kill()
            process.communicate()
            assert world.market.rows("fills", user) == []
            # when its lease has run out, and another copy takes over
            time = FakeTime()
            router = Router(
                world.another_store(),
                registry.broker,
                RetryPolicy(),
                lambda _: None,
                clock=time.clock,
                sleep=time.sleep,
            )
            soon(lambda: router.route([order], until=time.now + 1000).claimed == 1)
            registry.broker.cache_clear()
        # then it is there once
        (row,) = world.market.rows("orders", user)
        assert (row["status"], row["filled_quantity"]) == ("filled", 10)
        assert len(world.market.rows("fills", user)) == 1
        actions = [entry["action"] for entry in world.market.rows("order_audit_log", user) if entry["order_id"]]
        assert actions == ["SUBMITTED", "APPROVED", "RECOVERED", "FILLED"]


def records(*bodies: str) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": f"m{number}",
                "receiptHandle": f"r{number}",
                "body": body,
                "attributes": {},
                "messageAttributes": {"request_id": {"stringValue": "cause", "dataType": "String"}},
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:RouteQueue",
                "awsRegion": "eu-west-1",
            }
            for number, body in enumerate(bodies)
        ]
    }


class LongContext(Context):
    def get_remaining_time_in_millis(self) -> int:
        return 70_000


class TestFunction:
    @pytest.fixture
    def queue(self) -> Iterator[str]:
        with mock_aws():
            yield boto3.client("sqs").create_queue(QueueName="relay")["QueueUrl"]

    @pytest.fixture
    def handler(self, world: VenueWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, queue: str) -> Iterator[Any]:
        environment = function_environment(
            monkeypatch,
            tmp_path,
            database=world.market.database,
            role="function_router",
            RELAY_QUEUE_URL=queue,
            VENUES="mock:mock,paper:paper",
            ALLOW_MOCK_VENUE="true",
            MOCK_LATENCY_MS="0",
            VENUE_TIMEOUT_MS="50",
            ORDER_RETRY_WAIT_MS="10",
        )
        with environment:
            registry.broker.cache_clear()
            yield load_function("route_orders")
            registry.broker.cache_clear()

    @pytest.mark.parametrize(
        ("symbol", "price"), [("TEST_TIMEOUT", "100.00"), ("TEST_TIMEOUT_KEPT", "100.00"), (STOCK, "150.00")]
    )
    def test_a_message_has_its_order_filled_at_the_mock_venue(
        self, world: VenueWorld, handler: Any, queue: str, symbol: str, price: str
    ) -> None:
        # given
        user = world.market.user()
        order_id = world.accept(user, symbol=symbol)["order_id"]
        # when the message comes twice
        message = json.dumps({"user_id": str(user.user_id), "order_id": order_id})
        answers = [handler(records(message), LongContext()) for _ in range(2)]
        # then
        assert answers == [{"batchItemFailures": []}] * 2
        (row,) = world.market.rows("orders", user)
        assert (row["status"], row["average_price"]) == ("filled", Decimal(price))
        assert row["venue_order_id"].startswith("MOCK-")
        assert len(world.market.rows("fills", user)) == 1
        # and the relay is told, with the request that caused it
        messages = boto3.client("sqs").receive_message(QueueUrl=queue, MessageAttributeNames=["request_id"])["Messages"]
        assert json.loads(messages[0]["Body"]) == {"account_id": str(user.account_id)}
        assert messages[0]["MessageAttributes"]["request_id"]["StringValue"] == "cause"

    def test_a_sweep_brings_the_rest_of_a_part(self, world: VenueWorld, handler: Any) -> None:
        user = world.market.user()
        order_id = world.accept(user, symbol="TEST_PARTIAL")["order_id"]
        handler(records(json.dumps({"user_id": str(user.user_id), "order_id": order_id})), LongContext())
        assert world.market.rows("orders", user)[0]["status"] == "partially_filled"

        def swept() -> bool:
            let_time_pass(world, OrderId(user.user_id, UUID(order_id)))
            handler({}, LongContext())
            return world.market.rows("orders", user)[0]["status"] == "filled"

        soon(swept, seconds=10)
        assert len(world.market.rows("fills", user)) == 2

    def test_the_paper_venue_fills_at_the_quote_with_slippage(self, world: VenueWorld, handler: Any) -> None:
        """0.05 pips of 0.01 on an ask of 100.00, half-up to the tick of 0.01: 100.00."""
        user = world.market.user()
        order_id = world.accept(user, symbol="TEST_PAPER")["order_id"]
        handler(records(json.dumps({"user_id": str(user.user_id), "order_id": order_id})), LongContext())
        (row,) = world.market.rows("orders", user)
        assert (row["status"], row["average_price"]) == ("filled", Decimal("100.00"))
        assert row["venue_order_id"].startswith("PAPER-")

    @pytest.mark.parametrize("body", ["no JSON", "[]", '{"order_id": 1}', '{"user_id": "x", "order_id": "y"}'])
    def test_a_message_that_names_no_order_fails_alone(self, handler: Any, body: str) -> None:
        assert handler(records(body), LongContext()) == {"batchItemFailures": [{"itemIdentifier": "m0"}]}

    def test_an_order_that_is_not_there_is_no_failure(self, handler: Any) -> None:
        body = json.dumps({"user_id": str(uuid4()), "order_id": str(uuid4())})
        assert handler(records(body), LongContext()) == {"batchItemFailures": []}
