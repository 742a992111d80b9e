"""Replacing an order that works by another one in its place."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from trading.execution import Execution, OrderProcedure, Origin, RelayWaker, origin_fields, settled
from trading.moments import read_moment
from trading.order_entry import (
    LABEL_CHARACTERS_MAX,
    VERSION_MAX,
    Conditions,
    DisplayVariance,
    Key,
    LimitOffset,
    PositiveNumber,
    Price,
    TrailPercent,
    lower_case,
)
from trading.orders import TimeInForce

# What may be taken away from an order, by null.
REMOVABLE = frozenset({"stop_loss", "take_profit", "conditions", "display_quantity", "display_variance"})
# What makes an order another one: for that it is canceled, and a new one sent.
FIXED = ("symbol", "side", "order_type", "post_only", "reduce_only")


class OrderChange(BaseModel):
    """What of an order changes; what is left out stays. `quantity` is in all, with what is filled.

    What is REMOVABLE and given as None is taken away; without display_quantity the whole is shown. Of trail_amount and
    trail_percent the one that is given takes the other's place. `version` is the one that the caller knows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantity: PositiveNumber | None = None
    limit_price: Price | None = None
    stop_price: Price | None = None
    trail_amount: Price | None = None
    trail_percent: TrailPercent | None = None
    limit_offset: LimitOffset | None = None
    display_quantity: PositiveNumber | None = None
    display_variance: DisplayVariance | None = None
    stop_loss: Price | None = None
    take_profit: Price | None = None
    time_in_force: Annotated[TimeInForce, BeforeValidator(lower_case)] | None = None
    expires_at: Annotated[datetime, BeforeValidator(read_moment)] | None = None
    conditions: Conditions | None = None
    client_order_id: Annotated[Key, Field(max_length=LABEL_CHARACTERS_MAX)] | None = None
    version: Annotated[int, Field(strict=True, ge=1, le=VERSION_MAX)] | None = None

    def changes_something(self) -> bool:
        """Whether anything is said of the order itself."""
        return not self.model_fields_set <= {"version", "idempotency_key"}

    def asked(self, order_id: UUID) -> dict[str, Any]:
        """The part of a request of replace_order that says what becomes of which order."""
        given = self.model_dump(mode="python", exclude_unset=True)
        # A request has a version of its own.
        known = {"order_version": given.pop("version")} if "version" in given else {}
        return {"order_id": order_id, **given, **known}


class ReplaceEntry(OrderChange):
    """What a caller says of a replacement."""

    idempotency_key: Key


def replace_order(
    order_id: UUID,
    entry: ReplaceEntry,
    origin: Origin,
    *,
    request_hash: str,
    key_days: int,
    procedure: OrderProcedure,
    wake_relay: RelayWaker,
) -> Execution:
    """Put a new order in the place of the old one and wake the relay for the event of both.

    The `answer` is the new order's, with the old one as `replaced`. Raises what store.orders.replace_order raises.
    """
    return settled(procedure(entry.asked(order_id) | origin_fields(origin, request_hash, key_days)), wake_relay)
