"""Canceling an order that works, or all of an account that do."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict

from trading.execution import Execution, OrderProcedure, Origin, RelayWaker, origin_fields, settled
from trading.order_entry import Key, Symbol, lower_case
from trading.orders import OrderType, Side


class CancelEntry(BaseModel):
    """What a caller says of a cancellation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    idempotency_key: Key


class CancelAllEntry(BaseModel):
    """Which working orders a caller wants canceled: those that fit what is given, all of the account without it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: Symbol | None = None
    side: Annotated[Side, BeforeValidator(lower_case)] | None = None
    order_type: Annotated[OrderType, BeforeValidator(lower_case)] | None = None
    account_id: UUID | None = None
    idempotency_key: Key

    def asked(self) -> dict[str, object]:
        """What is asked for, without the key."""
        return self.model_dump(mode="python", exclude_none=True, exclude={"idempotency_key"})


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


def cancel_orders(
    entry: CancelAllEntry,
    origin: Origin,
    *,
    request_hash: str,
    key_days: int,
    procedure: OrderProcedure,
    wake_relay: RelayWaker,
) -> Execution:
    """Cancel the orders and wake the relay for their event; raises what store.orders.cancel_orders raises.

    The `answer` has `canceled`, what `order_fact` tells of each, and how many are `left`.
    """
    asked = entry.asked() | {"idempotency_key": entry.idempotency_key}
    return settled(procedure(asked | origin_fields(origin, request_hash, key_days)), wake_relay)
