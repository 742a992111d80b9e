"""What an operator asks for: money moved on an account, a change of what its user is and may, or of its limits."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from trading.order_entry import DIGITS_MAX, Key, Number, lower_case
from trading.staff_text import SAID, text_taken

REASON_CHARACTERS_MAX = 500
REASON_TAKEN = text_taken(REASON_CHARACTERS_MAX)
PROFILE_CHARACTERS_MAX = 32
LIMITS_MAX = 50


type Amount = Annotated[Number, Field(gt=-(Decimal(10) ** DIGITS_MAX), lt=Decimal(10) ** DIGITS_MAX)]
type Reason = Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS_MAX), SAID]
type ProfileName = Annotated[str, Field(min_length=1, max_length=PROFILE_CHARACTERS_MAX)]
type EntryType = Literal["deposit", "withdrawal", "adjustment"]


class MoneyMovement(BaseModel):
    """Money into or out of an account: a positive `amount`, of any sign for an adjustment, in account currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entry_type: Annotated[EntryType, BeforeValidator(lower_case)]
    amount: Amount
    reason: Reason
    idempotency_key: Key


class AccountChange(BaseModel):
    """New values of what is given; what is left out stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kyc_status: Annotated[Literal["pending", "verified", "rejected"] | None, BeforeValidator(lower_case)] = None
    account_status: Annotated[Literal["active", "suspended", "closed"] | None, BeforeValidator(lower_case)] = None
    account_tier: Annotated[Literal["bronze", "silver", "gold", "platinum"] | None, BeforeValidator(lower_case)] = None
    leverage: Annotated[Number, Field(ge=1, le=1000)] | None = None
    position_mode: Annotated[Literal["hedging", "netting"] | None, BeforeValidator(lower_case)] = None
    margin_profile: Annotated[ProfileName | None, BeforeValidator(lower_case)] = None
    reason: Reason
    idempotency_key: Key


class RiskChange(BaseModel):
    """New values of the `limits` that are named; what is left out stays.

    A value, None for what the tier has (of a tier: for no limit), or `unlimited`. Which values each takes is for
    `check_limits` in the database to say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    limits: Annotated[dict[str, Any], Field(min_length=1, max_length=LIMITS_MAX)]
    reason: Reason
    idempotency_key: Key
