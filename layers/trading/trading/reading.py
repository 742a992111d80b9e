"""Who may read which order back."""

from typing import Any, Protocol
from uuid import UUID

from trading.errors import ErrorCode, TradingError

COMPLIANCE_ROLE = "compliance"


class Store(Protocol):
    """Where orders are read from; see `store.reading.ReadingStore`."""

    def order(self, user_id: UUID, order_id: UUID) -> dict[str, Any] | None:
        """An order of the user with its fills."""
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


def read_order_audit(store: Store, user_id: UUID, role: str, order_id: UUID) -> list[dict[str, Any]]:
    """What happened to an order of the user, oldest first; compliance may read anybody's. Else NOT_FOUND."""
    owner = store.order_owner(order_id) if role == COMPLIANCE_ROLE else user_id
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
