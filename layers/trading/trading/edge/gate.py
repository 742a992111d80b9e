"""The gate of every HTTP request, by its outcomes in order: blocked address, address limit, token, user limit,
maintenance, CSRF, permission and role."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any
from uuid import UUID

from trading.cache import CacheUnavailableError, cache
from trading.edge.authentication import Authenticator, Identity, TokenRules
from trading.edge.csrf import check_csrf_token
from trading.edge.http import Request
from trading.edge.rate_limit import (
    LIMIT_BY_TIER,
    Limit,
    RateLimit,
    RateLimiter,
    Taken,
    address_key,
    exceeded,
    user_key,
)
from trading.edge.visitors import check_blocked, check_maintenance, guard, note, visitor_of
from trading.errors import ErrorCode, TradingError
from trading.observability import MetricUnit, logger, metrics
from trading.secrets import csrf_secret, jwt_secret
from trading.settings import ConfigurationError, required, settings
from trading.store.connection import database
from trading.store.rate_limits import take_rate_limits

JWT_SECRET_BYTES_MIN = 32


@dataclass(frozen=True, slots=True)
class Caller:
    """Who may go on. `rate_limit` is None for a tier that is not limited.

    `relay_awake` says that events are being pushed right now, so that no message need wake the relay.
    """

    user_id: UUID
    email: str
    role: str
    tier: str
    permissions: frozenset[str]
    session_id: str | None
    client_id: str | None
    rate_limit: RateLimit | None
    relay_awake: bool


def admit(
    request: Request,
    *,
    route_group: str,
    state_changing: bool,
    permission: str | Mapping[str, str] | None,
    roles: tuple[str, ...] = (),
    in_maintenance: bool = False,
    reduces: bool = False,
) -> Caller:
    """The caller of `request`, once it may go on; `permission` None asks for nothing but a valid token.

    With `roles` the token must name one of them too, and who has not got what such a route needs is noted as trying to
    gain it; `permission` maps each role to its own where they come by different ones. `in_maintenance` lets a change
    through while there is maintenance, which is how that ends; `reduces` lets one through that only takes risk away,
    unless the maintenance is full.

    Raises IP_BLOCKED, RATE_LIMIT_EXCEEDED, UNAUTHENTICATED, MAINTENANCE, CSRF_FAILED, FORBIDDEN, or
    DATABASE_UNAVAILABLE when nothing can count. What the request alone shows is judged first, because that needs no
    round trip; then one script looks for a block, counts the address and the user together, and counts the offence.
    """
    identity, refusal = _identified(request)
    barred = _barred(request, identity, state_changing=state_changing, permission=permission, roles=roles)
    visitor = visitor_of(request, identity, refusal or barred, guarded=bool(roles))
    limits = [address_limit(request.source_ip)]
    user_limit = LIMIT_BY_TIER[identity.tier] if identity else None
    if identity is not None and user_limit is not None:
        limits.append(Limit(user_key(identity.user_id, route_group), user_limit))
    taken = limiter().take(limits, visitor)

    standing = guard().settle(taken.guard, visitor.address)
    check_blocked(standing)
    _check_address(request, taken)
    if refusal is not None or identity is None:
        raise refusal or TradingError(ErrorCode.UNAUTHENTICATED, "Sign in.")
    logger().append_keys(user_id=str(identity.user_id))
    rate_limit = _check_user(request, taken) if user_limit is not None else None
    if state_changing and not in_maintenance:
        check_maintenance(standing, reduces=reduces)
    if barred is not None:
        raise barred
    request.when_not_found.append(partial(note, visitor, "data_access|not_found"))
    return _caller(identity, rate_limit, relay_awake=taken.relay_awake)


def check_permission(permissions: frozenset[str], needed: str) -> None:
    """Raise FORBIDDEN, which names the permission that is `needed`, when it is not among `permissions`."""
    if needed not in permissions:
        raise TradingError(
            ErrorCode.FORBIDDEN,
            f"Your access token does not carry the permission {needed}. Sign in with an account that has it.",
            {"field": "permissions", "value": None, "constraint": needed},
        )


def check_role(role: str, *needed: str) -> None:
    """Raise FORBIDDEN, which names the roles that are `needed`, when `role` is none of them."""
    if role not in needed:
        named = " or ".join(needed)
        raise TradingError(
            ErrorCode.FORBIDDEN,
            f"Only the role {named} may do this. Sign in with an account that has it.",
            {"field": "role", "value": None, "constraint": named},
        )


def admit_address(request: Request) -> None:
    """Count a request that needs no token against its address; IP_BLOCKED, RATE_LIMIT_EXCEEDED.

    What it may do is not worth a look into the database when there is no copy of who is blocked.
    """
    taken = limiter().take([address_limit(request.source_ip)], visitor_of(request))
    check_blocked(taken.guard)
    _check_address(request, taken)


def address_limit(source_ip: str) -> Limit:
    """The limit of an address, over HTTP and the WebSocket together."""
    return Limit(address_key(source_ip), settings().ip_requests_per_minute, "address")


@lru_cache(maxsize=1)
def authenticator() -> Authenticator:
    """The verifier of tokens that the environment describes; the WebSocket uses it too."""
    given = settings()
    rules = TokenRules(
        algorithm=given.jwt_algorithm,
        issuer=required(given.jwt_issuer, "JWT_ISSUER"),
        audiences=required(given.jwt_audience, "JWT_AUDIENCE"),
        claim_names=given.jwt_claim_names,
        unmetered_allowed=given.allow_unmetered_tier,
    )
    if rules.algorithm == "HS256":
        return Authenticator(rules, lambda _kid: _shared_key(), clock=time.time)
    from trading.edge.signing_keys import SigningKeys

    keys = SigningKeys(required(given.jwt_jwks_url, "JWT_JWKS_URL"), rules.algorithm)
    return Authenticator(rules, keys.find, clock=time.time)


@lru_cache(maxsize=1)
def limiter() -> RateLimiter:
    """The limiter on this environment's Redis, with its database to fall back on."""
    return RateLimiter(
        cache(),
        lambda limits, seconds, visitor: take_rate_limits(database(), limits, seconds, visitor),
        on_fallback=_note_fallback,
    )


def _note_fallback(error: CacheUnavailableError) -> None:
    logger().warning("rate limits are counted in the database", extra={"cause": str(error)})
    metrics().add_metric(name="RateLimitFallback", unit=MetricUnit.Count, value=1)


def _shared_key() -> Any:
    secret = jwt_secret()
    if len(secret.encode()) < JWT_SECRET_BYTES_MIN:
        raise ConfigurationError(f"JWT_SECRET must have at least {JWT_SECRET_BYTES_MIN} bytes")
    return secret


def _identified(request: Request) -> tuple[Identity | None, TradingError | None]:
    try:
        return authenticator().identify(request.headers.get("authorization")), None
    except TradingError as error:
        return None, error


def _barred(
    request: Request,
    identity: Identity | None,
    *,
    state_changing: bool,
    permission: str | Mapping[str, str] | None,
    roles: tuple[str, ...],
) -> TradingError | None:
    """Why the holder of a good token may not do this; None when they may, or when there is none."""
    if identity is None:
        return None
    try:
        if state_changing:
            _check_csrf(request, identity)
        needed = permission.get(identity.role) if isinstance(permission, Mapping) else permission
        if needed is not None:
            check_permission(identity.permissions, needed)
        if roles:
            check_role(identity.role, *roles)
    except TradingError as error:
        return error
    return None


def _check_address(request: Request, taken: Taken) -> None:
    if taken.refused == 0:
        request.answer_headers.update(taken.standings[0].headers())
        raise exceeded(taken.standings[0], "came from your address")


def _check_user(request: Request, taken: Taken) -> RateLimit:
    standing = taken.standings[1]
    request.answer_headers.update(standing.headers())
    if taken.refused == 1:
        raise exceeded(standing, "came from you")
    return standing


def _check_csrf(request: Request, identity: Identity) -> None:
    if identity.session_id is not None:
        token = request.headers.get("x-csrf-token", "")
        check_csrf_token(csrf_secret(), token, identity.user_id, identity.session_id, datetime.now(UTC))
    elif identity.client_id is None or identity.client_id not in settings().api_client_ids:
        raise TradingError(
            ErrorCode.CSRF_FAILED,
            "This token belongs to neither a browser session nor a known API client, so it may not change anything.",
            {"field": "Authorization", "value": None, "constraint": "session or API client required"},
        )


def _caller(identity: Identity, rate_limit: RateLimit | None, *, relay_awake: bool) -> Caller:
    return Caller(
        user_id=identity.user_id,
        email=identity.email,
        role=identity.role,
        tier=identity.tier,
        permissions=identity.permissions,
        session_id=identity.session_id,
        client_id=identity.client_id,
        rate_limit=rate_limit,
        relay_awake=relay_awake,
    )
