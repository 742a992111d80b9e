"""CSRF tokens: an HMAC over user, session, time and a nonce, good for 15 minutes."""

import hmac
import json
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import NoReturn
from uuid import UUID

from trading.errors import ErrorCode, TradingError

LIFETIME = timedelta(minutes=15)
CLOCK_SKEW = timedelta(seconds=5)

_FORM = re.compile(r"v1\.(?P<issued>[0-9]{1,12})\.(?P<nonce>[0-9a-f]{32})\.(?P<mac>[0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class CsrfToken:
    """A token and the moment from which it is refused."""

    token: str
    expires_at: datetime


def make_csrf_token(secret: str, user_id: UUID, session_id: str, now: datetime) -> CsrfToken:
    """A token that only this user's session may use; `now` is aware and is cut to the second."""
    issued = int(now.timestamp())
    nonce = secrets.token_hex(16)
    mac = _mac(secret, user_id, session_id, issued, nonce)
    return CsrfToken(f"v1.{issued}.{nonce}.{mac}", datetime.fromtimestamp(issued, UTC) + LIFETIME)


def check_csrf_token(secret: str, token: str, user_id: UUID, session_id: str, now: datetime) -> None:
    """Return when `token` was made for this user's session less than 15 minutes ago, else raise CSRF_FAILED."""
    parts = _FORM.fullmatch(token)
    if parts is None:
        _refuse("malformed")
    issued = int(parts["issued"])
    expected = _mac(secret, user_id, session_id, issued, parts["nonce"])
    if not hmac.compare_digest(expected, parts["mac"]):
        _refuse("not of this session")
    age = now - datetime.fromtimestamp(issued, UTC)
    if age >= LIFETIME:
        _refuse("expired")
    if age < -CLOCK_SKEW:
        _refuse("not valid yet")


def _mac(secret: str, user_id: UUID, session_id: str, issued: int, nonce: str) -> str:
    # JSON keeps the fields apart whatever the session's name holds.
    message = json.dumps(["csrf", 1, str(user_id), session_id, issued, nonce])
    return hmac.new(secret.encode(), message.encode(), sha256).hexdigest()


def _refuse(constraint: str) -> NoReturn:
    raise TradingError(
        ErrorCode.CSRF_FAILED,
        "The X-CSRF-Token header does not fit this session. Fetch a new token at GET /functions/v1/csrf-token.",
        {"field": "X-CSRF-Token", "value": None, "constraint": constraint},
    )
