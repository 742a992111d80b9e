"""Orders that depend on each other in the words of /api/v1: from a body to what is asked for, and to an answer."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Annotated, Any, cast
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trading.edge.dialects import spoken
from trading.edge.http import Request
from trading.edge.idempotency import idempotency_key
from trading.edge.order_dialects import order_entry, resting_data
from trading.edge.order_faults import TAKEN, field_sent, speak_field
from trading.errors import ECHO_CHARACTERS_MAX, TradingError, validation_failed
from trading.json_text import shortest
from trading.linked_orders import CHILDREN_MAX, LinkedEntry, LinkKind, StopLoss, TakeProfit, faults_at
from trading.order_entry import Key, OrderEntry

# What the group has, its orders have not; which one is whose parent follows from where it stands.
OF_THE_GROUP = ("idempotency_key", "account_id", "parent_order_id")
GROUP_TAKEN: Mapping[str, str] = {
    "orders": "a list of two orders",
    "parent": "an order",
    "children": f"a list of 1 to {CHILDREN_MAX} orders",
    "entry": "an order",
    "take_profit": "an object of limit_price",
    "stop_loss": "an object of stop_price and perhaps limit_price",
    "account_id": TAKEN["account_id"],
    "idempotency_key": TAKEN["idempotency_key"],
}

type Order = dict[str, Any]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    account_id: UUID | None = None
    idempotency_key: Key


class _Oco(_Group):
    orders: Annotated[list[Order], Field(min_length=2, max_length=2)]

    def placed(self) -> dict[str, Order]:
        return {f"orders.{place}": order for place, order in enumerate(self.orders)}


class _Oto(_Group):
    parent: Order
    children: Annotated[list[Order], Field(min_length=1, max_length=CHILDREN_MAX)]

    def placed(self) -> dict[str, Order]:
        return {"parent": self.parent} | {f"children.{place}": order for place, order in enumerate(self.children)}


class _Bracket(_Group):
    entry: Order
    take_profit: TakeProfit
    stop_loss: StopLoss

    def placed(self) -> dict[str, Order]:
        return {"entry": self.entry}


_GROUPS: Mapping[LinkKind, type[_Oco | _Oto | _Bracket]] = {"oco": _Oco, "oto": _Oto, "bracket": _Bracket}


def linked_entry(kind: LinkKind, request: Request, body: Mapping[str, Any]) -> LinkedEntry:
    """The orders that `body` asks for, each read as POST /api/v1/orders reads one.

    VALIDATION_FAILED names the first field that does not fit by its path: children.0.quantity.
    """
    given = {name: value for name, value in body.items() if value is not None}
    given["idempotency_key"] = idempotency_key(request, given, required=False)
    try:
        group = _GROUPS[kind].model_validate(given)
    except ValidationError as error:
        raise _fault_of_group(error, body) from None
    placed = group.placed()
    exits = (group.take_profit, group.stop_loss) if isinstance(group, _Bracket) else (None, None)
    orders = tuple(_order(request, group, place, order) for place, order in placed.items())
    return LinkedEntry(kind, orders, tuple(placed), *exits)


@contextmanager
def linked_faults_as_sent(body: Mapping[str, Any]) -> Generator[None]:
    """A refusal inside names a field of one of the orders by its path, a price as `body` has it."""
    try:
        yield
    except TradingError as error:
        if "place" in error.details:
            speak_field(error, f"{_path_of(error.details.pop('place'), body)}.{error.details['field']}")
        for place, order in _orders_in(body):
            field = str(error.details.get("field", ""))
            # What follows the place is the order's own, also where a caller has put dots into a name.
            if field.startswith(f"{place}."):
                speak_field(error, f"{place}.{field_sent(field.removeprefix(f'{place}.'), order)}")
                break
        raise


def _orders_in(body: Mapping[str, Any]) -> Generator[tuple[str, Order]]:
    """The orders that `body` has, each with its place."""
    places = {name: body[name] for name in ("parent", "entry") if name in body}
    for name in ("orders", "children"):
        if isinstance(body.get(name), list):
            places |= {f"{name}.{place}": order for place, order in enumerate(body[name])}
    for place, order in places.items():
        if isinstance(order, dict):
            yield place, cast("Order", order)


def _path_of(place: object, body: Mapping[str, Any]) -> str:
    """Where `body` has the order that the database numbers `place`, from 1: the exits of a bracket come last."""
    number = int(str(place)) - 1
    if "orders" in body:
        return f"orders.{number}"
    if "parent" in body:
        return f"children.{number - 1}" if number else "parent"
    return ("entry", "stop_loss", "take_profit")[number]


def linked_body(answer: Mapping[str, Any], trader_id: str) -> dict[str, object]:
    """The orders of a group as the call left them, the parent first, of a bracket then the stop loss."""
    return {"orders": [resting_data(fact, trader_id) | _links(fact) for fact in answer["orders"]]}


def _links(fact: Mapping[str, Any]) -> dict[str, object]:
    return {
        "contingency": spoken("rest", fact["contingency"]),
        "parent_order_id": fact["parent_order_id"],
        "linked_order_ids": fact["linked_order_ids"],
        "held_quantity": shortest(Decimal(fact["held_quantity"])),
    }


def _order(request: Request, group: _Group, place: str, order: Order) -> OrderEntry:
    for field in OF_THE_GROUP:
        if order.get(field) is not None:
            raise validation_failed(
                f"{place}.{field}", order[field], "left out", f"Leave {field} out of the orders of a group."
            )
    of_the_group = {"idempotency_key": group.idempotency_key, "account_id": group.account_id}
    with faults_at(place):
        return order_entry(request, order | of_the_group, "rest")


def _fault_of_group(error: ValidationError, body: Mapping[str, Any]) -> TradingError:
    fault = error.errors(include_url=False)[0]
    name, *inside = (str(part) for part in fault["loc"])
    field = ".".join((name, *inside))[:ECHO_CHARACTERS_MAX]
    if fault["type"] == "extra_forbidden":
        return validation_failed(field, fault["input"], "unknown", f"Leave {field} out: there is no such field here.")
    taken = GROUP_TAKEN[name]
    if inside:
        taken = TAKEN[inside[0]] if name in ("take_profit", "stop_loss") else "an order"
    message = f"Send {field} as {taken}."
    if fault["type"] == "missing":
        return validation_failed(field, None, "required", message)
    return validation_failed(field, fault["input"] if inside else body.get(name), taken, message)
