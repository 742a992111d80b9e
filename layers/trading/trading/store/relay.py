"""The relay's calls to the database: leases on accounts, their events, and how far each is delivered."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from trading.events import Event
from trading.store.database import Database


@dataclass(frozen=True, slots=True)
class Cursor:
    """A connection that has every event of an account up to `sent_sequence`."""

    connection_id: str
    sent_sequence: int
    subscription: int
    failed_attempts: int
    channels: frozenset[str]


@dataclass(frozen=True, slots=True)
class Stream:
    """An account under lease. `publish` says whether its events are also due on the Redis channel."""

    user_id: UUID
    account_id: UUID
    fencing: int
    pushed_sequence: int
    last_sequence: int
    publish: bool
    cursors: tuple[Cursor, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """The streams leased now, and the accounts that have work but could not be leased."""

    streams: tuple[Stream, ...]
    busy: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a connection got: `failed` when its last message did not arrive, for no known reason."""

    cursor: Cursor
    sent_sequence: int
    failed: bool


@dataclass(frozen=True, slots=True)
class Delivered:
    """What was done under one lease. `pushed_sequence` is None when nothing was published."""

    stream: Stream
    pushed_sequence: int | None
    publish_failed: bool
    advances: tuple[Advance, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Advanced:
    """Accounts whose lease was lost meanwhile, and accounts that have more to deliver right now."""

    lost: frozenset[UUID]
    behind: frozenset[UUID]


class RelayStore:
    """Procedures of the relay. `holder` names this copy of it in its leases; time limits are in milliseconds."""

    def __init__(
        self,
        database: Database,
        holder: UUID,
        *,
        lease_ms: int,
        publish_retry_ms: int,
        post_retry_ms: int,
        post_retry_ms_max: int,
    ) -> None:
        self._database = database
        self._holder = holder
        self._lease_ms = lease_ms
        self._retries = {
            "publish_retry_ms": publish_retry_ms,
            "post_retry_ms": post_retry_ms,
            "post_retry_ms_max": post_retry_ms_max,
        }

    def claim(self, account_ids: Collection[UUID], *, recent_ms: int | None, limit: int) -> Claim:
        """Lease up to `limit` of `account_ids`, and with `recent_ms` of the accounts with events that young.

        A call that is repeated after a lost answer finds its own leases busy until they expire; nothing is lost.
        """
        answer = self._database.call(
            "claim_streams",
            {
                "version": 1,
                "holder": self._holder,
                "account_ids": list(account_ids),
                "recent_ms": recent_ms,
                "limit": limit,
                "lease_ms": self._lease_ms,
            },
        )
        return Claim(
            streams=tuple(_stream(row) for row in answer["streams"]),
            busy=frozenset(UUID(account_id) for account_id in answer["busy"]),
        )

    def read(self, cursors: Iterable[tuple[Stream, int]], *, limit: int) -> dict[UUID, list[Event]]:
        """Events after each (stream, sequence), at most `limit` each, in order, by account."""
        reads = [
            {"user_id": stream.user_id, "account_id": stream.account_id, "after": after} for stream, after in cursors
        ]
        found: dict[UUID, list[Event]] = {}
        for row in self._database.call("read_events", {"version": 1, "limit": limit, "reads": reads}):
            event = _event(row)
            found.setdefault(event.account_id, []).append(event)
        return found

    def advance(self, delivered: Sequence[Delivered]) -> Advanced:
        """Record deliveries, end their leases, forget the connections that are gone. Safe to repeat."""
        answer = self._database.call(
            "advance_streams",
            {
                "version": 1,
                "holder": self._holder,
                "streams": [_delivery(done) for done in delivered],
                "gone": [connection_id for done in delivered for connection_id in done.gone],
                **self._retries,
            },
        )
        return Advanced(
            lost=frozenset(UUID(account_id) for account_id in answer["lost"]),
            behind=frozenset(UUID(account_id) for account_id in answer["behind"]),
        )

    def accounts_behind(self, *, limit: int) -> frozenset[UUID]:
        """Of all accounts, up to `limit` that have something to deliver."""
        answer = self._database.call("list_accounts_behind", {"version": 1, "limit": limit})
        return frozenset(UUID(account_id) for account_id in answer)


def _stream(row: Mapping[str, Any]) -> Stream:
    return Stream(
        user_id=UUID(row["user_id"]),
        account_id=UUID(row["account_id"]),
        fencing=row["fencing"],
        pushed_sequence=row["pushed_sequence"],
        last_sequence=row["last_sequence"],
        publish=row["publish"],
        cursors=tuple(
            Cursor(
                connection_id=cursor["connection_id"],
                sent_sequence=cursor["sent_sequence"],
                subscription=cursor["subscription"],
                failed_attempts=cursor["failed_attempts"],
                channels=frozenset(cursor["channels"]),
            )
            for cursor in row["connections"]
        ),
    )


def _event(row: Mapping[str, Any]) -> Event:
    return Event(
        user_id=UUID(row["user_id"]),
        account_id=UUID(row["account_id"]),
        sequence=row["sequence"],
        event_type=row["event_type"],
        payload=row["payload"],
        request_id=row["request_id"],
    )


def _delivery(done: Delivered) -> dict[str, object]:
    return {
        "account_id": done.stream.account_id,
        "fencing": done.stream.fencing,
        "pushed_sequence": done.pushed_sequence,
        "publish_failed": done.publish_failed,
        "cursors": [
            {
                "connection_id": advance.cursor.connection_id,
                "subscription": advance.cursor.subscription,
                "sent_sequence": advance.sent_sequence,
                "failed": advance.failed,
            }
            for advance in done.advances
        ],
    }
