"""What a risk officer does with the kill switch: the steps of stopping trade and of winding down, in order."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from trading.account_keeping import KeyTerms
from trading.confirmations import Confirmation, check_confirmation, make_confirmation
from trading.execution import Origin, RelayWaker
from trading.kill_switch_requests import Scoped, TradingStateChange, WindDown

# An order's statement may take this long (statement_timeout of the role); one that takes longer is told of.
SETTLE_SECONDS_MAX = 6.0
SETTLE_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class StateChange:
    """A stored answer of set_trading_state; `settled`: no order that has read the old state is under way any more."""

    answer: Mapping[str, Any]
    replayed: bool
    settled: bool


@dataclass(frozen=True, slots=True)
class WindDownAct:
    """What came of asking for a wind-down: what it would end with its `confirmation`, or that it was started."""

    answer: Mapping[str, Any]
    replayed: bool
    confirmation: Confirmation | None


class Store(Protocol):
    """`store.kill_switch.KillSwitchStore`, also for what the procedures raise."""

    def set_trading_state(self, request: Mapping[str, object]) -> dict[str, Any]:
        """{replayed, answer}."""
        ...

    def order_horizon(self) -> str:
        """Which transactions have begun by now."""
        ...

    def orders_are_over(self, horizon: str) -> bool:
        """Whether all of them have ended."""
        ...

    def preview_wind_down(self, request: Mapping[str, object]) -> dict[str, Any]:
        """{accounts, working_orders, open_positions}."""
        ...

    def start_wind_down(self, request: Mapping[str, object]) -> dict[str, Any]:
        """{replayed, answer}."""
        ...


def set_trading_state(
    store: Store, change: TradingStateChange, officer: Origin, terms: KeyTerms, wake_relay: RelayWaker
) -> StateChange:
    """Set it, tell the account where it is one's, and wait for the orders that have read the old state.

    Raises what the store raises.
    """
    kept = store.set_trading_state(_request(change, officer, terms, confirmed=False))
    answer = kept["answer"]
    if answer["sequence"] is not None and not kept["replayed"]:
        wake_relay(UUID(answer["account_id"]))
    return StateChange(answer, kept["replayed"], _settled(store))


def wind_down(
    store: Store,
    asked: WindDown,
    officer: Origin,
    terms: KeyTerms,
    start_work: Callable[[], None],
    *,
    secret: str,
    now: datetime,
) -> WindDownAct:
    """Count what `asked` would end; with the confirmation of that, start it. VALIDATION_FAILED for a wrong one."""
    subject = _subject(asked, officer)
    request = _request(asked, officer, terms, confirmed=True)
    if asked.confirmation is None:
        return WindDownAct(store.preview_wind_down(request), False, make_confirmation(secret, subject, now))
    check_confirmation(secret, asked.confirmation, subject, now)
    kept = store.start_wind_down(request)
    start_work()
    return WindDownAct(kept["answer"], kept["replayed"], None)


def _settled(store: Store) -> bool:
    horizon = store.order_horizon()
    until = time.monotonic() + SETTLE_SECONDS_MAX
    while not store.orders_are_over(horizon):
        if time.monotonic() >= until:
            return False
        time.sleep(SETTLE_POLL_SECONDS)
    return True


def _subject(asked: WindDown, officer: Origin) -> tuple[str, ...]:
    """What a confirmation is bound to: who wants what, of whom."""
    target = asked.symbol or str(asked.account_id or "")
    return ("wind_down", str(officer.user_id), asked.action, asked.scope, target)


def _request(asked: Scoped, officer: Origin, terms: KeyTerms, *, confirmed: bool) -> Mapping[str, object]:
    # Address, user agent and e-mail go to the personal data of an account's audit; the platform's has none.
    return asked.model_dump(mode="python", exclude_none=True, exclude={"confirmation"} if confirmed else None) | {
        "actor": str(officer.user_id),
        "actor_id": officer.user_id,
        "email": officer.email,
        "ip_address": officer.ip_address,
        "user_agent": officer.user_agent,
        "request_id": officer.request_id,
        "request_hash": terms.request_hash,
    }
