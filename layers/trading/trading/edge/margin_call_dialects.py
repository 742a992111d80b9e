"""Margin calls of all accounts as risk officers see them, in the words of /api/v1."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from trading.edge.envelope import timestamp
from trading.edge.reading_dialects import Facts, Page, read_page
from trading.errors import validation_failed

STATES = ("open", "left")
TIMES = ("entered_at", "changed_at", "left_at")


def margin_calls_query(query: Mapping[str, str]) -> tuple[dict[str, object], Page]:
    """What the procedure is asked for, and the page; VALIDATION_FAILED names what does not fit."""
    state = query.get("state") or None
    if state is not None and state not in STATES:
        constraint = " or ".join(STATES)
        raise validation_failed("state", state, constraint, f"Send state as {constraint}, or leave it out.")
    page = read_page(query)
    return {"state": state, "before": page.before, "limit": page.limit}, page


def margin_calls_body(found: Sequence[Facts], page: Page) -> dict[str, Any]:
    """A page of episodes, the newest first: {data, next_cursor}."""
    return {
        "data": [_margin_call(fact) for fact in found],
        "next_cursor": found[-1]["episode_id"] if len(found) == page.limit else None,
    }


def _margin_call(fact: Facts) -> dict[str, Any]:
    return dict(fact) | {name: fact[name] and timestamp(datetime.fromisoformat(fact[name])) for name in TIMES}
