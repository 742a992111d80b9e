"""JSON that callers send, read without loss and within limits: the one parser for requests and messages."""

import re
from decimal import Decimal
from json import JSONDecoder
from typing import Any, NoReturn, cast

DEPTH_MAX = 8
NUMBER_CHARACTERS_MAX = 64
# An exponent is a cheap way to ask for a number of a billion digits.
EXPONENT_MAX = 32
# Neither can be stored in PostgreSQL, nor sent on as UTF-8.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class JsonRefusedError(ValueError):
    """Why a text is not taken: what it must or must not be, in words that follow its name."""


class JsonTooLargeError(JsonRefusedError):
    """A text of more bytes than it may have."""


def parse_json_object(data: bytes, bytes_max: int) -> dict[str, Any]:
    """The JSON object in `data`: integers as int, other numbers as Decimal.

    Raises JsonTooLargeError above `bytes_max`. Raises JsonRefusedError for what is not JSON in UTF-8, not an object,
    nested deeper than DEPTH_MAX, and for NaN, Infinity, repeated names, overlong numbers, NUL and lone surrogates.
    """
    if len(data) > bytes_max:
        raise JsonTooLargeError(f"may have {bytes_max} bytes at most")
    try:
        parsed: Any = _DECODER.decode(data.decode("utf-8"))
    except JsonRefusedError:
        raise
    except (ValueError, RecursionError):
        raise JsonRefusedError("must be JSON in UTF-8") from None
    if not isinstance(parsed, dict):
        raise JsonRefusedError("must be a JSON object")
    _check(parsed, 1)
    return cast("dict[str, Any]", parsed)


def _decimal(text: str) -> Decimal:
    number = Decimal(_bounded(text))
    if abs(number.adjusted()) > EXPONENT_MAX:
        raise JsonRefusedError(f"must hold numbers with exponents within ±{EXPONENT_MAX}")
    return number


def _integer(text: str) -> int:
    return int(_bounded(text))


def _bounded(text: str) -> str:
    if len(text) > NUMBER_CHARACTERS_MAX:
        raise JsonRefusedError(f"must hold numbers of at most {NUMBER_CHARACTERS_MAX} characters")
    return text


def _refuse_constant(name: str) -> NoReturn:
    raise JsonRefusedError(f"must not hold {name}")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JsonRefusedError("must not name a member twice")
    return members


def _check(value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise JsonRefusedError(f"must not be nested deeper than {DEPTH_MAX}")
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
    if _UNSTORABLE.search(text) is not None:
        raise JsonRefusedError("must not hold NUL or lone surrogates")


_DECODER = JSONDecoder(
    parse_float=_decimal, parse_int=_integer, parse_constant=_refuse_constant, object_pairs_hook=_members
)
