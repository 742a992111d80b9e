"""New orders in the words of each API: from a body to an OrderEntry, from its outcome to an answer."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from trading.edge.dialects import order_state, spoken
from trading.edge.envelope import Dialect, timestamp
from trading.edge.http import Request
from trading.edge.idempotency import sent_key
from trading.edge.order_faults import TAKEN, field_sent, first_fault
from trading.errors import TradingError, validation_failed
from trading.execution import Execution
from trading.json_text import shortest
from trading.order_entry import OrderEntry

DEFAULT_SIDE = "buy"


def order_entry(request: Request, body: Mapping[str, Any], dialect: Dialect) -> OrderEntry:
    """The order that `body` asks for; VALIDATION_FAILED names the first field that does not fit.

    A null member counts as left out. `price` is the limit of a limit order and the trigger of a stop order. /api/v1
    may leave `side` out (a buy) and the key, which is then made here, so that our own repeats are safe.
    """
    given = {name: value for name, value in body.items() if value is not None}
    key = _idempotency_key(request, given, dialect)
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
            error.details["field"] = field_sent(str(error.details["field"]), body)
        raise


def execution_data(execution: Execution, dialect: Dialect, trader_id: str) -> dict[str, object]:
    """The data of an executed order; amounts are decimal strings, in the forms of the reading functions."""
    return _functions_data(execution.answer) if dialect == "functions" else _rest_data(execution.answer, trader_id)


def _functions_data(answer: Mapping[str, Any]) -> dict[str, object]:
    return {
        "order_id": answer["order_id"],
        "position_id": answer["position_id"],
        "status": order_state("functions", answer["status"]),
        "execution_details": {
            "execution_price": _number(answer["execution_price"]),
            **_costs(answer),
            "timestamp": timestamp(datetime.fromisoformat(answer["transact_time"])),
            "transaction_id": answer["transaction_id"],
        },
    }


def _rest_data(answer: Mapping[str, Any], trader_id: str) -> dict[str, object]:
    executed_at = timestamp(datetime.fromisoformat(answer["transact_time"]))
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
        "average_price": _number(answer["execution_price"]),
        **_costs(answer),
        "position_id": answer["position_id"],
        "transaction_id": answer["transaction_id"],
        "executed_at": executed_at,
    }


def _costs(answer: Mapping[str, Any]) -> dict[str, object]:
    return {
        "slippage": shortest(Decimal(answer["slippage"])),
        "commission": _number(answer["commission"]),
        "total_cost": _number(answer["total_cost"]),
    }


def _number(value: Decimal | int) -> str:
    """The digits that the procedure gave: prices to the tick, money to the minor unit."""
    # A whole number comes as an int, which "f" would give six places.
    return f"{Decimal(value):f}"


def _price_field(given: Mapping[str, Any]) -> str:
    is_stop = str(given.get("order_type")).lower() == "stop" and "stop_price" not in given
    return "stop_price" if is_stop else "limit_price"


def _idempotency_key(request: Request, given: Mapping[str, Any], dialect: Dialect) -> object:
    key = sent_key(request, given)
    if key is None and dialect == "functions":
        raise validation_failed(
            "idempotency_key",
            None,
            "required",
            f"Send idempotency_key, a name of your own for this order, so that a repeat cannot execute twice: "
            f"{TAKEN['idempotency_key']}.",
        )
    return str(uuid4()) if key is None else key
