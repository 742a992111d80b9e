"""New orders in the words of each API: from a body to an OrderEntry, from its outcome to an answer."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from trading.edge.dialects import order_state, spoken
from trading.edge.envelope import Dialect, timestamp
from trading.edge.http import Request
from trading.edge.idempotency import idempotency_key
from trading.edge.order_faults import field_sent, first_fault, speak_field
from trading.errors import TradingError, validation_failed
from trading.execution import Execution
from trading.json_text import shortest
from trading.order_entry import OrderEntry

DEFAULT_SIDE = "buy"


def order_entry(request: Request, body: Mapping[str, Any], dialect: Dialect) -> OrderEntry:
    """The order that `body` asks for; VALIDATION_FAILED names the first field that does not fit.

    A null member counts as left out. `price` is the limit of an order that has one, else its trigger. /api/v1
    may leave `side` out (a buy) and the key, which is then made here, so that our own repeats are safe.
    """
    given = {name: value for name, value in body.items() if value is not None}
    key = idempotency_key(request, given, required=dialect == "functions")
    if "limit_price" in given and "price" in given:
        raise validation_failed(
            "price",
            given["price"],
            "left out beside limit_price",
            "price and limit_price say the same: leave one of them out.",
        )
    if "price" in given:
        given[_price_field(given)] = given.pop("price")
    if dialect == "rest":
        given.setdefault("side", DEFAULT_SIDE)
    given["idempotency_key"] = key
    try:
        return OrderEntry.model_validate(given)
    except ValidationError as error:
        raise first_fault(error, body) from None


@contextmanager
def faults_as_sent(body: Mapping[str, Any]) -> Generator[None]:
    """A refusal inside names a price by the field that `body` has it in."""
    try:
        yield
    except TradingError as error:
        if "field" in error.details:
            speak_field(error, field_sent(str(error.details["field"]), body))
        raise


def execution_data(execution: Execution, dialect: Dialect, trader_id: str) -> dict[str, object]:
    """The data of an order that was executed, rests, came to its end without a fill or is in flight to its venue.

    Amounts are decimal strings, as the reading functions write.
    """
    answer = execution.answer
    if answer["outcome"] != "filled":
        return _functions_resting(answer) if dialect == "functions" else resting_data(answer, trader_id)
    return _functions_data(answer) if dialect == "functions" else filled_data(answer, trader_id)


def filled_data(answer: Mapping[str, Any], trader_id: str) -> dict[str, object]:
    """A filled order in the words of /api/v1."""
    executed_at = moment(answer["transact_time"])
    return {
        "id": answer["order_id"],
        "trader_id": trader_id,
        "status": order_state("rest", answer["status"]),
        "created_at": executed_at,
        "client_order_id": answer["client_order_id"],
        "symbol": answer["symbol"],
        "side": spoken("rest", answer["side"]),
        "order_type": spoken("rest", answer["order_type"]),
        "quantity": shortest(Decimal(answer["quantity"])),
        "filled_quantity": shortest(Decimal(answer["quantity"])),
        "average_price": plain_number(answer["execution_price"]),
        **_costs(answer),
        "position_id": answer["position_id"],
        "transaction_id": answer["transaction_id"],
        "executed_at": executed_at,
    }


def resting_data(answer: Mapping[str, Any], trader_id: str) -> dict[str, object]:
    """An order without a fill yet, or that was canceled, in the words of /api/v1."""
    return {
        "id": answer["order_id"],
        "trader_id": trader_id,
        "status": order_state("rest", answer["status"]),
        "created_at": moment(answer["created_at"]),
        "client_order_id": answer["client_order_id"],
        "symbol": answer["symbol"],
        "side": spoken("rest", answer["side"]),
        "order_type": spoken("rest", answer["order_type"]),
        "quantity": shortest(Decimal(answer["quantity"])),
        "filled_quantity": shortest(Decimal(answer["filled_quantity"])),
        "leaves_quantity": shortest(Decimal(answer["leaves_quantity"])),
        "price": price_text(answer["limit_price"]),
        "stop_price": price_text(answer["stop_price"]),
        **_trail(answer),
        **_display(answer),
        **_active_at(answer),
        **_conditions(answer, "rest"),
        "time_in_force": spoken("rest", answer["time_in_force"]),
        "expires_at": _moment_if_any(answer),
        "average_price": price_text(answer["average_price"]),
    }


def moment(text: str) -> str:
    """A time of a stored answer as the API writes it."""
    return timestamp(datetime.fromisoformat(text))


def spoken_conditions(conditions: Sequence[Mapping[str, Any]], dialect: Dialect) -> list[dict[str, object]]:
    """The conditions of an order in the words of `dialect`; `level` is a number, or text as the database wrote it."""
    return [
        {
            "symbol": condition["symbol"],
            "watch": spoken(dialect, condition["watch"]),
            "direction": spoken(dialect, condition["direction"]),
            "level": plain_number(condition["level"]),
            "met_at": moment(condition["met_at"]) if condition["met_at"] else None,
        }
        for condition in conditions
    ]


def plain_number(value: Decimal | int | str) -> str:
    """The digits that the procedure gave: prices to the tick, money to the minor unit."""
    # A whole number comes as an int, which "f" would give six places.
    return f"{Decimal(value):f}"


def price_text(value: Decimal | int | None) -> str | None:
    """As `plain_number`, or None for a price that an order has not."""
    return None if value is None else plain_number(value)


def _functions_resting(answer: Mapping[str, Any]) -> dict[str, object]:
    return {
        "order_id": answer["order_id"],
        "position_id": None,
        "status": order_state("functions", answer["status"]),
        "order_details": {
            "symbol": answer["symbol"],
            "order_type": answer["order_type"],
            "side": answer["side"],
            "quantity": shortest(Decimal(answer["quantity"])),
            "limit_price": price_text(answer["limit_price"]),
            "stop_price": price_text(answer["stop_price"]),
            **_trail(answer),
            **_display(answer),
            **_active_at(answer),
            **_conditions(answer, "functions"),
            "time_in_force": answer["time_in_force"],
            "expires_at": _moment_if_any(answer),
            "filled_quantity": shortest(Decimal(answer["filled_quantity"])),
            "average_price": price_text(answer["average_price"]),
            "timestamp": moment(answer["transact_time"]),
        },
    }


def _functions_data(answer: Mapping[str, Any]) -> dict[str, object]:
    return {
        "order_id": answer["order_id"],
        "position_id": answer["position_id"],
        "status": order_state("functions", answer["status"]),
        "execution_details": {
            "execution_price": plain_number(answer["execution_price"]),
            **_costs(answer),
            "timestamp": moment(answer["transact_time"]),
            "transaction_id": answer["transaction_id"],
        },
    }


def _costs(answer: Mapping[str, Any]) -> dict[str, object]:
    return {
        "slippage": shortest(Decimal(answer["slippage"])),
        "commission": plain_number(answer["commission"]),
        "total_cost": plain_number(answer["total_cost"]),
    }


def _moment_if_any(answer: Mapping[str, Any]) -> str | None:
    """When the order ends by itself; answers of an earlier release do not say."""
    expires_at = answer.get("expires_at")
    return moment(expires_at) if expires_at else None


def _trail(answer: Mapping[str, Any]) -> dict[str, object]:
    """How an order trails; nothing of one that does not."""
    if "trail_amount" not in answer:
        return {}
    percent = answer["trail_percent"]
    return {
        "trail_amount": price_text(answer["trail_amount"]),
        "trail_percent": None if percent is None else shortest(Decimal(percent)),
        "limit_offset": price_text(answer["limit_offset"]),
    }


def _display(answer: Mapping[str, Any]) -> dict[str, object]:
    """What an order shows of itself; nothing of one that hides nothing."""
    names = ("display_quantity", "display_variance")
    told = {name: answer[name] for name in names if name in answer}
    return {name: None if value is None else shortest(Decimal(value)) for name, value in told.items()}


def _active_at(answer: Mapping[str, Any]) -> dict[str, object]:
    """From when an order takes the next quote, whatever it is; nothing of one that waits for a price."""
    return {"active_at": moment(answer["active_at"])} if "active_at" in answer else {}


def _conditions(answer: Mapping[str, Any], dialect: Dialect) -> dict[str, object]:
    """What an order was held for; nothing of one without conditions, or placed among others as a group."""
    return {"conditions": spoken_conditions(answer["conditions"], dialect)} if "conditions" in answer else {}


def _price_field(given: Mapping[str, Any]) -> str:
    is_stop = str(given.get("order_type")).lower() in ("stop", "market_if_touched") and "stop_price" not in given
    return "stop_price" if is_stop else "limit_price"
