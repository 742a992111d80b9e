"""What an officer asks for: a step that is taken for a while, another rule, a network that is never blocked."""

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


NETWORK_CHARACTERS_MAX = 49

type Severity = Literal["low", "medium", "high", "critical"]
type Response = Literal["ip_block", "account_suspension"]


class RuleChange(BaseModel):
    """New values of what is given; what is left out stays. A null `response` takes it away, with its seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    window_seconds: Annotated[int, Field(ge=10, le=86_400, strict=True)] | None = None
    severity: Annotated[Severity | None, BeforeValidator(lower_case)] = None
    enabled: Annotated[bool, Field(strict=True)] | None = None
    response: Annotated[Response | None, BeforeValidator(lower_case)] = None
    response_seconds: Annotated[int, Field(ge=1, le=86_400, strict=True)] | None = None
    reason: Reason


class NetworkRequest(BaseModel):
    """A network that is never blocked, or is no more; how large it may be, the procedure says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Annotated[str, Field(min_length=1, max_length=NETWORK_CHARACTERS_MAX)]
    reason: Reason
