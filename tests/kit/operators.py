"""What operators ask of an account, through the procedures as the function's role sends them."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from tests.kit.builders import User
from tests.kit.orders import Market

OPERATOR_ID = uuid.UUID("01a1fc5d-0000-7000-8000-00000000beef")


def operator_request(user: User, **overrides: object) -> dict[str, object]:
    """A request of an operator on the user's account, with a key and a hash of its own; None leaves a field out."""
    key = str(uuid.uuid4())
    request = {
        "version": 1,
        "user_id": str(user.user_id),
        "account_id": str(user.account_id),
        "reason": "asked for by a test",
        "idempotency_key": key,
        "idempotency_key_days": 30,
        "request_hash": f"hash of {key}",
        "request_id": f"test-{key}",
        "actor": str(OPERATOR_ID),
        "actor_id": str(OPERATOR_ID),
        "email": "operator@example.com",
        "ip_address": "192.0.2.9",
        "user_agent": "tests",
    } | overrides
    return {name: value for name, value in request.items() if value is not None}


def act(connection: psycopg.Connection[Any], procedure: str, request: Mapping[str, object]) -> dict[str, Any]:
    """The answer of a procedure."""
    row = connection.execute(f"SELECT {procedure}(%s)".encode(), (Jsonb(request),)).fetchone()
    assert row is not None
    return row[0]


@dataclass(frozen=True, slots=True)
class Desk:
    """An operator at a connection of the role function_operator."""

    market: Market
    connection: psycopg.Connection[Any]

    def act(self, procedure: str, user: User, **fields: object) -> dict[str, Any]:
        """The answer of a procedure to a request about the user's account."""
        return act(self.connection, procedure, operator_request(user, **fields))

    def balance(self, user: User) -> Decimal:
        """The balance on the account's row."""
        return self.market.account(user)["balance"]
