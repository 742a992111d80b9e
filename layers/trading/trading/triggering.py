"""Executing what prices have touched: orders that rest, exits of positions, orders whose time is over."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol
from uuid import UUID

from trading.errors import ErrorCode, TradingError
from trading.observability import logger
from trading.store.triggers import Executed, Trigger

# One claim: few users, so that several workers share what a price has touched.
CLAIM_USERS_MAX = 20
CLAIM_ROWS_MAX = 200

type Announce = Callable[[UUID], None]
# Of a user's order; it must not raise.
type StartRouting = Callable[[UUID, UUID], None]


class Store(Protocol):
    """`store.triggers.TriggerStore`."""

    def claim(self, *, users: int, limit: int) -> list[Trigger]:
        """Rows under lease, a user's in their order."""
        ...

    def execute(self, trigger: Trigger) -> Executed:
        """What came of one."""
        ...


@dataclass(slots=True)
class TriggerReport:
    """What a run did: rows by the state that they came to; `waiting` for a fresh rate, `failed` for another reason."""

    states: dict[str, int] = field(default_factory=dict[str, int])
    claimed: int = 0
    waiting: int = 0
    failed: int = 0


def execute_triggers(store: Store, announce: Announce, route: StartRouting, *, until: float) -> TriggerReport:
    """Claim and execute until nothing is queued, or until `until` on the monotonic clock.

    `announce` is told each account that has new events, `route` each order that a venue is to fill; neither may raise.
    What fails stays queued, and is tried again
    when its lease has run out. Raises TradingError DATABASE_UNAVAILABLE.
    """
    report = TriggerReport()
    while time.monotonic() < until:
        claimed = store.claim(users=CLAIM_USERS_MAX, limit=CLAIM_ROWS_MAX)
        if not claimed:
            break
        report.claimed += len(claimed)
        by_account = sorted(claimed, key=lambda trigger: trigger.account_id)  # a stable sort keeps their order
        for account_id, triggers in groupby(by_account, key=lambda trigger: trigger.account_id):
            if _execute_all(store, list(triggers), report, route, until):
                announce(account_id)
    return report


def _execute_all(
    store: Store, triggers: Sequence[Trigger], report: TriggerReport, route: StartRouting, until: float
) -> bool:
    """True when the account has something to tell."""
    told = False
    for trigger in triggers:
        if time.monotonic() >= until:
            break
        try:
            executed = store.execute(trigger)
        except TradingError as error:
            _count_failure(trigger, error, report)
        else:
            report.states[executed.state] = report.states.get(executed.state, 0) + 1
            told = told or executed.told
            if executed.sent_order_id is not None:
                route(trigger.user_id, executed.sent_order_id)
    return told


def _count_failure(trigger: Trigger, error: TradingError, report: TriggerReport) -> None:
    if error.code is ErrorCode.DATABASE_UNAVAILABLE:
        raise error
    if error.code is ErrorCode.MARKET_DATA_UNAVAILABLE:
        report.waiting += 1
        return
    report.failed += 1
    logger().error(
        "a trigger was not executed",
        extra={"subject_id": str(trigger.subject_id), "attempts": trigger.attempts, "code": error.code.value},
    )
