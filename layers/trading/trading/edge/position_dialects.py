"""Positions that are managed, in the words of /api/v1: from a body to what is asked for, from facts to an answer."""

from collections.abc import Generator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from trading.closing import CloseByEntry
from trading.edge.change_dialects import closing_order, refuse_null_filters
from trading.edge.changes import speak_state
from trading.edge.dialects import spoken
from trading.edge.envelope import error_body
from trading.edge.http import Request
from trading.edge.idempotency import idempotency_key
from trading.edge.order_dialects import resting_data
from trading.edge.order_faults import TAKEN as TAKEN_BY_ORDERS
from trading.edge.reading_dialects import Facts, position_body
from trading.errors import ECHO_CHARACTERS_MAX, TradingError, validation_failed
from trading.json_text import shortest
from trading.mass_closing import Attempt, CloseAllEntry, MassClosing
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
    "account_id": TAKEN_BY_ORDERS["account_id"],
    "symbol": TAKEN_BY_ORDERS["symbol"],
    "side": "long or short",
    "opposite_position_id": TAKEN_BY_ORDERS["account_id"],
    "quantity": _NUMBER,
    "which": "all, losers or winners",
    "idempotency_key": TAKEN_BY_ORDERS["idempotency_key"],
}


def position_change(request: Request, body: Mapping[str, Any]) -> PositionChange:
    """The change that `body` asks for; VALIDATION_FAILED names the first field that does not fit.

    A null member removes its level, or counts as left out where there is none to remove.
    """
    change = _read(PositionChange, request, body, "a change of a position", removable=REMOVABLE)
    if not change.levels():
        raise validation_failed(
            "body",
            None,
            "something that changes",
            "Send what is to change: stop_loss, stop_loss_distance, stop_loss_amount, breakeven, trailing_distance, "
            "take_profit, take_profit_distance or take_profit_amount.",
        )
    return change


def close_all_entry(request: Request, body: Mapping[str, Any]) -> CloseAllEntry:
    """Which positions `body` asks to be closed, all where it says nothing; VALIDATION_FAILED names what does not fit.

    A filter that is null is refused, not left out: it would close more than whoever sent it may have meant.
    """
    refuse_null_filters(body, "close positions")
    return _read(CloseAllEntry, request, body, "closing positions")


def close_by_entry(request: Request, body: Mapping[str, Any]) -> CloseByEntry:
    """Against which position `body` asks to close; VALIDATION_FAILED names what does not fit. Null is left out."""
    return _read(CloseByEntry, request, body, "closing by an opposite position")


def closed_by_body(answer: Mapping[str, Any], trader_id: str) -> dict[str, Any]:
    """The order that closed two positions against each other, what it realized, and both as it left them."""
    return {
        **closing_order(answer, trader_id),
        "closed_quantity": shortest(Decimal(answer["closed_quantity"])),
        "position": position_body(answer["position"]),
        "opposite_position": position_body(answer["opposite_position"]),
    }


def changed_body(answer: Mapping[str, Any], _trader_id: str) -> dict[str, Any]:
    """The position as the change left it."""
    return position_body(answer["position"])


def closings_body(closing: MassClosing, trader_id: str) -> dict[str, Any]:
    """What became of each position, in the order in which they were asked to close, and how many are left."""
    refused = sum(attempt.refusal is not None for attempt in closing.attempts)
    sent = sum(attempt.sent for attempt in closing.attempts)
    return {
        "data": [_attempt(attempt, trader_id) for attempt in closing.attempts],
        "closed": len(closing.attempts) - refused - sent,
        "sent": sent,
        "refused": refused,
        "left": closing.left,
    }


@contextmanager
def position_as_spoken() -> Generator[None]:
    """A refusal inside that shows the position as it is does so in the words of /api/v1."""
    try:
        yield
    except TradingError as error:
        if "position" in error.details:
            error.details["position"] = position_body(cast("Facts", error.details["position"]))
        raise


def _attempt(attempt: Attempt, trader_id: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "position_id": attempt.position["position_id"],
        "symbol": attempt.position["symbol"],
        "side": spoken("rest", attempt.position["side"]),
        "outcome": "CLOSED" if attempt.refusal is None else "REFUSED",
        "order": None,
        "refusal": None,
    }
    if attempt.sent:
        return told | {"outcome": "SENT", "order": resting_data(attempt.answer, trader_id)}
    if attempt.refusal is None:
        return told | {"order": closing_order(attempt.answer, trader_id)}
    speak_state(attempt.refusal)
    return told | {"refusal": error_body("rest", attempt.refusal, request_id="", milliseconds=0)}


def _read[T: BaseModel](
    model: type[T],
    request: Request,
    body: Mapping[str, Any],
    asked: str,
    *,
    removable: AbstractSet[str] = frozenset(),
) -> T:
    """`body` as the model has it: null is left out but in what is `removable`; a key that is left out is made here."""
    left_out = model.model_fields.keys() - removable
    given = {name: value for name, value in body.items() if value is not None or name not in left_out}
    given["idempotency_key"] = idempotency_key(request, given, required=False)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise _fault(error, body, asked) from None


def _fault(error: ValidationError, body: Mapping[str, Any], asked: str) -> TradingError:
    fault = error.errors(include_url=False)[0]
    # The name of an unknown field is the caller's own, and of any length.
    field = str(fault["loc"][0])[:ECHO_CHARACTERS_MAX]
    if fault["type"] == "extra_forbidden":
        return validation_failed(field, fault["input"], "unknown", f"Leave {field} out: {asked} has no such field.")
    message = f"Send {field} as {TAKEN[field]}."
    if fault["type"] == "missing":
        return validation_failed(field, None, "required", message)
    return validation_failed(field, body.get(field, fault["input"]), TAKEN[field], message)
