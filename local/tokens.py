"""Access tokens of the local issuer, for people and scripts on this machine."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import psycopg

from local.demo_accounts import DEMO_BY_EMAIL, PERMISSIONS, UNMETERED, is_load_account
from local.environment import API_CLIENT_ID, JWT_AUDIENCE, JWT_ISSUER, State

LIFETIME = timedelta(hours=12)
ADDRESSES_SHOWN_MAX = 50


class UnknownAddressError(Exception):
    """No user has this address; the text lists those that exist."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A token, and the CSRF token of its session when it has one."""

    token: str
    csrf_token: str | None


def issue(state: State, connection: psycopg.Connection[Any], email: str, *, session: bool = False) -> Issued:
    """A token of the user with that address, good for 12 hours.

    Without `session` it names the API client whose tokens need no CSRF token. Raises UnknownAddressError.
    """
    from trading.edge.csrf import make_csrf_token

    row = connection.execute("SELECT id, account_tier FROM profiles WHERE email = %s", (email,)).fetchone()
    if row is None:
        raise unknown_address(connection, email)
    user_id, tier = row
    known = DEMO_BY_EMAIL.get(email)
    role = known.role if known else "trader"
    now = datetime.now(UTC)
    claims: dict[str, Any] = {
        "sub": str(user_id),
        "email": email,
        "role": role,
        "tier": UNMETERED if is_load_account(email) else tier,
        "permissions": list(PERMISSIONS[role]),
        "iat": int(now.timestamp()),
        "exp": int((now + LIFETIME).timestamp()),
        "aud": JWT_AUDIENCE,
        "iss": JWT_ISSUER,
    }
    csrf_token = None
    if session:
        claims["sid"] = secrets.token_urlsafe(16)
        csrf_token = make_csrf_token(state.secret("CsrfSecret"), user_id, claims["sid"], now).token
    else:
        claims["client_id"] = API_CLIENT_ID
    return Issued(jwt.encode(claims, state.secret("JwtSecret"), algorithm="HS256"), csrf_token)


def unknown_address(connection: psycopg.Connection[Any], email: str) -> UnknownAddressError:
    """What to raise for an address that nobody has."""
    known = ", ".join(known_addresses(connection))
    return UnknownAddressError(f"No user has the address {email or '(empty)'}. Known: {known or 'none'}")


def known_addresses(connection: psycopg.Connection[Any]) -> list[str]:
    """The first ADDRESSES_SHOWN_MAX addresses, the load accounts as one range."""
    emails = [row[0] for row in connection.execute("SELECT email FROM profiles ORDER BY email")]
    load = [email for email in emails if is_load_account(email)]
    others = [email for email in emails if not is_load_account(email)]
    if len(others) > ADDRESSES_SHOWN_MAX:
        others = [*others[:ADDRESSES_SHOWN_MAX], f"{len(others) - ADDRESSES_SHOWN_MAX} more"]
    return others + ([f"{load[0]} to {load[-1]}"] if load else [])
