"""The key under which the answer to a change is kept: in the body or in the Idempotency-Key header."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from trading.edge.http import Request
from trading.edge.order_faults import TAKEN
from trading.errors import validation_failed


def idempotency_key(request: Request, given: Mapping[str, Any], *, required: bool) -> object:
    """The key that came in `given` or in the header, in whatever form.

    Where it is left out it is made here, so that our own repeats are safe, or with `required` it is VALIDATION_FAILED,
    as are two that differ.
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
    if key is None and required:
        raise validation_failed(
            "idempotency_key",
            None,
            "required",
            f"Send idempotency_key, a name of your own for this order, so that a repeat cannot execute twice: "
            f"{TAKEN['idempotency_key']}.",
        )
    return str(uuid4()) if key is None else key
