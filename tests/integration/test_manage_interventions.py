"""What officers do over HTTP: interventions started, listed and taken back, and the events of the edge read."""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.kit import MigratedTemplate
from tests.kit.builders import order_body
from tests.kit.functions import (
    SOURCE_IP,
    Answer,
    Context,
    bearer,
    call,
    function_environment,
    http_event,
    load_function,
    make_token,
)
from tests.kit.security import OFFICER_ID, STRANGER, Watch
from trading import queue
from trading.edge.intervention_dialects import EVENT_TYPES, KINDS

INTERVENTIONS = "/api/v1/risk/interventions"
CLAIMS: dict[str, Any] = {
    "role": "risk_officer",
    "tier": "unmetered",
    "permissions": ["interventions:write", "security:read"],
}
BLOCK: dict[str, object] = {"kind": "ip_block", "target": STRANGER, "seconds": 600, "reason": "a test"}


@dataclass(frozen=True)
class Api:
    """Functions on a database of the module's own, each called with the login role that it has."""

    watch: Watch
    monkeypatch: pytest.MonkeyPatch
    folder: Path
    redis_url: str

    def ask(
        self,
        route: str,
        body: dict[str, object] | None = None,
        *,
        intervention: object = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        **claims: Any,
    ) -> Answer:
        event = http_event(
            route,
            path_parameters={"id": str(intervention)} if intervention else None,
            query=query,
            headers=bearer(make_token(OFFICER_ID, **(CLAIMS | claims))) | (headers or {}),
            body=None if body is None else json.dumps(body),
        )
        return self.call("manage_incidents", "function_incidents", event)

    def order(self, route: str, source_ip: str = SOURCE_IP) -> Answer:
        user = self.watch.market.user()
        event = http_event(route, headers=bearer(make_token(user)), body=json.dumps(order_body()), source_ip=source_ip)
        return self.call("execute_order", "function_trader", event)

    def read_orders(self) -> Answer:
        user = self.watch.market.user()
        event = http_event("GET /api/v1/orders", headers=bearer(make_token(user)))
        return self.call("manage_orders", "function_trader", event)

    def call(self, function: str, role: str, event: dict[str, Any]) -> Answer:
        with function_environment(
            self.monkeypatch, self.folder, database=self.watch.market.database, redis_url=self.redis_url, role=role
        ):
            return call(load_function(function), event)

    def run(self) -> dict[str, Any]:
        """One run of the scheduled function."""
        database = self.watch.market.database
        with function_environment(
            self.monkeypatch, self.folder, database=database, redis_url=self.redis_url, role="function_security"
        ):
            return load_function("security_watch")({}, Context())


@pytest.fixture(scope="module")
def opened(migrated: MigratedTemplate) -> Iterator[Watch]:
    with Watch.opened(migrated) as watch:
        yield watch


@pytest.fixture
def api(opened: Watch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str) -> Api:
    opened.forget()
    opened.market.prepare()
    return Api(opened, monkeypatch, tmp_path, redis_url)


def test_a_block_is_started_listed_and_taken_back(api: Api) -> None:
    # when an officer blocks an address
    started = api.ask(f"POST {INTERVENTIONS}", BLOCK)

    # then that address is refused at once, and others are not
    assert started.status == 201
    assert (started.body["kind"], started.body["target"], started.body["state"]) == ("ip_block", STRANGER, "active")
    assert started.body["actor"] == str(OFFICER_ID)
    for route, code in (
        ("POST /functions/v1/execute-order", lambda body: body["error"]["code"]),
        ("POST /api/v1/orders", lambda body: body["error"]),
    ):
        refused = api.order(route, STRANGER)
        assert (refused.status, code(refused.body)) == (403, "IP_BLOCKED")
        assert api.order(route).status in {200, 201}
    # and it is listed, and not started twice
    assert api.ask(f"GET {INTERVENTIONS}", query={"state": "active"}).body["data"] == [started.body]
    again = api.ask(f"POST {INTERVENTIONS}", BLOCK)
    assert (again.status, again.body) == (200, started.body)
    # when it is taken back
    undone = api.ask(f"DELETE {INTERVENTIONS}/{{id}}", {"reason": "over"}, intervention=started.body["id"])
    # then it is over at once, and a repeat says so
    assert (undone.status, undone.body["state"], undone.body["undo_reason"]) == (200, "undone", "over")
    assert api.ask(f"DELETE {INTERVENTIONS}/{{id}}", intervention=started.body["id"]).body == undone.body
    assert api.order("POST /functions/v1/execute-order", STRANGER).status == 200
    assert api.ask(f"GET {INTERVENTIONS}", query={"state": "over", "kind": "ip_block"}).body["data"] == [undone.body]


def test_maintenance_over_both_apis(api: Api) -> None:
    closed = api.ask(f"POST {INTERVENTIONS}", {"kind": "maintenance", "seconds": 900, "reason": "a test"})
    assert closed.status == 201
    for route in ("POST /functions/v1/execute-order", "POST /api/v1/orders"):
        refused = api.order(route)
        assert refused.status == 503
        assert "MAINTENANCE" in refused.text
        assert 1 <= int(refused.headers["Retry-After"]) <= 300
    # what is read is still read, and who can end it is let in
    assert api.read_orders().status == 200
    assert api.ask(f"GET {INTERVENTIONS}").status == 200
    assert api.ask(f"DELETE {INTERVENTIONS}/{{id}}", intervention=closed.body["id"]).status == 200
    assert api.order("POST /api/v1/orders").status == 201


def test_a_suspension(api: Api) -> None:
    user = api.watch.market.user()
    told: list[UUID] = []
    api.monkeypatch.setattr(queue, "notify_relay", lambda account_id, _request_id: told.append(account_id))
    body: dict[str, object] = {"kind": "account_suspension", "target": str(user.account_id), "seconds": 60}
    started = api.ask(f"POST {INTERVENTIONS}", body | {"reason": "a test"}, role="operator")
    assert (started.status, started.body["outcome"]) == (201, {"before": "active"})
    assert api.watch.market.trade(user)["code"] == "ACCOUNT_NOT_ACTIVE"
    assert api.ask(f"DELETE {INTERVENTIONS}/{{id}}", intervention=started.body["id"]).status == 200
    assert api.watch.market.trade(user)["outcome"] == "filled"
    # and its owner hears of both at once
    assert told == [user.account_id] * 2
    # an account that is closed cannot be suspended, nor one that is not there
    closed = api.watch.market.user(status="closed")
    for target, status, code in ((closed.account_id, 409, "CONFLICT"), (uuid.uuid4(), 404, "NOT_FOUND")):
        refused = api.ask(f"POST {INTERVENTIONS}", body | {"target": str(target), "reason": "a test"})
        assert (refused.status, refused.body["error"]) == (status, code)


def test_what_could_do_nothing_is_refused_and_says_what_to_do(api: Api) -> None:
    def start(body: Mapping[str, object], **configured: str) -> tuple[int, str, str]:
        for name in ("ALERT_CONCURRENCY_MAX", "QUOTE_STANDBY_PROVIDER", "QUOTE_REPLAY_FILE"):
            api.monkeypatch.setenv(name, configured.get(name, ""))
        answer = api.ask(f"POST {INTERVENTIONS}", {"seconds": 60, "reason": "a test", **body})
        return answer.status, answer.body.get("error", ""), answer.body.get("message", "")

    def provider(name: object, **configured: str) -> tuple[int, str, str]:
        body = {"kind": "price_provider", "target": "quotes", "parameters": {"provider": name}}
        return start(body, **configured)

    def copies(number: object, target: str = "execute_order", most: str = "60") -> tuple[int, str, str]:
        body = {"kind": "reserved_concurrency", "target": target, "parameters": {"concurrency": number}}
        return start(body, ALERT_CONCURRENCY_MAX=most)

    replay = {"QUOTE_STANDBY_PROVIDER": "replay", "QUOTE_REPLAY_FILE": "ticks.csv"}
    for refused, status, said in (
        (copies(50, "execute-order"), 400, "execute_order"),
        (copies(61), 400, "1 to 60"),
        (copies("many"), 400, "1 to 60"),
        (copies(50, most=""), 409, "AlertConcurrencyMax"),
        (provider("replay"), 409, "QuoteStandbyProvider"),
        (provider("replay", QUOTE_STANDBY_PROVIDER="simulated"), 409, "QuoteStandbyProvider"),
        (provider("replay", QUOTE_STANDBY_PROVIDER="replay"), 409, "QuoteReplayFile"),
        (provider("simulated", **replay), 409, "DELETE"),
        (provider("another", **replay), 400, "provider: replay"),
        (start({"kind": "price_provider", "target": "quotes"}, **replay), 400, "provider: replay"),
        (start({"kind": "price_provider", "target": "prices", "parameters": {}}, **replay), 400, "quotes"),
    ):
        assert refused[:2] == (status, {400: "VALIDATION_FAILED", 409: "CONFLICT"}[status]), refused
        assert said in refused[2]
    assert api.watch.ask("list_interventions")["interventions"] == []
    # what can be carried out is begun, and one that would do something else is not taken for it
    assert (copies(50)[0], copies(50)[0], provider("replay", **replay)[0]) == (201, 200, 201)
    assert copies(40)[:2] == (409, "CONFLICT")
    assert "DELETE /api/v1/risk/interventions/" in copies(40)[2]
    quiet = {"kind": "maintenance"}
    assert (start(quiet)[0], start(quiet | {"parameters": {"level": "reducing"}})[0]) == (201, 200)
    assert start(quiet | {"parameters": {"level": "full"}})[:2] == (409, "CONFLICT")


def test_a_key_is_answered_once(api: Api) -> None:
    keyed = BLOCK | {"idempotency_key": str(uuid.uuid4())}
    first = api.ask(f"POST {INTERVENTIONS}", keyed)
    api.ask(f"DELETE {INTERVENTIONS}/{{id}}", intervention=first.body["id"])

    again = api.ask(f"POST {INTERVENTIONS}", keyed)
    other = api.ask(f"POST {INTERVENTIONS}", keyed | {"seconds": 601})

    assert (again.status, again.text) == (first.status, first.text)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (other.status, other.body["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert api.ask(f"GET {INTERVENTIONS}", query={"state": "active"}).body["data"] == []


REFUSED: list[tuple[str, dict[str, object]]] = [
    ("kind", {"kind": "reboot"}),
    ("kind", {"kind": None}),
    ("seconds", {"seconds": 0}),
    ("seconds", {"seconds": "600"}),
    ("seconds", {"seconds": 2_592_001}),
    ("seconds", {"kind": "maintenance", "seconds": 14_401}),
    ("target", {"target": 7}),
    ("target", {"target": "203.0.113.0/24"}),
    ("target", {"target": None}),
    ("parameters", {"parameters": [1]}),
    ("reason", {"reason": " "}),
    ("forever", {"forever": True}),
]


def test_what_does_not_fit_is_named(api: Api) -> None:
    for field, change in REFUSED:
        refused = api.ask(f"POST {INTERVENTIONS}", BLOCK | change)

        assert (refused.status, refused.body["error"]) == (400, "VALIDATION_FAILED"), (change, refused.text)
        assert refused.body["details"]["field"] == field, (change, refused.text)
    own = api.ask(f"POST {INTERVENTIONS}", BLOCK | {"target": SOURCE_IP})
    assert (own.status, own.body["error"]) == (403, "FORBIDDEN")
    for query in ({"state": "ended"}, {"kind": "reboot"}, {"limit": "0"}, {"cursor": "x"}):
        assert api.ask(f"GET {INTERVENTIONS}", query=query).status == 400
    for query in ({"event_type": "x"}, {"severity": "x"}, {"user_id": "x"}, {"address": "x"}):
        assert api.ask("GET /api/v1/risk/security-events", query=query).status == 400
    for reason in (7, "\x07"):
        assert api.ask(f"DELETE {INTERVENTIONS}/{{id}}", {"reason": reason}, intervention=uuid.uuid4()).status == 400
    assert api.ask(f"DELETE {INTERVENTIONS}/{{id}}", intervention=uuid.uuid4()).status == 404
    assert api.ask(f"DELETE {INTERVENTIONS}/{{id}}", intervention="x").status == 400
    assert api.ask(f"GET {INTERVENTIONS}").body == {"data": [], "next_cursor": None}


def test_events_are_read_in_pages_with_whom_they_came_from(api: Api) -> None:
    user = api.watch.market.user()
    api.watch.happened("authentication_failure|signature", 4)
    api.watch.happened("data_access|not_found", user=user)
    # an attempt on this very route is one of them
    assert api.ask("GET /api/v1/risk/security-events", role="trader").status == 403
    assert api.run()["recorded"] == 1

    first = api.ask("GET /api/v1/risk/security-events", query={"limit": "2"}).body
    rest = api.ask("GET /api/v1/risk/security-events", query={"limit": "2", "cursor": first["next_cursor"]}).body

    assert [row["event_type"] for row in first["data"]] == ["privilege_escalation", "data_access"]
    assert [row["reason"] for row in rest["data"]] == ["signature"]
    assert rest["next_cursor"] is None
    assert (rest["data"][0]["ip_address"], rest["data"][0]["occurrences"]) == (STRANGER, 4)
    assert (first["data"][0]["user_id"], first["data"][0]["user_agent"]) == (str(OFFICER_ID), "tests")
    mine = api.ask("GET /api/v1/risk/security-events", query={"user_id": str(user.user_id)}).body["data"]
    assert [row["reason"] for row in mine] == ["not_found"]


RULES, NETWORKS = "/api/v1/risk/security-rules", "/api/v1/risk/never-blocked"


def test_a_rule_is_changed_for_the_next_run_and_told_in_the_audit(api: Api) -> None:
    def change(rule: str, body: Mapping[str, object], **claims: Any) -> Answer:
        event = http_event(
            f"PATCH {RULES}/{{rule}}",
            path_parameters={"rule": rule},
            headers=bearer(make_token(OFFICER_ID, **(CLAIMS | claims))),
            body=json.dumps({"reason": "a test", **body}),
        )
        return api.call("manage_incidents", "function_incidents", event)

    before = {row["rule"]: row for row in api.ask(f"GET {RULES}").body["data"]}
    assert len(before) == 9
    # when it takes two bad tokens only, for five minutes, then two are found
    changed = change("brute_force", {"threshold": 2, "response_seconds": 300})
    assert (changed.status, changed.body) == (200, before["brute_force"] | {"threshold": 2, "response_seconds": 300})
    api.watch.happened("authentication_failure|signature", 2)
    assert api.watch.found() == [("brute_force", "high")]
    # and a repeat changes nothing, nor is it audited again
    assert change("brute_force", {"threshold": 2}).body == changed.body
    told = [row for row in api.watch.platform_audit() if row["action"] == "SECURITY_RULE_CHANGED"]
    assert [(row["actor"], row["details"]["before"]["threshold"]) for row in told] == [(str(OFFICER_ID), 10)]
    # what else there is to change is kept as well
    terms: dict[str, object] = {"enabled": False, "severity": "critical", "window_seconds": 60}
    assert change("enumeration", terms).body == before["enumeration"] | terms
    listed = {row["rule"]: row for row in api.ask(f"GET {RULES}").body["data"]}
    assert listed == before | {"brute_force": changed.body, "enumeration": before["enumeration"] | terms}
    assert change("enumeration", {name: before["enumeration"][name] for name in terms}).status == 200
    # a response goes with its seconds, and comes with them
    assert change("brute_force", {"response": None}).body["response_seconds"] is None
    assert change("brute_force", {"response": "IP_BLOCK", "response_seconds": 60}).body["response"] == "ip_block"
    unfitting: list[tuple[str, dict[str, object]]] = [
        ("threshold", {}),
        ("threshold", {"threshold": 0}),
        ("threshold", {"threshold": "7"}),
        ("window_seconds", {"window_seconds": 86_401}),
        ("severity", {"severity": "grave"}),
        ("enabled", {"enabled": "no"}),
        ("response", {"response": "account_suspension"}),
        ("response_seconds", {"response_seconds": 0}),
        ("rule", {"rule": "mine"}),
        ("reason", {"threshold": 3, "reason": " "}),
    ]
    for field, body in unfitting:
        refused = change("brute_force", body)
        assert (refused.status, refused.body["details"]["field"]) == (400, field), (body, refused.text)
    assert change("mine", {"threshold": 3}).status == 404
    assert change("\0", {"threshold": 3}).status == 400
    assert change("brute_force", {"threshold": 3}, role="on_call").status == 403
    back = {name: before["brute_force"][name] for name in ("threshold", "response", "response_seconds")}
    assert change("brute_force", back).status == 200


def test_a_network_is_never_blocked_from_the_moment_that_an_officer_says_so(api: Api) -> None:
    api.ask(f"POST {INTERVENTIONS}", BLOCK)
    assert api.order("POST /api/v1/orders", STRANGER).status == 403
    office: dict[str, object] = {"network": "198.51.100.0/24", "reason": "our office"}

    # when, then who is blocked in it is free at once, and nobody in it can be blocked
    added = api.ask(f"POST {NETWORKS}", office)
    assert [(row["network"], row["added_by"]) for row in added.body["data"]] == [("198.51.100.0/24", str(OFFICER_ID))]
    assert api.ask(f"POST {NETWORKS}", office).body == added.body == api.ask(f"GET {NETWORKS}").body
    assert api.order("POST /api/v1/orders", STRANGER).status == 201
    assert api.ask(f"POST {INTERVENTIONS}", BLOCK | {"target": "198.51.100.10"}).body["details"]["field"] == "target"
    # when it is taken away, the block binds again
    assert api.ask(f"DELETE {NETWORKS}", office).body["data"] == []
    assert api.order("POST /api/v1/orders", STRANGER).status == 403
    told = [row["details"]["action"] for row in api.watch.platform_audit() if row["action"] == "NEVER_BLOCKED_CHANGED"]
    assert told == ["add", "remove"]
    # and not half of the internet
    for network in ("0.0.0.0/0", "10.0.0.0/8", "::/0", "2001:db8::/31", "198.51.100.9/24", "an office", ""):
        refused = api.ask(f"POST {NETWORKS}", office | {"network": network})
        assert (refused.status, refused.body["details"]["field"]) == (400, "network"), refused.text
    for network in ("10.1.0.0/16", "2001:db8::/32", "203.0.113.7"):
        assert api.ask(f"POST {NETWORKS}", office | {"network": network}).status == 200


def test_the_words_of_the_api_are_those_of_the_tables(api: Api) -> None:
    for table, column, words in (("interventions", "kind", KINDS), ("security_events", "event_type", EVENT_TYPES)):
        ((check,),) = api.watch.market.execute(
            "SELECT string_agg(pg_get_constraintdef(oid), ' ') FROM pg_constraint WHERE conrelid = %s::regclass "
            "AND contype = 'c'",
            (table,),
        )
        assert column in check
        assert all(f"'{word}'" in check for word in words)
