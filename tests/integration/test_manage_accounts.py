"""What operators do over HTTP: money moved, accounts changed and looked up; and a trader's own ledger."""

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.kit import MigratedTemplate, TestServers, User
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
from tests.kit.operators import OPERATOR_ID
from tests.kit.orders import Market, stale_time
from trading.edge.csrf import make_csrf_token

ENTRIES = "/api/v1/accounts/{id}/ledger-entries"
ACCOUNT = "/api/v1/accounts/{id}"
CLAIMS: dict[str, Any] = {
    "role": "operator",
    "tier": "unmetered",
    "permissions": ["accounts:write"],
    "email": "operator@example.com",
}


@dataclass(frozen=True)
class Api:
    """The function's handler on a database of the module's own, and whom it woke the relay for."""

    market: Market
    handler: Any
    woken: list[UUID]

    def ask(
        self,
        route: str,
        account: User | UUID | str | None,
        body: dict[str, object] | str | None = None,
        *,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
        operator: UUID = OPERATOR_ID,
        **claims: Any,
    ) -> Answer:
        account_id = account.account_id if isinstance(account, User) else account
        text = json.dumps(body) if isinstance(body, dict) else body
        event = http_event(
            route,
            path_parameters={"id": str(account_id)} if account_id else None,
            query=query,
            headers=bearer(make_token(operator, **(CLAIMS | claims))) | (headers or {}),
            body=text,
        )
        return call(self.handler, event)

    def move(self, account: User | UUID | str, entry_type: str, amount: object, **fields: Any) -> Answer:
        body = {"entry_type": entry_type, "amount": amount, "reason": "a test"} | fields
        return self.ask(f"POST {ENTRIES}", account, {name: value for name, value in body.items() if value is not ...})

    def change(self, account: User | UUID | str, **fields: Any) -> Answer:
        body = {"reason": "a test"} | fields
        return self.ask(f"PATCH {ACCOUNT}", account, {name: value for name, value in body.items() if value is not ...})


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
def api(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Market, servers: TestServers, redis_url: str
) -> Iterator[Api]:
    shared.prepare()
    woken: list[UUID] = []
    role = "function_operator"
    with function_environment(monkeypatch, tmp_path, database=shared.database, redis_url=redis_url, role=role):
        from trading.edge import acts

        def noted(account_id: UUID, **_: object) -> None:
            woken.append(account_id)

        monkeypatch.setattr(acts, "notify_relay_unless_awake", noted)
        yield Api(shared, load_function("manage_accounts"), woken)


@pytest.fixture
def user(api: Api) -> User:
    return api.market.user(balance=1000)


def balance_of(api: Api, user: User) -> Decimal:
    return api.market.account(user)["balance"]


class TestLedgerEntries:
    @pytest.mark.parametrize(
        ("entry_type", "amount", "signed", "balance"),
        [
            ("deposit", 250.5, "250.50", "1250.50"),
            ("deposit", "250.50", "250.50", "1250.50"),
            ("withdrawal", "250", "-250.00", "750.00"),
            ("WITHDRAWAL", "1000", "-1000.00", "0.00"),
            ("adjustment", "-1000.01", "-1000.01", "-0.01"),
        ],
    )
    def test_money_is_moved(
        self, api: Api, user: User, entry_type: str, amount: object, signed: str, balance: str
    ) -> None:
        answer = api.move(user, entry_type, amount)

        entry = max(api.market.rows("ledger_entries", user), key=lambda row: row["entry_number"])
        created_at = answer.body["created_at"]
        assert answer.status == 201
        assert answer.body == {
            "id": str(entry["id"]),
            "account_id": str(user.account_id),
            "entry_type": entry_type.lower(),
            "amount": signed,
            "balance": balance,
            "currency": "USD",
            "reason": "a test",
            "created_at": created_at,
            "sequence": 2,
        }
        assert abs((datetime.fromisoformat(created_at) - entry["created_at"]).total_seconds()) < 0.001
        assert balance_of(api, user) == entry["balance_after"] == Decimal(balance)

    def test_the_audit_names_the_operator(self, api: Api, user: User) -> None:
        api.move(user, "deposit", 1)

        audit = max(api.market.rows("order_audit_log", user), key=lambda row: row["version"])
        (personal,) = api.market.rows("audit_pii", user)
        assert (audit["details"]["actor"], audit["reason"]) == (str(OPERATOR_ID), "a test")
        assert (personal["email"], str(personal["ip_address"]), personal["user_agent"]) == (
            "operator@example.com",
            "203.0.113.7",
            "tests",
        )
        assert "operator@example.com" not in str(audit["details"])

    def test_the_relay_is_woken_once_it_is_committed_and_not_for_a_repeat(self, api: Api, user: User) -> None:
        for _ in range(2):
            api.move(user, "deposit", 1, idempotency_key="wake")
        api.move(user, "withdrawal", 5000)
        api.move(user, "deposit", 0)

        # a refused withdrawal has an event as well
        assert api.woken == [user.account_id] * 2

    def test_more_than_is_free_is_refused_and_says_what_could_go(self, api: Api, user: User) -> None:
        answer = api.move(user, "withdrawal", "1000.01")

        assert (answer.status, answer.body["error"]) == (400, "INSUFFICIENT_FUNDS")
        assert answer.body["message"] == "Insufficient funds for $1,000.01 withdrawal; available: $1,000"
        details = answer.body["details"]
        assert (details["required_balance"], details["available_balance"]) == (Decimal("1000.01"), Decimal(1000))
        assert balance_of(api, user) == 1000

    def test_without_a_fresh_quote_nothing_is_paid_out(self, api: Api, user: User) -> None:
        api.market.trade(user, quantity="0.1")
        api.market.quote("EURUSD", "1.1000", "1.1002", stale_time())

        answer = api.move(user, "withdrawal", 1)

        assert (answer.status, answer.body["error"]) == (503, "MARKET_DATA_UNAVAILABLE")
        assert answer.headers["Retry-After"] == "1"

    @pytest.mark.parametrize("by", ["header", "body"])
    @pytest.mark.parametrize("amount", [10, 5000])
    def test_a_key_gets_its_answer_again_byte_for_byte(self, api: Api, user: User, by: str, amount: int) -> None:
        key = str(uuid.uuid4())
        body: dict[str, object] = {"entry_type": "withdrawal", "amount": amount, "reason": "a test"}
        headers = {"Idempotency-Key": key} if by == "header" else None
        body |= {} if by == "header" else {"idempotency_key": key}

        first, second = (api.ask(f"POST {ENTRIES}", user, body, headers=headers) for _ in range(2))

        assert (first.status, second.status) == ((201, 201) if amount == 10 else (400, 400))
        assert first.text == second.text
        assert "Idempotency-Replayed" not in first.headers
        assert second.headers["Idempotency-Replayed"] == "true"
        reused = api.ask(f"POST {ENTRIES}", user, body | {"amount": 11}, headers=headers)
        assert (reused.status, reused.body["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")

    def test_a_key_is_one_request_of_either_kind(self, api: Api, user: User) -> None:
        api.move(user, "deposit", 1, idempotency_key="one")

        answer = api.change(user, leverage=30, idempotency_key="one")

        assert (answer.status, answer.body["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")

    def test_header_and_body_must_agree_on_the_key(self, api: Api, user: User) -> None:
        body: dict[str, object] = {"entry_type": "deposit", "amount": 1, "reason": "a test", "idempotency_key": "one"}

        answer = api.ask(f"POST {ENTRIES}", user, body, headers={"Idempotency-Key": "two"})

        assert (answer.status, answer.body["details"]["field"]) == (400, "idempotency_key")

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"entry_type": "commission"}, "entry_type"),
            ({"entry_type": ...}, "entry_type"),
            ({"entry_type": None}, "entry_type"),
            ({"entry_type": 1}, "entry_type"),
            ({"amount": 0}, "amount"),
            ({"amount": -1}, "amount"),
            ({"amount": "0.001"}, "amount"),
            ({"amount": "1,5"}, "amount"),
            ({"amount": "NaN"}, "amount"),
            ({"amount": "1e3"}, "amount"),
            ({"amount": True}, "amount"),
            ({"amount": ...}, "amount"),
            ({"amount": 10**18}, "amount"),
            ({"amount": [1]}, "amount"),
            ({"reason": ...}, "reason"),
            ({"reason": ""}, "reason"),
            ({"reason": "  "}, "reason"),
            ({"reason": "x" * 501}, "reason"),
            ({"reason": "cleared \x1b[2J"}, "reason"),
            ({"reason": 7}, "reason"),
            ({"idempotency_key": ""}, "idempotency_key"),
            ({"idempotency_key": "with space"}, "idempotency_key"),
            ({"idempotency_key": "k" * 256}, "idempotency_key"),
            ({"currency": "EUR"}, "currency"),
            ({"x" * 500: 1}, "x" * 100),
        ],
    )
    def test_what_does_not_fit_is_named(self, api: Api, user: User, fields: dict[str, Any], field: str) -> None:
        entry_type = fields.pop("entry_type", "deposit")
        amount = fields.pop("amount", 1)

        answer = api.move(user, entry_type, amount, **fields)

        assert (answer.status, answer.body["error"]) == (400, "VALIDATION_FAILED")
        assert answer.body["details"]["field"] == field
        assert set(answer.body["details"]) == {"field", "value", "constraint"}
        assert balance_of(api, user) == 1000

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"amount": NaN}', '{"amount": 1e400}', "null"])
    def test_a_body_that_is_none(self, api: Api, user: User, text: str) -> None:
        answer = api.ask(f"POST {ENTRIES}", user, text)

        assert (answer.status, answer.body["error"]) == (400, "VALIDATION_FAILED")


class TestWho:
    CALLS: tuple[Callable[[Api, User | UUID | str], Answer], ...] = (
        lambda api, account: api.move(account, "deposit", 1),
        lambda api, account: api.change(account, leverage=30),
        lambda api, account: api.ask(f"GET {ENTRIES}", account),
    )

    @pytest.mark.parametrize("ask", CALLS)
    def test_an_unknown_account_is_not_found(self, api: Api, ask: Callable[[Api, User | UUID | str], Answer]) -> None:
        answer = ask(api, uuid.uuid4())

        assert (answer.status, answer.body["error"], answer.body["details"]["field"]) == (404, "NOT_FOUND", "id")

    @pytest.mark.parametrize("ask", CALLS)
    @pytest.mark.parametrize("text", ["1", "%7B", "'; DROP TABLE accounts; --", "0" * 32])
    def test_what_is_no_id_is_refused(
        self, api: Api, ask: Callable[[Api, User | UUID | str], Answer], text: str
    ) -> None:
        answer = ask(api, text)

        assert (answer.status, answer.body["error"], answer.body["details"]["field"]) == (
            400,
            "VALIDATION_FAILED",
            "id",
        )

    def test_an_operators_own_account_takes_another_operator(self, api: Api, user: User) -> None:
        money: dict[str, object] = {"entry_type": "deposit", "amount": 1, "reason": "a test"}
        change: dict[str, object] = {"leverage": 30, "reason": "a test"}

        for route, body in ((f"POST {ENTRIES}", money), (f"PATCH {ACCOUNT}", change)):
            answer = api.ask(route, user, body, operator=user.user_id)
            assert (answer.status, answer.body["error"]) == (403, "FORBIDDEN")
            assert answer.body["details"]["field"] == "account_id"

        assert balance_of(api, user) == 1000
        assert api.market.account(user)["leverage"] == 100

    def test_a_browser_session_needs_its_csrf_token(self, api: Api, user: User) -> None:
        body: dict[str, object] = {"entry_type": "deposit", "amount": 1, "reason": "a test"}
        token = make_csrf_token(CSRF_SECRET, OPERATOR_ID, "s1", datetime.now(UTC)).token

        without = api.ask(f"POST {ENTRIES}", user, body, sid="s1")
        with_it = api.ask(f"POST {ENTRIES}", user, body, sid="s1", headers={"X-CSRF-Token": token})

        assert (without.status, without.body["error"]) == (403, "CSRF_FAILED")
        assert with_it.status == 201

    def test_operators_are_rate_limited_as_anybody(self, api: Api, user: User) -> None:
        statuses = [api.ask(f"GET {ENTRIES}", user, tier="bronze", operator=uuid.uuid4()).status for _ in range(2)]
        operator = uuid.uuid4()

        limited = [api.ask(f"GET {ENTRIES}", user, tier="bronze", operator=operator).status for _ in range(11)]

        assert statuses == [200, 200]
        assert limited == [200] * 10 + [429]


class TestChanges:
    def test_what_is_given_is_changed(self, api: Api, user: User) -> None:
        answer = api.change(user, account_status="SUSPENDED", leverage="30.5")

        assert answer.status == 200
        assert answer.body == {
            "id": str(user.account_id),
            "trader_id": str(user.user_id),
            "kyc_status": "verified",
            "account_status": "suspended",
            "account_tier": "gold",
            "leverage": "30.5",
            "position_mode": "hedging",
            "margin_profile": None,
            "updated_at": answer.body["updated_at"],
            "sequence": 2,
        }
        assert api.market.trade(user)["code"] == "ACCOUNT_NOT_ACTIVE"
        assert api.woken == [user.account_id]

    def test_a_mode_that_something_stands_in_the_way_of_is_a_conflict(self, api: Api) -> None:
        user = api.market.user()
        opened = api.market.trade(user)

        refused = api.change(user, position_mode="netting")
        api.market.close_out(user, opened["position_id"])
        changed = api.change(user, position_mode="netting")

        assert (refused.status, refused.body["error"]) == (409, "CONFLICT")
        assert refused.body["details"]["field"] == "position_mode"
        assert (changed.status, changed.body["position_mode"]) == (200, "netting")

    def test_a_key_gets_its_answer_again(self, api: Api, user: User) -> None:
        first, second = (api.change(user, leverage=30, idempotency_key="again") for _ in range(2))

        assert first.text == second.text
        assert second.headers["Idempotency-Replayed"] == "true"

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"kyc_status": "perhaps"}, "kyc_status"),
            ({"account_status": 1}, "account_status"),
            ({"account_tier": "unmetered"}, "account_tier"),
            ({"leverage": 0}, "leverage"),
            ({"leverage": "1e3"}, "leverage"),
            ({"leverage": 1001}, "leverage"),
            ({"leverage": "1.005"}, "leverage"),
            ({"leverage": True}, "leverage"),
            ({"leverage": 100}, "changes"),
            ({"leverage": None}, "changes"),
            ({}, "changes"),
            ({"leverage": 30, "reason": ...}, "reason"),
            ({"trading_state": "halted"}, "trading_state"),
            ({"balance": 1}, "balance"),
            ({"position_mode": "both"}, "position_mode"),
            ({"margin_profile": "lenient"}, "margin_profile"),
            ({"margin_profile": ""}, "margin_profile"),
            ({"position_mode": "HEDGING"}, "changes"),
        ],
    )
    def test_what_does_not_fit_is_named(self, api: Api, user: User, fields: dict[str, Any], field: str) -> None:
        answer = api.change(user, **fields)

        assert (answer.status, answer.body["error"]) == (400, "VALIDATION_FAILED")
        assert answer.body["details"]["field"] == field
        assert api.market.account(user)["leverage"] == 100


class TestLookingUp:
    def test_the_accounts_of_an_address(self, api: Api) -> None:
        user = api.market.user(tier="silver", kyc="pending", currency="EUR", balance=500)

        answer = api.ask("GET /api/v1/accounts", None, query={"email": user.email.upper()})

        assert (answer.status, answer.body["total"]) == (200, 1)
        (account,) = answer.body["data"]
        expected = {
            "id": str(user.account_id),
            "trader_id": str(user.user_id),
            "email": user.email,
            "kyc_status": "pending",
            "account_status": "active",
            "account_tier": "silver",
            "leverage": "100",
            "currency": "EUR",
            "balance": "500.00",
            "equity": "500.00",
            "free_margin": "500.00",
            "margin_level": None,
        }
        assert {name: account[name] for name in expected} == expected

    def test_an_address_that_nobody_has(self, api: Api) -> None:
        answer = api.ask("GET /api/v1/accounts", None, query={"email": "nobody@example.com"})

        assert (answer.status, answer.body) == (200, {"data": [], "total": 0})

    @pytest.mark.parametrize("query", [None, {"email": ""}, {"email": "a" * 256}, {"email": "a\nb@c"}])
    def test_no_address(self, api: Api, query: dict[str, str] | None) -> None:
        answer = api.ask("GET /api/v1/accounts", None, query=query)

        assert (answer.status, answer.body["details"]["field"]) == (400, "email")

    def test_a_ledger_comes_in_pages_that_hold_each_entry_once(self, api: Api, user: User) -> None:
        for amount in (1, 2, 3):
            api.move(user, "deposit", amount)

        first = api.ask(f"GET {ENTRIES}", user, query={"limit": "2"}).body
        api.move(user, "deposit", 4)
        second = api.ask(f"GET {ENTRIES}", user, query={"limit": "2", "cursor": first["next_cursor"]}).body

        pages = [[entry["amount"] for entry in page["data"]] for page in (first, second)]
        assert pages == [["3.00", "2.00"], ["1.00", "1000.00"]]
        assert second["next_cursor"] is None
        newest = first["data"][0]
        assert (newest["balance"], newest["entry_type"], newest["reason"]) == ("1006.00", "deposit", "a test")
        assert newest["created_at"].endswith("Z")

    @pytest.mark.parametrize("query", [{"cursor": "x"}, {"cursor": "-1"}, {"cursor": "9" * 19}, {"limit": "0"}])
    def test_a_page_that_cannot_be_meant(self, api: Api, user: User, query: dict[str, str]) -> None:
        answer = api.ask(f"GET {ENTRIES}", user, query=query)

        assert (answer.status, answer.body["details"]["field"]) == (400, next(iter(query)))


class TestOwnLedger:
    """A trader reads what moved their own balance, and nobody else's."""

    ROUTE = "GET /api/v1/account/ledger-entries"

    @pytest.fixture
    def read(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Market, redis_url: str
    ) -> Iterator[Callable[..., Answer]]:
        shared.prepare()

        def read(user: User, **query: str) -> Answer:
            token = make_token(user, tier="unmetered")
            return call(handler, http_event(self.ROUTE, headers=bearer(token), query=query))

        with function_environment(monkeypatch, tmp_path, database=shared.database, redis_url=redis_url):
            handler = load_function("manage_orders")
            yield read

    def test_ones_own_newest_first(self, shared: Market, read: Callable[..., Answer]) -> None:
        user = shared.user(balance=5000)
        shared.trade(user)

        answer = read(user)

        assert answer.status == 200
        assert [entry["entry_type"] for entry in answer.body["data"]] == ["commission", "deposit"]
        assert answer.body["data"][0]["order_id"] == str(shared.rows("orders", user)[0]["id"])
        assert read(user, account_id=str(user.account_id)).body == answer.body

    def test_a_strangers_is_not_there(self, shared: Market, read: Callable[..., Answer]) -> None:
        user, stranger = shared.user(), shared.user()

        answer = read(user, account_id=str(stranger.account_id))

        assert (answer.status, answer.body["error"]) == (404, "NOT_FOUND")
