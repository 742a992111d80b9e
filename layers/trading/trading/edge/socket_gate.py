"""The gate of the WebSocket: connections are counted by address, messages by connection; one round trip each.

Either is refused to an address that is blocked.
"""

from trading.edge.gate import address_limit, limiter
from trading.edge.rate_limit import Limit, connection_key, exceeded
from trading.edge.visitors import check_blocked, guard, note, offence_of_token
from trading.errors import TradingError
from trading.guarding.counted_events import Visitor
from trading.guarding.guard_copy import blockable_address

# Room for a client that subscribes symbol by symbol and pings; a minute is the limiter's window.
CONNECTION_MESSAGES_PER_MINUTE = 120


def admit_connection(source_ip: str, user_agent: str = "") -> None:
    """Count a handshake against its address, together with its HTTP requests; IP_BLOCKED, RATE_LIMIT_EXCEEDED."""
    _take(address_limit(source_ip), "came from your address", _visitor(source_ip, user_agent))


def admit_message(connection_id: str, source_ip: str = "", user_agent: str = "") -> None:
    """Count a message against its connection; IP_BLOCKED, RATE_LIMIT_EXCEEDED, and it is not to be looked at."""
    limit = Limit(connection_key(connection_id), CONNECTION_MESSAGES_PER_MINUTE, "connection")
    _take(limit, "came over this connection", _visitor(source_ip, user_agent))


def note_refusal(error: TradingError, source_ip: str, user_agent: str = "") -> None:
    """Count a token that was refused."""
    offence = offence_of_token(error)
    if offence is not None:
        note(_visitor(source_ip, user_agent), offence)


def _visitor(source_ip: str, user_agent: str) -> Visitor:
    return Visitor(address=blockable_address(source_ip), user_agent=user_agent)


def _take(limit: Limit, who: str, visitor: Visitor) -> None:
    taken = limiter().take([limit], visitor)
    check_blocked(guard().settle(taken.guard, visitor.address))
    if taken.refused is not None:
        raise exceeded(taken.standings[0], who)
