"""JSON text keeps what a Decimal says."""

import json
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

import pytest

from trading.json_text import json_text, shortest


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("1.10020"), "1.10020"),
        (Decimal("1E+3"), "1000"),
        (Decimal("0.00000001"), "0.00000001"),
        (Decimal("12345678901234567890.123456789"), "12345678901234567890.123456789"),
        (Decimal("-0.5"), "-0.5"),
        (7, "7"),
        (True, "true"),
        (False, "false"),
        (None, "null"),
        ('say "é"\n', '"say \\"é\\"\\n"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (datetime(2026, 3, 2, 11, tzinfo=timezone(timedelta(hours=1))), '"2026-03-02T10:00:00.000000Z"'),
        ({"a": [1, {"b": ()}]}, '{"a":[1,{"b":[]}]}'),
    ],
)
def test_value_is_written_without_loss(value: object, text: str) -> None:
    # when / then
    assert json_text(value) == text
    json.loads(text)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("1.10", "1.1"),
        ("100", "100"),
        ("100.00", "100"),
        ("1E+2", "100"),
        ("-0.00", "0"),
        ("-0.50", "-0.5"),
        ("123456789012345678901234567890.10", "123456789012345678901234567890.1"),
    ],
)
def test_the_shortest_text_has_every_digit_that_says_something(number: str, text: str) -> None:
    assert shortest(Decimal(number)) == text


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("Infinity"), datetime(2026, 3, 2)])  # noqa: DTZ001
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        json_text({"value": value})


@pytest.mark.parametrize("value", [1.5, b"bytes", {1, 2}])
def test_a_float_or_an_unknown_type_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        json_text([value])


class Colour(StrEnum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: Decimal


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Colour.RED, '"red"'),
        (Point(1, Decimal("2.0")), "[1,2.0]"),
        (MappingProxyType({Colour.RED: ["x"]}), '{"red":["x"]}'),
        (OrderedDict(b=1, a=None), '{"b":1,"a":null}'),
    ],
)
def test_what_is_derived_is_written_as_what_it_is_derived_from(value: object, text: str) -> None:
    assert json_text(value) == text


def test_aware_times_only() -> None:
    assert json_text(datetime(2026, 3, 2, 10, 0, 0, 1, tzinfo=UTC)) == '"2026-03-02T10:00:00.000001Z"'
