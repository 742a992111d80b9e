"""The idempotency key of a request, from its body or its header."""

from collections.abc import Mapping
from typing import Any

from trading.edge.http import Request
from trading.errors import validation_failed


def sent_key(request: Request, given: Mapping[str, Any]) -> object:
    """The key in the members `given` or in the header, not checked yet; None without one.

    VALIDATION_FAILED when the two differ.
    """
    header = request.headers.get("idempotency-key")
    key = given.get("idempotency_key", header)
    if header is not None and key != header:
        raise validation_failed(
            "idempotency_key",
            key,
            "the same in header and body",
            "The Idempotency-Key header and idempotency_key differ: send one of them, or the same in both.",
        )
    return key
