"""The database's procedures of what prices have touched."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from trading.store.database import Database

REQUEST_VERSION = 1

type Kind = Literal["order", "stop_loss", "take_profit", "trailing_stop", "condition", "expiry"]
type TriggerState = Literal[
    "new", "triggered", "partially_filled", "filled", "rejected", "canceled", "expired", "routed", "idle", "lost"
]


@dataclass(frozen=True, slots=True)
class Trigger:
    """A row of the queue under lease: an order, its condition, or the position whose exit it is.

    `attempts` counts this one.
    """

    user_id: UUID
    subject_id: UUID
    account_id: UUID
    kind: Kind
    fencing: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Executed:
    """What came of a trigger; `told` that there is an event of it."""

    state: TriggerState
    told: bool
    # A closing order that has still to be handed to its venue.
    sent_order_id: UUID | None = None


class TriggerStore:
    """Procedures of the worker that `holder` names in its leases."""

    def __init__(self, database: Database, holder: UUID, *, lease_ms: int, request_id: str | None = None) -> None:
        self._database = database
        self._holder = holder
        self._lease_ms = lease_ms
        self._request_id = request_id

    def claim(self, *, users: int, limit: int) -> list[Trigger]:
        """Lease what is queued of up to `users` users, the longest waiting first; at most `limit` rows."""
        request = {"holder": self._holder, "users": users, "limit": limit, "lease_ms": self._lease_ms}
        return [_trigger(row) for row in self._call("claim_triggers", request)]

    def execute(self, trigger: Trigger) -> Executed:
        """Execute it in one transaction. MARKET_DATA_UNAVAILABLE: it stays queued until its lease has run out."""
        request = {
            "user_id": trigger.user_id,
            "subject_id": trigger.subject_id,
            "account_id": trigger.account_id,
            "holder": self._holder,
            "fencing": trigger.fencing,
            "request_id": self._request_id,
        }
        answer = self._call("execute_trigger", request)
        sent = UUID(answer["order_id"]) if answer["order_id"] else None
        return Executed(answer["state"], answer["sequence"] is not None, sent)

    def _call(self, procedure: str, request: Mapping[str, object]) -> Any:
        return self._database.call(procedure, {"version": REQUEST_VERSION, **request})


def _trigger(row: dict[str, Any]) -> Trigger:
    return Trigger(
        UUID(row["user_id"]),
        UUID(row["subject_id"]),
        UUID(row["account_id"]),
        row["kind"],
        row["fencing"],
        row["attempts"],
    )
