"""The bodies of new orders and of changes: the fields and bounds of their models, in the words of `order_faults`."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from tools.openapi.forms import Schema, ref, word
from trading.cancellation import CancelAllEntry
from trading.edge.dialects import spoken
from trading.edge.envelope import Dialect
from trading.edge.linked_dialects import OF_THE_GROUP
from trading.edge.order_dialects import DEFAULT_SIDE
from trading.edge.order_faults import EXAMPLES, TAKEN
from trading.moments import MOMENT
from trading.order_entry import (
    DIGITS_MAX,
    LABEL_CHARACTERS_MAX,
    METADATA_MEMBERS_MAX,
    PLAIN_DECIMAL,
    SYMBOL_PATTERN,
    Condition,
    ExecutionInstructions,
    OrderEntry,
)
from trading.replacement import OrderChange, ReplaceEntry

_WORDS = ("order_type", "side", "time_in_force", "watch", "direction")
# As exact as a JSON number in a schema can be.
_BOUND = 10**DIGITS_MAX
_TEXT_OF_DECIMAL = f"^{PLAIN_DECIMAL.pattern}$"
_FRACTION = r"(\.[0-9]{1,12})?"
_NOT_NEGATIVE = _TEXT_OF_DECIMAL.replace("-?", "")

# Numbers come as JSON numbers, or as text so that nobody's library rounds them.
NUMBERS: Mapping[str, Schema] = {
    "PositiveNumber": {
        "description": f"Send {TAKEN['quantity']}, as a number or as text.",
        "anyOf": [
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": _BOUND},
            {"type": "string", "pattern": f"^(?=.*[1-9]){_NOT_NEGATIVE[1:]}"},
        ],
    },
    "NumberFromZero": {
        "description": f"Send {TAKEN['max_slippage']}, as a number or as text.",
        "anyOf": [
            {"type": "number", "minimum": 0, "exclusiveMaximum": _BOUND},
            {"type": "string", "pattern": _NOT_NEGATIVE},
        ],
    },
    "Fraction": {
        "description": f"Send {TAKEN['display_variance']}, as a number or as text.",
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": 1},
            {"type": "string", "pattern": r"^0{0,17}(0(\.[0-9]{1,12})?|1(\.0{1,12})?)$"},
        ],
    },
    "Percent": {
        "description": f"Send {TAKEN['trail_percent']}, as a number or as text.",
        "anyOf": [
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100},
            {"type": "string", "pattern": f"^(?=.*[1-9])0*[0-9]{{1,2}}{_FRACTION}$"},
        ],
    },
}


def order_body(dialect: Dialect) -> Schema:
    """What `dialect` takes as a new order."""
    fields = _fields(OrderEntry, dialect)
    # One name for the limit price of a limit order and the trigger of a stop order.
    fields["price"] = {
        **fields["limit_price"],
        "description": _sentence(f"{TAKEN['price']}; the limit, or the trigger of a stop order"),
    }
    required = [name for name, field in OrderEntry.model_fields.items() if field.is_required()]
    # The key may come as a header; that one of the two is there cannot be said here.
    required.remove("idempotency_key")
    if dialect == "rest":
        required.remove("side")
        fields["side"] = {**fields["side"], "default": spoken(dialect, DEFAULT_SIDE)}
    return _object({name: fields[name] for name in sorted(fields)}, required)


def without_key(body: Schema) -> Schema:
    """The body of what is asked and not done, which takes no key."""
    return {
        **body,
        "properties": {name: each for name, each in body["properties"].items() if name != "idempotency_key"},
    }


def change_body(*, keyed: bool) -> Schema:
    """What of an order can change, in /api/v1; what is REMOVABLE is taken away by null."""
    fields = _fields(ReplaceEntry if keyed else OrderChange, "rest")
    fields["price"] = {**fields["limit_price"], "description": _sentence(f"{TAKEN['price']}; the limit")}
    return _object({name: fields[name] for name in sorted(fields)}, [])


def filter_body() -> Schema:
    """Which working orders are to be canceled; only the key may be null."""
    fields = _fields(CancelAllEntry, "rest")
    body = keyed_body({})
    return {**body, "properties": fields | body["properties"]}


def keyed_body(fields: Mapping[str, Schema]) -> Schema:
    """The body of a change: its key beside `fields`, all of which may be left out."""
    key = _fields(OrderEntry, "rest")["idempotency_key"]
    return _object({**fields, "idempotency_key": key}, [])


def order_of_group() -> Schema:
    """An order of a group, which has the key and the account for all of them."""
    order = order_body("rest")
    return {
        **order,
        "properties": {name: each for name, each in order["properties"].items() if name not in OF_THE_GROUP},
    }


def group_body(members: Mapping[str, Schema]) -> Schema:
    """The body of orders that depend on each other: `members`, all needed, beside key and account."""
    fields = _fields(OrderEntry, "rest")
    group = {name: fields[name] for name in ("account_id", "idempotency_key")}
    return _object({**members, **group}, list(members))


def exit_bodies() -> dict[str, Schema]:
    """The exits of a bracket."""
    fields = _fields(OrderEntry, "rest")
    stop, limit = fields["stop_price"], fields["limit_price"]
    return {
        "take_profit": _object({"limit_price": limit}, ["limit_price"]),
        "stop_loss": _object({"stop_price": stop, "limit_price": limit}, ["stop_price"]),
    }


def _fields(model: type[BaseModel], dialect: Dialect, prefix: str = "") -> dict[str, Any]:
    """The schema of each field of `model`, described in the words that refusals use."""
    written = model.model_json_schema()
    fields: dict[str, Any] = {}
    for name, given in written["properties"].items():
        told: dict[str, Any] = {"description": _sentence(TAKEN[prefix + name])}
        if prefix + name in EXAMPLES:
            told["examples"] = [EXAMPLES[prefix + name]]
        default = given.get("default")
        if default is not None:
            told["default"] = spoken(dialect, default) if name in _WORDS else default
        fields[name] = {**told, **_wire(name, given, written.get("$defs", {}), dialect)}
    return fields


def _wire(name: str, given: Mapping[str, Any], definitions: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """One field as it is sent: what pydantic says of it, less what its validators make of the text before."""
    if name in _AS_SENT:
        return dict(_AS_SENT[name])
    kind = given["anyOf"][0] if "anyOf" in given else given
    named = kind.get("$ref", "").rpartition("/")[2]
    if named in ("PositiveNumber", "Price"):
        return dict(ref("PositiveNumber"))
    if named == "ExecutionInstructions":
        return _object(_fields(ExecutionInstructions, dialect, f"{name}."), [])
    found = dict(definitions.get(named, kind))
    if name == "conditions":
        condition = _object(_fields(Condition, dialect, f"{name}.*."), list(Condition.model_fields))
        return {**{keyword: found[keyword] for keyword in ("type", "minItems", "maxItems")}, "items": condition}
    if name in _WORDS:
        return dict(word(spoken(dialect, each) for each in found["enum"]))
    return {keyword: found[keyword] for keyword in _KEYWORDS if keyword in found}


# What pydantic cannot say, because it is checked by functions.
_AS_SENT: Mapping[str, Schema] = {
    # Small letters are taken for capitals.
    "symbol": {"type": "string", "pattern": SYMBOL_PATTERN.replace("A-Z", "A-Za-z")},
    "max_slippage": ref("NumberFromZero"),
    "limit_offset": ref("NumberFromZero"),
    "trail_percent": ref("Percent"),
    "display_variance": ref("Fraction"),
    "expires_at": {"type": "string", "format": "date-time", "pattern": f"^{MOMENT.pattern}$"},
    "metadata": {
        "type": "object",
        "maxProperties": METADATA_MEMBERS_MAX,
        "propertyNames": {"maxLength": LABEL_CHARACTERS_MAX},
    },
}
_KEYWORDS = ("type", "format", "enum", "const", "pattern", "minLength", "maxLength", "minimum", "maximum")


def _object(fields: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    """A closed object in which a null member counts as left out."""
    members = {name: field if name in required else _or_null(field) for name, field in fields.items()}
    found: dict[str, Any] = {"type": "object", "properties": members, "additionalProperties": False}
    return found | {"required": required} if required else found


def _or_null(field: Mapping[str, Any]) -> Schema:
    told = {keyword: field[keyword] for keyword in ("description", "default", "examples") if keyword in field}
    form = {keyword: value for keyword, value in field.items() if keyword not in told}
    return {**told, "anyOf": [form, {"type": "null"}]}


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
