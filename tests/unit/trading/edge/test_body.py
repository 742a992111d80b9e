"""What a body may hold, to the digit and to the byte."""

from decimal import Decimal

import pytest

from trading.edge.body import BODY_BYTES_MAX, DEPTH_MAX, parse_body
from trading.errors import ErrorCode, TradingError


def refusal(body: bytes) -> TradingError:
    with pytest.raises(TradingError) as raised:
        parse_body(body)
    return raised.value


def test_numbers_keep_every_digit() -> None:
    parsed = parse_body(b'{"a": 0.1, "b": 1.10000000000000000001, "c": 7, "d": 1e-8}')

    assert parsed == {"a": Decimal("0.1"), "b": Decimal("1.10000000000000000001"), "c": 7, "d": Decimal("1E-8")}
    assert isinstance(parsed["a"], Decimal)


@pytest.mark.parametrize(
    "body",
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
        b'{"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"a": ' + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX + b"}",
    ],
)
def test_what_is_no_plain_json_object_is_refused(body: bytes) -> None:
    error = refusal(body)

    assert error.code is ErrorCode.VALIDATION_FAILED
    assert error.details["field"] == "body"


def test_nesting_is_taken_up_to_its_limit() -> None:
    assert parse_body(b'{"a": ' + b"[" * (DEPTH_MAX - 1) + b"]" * (DEPTH_MAX - 1) + b"}")


def test_an_astral_character_is_no_lone_surrogate() -> None:
    assert parse_body(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


def test_the_size_is_limited_before_anything_is_parsed() -> None:
    fitting = b'{"a": "' + b"x" * (BODY_BYTES_MAX - 9) + b'"}'
    assert len(fitting) == BODY_BYTES_MAX

    assert parse_body(fitting)
    assert refusal(fitting + b" ").code is ErrorCode.PAYLOAD_TOO_LARGE
