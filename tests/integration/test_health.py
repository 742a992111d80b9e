"""GET /health: what it says when all is well, and when each thing is gone."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.kit import ScratchDatabase, set_quote
from tests.kit.functions import Answer, call, function_environment, http_event, load_function
from tests.kit.http_servers import Reply, http_server
from trading.health import UnhealthyError, judge_prices, run_checks


@contextmanager
def connections_endpoint(status: int) -> Iterator[str]:
    """An endpoint that answers every question for a connection with `status`."""
    name = {410: "GoneException", 403: "ForbiddenException"}.get(status)
    headers = {"Content-Type": "application/json"} | ({"x-amzn-ErrorType": name} if name else {})
    body = b'{"connectedAt": "2026-01-01T00:00:00Z"}' if status == 200 else b'{"message": ""}'

    def reply(path: str) -> Reply:
        assert path.startswith("/realtime/@connections/")
        return Reply(status, body, headers)

    with http_server(reply) as url:
        yield f"{url}/realtime"


@pytest.fixture
def endpoint() -> Iterator[str]:
    with connections_endpoint(410) as url:
        yield url


def close_all_markets_but_crypto(database: ScratchDatabase) -> None:
    with database.connect() as connection:
        connection.execute("DELETE FROM market_sessions")


def fresh_crypto(database: ScratchDatabase) -> None:
    close_all_markets_but_crypto(database)
    set_quote(database, "BTCUSD", "60000", "60010")


def health() -> Answer:
    return call(load_function("health"), http_event("GET /health"))


def failing(answer: Answer) -> set[str]:
    return {name for name, check in answer.body["checks"].items() if check["status"] != "ok"}


def test_all_is_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: ScratchDatabase, redis_url: str, endpoint: str
) -> None:
    # given
    fresh_crypto(database)
    variables = {"CONNECTIONS_ENDPOINT": endpoint, "RELEASE_VERSION": "1.2.3"}

    # when
    with function_environment(monkeypatch, tmp_path, database=database, redis_url=redis_url, **variables):
        answer = health()

    # then
    assert answer.status == 200, answer.text
    body = answer.body
    assert set(body) == {"status", "timestamp", "uptime", "version", "environment", "checks"}
    assert (body["status"], body["version"], body["environment"]) == ("ok", "1.2.3", "local")
    assert abs(datetime.fromisoformat(body["timestamp"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert set(body["checks"]) == {"database", "redis", "external_apis", "websocket"}
    for check in body["checks"].values():
        assert set(check) == {"status", "latency", "details"}
        assert check["latency"] >= 0


def test_redis_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: ScratchDatabase, endpoint: str
) -> None:
    fresh_crypto(database)

    with function_environment(monkeypatch, tmp_path, database=database, CONNECTIONS_ENDPOINT=endpoint):
        answer = health()

    assert (answer.status, answer.body["status"], failing(answer)) == (503, "error", {"redis"})


def test_the_database_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str, endpoint: str) -> None:
    with function_environment(monkeypatch, tmp_path, redis_url=redis_url, CONNECTIONS_ENDPOINT=endpoint):
        answer = health()

    assert (answer.status, failing(answer)) == (503, {"database", "external_apis"})


def test_everything_is_gone_and_nothing_of_the_inside_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with function_environment(monkeypatch, tmp_path, CONNECTIONS_ENDPOINT="http://127.0.0.1:9/realtime"):
        answer = health()

    assert (answer.status, failing(answer)) == (503, {"database", "redis", "external_apis", "websocket"})
    assert "127.0.0.1" not in answer.text
    assert "nobody" not in answer.text


@pytest.mark.parametrize("status", [200, 403, 500])
def test_an_endpoint_that_does_not_say_gone_is_not_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: ScratchDatabase, redis_url: str, status: int
) -> None:
    fresh_crypto(database)

    with (
        connections_endpoint(status) as endpoint,
        function_environment(
            monkeypatch, tmp_path, database=database, redis_url=redis_url, CONNECTIONS_ENDPOINT=endpoint
        ),
    ):
        answer = health()

    assert (answer.status, failing(answer)) == (503, {"websocket"})


def test_the_feed_has_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: ScratchDatabase, redis_url: str, endpoint: str
) -> None:
    close_all_markets_but_crypto(database)
    set_quote(database, "BTCUSD", "60000", "60010", datetime.now(UTC) - timedelta(hours=1))

    with function_environment(
        monkeypatch, tmp_path, database=database, redis_url=redis_url, CONNECTIONS_ENDPOINT=endpoint
    ):
        answer = health()

    assert (answer.status, failing(answer)) == (503, {"external_apis"})
    assert "fresh" in answer.body["checks"]["external_apis"]["details"]


def test_the_short_form_looks_at_nothing_behind_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str
) -> None:
    with function_environment(monkeypatch, tmp_path, redis_url=redis_url):
        answer = call(load_function("health"), http_event("GET /api/v1/health"))

    assert answer.status == 200
    assert set(answer.body) == {"status", "timestamp"}
    assert answer.body["status"] == "ok"


def test_health_needs_no_token_and_is_limited_by_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str
) -> None:
    with function_environment(monkeypatch, tmp_path, redis_url=redis_url, IP_REQUESTS_PER_MINUTE="2"):
        handler = load_function("health")
        answers = [call(handler, http_event("GET /api/v1/health")) for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].headers["Retry-After"]


def test_prices_are_well_while_markets_are_closed_or_any_quote_is_fresh() -> None:
    assert "closed" in judge_prices({"open": 0, "fresh": 0, "newest_age_ms": None})
    assert "3 of 4" in judge_prices({"open": 4, "fresh": 3, "newest_age_ms": 120})
    with pytest.raises(UnhealthyError, match="None of 4"):
        judge_prices({"open": 4, "fresh": 0, "newest_age_ms": 90_000})


def test_a_check_that_breaks_is_a_failed_check() -> None:
    def broken() -> str:
        raise RuntimeError("secret detail")

    checks = run_checks({"good": lambda: "Fine.", "broken": broken})

    assert checks["good"].as_body() | {"latency": 0} == {"status": "ok", "latency": 0, "details": "Fine."}
    assert checks["broken"].status == "error"
    assert "secret" not in checks["broken"].details
