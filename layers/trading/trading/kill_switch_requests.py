"""What a risk officer asks of the kill switch: a trading state, or the winding down of what is left."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from trading.account_requests import Reason
from trading.order_entry import Key, lower_case

CONFIRMATION_CHARACTERS_MAX = 200

type Scope = Literal["platform", "symbol", "account"]


class Scoped(BaseModel):
    """Of whom; which of symbol and account_id a scope takes the procedures check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope: Annotated[Scope, BeforeValidator(lower_case)]
    symbol: Annotated[str, Field(min_length=1, max_length=20)] | None = None
    account_id: UUID | None = None
    reason: Reason
    idempotency_key: Key


class TradingStateChange(Scoped):
    """Who may trade from now on."""

    trading_state: Annotated[Literal["active", "reducing", "halted"], BeforeValidator(lower_case)]


class WindDown(Scoped):
    """Cancel what rests and, to flatten, close what is held. Without its confirmation it is only counted."""

    action: Annotated[Literal["cancel_orders", "flatten"], BeforeValidator(lower_case)]
    confirmation: Annotated[str, Field(min_length=1, max_length=CONFIRMATION_CHARACTERS_MAX)] | None = None
