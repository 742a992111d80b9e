"""What an operator asks for: money moved on an account, a change of what its user is and may, or of its limits."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from trading.order_entry import DIGITS_MAX, VERSION_MAX, Key, Number, lower_case
from trading.staff_text import SAID, text_taken

REASON_CHARACTERS_MAX = 500
REASON_TAKEN = text_taken(REASON_CHARACTERS_MAX)
PROFILE_CHARACTERS_MAX = 32
LIMITS_MAX = 50
LEVELS_MAX = 10
LEVEL_NAME_FORM = r"^[a-z][a-z0-9_]{0,31}$"
THRESHOLD_MAX = 1000
RELEASE_PERCENT_MAX = 200


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


type StopOutPolicy = Literal["largest_loss_first", "most_margin_first", "fifo", "smallest_partial_step"]
type LevelAction = Literal["warn", "call", "stop_out"]


class MarginLevel(BaseModel):
    """A level of a margin profile: `threshold` in percent of margin level, left at `release_percent` of that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=LEVEL_NAME_FORM)]
    action: Annotated[LevelAction, BeforeValidator(lower_case)]
    threshold: Annotated[Number, Field(ge=0, le=THRESHOLD_MAX)]
    release_percent: Annotated[Number, Field(ge=100, le=RELEASE_PERCENT_MAX)] = Decimal(105)


class MarginProfileChange(BaseModel):
    """New terms of a margin profile; what is left out stays, `levels` come in place of all.

    `version` is the one that the caller knows. Which levels go together is for `check_margin_levels` in the database
    to say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stop_out_policy: Annotated[StopOutPolicy | None, BeforeValidator(lower_case)] = None
    negative_balance_protection: Annotated[bool, Field(strict=True)] | None = None
    levels: Annotated[tuple[MarginLevel, ...], Field(max_length=LEVELS_MAX)] | None = None
    version: Annotated[int, Field(strict=True, ge=1, le=VERSION_MAX)] | None = None
    reason: Reason
    idempotency_key: Key

    def as_request(self) -> dict[str, Any]:
        """What change_margin_profile takes of it: a request has a version of its own."""
        given = self.model_dump(mode="python", exclude_none=True)
        known = {"known_version": given.pop("version")} if "version" in given else {}
        return given | known
