"""How an error repeats what a caller sent."""

from decimal import Decimal

import pytest

from trading.errors import ECHO_CHARACTERS_MAX, echo, validation_failed


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        ({"a": 1}, None),
        ([1], None),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (Decimal("1E+3"), "1000"),
        (Decimal("0.00000001"), "0.00000001"),
        ("'text'", "'text'"),
        ("x" * 500, "x" * ECHO_CHARACTERS_MAX),
    ],
)
def test_a_value_is_written_as_json_would(value: object, shown: str | None) -> None:
    assert echo(value) == shown
    assert validation_failed("field", value, "another", "Send another.").details["value"] == shown
