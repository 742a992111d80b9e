"""JSON text that keeps every digit of a Decimal, which the standard library would turn into a float."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import cast
from uuid import UUID

_encode_text = json.JSONEncoder(ensure_ascii=False).encode


def json_text(value: object) -> str:
    """Compact JSON of `value`: mappings, sequences, text, numbers, booleans, None, UUIDs and aware datetimes.

    A Decimal becomes a number with its digits as they are, never with an exponent; a datetime becomes UTC with
    microseconds and Z. Raises ValueError for NaN, infinities and naive datetimes, TypeError for anything else.
    """
    match value:
        case Mapping():
            members = cast("Mapping[object, object]", value).items()
            return "{" + ",".join(f"{_encode_text(str(name))}:{json_text(member)}" for name, member in members) + "}"
        case list() | tuple():
            return "[" + ",".join(json_text(item) for item in cast("list[object]", value)) + "]"
        case Decimal():
            return _number(value)
        case None | bool() | int():
            return json.dumps(value)
        case _:
            return _encode_text(_text(value))


def utc_text(moment: datetime) -> str:
    """`moment` in UTC, with microseconds and Z; ValueError without a time zone."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def shortest(number: Decimal) -> str:
    """Every digit but zeros that say nothing: Decimal.normalize() would round what is longer than its context."""
    text = f"{number.copy_abs() if number == 0 else number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _text(value: object) -> str:
    match value:
        case str():
            return value
        case UUID():
            return str(value)
        case datetime():
            return utc_text(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form here")


def _number(value: Decimal) -> str:
    if not value.is_finite():
        raise ValueError(f"{value} is not a JSON number")
    return format(value, "f")
