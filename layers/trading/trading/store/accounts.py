"""The procedures by which operators act on accounts, and what they look up for it."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from trading.store.database import Database

REQUEST_VERSION = 1
PROCEDURE_BY_ENTRY_TYPE: Mapping[str, str] = {
    "deposit": "deposit",
    "withdrawal": "withdraw",
    "adjustment": "adjust",
}


class AccountStore:
    """Calls as the role function_operator.

    The procedures answer {outcome, ..., replayed} as they document it. They raise NOT_FOUND, IDEMPOTENCY_KEY_REUSED,
    VALIDATION_FAILED, FORBIDDEN for the operator's own account, CONFLICT (a position mode that something held stands in
    the way of), MARKET_DATA_UNAVAILABLE (a withdrawal) and DATABASE_UNAVAILABLE; then nothing is kept and the key is
    free, but for the last, where the outcome is unknown until the same key is sent again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def owner(self, account_id: UUID) -> UUID | None:
        """The user whose account it is."""
        row = self._database.fetch_one("SELECT get_account_owner(%s) AS answer", (account_id,))
        return row["answer"] if row else None

    def find(self, email: str) -> list[dict[str, Any]]:
        """The accounts of the user with that address and their worth now; none for an address that nobody has."""
        row = self._database.fetch_one("SELECT find_accounts(%s) AS answer", (email,))
        assert row is not None
        return row["answer"]

    def move_money(self, entry_type: str, request: Mapping[str, object]) -> dict[str, Any]:
        """Book a deposit, withdrawal or adjustment; outcome booked or, for a withdrawal, refused."""
        return self._database.call(PROCEDURE_BY_ENTRY_TYPE[entry_type], {"version": REQUEST_VERSION, **request})

    def change(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Change KYC, status, tier, leverage, position mode or margin profile; outcome changed."""
        return self._database.call("change_account", {"version": REQUEST_VERSION, **request})
