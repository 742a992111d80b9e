"""The procedures by which risk officers read and change limits and margin profiles."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from trading.store.database import Database

REQUEST_VERSION = 1


class RiskSettingsStore:
    """Calls as the role function_risk_officer.

    The procedures answer as they document it. They raise NOT_FOUND, IDEMPOTENCY_KEY_REUSED, VALIDATION_FAILED,
    CONFLICT for another version than the one named, FORBIDDEN for the officer's own account and DATABASE_UNAVAILABLE;
    then nothing is kept and the key is free, but for the last, where the outcome is unknown until the same key is sent
    again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def owner(self, account_id: UUID) -> UUID | None:
        """The user whose account it is."""
        return self._answer("SELECT get_account_owner(%s) AS answer", account_id)

    def settings(self, user_id: UUID, account_id: UUID) -> dict[str, Any]:
        """The limits of an account."""
        return self._answer("SELECT get_risk_settings(%s, %s) AS answer", user_id, account_id)

    def changes(self, user_id: UUID, account_id: UUID, limit: int) -> list[dict[str, Any]]:
        """The last changes of an account's limits, newest first."""
        return self._answer("SELECT list_risk_changes(%s, %s, %s) AS answer", user_id, account_id, limit)

    def tiers(self, limit: int) -> list[dict[str, Any]]:
        """The tiers with their limits and the last changes of each."""
        return self._answer("SELECT list_risk_defaults(%s) AS answer", limit)

    def margin_profiles(self, limit: int) -> list[dict[str, Any]]:
        """The margin profiles with their levels and the last changes of each."""
        return self._answer("SELECT list_margin_profiles(%s) AS answer", limit)

    def margin_calls(self, request: Mapping[str, object]) -> list[dict[str, Any]]:
        """Episodes below a margin level, the newest first."""
        return self._database.call("list_margin_calls", {"version": REQUEST_VERSION, **request})["margin_calls"]

    def change(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Change an account's limits; outcome changed."""
        return self._database.call("change_risk_settings", {"version": REQUEST_VERSION, **request})

    def change_tier(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Change a tier's limits; outcome changed."""
        return self._database.call("change_risk_defaults", {"version": REQUEST_VERSION, **request})

    def change_margin_profile(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Change a margin profile; outcome changed."""
        return self._database.call("change_margin_profile", {"version": REQUEST_VERSION, **request})

    def _answer(self, statement: str, *parameters: object) -> Any:
        row = self._database.fetch_one(statement, parameters)
        return row["answer"] if row else None
