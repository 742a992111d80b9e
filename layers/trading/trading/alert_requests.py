"""What people ask about an alert: to take it on, or to end it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from trading.order_entry import Key
from trading.staff_text import SAID

NOTE_CHARACTERS_MAX = 1_000

type Note = Annotated[
    str, StringConstraints(strip_whitespace=True), Field(min_length=1, max_length=NOTE_CHARACTERS_MAX), SAID
]


class Acknowledgement(BaseModel):
    """That somebody has taken it on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    note: Note | None = None
    idempotency_key: Key


class Resolution(BaseModel):
    """That it is over, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    note: Note
    idempotency_key: Key
