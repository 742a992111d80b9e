"""The registry of WebSocket connections. Each answer has a `status` word; see the procedures for their list."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from trading.store.database import Database

type Answer = dict[str, Any]


class ConnectionStore:
    """Procedures on connections; all of them are safe to repeat."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, connection_id: str, *, protocol: str | None, source_ip: str | None) -> Answer:
        """Note a connection that was accepted; `protocol` is the sub-protocol agreed on."""
        return self._call("register_connection", connection_id, protocol=protocol, source_ip=source_ip)

    def authenticate(
        self, connection_id: str, *, user_id: UUID, role: str, expires_at: datetime, connections_max: int
    ) -> Answer:
        """Bind it to a user until `expires_at`: authenticated, unknown, other_user, unknown_user or too_many."""
        return self._call(
            "authenticate_connection",
            connection_id,
            user_id=user_id,
            role=role,
            expires_at=expires_at.isoformat(),
            connections_max=connections_max,
        )

    def touch(self, connection_id: str) -> Answer:
        """What is known of it: ready, expired, unauthenticated or unknown; with the user's accounts."""
        return self._call("touch_connection", connection_id)

    def acknowledge(self, connection_id: str) -> Answer:
        """Note that the client was told that it is authenticated."""
        return self._call("acknowledge_connection", connection_id)

    def subscribe(
        self,
        connection_id: str,
        *,
        channels: Sequence[str],
        symbols: Sequence[str],
        since: int | None,
        account_id: UUID | None,
        symbols_max: int,
        hold_ms: int,
    ) -> Answer:
        """Add to what it hears and place its cursors, held for `hold_ms` or until `release`."""
        return self._call(
            "subscribe_connection",
            connection_id,
            channels=channels,
            symbols=symbols,
            since=since,
            account_id=account_id,
            symbols_max=symbols_max,
            hold_ms=hold_ms,
        )

    def release(self, connection_id: str) -> list[UUID]:
        """Let the relay deliver to it; the accounts that it has to catch up with."""
        return [UUID(account_id) for account_id in self._call("release_connection", connection_id)]

    def unsubscribe(self, connection_id: str, *, channels: Sequence[str], symbols: Sequence[str]) -> Answer:
        """Take channels and symbols away; without both, all of them."""
        return self._call("unsubscribe_connection", connection_id, channels=channels, symbols=symbols)

    def drop(self, connection_ids: Sequence[str]) -> int:
        """Forget connections; how many were known."""
        answer = self._database.call("drop_connections", {"version": 1, "connection_ids": connection_ids})
        return answer["dropped"]

    def drop_unauthenticated(self, connection_id: str) -> bool:
        """Forget it unless it has shown a token; False when it has."""
        return self._call("drop_unauthenticated_connection", connection_id)["status"] == "dropped"

    def expired(self, *, unauthenticated_seconds: int, age_seconds_max: int, limit: int) -> list[tuple[str, str]]:
        """(connection, reason) of those to be closed: unauthenticated, expired or aged."""
        request = {
            "version": 1,
            "unauthenticated_seconds": unauthenticated_seconds,
            "age_seconds_max": age_seconds_max,
            "limit": limit,
        }
        answer = self._database.call("list_expired_connections", request)
        return [(row["connection_id"], row["reason"]) for row in answer]

    def _call(self, procedure: str, connection_id: str, **fields: object) -> Any:
        return self._database.call(procedure, {"version": 1, "connection_id": connection_id, **fields})
