"""Who comes to the edge, what is noted of them, and who is not let in."""

from functools import lru_cache

from trading.cache import cache
from trading.edge.authentication import Identity
from trading.edge.http import Request
from trading.errors import ErrorCode, TradingError
from trading.guarding.counted_events import Visitor, note_event
from trading.guarding.guard_copy import GuardCopy, Standing, blockable_address
from trading.observability import MetricUnit, logger, metrics
from trading.store.connection import database
from trading.store.security import count_event, read_guard

# Maintenance may end before its time.
RETRY_AFTER_SECONDS_MAX = 300


@lru_cache(maxsize=1)
def guard() -> GuardCopy:
    """The copy of who is blocked, on this environment's Redis."""
    return GuardCopy(cache(), lambda: read_guard(database()), on_unknown=_note_unknown)


def visitor_of(
    request: Request, identity: Identity | None = None, refusal: TradingError | None = None, *, guarded: bool = False
) -> Visitor:
    """Whose request it is, and what `refusal` makes of it; `guarded` is a route that only some roles may use."""
    return Visitor(
        address=blockable_address(request.source_ip),
        user_id=identity.user_id if identity else None,
        user_agent=request.user_agent,
        offence=_offence(refusal, guarded=guarded) if refusal else None,
    )


def offence_of_token(error: TradingError) -> str | None:
    """The event that a refused token is; None where it was not a token that was refused."""
    constraint = error.details.get("constraint")
    if error.code is not ErrorCode.UNAUTHENTICATED or not isinstance(constraint, str):
        return None
    return f"authentication_failure|{constraint.lower().replace(' ', '_')}"


def check_blocked(standing: Standing) -> None:
    """Raise IP_BLOCKED for an address that is blocked."""
    if standing.blocked_seconds is not None:
        raise TradingError(
            ErrorCode.IP_BLOCKED,
            f"Your address is blocked for {standing.blocked_seconds} more seconds. If that is a mistake, ask support.",
            {"field": None, "value": None, "constraint": "an address that is not blocked"},
        )


def check_maintenance(standing: Standing, *, reduces: bool = False) -> None:
    """Raise MAINTENANCE while there is any; a change that only `reduces` risk is refused by full maintenance alone."""
    full = standing.full_maintenance_seconds is not None
    if standing.maintenance_seconds is None or (reduces and not full):
        return
    works = "reading works" if full else "canceling orders, closing and protecting positions and reading work"
    raise TradingError(
        ErrorCode.MAINTENANCE,
        f"This cannot be done during maintenance; {works}. Send the same request with the same key later.",
        retry_after=min(standing.maintenance_seconds, RETRY_AFTER_SECONDS_MAX),
    )


def note(visitor: Visitor, event: str) -> None:
    """Count an event that shows only once the request was judged; what cannot be counted is told, never raised."""
    try:
        note_event(cache(), visitor, event, lambda who, what: count_event(database(), who, what))
    except TradingError as error:
        logger().warning("a security event was lost", extra={"event": event, "cause": str(error)})
        metrics().add_metric(name="SecurityEventsLost", unit=MetricUnit.Count, value=1)


def _offence(refusal: TradingError, *, guarded: bool) -> str | None:
    match refusal.code:
        case ErrorCode.FORBIDDEN if guarded:
            return f"privilege_escalation|{str(refusal.details['field']).removesuffix('s')}"
        case ErrorCode.CSRF_FAILED:
            return "suspicious_activity|csrf"
        case _:
            return offence_of_token(refusal)


def _note_unknown(error: TradingError) -> None:
    logger().warning("who is blocked is not known", extra={"cause": str(error)})
    metrics().add_metric(name="GuardUnknown", unit=MetricUnit.Count, value=1)
