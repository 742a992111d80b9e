"""Managing an open position: where it is to end."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from trading.execution import Execution, OrderProcedure, Origin, RelayWaker, origin_fields, settled
from trading.order_entry import Key, PositiveNumber, Price, only_true

VERSION_MAX = 2**31 - 1
# What null removes; of the others it says nothing.
REMOVABLE = frozenset({"stop_loss", "take_profit", "trailing_distance"})


class PositionChange(BaseModel):
    """New levels of a position: what is left out stays, None removes what is REMOVABLE.

    Distances are in price, of the trail from the mark and else from the entry price; amounts are the loss or profit at
    the level in account currency. `version` is the one that the caller saw.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stop_loss: Price | None = None
    stop_loss_distance: PositiveNumber | None = None
    stop_loss_amount: PositiveNumber | None = None
    take_profit: Price | None = None
    take_profit_distance: PositiveNumber | None = None
    take_profit_amount: PositiveNumber | None = None
    trailing_distance: PositiveNumber | None = None
    breakeven: Annotated[Literal[True], BeforeValidator(only_true)] | None = None
    version: Annotated[int, Field(strict=True, ge=1, le=VERSION_MAX)] | None = None
    idempotency_key: Key

    def levels(self) -> dict[str, object]:
        """The levels that were named, by the form that they came in."""
        return self.model_dump(mode="python", exclude_unset=True, exclude={"version", "idempotency_key"})

    def asked(self, position_id: UUID) -> dict[str, object]:
        """What is asked of a position, without the key."""
        asked: dict[str, object] = {"position_id": position_id, "levels": self.levels()}
        return asked if self.version is None else asked | {"expected_version": self.version}


def change_position(
    position_id: UUID,
    change: PositionChange,
    origin: Origin,
    *,
    request_hash: str,
    key_days: int,
    procedure: OrderProcedure,
    wake_relay: RelayWaker,
) -> Execution:
    """Change the levels and wake the relay for the event; raises what store.positions.change_position raises.

    The `answer` has the `position` as it is then, as a list of positions has it.
    """
    asked = change.asked(position_id) | {"idempotency_key": change.idempotency_key}
    return settled(procedure(asked | origin_fields(origin, request_hash, key_days)), wake_relay)
