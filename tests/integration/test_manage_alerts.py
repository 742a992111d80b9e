"""Alerts over HTTP: seen, taken on and ended by whoever is on call."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.kit import MigratedTemplate
from tests.kit.alerts import AlertWorld
from tests.kit.functions import Answer, bearer, call, function_environment, http_event, load_function, make_token

ALERTS = "/api/v1/risk/alerts"
ON_CALL = UUID("01a1fc5d-0000-7000-8000-00000000d0d0")


@dataclass(frozen=True)
class Api:
    """The function's handler on a world with one critical alert and one warning."""

    world: AlertWorld
    handler: Any

    def ask(
        self,
        route: str,
        alert_id: object = None,
        body: dict[str, object] | None = None,
        *,
        query: dict[str, str] | None = None,
        key: str | None = None,
    ) -> Answer:
        claims: dict[str, Any] = {"role": "on_call", "tier": "unmetered", "permissions": ["alerts:write"]}
        event = http_event(
            route,
            path_parameters={"id": str(alert_id)} if alert_id else None,
            query=query,
            headers=bearer(make_token(ON_CALL, **claims)) | ({"idempotency-key": key} if key else {}),
            body=None if body is None else json.dumps(body),
        )
        return call(self.handler, event)

    def listed(self, **query: str) -> list[dict[str, Any]]:
        answer = self.ask(f"GET {ALERTS}", query=query)
        assert answer.status == 200, answer.text
        return answer.body["data"]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, migrated: MigratedTemplate, redis_url: str) -> Iterator[Api]:
    with AlertWorld.opened(migrated) as world:
        world.market.execute("UPDATE margin_scan SET updated_at = clock_timestamp() - interval '10 minutes'")
        world.only("MARGIN_WATCH_SILENT", "COLLECTOR_FAILED")
        world.evaluate(collectors={"prices": _broken})
        with function_environment(
            monkeypatch, tmp_path, database=world.market.database, redis_url=redis_url, role="function_incidents"
        ):
            yield Api(world, load_function("manage_incidents"))
        assert world.market.book_faults() == []


def _broken(_windows: object, _at: object) -> list[Any]:
    raise RuntimeError("no figures today")


def test_they_are_listed_by_state_and_severity_in_pages(api: Api) -> None:
    assert {alert["rule"] for alert in api.listed()} == {"MARGIN_WATCH_SILENT", "COLLECTOR_FAILED"}
    (critical,) = api.listed(severity="CRITICAL", state="open")
    assert (critical["rule"], critical["state"], critical["runbook"]) == (
        "MARGIN_WATCH_SILENT",
        "open",
        "stop-out-failure",
    )
    assert api.listed(state="resolved") == []

    first = api.ask(f"GET {ALERTS}", query={"limit": "1"}).body
    second = api.ask(f"GET {ALERTS}", query={"limit": "1", "cursor": first["next_cursor"]}).body
    assert second["next_cursor"] is None
    assert {first["data"][0]["rule"], second["data"][0]["rule"]} == {"MARGIN_WATCH_SILENT", "COLLECTOR_FAILED"}


@pytest.mark.parametrize(
    ("query", "field"),
    [({"state": "on fire"}, "state"), ({"severity": "high"}, "severity"), ({"cursor": "x"}, "cursor")],
)
def test_a_filter_that_does_not_fit_is_named(api: Api, query: dict[str, str], field: str) -> None:
    answer = api.ask(f"GET {ALERTS}", query=query)

    assert (answer.status, answer.body["error"], answer.body["details"]["field"]) == (400, "VALIDATION_FAILED", field)


def test_one_is_taken_on_and_ended_and_the_incident_tells_it(api: Api) -> None:
    (critical,) = api.listed(severity="critical")

    # when it is acknowledged, then again by the same key, then by another
    taken = api.ask(f"POST {ALERTS}/{{id}}/acknowledge", critical["id"], {"note": " looking "}, key="one")
    again = api.ask(f"POST {ALERTS}/{{id}}/acknowledge", critical["id"], {"note": " looking "}, key="one")
    other = api.ask(f"POST {ALERTS}/{{id}}/acknowledge", critical["id"])
    assert (taken.status, taken.body["state"], taken.body["note"]) == (200, "acknowledged", "looking")
    assert taken.body["acknowledged_by"] == str(ON_CALL)
    assert (again.text, again.headers["Idempotency-Replayed"]) == (taken.text, "true")
    assert other.body == taken.body
    # and resolved
    ended = api.ask(f"POST {ALERTS}/{{id}}/resolve", critical["id"], {"note": "the schedule was off"})
    assert (ended.status, ended.body["state"], ended.body["resolved_by"]) == (200, "resolved", str(ON_CALL))

    # then the incident has all of it, and so has the audit
    incident = api.ask("GET /api/v1/risk/incidents/{id}", critical["incident_id"]).body
    assert datetime.fromisoformat(incident["closed_at"]) <= datetime.now(UTC)
    told = [(event["kind"], event["actor"]) for event in incident["timeline"] if event["kind"] != "notified"]
    assert told == [("opened", "platform"), ("acknowledged", str(ON_CALL)), ("resolved", str(ON_CALL))]
    audit = api.world.market.execute(
        "SELECT action, actor, reason FROM platform_audit_log WHERE actor <> 'platform' ORDER BY version"
    )
    assert audit == [
        ("ALERT_ACKNOWLEDGED", str(ON_CALL), "looking"),
        ("ALERT_RESOLVED", str(ON_CALL), "the schedule was off"),
    ]


def test_what_cannot_be_done_says_why(api: Api) -> None:
    alert_id = api.listed(severity="warning")[0]["id"]
    resolve = f"POST {ALERTS}/{{id}}/resolve"

    def told(answer: Answer) -> tuple[int, str, str | None]:
        return answer.status, answer.body["error"], answer.body["details"].get("field")

    assert told(api.ask(resolve, alert_id, {})) == (400, "VALIDATION_FAILED", "note")
    assert told(api.ask(resolve, alert_id, {"note": "  "})) == (400, "VALIDATION_FAILED", "note")
    assert told(api.ask(resolve, alert_id, {"note": "x" * 1001})) == (400, "VALIDATION_FAILED", "note")
    assert told(api.ask(resolve, alert_id, {"note": "x", "by": "me"})) == (400, "VALIDATION_FAILED", "by")
    assert told(api.ask(resolve, "nothing", {"note": "x"})) == (400, "VALIDATION_FAILED", "id")
    assert told(api.ask(resolve, uuid4(), {"note": "x"})) == (404, "NOT_FOUND", "id")
    assert told(api.ask("GET /api/v1/risk/incidents/{id}", uuid4())) == (404, "NOT_FOUND", "id")
    assert api.ask(resolve, alert_id, {"note": "x"}, key="k").status == 200
    assert told(api.ask(resolve, alert_id, {"note": "y"}, key="k")) == (
        422,
        "IDEMPOTENCY_KEY_REUSED",
        "idempotency_key",
    )
    assert told(api.ask(resolve, alert_id, {"note": "x"})) == (409, "CONFLICT", "id")
