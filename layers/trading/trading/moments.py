"""Times as callers write them."""

import re
from datetime import UTC, datetime

_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)


def read_moment(value: object) -> datetime:
    """A time with its offset as ISO 8601 writes it, in UTC; ValueError. No numbers, which would leave the unit open."""
    if not isinstance(value, str) or _MOMENT.fullmatch(value) is None:
        raise ValueError("must be a time with an offset")
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie between the years 1 and 9999 in UTC") from None
