"""The words that callers read and write for what the domain calls by its own; one table a subject."""

from collections.abc import Mapping

# inside: (/functions/v1 and WebSocket, /api/v1)
ORDER_STATES: Mapping[str, tuple[str, str]] = {
    "pending_new": ("pending", "PENDING"),
    "new": ("pending", "PENDING"),
    "triggered": ("pending", "PENDING"),
    "partially_filled": ("pending", "PARTIAL"),
    "filled": ("executed", "FILLED"),
    "canceled": ("cancelled", "CANCELLED"),
    "expired": ("cancelled", "EXPIRED"),
    "replaced": ("cancelled", "REPLACED"),
    "denied": ("failed", "REJECTED"),
    "rejected": ("failed", "REJECTED"),
}
