"""Money comes into an account through the ledger, once per key."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from threading import Barrier
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.kit import MigratedTemplate, User
from tests.kit.orders import Market, details_of, raises_sqlstate


@pytest.fixture(scope="module")
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market:
            yield market
            assert market.book_faults() == []
    finally:
        scratch.drop()


@pytest.fixture
def user(market: Market) -> User:
    return market.user(balance=0)


def request_of(user: User, **overrides: object) -> dict[str, object]:
    return {
        "version": 1,
        "user_id": str(user.user_id),
        "account_id": str(user.account_id),
        "amount": "250.50",
        "reason": "bank transfer",
        "idempotency_key": str(uuid.uuid4()),
        "actor": "operator@example.com",
        "request_id": "request-1",
    } | overrides


def deposit(connection: psycopg.Connection[Any], request: dict[str, object]) -> dict[str, Any]:
    row = connection.execute("SELECT deposit(%s)", (Jsonb(request),)).fetchone()
    assert row is not None
    return row[0]


def test_a_deposit_moves_the_balance_by_a_ledger_row(market: Market, user: User) -> None:
    answer = deposit(market.owner, request_of(user))

    (entry,) = market.rows("ledger_entries", user)
    account = market.account(user)
    assert account["balance"] == entry["balance_after"] == entry["amount"] == Decimal("250.50")
    assert (entry["entry_type"], entry["entry_number"], entry["reason"]) == ("deposit", 1, "bank transfer")
    assert (entry["currency"], account["ledger_version"]) == ("USD", 1)
    assert answer["entry_id"] == str(entry["id"])
    assert (answer["replayed"], Decimal(str(answer["balance"]))) == (False, Decimal("250.50"))


def test_it_is_audited_and_told_in_the_same_transaction(market: Market, user: User) -> None:
    answer = deposit(market.owner, request_of(user))

    (audit,) = market.rows("order_audit_log", user)
    (event,) = market.rows("events", user)
    assert (audit["action"], audit["reason"], audit["order_id"]) == ("DEPOSITED", "bank transfer", None)
    assert audit["details"]["actor"] == "operator@example.com"
    assert (event["event_type"], event["sequence"], event["request_id"]) == ("account.deposited", 1, "request-1")
    assert event["payload"]["account"]["balance"] == 250.5
    assert answer["sequence"] == 1
    written = {
        market.execute(f"SELECT xmin::text FROM {table} WHERE user_id = %s", (user.user_id,))[0][0]
        for table in ("accounts", "ledger_entries", "order_audit_log", "events", "idempotency_keys")
    }
    assert len(written) == 1


def test_the_event_values_what_is_held(market: Market) -> None:
    # given a position that ties up 1100.26 and stands at -26
    user = market.user(balance=5000)
    market.trade(user)

    deposit(market.owner, request_of(user, amount="1000"))

    told = max(market.rows("events", user), key=lambda row: row["sequence"])["payload"]["account"]
    figures = {name: Decimal(str(told[name])) for name in ("balance", "unrealized_pnl", "equity", "margin_used")}
    assert figures == {
        "balance": 6000,
        "unrealized_pnl": -26,
        "equity": 5974,
        "margin_used": Decimal("1100.26"),
    }


def test_the_same_key_deposits_once(market: Market, user: User) -> None:
    request = request_of(user)

    first, second = deposit(market.owner, request), deposit(market.owner, request)

    assert second == first | {"replayed": True}
    assert market.account(user)["balance"] == Decimal("250.50")


def test_other_content_under_the_key(market: Market, user: User) -> None:
    request = request_of(user)
    deposit(market.owner, request)

    with raises_sqlstate("TR003"):
        deposit(market.owner, request | {"amount": "1"})

    assert market.account(user)["balance"] == Decimal("250.50")


def test_many_callers_with_one_key_deposit_once(market: Market, user: User) -> None:
    request, start = request_of(user), Barrier(10)

    def one(_: int) -> dict[str, Any]:
        with market.database.connect() as connection:
            start.wait(30)
            return deposit(connection, request)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(one, range(10)))

    assert sum(not answer["replayed"] for answer in answers) == 1
    assert market.account(user)["balance"] == Decimal("250.50")


@pytest.mark.parametrize("amount", ["0", "-1", "0.001", "NaN", "Infinity", "-Infinity", None])
def test_an_amount_that_is_no_money(market: Market, user: User, amount: str | None) -> None:
    with raises_sqlstate("TR006") as caught:
        deposit(market.owner, request_of(user, amount=amount))

    assert details_of(caught.value)["field"] == "amount"
    assert market.counts(user) == dict.fromkeys(market.counts(user), 0)


@pytest.mark.parametrize(
    ("overrides", "sqlstate"),
    [
        ({"version": 2}, "TR006"),
        ({"account_id": str(uuid.uuid4())}, "TR001"),
        ({"user_id": str(uuid.uuid4())}, "TR001"),
    ],
)
def test_a_request_that_cannot_be_meant(
    market: Market, user: User, overrides: dict[str, object], sqlstate: str
) -> None:
    with raises_sqlstate(sqlstate):
        deposit(market.owner, request_of(user, **overrides))

    assert market.account(user)["balance"] == 0


def test_functions_cannot_make_money(market: Market, user: User) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        deposit(market.trader, request_of(user))
