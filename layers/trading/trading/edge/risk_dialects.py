"""Limits as risk officers and traders see and change them, in the words of /api/v1."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from trading.account_requests import RiskChange
from trading.edge.account_dialects import TAKEN as TAKEN_BY_ACCOUNTS
from trading.edge.envelope import timestamp
from trading.edge.http import Request
from trading.edge.members import read_members
from trading.json_text import shortest

# What counts things; every other number is a quantity, an amount or a percentage.
COUNTS = frozenset(
    {
        "max_positions",
        "max_working_orders",
        "max_losses_in_a_row",
        "order_rate_limit",
        "order_rate_window_s",
        "duplicate_window_ms",
        "daily_trade_limit",
        "day_start_hour",
    }
)

type Facts = Mapping[str, Any]

# What each field takes, as it is told.
TAKEN: Mapping[str, str] = {
    "limits": "an object of limits by their names, with one at least",
    "reason": TAKEN_BY_ACCOUNTS["reason"],
    "idempotency_key": TAKEN_BY_ACCOUNTS["idempotency_key"],
}


def risk_change(request: Request, body: Mapping[str, Any]) -> RiskChange:
    """The change that `body` asks for; VALIDATION_FAILED names the first field that does not fit."""
    return read_members(RiskChange, request, body, TAKEN)


def settings_body(settings: Facts) -> dict[str, Any]:
    """What binds an account, its own limits and its tier's, its open day, and changes where they are told."""
    day = settings["day"]
    body = {
        "account_id": settings["account_id"],
        "tier": settings["tier"],
        "currency": settings["currency"],
        "limits": _limits(settings["limits"]),
        "own": _limits(settings["own"]),
        "tier_limits": _limits(settings["tier_limits"]),
        "day": day and day | {"starts_at": _time(day["starts_at"]), "ends_at": _time(day["ends_at"])},
    }
    return body | ({"changes": _changes(settings["changes"])} if "changes" in settings else {})


def tiers_body(tiers: Sequence[Facts]) -> dict[str, Any]:
    """The tiers, each with its limits and their last changes: {data, total}."""
    data = [
        {
            "tier": tier["tier"],
            "limits": _limits(tier["limits"]),
            "updated_at": _time(tier["updated_at"]),
            "changes": _changes(tier["changes"]),
        }
        for tier in tiers
    ]
    return {"data": data, "total": len(data)}


def changed_body(answer: Facts) -> dict[str, Any]:
    """What a change has changed, on an account or on a tier."""
    subject = {name: answer[name] for name in ("account_id", "tier", "sequence") if name in answer}
    return subject | {
        "before": _limits(answer["before"]),
        "after": _limits(answer["after"]),
        "updated_at": _time(answer["transact_time"]),
    }


def _changes(changes: Sequence[Facts]) -> list[dict[str, Any]]:
    return [
        {
            "id": change["id"],
            "actor": change["actor"],
            "reason": change["reason"],
            "before": _limits(change["before"]),
            "after": _limits(change["after"]),
            "changed_at": _time(change["changed_at"]),
        }
        for change in changes
    ]


def _limits(limits: Facts) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in sorted(limits.items())}


def _value(name: str, value: object) -> object:
    """Counts as numbers, other numbers as text, the rest as it is."""
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and name not in COUNTS:
        return shortest(Decimal(value))
    return value


def _time(text: str) -> str:
    return timestamp(datetime.fromisoformat(text))
