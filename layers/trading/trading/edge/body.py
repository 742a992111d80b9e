"""A request's body: JSON read without loss and within limits."""

import json
from decimal import Decimal
from typing import Any, NoReturn, cast

from trading.errors import ErrorCode, TradingError, validation_failed

BODY_BYTES_MAX = 64 * 1024
DEPTH_MAX = 8
NUMBER_CHARACTERS_MAX = 64
# An exponent is a cheap way to ask for a number of a billion digits.
EXPONENT_MAX = 32


class _RefusedError(ValueError):
    """Why a body is not taken, in words for the caller."""


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`: integers as int, other numbers as Decimal.

    Raises PAYLOAD_TOO_LARGE above 64 KB. Raises VALIDATION_FAILED for what is not JSON in UTF-8, not an object,
    nested deeper than DEPTH_MAX, and for NaN, Infinity, repeated names, overlong numbers, NUL and lone surrogates.
    """
    if len(body) > BODY_BYTES_MAX:
        raise TradingError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"The body may have {BODY_BYTES_MAX} bytes at most.",
            {"field": "body", "value": str(len(body)), "constraint": f"at most {BODY_BYTES_MAX} bytes"},
        )
    try:
        parsed: Any = json.loads(
            body.decode("utf-8"),
            parse_float=_decimal,
            parse_int=_integer,
            parse_constant=_refuse_constant,
            object_pairs_hook=_members,
        )
        if not isinstance(parsed, dict):
            raise _RefusedError("must be a JSON object")
        _check(parsed, 1)
    except _RefusedError as error:
        raise _invalid(str(error)) from None
    except (ValueError, RecursionError):
        raise _invalid("must be JSON in UTF-8") from None
    return cast("dict[str, Any]", parsed)


def _invalid(constraint: str) -> TradingError:
    return validation_failed("body", None, constraint, f"The body of the request {constraint}.")


def _decimal(text: str) -> Decimal:
    number = Decimal(_bounded(text))
    if abs(number.adjusted()) > EXPONENT_MAX:
        raise _RefusedError(f"must hold numbers with exponents within ±{EXPONENT_MAX}")
    return number


def _integer(text: str) -> int:
    return int(_bounded(text))


def _bounded(text: str) -> str:
    if len(text) > NUMBER_CHARACTERS_MAX:
        raise _RefusedError(f"must hold numbers of at most {NUMBER_CHARACTERS_MAX} characters")
    return text


def _refuse_constant(name: str) -> NoReturn:
    raise _RefusedError(f"must not hold {name}")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RefusedError("must not name a member twice")
    return members


def _check(value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise _RefusedError(f"must not be nested deeper than {DEPTH_MAX}")
    match value:
        case str():
            _check_text(value)
        case dict():
            for name, member in cast("dict[str, Any]", value).items():
                _check_text(name)
                _check(member, depth + 1)
        case list():
            for item in cast("list[Any]", value):
                _check(item, depth + 1)
        case _:
            pass


def _check_text(text: str) -> None:
    # Neither can be stored in PostgreSQL, nor sent on as UTF-8.
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
        raise _RefusedError("must not hold NUL or lone surrogates")
