"""Positions that are managed, in the words of /api/v1: from a body to what is asked for, from facts to an answer."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from pydantic import ValidationError

from trading.edge.http import Request
from trading.edge.idempotency import idempotency_key
from trading.edge.order_faults import TAKEN as TAKEN_BY_ORDERS
from trading.edge.reading_dialects import Facts, position_body
from trading.errors import ECHO_CHARACTERS_MAX, TradingError, validation_failed
from trading.position_changes import REMOVABLE, VERSION_MAX, PositionChange

_NUMBER = TAKEN_BY_ORDERS["quantity"]
_REMOVABLE = f"{_NUMBER}, or null to remove it"

# What each field takes. Whatever of another kind, form or size came, the answer is "Send <field> as <this>".
TAKEN: Mapping[str, str] = {
    "stop_loss": _REMOVABLE,
    "stop_loss_distance": _NUMBER,
    "stop_loss_amount": _NUMBER,
    "take_profit": _REMOVABLE,
    "take_profit_distance": _NUMBER,
    "take_profit_amount": _NUMBER,
    "trailing_distance": _REMOVABLE,
    "breakeven": "true, or leave it out",
    "version": f"a whole number from 1 to {VERSION_MAX}",
    "idempotency_key": TAKEN_BY_ORDERS["idempotency_key"],
}


def position_change(request: Request, body: Mapping[str, Any]) -> PositionChange:
    """The change that `body` asks for; VALIDATION_FAILED names the first field that does not fit.

    A null member removes its level, or counts as left out where there is none to remove.
    """
    given = {name: value for name, value in body.items() if value is not None or name in REMOVABLE}
    given["idempotency_key"] = idempotency_key(request, given, required=False)
    try:
        return PositionChange.model_validate(given)
    except ValidationError as error:
        raise _fault(error, body) from None


def changed_body(answer: Mapping[str, Any], _trader_id: str) -> dict[str, Any]:
    """The position as the change left it."""
    return position_body(answer["position"])


@contextmanager
def position_as_spoken() -> Generator[None]:
    """A refusal inside that shows the position as it is does so in the words of /api/v1."""
    try:
        yield
    except TradingError as error:
        if "position" in error.details:
            error.details["position"] = position_body(cast("Facts", error.details["position"]))
        raise


def _fault(error: ValidationError, body: Mapping[str, Any]) -> TradingError:
    fault = error.errors(include_url=False)[0]
    # The name of an unknown field is the caller's own, and of any length.
    field = str(fault["loc"][0])[:ECHO_CHARACTERS_MAX]
    if fault["type"] == "extra_forbidden":
        message = f"Leave {field} out: a change of a position has no such field."
        return validation_failed(field, fault["input"], "unknown", message)
    return validation_failed(field, body.get(field, fault["input"]), TAKEN[field], f"Send {field} as {TAKEN[field]}.")
