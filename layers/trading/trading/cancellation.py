"""Canceling an order that rests."""

from uuid import UUID

from pydantic import BaseModel, ConfigDict

from trading.execution import Execution, OrderProcedure, Origin, RelayWaker, origin_fields, settled
from trading.order_entry import Key


class CancelEntry(BaseModel):
    """What a caller says of a cancellation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    idempotency_key: Key


def cancel_order(
    order_id: UUID,
    entry: CancelEntry,
    origin: Origin,
    *,
    request_hash: str,
    key_days: int,
    procedure: OrderProcedure,
    wake_relay: RelayWaker,
) -> Execution:
    """Cancel the order and wake the relay for its event; raises what store.orders.cancel_order raises."""
    asked = {"order_id": order_id, "idempotency_key": entry.idempotency_key}
    return settled(procedure(asked | origin_fields(origin, request_hash, key_days)), wake_relay)
