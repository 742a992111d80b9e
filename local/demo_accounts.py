"""The users of the local system: demo traders and staff, and as many load accounts as a benchmark wants.

Money enters through the deposit procedure alone, called as the role of operators, and only into an account whose ledger
is empty, so that a restart changes nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import batched
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

LOAD_PREFIX = "load-"
LOAD_ACCOUNTS_MAX = 100_000
LOAD_BALANCE = Decimal(100_000)
LOAD_UNLIMITED = ("max_position_size", "max_positions", "daily_trade_limit", "max_daily_loss", "max_order_notional")
DEPOSITS_A_STATEMENT = 1_000
UNMETERED = "unmetered"

PERMISSIONS = {
    "trader": ("orders:read", "orders:write", "positions:read", "account:read"),
    "risk_officer": (
        "orders:read",
        "positions:read",
        "account:read",
        "risk:write",
        "interventions:write",
        "security:read",
        "alerts:write",
    ),
    "on_call": ("orders:read", "positions:read", "account:read", "alerts:write"),
    "compliance": ("orders:read", "positions:read", "account:read", "audit:read"),
    "operator": (
        "orders:read",
        "positions:read",
        "account:read",
        "accounts:write",
        "platform:write",
        "interventions:write",
        "security:read",
        "alerts:write",
    ),
}


@dataclass(frozen=True, slots=True)
class DemoUser:
    """One demo user with one account. A cash account is unleveraged and netting."""

    email: str
    tier: str = "gold"
    role: str = "trader"
    kyc_status: str = "verified"
    account_status: str = "active"
    kind: str = "margin"
    currency: str = "USD"
    balance: Decimal = Decimal(100_000)

    @property
    def leverage(self) -> int:
        """The account's leverage."""
        return 1 if self.kind == "cash" else 100

    @property
    def position_mode(self) -> str:
        """How the account keeps positions of one symbol."""
        return "netting" if self.kind == "cash" else "hedging"


DEMO_USERS = (
    DemoUser("bronze@example.com", tier="bronze"),
    DemoUser("silver@example.com", tier="silver"),
    DemoUser("gold@example.com", tier="gold"),
    DemoUser("platinum@example.com", tier="platinum"),
    DemoUser("cash@example.com", kind="cash", balance=Decimal(15_100)),
    DemoUser("euro@example.com", currency="EUR", balance=Decimal(50_000)),
    DemoUser("pound@example.com", currency="GBP", balance=Decimal(50_000)),
    DemoUser("unverified@example.com", kyc_status="pending"),
    DemoUser("suspended@example.com", account_status="suspended"),
    DemoUser("risk@example.com", role="risk_officer", balance=Decimal(0)),
    DemoUser("compliance@example.com", role="compliance", balance=Decimal(0)),
    DemoUser("operator@example.com", role="operator", balance=Decimal(0)),
    DemoUser("oncall@example.com", role="on_call", balance=Decimal(0)),
)
DEMO_BY_EMAIL = {user.email: user for user in DEMO_USERS}


def is_load_account(email: str) -> bool:
    """Whether it is one of the accounts for benchmarks and race tests, which are not rate limited."""
    return email.startswith(LOAD_PREFIX)


def load_demo_accounts(connection: psycopg.Connection[Any]) -> None:
    """Make the demo users that are missing; `connection` is the owner's, in autocommit."""
    for user in DEMO_USERS:
        user_id = _profile(connection, user)
        account_id, ledger_version = _account(connection, user_id, user)
        if ledger_version == 0 and user.balance > 0:
            _fund(connection, [_deposit(user_id, account_id, user.balance, "demo funding", "demo-funding")])


def _profile(connection: psycopg.Connection[Any], user: DemoUser) -> Any:
    connection.execute(
        "INSERT INTO profiles (email, kyc_status, account_status, account_tier) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT (email) DO NOTHING",
        (user.email, user.kyc_status, user.account_status, user.tier),
    )
    return _row(connection, "SELECT id FROM profiles WHERE email = %s", (user.email,))[0]


def _account(connection: psycopg.Connection[Any], user_id: Any, user: DemoUser) -> tuple[Any, int]:
    with connection.transaction():
        connection.execute(
            "INSERT INTO accounts (user_id, currency, kind, leverage, position_mode) "
            "SELECT %(user)s, %(currency)s, %(kind)s, %(leverage)s, %(mode)s "
            "WHERE NOT EXISTS (SELECT FROM accounts WHERE user_id = %(user)s)",
            {
                "user": user_id,
                "currency": user.currency,
                "kind": user.kind,
                "leverage": user.leverage,
                "mode": user.position_mode,
            },
        )
        connection.execute(
            "INSERT INTO risk_settings (user_id, account_id) SELECT user_id, id FROM accounts WHERE user_id = %s "
            "ON CONFLICT DO NOTHING",
            (user_id,),
        )
        account_id, version = _row(
            connection, "SELECT id, ledger_version FROM accounts WHERE user_id = %s ORDER BY id LIMIT 1", (user_id,)
        )
    return account_id, version


def make_load_accounts(connection: psycopg.Connection[Any], count: int, balance: Decimal = LOAD_BALANCE) -> None:
    """Make load-0001@example.com to load-<count>; `balance` USD each for the new ones; no risk limit binds them."""
    connection.execute(
        """
        WITH made AS (
            INSERT INTO profiles (email, kyc_status, account_tier)
            SELECT format('load-%%s@example.com', to_char(i, 'FM999990000')), 'verified', 'gold'
            FROM generate_series(1, %(count)s) AS i
            ON CONFLICT (email) DO NOTHING
            RETURNING id
        ), opened AS (
            INSERT INTO accounts (user_id, currency) SELECT id, 'USD' FROM made RETURNING user_id, id
        )
        INSERT INTO risk_settings (user_id, account_id, unlimited)
        SELECT user_id, id, %(unlimited)s FROM opened
        """,
        {"count": count, "unlimited": list(LOAD_UNLIMITED)},
    )
    empty = connection.execute(
        "SELECT a.user_id, a.id FROM accounts AS a JOIN profiles AS p ON p.id = a.user_id "
        "WHERE starts_with(p.email, %s) AND a.ledger_version = 0 ORDER BY a.id",
        (LOAD_PREFIX,),
    ).fetchall()
    _fund(
        connection,
        [_deposit(user_id, account_id, balance, "load account", "load-funding") for user_id, account_id in empty],
    )


def _deposit(user_id: Any, account_id: Any, amount: Decimal, reason: str, key: str) -> dict[str, object]:
    return {
        "version": 1,
        "user_id": str(user_id),
        "account_id": str(account_id),
        "amount": str(amount),
        "reason": reason,
        "idempotency_key": key,
        "actor": "local",
    }


def _fund(connection: psycopg.Connection[Any], deposits: Sequence[dict[str, object]]) -> None:
    """One transaction an account, a round trip for many."""
    with _as_operator(connection):
        for requests in batched(deposits, DEPOSITS_A_STATEMENT, strict=False):
            connection.execute(
                sql.SQL("""
                DO $$
                DECLARE
                    v_request jsonb;
                BEGIN
                    FOR v_request IN SELECT jsonb_array_elements({requests}) LOOP
                        PERFORM deposit(v_request);
                        COMMIT;
                    END LOOP;
                END
                $$
                """).format(requests=sql.Literal(Jsonb(list(requests))))
            )


@contextmanager
def _as_operator(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """What is called inside is called with the rights of operators, so that no other right can be what lets it pass."""
    connection.execute("SET ROLE function_operator")
    try:
        yield
    finally:
        connection.execute("RESET ROLE")


def _row(connection: psycopg.Connection[Any], query: str, parameters: tuple[object, ...]) -> Any:
    row = connection.execute(query.encode(), parameters).fetchone()
    if row is None:
        raise LookupError(f"nothing found by: {query}")
    return row
