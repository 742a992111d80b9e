"""What a caller's JSON may hold, to the digit and to the byte."""

from decimal import Decimal

import pytest

from trading.json_body import DEPTH_MAX, JsonRefusedError, JsonTooLargeError, parse_json_object

BYTES_MAX = 64 * 1024


def refusal(data: bytes) -> JsonRefusedError:
    with pytest.raises(JsonRefusedError) as raised:
        parse_json_object(data, BYTES_MAX)
    return raised.value


def test_numbers_keep_every_digit() -> None:
    parsed = parse_json_object(b'{"a": 0.1, "b": 1.10000000000000000001, "c": 7, "d": 1e-8}', BYTES_MAX)

    assert parsed == {"a": Decimal("0.1"), "b": Decimal("1.10000000000000000001"), "c": 7, "d": Decimal("1E-8")}
    assert isinstance(parsed["a"], Decimal)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": 1e999999999}',
        b'{"a": 1e-33}',
        b'{"a": ' + b"9" * 65 + b"}",
        b'{"a": 0.' + b"1" * 63 + b"}",
        b'{"a": "\\u0000"}',
        b'{"\\u0000": 1}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"a": ' + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX + b"}",
    ],
)
def test_what_is_no_plain_json_object_is_refused(data: bytes) -> None:
    assert str(refusal(data)).startswith("must ")


def test_nesting_is_taken_up_to_its_limit() -> None:
    assert parse_json_object(b'{"a": ' + b"[" * (DEPTH_MAX - 1) + b"]" * (DEPTH_MAX - 1) + b"}", BYTES_MAX)


def test_an_astral_character_is_no_lone_surrogate() -> None:
    assert parse_json_object(b'{"a": "\\ud83d\\ude00"}', BYTES_MAX) == {"a": "\U0001f600"}


def test_the_size_is_limited_before_anything_is_parsed() -> None:
    assert parse_json_object(b'{"a":1}', 7) == {"a": 1}
    with pytest.raises(JsonTooLargeError, match="7 bytes"):
        parse_json_object(b"not json", 7)
