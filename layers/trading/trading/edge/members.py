"""The members of a body, read into a model; what does not fit is named in the words of a table."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from trading.edge.http import Request
from trading.edge.idempotency import sent_key
from trading.errors import ECHO_CHARACTERS_MAX, TradingError, validation_failed


def read_members[T: BaseModel](
    model: type[T], request: Request, body: Mapping[str, Any], taken: Mapping[str, str]
) -> T:
    """`body` as `model`, which has an idempotency_key; VALIDATION_FAILED says "Send <field> as <what `taken` says>."

    A null member counts as left out; without a key one is made, so that our own repeats are safe.
    """
    given = {name: value for name, value in body.items() if value is not None}
    key = sent_key(request, given)
    return read_unkeyed(model, given | {"idempotency_key": str(uuid4()) if key is None else key}, taken)


def read_unkeyed[T: BaseModel](model: type[T], body: Mapping[str, Any], taken: Mapping[str, str]) -> T:
    """`body` as `model` of what sets a state, so that a repeat changes nothing and needs no key; faults as above."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise _fault(error, body, taken) from None


def _fault(error: ValidationError, body: Mapping[str, Any], taken: Mapping[str, str]) -> TradingError:
    fault = error.errors(include_url=False)[0]
    # The name of an unknown field is the caller's own, and of any length.
    field = str(fault["loc"][0])[:ECHO_CHARACTERS_MAX]
    if fault["type"] == "extra_forbidden":
        return validation_failed(field, fault["input"], "unknown", f"Leave {field} out: nothing here has such a field.")
    message = f"Send {field} as {taken[field]}."
    if fault["type"] == "missing":
        return validation_failed(field, None, "required", message)
    return validation_failed(field, body.get(field, fault["input"]), taken[field], message)
