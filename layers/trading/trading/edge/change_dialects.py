"""Changes in the words of /api/v1: from a body to what is asked for, from its outcome to an answer."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ValidationError

from trading.cancellation import CancelAllEntry, CancelEntry
from trading.closing import CloseEntry
from trading.edge.dialects import order_state, spoken
from trading.edge.http import Request
from trading.edge.idempotency import idempotency_key
from trading.edge.order_dialects import filled_data, moment, plain_number, price_text, resting_data
from trading.edge.order_faults import first_fault, speak_field
from trading.errors import ECHO_CHARACTERS_MAX, TradingError, validation_failed
from trading.json_text import shortest
from trading.replacement import FIXED, REMOVABLE, OrderChange, ReplaceEntry


def cancel_entry(request: Request, body: Mapping[str, Any]) -> CancelEntry:
    """What `body` says of a cancellation: at most its key. VALIDATION_FAILED names what does not fit."""
    return _entry(CancelEntry, request, body, "a cancellation")


def cancel_all_entry(request: Request, body: Mapping[str, Any]) -> CancelAllEntry:
    """Which orders `body` wants canceled, all where it says nothing. VALIDATION_FAILED names what does not fit.

    A filter that is null is refused, not left out: it would cancel more than whoever sent it may have meant.
    """
    refuse_null_filters(body, "cancel orders")
    return _entry(CancelAllEntry, request, body, "a cancellation")


def refuse_null_filters(body: Mapping[str, Any], asked: str) -> None:
    """VALIDATION_FAILED for a member of `body`, which asks to do as `asked`, that is null; only its key may be."""
    for field, value in body.items():
        if value is None and field != "idempotency_key":
            name = field[:ECHO_CHARACTERS_MAX]
            message = f"Send {name} with a value, or leave it out to {asked} whatever it is."
            raise validation_failed(name, None, "left out, or a value", message)


def replace_entry(request: Request, body: Mapping[str, Any]) -> ReplaceEntry:
    """What `body` says of a replacement. VALIDATION_FAILED names what does not fit, or cannot change."""
    given = changed_members(body)
    given["idempotency_key"] = idempotency_key(request, given, required=False)
    return change_of(ReplaceEntry, given, body)


def changed_members(body: Mapping[str, Any]) -> dict[str, Any]:
    """What `body` says of an order, by our names; `price` is the limit price, as in answers.

    A null member counts as left out, unless it takes something away. VALIDATION_FAILED for what cannot change.
    """
    given = {name: value for name, value in body.items() if value is not None or name in REMOVABLE}
    for field in FIXED:
        if field in given:
            message = f"An order keeps its {field}: leave {field} out, or cancel the order and send another."
            raise validation_failed(field, given[field], "left out", message)
    if "price" in given:
        if "limit_price" in given:
            message = "price and limit_price say the same: leave one of them out."
            raise validation_failed("price", given["price"], "left out beside limit_price", message)
        given["limit_price"] = given.pop("price")
    return given


def change_of[T: OrderChange](model: type[T], given: Mapping[str, Any], body: Mapping[str, Any]) -> T:
    """The change in `given`, which was read from `body`; VALIDATION_FAILED, also where nothing would change."""
    change = _validated(model, given, body, "a replacement")
    if not change.changes_something():
        raise validation_failed(
            "body",
            None,
            "something that changes",
            "Send what is to change: quantity, price, stop_price, trail_amount, trail_percent, limit_offset, "
            "display_quantity, display_variance, stop_loss, take_profit, time_in_force, expires_at, conditions or "
            "client_order_id.",
        )
    return change


@contextmanager
def limit_as_sent(body: Mapping[str, Any]) -> Generator[None]:
    """A refusal inside names the limit price by the field that `body` has it in."""
    try:
        yield
    except TradingError as error:
        if error.details.get("field") == "limit_price" and "price" in body:
            speak_field(error, "price")
        raise


def close_entry(request: Request, body: Mapping[str, Any]) -> CloseEntry:
    """What `body` says of a close, the whole where it says nothing. VALIDATION_FAILED names what does not fit."""
    return _entry(CloseEntry, request, body, "a close")


def canceled_body(answer: Mapping[str, Any], trader_id: str) -> dict[str, object]:
    """A canceled order."""
    return {**resting_data(answer, trader_id), "cancelled_at": moment(answer["transact_time"])}


def all_canceled_body(answer: Mapping[str, Any], trader_id: str) -> dict[str, object]:
    """The canceled orders, oldest first, and how many work on because one request cancels only so many."""
    moment_of_all = {"transact_time": answer["transact_time"]}
    return {
        "canceled": [canceled_body({**fact, **moment_of_all}, trader_id) for fact in answer["canceled"]],
        "left": answer["left"],
    }


def replaced_body(answer: Mapping[str, Any], trader_id: str) -> dict[str, object]:
    """The new order, and the old one as it ended."""
    old = answer["replaced"]
    return {
        **resting_data(answer, trader_id),
        "stop_loss": price_text(answer["stop_loss"]),
        "take_profit": price_text(answer["take_profit"]),
        "version": answer["version"],
        "replaces_order_id": answer["replaces_order_id"],
        "replaced": {
            "id": old["order_id"],
            "status": order_state("rest", old["status"]),
            "quantity": shortest(Decimal(old["quantity"])),
            "filled_quantity": shortest(Decimal(old["filled_quantity"])),
            "version": old["version"],
        },
    }


def closed_body(answer: Mapping[str, Any], trader_id: str) -> dict[str, object]:
    """The filled order that closed, what it realized, and its position as the fill left it; or one on its way."""
    if answer["outcome"] == "pending_new":
        return resting_data(answer, trader_id)
    return {**closing_order(answer, trader_id), "position": _position(answer["position"])}


def closing_order(answer: Mapping[str, Any], trader_id: str) -> dict[str, object]:
    """A filled order that closed, and what it realized."""
    return {
        **filled_data(answer, trader_id),
        "realized_pnl": plain_number(answer["realized_pnl"]),
        "currency": answer["currency"],
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
    return _validated(model, given, body, asked)


def _validated[T: BaseModel](model: type[T], given: Mapping[str, Any], body: Mapping[str, Any], asked: str) -> T:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise first_fault(error, body, asked) from None
