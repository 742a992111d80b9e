"""Confirmations of what cannot be taken back: an HMAC over who wants what and when, good for two minutes."""

import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from trading.errors import validation_failed

LIFETIME = timedelta(minutes=2)
CLOCK_SKEW = timedelta(seconds=5)

_FORM = re.compile(r"v1\.(?P<issued>[0-9]{1,12})\.(?P<mac>[0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What is sent again to confirm, and the moment from which it is refused."""

    token: str
    expires_at: datetime


def make_confirmation(secret: str, subject: Sequence[str], now: datetime) -> Confirmation:
    """A confirmation of exactly `subject`; `now` is aware and is cut to the second."""
    issued = int(now.timestamp())
    return Confirmation(f"v1.{issued}.{_mac(secret, subject, issued)}", datetime.fromtimestamp(issued, UTC) + LIFETIME)


def check_confirmation(secret: str, token: str, subject: Sequence[str], now: datetime) -> None:
    """Return when `token` was made for `subject` less than two minutes ago, else raise VALIDATION_FAILED."""
    parts = _FORM.fullmatch(token)
    issued = int(parts["issued"]) if parts else 0
    if (
        parts is None
        or not hmac.compare_digest(_mac(secret, subject, issued), parts["mac"])
        # Only what is ours names a time for sure.
        or not -CLOCK_SKEW <= now - datetime.fromtimestamp(issued, UTC) < LIFETIME
    ):
        raise validation_failed(
            "confirmation",
            None,
            "the confirmation of the same request, less than two minutes old",
            "The confirmation does not fit or has run out. Send the request without it to get a new one.",
        )


def _mac(secret: str, subject: Sequence[str], issued: int) -> str:
    # JSON keeps the parts from running into each other; the first word keeps it from passing for a CSRF token.
    message = json.dumps(["confirmation", 1, *subject, issued])
    return hmac.new(secret.encode(), message.encode(), sha256).hexdigest()
