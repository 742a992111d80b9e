"""What the edge refuses before it looks at anything else, what it notes, and how both outlive Redis."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.kit import MigratedTemplate
from tests.kit.functions import Answer, bearer, call, function_environment, http_event, make_token
from tests.kit.gateway import eventually
from tests.kit.security import STRANGER, Watch
from trading.cache import Cache, CacheUnavailableError
from trading.edge.gate import Caller, admit, admit_address
from trading.edge.http import Request, Response, http_handler
from trading.edge.socket_gate import admit_connection, admit_message, note_refusal
from trading.edge.visitors import guard
from trading.errors import ErrorCode, TradingError
from trading.guarding import counted_events
from trading.guarding.counted_events import COUNTED_KEY, FIELDS_MAX, LOST
from trading.guarding.guard_copy import GUARD_KEY, GuardCopy, Truth, blockable_address
from trading.security_watch import SecurityReport
from trading.security_watch import Watch as SecurityRun
from trading.store.database import Database
from trading.store.security import SecurityStore

GONE = "redis://127.0.0.1:9/0"
# The accounts that the relay was told of.
TOLD: list[uuid.UUID] = []
FORGED = {"authorization": "Bearer forged"}

type Enter = Callable[..., AbstractContextManager[None]]


class Door:
    """Routes behind the gate, in both dialects."""

    def __init__(self) -> None:
        self.admitted: list[Caller] = []
        self.handler = http_handler(
            {
                "GET /api/v1/door": lambda request: self._pass(request, state_changing=False),
                "POST /api/v1/door": lambda request: self._pass(request, state_changing=True),
                "POST /functions/v1/door": lambda request: self._pass(request, state_changing=True),
                "POST /api/v1/close": lambda request: self._pass(request, state_changing=True, reduces=True),
                "GET /api/v1/open": self._open,
                "GET /api/v1/door/{id}": self._nothing,
                "GET /api/v1/staff": lambda request: self._pass(
                    request, state_changing=False, permission="accounts:write", roles=("operator",)
                ),
                "DELETE /api/v1/maintenance": lambda request: self._pass(
                    request, state_changing=True, in_maintenance=True
                ),
            }
        )

    def _pass(self, request: Request, *, permission: str | None = None, **rules: Any) -> Response:
        self.admitted.append(admit(request, route_group="door", permission=permission, **rules))
        return Response()

    def _open(self, request: Request) -> Response:
        admit_address(request)
        return Response()

    def _nothing(self, request: Request) -> Response:
        self._pass(request, state_changing=False)
        raise TradingError(ErrorCode.NOT_FOUND, "There is no such thing.")

    def ask(self, route: str, headers: dict[str, str] | None = None, source_ip: str = STRANGER) -> Answer:
        given = bearer(make_token(tier="unmetered")) if headers is None else headers
        parameters = {"id": str(uuid.uuid4())} if "{id}" in route else None
        return call(self.handler, http_event(route, headers=given, source_ip=source_ip, path_parameters=parameters))


def code_of(answer: Answer) -> str | None:
    if answer.status == 200:
        return None
    error = answer.body["error"]
    return error["code"] if isinstance(error, dict) else error


@pytest.fixture(scope="module")
def opened(migrated: MigratedTemplate) -> Iterator[Watch]:
    with Watch.opened(migrated) as watch:
        yield watch


@pytest.fixture
def watch(opened: Watch) -> Watch:
    opened.forget()
    return opened


@pytest.fixture
def server(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, watch: Watch, redis_url: str) -> Enter:
    """The environment of a function with a gate; `redis_url` and `database` may be others."""

    def entered(**others: Any) -> AbstractContextManager[None]:
        given: dict[str, Any] = {"database": watch.market.database, "redis_url": redis_url} | others
        return function_environment(monkeypatch, tmp_path, **given)

    return entered


@pytest.fixture
def run(watch: Watch, redis_url: str) -> Iterator[Callable[..., SecurityReport]]:
    """One run of the scheduled watch."""
    database = Database(lambda: watch.market.database.url_for("function_security"))
    store = SecurityStore(database)
    failures: list[tuple[str, Exception]] = []

    def once(url: str = redis_url) -> SecurityReport:
        cache = Cache(lambda: url, timeout_ms=1000)
        report = SecurityRun(
            store,
            cache,
            GuardCopy(cache, store.guard).renew,
            TOLD.append,
            time_left_ms=lambda: 30_000,
            on_failure=lambda step, error: failures.append((step, error)),
        ).run()
        cache.close()
        assert [step for step, error in failures if not isinstance(error, CacheUnavailableError)] == [], failures
        return report

    yield once
    database.close()


def recorded(watch: Watch) -> list[tuple[Any, ...]]:
    """(type, reason, address, user, occurrences) of what was recorded."""
    return watch.market.execute(
        "SELECT e.event_type, e.reason, host(p.ip_address), e.user_id, sum(e.occurrences)::integer "
        "FROM security_events AS e LEFT JOIN security_pii AS p ON p.row_id = e.id GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3"
    )


@pytest.mark.parametrize("stores", ["both", "postgres alone"])
class TestWithEitherStore:
    def test_a_blocked_address_is_refused_and_others_are_not(
        self, watch: Watch, enter: Enter, run: Callable[..., SecurityReport], door: Door, redis_url: str, stores: str
    ) -> None:
        with enter(redis_url=redis_url if stores == "both" else GONE):
            block = watch.start("ip_block", STRANGER)["intervention"]
            run()
            # when the address comes, with whatever it has
            for route in ("GET /api/v1/door", "POST /functions/v1/door", "GET /api/v1/open"):
                for headers in (None, FORGED, {}):
                    refused = door.ask(route, headers)
                    assert (refused.status, code_of(refused)) == (403, "IP_BLOCKED")
                    assert "X-RateLimit-Limit" not in refused.headers
            # then nobody else is kept out
            assert door.ask("GET /api/v1/door", source_ip="198.51.100.10").status == 200
            assert door.ask("GET /api/v1/open", {}, source_ip="198.51.100.10").status == 200
            # when it is taken back, it may come again
            watch.undo(block["id"])
            run()
            assert door.ask("GET /api/v1/door").status == 200
        # and what it came for meanwhile is noted as that
        run()
        noted = [row for row in recorded(watch) if row[:3] == ("suspicious_activity", "blocked", STRANGER)]
        assert sum(row[4] for row in noted) == 9

    def test_a_block_and_maintenance_end_by_themselves(
        self, watch: Watch, enter: Enter, run: Callable[..., SecurityReport], door: Door, redis_url: str, stores: str
    ) -> None:
        with enter(redis_url=redis_url if stores == "both" else GONE):
            watch.start("ip_block", STRANGER, seconds=1)
            watch.start("maintenance", seconds=1)
            run()
            # no run, no sweep
            eventually(lambda: door.ask("POST /api/v1/door").status == 200, seconds=5, what="the end of both")

    def test_in_maintenance_nothing_is_added_and_all_can_be_read(
        self, watch: Watch, enter: Enter, run: Callable[..., SecurityReport], door: Door, redis_url: str, stores: str
    ) -> None:
        with enter(redis_url=redis_url if stores == "both" else GONE):
            closed = watch.start("maintenance", seconds=120)["intervention"]
            run()
            for route in ("POST /api/v1/door", "POST /functions/v1/door"):
                refused = door.ask(route)
                assert (refused.status, code_of(refused)) == (503, "MAINTENANCE")
                assert 1 <= int(refused.headers["Retry-After"]) <= 120
            for route in ("GET /api/v1/door", "POST /api/v1/close", "DELETE /api/v1/maintenance"):
                assert door.ask(route).status == 200
            assert code_of(door.ask("POST /api/v1/door", FORGED)) == "UNAUTHENTICATED"
            watch.undo(closed["id"])
            run()
            assert door.ask("POST /api/v1/door").status == 200

    def test_in_full_maintenance_nothing_changes_but_what_ends_it(
        self, watch: Watch, enter: Enter, run: Callable[..., SecurityReport], door: Door, redis_url: str, stores: str
    ) -> None:
        with enter(redis_url=redis_url if stores == "both" else GONE):
            closed = watch.start("maintenance", seconds=120, parameters={"level": "full"})["intervention"]
            run()
            for route in ("POST /api/v1/door", "POST /api/v1/close"):
                assert code_of(door.ask(route)) == "MAINTENANCE"
            for route in ("GET /api/v1/door", "DELETE /api/v1/maintenance"):
                assert door.ask(route).status == 200
            watch.undo(closed["id"])
            run()
            assert door.ask("POST /api/v1/close").status == 200

    def test_what_is_refused_is_noted_for_what_it_is(
        self, watch: Watch, enter: Enter, run: Callable[..., SecurityReport], door: Door, redis_url: str, stores: str
    ) -> None:
        user_id = uuid.uuid4()
        of_user = bearer(make_token(user_id, tier="bronze", permissions=["accounts:write"]))
        without = bearer(make_token(user_id, tier="bronze", permissions=[]))
        with enter(redis_url=redis_url if stores == "both" else GONE):
            for _ in range(3):
                door.ask("GET /api/v1/door", FORGED)
            door.ask("GET /api/v1/door", {})
            door.ask("POST /api/v1/door", bearer(make_token(user_id, tier="bronze", client_id="unlisted")))
            door.ask("GET /api/v1/staff", of_user)
            door.ask("GET /api/v1/staff", without)
            for _ in range(4):
                door.ask("GET /api/v1/door/{id}", of_user)
            answers = [door.ask("GET /api/v1/door", of_user).status for _ in range(5)]
            assert answers == [200, 200, 200, 429, 429]
        run()

        assert recorded(watch) == [
            ("authentication_failure", "bearer_token_required", STRANGER, None, 1),
            ("authentication_failure", "signature", STRANGER, None, 3),
            ("data_access", "not_found", STRANGER, user_id, 4),
            ("privilege_escalation", "permission", STRANGER, user_id, 1),
            ("privilege_escalation", "role", STRANGER, user_id, 1),
            ("rate_limit_exceeded", "user", STRANGER, user_id, 2),
            ("suspicious_activity", "csrf", STRANGER, user_id, 1),
        ]
        agents = watch.market.execute("SELECT DISTINCT user_agent FROM security_pii")
        assert agents == [("tests",)]

    def test_a_flood_of_bad_tokens_is_a_bounded_number_of_rows(
        self,
        watch: Watch,
        enter: Enter,
        run: Callable[..., SecurityReport],
        door: Door,
        redis_url: str,
        stores: str,
    ) -> None:
        # given room for only a few, so that the flood need not be a large one
        room, addresses = 5, 12
        if stores == "both":
            with redis.Redis.from_url(redis_url) as server:
                server.hset(
                    COUNTED_KEY, mapping={f"10|data_access|filler|10.0.{n}|": 1 for n in range(FIELDS_MAX - room)}
                )
        watch.market.execute("UPDATE security_settings SET counters_max = %s", (room,))
        with enter(redis_url=redis_url if stores == "both" else GONE):
            for number in list(range(addresses)) * 3:
                assert door.ask("GET /api/v1/door", FORGED, source_ip=f"198.51.100.{number}").status == 401
        # when the watch records them
        report = run()
        watch.market.execute("UPDATE security_settings SET counters_max = 2000")
        # then as many rows are made as there was room for, and the rest is counted as lost
        rows = watch.market.execute(
            "SELECT count(*), sum(occurrences) FROM security_events WHERE event_type = 'authentication_failure'"
        )
        assert rows[0][0] <= room + 1  # a count more where the ten seconds ended in between
        assert rows[0][1] + report.lost == 3 * addresses
        lost = watch.market.execute("SELECT severity, occurrences FROM security_events WHERE reason = 'events_lost'")
        assert lost == [("high", report.lost)]


class TestCopy:
    def test_flushed_it_is_put_back_by_whoever_needs_it(
        self, watch: Watch, enter: Enter, door: Door, server: Any
    ) -> None:
        # given a block, a copy, and then an empty Redis
        watch.start("ip_block", STRANGER)
        watch.start("maintenance")
        with enter():
            assert code_of(door.ask("GET /api/v1/door")) == "IP_BLOCKED"
            server.flushall()
            # when the address comes, then it is refused all the same
            assert code_of(door.ask("GET /api/v1/door")) == "IP_BLOCKED"
            assert server.exists(GUARD_KEY)
            server.flushall()
            assert code_of(door.ask("POST /api/v1/door", source_ip="198.51.100.10")) == "MAINTENANCE"
        # and the copy alone is enough from then on
        with enter(database=None):
            assert code_of(door.ask("GET /api/v1/door")) == "IP_BLOCKED"
            assert door.ask("GET /api/v1/door", source_ip="198.51.100.10").status == 200

    def test_with_neither_copy_nor_database_nobody_is_blocked_and_the_database_is_not_asked_each_time(
        self, enter: Enter, door: Door, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with enter(database=None):
            asked: list[int] = []
            whole = guard().renew

            def counted() -> Truth:
                asked.append(1)
                return whole()

            monkeypatch.setattr(guard(), "renew", counted)
            statuses = [door.ask("GET /api/v1/door").status for _ in range(3)]

        assert (statuses, len(asked)) == ([200, 200, 200], 1)

    def test_an_older_one_never_takes_the_place_of_a_newer(self, redis_url: str, server: Any) -> None:
        cache = Cache(lambda: redis_url, timeout_ms=1000)
        old, new = Truth(7, None, {STRANGER: 1}), Truth(8, None, {})

        for truth in (new, old):
            GuardCopy(cache, lambda truth=truth: truth).renew()

        assert server.hgetall(GUARD_KEY) == {"version": "8"}
        assert 0 < server.ttl(GUARD_KEY) <= 600
        cache.close()

    def test_a_block_costs_no_round_trip_of_its_own(self, watch: Watch, enter: Enter, door: Door, server: Any) -> None:
        watch.start("ip_block", STRANGER)
        with enter():
            door.ask("GET /api/v1/door")
            before = server.info("commandstats")["cmdstat_evalsha"]["calls"]
            assert code_of(door.ask("GET /api/v1/door", FORGED)) == "IP_BLOCKED"
            assert door.ask("GET /api/v1/door", FORGED, source_ip="198.51.100.10").status == 401
            assert server.info("commandstats")["cmdstat_evalsha"]["calls"] - before == 2

    @pytest.mark.parametrize(
        "text",
        [
            "203.0.113.7",
            "::ffff:203.0.113.7",
            "2001:db8:1:2:3:4:5:6",
            "2001:DB8:0:0::1",
            "::1",
            "",
            "nobody",
            "203.0.113.0/24",
            "300.1.1.1",
        ],
    )
    def test_the_edge_and_the_tables_mean_the_same_address(self, watch: Watch, text: str) -> None:
        kept = watch.market.execute("SELECT coalesce(host(blockable_address(%s)), '')", (text,))

        assert kept == [(blockable_address(text),)]


class TestSockets:
    def test_neither_a_connection_nor_a_message_of_a_blocked_address_is_taken(self, watch: Watch, enter: Enter) -> None:
        watch.start("ip_block", STRANGER)
        with enter():
            for knock in (
                lambda: admit_connection(STRANGER),
                lambda: admit_message("connection", STRANGER),
            ):
                with pytest.raises(TradingError) as raised:
                    knock()
                assert raised.value.code is ErrorCode.IP_BLOCKED
            admit_connection("198.51.100.10")
            admit_message("connection", "198.51.100.10")

    def test_a_bad_token_is_noted_and_what_is_no_token_is_not(
        self, watch: Watch, enter: Enter, run: Callable[..., SecurityReport]
    ) -> None:
        token = TradingError(ErrorCode.UNAUTHENTICATED, "No.", {"constraint": "signature"})
        with enter():
            note_refusal(token, STRANGER, "a browser")
            note_refusal(TradingError(ErrorCode.UNAUTHENTICATED, "Authenticate first."), STRANGER)
            note_refusal(TradingError(ErrorCode.VALIDATION_FAILED, "No.", {"constraint": "text"}), STRANGER)
        run()

        assert recorded(watch) == [("authentication_failure", "signature", STRANGER, None, 1)]


class TestRuns:
    def test_a_brute_force_is_blocked_for_a_while_and_everybody_else_trades_on(
        self, watch: Watch, enter: Enter, run: Callable[..., SecurityReport], door: Door
    ) -> None:
        with enter():
            # given nine bad tokens of one address: that is not yet one too many
            for _ in range(9):
                door.ask("POST /api/v1/door", FORGED)
            assert run().responded == 0
            assert door.ask("POST /api/v1/door").status == 200
            # when the tenth comes
            door.ask("POST /api/v1/door", FORGED)
            report = run()
            # then the address is blocked, also with a good token, and nobody else is
            assert (report.opened, report.responded, report.blocked) == (1, 1, 1)
            assert code_of(door.ask("POST /api/v1/door")) == "IP_BLOCKED"
            assert door.ask("POST /api/v1/door", source_ip="198.51.100.10").status == 200
            (block,) = watch.ask("list_interventions", filter="active")["interventions"]
            assert (block["kind"], block["actor"], block["rule"]) == ("ip_block", "rule:brute_force", "brute_force")
            assert block["reason"] == "brute_force: 10 in 300 seconds"
            # and the same attack does not block again what was unblocked
            watch.undo(block["id"])
            assert run().responded == 0
            assert door.ask("POST /api/v1/door").status == 200

    def test_a_block_that_is_over_is_swept(self, watch: Watch, run: Callable[..., SecurityReport]) -> None:
        user = watch.market.user()
        watch.start("ip_block", STRANGER)
        watch.start("account_suspension", user.account_id)
        watch.market.execute(
            "UPDATE interventions SET started_at = now() - interval '2 hours', expires_at = now() - interval '1 hour'"
        )

        TOLD.clear()
        assert run().expired == 2
        assert run().expired == 0
        assert [user.account_id] == TOLD
        over = watch.ask("list_interventions", filter="over")["interventions"]
        assert {row["undone_by"] for row in over} == {"expiry"}
        status = watch.market.execute("SELECT account_status FROM profiles WHERE id = %s", (user.user_id,))
        assert status == [("active",)]

    def test_a_network_that_is_never_blocked_is_left_to_people(
        self, watch: Watch, run: Callable[..., SecurityReport]
    ) -> None:
        watch.ask("change_never_blocked", action="add", network="198.51.100.0/24", reason="our offices")
        watch.happened("authentication_failure|signature", 10)

        report = run()

        assert (report.opened, report.responded, report.not_responded) == (1, 0, 1)
        ((note,),) = watch.market.execute("SELECT response_note FROM security_findings")
        assert "never blocked" in note
        assert run().not_responded == 0

    def test_a_rule_may_suspend_and_the_suspension_is_taken_back(
        self, watch: Watch, run: Callable[..., SecurityReport]
    ) -> None:
        user = watch.market.user()
        rule = "UPDATE security_rules SET response = %s, response_seconds = %s WHERE rule = 'privilege_escalation'"
        watch.market.execute(rule, ("account_suspension", 3600))
        watch.happened("privilege_escalation|role", 3, user=user)
        watch.happened("privilege_escalation|role", 3, user=watch.market.user())
        assert run().responded == 2
        watch.market.execute(rule, (None, None))

        assert watch.market.trade(user)["code"] == "ACCOUNT_NOT_ACTIVE"
        for row in watch.ask("list_interventions", kind="account_suspension")["interventions"]:
            watch.undo(row["id"])
        assert watch.market.trade(user)["outcome"] == "filled"

    def test_a_run_that_ended_before_it_had_recorded_loses_and_doubles_nothing(
        self, watch: Watch, enter: Enter, run: Callable[..., SecurityReport], door: Door, redis_url: str
    ) -> None:
        cache = Cache(lambda: redis_url, timeout_ms=1000)
        with enter():
            door.ask("GET /api/v1/door", FORGED)
            # given a run that took what was counted and went no further, and one that recorded but did not forget
            taken = counted_events.take_events(cache, uuid.uuid4())
            assert taken is not None
            door.ask("GET /api/v1/door", FORGED)
            again = counted_events.take_events(cache, uuid.uuid4())
            assert again == taken
            watch.run(
                "record_security_events",
                batch_id=str(taken.batch_id),
                counts=dict(taken.counts),
                agents=dict(taken.agents),
                lost=taken.lost,
            )
            # when two more run
            run()
            run()
        # then each is there once
        assert recorded(watch) == [("authentication_failure", "signature", STRANGER, None, 2)]
        # and a late one forgets nothing but its own
        with enter():
            door.ask("GET /api/v1/door", FORGED)
        newer = counted_events.take_events(cache, uuid.uuid4())
        counted_events.forget_events(cache, taken.batch_id)
        assert counted_events.take_events(cache, uuid.uuid4()) == newer
        cache.close()

    def test_without_redis_a_run_does_the_rest(self, watch: Watch, run: Callable[..., SecurityReport]) -> None:
        watch.happened("authentication_failure|signature", 10)

        report = run(GONE)

        assert (report.failed, report.responded) == (["record"], 1)


def test_a_field_that_overflows_is_named_apart(redis_url: str, server: Any) -> None:
    server.hset(COUNTED_KEY, mapping={LOST: 3})
    cache = Cache(lambda: redis_url, timeout_ms=1000)

    taken = counted_events.take_events(cache, uuid.uuid4())

    assert taken is not None
    assert (taken.counts, taken.lost) == ({}, 3)
    cache.close()
