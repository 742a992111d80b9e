"""What an officer asks for: a step that is taken for a while."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from trading.account_requests import Reason
from trading.order_entry import Key, lower_case

SECONDS_MAX = 30 * 24 * 60 * 60
TARGET_CHARACTERS_MAX = 128
PARAMETERS_MAX = 10

type Kind = Literal["maintenance", "ip_block", "account_suspension", "reserved_concurrency", "price_provider"]


class InterventionRequest(BaseModel):
    """A step of `kind` on `target` for `seconds`; how long a kind may last at most, the procedure says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Annotated[Kind, BeforeValidator(lower_case)]
    target: Annotated[str, Field(min_length=1, max_length=TARGET_CHARACTERS_MAX)] | None = None
    parameters: Annotated[dict[str, Any], Field(max_length=PARAMETERS_MAX)] = {}
    seconds: Annotated[int, Field(ge=1, le=SECONDS_MAX, strict=True)]
    reason: Reason
    idempotency_key: Key
