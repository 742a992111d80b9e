"""The key under which the answer to a change is kept: in the body or in the Idempotency-Key header."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

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


def idempotency_key(request: Request, given: Mapping[str, Any], *, required: bool) -> object:
    """The key as `sent_key` finds it.

    Where it is left out it is made here, so that our own repeats are safe, or with `required` it is VALIDATION_FAILED.
    """
    key = sent_key(request, given)
    if key is None and required:
        # Imported where it is used: only what orders needs these words.
        from trading.edge.order_faults import TAKEN

        raise validation_failed(
            "idempotency_key",
            None,
            "required",
            f"Send idempotency_key, a name of your own for this order, so that a repeat cannot execute twice: "
            f"{TAKEN['idempotency_key']}.",
        )
    return str(uuid4()) if key is None else key
