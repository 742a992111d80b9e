"""The order that a caller asks for: one model behind every dialect."""

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    model_validator,
)

from trading.moments import read_moment
from trading.orders import Direction, OrderType, QuoteSide, Side, TimeInForce

DIGITS_MAX = 18
PLACES_MAX = 12
KEY_CHARACTERS_MAX = 255
LABEL_CHARACTERS_MAX = 128
METADATA_MEMBERS_MAX = 32
METADATA_CHARACTERS_MAX = 1024
CONDITIONS_MAX = 4
# How far the database counts the versions of an order.
VERSION_MAX = 2**31 - 1
# At the opening and at the close: these wait for a time, not for a price.
TIMED = frozenset({"opg", "cls"})
# What a market order can mean that is filled at once, or when its time has come.
MARKET_TIMES_IN_FORCE = frozenset({"day", "gtc", "ioc", "fok"}) | TIMED
# How long an order may wait for its price. What has nothing but a limit may also take what there is at once, or at a
# time: to a limit order all of them are open.
RESTING_TIMES_IN_FORCE = frozenset({"day", "gtc", "gtd"})
LIMIT_TYPES = frozenset({"limit", "stop_limit", "limit_if_touched"})
STOP_TYPES = frozenset({"stop", "stop_limit", "market_if_touched", "limit_if_touched"})
# These have no price of their own until the market gives them one.
TRAILING_TYPES = frozenset({"trailing_stop", "trailing_stop_limit"})
SYMBOL_PATTERN = r"^[A-Z0-9_]{1,20}$"

PLAIN_DECIMAL = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,12})?", re.ASCII)

type Rule = Literal[
    "needed",
    "unwanted",
    "unpriced",
    "too_much",
    "resting",
    "held",
    "unkept",
    "below_limit",
    "above_limit",
    "below_stop",
    "above_stop",
]


def _plain_number(value: object) -> object:
    """A JSON number, or text that is a plain decimal; nothing else that Decimal() would take."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise ValueError("must be a number")
    if isinstance(value, str) and PLAIN_DECIMAL.fullmatch(value) is None:
        raise ValueError("must be a plain decimal number, such as 0.1")
    return Decimal(value)


def lower_case(value: object) -> object:
    """Text in lower case, so that a word may come in any; other values as they are."""
    return value.lower() if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) and value.isascii() else value


def only_true(value: object) -> object:
    """Literal[True] alone would take 1."""
    if value is not True:
        raise ValueError("must be true")
    return value


def _bounded_metadata(value: dict[str, Any]) -> dict[str, Any]:
    if len(value) > METADATA_MEMBERS_MAX:
        raise ValueError(f"must have at most {METADATA_MEMBERS_MAX} members")
    for name, member in value.items():
        if len(name) > LABEL_CHARACTERS_MAX or len(str(member)) > METADATA_CHARACTERS_MAX:
            raise ValueError(f"must have members of at most {METADATA_CHARACTERS_MAX} characters")
    return value


# Bounds stand before the validator of ours: behind it, pydantic checks them in Python and not in its core.
_PRECISION = Field(max_digits=DIGITS_MAX + PLACES_MAX, decimal_places=PLACES_MAX)
type Number = Annotated[Decimal, _PRECISION, BeforeValidator(_plain_number)]
type PositiveNumber = Annotated[
    Decimal, _PRECISION, Field(gt=0, lt=Decimal(10) ** DIGITS_MAX), BeforeValidator(_plain_number)
]
type Price = PositiveNumber
type TrailPercent = Annotated[Number, Field(gt=0, lt=100)]
type LimitOffset = Annotated[Number, Field(ge=0)]
type DisplayVariance = Annotated[Number, Field(ge=0, le=1)]
type Symbol = Annotated[str, BeforeValidator(_upper), Field(pattern=SYMBOL_PATTERN)]
# Printable ASCII: what a header can carry and every log shows.
type Key = Annotated[str, Field(min_length=1, max_length=KEY_CHARACTERS_MAX, pattern=r"^[\x21-\x7e]+$")]
type Label = Annotated[str, Field(min_length=1, max_length=LABEL_CHARACTERS_MAX)]


class ExecutionInstructions(BaseModel):
    """How the order should be worked. `urgency` and `would_price_improve` are kept for whoever reads the order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    urgency: Literal["low", "normal", "high", "immediate"] | None = None
    display_size: PositiveNumber | None = None
    would_price_improve: StrictBool | None = None
    allow_partial_fills: StrictBool | None = None


class Condition(BaseModel):
    """Where a price has to be once before the order works: a side of the quote of any symbol, in its own currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: Symbol
    watch: Annotated[QuoteSide, BeforeValidator(lower_case)]
    direction: Annotated[Direction, BeforeValidator(lower_case)]
    level: Price


type Conditions = Annotated[list[Condition], Field(min_length=1, max_length=CONDITIONS_MAX)]


class OrderEntry(BaseModel):
    """A new order in our words; `edge.order_dialects` maps the words of each API to it.

    Prices are in the instrument's quote currency, `quantity` in lots; `max_slippage`, `trail_amount` and `limit_offset`
    are distances in price, `trail_percent` is of the best price since the order was placed. Of `display_quantity` lots,
    give or take the fraction `display_variance`, a quote fills at most one part. All `conditions` have to be met before
    the order works.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: Symbol
    order_type: Annotated[OrderType, BeforeValidator(lower_case)]
    side: Annotated[Side, BeforeValidator(lower_case)]
    quantity: PositiveNumber
    limit_price: Price | None = None
    stop_price: Price | None = None
    trail_amount: Price | None = None
    trail_percent: TrailPercent | None = None
    limit_offset: LimitOffset | None = None
    display_quantity: PositiveNumber | None = None
    display_variance: DisplayVariance | None = None
    stop_loss: Price | None = None
    take_profit: Price | None = None
    time_in_force: Annotated[TimeInForce, BeforeValidator(lower_case)] = "gtc"
    expires_at: Annotated[datetime, BeforeValidator(read_moment)] | None = None
    max_slippage: Annotated[Number, Field(ge=0)] | None = None
    reduce_only: StrictBool = False
    post_only: StrictBool = False
    conditions: Conditions | None = None
    account_id: UUID | None = None
    idempotency_key: Key
    client_order_id: Annotated[Key, Field(max_length=LABEL_CHARACTERS_MAX)] | None = None
    parent_order_id: UUID | None = None
    # The size is always checked; a caller may say so, not waive it.
    position_size_check: Annotated[Literal[True], BeforeValidator(only_true)] = True
    execution_instructions: ExecutionInstructions | None = None
    strategy_id: Label | None = None
    signal_id: Label | None = None
    component_name: Label | None = None
    metadata: Annotated[dict[str, Any], AfterValidator(_bounded_metadata)] | None = None

    @property
    def waits(self) -> bool:
        """Whether it is for a price, for a time or for conditions; any other is executed at once."""
        return self.order_type != "market" or self.time_in_force in TIMED or self.conditions is not None

    @model_validator(mode="after")
    def _prices_fit_the_type(self) -> Self:
        self._require("limit_price", wanted=self.order_type in LIMIT_TYPES)
        self._require("stop_price", wanted=self.order_type in STOP_TYPES)
        return self

    @model_validator(mode="after")
    def _trail_fits_the_type(self) -> Self:
        trails = self.order_type in TRAILING_TYPES
        if not trails:
            self._require("trail_percent", wanted=False)
        self._require("trail_amount", wanted=trails and self.trail_percent is None)
        self._require("limit_offset", wanted=self.order_type == "trailing_stop_limit")
        unpriced = trails or (self.order_type == "market" and self.waits)
        for field in ("stop_loss", "take_profit"):
            if unpriced and getattr(self, field) is not None:
                raise FieldError(field, "unpriced", self.order_type)
        return self

    @model_validator(mode="after")
    def _only_a_limit_that_rests_hides_a_part(self) -> Self:
        if self.order_type != "limit" or self.time_in_force not in RESTING_TIMES_IN_FORCE:
            self._require("display_quantity", wanted=False)
        if self.display_quantity is None:
            self._require("display_variance", wanted=False)
        elif self.display_quantity > self.quantity:
            raise FieldError("display_quantity", "too_much", self.order_type)
        if self.execution_instructions is not None:
            self._promise_no_more_than_is_kept(self.execution_instructions)
        return self

    def _promise_no_more_than_is_kept(self, asked: ExecutionInstructions) -> None:
        """What hides a part is display_quantity, and what takes no part is fok: no instruction stands in for them."""
        if asked.display_size is not None and asked.display_size != self.display_quantity:
            raise FieldError("execution_instructions.display_size", "unkept", self.order_type)
        if asked.allow_partial_fills is False and "limit" in self.order_type and self.time_in_force != "fok":
            raise FieldError("execution_instructions.allow_partial_fills", "unkept", self.order_type)

    @model_validator(mode="after")
    def _only_a_limit_that_rests_is_post_only(self) -> Self:
        if self.post_only and (self.order_type != "limit" or self.time_in_force not in RESTING_TIMES_IN_FORCE):
            raise FieldError("post_only", "unwanted", self.order_type)
        return self

    @model_validator(mode="after")
    def _only_what_can_wait_is_held(self) -> Self:
        if self.conditions is None:
            return self
        if self.order_type in TRAILING_TYPES:
            raise FieldError("conditions", "held", self.order_type)
        if self.time_in_force not in RESTING_TIMES_IN_FORCE:
            raise FieldError("time_in_force", "held", self.order_type)
        if self.post_only:
            raise FieldError("post_only", "held", self.order_type)
        return self

    @model_validator(mode="after")
    def _times_fit_the_type(self) -> Self:
        taken = MARKET_TIMES_IN_FORCE if self.conditions is None else RESTING_TIMES_IN_FORCE
        if self.order_type == "market" and self.time_in_force not in taken:
            raise FieldError("time_in_force", "unwanted", self.order_type)
        if self.order_type not in ("market", "limit") and self.time_in_force not in RESTING_TIMES_IN_FORCE:
            raise FieldError("time_in_force", "resting", self.order_type)
        self._require("expires_at", wanted=self.time_in_force == "gtd")
        return self

    @model_validator(mode="after")
    def _exits_fit_its_own_price(self) -> Self:
        """The limit, or the trigger where there is none. Against the fill of a market order the procedure checks."""
        price = self.stop_price if self.limit_price is None else self.limit_price
        if price is not None:
            lower, upper = ("stop_loss", "take_profit") if self.side == "buy" else ("take_profit", "stop_loss")
            below, above = getattr(self, lower), getattr(self, upper)
            if below is not None and below >= price:
                raise FieldError(lower, "below_stop" if self.limit_price is None else "below_limit", self.order_type)
            if above is not None and above <= price:
                raise FieldError(upper, "above_stop" if self.limit_price is None else "above_limit", self.order_type)
        return self

    def _require(self, field: str, *, wanted: bool) -> None:
        given = getattr(self, field) is not None
        if given != wanted:
            raise FieldError(field, "needed" if wanted else "unwanted", self.order_type)


class FieldError(ValueError):
    """A rule between fields of an order of `order_type` that is broken, laid at one field's door."""

    def __init__(self, field: str, rule: Rule, order_type: OrderType) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule: Rule = rule
        self.order_type: OrderType = order_type
