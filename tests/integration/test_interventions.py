"""Steps that are taken for a while: each starts once, is listed and audited, and is taken back by one call."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.kit import MigratedTemplate, User
from tests.kit.operators import Desk
from tests.kit.orders import details_of, raises_sqlstate
from tests.kit.security import OFFICER_ID, STRANGER, Watch

CALLERS = 8


@pytest.fixture(scope="module")
def opened(migrated: MigratedTemplate) -> Iterator[Watch]:
    with Watch.opened(migrated) as watch:
        yield watch


@pytest.fixture
def watch(opened: Watch) -> Watch:
    opened.forget()
    return opened


@pytest.fixture
def user(watch: Watch) -> User:
    return watch.market.user()


def status_of(watch: Watch, user: User) -> str:
    return watch.market.execute("SELECT account_status FROM profiles WHERE id = %s", (user.user_id,))[0][0]


def expire(watch: Watch, intervention_id: object) -> None:
    """Let its time be over."""
    watch.market.execute(
        "UPDATE interventions SET started_at = started_at - interval '1 hour', "
        "expires_at = started_at - interval '1 second' WHERE id = %s",
        (intervention_id,),
    )


@pytest.mark.parametrize(
    ("kind", "target", "parameters"),
    [
        ("maintenance", None, {}),
        ("ip_block", STRANGER, {}),
        ("reserved_concurrency", "execute_order", {"concurrency": 80}),
        ("price_provider", "quotes", {"provider": "replay"}),
    ],
)
def test_each_kind_starts_is_listed_and_is_undone(
    watch: Watch, kind: str, target: str | None, parameters: dict[str, object]
) -> None:
    # when an officer starts it
    answer = watch.start(kind, target, parameters=parameters)

    # then it is in force until its time
    started = answer["intervention"]
    assert (answer["outcome"], started["state"]) == ("started", "active")
    assert (started["target"], started["parameters"]) == (target or "platform", parameters)
    assert (started["actor"], started["reason"]) == (str(OFFICER_ID), "a test")
    assert watch.ask("list_interventions", filter="active")["interventions"] == [started]
    # when it is taken back, then it is over, once
    undone = watch.undo(started["id"], reason="over")
    assert (undone["outcome"], undone["intervention"]["state"]) == ("undone", "undone")
    assert (undone["intervention"]["undone_by"], undone["intervention"]["undo_reason"]) == (str(OFFICER_ID), "over")
    assert watch.undo(started["id"])["outcome"] == "already_over"
    assert watch.ask("list_interventions", filter="active")["interventions"] == []
    assert watch.ask("list_interventions", filter="over")["interventions"] == [undone["intervention"]]
    # and both ends are in the audit
    told = watch.platform_audit()[-2:]
    assert [(row["action"], row["actor"], row["reason"]) for row in told] == [
        ("INTERVENTION_STARTED", str(OFFICER_ID), "a test"),
        ("INTERVENTION_ENDED", str(OFFICER_ID), "over"),
    ]
    assert told[0]["details"]["intervention_id"] == started["id"]


class TestSuspension:
    def test_an_account_is_suspended_and_gets_its_status_back(self, watch: Watch, user: User) -> None:
        # when
        started = watch.start("account_suspension", user.account_id)["intervention"]

        # then its orders are refused, by the audit of the account for the reason given
        assert status_of(watch, user) == "suspended"
        denied = watch.market.trade(user)
        assert (denied["outcome"], denied["code"]) == ("denied", "ACCOUNT_NOT_ACTIVE")
        changed = [row for row in watch.market.rows("order_audit_log", user) if row["action"] == "ACCOUNT_CHANGED"]
        assert [row["reason"] for row in changed] == ["a test"]
        # when it is taken back
        watch.undo(started["id"])
        # then it trades again
        assert status_of(watch, user) == "active"
        assert watch.market.trade(user)["outcome"] == "filled"

    def test_what_somebody_changed_meanwhile_stays(self, watch: Watch, user: User) -> None:
        started = watch.start("account_suspension", user.account_id)["intervention"]
        watch.market.execute("UPDATE profiles SET account_status = 'closed' WHERE id = %s", (user.user_id,))

        undone = watch.undo(started["id"])["intervention"]

        assert undone["outcome"] == {"before": "active", "left": "closed"}
        assert status_of(watch, user) == "closed"
        # the books know of changes by operators alone
        watch.market.execute("UPDATE profiles SET account_status = 'suspended' WHERE id = %s", (user.user_id,))

    def test_a_suspension_of_somebodys_own_stays_when_the_first_is_over(self, watch: Watch, user: User) -> None:
        started = watch.start("account_suspension", user.account_id)["intervention"]
        # given an operator who ends it by hand, and suspends the account again for as long as it takes
        with watch.market.database.connect("function_operator") as connection:
            desk = Desk(watch.market, connection)
            for status in ("active", "suspended"):
                desk.act("change_account", user, account_status=status)

        undone = watch.undo(started["id"], actor="expiry", actor_id=None)["intervention"]

        assert undone["outcome"] == {"before": "active", "left": "suspended"}
        assert status_of(watch, user) == "suspended"

    def test_one_past_its_time_gives_way_to_a_new_one_that_the_sweep_does_not_end(
        self, watch: Watch, user: User
    ) -> None:
        # given one whose time is over, which nobody has swept yet
        over = watch.start("account_suspension", user.account_id)["intervention"]
        expire(watch, over["id"])

        # when an officer suspends the account again, then that is one of its own, and the old one has ended
        again = watch.start("account_suspension", user.account_id, reason="another")

        assert (again["outcome"], again["intervention"]["outcome"]) == ("started", {"before": "active"})
        assert again["intervention"]["id"] != over["id"]
        assert watch.ask("list_interventions", filter="expired")["interventions"] == []
        assert watch.undo(over["id"])["outcome"] == "already_over"
        assert status_of(watch, user) == "suspended"
        assert [row["action"] for row in watch.platform_audit()[-3:]] == [
            "INTERVENTION_STARTED",
            "INTERVENTION_ENDED",
            "INTERVENTION_STARTED",
        ]
        # and ends as any other does
        watch.undo(again["intervention"]["id"])
        assert status_of(watch, user) == "active"

    def test_one_that_is_not_active_is_not_suspended(self, watch: Watch) -> None:
        closed = watch.market.user(status="closed")

        with raises_sqlstate("TR010"):
            watch.start("account_suspension", closed.account_id)

        assert watch.ask("list_interventions")["interventions"] == []

    def test_nobody_suspends_or_restores_an_account_of_their_own(self, watch: Watch, user: User) -> None:
        with raises_sqlstate("TR011"):
            watch.start("account_suspension", user.account_id, actor_id=str(user.user_id))
        started = watch.start("account_suspension", user.account_id)["intervention"]
        with raises_sqlstate("TR011"):
            watch.undo(started["id"], actor_id=str(user.user_id))
        watch.undo(started["id"])

    def test_racing_callers_suspend_and_restore_once(self, watch: Watch, user: User) -> None:
        def race(procedure: str, **fields: object) -> list[str]:
            barrier = Barrier(CALLERS)

            def call(_number: int) -> str:
                request = {"version": 1, "actor": "tests"} | fields
                with watch.market.database.connect("function_security") as connection:
                    barrier.wait()
                    row = connection.execute(f"SELECT {procedure}(%s)".encode(), (Jsonb(request),)).fetchone()
                assert row is not None
                return row[0]["outcome"]

            with ThreadPoolExecutor(CALLERS) as pool:
                return sorted(pool.map(call, range(CALLERS)))

        started = race(
            "start_intervention", kind="account_suspension", target=str(user.account_id), seconds=60, reason="a race"
        )
        (active,) = watch.ask("list_interventions", filter="active")["interventions"]
        undone = race("undo_intervention", id=active["id"])

        assert started == ["already_active"] * (CALLERS - 1) + ["started"]
        assert undone == ["already_over"] * (CALLERS - 1) + ["undone"]
        assert status_of(watch, user) == "active"


def test_a_second_of_the_same_target_finds_the_first(watch: Watch) -> None:
    first = watch.start("ip_block", STRANGER, seconds=60)["intervention"]

    again = watch.start("ip_block", STRANGER, seconds=6000)
    other = watch.start("ip_block", "198.51.100.10")

    assert (again["outcome"], again["intervention"]) == ("already_active", first)
    assert other["outcome"] == "started"


def test_one_past_its_time_makes_room_and_is_swept(watch: Watch) -> None:
    # given two whose time is over
    blocked = watch.start("ip_block", STRANGER)["intervention"]
    closed = watch.start("maintenance")["intervention"]
    for over in (blocked, closed):
        expire(watch, over["id"])
    # then they bind nobody
    assert watch.market.execute("SELECT read_edge_guard()")[0][0]["blocks"] == {}
    assert watch.market.execute("SELECT read_edge_guard()")[0][0]["maintenance_until_us"] is None
    listed = watch.ask("list_interventions", filter="expired")["interventions"]
    assert {row["id"]: row["state"] for row in listed} == {blocked["id"]: "expired", closed["id"]: "expired"}
    # and a new one can start
    assert watch.start("ip_block", STRANGER)["outcome"] == "started"
    assert [row["undone_by"] for row in watch.ask("list_interventions", filter="over")["interventions"]] == [
        None,
        "expiry",
    ]


class TestKeys:
    def test_a_key_gets_the_first_answer_again(self, watch: Watch, user: User) -> None:
        keyed: dict[str, Any] = {"idempotency_key": str(uuid.uuid4()), "request_hash": "one"}
        for kind, target in (("maintenance", None), ("ip_block", STRANGER), ("account_suspension", user.account_id)):
            keyed["idempotency_key"] = f"key of {kind} {uuid.uuid4()}"
            first = watch.start(kind, target, **keyed)
            watch.undo(first["intervention"]["id"])

            again = watch.start(kind, target, **keyed)

            assert again == first | {"replayed": True}
            assert watch.ask("list_interventions", filter="active")["interventions"] == []

    def test_a_key_with_other_content_is_refused(self, watch: Watch) -> None:
        watch.start("maintenance", idempotency_key="used", request_hash="one")

        with raises_sqlstate("TR003"):
            watch.start("ip_block", STRANGER, idempotency_key="used", request_hash="two")

    def test_a_key_is_its_officers_own(self, watch: Watch) -> None:
        first = watch.start("maintenance", idempotency_key="mine", request_hash="one")

        other = watch.start("ip_block", STRANGER, idempotency_key="mine", request_hash="two", actor="another officer")

        assert other["replayed"] is False
        assert other["intervention"]["id"] != first["intervention"]["id"]


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("kind", {"kind": "reboot"}),
    ("seconds", {"kind": "maintenance", "seconds": 0}),
    ("seconds", {"kind": "maintenance", "seconds": 14_401}),
    ("seconds", {"kind": "ip_block", "target": STRANGER, "seconds": 2_592_001}),
    ("seconds", {"kind": "maintenance", "seconds": "60"}),
    ("reason", {"kind": "maintenance", "reason": "  "}),
    ("parameters", {"kind": "maintenance", "parameters": {"level": "total"}}),
    ("parameters", {"kind": "maintenance", "parameters": {"level": "full", "note": "\x1b[31m"}}),
    ("parameters", {"kind": "reserved_concurrency", "target": "execute_order", "parameters": {"level": "full"}}),
    ("parameters", {"kind": "ip_block", "target": "192.0.2.1", "parameters": {"why": "\x07"}}),
    ("target", {"kind": "ip_block", "target": "203.0.113.0/24"}),
    ("target", {"kind": "ip_block", "target": "nobody"}),
    ("target", {"kind": "ip_block"}),
    ("target", {"kind": "ip_block", "target": "192.0.2.77"}),
    ("target", {"kind": "account_suspension", "target": "nobody"}),
    ("target", {"kind": "reserved_concurrency", "target": "Execute Order"}),
]


@pytest.mark.parametrize(("field", "asked"), REFUSED)
def test_what_is_not_bounded_or_not_possible_is_refused(watch: Watch, field: str, asked: dict[str, Any]) -> None:
    watch.ask("change_never_blocked", action="add", network="192.0.2.0/24", reason="our offices")

    with raises_sqlstate("TR006") as raised:
        watch.ask("start_intervention", **({"seconds": 60, "reason": "a test"} | asked))

    assert details_of(raised.value)["field"] == field
    assert watch.ask("list_interventions")["interventions"] == []


def test_an_account_that_is_not_there_and_an_address_of_ones_own_are_refused(watch: Watch) -> None:
    with raises_sqlstate("TR001"):
        watch.start("account_suspension", uuid.uuid4())
    with raises_sqlstate("TR001"):
        watch.undo(uuid.uuid4())
    with raises_sqlstate("TR011"):
        watch.start("ip_block", STRANGER, ip_address=STRANGER)


def test_an_address_of_ipv6_is_blocked_with_its_network(watch: Watch) -> None:
    started = watch.start("ip_block", "2001:db8:1:2:3::4")["intervention"]

    assert started["target"] == "2001:db8:1:2::"
    assert list(watch.market.execute("SELECT read_edge_guard()")[0][0]["blocks"]) == ["2001:db8:1:2::"]


def test_networks_that_are_never_blocked_free_what_is_blocked_already(watch: Watch) -> None:
    # given a block
    watch.start("ip_block", STRANGER)
    before = watch.market.execute("SELECT read_edge_guard()")[0][0]
    assert list(before["blocks"]) == [STRANGER]
    # when its network is added, then it binds no more, and the copies are old
    added = watch.ask("change_never_blocked", action="add", network="198.51.100.0/24", reason="a partner")
    assert added["changed"]
    after = watch.market.execute("SELECT read_edge_guard()")[0][0]
    assert (after["blocks"], after["version"]) == ({}, before["version"] + 1)
    # and a repeat changes nothing
    assert not watch.ask("change_never_blocked", action="add", network="198.51.100.0/24", reason="again")["changed"]
    assert watch.platform_audit()[-1]["action"] == "NEVER_BLOCKED_CHANGED"


def test_what_others_carry_out_is_listed_until_it_is_done_and_reverted(watch: Watch) -> None:
    def listed(needs: str) -> list[str]:
        return [row["id"] for row in watch.ask("list_interventions", filter=needs)["interventions"]]

    def noted(**fields: object) -> None:
        watch.market.execute("SELECT note_intervention(%s)", (Jsonb({"version": 1, "id": raised["id"]} | fields),))

    raised = watch.start("reserved_concurrency", "execute_order", parameters={"concurrency": 80})["intervention"]
    watch.start("ip_block", STRANGER)
    assert (listed("to_carry_out"), listed("to_revert")) == ([raised["id"]], [])
    noted(outcome={"before": 40}, carried_out=True)
    assert (listed("to_carry_out"), listed("to_revert")) == ([], [])
    expire(watch, raised["id"])
    assert (listed("to_carry_out"), listed("to_revert")) == ([], [raised["id"]])
    noted(outcome={"after": 40}, reverted=True)
    assert (listed("to_carry_out"), listed("to_revert")) == ([], [])
    (row,) = watch.ask("list_interventions", kind="reserved_concurrency")["interventions"]
    assert row["outcome"] == {"before": 40, "after": 40}
