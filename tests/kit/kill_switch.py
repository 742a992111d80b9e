"""The kill switch as a risk officer throws it, and the work that it leaves to those who execute triggers."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import psycopg

from tests.kit.orders import Market
from tests.kit.ticks import HOLDER, call

STEPS_MAX = 100


@dataclass(frozen=True, slots=True)
class Officer:
    """Sets trading states and starts wind-downs; works them off as a worker does."""

    market: Market
    states: psycopg.Connection[Any]
    triggers: psycopg.Connection[Any]
    user_id: uuid.UUID

    @classmethod
    @contextmanager
    def opened(cls, market: Market) -> Iterator[Self]:
        """On the connections of the two roles."""
        database = market.database
        with (
            database.connect("function_risk_officer") as states,
            database.connect("function_triggers") as triggers,
        ):
            yield cls(market, states, triggers, uuid.uuid4())

    def set_state(self, scope: str, trading_state: str, **more: object) -> dict[str, Any]:
        """The answer to setting a state."""
        return call(self.states, "set_trading_state", self.request(scope, trading_state=trading_state, **more))

    def wind_down(self, scope: str, action: str = "flatten", **more: object) -> dict[str, Any]:
        """The answer to starting a wind-down."""
        return call(self.states, "start_wind_down", self.request(scope, action=action, **more))

    def request(self, scope: str, **more: object) -> dict[str, Any]:
        """A request of one of the procedures, with a key of its own."""
        return {
            "version": 1,
            "scope": scope,
            "reason": "A drill",
            "actor": str(self.user_id),
            "actor_id": str(self.user_id),
            "idempotency_key": str(uuid.uuid4()),
            "request_hash": "hash",
        } | more

    def claim(self, holder: uuid.UUID = HOLDER, *, lease_ms: int = 60_000) -> list[dict[str, Any]]:
        """Lease what is due."""
        return call(self.triggers, "claim_wind_downs", {"holder": str(holder), "limit": 1000, "lease_ms": lease_ms})

    def step(self, claimed: dict[str, Any], holder: uuid.UUID = HOLDER) -> dict[str, Any]:
        """One step of one account."""
        lease = {"holder": str(holder), "lease_ms": 60_000}
        return call(self.triggers, "wind_down_step", claimed | lease | {"request_id": "test-wind-down"})

    def work(self) -> list[str]:
        """Work off all that is due; the states of the steps."""
        states: list[str] = []
        for claimed in self.claim():
            for _ in range(STEPS_MAX):
                states.append(self.step(claimed)["state"])
                if states[-1] != "more":
                    break
        return states
