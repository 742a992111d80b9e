"""A request's body: one JSON object, refused in the words of the API."""

from typing import Any

from trading.errors import ErrorCode, TradingError, validation_failed
from trading.json_body import JsonRefusedError, JsonTooLargeError, parse_json_object

BODY_BYTES_MAX = 64 * 1024


def parse_body(body: bytes) -> dict[str, Any]:
    """The object in `body` as `parse_json_object` reads it; PAYLOAD_TOO_LARGE above 64 KB, or VALIDATION_FAILED."""
    try:
        return parse_json_object(body, BODY_BYTES_MAX)
    except JsonTooLargeError as error:
        raise TradingError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"The body {error}.",
            {"field": "body", "value": str(len(body)), "constraint": f"at most {BODY_BYTES_MAX} bytes"},
        ) from None
    except JsonRefusedError as error:
        raise validation_failed("body", None, str(error), f"The body of the request {error}.") from None
