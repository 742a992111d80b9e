"""The database's procedures of the kill switch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from trading.store.database import Database

REQUEST_VERSION = 1

type StepState = Literal["more", "waiting", "done", "lost"]


class KillSwitchStore:
    """Calls as the role function_risk_officer.

    The procedures raise NOT_FOUND, UNKNOWN_SYMBOL, IDEMPOTENCY_KEY_REUSED, VALIDATION_FAILED, FORBIDDEN for the
    officer's own account, CONFLICT (a wind-down while trading is active) and DATABASE_UNAVAILABLE.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def set_trading_state(self, request: Mapping[str, object]) -> dict[str, Any]:
        """{replayed, answer}, as the procedure documents it."""
        return self._call("set_trading_state", request)

    def trading_states(self) -> dict[str, Any]:
        """What is not active, and the last changes."""
        return self._value("SELECT list_trading_states() AS answer")

    def order_horizon(self) -> str:
        """Which transactions have begun by now, for orders_are_over; it takes a transaction id of its own."""
        return self._value("SELECT order_horizon() AS answer")

    def orders_are_over(self, horizon: str) -> bool:
        """Whether all that had begun by `horizon` has ended."""
        return self._value("SELECT orders_are_over(%s) AS answer", horizon)

    def preview_wind_down(self, request: Mapping[str, object]) -> dict[str, Any]:
        """{accounts, working_orders, open_positions}."""
        return self._call("preview_wind_down", request)

    def start_wind_down(self, request: Mapping[str, object]) -> dict[str, Any]:
        """{replayed, answer}, as the procedure documents it."""
        return self._call("start_wind_down", request)

    def wind_down(self, wind_down_id: UUID) -> dict[str, Any]:
        """How far it has come."""
        return self._value("SELECT get_wind_down(%s) AS answer", wind_down_id)

    def _call(self, procedure: str, request: Mapping[str, object]) -> Any:
        return self._database.call(procedure, {"version": REQUEST_VERSION, **request})

    def _value(self, statement: str, *parameters: object) -> Any:
        row = self._database.fetch_one(statement, parameters)
        assert row is not None
        return row["answer"]


@dataclass(frozen=True, slots=True)
class AccountToWindDown:
    """An account of a wind-down under lease."""

    wind_down_id: UUID
    user_id: UUID
    account_id: UUID
    fencing: int


@dataclass(frozen=True, slots=True)
class WindDownStep:
    """What one step did; `told` that there is an event of it."""

    state: StepState
    orders_canceled: int
    positions_closed: int
    told: bool
    # A closing order that has still to be handed to its venue.
    sent_order_id: UUID | None = None


class WindDownStore:
    """Procedures of the worker that `holder` names in its leases; called as the role function_triggers."""

    def __init__(self, database: Database, holder: UUID, *, lease_ms: int, request_id: str | None = None) -> None:
        self._database = database
        self._holder = holder
        self._lease_ms = lease_ms
        self._request_id = request_id

    def claim(self) -> AccountToWindDown | None:
        """Lease the account that has waited longest of those that are due."""
        for row in self._call("claim_wind_downs", {"limit": 1}):
            return AccountToWindDown(
                UUID(row["wind_down_id"]), UUID(row["user_id"]), UUID(row["account_id"]), row["fencing"]
            )
        return None

    def step(self, account: AccountToWindDown) -> WindDownStep:
        """One step in one transaction, which renews the lease."""
        answer = self._call(
            "wind_down_step",
            {
                "wind_down_id": account.wind_down_id,
                "user_id": account.user_id,
                "account_id": account.account_id,
                "fencing": account.fencing,
                "request_id": self._request_id,
            },
        )
        return WindDownStep(
            answer["state"],
            answer["orders_canceled"],
            answer["positions_closed"],
            answer["sequence"] is not None,
            UUID(answer["order_id"]) if answer["order_id"] else None,
        )

    def _call(self, procedure: str, request: Mapping[str, object]) -> Any:
        lease = {"version": REQUEST_VERSION, "holder": self._holder, "lease_ms": self._lease_ms}
        return self._database.call(procedure, lease | dict(request))
