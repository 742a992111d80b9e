"""Who the rules find: at the threshold and not one below, once while it lasts, with what becomes of it."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.orders import Market
from tests.kit.security import STRANGER, Watch

FORGED = "authentication_failure|signature"


@pytest.fixture(scope="module")
def opened(migrated: MigratedTemplate) -> Iterator[Watch]:
    with Watch.opened(migrated) as watch:
        yield watch


@pytest.fixture
def watch(opened: Watch) -> Watch:
    opened.forget()
    return opened


def submitted(market: Market, user: User, orders: int, symbols: int) -> None:
    """Audit rows of orders that the user submitted, as though by the procedure, to be rolled back."""
    names = [row[0] for row in market.execute("SELECT symbol FROM instruments ORDER BY symbol LIMIT %s", (symbols,))]
    assert len(names) == symbols
    for number in range(orders):
        order_id = uuid.uuid4()
        market.execute(
            "INSERT INTO orders (user_id, id, account_id, symbol, order_type, side, quantity, status, leaves_quantity, "
            "failure_code) VALUES (%s, %s, %s, %s, 'market', 'buy', 1, 'denied', 0, 'MARKET_CLOSED')",
            (user.user_id, order_id, user.account_id, names[number % symbols]),
        )
        market.execute(
            "INSERT INTO order_audit_log (user_id, account_id, version, order_id, action, details, previous_hash, "
            "hash, hash_version, created_at) VALUES (%s, %s, %s, %s, 'SUBMITTED', '{}', '', '', 1, clock_timestamp())",
            (user.user_id, user.account_id, number + 1000, order_id),
        )


def find_by_hand(market: Market, user: User, *rules: str) -> None:
    """A finding of each of the rules, as though the user had done what it takes."""
    for rule in rules:
        market.execute(
            "INSERT INTO security_findings (rule, user_id, severity, observed, threshold, window_seconds, started_at, "
            "last_seen_at) SELECT rule, %s, severity, threshold, threshold, window_seconds, clock_timestamp(), "
            "clock_timestamp() FROM security_rules WHERE rule = %s",
            (user.user_id, rule),
        )


@pytest.mark.parametrize(
    ("rule", "event", "subject", "threshold", "window", "severity"),
    [
        ("brute_force", FORGED, "address", 10, 300, "high"),
        ("rate_limit_of_address", "rate_limit_exceeded|address", "address", 100, 300, "medium"),
        ("rate_limit_of_user", "rate_limit_exceeded|user", "user", 20, 300, "medium"),
        ("enumeration", "data_access|not_found", "user", 20, 300, "medium"),
        ("privilege_escalation", "privilege_escalation|role", "user", 3, 600, "high"),
    ],
)
def test_each_rule_finds_at_its_threshold_within_its_window(
    watch: Watch, rule: str, event: str, subject: str, threshold: int, window: int, severity: str
) -> None:
    user = watch.market.user()
    of = user if subject == "user" else None
    # given one below it, with one more that is older than the window, and one of somebody else
    watch.happened(event, threshold - 2, user=of)
    watch.happened(event, 1, seconds_ago=window - 30, user=of)
    watch.happened(event, 1, seconds_ago=window + 10, user=of)
    watch.happened(event, 1, address="198.51.100.77", user=watch.market.user())
    assert watch.found() == []
    # when one more happens
    watch.happened(event, 1, user=of)
    # then the subject is found
    assert watch.found() == [(rule, severity)]
    told = watch.ask("list_security_events", event_type="suspicious_activity")["events"]
    assert [(row["reason"], row["severity"], row["details"]["observed"]) for row in told] == [
        (rule, severity, threshold)
    ]
    assert told[0]["user_id"] == (str(user.user_id) if subject == "user" else None)
    assert told[0]["ip_address"] == (STRANGER if subject == "address" else None)


@pytest.mark.parametrize(
    ("rule", "below", "at"), [("rapid_orders", (49, 19), (50, 19)), ("symbol_diversity", (40, 19), (40, 20))]
)
def test_orders_are_counted_by_user_and_by_symbol(
    watch: Watch, rule: str, below: tuple[int, int], at: tuple[int, int]
) -> None:
    for (orders, symbols), expected in ((below, []), (at, [rule])):
        with watch.market.owner.transaction(force_rollback=True):
            submitted(watch.market, watch.market.user(), orders, symbols)
            found = watch.market.execute("SELECT rule FROM security_measures(clock_timestamp())")
        assert [row[0] for row in found] == expected


def test_what_the_platform_submitted_is_not_the_users_haste(watch: Watch) -> None:
    with watch.market.owner.transaction(force_rollback=True):
        user = watch.market.user()
        watch.market.execute(
            "INSERT INTO order_audit_log (user_id, account_id, version, order_id, action, reason, details, "
            "previous_hash, hash, hash_version, created_at) SELECT %s, %s, n + 1000, uuidv7(), 'SUBMITTED', "
            "'Stop-out', '{}', '', '', 1, clock_timestamp() FROM generate_series(1, 60) AS n",
            (user.user_id, user.account_id),
        )
        assert watch.market.execute("SELECT rule FROM security_measures(clock_timestamp())") == []


def test_a_token_that_has_run_out_or_is_missing_is_no_attempt_to_guess_one(watch: Watch) -> None:
    watch.happened("authentication_failure|expired", 100)
    watch.happened("authentication_failure|bearer_token_required", 100)
    watch.happened(FORGED, 9)

    assert watch.found() == []


class TestEpisodes:
    def test_it_is_one_while_it_lasts(self, watch: Watch) -> None:
        # when an attack goes on over several runs
        for _ in range(4):
            watch.happened(FORGED, 10)
            watch.run("evaluate_security")
        # then it is one finding, told once, that grew
        assert watch.market.execute("SELECT count(*), max(observed) FROM security_findings") == [(1, 40)]
        assert len(watch.ask("list_security_events", event_type="suspicious_activity")["events"]) == 1

    def test_it_ends_a_window_after_it_was_last_seen_and_another_may_begin(self, watch: Watch) -> None:
        watch.happened(FORGED, 10)
        watch.run("evaluate_security")
        # given that what happened is out of the window, but the finding was seen in it
        watch.market.execute("UPDATE security_events SET occurred_at = occurred_at - interval '301 seconds'")
        assert watch.run("evaluate_security")["ended"] == 0
        # when a window has passed since
        watch.market.execute(
            "UPDATE security_findings SET started_at = started_at - interval '301 seconds', "
            "last_seen_at = last_seen_at - interval '301 seconds'"
        )
        # then it is over
        assert watch.run("evaluate_security")["ended"] == 1
        assert watch.found() == []
        watch.happened(FORGED, 10)
        assert watch.found() == [("brute_force", "high")]

    def test_what_one_run_has_no_room_for_the_next_one_finds(self, watch: Watch) -> None:
        # given five attackers, and room for two a run
        for number in range(5):
            watch.happened(FORGED, 10 + number, address=f"198.51.100.{number}")
        watch.market.execute("UPDATE security_settings SET findings_per_run_max = 2")
        opened = [watch.run("evaluate_security")["opened"] for _ in range(4)]
        watch.market.execute("UPDATE security_settings SET findings_per_run_max = 500")

        assert opened == [2, 2, 1, 0]

    def test_several_kinds_of_one_subject_are_one_step_worse(self, watch: Watch) -> None:
        # given two users with one kind each
        user, other = watch.market.user(), watch.market.user()
        watch.happened("data_access|not_found", 20, user=user)
        watch.happened("rate_limit_exceeded|user", 20, user=other)
        assert watch.found() == [("enumeration", "medium"), ("rate_limit_of_user", "medium")]
        # when the second kind is found at one of them
        watch.happened("privilege_escalation|role", 3, user=user)
        # then that one has a finding one step above the worst of them
        assert ("correlation_of_user", "critical") in watch.found()
        rows = watch.market.execute("SELECT user_id FROM security_findings WHERE rule = 'correlation_of_user'")
        assert rows == [(user.user_id,)]

    def test_how_much_somebody_does_is_one_kind(self, watch: Watch) -> None:
        user = watch.market.user()

        def correlated(*rules: str) -> list[tuple[Any, ...]]:
            find_by_hand(watch.market, user, *rules)
            return watch.market.execute("SELECT rule, observed FROM security_correlations(clock_timestamp())")

        with watch.market.owner.transaction(force_rollback=True):
            # given a busy day: many orders, in many symbols, some too many at once
            assert correlated("rapid_orders", "symbol_diversity", "rate_limit_of_user") == []
            # when it comes with something else
            assert correlated("enumeration") == [("correlation_of_user", 2)]

    def test_busy_traders_are_no_threat_and_lower_no_score(self, watch: Watch) -> None:
        market = watch.market

        def standing() -> tuple[Any, ...]:
            return market.execute("SELECT score, threats FROM security_standing()")[0]

        with market.owner.transaction(force_rollback=True):
            # given rules by which one kind is enough, and haste is severe
            market.execute("UPDATE security_rules SET threshold = 1 WHERE measure = 'findings'")
            market.execute("UPDATE security_rules SET severity = 'critical' WHERE measure = 'orders'")
            # when four traders are busy, in all ways at once
            busy = [market.user() for _ in range(4)]
            for user in busy:
                submitted(market, user, orders=50, symbols=20)
                find_by_hand(market, user, "rate_limit_of_user")
            market.execute("SELECT evaluate_security('{\"version\": 1}')")
            # then each is found, and nothing follows from it
            found = market.execute("SELECT rule, count(*) FROM security_findings GROUP BY rule ORDER BY rule")
            assert found == [("rapid_orders", 4), ("rate_limit_of_user", 4), ("symbol_diversity", 4)]
            assert standing() == (100, 0)
            # but of what was refused for what it is, also of one of them
            find_by_hand(market, busy[0], "privilege_escalation", "enumeration")
            assert standing() == (87, 1)

    def test_kinds_that_lie_apart_are_not_correlated(self, watch: Watch) -> None:
        user = watch.market.user()
        watch.happened("data_access|not_found", 20, user=user)
        watch.run("evaluate_security")
        watch.market.execute("DELETE FROM security_events")
        watch.market.execute(
            "UPDATE security_findings SET started_at = started_at - interval '1801 seconds', "
            "last_seen_at = last_seen_at - interval '1801 seconds'"
        )
        watch.happened("privilege_escalation|role", 3, user=user)

        assert watch.found() == [("privilege_escalation", "high")]


def test_a_response_that_was_made_is_not_due_again(watch: Watch) -> None:
    watch.happened(FORGED, 10)
    for outcome in ("started", "already_active"):
        (due,) = watch.run("evaluate_security")["due"]
        response = {"kind": "ip_block", "target": due["target"], "seconds": 60, "reason": "found"}
        by_rule = {"actor": "rule:brute_force", "rule": "brute_force", "finding_id": due["finding_id"]}
        assert watch.run("start_intervention", **response, **by_rule)["outcome"] == outcome
        assert watch.run("evaluate_security")["due"] == []
        # and if nobody had noted it, the block that is there would be found
        watch.market.execute("UPDATE security_findings SET intervention_id = NULL")


def test_rules_are_data(watch: Watch) -> None:
    with watch.market.owner.transaction(force_rollback=True):
        watch.market.execute("UPDATE security_rules SET threshold = 4 WHERE rule = 'brute_force'")
        watch.market.execute("UPDATE security_rules SET enabled = false WHERE rule = 'enumeration'")
        for event, occurrences in ((FORGED, 4), ("data_access|not_found", 100)):
            watch.market.execute(
                "SELECT insert_security_events(uuidv7(), jsonb_build_object(%s::text, %s::integer), '{}', 0)",
                (f"{4_000_000_000}|{event}|{STRANGER}|{uuid.uuid4()}", occurrences),
            )
        found = watch.market.execute("SELECT rule, observed FROM security_measures(clock_timestamp())")

    assert found == [("brute_force", 4)]


class TestRecording:
    def test_a_batch_that_comes_again_adds_nothing(self, watch: Watch) -> None:
        batch = {"batch_id": str(uuid.uuid4()), "counts": {f"10|{FORGED}|{STRANGER}|": 3}, "agents": {}, "lost": 5}

        recorded = [watch.run("record_security_events", **batch)["recorded"] for _ in range(2)]

        assert recorded == [2, 0]
        assert watch.market.execute("SELECT reason, occurrences FROM security_events ORDER BY reason") == [
            ("events_lost", 5),
            ("signature", 3),
        ]

    def test_what_the_database_counted_is_taken_along_and_bounded(self, watch: Watch) -> None:
        # given room for three counters, and five addresses with two failures each
        watch.market.execute("UPDATE security_settings SET counters_max = 3")
        with watch.market.database.connect("function_trader") as trader:
            for number in list(range(5)) * 2:
                request = f'{{"version": 1, "address": "198.51.100.{number}", "event": "{FORGED}", "user_agent": "x"}}'
                trader.execute("SELECT count_security_event(%s::jsonb)", (request,))
        watch.market.execute("UPDATE security_settings SET counters_max = 2000")
        # when the watch records
        answer = watch.run("record_security_events", batch_id=str(uuid.uuid4()), counts={}, agents={}, lost=0)
        # then three are there, and how many were lost is told
        assert answer["lost"] == 4
        assert watch.market.execute("SELECT sum(occurrences) FROM security_events WHERE reason = 'signature'") == [(6,)]
        assert watch.market.execute("SELECT occurrences FROM security_events WHERE reason = 'events_lost'") == [(4,)]
        assert watch.market.execute("SELECT count(*) FROM security_counters") == [(0,)]


class TestErasure:
    def rows_with(self, watch: Watch, text: str) -> list[str]:
        """The tables that hold `text` anywhere."""
        tables = watch.market.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        return [
            table
            for (table,) in tables
            if watch.market.execute(
                f"SELECT 1 FROM {table} AS t WHERE t::text LIKE '%%' || %s || '%%' LIMIT 1", (text,)
            )
        ]

    def act(self, watch: Watch, agent: str, user: User) -> None:
        """An attack with everything that comes of it, over and done."""
        second = 4_000_000_000
        watch.run(
            "record_security_events",
            batch_id=str(uuid.uuid4()),
            counts={
                f"{second}|{FORGED}|203.0.113.99|": 10,
                f"{second}|data_access|not_found|203.0.113.99|{user.user_id}": 1,
            },
            agents={f"{second}|{FORGED}|203.0.113.99|": agent},
            lost=0,
        )
        (due,) = watch.run("evaluate_security")["due"]
        started = watch.run(
            "start_intervention",
            kind="ip_block",
            target=due["target"],
            seconds=60,
            reason="found",
            actor="rule:brute_force",
            rule="brute_force",
            finding_id=due["finding_id"],
        )
        watch.undo(started["intervention"]["id"])

    @pytest.mark.parametrize("of", ["address", "age"])
    def test_no_address_and_no_agent_is_left(self, watch: Watch, of: str) -> None:
        # given an attack, and a block that came of it
        self.act(watch, "a browser of somebody", watch.market.user())
        assert self.rows_with(watch, "203.0.113.99") == ["security_pii"]
        assert self.rows_with(watch, "a browser of somebody") == ["security_pii"]
        # when it is erased
        if of == "address":
            watch.ask("erase_security_data", address="203.0.113.99")
        else:
            watch.market.execute("UPDATE security_pii SET created_at = created_at - interval '31 days'")
            watch.run("erase_security_data")
        # then nothing tells who it was, and the audit holds
        assert self.rows_with(watch, "203.0.113.99") == []
        assert self.rows_with(watch, "a browser of somebody") == []
        assert watch.market.execute("SELECT * FROM verify_audit()") == []
        (listed,) = watch.ask("list_interventions")["interventions"]
        assert (listed["kind"], listed["target"]) == ("ip_block", None)

    def test_a_users_rows_alone(self, watch: Watch) -> None:
        user = watch.market.user()
        self.act(watch, "x", user)

        assert watch.ask("erase_security_data", user_id=str(user.user_id))["erased"] == 1
        assert watch.ask("list_security_events", user_id=str(user.user_id))["events"][0]["ip_address"] is None

    def test_a_block_in_force_keeps_its_address_until_it_is_over(self, watch: Watch) -> None:
        block = watch.start("ip_block", STRANGER)["intervention"]

        assert watch.ask("erase_security_data", address=STRANGER) == {"erased": 0, "kept": 1, "events_removed": 0}
        watch.undo(block["id"])
        assert watch.ask("erase_security_data", address=STRANGER)["erased"] == 1

        # and so it is of one whose time is over, whether or not that has been noted
        watch.start("ip_block", STRANGER)
        watch.market.execute(
            "UPDATE interventions SET started_at = started_at - interval '1 h', "
            "expires_at = expires_at - interval '1 h'"
        )
        assert watch.ask("erase_security_data", address=STRANGER)["erased"] == 1

    def test_what_was_counted_and_is_no_row_yet_goes_too(self, watch: Watch) -> None:
        user, other = watch.market.user(), watch.market.user()
        _, of_address, of_other = keys = [
            f"10|{FORGED}|198.51.100.1|{user.user_id}",
            f"10|{FORGED}|{STRANGER}|",
            f"10|{FORGED}|198.51.100.1|{other.user_id}",
        ]
        for key in keys:
            watch.market.execute("INSERT INTO security_counters (key, occurrences) VALUES (%s, 1)", (key,))

        def left() -> set[str]:
            return {key for (key,) in watch.market.execute("SELECT key FROM security_counters")}

        watch.ask("erase_security_data", user_id=str(user.user_id))
        assert left() == {of_address, of_other}
        watch.ask("erase_security_data", address=STRANGER)
        assert left() == {of_other}

    def test_events_past_their_days_go(self, watch: Watch) -> None:
        watch.happened(FORGED, seconds_ago=366 * 86_400)
        watch.happened(FORGED)

        assert watch.run("erase_security_data")["events_removed"] == 1


FILTERS: dict[str, Callable[[User], dict[str, str]]] = {
    "type": lambda _user: {"event_type": "data_access"},
    "severity": lambda _user: {"severity": "medium"},
    "user": lambda user: {"user_id": str(user.user_id)},
    "address": lambda _user: {"address": "198.51.100.77"},
}


def test_events_are_listed_by_what_they_are(watch: Watch) -> None:
    user = watch.market.user()
    watch.happened(FORGED)
    watch.happened("data_access|not_found", user=watch.market.user())
    watch.happened("privilege_escalation|role", user=watch.market.user())
    watch.happened("suspicious_activity|blocked", address="198.51.100.77")
    watch.happened("authentication_failure|expired", user=user)

    def listed(**fields: object) -> list[str]:
        return [row["reason"] for row in watch.ask("list_security_events", **fields)["events"]]

    assert {name: listed(**fields(user)) for name, fields in FILTERS.items()} == {
        "type": ["not_found"],
        "severity": ["role"],
        "user": ["expired"],
        "address": ["blocked"],
    }
    newest = watch.ask("list_security_events", limit=2)["events"]
    assert [row["reason"] for row in newest] == ["expired", "blocked"]
    assert listed(before=newest[-1]["id"], limit=2) == ["role", "not_found"]
