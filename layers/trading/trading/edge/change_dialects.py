"""Cancellations and closes in the words of /api/v1: from a body to what is asked for, from its outcome to an answer."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ValidationError

from trading.cancellation import CancelEntry
from trading.closing import CloseEntry
from trading.edge.dialects import spoken
from trading.edge.http import Request
from trading.edge.idempotency import idempotency_key
from trading.edge.order_dialects import filled_data, moment, plain_number, resting_data
from trading.edge.order_faults import first_fault
from trading.json_text import shortest


def cancel_entry(request: Request, body: Mapping[str, Any]) -> CancelEntry:
    """What `body` says of a cancellation: at most its key. VALIDATION_FAILED names what does not fit."""
    return _entry(CancelEntry, request, body, "a cancellation")


def close_entry(request: Request, body: Mapping[str, Any]) -> CloseEntry:
    """What `body` says of a close, the whole where it says nothing. VALIDATION_FAILED names what does not fit."""
    return _entry(CloseEntry, request, body, "a close")


def canceled_body(answer: Mapping[str, Any], trader_id: str) -> dict[str, object]:
    """A canceled order."""
    return {**resting_data(answer, trader_id), "cancelled_at": moment(answer["transact_time"])}


def closed_body(answer: Mapping[str, Any], trader_id: str) -> dict[str, object]:
    """The filled order that closed, what it realized, and its position as the fill left it."""
    return {
        **filled_data(answer, trader_id),
        "realized_pnl": plain_number(answer["realized_pnl"]),
        "currency": answer["currency"],
        "position": _position(answer["position"]),
    }


def _position(fact: Mapping[str, Any]) -> dict[str, object]:
    return {
        "id": fact["position_id"],
        "symbol": fact["symbol"],
        "side": spoken("rest", fact["side"]),
        "status": spoken("rest", fact["status"]),
        "quantity": shortest(Decimal(fact["quantity"])),
        "entry_price": plain_number(fact["entry_price"]),
        "current_price": plain_number(fact["current_price"]),
        "unrealized_pnl": plain_number(fact["unrealized_pnl"]),
        "realized_pnl": plain_number(fact["realized_pnl"]),
        "margin_used": plain_number(fact["margin_used"]),
    }


def _entry[T: BaseModel](model: type[T], request: Request, body: Mapping[str, Any], asked: str) -> T:
    """A null member counts as left out, and a key that is left out is made here."""
    given = {name: value for name, value in body.items() if value is not None}
    given["idempotency_key"] = idempotency_key(request, given, required=False)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise first_fault(error, body, asked) from None
