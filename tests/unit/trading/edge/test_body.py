"""How a request's body is refused; what it may hold is told by the tests of json_body."""

import pytest

from trading.edge.body import BODY_BYTES_MAX, parse_body
from trading.errors import ErrorCode, TradingError


def refusal(body: bytes) -> TradingError:
    with pytest.raises(TradingError) as raised:
        parse_body(body)
    return raised.value


@pytest.mark.parametrize(
    ("body", "constraint"),
    [
        (b"", "must be JSON in UTF-8"),
        (b"[]", "must be a JSON object"),
        (b'{"a": 1, "a": 2}', "must not name a member twice"),
        (b'{"a": "\\ud800"}', "must not hold NUL or lone surrogates"),
    ],
)
def test_what_is_no_plain_json_object_fails_validation(body: bytes, constraint: str) -> None:
    error = refusal(body)

    assert error.code is ErrorCode.VALIDATION_FAILED
    assert error.details == {"field": "body", "value": None, "constraint": constraint}
    assert error.message == f"The body of the request {constraint}."


def test_a_body_may_have_64_kilobytes() -> None:
    fitting = b'{"a": "' + b"x" * (BODY_BYTES_MAX - 9) + b'"}'
    assert len(fitting) == BODY_BYTES_MAX == 65_536

    assert parse_body(fitting)
    assert refusal(fitting + b" ").code is ErrorCode.PAYLOAD_TOO_LARGE
