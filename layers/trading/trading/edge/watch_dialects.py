"""What the watch over security goes by, and reports of the hour, as officers see and change them under /api/v1."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, get_args

from trading.account_requests import REASON_TAKEN
from trading.edge.envelope import timestamp
from trading.edge.members import read_unkeyed
from trading.edge.reading_dialects import Facts
from trading.errors import validation_failed
from trading.intervention_requests import NETWORK_CHARACTERS_MAX, NetworkRequest, Response, RuleChange, Severity

SEVERITIES: tuple[str, ...] = get_args(Severity.__value__)
RESPONSES: tuple[str, ...] = get_args(Response.__value__)

# What each field takes. Whatever of another kind, form or size came, the answer is "Send <field> as <this>".
TAKEN: Mapping[str, str] = {
    "threshold": "a whole number from 1 to 1000000",
    "window_seconds": "a whole number from 10 to 86400",
    "severity": ", ".join(SEVERITIES[:-1]) + f" or {SEVERITIES[-1]}",
    "enabled": "true or false",
    "response": " or ".join(RESPONSES) + ", or null for none",
    "response_seconds": "a whole number from 1 to 86400",
    "network": f"a network as 192.0.2.0/24, in at most {NETWORK_CHARACTERS_MAX} characters",
    "reason": REASON_TAKEN,
}


def rule_change(body: Mapping[str, Any]) -> dict[str, Any]:
    """{changes, reason} of a rule; a null response goes with its seconds, any other null counts as left out.

    VALIDATION_FAILED names the first field that does not fit.
    """
    given = {name: value for name, value in body.items() if value is not None or name == "response"}
    asked = read_unkeyed(RuleChange, given, TAKEN)
    changes = asked.model_dump(exclude_unset=True, exclude={"reason"})
    if not changes:
        raise validation_failed("threshold", None, "something to change", "Send at least one field to change.")
    if "response" in changes and changes["response"] is None:
        changes["response_seconds"] = None
    return {"changes": changes, "reason": asked.reason}


def network_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """{network, reason}; VALIDATION_FAILED names the first field that does not fit."""
    return read_unkeyed(NetworkRequest, body, TAKEN).model_dump()


def rules_body(rules: Sequence[Facts]) -> dict[str, Any]:
    """The rules by name: {data, total}."""
    return {"data": list(rules), "total": len(rules)}


def networks_body(networks: Sequence[Facts]) -> dict[str, Any]:
    """The networks in their order: {data, total}."""
    return {"data": [_network(each) for each in networks], "total": len(networks)}


def reports_body(answer: Facts) -> dict[str, Any]:
    """A page of reports, the newest first: {data, next_cursor}."""
    data = [dict(report) | {"hour_start": _time(report["hour_start"])} for report in answer["reports"]]
    return {"data": data, "next_cursor": answer["next"]}


def _network(fact: Facts) -> dict[str, Any]:
    return dict(fact) | {"added_at": _time(fact["added_at"])}


def _time(text: str) -> str:
    return timestamp(datetime.fromisoformat(text))
