"""Closing a position, whole or in part."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from trading.execution import (
    Execution,
    OrderProcedure,
    Origin,
    RelayWaker,
    RouteStarter,
    origin_fields,
    sent_on,
    settled,
)
from trading.order_entry import Key, Number, PositiveNumber


class CloseEntry(BaseModel):
    """What a caller says of a close: `quantity` in lots (None: the whole), `max_slippage` in price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantity: PositiveNumber | None = None
    max_slippage: Annotated[Number, Field(ge=0)] | None = None
    idempotency_key: Key

    def asked(self) -> dict[str, object]:
        """What is asked for, without the key."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"idempotency_key"})


class CloseByEntry(BaseModel):
    """What a caller says of closing a position against an opposite one: `quantity` in lots (None: of the smaller)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    opposite_position_id: UUID
    quantity: PositiveNumber | None = None
    idempotency_key: Key

    def asked(self) -> dict[str, object]:
        """What is asked for, without the key."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"idempotency_key"})


def close_position(
    position_id: UUID,
    entry: CloseEntry | CloseByEntry,
    origin: Origin,
    *,
    request_hash: str,
    key_days: int,
    procedure: OrderProcedure,
    start_routing: RouteStarter,
    wake_relay: RelayWaker,
) -> Execution:
    """Close the position, at the market or against an opposite one, and wake the relay for the event.

    One that is held at a venue is closed there: its order is in flight, and `start_routing` is told. The `answer` of a
    fill also has `position`, as the fill left it, and the `opposite_position` where there is one.
    Raises what store.orders.close_position or store.positions.close_by raises, whichever is the `procedure`.
    """
    asked: dict[str, object] = {"position_id": position_id, **entry.model_dump(mode="python", exclude_none=True)}
    kept = settled(procedure(asked | origin_fields(origin, request_hash, key_days)), wake_relay)
    return sent_on(kept, origin, start_routing)
