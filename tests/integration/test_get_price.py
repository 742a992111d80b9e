"""get_price through its handler: the three routes, the cache in front of the table, and what is missing."""

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.kit import ScratchDatabase, set_quote
from tests.kit.functions import Answer, bearer, call, function_environment, http_event, load_function, make_token

STOCK_PRICE = "/functions/v1/get-stock-price"


@dataclass
class Api:
    """The function under test, called by one trader."""

    database: ScratchDatabase
    redis_url: str
    handler: Callable[[dict[str, Any], Any], Any]
    token: str

    def get(self, **query: str) -> Answer:
        return self.call(f"GET {STOCK_PRICE}", query=query)

    def post(self, body: object) -> Answer:
        return self.call(f"POST {STOCK_PRICE}", body=json.dumps(body))

    def rest(self, **query: str) -> Answer:
        return self.call("GET /api/v1/prices", query=query)

    def call(self, route_key: str, **event: Any) -> Answer:
        return call(self.handler, http_event(route_key, headers=bearer(self.token), **event))

    def cache(self, symbol: str, bid: str, ask: str) -> None:
        quote = {"bid": bid, "ask": ask, "time": datetime.now(UTC).isoformat(), "source": "cached"}
        with redis.Redis.from_url(self.redis_url) as client:
            client.set(f"quote:{symbol}", json.dumps(quote), px=5000)


@pytest.fixture
def api(database: ScratchDatabase, redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    with function_environment(monkeypatch, tmp_path, database=database, redis_url=redis_url):
        yield Api(database, redis_url, load_function("get_price"), make_token(uuid.uuid4(), tier="unmetered"))


def test_a_symbol_s_price(api: Api) -> None:
    at = datetime.now(UTC)
    set_quote(api.database, "EURUSD", "1.10000", "1.10025", at, source="simulated")

    answer = api.get(symbol="EURUSD")

    assert answer.status == 200
    assert answer.headers["X-Cache"] == "miss"
    assert answer.body["success"] is True
    assert answer.body["data"] == {
        "symbol": "EURUSD",
        "bid": "1.10000",
        "ask": "1.10025",
        "mid": "1.100125",
        "spread": "0.00025",
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "source": "simulated",
        "stale": False,
    }


def test_the_second_look_comes_from_the_cache(api: Api) -> None:
    set_quote(api.database, "EURUSD", "1.1", "1.2")
    first = api.get(symbol="EURUSD")
    set_quote(api.database, "EURUSD", "1.3", "1.4")

    second = api.get(symbol="EURUSD")

    assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("miss", "hit")
    assert second.body["data"] == first.body["data"]


def test_what_a_feed_has_cached_is_not_overwritten_by_a_reader(api: Api) -> None:
    set_quote(api.database, "EURUSD", "1.1", "1.2")
    set_quote(api.database, "AAPL", "265", "265.02")
    api.cache("EURUSD", "1.3", "1.4")

    answer = api.get(symbols="EURUSD,AAPL")

    assert answer.headers["X-Cache"] == "miss"
    assert [price["bid"] for price in answer.body["data"]["prices"]] == ["1.3", "265"]
    assert api.get(symbols="EURUSD,AAPL").headers["X-Cache"] == "hit"


@pytest.mark.parametrize(
    "ask",
    [
        lambda api: api.get(symbols="aapl, EURUSD,AAPL"),
        lambda api: api.post({"symbols": ["AAPL", "EURUSD"]}),
        lambda api: api.post({"symbols": "AAPL,EURUSD"}),
    ],
    ids=["query", "list", "text"],
)
def test_several_symbols_in_the_order_asked_for(api: Api, ask: Callable[[Api], Answer]) -> None:
    set_quote(api.database, "EURUSD", "1.1", "1.2")
    set_quote(api.database, "AAPL", "265", "265.02")

    answer = ask(api)

    assert answer.status == 200
    assert [price["symbol"] for price in answer.body["data"]["prices"]] == ["AAPL", "EURUSD"]
    assert answer.body["data"]["unavailable"] == []


def test_the_rest_api_answers_plainly(api: Api) -> None:
    set_quote(api.database, "EURUSD", "1.1", "1.2")

    answer = api.rest(symbols="EURUSD")

    assert answer.status == 200
    assert answer.body.keys() == {"prices", "unavailable"}
    assert answer.body["prices"][0]["spread"] == "0.1"


def test_a_post_names_one_symbol(api: Api) -> None:
    set_quote(api.database, "EURUSD", "1.1", "1.2")
    assert api.post({"symbol": "eurusd"}).body["data"]["symbol"] == "EURUSD"


def test_an_old_quote_is_shown_and_marked(api: Api) -> None:
    set_quote(api.database, "EURUSD", "1.1", "1.2", datetime.now(UTC) - timedelta(seconds=6))
    set_quote(api.database, "AAPL", "265", "265.02", datetime.now(UTC) - timedelta(seconds=6))

    answer = api.get(symbols="EURUSD,AAPL")

    # AAPL's may be twice as old.
    assert answer.headers["X-Cache"] == "stale"
    assert [price["stale"] for price in answer.body["data"]["prices"]] == [True, False]
    assert api.get(symbol="EURUSD").headers["X-Cache"] == "stale"


def test_a_symbol_that_never_had_a_quote_is_named(api: Api) -> None:
    set_quote(api.database, "EURUSD", "1.1", "1.2")

    answer = api.get(symbols="EURUSD,AAPL")

    assert answer.headers["X-Cache"] == "stale"
    assert [price["symbol"] for price in answer.body["data"]["prices"]] == ["EURUSD"]
    assert answer.body["data"]["unavailable"] == ["AAPL"]


def test_without_any_quote_there_is_no_market_data(api: Api) -> None:
    answer = api.get(symbol="EURUSD")

    assert answer.status == 503
    assert answer.body["error"]["code"] == "MARKET_DATA_UNAVAILABLE"
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize("symbols", ["NOSUCH", "EURUSD,NOSUCH"])
def test_an_unknown_symbol_is_named(api: Api, symbols: str) -> None:
    set_quote(api.database, "EURUSD", "1.1", "1.2")

    answer = api.rest(symbols=symbols)

    assert answer.status == 404
    assert answer.body["error"] == "UNKNOWN_SYMBOL"
    assert answer.body["details"]["value"] == "NOSUCH"
    assert "NOSUCH" in answer.body["message"]


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (lambda api: api.get(), "symbol"),
        (lambda api: api.get(symbol="EURUSD", symbols="AAPL"), "symbol"),
        (lambda api: api.get(symbol="EUR/USD"), "symbol"),
        (lambda api: api.get(symbol="EURUSD,AAPL"), "symbol"),
        (lambda api: api.get(symbols=""), "symbols"),
        (lambda api: api.get(symbols=",".join(f"S{n}" for n in range(101))), "symbols"),
        (lambda api: api.post({}), "symbol"),
        (lambda api: api.post({"symbol": 7}), "symbol"),
        (lambda api: api.post({"symbol": None}), "symbol"),
        (lambda api: api.post({"symbols": {"EURUSD": 1}}), "symbols"),
        (lambda api: api.call(f"POST {STOCK_PRICE}", body="nothing"), "body"),
        (lambda api: api.call(f"POST {STOCK_PRICE}"), "body"),
    ],
)
def test_what_cannot_be_read_is_refused_by_field(api: Api, ask: Callable[[Api], Answer], field: str) -> None:
    answer = ask(api)

    assert answer.status == 400
    assert answer.body["error"]["code"] == "VALIDATION_FAILED"
    assert answer.body["error"]["details"]["field"] == field


def test_the_rest_api_wants_symbols(api: Api) -> None:
    answer = api.rest()
    assert (answer.status, answer.body["details"]["field"]) == (400, "symbols")


@pytest.mark.parametrize("route_key", [f"GET {STOCK_PRICE}", f"POST {STOCK_PRICE}", "GET /api/v1/prices"])
def test_nobody_unknown_reads_prices(api: Api, route_key: str) -> None:
    answer = call(api.handler, http_event(route_key, query={"symbols": "EURUSD"}))
    assert answer.status == 401


def test_a_browser_session_needs_no_csrf_token_to_read(api: Api) -> None:
    set_quote(api.database, "EURUSD", "1.1", "1.2")
    api.token = make_token(uuid.uuid4(), sid="a-session", client_id=None)
    assert api.post({"symbol": "EURUSD"}).status == 200


def test_prices_are_metered_by_tier(api: Api) -> None:
    set_quote(api.database, "EURUSD", "1.1", "1.2")
    api.token = make_token(uuid.uuid4(), tier="bronze")

    statuses = [api.get(symbol="EURUSD").status for _ in range(11)]

    assert statuses == [200] * 10 + [429]


def test_without_redis_prices_come_from_the_table(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_quote(api.database, "EURUSD", "1.1", "1.2")

    with function_environment(monkeypatch, tmp_path, database=api.database):
        answers = [api.get(symbol="EURUSD") for _ in range(2)]

    assert [(answer.status, answer.headers["X-Cache"]) for answer in answers] == [(200, "miss")] * 2
    assert Decimal(answers[0].body["data"]["bid"]) == Decimal("1.1")


def test_without_the_database_the_cache_still_answers(
    api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    api.cache("EURUSD", "1.1", "1.2")

    with function_environment(monkeypatch, tmp_path, redis_url=api.redis_url):
        cached, missing = api.get(symbol="EURUSD"), api.get(symbol="AAPL")

    assert (cached.status, cached.headers["X-Cache"]) == (200, "hit")
    assert (missing.status, missing.body["error"]["code"]) == (503, "DATABASE_UNAVAILABLE")
