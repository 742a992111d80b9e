"""What is wrong with a new order, in plain words: which field, and what to send in its place."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from trading.errors import ECHO_CHARACTERS_MAX, TradingError, validation_failed
from trading.order_entry import (
    CONDITIONS_MAX,
    DIGITS_MAX,
    KEY_CHARACTERS_MAX,
    LABEL_CHARACTERS_MAX,
    LIMIT_TYPES,
    METADATA_CHARACTERS_MAX,
    METADATA_MEMBERS_MAX,
    PLACES_MAX,
    VERSION_MAX,
    FieldError,
)

_SYMBOL = "1 to 20 letters A to Z, digits and underscores"
_DIGITS = f"{DIGITS_MAX} digits before and {PLACES_MAX} after the point"
_NUMBER = f"a number above 0 with at most {_DIGITS}"
_DISTANCE = f"a number not below 0 with at most {_DIGITS}"
_KEY = "letters, digits and signs (ASCII, no spaces)"
_ID = "a UUID"
_LABEL = f"text of 1 to {LABEL_CHARACTERS_MAX} characters"
_SWITCH = "true or false"

# What each field takes. Whatever of another kind, form or size came, the answer is "Send <field> as <this>", with an
# example where there is one below.
TAKEN: Mapping[str, str] = {
    "symbol": _SYMBOL,
    "order_type": (
        "market, limit, stop, stop_limit, market_if_touched, limit_if_touched, trailing_stop or trailing_stop_limit"
    ),
    "side": "buy or sell",
    "quantity": _NUMBER,
    "price": _NUMBER,
    "limit_price": _NUMBER,
    "stop_price": _NUMBER,
    "trail_amount": _NUMBER,
    "trail_percent": f"a number above 0 and below 100 with at most {PLACES_MAX} digits after the point",
    "limit_offset": _DISTANCE,
    "display_quantity": _NUMBER,
    "display_variance": f"a number from 0 to 1 with at most {PLACES_MAX} digits after the point",
    "stop_loss": _NUMBER,
    "take_profit": _NUMBER,
    "version": f"a whole number from 1 to {VERSION_MAX}, the version that GET /api/v1/orders shows",
    "time_in_force": "day, gtc, gtd, ioc, fok, opg or cls, as the order type has it",
    "expires_at": "a time in ISO 8601 with its offset",
    "max_slippage": _DISTANCE,
    "reduce_only": _SWITCH,
    "post_only": _SWITCH,
    "conditions": f"a list of 1 to {CONDITIONS_MAX} objects of symbol, watch, direction and level",
    "conditions.*": "an object of symbol, watch, direction and level",
    "conditions.*.symbol": _SYMBOL,
    "conditions.*.watch": "bid or ask",
    "conditions.*.direction": "at_or_above or at_or_below",
    "conditions.*.level": _NUMBER,
    "account_id": _ID,
    "idempotency_key": f"1 to {KEY_CHARACTERS_MAX} {_KEY}",
    "client_order_id": f"1 to {LABEL_CHARACTERS_MAX} {_KEY}",
    "parent_order_id": _ID,
    "position_size_check": "true, or leave it out",
    "execution_instructions": "an object of urgency, display_size, would_price_improve and allow_partial_fills",
    "execution_instructions.urgency": "low, normal, high or immediate",
    "execution_instructions.display_size": _NUMBER,
    "execution_instructions.would_price_improve": _SWITCH,
    "execution_instructions.allow_partial_fills": _SWITCH,
    "strategy_id": _LABEL,
    "signal_id": _LABEL,
    "component_name": _LABEL,
    "metadata": (
        f"an object of at most {METADATA_MEMBERS_MAX} members, their names of at most {LABEL_CHARACTERS_MAX} and "
        f"their values of at most {METADATA_CHARACTERS_MAX} characters"
    ),
}

EXAMPLES: Mapping[str, str] = {
    "symbol": "EURUSD",
    "quantity": "0.1",
    "price": "1.1005",
    "limit_price": "1.1005",
    "stop_price": "1.1005",
    "trail_amount": "0.0020",
    "trail_percent": "1.5",
    "limit_offset": "0.0005",
    "display_quantity": "0.1",
    "display_variance": "0.2",
    "stop_loss": "1.0950",
    "take_profit": "1.1100",
    "expires_at": "2030-01-31T18:00:00Z",
    "max_slippage": "0.0005",
    "conditions.*.symbol": "USDJPY",
    "conditions.*.level": "150.50",
}

# Rules between fields -> constraint and message. {order} is "limit order", {field} the name that the caller used.
BETWEEN: Mapping[tuple[str, str], tuple[str, str]] = {
    ("needed", "limit_price"): ("required", "A {order} needs {field}: send the limit price."),
    ("needed", "stop_price"): ("required", "A {order} needs {field}: send the price that triggers it."),
    ("unwanted", "limit_price"): ("left out", "A {order} takes no {field}: leave {field} out."),
    ("unwanted", "stop_price"): ("left out", "A {order} takes no {field}: leave {field} out."),
    ("needed", "trail_amount"): (
        "required",
        "A {order} needs {field} or trail_percent: send how far its stop stays behind the market.",
    ),
    ("needed", "limit_offset"): (
        "required",
        "A {order} needs {field}: send how far its limit lies from the price that triggers it.",
    ),
    ("unwanted", "trail_amount"): (
        "left out",
        "{field} is of a trailing order, and stands alone: leave it out, or trail_percent.",
    ),
    ("unwanted", "trail_percent"): ("left out", "A {order} does not trail: leave {field} out."),
    ("unwanted", "limit_offset"): ("left out", "Only a trailing stop limit order has {field}: leave it out."),
    ("unwanted", "display_quantity"): (
        "left out",
        "Only a limit order with time_in_force day, gtc or gtd shows a part of itself: leave {field} out.",
    ),
    ("unwanted", "post_only"): (
        "left out",
        "Only a limit order with time_in_force day, gtc or gtd can only rest: leave {field} out.",
    ),
    ("too_much", "display_quantity"): ("at most the quantity", "Send {field} as a part of the quantity."),
    ("unwanted", "display_variance"): ("left out", "{field} goes with display_quantity: send both, or leave it out."),
    ("unpriced", "stop_loss"): (
        "left out",
        "Where a {order} will be filled is not known yet: leave {field} out, and set it on the position.",
    ),
    ("unpriced", "take_profit"): (
        "left out",
        "Where a {order} will be filled is not known yet: leave {field} out, and set it on the position.",
    ),
    ("needed", "expires_at"): ("required", "An order that is good till a time needs {field}: send that time."),
    ("unwanted", "expires_at"): ("left out", "Only time_in_force gtd ends by a time: leave {field} out."),
    ("unwanted", "time_in_force"): (
        "day, gtc, ioc, fok, opg or cls",
        "A {order} is executed at once, at the opening or at the close: "
        "send {field} as day, gtc, ioc, fok, opg or cls, or leave it out.",
    ),
    ("resting", "time_in_force"): (
        "day, gtc or gtd",
        "A {order} waits for its price: send {field} as day, gtc or gtd, or leave it out.",
    ),
    ("held", "conditions"): ("left out", "A {order} begins to trail when it is placed: leave {field} out."),
    ("held", "time_in_force"): (
        "day, gtc or gtd",
        "A {order} with conditions waits for them: send {field} as day, gtc or gtd, or leave it out.",
    ),
    ("held", "post_only"): (
        "left out",
        "A {order} with conditions may be filled in the moment in which they are met: leave {field} out.",
    ),
    ("unkept", "execution_instructions.display_size"): (
        "as display_quantity",
        "What shows a part of a limit order is display_quantity: send that, and {field} equal to it or not at all.",
    ),
    ("unkept", "execution_instructions.allow_partial_fills"): (
        "false with time_in_force fok",
        "A {order} is filled as far as the price goes, unless time_in_force is fok: send that, or leave {field} out.",
    ),
    ("below_limit", "stop_loss"): ("below the limit price", "Send a {field} below the limit price of this buy."),
    ("below_limit", "take_profit"): ("below the limit price", "Send a {field} below the limit price of this sale."),
    ("above_limit", "stop_loss"): ("above the limit price", "Send a {field} above the limit price of this sale."),
    ("above_limit", "take_profit"): ("above the limit price", "Send a {field} above the limit price of this buy."),
    ("below_stop", "stop_loss"): ("below the stop price", "Send a {field} below the stop price of this buy."),
    ("below_stop", "take_profit"): ("below the stop price", "Send a {field} below the stop price of this sale."),
    ("above_stop", "stop_loss"): ("above the stop price", "Send a {field} above the stop price of this sale."),
    ("above_stop", "take_profit"): ("above the stop price", "Send a {field} above the stop price of this buy."),
}


def first_fault(error: ValidationError, body: Mapping[str, Any], asked: str = "an order") -> TradingError:
    """VALIDATION_FAILED for the first fault in `body`, which asks for `asked`; the value is echoed as it was sent."""
    fault = error.errors(include_url=False)[0]
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        field = field_sent(cause.field, body)
        constraint, message = BETWEEN[cause.rule, cause.field]
        order = f"{cause.order_type} order".replace("_", " ")
        return validation_failed(field, body.get(field), constraint, message.format(order=order, field=field))
    field = field_sent(".".join(str(part) for part in fault["loc"]), body)
    if fault["type"] == "extra_forbidden":
        # The name is the caller's own, and of any length.
        field = field[:ECHO_CHARACTERS_MAX]
        return validation_failed(field, fault["input"], "unknown", f"Leave {field} out: {asked} has no such field.")
    # One of a list takes what all of them take.
    known = ".".join("*" if part.isdecimal() else part for part in field.split("."))
    taken = TAKEN[known]
    example = f", such as {EXAMPLES[known]}" if known in EXAMPLES else ""
    message = f"Send {field} as {taken}{example}."
    if fault["type"] == "missing":
        return validation_failed(field, None, "required", message)
    return validation_failed(field, body.get(field, fault["input"]), taken, message)


def field_sent(field: str, body: Mapping[str, Any]) -> str:
    """The name by which `body` has `field`: `price` is the limit of an order that has one, else its trigger."""
    if field not in ("limit_price", "stop_price") or field in body:
        return field
    has_limit = str(body.get("order_type")).lower() in LIMIT_TYPES
    return "stop_price" if field == "stop_price" and has_limit else "price"


def speak_field(error: TradingError, field: str) -> None:
    """Let a refusal name what it is about `field`, as the caller has it."""
    named = f"Check {error.details['field']}:"
    error.details["field"] = field
    if error.message.startswith(named):
        error.message = f"Check {field}:" + error.message.removeprefix(named)
