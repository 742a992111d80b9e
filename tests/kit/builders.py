"""Builders of what a test is given: users with accounts, quotes, order requests."""

import itertools
import uuid
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from tests.kit.servers import ScratchDatabase

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class User:
    """A trader and the one account of theirs."""

    user_id: UUID
    account_id: UUID
    email: str


def make_user(  # every argument is a fact that some test varies
    database: ScratchDatabase | psycopg.Connection[Any],
    *,
    email: str | None = None,
    tier: str = "gold",
    kyc: str = "verified",
    status: str = "active",
    kind: str = "margin",
    currency: str = "USD",
    leverage: Decimal | int | None = None,
    position_mode: str | None = None,
    balance: Decimal | int | str = 100_000,
    risk: dict[str, object] | None = None,
) -> User:
    """A user with one account that holds `balance`, booked by the deposit procedure.

    `database` may be a connection of the owner. `risk` overrides columns of risk_settings, where None lifts the limit;
    a cash account is netting and unleveraged unless told otherwise.
    """
    email = email or f"trader-{next(_numbers)}@example.com"
    leverage = leverage if leverage is not None else (1 if kind == "cash" else 100)
    position_mode = position_mode or ("netting" if kind == "cash" else "hedging")
    with _owner(database) as connection:
        user_id = _value(
            connection,
            "INSERT INTO profiles (email, kyc_status, account_status, account_tier) VALUES (%s, %s, %s, %s) "
            "RETURNING id",
            (email, kyc, status, tier),
        )
        account_id = _value(
            connection,
            "INSERT INTO accounts (user_id, currency, kind, leverage, position_mode) VALUES (%s, %s, %s, %s, %s) "
            "RETURNING id",
            (user_id, currency, kind, leverage, position_mode),
        )
        lifted = [name for name, value in (risk or {}).items() if value is None]
        settings = {"user_id": user_id, "account_id": account_id, "unlimited": lifted} | (risk or {})
        connection.execute(
            f"INSERT INTO risk_settings ({', '.join(settings)}) VALUES ({', '.join(['%s'] * len(settings))})".encode(),
            list(settings.values()),
        )
        if Decimal(balance) != 0:
            deposit(connection, user_id, account_id, balance)
    return User(user_id, account_id, email)


def make_other_account(
    database: ScratchDatabase | psycopg.Connection[Any], user: User, *, balance: Decimal | int | str = 100_000
) -> User:
    """One more account of `user`, hedging in dollars at 100 to 1, that holds `balance`; the user at that account."""
    with _owner(database) as connection:
        account_id = _value(
            connection,
            "INSERT INTO accounts (user_id, currency, kind, leverage, position_mode) "
            "VALUES (%s, 'USD', 'margin', 100, 'hedging') RETURNING id",
            (user.user_id,),
        )
        connection.execute(
            "INSERT INTO risk_settings (user_id, account_id) VALUES (%s, %s)", (user.user_id, account_id)
        )
        deposit(connection, user.user_id, account_id, balance)
    return User(user.user_id, account_id, user.email)


def deposit(connection: psycopg.Connection[Any], user_id: UUID, account_id: UUID, amount: Decimal | int | str) -> None:
    """Book money into an account the only way there is."""
    request = {
        "version": 1,
        "user_id": str(user_id),
        "account_id": str(account_id),
        "amount": str(amount),
        "reason": "given by a test",
        "idempotency_key": str(uuid.uuid4()),
        "actor": "tests",
    }
    connection.execute("SELECT deposit(%s)", (Jsonb(request),))


def make_position(  # at what no order would lead to
    database: ScratchDatabase | psycopg.Connection[Any],
    user: User,
    symbol: str,
    side: str,
    quantity: Decimal | str,
    entry_price: Decimal | str,
    margin_used: Decimal | str,
) -> UUID:
    """An open position at any price and margin, with the filled order that opened it and nothing else in the books."""
    with _owner(database) as connection:
        order_id = _value(
            connection,
            "INSERT INTO orders (user_id, account_id, symbol, order_type, side, quantity, status, filled_quantity, "
            "leaves_quantity, average_price, executed_at) VALUES (%s, %s, %s, 'market', %s, %s, 'filled', %s, 0, %s, "
            "clock_timestamp()) RETURNING id",
            (
                user.user_id,
                user.account_id,
                symbol,
                "buy" if side == "long" else "sell",
                quantity,
                quantity,
                entry_price,
            ),
        )
        return _value(
            connection,
            "INSERT INTO positions (user_id, account_id, order_id, symbol, side, quantity, opened_quantity, "
            "entry_price, margin_used) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
            (
                user.user_id,
                user.account_id,
                order_id,
                symbol,
                side,
                quantity,
                quantity,
                entry_price,
                margin_used,
            ),
        )


def set_quote(
    database: ScratchDatabase | psycopg.Connection[Any],
    symbol: str,
    bid: Decimal | str,
    ask: Decimal | str,
    quoted_at: datetime | None = None,
    *,
    source: str = "test",
) -> None:
    """Put a quote in place as it is, without the checks at intake; received when it was quoted, by default now."""
    at = quoted_at or datetime.now(UTC)
    with _owner(database) as connection:
        connection.execute(
            "INSERT INTO quotes (symbol, bid, ask, quoted_at, received_at, source, volatility) "
            "SELECT symbol, %(bid)s, %(ask)s, %(at)s, %(at)s, %(source)s, volatility_average FROM instruments "
            "WHERE symbol = %(symbol)s ON CONFLICT (symbol) DO UPDATE SET bid = excluded.bid, ask = excluded.ask, "
            "quoted_at = excluded.quoted_at, received_at = excluded.received_at, source = excluded.source",
            {"symbol": symbol, "bid": bid, "ask": ask, "at": at, "source": source},
        )


def order_request(user: User, **overrides: object) -> dict[str, object]:
    """A request of execute_order_atomic: buy one lot of EURUSD at the market. Overrides replace or add fields."""
    key = str(uuid.uuid4())
    return {
        "version": 1,
        "user_id": str(user.user_id),
        "account_id": str(user.account_id),
        "symbol": "EURUSD",
        "order_type": "market",
        "side": "buy",
        "quantity": "1",
        "time_in_force": "gtc",
        "idempotency_key": key,
        "idempotency_key_days": 30,
        "request_hash": f"hash of {key}",
        "request_id": f"test-{key}",
        "ip_address": "192.0.2.1",
        "user_agent": "tests",
        "email": user.email,
    } | overrides


def order_body(**fields: object) -> dict[str, object]:
    """The body of an order over HTTP: 0.1 lots of EURUSD bought under a new key. None leaves a field out."""
    body = {
        "symbol": "EURUSD",
        "order_type": "market",
        "side": "buy",
        "quantity": "0.1",
        "idempotency_key": str(uuid.uuid4()),
    }
    return {name: value for name, value in (body | fields).items() if value is not None}


def _owner(
    database: ScratchDatabase | psycopg.Connection[Any],
) -> AbstractContextManager[psycopg.Connection[Any]]:
    return nullcontext(database) if isinstance(database, psycopg.Connection) else database.connect()


def _value(connection: psycopg.Connection[Any], statement: str, parameters: tuple[object, ...]) -> Any:
    row = connection.execute(statement.encode(), parameters).fetchone()
    assert row is not None
    return row[0]
