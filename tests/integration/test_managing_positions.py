"""Managing positions over HTTP, from API Gateway's event to its answer."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.functions import (
    CSRF_SECRET,
    Answer,
    bearer,
    call,
    function_environment,
    http_event,
    load_function,
    make_token,
)
from tests.kit.orders import Market, stale_time
from tests.kit.positions import row_of
from trading.edge.csrf import make_csrf_token

CHANGE = "PATCH /api/v1/positions/{id}"


@dataclass(frozen=True)
class Api:
    """manage_orders on a database of the module's own."""

    market: Market
    handler: Any

    def ask(
        self,
        route: str,
        user: User,
        body: dict[str, Any] | str | None = None,
        *,
        subject: object = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        **claims: Any,
    ) -> Answer:
        event = http_event(
            route,
            path_parameters={"id": str(subject)} if subject else None,
            query=query,
            headers=bearer(make_token(user, **({"tier": "unmetered"} | claims))) | (headers or {}),
            body=json.dumps(body) if isinstance(body, dict) else body,
        )
        return call(self.handler, event)

    def change(self, user: User, position_id: object, body: dict[str, Any] | str, **asked: Any) -> Answer:
        return self.ask(CHANGE, user, body, subject=position_id, **asked)


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Market, redis_url: str) -> Iterator[Api]:
    shared.prepare()
    with function_environment(monkeypatch, tmp_path, database=shared.database, redis_url=redis_url):
        yield Api(shared, load_function("manage_orders"))


@pytest.fixture
def user(api: Api) -> User:
    return api.market.user()


@pytest.fixture
def position_id(api: Api, user: User) -> str:
    """100 AAPL bought at 150.00; AAPL stands at 149.98 / 150.00."""
    return api.market.trade(user, symbol="AAPL", quantity="100")["position_id"]


class TestChange:
    def test_the_position_is_told_as_it_is_read(self, api: Api, user: User, position_id: str) -> None:
        answer = api.change(user, position_id, {"stop_loss": 145.5, "take_profit_amount": "1000"})

        (read,) = api.ask("GET /api/v1/positions", user).body["data"]
        assert answer.status == 200
        assert answer.body == read
        assert (read["stop_loss"], read["take_profit"], read["trailing_distance"]) == ("145.50", "160.00", None)
        assert read["version"] == 2

    def test_a_trail_is_set_and_taken_off(self, api: Api, user: User, position_id: str) -> None:
        trailing = api.change(user, position_id, {"trailing_distance": "2.50"}).body
        standing = api.change(user, position_id, {"trailing_distance": None}).body
        gone = api.change(user, position_id, {"stop_loss": None}).body

        told = [(body["stop_loss"], body["trailing_distance"]) for body in (trailing, standing, gone)]
        assert told == [("147.48", "2.50"), ("147.48", None), (None, None)]

    @pytest.mark.parametrize("field", ["stop_loss_distance", "take_profit_amount", "breakeven", "version"])
    def test_a_null_that_can_remove_nothing_counts_as_left_out(
        self, api: Api, user: User, position_id: str, field: str
    ) -> None:
        assert api.change(user, position_id, {"stop_loss": "140", field: None}).status == 200
        assert api.change(user, position_id, {field: None}).status == 400

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "levels"),
            ({"stop_loss": "0"}, "stop_loss"),
            ({"stop_loss": "abc"}, "stop_loss"),
            ({"stop_loss": 1e-13}, "stop_loss"),
            ({"stop_loss": "149.98"}, "stop_loss"),
            ({"stop_loss": "149.975"}, "stop_loss"),
            ({"take_profit": True}, "take_profit"),
            ({"trailing_distance": []}, "trailing_distance"),
            ({"breakeven": False}, "breakeven"),
            ({"breakeven": 1}, "breakeven"),
            ({"breakeven": True}, "breakeven"),
            ({"stop_loss": "140", "version": "1"}, "version"),
            ({"stop_loss": "140", "version": 0}, "version"),
            ({"stop_loss": "140", "version": 1.5}, "version"),
            ({"stop_loss": "140", "version": 2**31}, "version"),
            ({"stop_loss": "140", "stop_loss_amount": "5"}, "stop_loss_amount"),
            ({"stop_loss": "140", "trailing_distance": "5"}, "trailing_distance"),
            ({"quantity": "1"}, "quantity"),
            ({"stop_loss": "140", "user_id": "x"}, "user_id"),
        ],
    )
    def test_a_body_that_does_not_fit(
        self, api: Api, user: User, position_id: str, body: dict[str, Any], field: str
    ) -> None:
        answer = api.change(user, position_id, body)

        assert (answer.status, answer.body["error"]) == (400, "VALIDATION_FAILED")
        assert answer.body["details"]["field"] == field
        assert answer.body["details"]["constraint"]
        assert row_of(api.market, user, position_id)["version"] == 1

    def test_another_version_tells_the_position_as_it_is(self, api: Api, user: User, position_id: str) -> None:
        api.change(user, position_id, {"stop_loss": "140"})

        answer = api.change(user, position_id, {"stop_loss": "141", "version": 1})

        (read,) = api.ask("GET /api/v1/positions", user).body["data"]
        assert (answer.status, answer.body["error"]) == (409, "CONFLICT")
        assert answer.body["details"] == {
            "field": "version", "value": "1", "constraint": "the version 2", "position": read,
        }  # fmt: skip

    def test_a_closed_position(self, api: Api, user: User, position_id: str) -> None:
        api.market.close_out(user, position_id)

        answer = api.change(user, position_id, {"stop_loss": "140"})

        assert (answer.status, answer.body["error"]) == (409, "CONFLICT")
        assert answer.body["details"]["value"] == "CLOSED"

    def test_what_is_not_there_or_somebody_elses(self, api: Api, user: User) -> None:
        other = api.market.user()
        theirs = api.market.trade(other, symbol="AAPL", quantity="100")["position_id"]

        missing, foreign = (api.change(user, each, {"stop_loss": "140"}) for each in (uuid.uuid4(), theirs))

        assert (missing.status, missing.body["error"]) == (foreign.status, foreign.body["error"]) == (404, "NOT_FOUND")

    def test_a_stale_price_keeps_nothing(self, api: Api, user: User, position_id: str) -> None:
        api.market.quote("AAPL", "149.98", "150.00", stale_time())
        body = {"stop_loss": "140", "idempotency_key": "again"}

        refused = api.change(user, position_id, body)
        api.market.quote("AAPL", "149.98", "150.00")

        assert (refused.status, refused.body["error"]) == (503, "MARKET_DATA_UNAVAILABLE")
        assert refused.headers["Retry-After"] == "1"
        assert api.change(user, position_id, body).status == 200

    def test_a_repeat_gets_the_same_answer_and_other_content_none(self, api: Api, user: User, position_id: str) -> None:
        headers = {"Idempotency-Key": str(uuid.uuid4())}

        first, second = (api.change(user, position_id, {"stop_loss": 140}, headers=headers) for _ in range(2))
        # a null says something here, so it is another request
        other = api.change(user, position_id, {"stop_loss": None}, headers=headers)

        assert first.text == second.text
        assert second.headers["Idempotency-Replayed"] == "true"
        assert (other.status, other.body["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")

    def test_a_suspended_client_may(self, api: Api, user: User, position_id: str) -> None:
        api.market.execute("UPDATE profiles SET account_status = 'suspended' WHERE id = %s", (user.user_id,))

        assert api.change(user, position_id, {"stop_loss": "140"}).status == 200

    def test_a_browser_session_needs_its_csrf_token(self, api: Api, user: User, position_id: str) -> None:
        csrf = make_csrf_token(CSRF_SECRET, user.user_id, "s1", datetime.now(UTC)).token
        claims: dict[str, Any] = {"sid": "s1", "client_id": None}

        without = api.change(user, position_id, {"stop_loss": "140"}, **claims)
        with_it = api.change(user, position_id, {"stop_loss": "140"}, headers={"X-CSRF-Token": csrf}, **claims)

        assert (without.status, without.body["error"], with_it.status) == (403, "CSRF_FAILED", 200)

    def test_it_counts_with_the_orders(self, api: Api, user: User) -> None:
        answers = [api.change(user, uuid.uuid4(), {"stop_loss": "1"}, tier="bronze") for _ in range(11)]

        assert [answer.status for answer in answers] == [404] * 10 + [429]

    def test_the_books_are_kept_of_where_it_came_from(self, api: Api, user: User, position_id: str) -> None:
        api.change(user, position_id, {"stop_loss": "140"}, headers={"X-Request-ID": "request-7"})

        event = api.market.last_event(user)
        newest = max(api.market.rows("audit_pii", user), key=lambda row: row["audit_id"])
        assert (event["event_type"], event["request_id"]) == ("position.changed", "request-7")
        assert (str(newest["ip_address"]), newest["email"]) == ("203.0.113.7", user.email)

    def test_numbers_keep_every_digit(self, api: Api, user: User, position_id: str) -> None:
        # given an amount that a float would change
        answer = api.change(user, position_id, '{"take_profit_amount": 1000.0000000001}')

        assert Decimal(answer.body["take_profit"]) == Decimal("160.01")
