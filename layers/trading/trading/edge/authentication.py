"""Who is calling: a JWT verified with the one algorithm that the configuration names."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NoReturn, cast
from uuid import UUID

from trading.edge.rate_limit import LIMIT_BY_TIER
from trading.errors import ErrorCode, TradingError

TOKEN_CHARACTERS_MAX = 8 * 1024
CLAIM_CHARACTERS_MAX = 256
PERMISSIONS_MAX = 100
CLOCK_SKEW_SECONDS = 5
# The end of the year 9999: what lies behind it is no time, as milliseconds in place of seconds are none.
MOMENT_MAX = 253_402_300_799
VERIFIED_TOKENS_MAX = 256
# A key that was withdrawn at the issuer stops working here after this long.
VERIFIED_TOKEN_SECONDS = 300

type KeyFinder = Callable[[str | None], Any]
"""Finds the key for a token's `kid`; UnknownKeyError when there is none."""


class UnknownKeyError(Exception):
    """The issuer has no such signing key."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a verified token says about its holder."""

    user_id: UUID
    email: str
    role: str
    tier: str
    permissions: frozenset[str]
    session_id: str | None
    client_id: str | None
    expires_at: float
    not_before: float


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must be: `algorithm`, `issuer`, one of `audiences`; and how its claims are named.

    Only with `unmetered_allowed` may the issuer free a token from the rate limit.
    """

    algorithm: str
    issuer: str
    audiences: tuple[str, ...]
    claim_names: Mapping[str, str]
    unmetered_allowed: bool = False


class Authenticator:
    """Verifies bearer tokens; keeps the verified ones for a while, and checks their times on each use."""

    def __init__(self, rules: TokenRules, find_key: KeyFinder, *, clock: Callable[[], float]) -> None:
        self._rules = rules
        self._find_key = find_key
        self._clock = clock
        self._verified: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()

    def identify(self, authorization: str | None) -> Identity:
        """The identity behind an `Authorization: Bearer ...` value; UNAUTHENTICATED otherwise."""
        return self.verify(bearer_token(authorization))

    def verify(self, token: str) -> Identity:
        """The identity that `token` proves; UNAUTHENTICATED when it proves none."""
        if len(token) > TOKEN_CHARACTERS_MAX:
            _refuse("too long")
        digest = sha256(token.encode("utf-8", errors="replace")).digest()
        now = self._clock()
        identity = self._remembered(digest, now)
        if identity is None:
            identity = _identity(self._claims(token), self._rules)
            self._remember(digest, now, identity)
        _check_times(identity, now)
        return identity

    def _claims(self, token: str) -> dict[str, Any]:
        import jwt

        try:
            kid = jwt.get_unverified_header(token).get("kid")
            # Times, audience and issuer are checked here below: with our clock, and with client_id as audience.
            return jwt.decode(
                token,
                self._find_key(kid),
                algorithms=[self._rules.algorithm],
                options={
                    "verify_signature": True,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": False,
                    "verify_iss": False,
                    "verify_sub": False,
                    "verify_jti": False,
                },
            )
        except (jwt.PyJWTError, UnknownKeyError, ValueError, RecursionError) as error:
            raise _unauthenticated("signature") from error

    def _remembered(self, digest: bytes, now: float) -> Identity | None:
        known = self._verified.get(digest)
        # A clock that was set back must not make the memory last longer.
        if known is None or not 0 <= now - known[0] < VERIFIED_TOKEN_SECONDS:
            return None
        self._verified.move_to_end(digest)
        return known[1]

    def _remember(self, digest: bytes, now: float, identity: Identity) -> None:
        self._verified[digest] = (now, identity)
        self._verified.move_to_end(digest)
        while len(self._verified) > VERIFIED_TOKENS_MAX:
            self._verified.popitem(last=False)


def bearer_token(authorization: str | None) -> str:
    """The token of an Authorization header; UNAUTHENTICATED when there is none."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        _refuse("Bearer token required")
    return token


def _identity(claims: Mapping[str, Any], rules: TokenRules) -> Identity:
    _check_issuer_and_audience(claims, rules)
    named = {name: claims.get(rules.claim_names.get(name, name)) for name in _CLAIMS}
    issued_at = _time(claims, "iat")
    not_before = _time(claims, "nbf") if "nbf" in claims else issued_at
    return Identity(
        user_id=_user_id(named["sub"]),
        email=_text(named["email"], "email"),
        role=_text(named["role"], "role"),
        tier=_tier(named["tier"], rules),
        permissions=_permissions(named["permissions"]),
        session_id=_optional_text(named["sid"], "sid"),
        client_id=_optional_text(named["client_id"], "client_id"),
        expires_at=_time(claims, "exp"),
        not_before=max(issued_at, not_before),
    )


_CLAIMS = ("sub", "email", "role", "tier", "permissions", "sid", "client_id")


def _check_issuer_and_audience(claims: Mapping[str, Any], rules: TokenRules) -> None:
    if claims.get("iss") != rules.issuer:
        _refuse("issuer")
    # Access tokens of some issuers have no `aud` and name the client that they were made for instead.
    audience: Any = claims["aud"] if "aud" in claims else claims.get("client_id")
    given = cast("list[Any]", audience) if isinstance(audience, list) else [audience]
    if not any(isinstance(name, str) and name in rules.audiences for name in given):
        _refuse("audience")


def _check_times(identity: Identity, now: float) -> None:
    if now >= identity.expires_at:
        _refuse("expired")
    if now < identity.not_before - CLOCK_SKEW_SECONDS:
        _refuse("not valid yet")


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(f"claim {name}")
    try:
        moment = float(value)
    except OverflowError:
        moment = math.inf
    if not math.isfinite(moment) or moment > MOMENT_MAX:
        _refuse(f"claim {name}")
    return moment


def _user_id(value: Any) -> UUID:
    try:
        return UUID(_text(value, "sub"))
    except ValueError as error:
        raise _unauthenticated("claim sub") from error


def _text(value: Any, name: str) -> str:
    # What cannot be printed can be neither logged nor, as NUL and lone surrogates, stored.
    if not isinstance(value, str) or not 0 < len(value) <= CLAIM_CHARACTERS_MAX or not value.isprintable():
        _refuse(f"claim {name}")
    return value


def _optional_text(value: Any, name: str) -> str | None:
    return None if value is None else _text(value, name)


def _tier(value: Any, rules: TokenRules) -> str:
    tier = _text(value, "tier")
    if tier not in LIMIT_BY_TIER or (LIMIT_BY_TIER[tier] is None and not rules.unmetered_allowed):
        _refuse("claim tier")
    return tier


def _permissions(value: Any) -> frozenset[str]:
    """A list of words, or one text with spaces between them."""
    words: Any = value.split() if isinstance(value, str) else value
    if not isinstance(words, list):
        _refuse("claim permissions")
    words = cast("list[Any]", words)
    if len(words) > PERMISSIONS_MAX:
        _refuse("claim permissions")
    return frozenset(_text(word, "permissions") for word in words)


def _refuse(constraint: str) -> NoReturn:
    raise _unauthenticated(constraint)


def _unauthenticated(constraint: str) -> TradingError:
    # What exactly is wrong is told only as far as an honest client needs it; the token itself is never repeated.
    return TradingError(
        ErrorCode.UNAUTHENTICATED,
        "The access token is missing or not valid. Sign in again and send it as Authorization: Bearer.",
        {"field": "Authorization", "value": None, "constraint": constraint},
    )
