"""Who may read which order back."""

from collections.abc import Set as AbstractSet
from typing import Any, Protocol
from uuid import UUID

from trading.errors import ErrorCode, TradingError

COMPLIANCE_ROLE = "compliance"
AUDIT_PERMISSION = "audit:read"


class Store(Protocol):
    """Where orders are read from; see `store.reading.ReadingStore`."""

    def order(self, user_id: UUID, order_id: UUID) -> dict[str, Any] | None:
        """An order of the user with its fills."""
        ...

    def profile(self, user_id: UUID) -> dict[str, Any] | None:
        """The user with their accounts."""
        ...

    def order_audit(self, user_id: UUID, order_id: UUID) -> list[dict[str, Any]] | None:
        """What happened to an order of the user."""
        ...

    def order_owner(self, order_id: UUID) -> UUID | None:
        """Whose order it is."""
        ...


def read_order(store: Store, user_id: UUID, order_id: UUID) -> dict[str, Any]:
    """One order of the user with its fills; NOT_FOUND, whether nobody has it or somebody else."""
    order = store.order(user_id, order_id)
    if order is None:
        raise _no_such_order(order_id)
    return order


def read_profile(store: Store, user_id: UUID) -> dict[str, Any]:
    """The user with their accounts and limits; NOT_FOUND for a token of somebody who is no user here."""
    profile = store.profile(user_id)
    if profile is None:
        raise TradingError(
            ErrorCode.NOT_FOUND,
            "There is no profile of yours here yet. Ask support to open an account for you.",
            {"field": "sub", "value": str(user_id), "constraint": "a user of this system"},
        )
    return profile


def may_read_any_audit(role: str, permissions: AbstractSet[str]) -> bool:
    """Whether a caller may read the audit of orders that are not their own."""
    return role == COMPLIANCE_ROLE or AUDIT_PERMISSION in permissions


def read_order_audit(store: Store, user_id: UUID, order_id: UUID, *, any_owner: bool) -> list[dict[str, Any]]:
    """What happened to an order of the user, or with `any_owner` of anybody, oldest first. Else NOT_FOUND."""
    owner = store.order_owner(order_id) if any_owner else user_id
    rows = store.order_audit(owner, order_id) if owner else None
    if rows is None:
        raise _no_such_order(order_id)
    return rows


def _no_such_order(order_id: UUID) -> TradingError:
    return TradingError(
        ErrorCode.NOT_FOUND,
        "You have no order with this id. GET /api/v1/orders lists yours.",
        {"field": "id", "value": str(order_id), "constraint": "an order of yours"},
    )
