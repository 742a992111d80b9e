"""Working off what a wind-down has queued: orders canceled and positions closed, account by account."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from trading.errors import ErrorCode, TradingError
from trading.observability import logger
from trading.store.kill_switch import AccountToWindDown, WindDownStep

type Announce = Callable[[UUID], None]
# Of a user's order; it must not raise.
type StartRouting = Callable[[UUID, UUID], None]


class Store(Protocol):
    """`store.kill_switch.WindDownStore`."""

    def claim(self) -> AccountToWindDown | None:
        """An account under lease."""
        ...

    def step(self, account: AccountToWindDown) -> WindDownStep:
        """What one step came to."""
        ...


@dataclass(slots=True)
class WindDownReport:
    """What a run did. `positions_sent` have a closing order at their venue.

    `accounts` are done, `waiting` for a market, a price or a venue, `failed` for another reason.
    """

    accounts: int = 0
    orders_canceled: int = 0
    positions_closed: int = 0
    positions_sent: int = 0
    waiting: int = 0
    failed: int = 0


def work_off_wind_downs(store: Store, announce: Announce, route: StartRouting, *, until: float) -> WindDownReport:
    """Claim and step until nothing is due, or until `until` on the monotonic clock.

    `announce` is told each account that has new events, `route` each order that a venue is to fill; neither may raise.
    What fails is due again when its lease has
    run out. Raises TradingError DATABASE_UNAVAILABLE.
    """
    report = WindDownReport()
    # One at a time: a lease runs from its claim on, and each step renews only its own.
    while time.monotonic() < until and (account := store.claim()):
        if _work_off(store, account, report, route, until):
            announce(account.account_id)
    return report


def _work_off(
    store: Store, account: AccountToWindDown, report: WindDownReport, route: StartRouting, until: float
) -> bool:
    """True when the account has something to tell."""
    told = False
    while time.monotonic() < until:
        try:
            step = store.step(account)
        except TradingError as error:
            if error.code is ErrorCode.DATABASE_UNAVAILABLE:
                raise
            report.failed += 1
            logger().error(
                "a wind-down stands still",
                extra={"account_id": str(account.account_id), "code": error.code.value},
            )
            break
        told = told or step.told
        report.orders_canceled += step.orders_canceled
        report.positions_closed += step.positions_closed
        if step.sent_order_id is not None:
            report.positions_sent += 1
            route(account.user_id, step.sent_order_id)
        report.accounts += step.state == "done"
        report.waiting += step.state == "waiting"
        if step.state != "more":
            break
    return told
