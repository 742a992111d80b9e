"""JSON text that keeps every digit of a Decimal, which the standard library would turn into a float."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from json.encoder import encode_basestring
from types import NoneType
from typing import Any, cast
from uuid import UUID


def json_text(value: object) -> str:
    """Compact JSON of `value`: mappings, sequences, text, numbers, booleans, None, UUIDs and aware datetimes.

    A Decimal becomes a number with its digits as they are, never with an exponent; a datetime becomes UTC with
    microseconds and Z. Raises ValueError for NaN, infinities and naive datetimes, TypeError for anything else.
    """
    # Found by the exact type, because every order writes some sixty values; what is derived from one is rare.
    write = _WRITERS.get(type(value))
    return write(value) if write is not None else _derived(value)


def utc_text(moment: datetime) -> str:
    """`moment` in UTC, with microseconds and Z; ValueError without a time zone."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def shortest(number: Decimal) -> str:
    """Every digit but zeros that say nothing: Decimal.normalize() would round what is longer than its context."""
    text = f"{number.copy_abs() if number == 0 else number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _object(members: Mapping[object, object]) -> str:
    return "{" + ",".join([f"{encode_basestring(str(name))}:{json_text(item)}" for name, item in members.items()]) + "}"


def _array(items: list[object] | tuple[object, ...]) -> str:
    return "[" + ",".join([json_text(item) for item in items]) + "]"


def _number(value: Decimal) -> str:
    if not value.is_finite():
        raise ValueError(f"{value} is not a JSON number")
    return format(value, "f")


def _constant(value: bool | None) -> str:
    return "null" if value is None else "true" if value else "false"


def _id(value: UUID) -> str:
    return f'"{value}"'


def _moment(value: datetime) -> str:
    return f'"{utc_text(value)}"'


_WRITERS: Mapping[type[object], Callable[[Any], str]] = {
    str: encode_basestring,
    Decimal: _number,
    int: int.__repr__,
    bool: _constant,
    NoneType: _constant,
    dict: _object,
    list: _array,
    tuple: _array,
    UUID: _id,
    datetime: _moment,
}


def _derived(value: object) -> str:
    """As the type that `value` is derived from, such as the text of an enumeration."""
    if isinstance(value, Mapping):
        return _object(cast("Mapping[object, object]", value))
    for known in type(value).__mro__:
        if known in _WRITERS:
            return _WRITERS[known](value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")
