"""The gate: which refusal comes first, what each request costs, and what a caller is told."""

import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
import redis

from tests.kit import ScratchDatabase
from tests.kit.functions import (
    CSRF_SECRET,
    JWT_SECRET,
    Answer,
    bearer,
    call,
    claims_of,
    function_environment,
    http_event,
    make_token,
)
from trading.edge.csrf import LIFETIME, make_csrf_token
from trading.edge.gate import Caller, admit
from trading.edge.http import Request, Response, http_handler

IP_LIMIT = 30


class Door:
    """A route behind the gate, and who came through."""

    def __init__(self) -> None:
        self.admitted: list[Caller] = []
        self.handler = http_handler({"GET /functions/v1/door": self._read, "POST /functions/v1/door": self._change})

    def _read(self, request: Request) -> Response:
        self.admitted.append(admit(request, route_group="read", state_changing=False, permission=None))
        return Response()

    def _change(self, request: Request) -> Response:
        self.admitted.append(admit(request, route_group="orders", state_changing=True, permission="orders:write"))
        return Response()

    def get(self, headers: dict[str, str] | None = None, source_ip: str = "203.0.113.7") -> Answer:
        return call(self.handler, http_event("GET /functions/v1/door", headers=headers, source_ip=source_ip))

    def post(self, headers: dict[str, str] | None = None, source_ip: str = "203.0.113.7") -> Answer:
        return call(self.handler, http_event("POST /functions/v1/door", headers=headers, source_ip=source_ip))


@pytest.fixture
def environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str, database: ScratchDatabase
) -> Iterator[None]:
    with function_environment(
        monkeypatch, tmp_path, database=database, redis_url=redis_url, IP_REQUESTS_PER_MINUTE=str(IP_LIMIT)
    ):
        yield


@pytest.fixture
def without_redis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: ScratchDatabase) -> Iterator[None]:
    with function_environment(monkeypatch, tmp_path, database=database):
        yield


@pytest.fixture
def door() -> Door:
    return Door()


def code_of(answer: Answer) -> str | None:
    return None if answer.status == 200 else answer.body["error"]["code"]


@pytest.mark.usefixtures("environment")
def test_a_caller_is_known_by_the_token(door: Door) -> None:
    user_id = uuid.uuid4()

    answer = door.post(bearer(make_token(user_id, tier="silver", email="a@b.example")))

    assert answer.status == 200
    caller = door.admitted[0]
    assert (caller.user_id, caller.tier, caller.email) == (user_id, "silver", "a@b.example")
    assert caller.relay_awake is False


@pytest.mark.usefixtures("environment")
def test_the_eleventh_call_of_a_bronze_user_is_refused_with_all_headers(door: Door) -> None:
    headers = bearer(make_token(tier="bronze"))
    before = int(time.time())

    taken = [door.post(headers) for _ in range(10)]
    refused = door.post(headers)

    assert [answer.headers["X-RateLimit-Remaining"] for answer in taken] == [str(left) for left in range(9, -1, -1)]
    assert (refused.status, code_of(refused)) == (429, "RATE_LIMIT_EXCEEDED")
    assert refused.headers["X-RateLimit-Limit"] == "10"
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    retry_after = int(refused.headers["Retry-After"])
    assert 55 <= retry_after <= 60
    assert before + 59 <= int(refused.headers["X-RateLimit-Reset"]) <= before + 66
    assert refused.body["context"]["retryAfter"] == retry_after
    assert len(door.admitted) == 10


@pytest.mark.usefixtures("environment")
def test_groups_of_routes_are_counted_apart_and_a_new_tier_starts_no_new_count(door: Door) -> None:
    user_id = uuid.uuid4()
    for _ in range(10):
        door.post(bearer(make_token(user_id, tier="bronze")))

    assert door.get(bearer(make_token(user_id, tier="bronze"))).status == 200
    promoted = door.post(bearer(make_token(user_id, tier="silver")))
    assert (promoted.status, promoted.headers["X-RateLimit-Remaining"]) == (200, "9")


@pytest.mark.usefixtures("environment")
def test_an_unmetered_caller_is_counted_by_address_alone(door: Door) -> None:
    headers = bearer(make_token(tier="unmetered"))

    answers = [door.post(headers) for _ in range(IP_LIMIT + 1)]

    assert [answer.status for answer in answers] == [200] * IP_LIMIT + [429]
    assert "X-RateLimit-Limit" not in answers[0].headers


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("setting", ["false", ""])
def test_where_it_is_not_allowed_an_unmetered_caller_is_nobody(
    door: Door, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("ALLOW_UNMETERED_TIER", setting)

    answer = door.post(bearer(make_token(tier="unmetered")))

    assert (answer.status, code_of(answer)) == (401, "UNAUTHENTICATED")


@pytest.mark.usefixtures("environment")
def test_the_refusals_come_in_their_order(door: Door) -> None:
    # given a caller at the limit, without the right CSRF token
    spent = bearer(make_token(uuid.uuid4(), tier="bronze", sid="s"))

    # then: CSRF is looked at last, yet such a request counts
    assert [code_of(door.post(spent)) for _ in range(11)] == ["CSRF_FAILED"] * 10 + ["RATE_LIMIT_EXCEEDED"]

    # a bad token comes before the user's limit, and counts for the address
    assert code_of(door.post({"authorization": "Bearer forged"})) == "UNAUTHENTICATED"
    for _ in range(IP_LIMIT - 12):
        assert code_of(door.post()) == "UNAUTHENTICATED"

    # the address comes first of all
    for headers in (None, {"authorization": "Bearer forged"}, spent, bearer(make_token())):
        refused = door.post(headers)
        assert (refused.status, refused.headers["X-RateLimit-Limit"]) == (429, str(IP_LIMIT))
    assert code_of(door.post(bearer(make_token()), source_ip="203.0.113.8")) is None


@pytest.mark.usefixtures("environment")
def test_a_request_costs_one_round_trip_to_redis(door: Door, redis_url: str) -> None:
    headers = bearer(make_token())
    door.post(headers)

    with redis.Redis.from_url(redis_url) as server:
        before: Any = server.info("commandstats")
        door.post(headers)
        after: Any = server.info("commandstats")

    # Commands inside the script are counted too; from outside there comes one EVALSHA.
    assert after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"] == 1
    assert {name for name in after if after[name]["calls"] != before.get(name, {"calls": 0})["calls"]} <= {
        "cmdstat_evalsha",
        "cmdstat_info",
        "cmdstat_time",
        "cmdstat_exists",
        "cmdstat_hmget",
        "cmdstat_lindex",
        "cmdstat_llen",
        "cmdstat_rpush",
        "cmdstat_pexpire",
    }


@pytest.mark.usefixtures("environment")
def test_the_relay_state_comes_along(door: Door, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as server:
        server.set("relay:awake", "1", px=10_000)

    door.post(bearer(make_token()))

    assert door.admitted[0].relay_awake is True


@pytest.mark.usefixtures("without_redis")
def test_without_redis_the_limits_hold_as_exactly(door: Door) -> None:
    headers = bearer(make_token(tier="bronze"))

    answers = [door.post(headers) for _ in range(11)]

    assert [answer.status for answer in answers] == [200] * 10 + [429]
    assert answers[9].headers["X-RateLimit-Remaining"] == "0"
    assert 55 <= int(answers[10].headers["Retry-After"]) <= 60


def test_with_both_stores_gone_nobody_is_let_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, door: Door) -> None:
    with function_environment(monkeypatch, tmp_path):
        answer = door.post(bearer(make_token()))

    assert (answer.status, code_of(answer)) == (503, "DATABASE_UNAVAILABLE")
    assert answer.headers["Retry-After"]
    assert door.admitted == []


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("make", "constraint"),
    [
        (dict, "Bearer token required"),
        (lambda: {"authorization": "Basic dXNlcjpwYXNz"}, "Bearer token required"),
        (lambda: bearer(jwt.encode(claims_of(), key="", algorithm="none")), "signature"),
        (lambda: bearer(jwt.encode(claims_of(), "x" * 40, algorithm="HS256")), "signature"),
        (lambda: bearer(jwt.encode(claims_of(), JWT_SECRET * 2, algorithm="HS512")), "signature"),
        (lambda: bearer(make_token(exp=int(time.time()) - 1)), "expired"),
        (lambda: bearer(make_token(nbf=int(time.time()) + 60)), "not valid yet"),
        (lambda: bearer(make_token(aud="another-api")), "audience"),
        (lambda: bearer(make_token(iss="https://elsewhere.test")), "issuer"),
        (lambda: bearer(make_token(tier=None)), "claim tier"),
        (lambda: bearer(make_token(email="a\0@example.com")), "claim email"),
    ],
)
def test_a_bad_token_is_unauthenticated(door: Door, make: Callable[[], dict[str, str]], constraint: str) -> None:
    answer = door.post(make())

    assert (answer.status, code_of(answer)) == (401, "UNAUTHENTICATED")
    assert answer.body["error"]["details"]["constraint"] == constraint
    assert door.admitted == []


@pytest.mark.usefixtures("environment")
class TestCsrf:
    def session(self, csrf: str | None, *, user_id: uuid.UUID, **claims: Any) -> dict[str, str]:
        headers = bearer(make_token(user_id, **({"sid": "s1"} | claims)))
        return headers if csrf is None else headers | {"x-csrf-token": csrf}

    def test_a_session_changes_things_with_its_own_fresh_token_only(self, door: Door) -> None:
        user_id, now = uuid.uuid4(), datetime.now(UTC)
        good = make_csrf_token(CSRF_SECRET, user_id, "s1", now).token
        bad = [
            None,
            "",
            "garbage",
            good[:-1] + ("0" if good[-1] != "0" else "1"),
            make_csrf_token(CSRF_SECRET, user_id, "s2", now).token,
            make_csrf_token(CSRF_SECRET, uuid.uuid4(), "s1", now).token,
            make_csrf_token("another secret", user_id, "s1", now).token,
            make_csrf_token(CSRF_SECRET, user_id, "s1", now - LIFETIME).token,
        ]

        assert door.post(self.session(good, user_id=user_id)).status == 200
        for csrf in bad:
            answer = door.post(self.session(csrf, user_id=user_id))
            assert (answer.status, code_of(answer)) == (403, "CSRF_FAILED")
        assert len(door.admitted) == 1

    def test_a_session_of_a_listed_client_is_still_a_session(self, door: Door) -> None:
        # `make_token` names the listed client by default
        assert code_of(door.post(self.session(None, user_id=uuid.uuid4()))) == "CSRF_FAILED"

    def test_a_session_reads_without_a_csrf_token(self, door: Door) -> None:
        assert door.get(self.session(None, user_id=uuid.uuid4())).status == 200

    @pytest.mark.parametrize("client_id", [None, "unlisted", "test-client "])
    def test_a_token_of_neither_session_nor_listed_client_changes_nothing(
        self, door: Door, client_id: str | None
    ) -> None:
        headers = bearer(make_token(client_id=client_id))

        assert code_of(door.post(headers)) == "CSRF_FAILED"
        assert code_of(door.post(headers | {"x-csrf-token": "anything"})) == "CSRF_FAILED"
        assert door.get(headers).status == 200


@pytest.mark.usefixtures("without_redis")
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_wrong_key_in_the_configuration_is_an_internal_error_that_tells_nothing(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a key that is a byte too short, and a token that it signed
    key = "a short key, of no more bytes !"
    short = tmp_path / "short"
    short.write_text(key)
    monkeypatch.setenv("JWT_SECRET", f"file:{short}")

    answer = door.post(bearer(jwt.encode(claims_of(), key)))

    assert (answer.status, code_of(answer)) == (500, "INTERNAL_ERROR")
    assert "short" not in answer.text
