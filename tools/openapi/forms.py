"""The forms that answers are made of, as JSON Schema."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

type Schema = Mapping[str, Any]

DECIMAL: Schema = {
    "type": "string",
    "pattern": r"^-?[0-9]+(\.[0-9]+)?$",
    "description": "A decimal number with all its digits.",
}
IDENTIFIER: Schema = {"type": "string", "format": "uuid"}
# With milliseconds, as edge.envelope.timestamp writes it.
TIMESTAMP: Schema = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
}
# With microseconds, as the database writes it in the details of an error.
PRECISE_TIMESTAMP: Schema = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$",
}
CURRENCY: Schema = {"type": "string", "pattern": "^[A-Z]{3}$"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TEXT: Schema = {"type": "string", "minLength": 1}


def ref(name: str) -> Schema:
    """A component schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def closed(members: Mapping[str, Schema], *, optional: Iterable[str] = ()) -> Schema:
    """An object of exactly `members`; those of `optional` may be left out."""
    left_out = set(optional)
    return {
        "type": "object",
        "properties": dict(members),
        "required": [name for name in members if name not in left_out],
        "additionalProperties": False,
    }


def nullable(schema: Schema) -> Schema:
    """`schema`, or null."""
    if isinstance(schema.get("type"), str) and "enum" not in schema and "const" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def list_of(schema: Schema) -> Schema:
    """An array of `schema`."""
    return {"type": "array", "items": schema}


def page_of(schema: Schema) -> Schema:
    """A page of a list; next_cursor is null on the last one."""
    return closed({"data": list_of(schema), "next_cursor": nullable(IDENTIFIER)})


def whole_list_of(schema: Schema) -> Schema:
    """A list that comes whole, and how many there are."""
    return closed({"data": list_of(schema), "total": COUNT})


def word(words: Iterable[str]) -> Schema:
    """One of `words`."""
    return {"type": "string", "enum": list(words)}


def constant(value: object) -> Schema:
    """`value` and nothing else."""
    return {"const": value}


def words_of(literal: Any) -> tuple[str, ...]:
    """The words of a `type X = Literal[...]` of the code."""
    return get_args(literal.__value__)
