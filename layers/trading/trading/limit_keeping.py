"""What risk officers do to limits, those of an account and those of a tier, and to margin profiles."""

from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID

from trading.account_keeping import (
    KeyTerms,
    OperatorAct,
    Owners,
    operator_origin,
    operator_request,
    owner_of,
    told_outcome,
)
from trading.account_requests import MarginProfileChange, RiskChange
from trading.execution import Origin, RelayWaker

CHANGES_SHOWN_MAX = 50


class Store(Owners, Protocol):
    """Where limits are; see `store.risk_settings.RiskSettingsStore`, also for what the procedures raise."""

    def settings(self, user_id: UUID, account_id: UUID) -> dict[str, Any]:
        """The answer of get_risk_settings."""
        ...

    def changes(self, user_id: UUID, account_id: UUID, limit: int) -> list[dict[str, Any]]:
        """The answer of list_risk_changes."""
        ...

    def change(self, request: Mapping[str, object]) -> dict[str, Any]:
        """The answer of change_risk_settings."""
        ...

    def change_tier(self, request: Mapping[str, object]) -> dict[str, Any]:
        """The answer of change_risk_defaults."""
        ...

    def change_margin_profile(self, request: Mapping[str, object]) -> dict[str, Any]:
        """The answer of change_margin_profile."""
        ...


def read_limits(store: Store, account_id: UUID) -> dict[str, Any]:
    """The limits of anybody's account, and their last changes as `changes`; NOT_FOUND."""
    owner = owner_of(store, account_id)
    return store.settings(owner, account_id) | {"changes": store.changes(owner, account_id, CHANGES_SHOWN_MAX)}


def change_limits(
    store: Store, account_id: UUID, change: RiskChange, officer: Origin, terms: KeyTerms, wake_relay: RelayWaker
) -> OperatorAct:
    """Make `change` and wake the relay for its event. Raises NOT_FOUND and what the store raises."""
    request = operator_request(owner_of(store, account_id), account_id, officer, terms)
    return told_outcome(store.change(change.model_dump(mode="python") | request), wake_relay)


def change_limits_of_tier(store: Store, tier: str, change: RiskChange, officer: Origin, terms: KeyTerms) -> OperatorAct:
    """Make `change` for all accounts of `tier`; no account's events tell it. Raises what the store raises."""
    request = {"tier": tier} | operator_origin(officer, terms)
    answer = store.change_tier(change.model_dump(mode="python") | request)
    return OperatorAct(answer, answer["replayed"], None)


def change_profile(
    store: Store, profile: str, change: MarginProfileChange, officer: Origin, terms: KeyTerms
) -> OperatorAct:
    """Make `change` for all accounts of `profile`; no account's events tell it. Raises what the store raises."""
    request = {"profile": profile} | operator_origin(officer, terms)
    answer = store.change_margin_profile(change.as_request() | request)
    return OperatorAct(answer, answer["replayed"], None)
