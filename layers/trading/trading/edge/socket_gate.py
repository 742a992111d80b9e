"""The gate of the WebSocket: connections are counted by address, messages by connection; one round trip each."""

from trading.edge.gate import address_limit, limiter
from trading.edge.rate_limit import Limit, connection_key, exceeded

# Room for a client that subscribes symbol by symbol and pings; a minute is the limiter's window.
CONNECTION_MESSAGES_PER_MINUTE = 120


def admit_connection(source_ip: str) -> None:
    """Count a handshake against its address, together with its HTTP requests; RATE_LIMIT_EXCEEDED."""
    _take(address_limit(source_ip), "came from your address")


def admit_message(connection_id: str) -> None:
    """Count a message against its connection; RATE_LIMIT_EXCEEDED, and the message is not to be looked at."""
    _take(Limit(connection_key(connection_id), CONNECTION_MESSAGES_PER_MINUTE), "came over this connection")


def _take(limit: Limit, who: str) -> None:
    taken = limiter().take([limit])
    if taken.refused is not None:
        raise exceeded(taken.standings[0], who)
