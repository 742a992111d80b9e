"""Margin profiles that risk officers read and change over HTTP: what holds at once, what is refused, who is told."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from tests.kit import MigratedTemplate
from tests.kit.builders import User
from tests.kit.functions import Answer, bearer, call, function_environment, http_event, load_function, make_token
from tests.kit.orders import Market
from tests.kit.risk import long_eurusd, make_profile, watch_by

OFFICER_ID = UUID("01a1fc5d-0000-7000-8000-00000000cafe")
PROFILES = "/api/v1/risk/margin-profiles"
CALL = {"name": "margin_call", "action": "call", "threshold": "50", "release_percent": "105"}
STOP_OUT = {"name": "stop_out", "action": "stop_out", "threshold": "20", "release_percent": "105"}
WARNING = {"name": "warning", "action": "warn", "threshold": "100", "release_percent": "105"}
CLAIMS: dict[str, Any] = {"role": "risk_officer", "tier": "unmetered", "permissions": ["risk:write"]}


@dataclass(frozen=True)
class Api:
    """The function's handler on a database of the module's own."""

    market: Market
    handler: Any

    def profile(self, name: str) -> dict[str, Any]:
        """One of the profiles as an officer sees it."""
        answer = call(self.handler, http_event(f"GET {PROFILES}", headers=bearer(make_token(OFFICER_ID, **CLAIMS))))
        assert answer.status == 200
        return next(each for each in answer.body["data"] if each["name"] == name)

    def change(self, name: str, **body: Any) -> Answer:
        """Change a profile for a reason."""
        event = http_event(
            f"PATCH {PROFILES}/{{name}}",
            path_parameters={"name": name},
            headers=bearer(make_token(OFFICER_ID, **CLAIMS)),
            body=json.dumps({"reason": "a test"} | body),
        )
        return call(self.handler, event)

    def watched(self, user: User) -> tuple[str | None, str | None, bool]:
        """What the watch says of an account now: at which level it stands, what is due, whether it is stopped out."""
        ((found),) = self.market.execute(
            "SELECT level_name, due, stop_out_due FROM margin_levels(ARRAY[%s::uuid], clock_timestamp())",
            (user.account_id,),
        )
        return found

    def record(self, user: User) -> str:
        """What the watch makes of an account's episode."""
        request = {"version": 1, "user_id": str(user.user_id), "account_id": str(user.account_id)}
        with self.market.database.connect("function_risk") as connection:
            row = connection.execute("SELECT record_margin_call(%s) AS answer", (Jsonb(request),)).fetchone()
        assert row is not None
        return row[0]["state"]


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market:
            yield market
            assert market.book_faults() == []
    finally:
        scratch.drop()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Market, redis_url: str) -> Iterator[Api]:
    shared.prepare()
    role = "function_risk_officer"
    with function_environment(monkeypatch, tmp_path, database=shared.database, redis_url=redis_url, role=role):
        yield Api(shared, load_function("manage_risk"))


def test_levels_hold_at_the_next_look_and_stand_in_history_and_audit(api: Api) -> None:
    # given an account at 65.44 percent of margin, above every level of its profile
    user = watch_by(api.market, long_eurusd(api.market), make_profile(api.market, "tightened"))
    api.market.quote("EURUSD", "1.09526", "1.09546")
    assert api.profile("tightened")["levels"] == [CALL, STOP_OUT]
    assert api.watched(user) == (None, None, False)

    # when
    tighter = [WARNING, CALL | {"threshold": "80"}, STOP_OUT | {"threshold": "30"}]
    answer = api.change("tightened", levels=tighter, version=1, stop_out_policy="FIFO")

    # then
    assert (answer.status, answer.body["version"]) == (200, 2)
    assert answer.body["before"] == {"levels": [CALL, STOP_OUT], "stop_out_policy": "largest_loss_first"}
    assert answer.body["after"] == {"levels": tighter, "stop_out_policy": "fifo"}
    assert api.watched(user) == ("margin_call", "entered", False)
    after = api.profile("tightened")
    assert (after["levels"], after["version"], after["negative_balance_protection"]) == (tighter, 2, False)
    (change,) = after["changes"]
    assert (change["actor"], change["reason"], change["after"]) == (str(OFFICER_ID), "a test", answer.body["after"])
    (audited,) = api.market.execute(
        "SELECT action, details - 'change_id' FROM platform_audit_log WHERE details ->> 'change_id' = %s",
        (change["id"],),
    )
    told = {"terms_before": answer.body["before"], "terms_after": answer.body["after"]}
    assert audited == ("MARGIN_PROFILE_CHANGED", {"profile": "tightened", "version": 2} | told)

    # and a stop-out level above where the account stands is due at once
    levels = [{"name": "call", "action": "CALL", "threshold": 70}, STOP_OUT | {"threshold": 70.0}]
    assert api.change("tightened", levels=levels).body["after"]["levels"][0]["release_percent"] == "105"
    assert api.watched(user) == ("stop_out", "entered", True)


def test_an_open_episode_keeps_its_terms_also_when_its_level_is_gone(api: Api) -> None:
    # given one below a call at 80 percent
    levels = {"early": ("call", 80, 105), "stop_out": ("stop_out", 20, 105)}
    user = watch_by(api.market, long_eurusd(api.market), make_profile(api.market, "kept", levels=levels))
    api.market.quote("EURUSD", "1.09526", "1.09546")
    assert api.record(user) == "entered"

    # when
    assert api.change("kept", levels=[CALL | {"name": "late"}, STOP_OUT]).status == 200

    # then it is left at 84 percent, as it began, and the next one begins by the new level
    assert api.record(user) == "unchanged"
    api.market.quote("EURUSD", "1.0975", "1.0977")
    assert api.record(user) == "left"
    api.market.quote("EURUSD", "1.09526", "1.09546")
    assert api.record(user) == "unchanged"


LEVELS_THAT_DO_NOT_FIT: list[tuple[Any, str]] = [
    ([], "levels with one call and one stop_out among them"),
    ([CALL], "levels with one call and one stop_out among them"),
    ([CALL, CALL | {"name": "another"}, STOP_OUT], "levels with one call and one stop_out among them"),
    ([CALL, STOP_OUT | {"name": "margin_call"}], "levels of different names"),
    ([CALL, STOP_OUT | {"threshold": "50.000001"}], "levels whose stop_out is not above their call"),
    ([WARNING | {"threshold": "49.99"}, CALL, STOP_OUT], "levels whose call is not above a warning"),
]


def test_what_does_not_fit_is_refused_by_its_name_and_changes_nothing(api: Api) -> None:
    before = api.profile(make_profile(api.market, "stands"))

    for levels, constraint in LEVELS_THAT_DO_NOT_FIT:
        answer = api.change("stands", levels=levels)
        told = (answer.status, answer.body["details"]["field"], answer.body["details"]["constraint"])
        assert told == (400, "levels", constraint)
    for level in (
        {"threshold": "-1"},
        {"threshold": 1000.5},
        {"threshold": "0.0000001"},
        {"threshold": True},
        {"threshold": None},
        {"threshold": "NaN"},
        {"release_percent": "99.9"},
        {"release_percent": 201},
        {"name": "Margin call\x1b[31m"},
        {"name": "x" * 33},
        {"action": "close"},
        {"more": 1},
    ):
        answer = api.change("stands", levels=[CALL | level, STOP_OUT])
        assert (answer.status, answer.body["details"]["field"]) == (400, "levels"), level
    for field, value in (
        ("levels", {"margin_call": 50}),
        ("levels", [CALL] * 11),
        ("stop_out_policy", "newest_first"),
        ("negative_balance_protection", "yes"),
        ("version", 0),
        ("version", True),
        ("reason", "\x07"),
        ("description", "a better one"),
    ):
        answer = api.change("stands", **{"stop_out_policy": "fifo", field: value})
        assert (answer.status, answer.body["details"]["field"]) == (400, field), value
    same = api.change("stands", levels=[STOP_OUT, CALL], negative_balance_protection=False)
    assert (same.status, same.body["error"]) == (400, "VALIDATION_FAILED")
    borrows_nothing = api.change("cash", levels=[CALL, STOP_OUT]).body["details"]["constraint"]
    assert borrows_nothing == "empty: cash accounts borrow nothing"
    assert api.change("no_such", stop_out_policy="fifo").status == 404
    for name in ("\0", "x" * 101):
        assert api.change(name, stop_out_policy="fifo").status == 400

    assert api.profile("stands") == before


def test_of_twenty_officers_who_saw_the_same_version_one_changes_it(api: Api) -> None:
    make_profile(api.market, "raced")

    def change(number: int) -> dict[str, Any]:
        request = {
            "version": 1,
            "profile": "raced",
            "known_version": 1,
            "levels": [CALL | {"threshold": 60 + number}, STOP_OUT],
            "reason": "a race",
            "actor": "officer",
            "idempotency_key": f"race-{number}",
            "request_hash": str(number),
        }
        with api.market.database.connect("function_risk_officer") as connection:
            try:
                row = connection.execute("SELECT change_margin_profile(%s)", (Jsonb(request),)).fetchone()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
                return {"outcome": getattr(error, "sqlstate", repr(error))}
        assert row is not None
        return row[0]

    with ThreadPoolExecutor(5) as callers:
        outcomes = list(callers.map(change, range(20)))

    assert Counter(each["outcome"] for each in outcomes) == {"changed": 1, "TR010": 19}
    (winner,) = (each for each in outcomes if each["outcome"] == "changed")
    after = api.profile("raced")
    assert (after["levels"], after["version"]) == (winner["after"]["levels"], 2)


def test_a_repeat_is_answered_again_and_another_request_under_its_key_is_not(api: Api) -> None:
    make_profile(api.market, "repeated")

    first = api.change("repeated", negative_balance_protection=True, idempotency_key="once")
    again = api.change("repeated", negative_balance_protection=True, idempotency_key="once")
    other = api.change("repeated", negative_balance_protection=False, idempotency_key="once")

    assert (first.status, first.headers.get("Idempotency-Replayed")) == (200, None)
    assert (again.status, again.headers["Idempotency-Replayed"], again.body) == (200, "true", first.body)
    assert (other.status, other.body["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert api.profile("repeated")["version"] == 2


def test_terms_that_no_change_made_are_found(api: Api) -> None:
    make_profile(api.market, "found")
    assert api.change("found", levels=[CALL | {"threshold": 60}, STOP_OUT], stop_out_policy="fifo").status == 200
    assert api.market.book_faults() == []

    for statement in (
        "UPDATE margin_profile_levels SET threshold = 61 WHERE profile = 'found' AND action = 'call'",
        "DELETE FROM margin_profile_levels WHERE profile = 'found' AND action = 'call'",
        "UPDATE margin_profiles SET stop_out_policy = 'largest_loss_first' WHERE name = 'found'",
        "UPDATE margin_profiles SET version = 3 WHERE name = 'found'",
        "UPDATE margin_profile_changes SET before = '{}' WHERE profile = 'found'",
        "DELETE FROM margin_profile_changes WHERE profile = 'found'",
    ):
        with api.market.owner.transaction(force_rollback=True):
            api.market.execute(statement)

            assert api.market.book_faults() != [], statement
