"""The kill switch over HTTP: who may throw it, its confirmation, and the worker that it starts."""

import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.functions import Answer, bearer, call, function_environment, http_event, load_function, make_token
from tests.kit.kill_switch import Officer
from tests.kit.orders import Market, order_request, send

OFFICER_ID = UUID("01a1fc5d-0000-7000-8000-00000000cafe")
STATE, WIND_DOWNS = "/api/v1/risk/trading-state", "/api/v1/risk/wind-downs"
CLAIMS: dict[str, Any] = {
    "role": "risk_officer",
    "tier": "unmetered",
    "permissions": ["risk:write"],
    "email": "risk@example.com",
}


@dataclass(frozen=True)
class Api:
    """The function's handler, and how often it has started the worker."""

    market: Market
    handler: Any
    started: list[None]

    def ask(self, route: str, body: object = None, *, path: dict[str, str] | None = None, **claims: Any) -> Answer:
        officer = claims.pop("officer", OFFICER_ID)
        event = http_event(
            route,
            path_parameters=path,
            headers=bearer(make_token(officer, **CLAIMS | claims)),
            body=None if body is None else json.dumps(body),
        )
        return call(self.handler, event)

    def set_state(self, trading_state: str, **subject: str) -> Answer:
        return self.ask(f"POST {STATE}", {"trading_state": trading_state, "reason": "A drill"} | subject)

    def wind_down(self, **fields: str) -> Answer:
        return self.ask(f"POST {WIND_DOWNS}", {"action": "flatten", "reason": "A drill"} | fields)


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Market, redis_url: str) -> Iterator[Api]:
    shared.prepare()
    started: list[None] = []
    role = "function_risk_officer"
    with function_environment(monkeypatch, tmp_path, database=shared.database, redis_url=redis_url, role=role):
        from trading import queue
        from trading.edge import acts

        monkeypatch.setattr(acts, "notify_relay_unless_awake", lambda *_, **__: None)
        monkeypatch.setattr(queue, "start_triggers", lambda: started.append(None))
        yield Api(shared, load_function("manage_risk"), started)


@pytest.fixture
def user(api: Api) -> User:
    return api.market.user()


def of(user: User) -> dict[str, str]:
    return {"scope": "account", "account_id": str(user.account_id)}


class TestTradingState:
    def test_it_is_set_told_and_listed(self, api: Api) -> None:
        answer = api.set_state("HALTED", scope="Symbol", symbol="EURUSD")

        assert answer.status == 200
        assert answer.body.items() >= {"symbol": "EURUSD", "before": "active", "trading_state": "halted"}.items()
        assert answer.body["settled"] is True
        listed = api.ask(f"GET {STATE}").body
        assert listed["symbols"] == [{"symbol": "EURUSD", "trading_state": "halted"}]
        assert listed["changes"][0]["id"] == answer.body["id"]
        assert listed["changes"][0]["actor"] == str(OFFICER_ID)

    def test_it_waits_for_orders_that_have_read_the_old_state(self, api: Api, user: User) -> None:
        # given an order that is not committed yet
        answers: list[Answer] = []
        with api.market.database.connect("function_trader") as ordering:
            ordering.autocommit = False
            send(ordering, order_request(user))
            throw = threading.Thread(
                target=lambda: answers.append(api.set_state("halted", scope="symbol", symbol="EURUSD"))
            )
            throw.start()
            throw.join(0.3)
            assert throw.is_alive()

            # when
            ordering.commit()
            throw.join(10)

        # then
        assert answers[0].body["settled"] is True

    def test_it_says_so_when_they_do_not_end(self, api: Api, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("trading.kill_switch.SETTLE_SECONDS_MAX", 0.05)
        with api.market.database.connect("function_trader") as ordering:
            ordering.autocommit = False
            send(ordering, order_request(user))

            answer = api.set_state("halted", scope="symbol", symbol="EURUSD")

        assert (answer.status, answer.body["settled"]) == (200, False)

    def test_a_repeat_is_marked(self, api: Api, user: User) -> None:
        key = str(uuid.uuid4())
        first = api.set_state("reducing", idempotency_key=key, **of(user))
        again = api.set_state("reducing", idempotency_key=key, **of(user))

        assert first.body == again.body
        assert again.headers["Idempotency-Replayed"] == "true"
        assert api.set_state("halted", idempotency_key=key, **of(user)).status == 422

    def test_nothing_else_that_an_officer_does_uses_up_its_rate(self, api: Api, user: User) -> None:
        officer: dict[str, Any] = {"officer": uuid.uuid4(), "tier": "bronze"}
        # given an officer whose script has sent as many requests as a minute takes
        assert [api.ask(f"GET {STATE}", **officer).status for _ in range(11)] == [200] * 10 + [429]

        # when they throw the kill switch, and ask for a winding down
        stopped = api.ask(f"POST {STATE}", {"trading_state": "halted", "reason": "x"} | of(user), **officer)
        counted = api.ask(f"POST {WIND_DOWNS}", {"action": "flatten", "reason": "x"} | of(user), **officer)

        # then both pass, by a rate of their own
        assert (stopped.status, counted.status) == (200, 200)
        assert (stopped.headers["X-RateLimit-Remaining"], counted.headers["X-RateLimit-Remaining"]) == ("9", "8")

    @pytest.mark.parametrize("claims", [{"role": "operator"}, {"role": "trader"}, {"permissions": ["accounts:write"]}])
    @pytest.mark.parametrize("route", [f"GET {STATE}", f"POST {STATE}", f"POST {WIND_DOWNS}"])
    def test_it_is_for_risk_officers_alone(self, api: Api, route: str, claims: dict[str, Any]) -> None:
        body = {"scope": "platform", "trading_state": "halted", "action": "flatten", "reason": "no"}

        answer = api.ask(route, None if route.startswith("GET") else body, **claims)

        assert (answer.status, answer.body["error"]) == (403, "FORBIDDEN")

    def test_an_account_of_one_s_own_is_for_another_officer(self, api: Api, user: User) -> None:
        answer = api.ask(f"POST {STATE}", {"trading_state": "active", "reason": "x"} | of(user), officer=user.user_id)

        assert (answer.status, answer.body["error"]) == (403, "FORBIDDEN")

    @pytest.mark.parametrize(
        ("body", "status", "field"),
        [
            ({"scope": "planet"}, 400, "scope"),
            ({"scope": "symbol"}, 400, "symbol"),
            ({"scope": "symbol", "symbol": "NOPE"}, 404, "symbol"),
            ({"scope": "account", "account_id": "7"}, 400, "account_id"),
            ({"scope": "account", "account_id": str(uuid.uuid4())}, 404, "account_id"),
            ({"scope": "platform", "symbol": "EURUSD"}, 400, "symbol"),
            ({"scope": "platform", "trading_state": "off"}, 400, "trading_state"),
            ({"scope": "platform", "reason": " "}, 400, "reason"),
            ({"scope": "platform", "force": True}, 400, "force"),
        ],
    )
    def test_what_does_not_fit_is_named(self, api: Api, body: dict[str, Any], status: int, field: str) -> None:
        answer = api.ask(f"POST {STATE}", {"trading_state": "halted", "reason": "x"} | body)

        assert (answer.status, answer.body["details"]["field"]) == (status, field)


class TestWindDown:
    @pytest.fixture
    def halted(self, api: Api, user: User) -> User:
        """A user with a position and a resting order, whose trading is halted."""
        api.market.trade(user)
        api.market.place(user)
        api.set_state("halted", **of(user))
        return user

    def test_it_is_counted_confirmed_worked_off_and_reported(self, api: Api, halted: User) -> None:
        # given
        counted = api.wind_down(**of(halted))
        assert counted.status == 200
        assert (counted.body["working_orders"], counted.body["open_positions"]) == (1, 1)
        assert api.started == []

        # when
        begun = api.wind_down(confirmation=counted.body["confirmation"], **of(halted))

        # then
        assert (begun.status, begun.body["accounts"], len(api.started)) == (202, 1, 1)
        with Officer.opened(api.market) as worker:
            worker.work()
        progress = api.ask(f"GET {WIND_DOWNS}/{{id}}", path={"id": begun.body["id"]}).body
        assert progress["finished"] is True
        assert (progress["orders_canceled"], progress["positions_closed"]) == (1, 1)

    def test_a_repeat_with_a_newer_confirmation_starts_nothing_more(self, api: Api, halted: User) -> None:
        key = str(uuid.uuid4())
        first, second = (api.wind_down(**of(halted)).body["confirmation"] for _ in range(2))

        begun = api.wind_down(confirmation=first, idempotency_key=key, **of(halted))
        again = api.wind_down(confirmation=second, idempotency_key=key, **of(halted))

        assert begun.body == again.body
        assert again.headers["Idempotency-Replayed"] == "true"

    def test_a_confirmation_that_comes_again_starts_nothing_more(self, api: Api, halted: User) -> None:
        confirmation = api.wind_down(**of(halted)).body["confirmation"]

        begun, again = (api.wind_down(confirmation=confirmation, **of(halted)) for _ in range(2))

        assert begun.body == again.body
        assert again.headers["Idempotency-Replayed"] == "true"

    def test_the_confirmation_of_something_else_starts_nothing(self, api: Api, halted: User) -> None:
        counted = api.wind_down(action="cancel_orders", **of(halted)).body["confirmation"]

        answer = api.wind_down(confirmation=counted, **of(halted))

        assert (answer.status, answer.body["details"]["field"]) == (400, "confirmation")
        assert api.started == []

    def test_while_trading_is_active_it_is_a_conflict(self, api: Api, user: User) -> None:
        answer = api.wind_down(**of(user))

        assert (answer.status, answer.body["error"]) == (409, "CONFLICT")

    def test_there_is_no_such_wind_down(self, api: Api) -> None:
        assert api.ask(f"GET {WIND_DOWNS}/{{id}}", path={"id": str(uuid.uuid4())}).status == 404
