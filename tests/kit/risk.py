"""Stop-outs as the scheduled function asks for them, and what they find: prices that have moved, orders at rest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from tests.kit.builders import User
from tests.kit.functions import Context
from tests.kit.operators import act, operator_request
from tests.kit.orders import Market, Outcome
from trading.monitoring import MarginReport, monitor_margin
from trading.store.risk import RiskStore

REQUEST_ID = "risk-1"
# Five lots of EURUSD bought at 1.1002 + 0.6 pips = 1.10026 take 5 x 100,000 x 1.10026 / 100 = 5,501.30 of margin. At a
# bid of 1.09026 they have lost 5,000.00, so that 6,100.26 of balance are 1,100.26 of equity: exactly 20 percent.
BALANCE_AT_THE_LEVEL = Decimal("6100.26")
BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL = "1.09026", "1.09046"


ENOUGH_TIME_MS = 50_000

STANDARD_LEVELS = {"margin_call": ("call", 50, 105), "stop_out": ("stop_out", 20, 105)}


@dataclass(frozen=True)
class LongContext(Context):
    """A run that has all its time left."""

    def get_remaining_time_in_millis(self) -> int:
        return ENOUGH_TIME_MS


def run_monitoring(
    store: RiskStore,
    announced: list[UUID] | None = None,
    routed: list[tuple[UUID, UUID]] | None = None,
    *,
    time_left_ms: int = ENOUGH_TIME_MS,
) -> MarginReport:
    """One run over all accounts; it adds to `announced` whom the relay is told of, to `routed` what the router is."""
    told = announced if announced is not None else []
    sent = routed if routed is not None else []
    return monitor_margin(
        store,
        told.append,
        lambda *order: sent.append(order),
        request_id=REQUEST_ID,
        time_left_ms=lambda: time_left_ms,
    )


def make_profile(  # every argument is a term that some test varies
    market: Market,
    name: str,
    *,
    policy: str = "largest_loss_first",
    protected: bool = False,
    levels: Mapping[str, tuple[str, int, int]] = STANDARD_LEVELS,
) -> str:
    """A margin profile of that name, and its name; `levels` are (action, threshold, release_percent) by name."""
    market.execute(
        "INSERT INTO margin_profiles (name, description, stop_out_policy, negative_balance_protection) "
        "VALUES (%s, 'of a test', %s, %s)",
        (name, policy, protected),
    )
    for level, terms in levels.items():
        market.execute("INSERT INTO margin_profile_levels VALUES (%s, %s, %s, %s, %s)", (name, level, *terms))
    return name


def watch_by(market: Market, user: User, profile: str) -> User:
    """Have `user` watched by `profile`, as an operator does."""
    with market.database.connect("function_operator") as connection:
        act(connection, "change_account", operator_request(user, margin_profile=profile))
    return user


def opened(outcome: Outcome) -> UUID:
    """The position that an order opened; it has to be filled."""
    assert outcome["outcome"] == "filled", outcome.answer
    return UUID(outcome["position_id"])


def rested(market: Market, user: User, limit_price: str = "1.0500") -> UUID:
    """A limit order to buy a tenth of a lot of EURUSD that waits for its price."""
    outcome = market.place(user, quantity="0.1", limit_price=limit_price)
    assert outcome["outcome"] == "new", outcome.answer
    return UUID(outcome["order_id"])


def long_eurusd(market: Market, balance: Decimal | str = BALANCE_AT_THE_LEVEL, **facts: Any) -> User:
    """A user with five lots of EURUSD; see BALANCE_AT_THE_LEVEL."""
    user = market.user(balance=balance, **facts)
    opened(market.trade(user, quantity="5"))
    return user


def stop_out_step(connection: psycopg.Connection[Any], user: User) -> dict[str, Any]:
    """One step for the account of `user`, on a connection of function_risk; numbers of the answer as Decimal."""
    request = {
        "version": 1,
        "user_id": str(user.user_id),
        "account_id": str(user.account_id),
        "request_id": REQUEST_ID,
    }
    row = connection.execute("SELECT stop_out_step(%s)::text", (Jsonb(request),)).fetchone()
    assert row is not None
    return json.loads(row[0], parse_float=Decimal)
