"""Margin profiles as risk officers see and change them, in the words of /api/v1."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from trading.account_requests import (
    LEVELS_MAX,
    RELEASE_PERCENT_MAX,
    THRESHOLD_MAX,
    MarginProfileChange,
)
from trading.edge.account_dialects import TAKEN as TAKEN_BY_ACCOUNTS
from trading.edge.envelope import timestamp
from trading.edge.http import Request
from trading.edge.members import read_members
from trading.order_entry import VERSION_MAX

type Facts = Mapping[str, Any]

# What each field takes, as it is told.
TAKEN: Mapping[str, str] = {
    "stop_out_policy": "largest_loss_first, most_margin_first, fifo or smallest_partial_step",
    "negative_balance_protection": "true or false",
    "levels": f"at most {LEVELS_MAX} levels, each {{name (small letters, digits and _), action (warn, call or "
    f"stop_out), threshold (0 to {THRESHOLD_MAX}), release_percent? (100 to {RELEASE_PERCENT_MAX})}}",
    "version": f"a whole number from 1 to {VERSION_MAX}",
    "reason": TAKEN_BY_ACCOUNTS["reason"],
    "idempotency_key": TAKEN_BY_ACCOUNTS["idempotency_key"],
}


def profile_change(request: Request, body: Mapping[str, Any]) -> MarginProfileChange:
    """The change that `body` asks for; VALIDATION_FAILED names the first field that does not fit."""
    return read_members(MarginProfileChange, request, body, TAKEN)


def profiles_body(profiles: Sequence[Facts]) -> dict[str, Any]:
    """The profiles, each with its terms, whose default it is, and its last changes: {data, total}."""
    data = [
        {
            **profile,
            "updated_at": _time(profile["updated_at"]),
            "changes": [{**each, "changed_at": _time(each["changed_at"])} for each in profile["changes"]],
        }
        for profile in profiles
    ]
    return {"data": data, "total": len(data)}


def changed_profile_body(answer: Facts) -> dict[str, Any]:
    """What a change has changed of a profile."""
    return {
        "name": answer["profile"],
        "version": answer["version"],
        "before": answer["before"],
        "after": answer["after"],
        "updated_at": _time(answer["transact_time"]),
    }


def _time(text: str) -> str:
    return timestamp(datetime.fromisoformat(text))
