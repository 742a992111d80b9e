"""What limits cost an order: accounts that nothing binds, that their tier binds, and with every limit set.

All send the same orders, which every limit lets pass. Told as the share of the rate without any, and as CPU of the
database's process a call, in small interleaved batches, which a loaded machine disturbs less. The aim: 15 % more.
"""

import random
import statistics
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from benchmarks.market import make_accounts, on_connection, prepared_market
from benchmarks.order_procedure import CALL, FILLED, order_of
from benchmarks.rounds import Ratio, Work, measure, report, table
from tests.kit.builders import User

ACCOUNTS = 1000
CLIENTS = 2
NONE, TIER, EVERY = "no limit", "the limits of a tier", "every limit"
AIMS = {TIER: 0.85, EVERY: 0.85}
CPU_AIM = 1.15
BATCH_CALLS = 30
BATCHES_A_ROUND = 10
# Each is far away, but for those that have to be near to be read: the day, the window, the book.
LIMITS: Mapping[str, object] = {
    "max_order_quantity": 1000,
    "max_order_notional": 1e12,
    "max_position_size": 1e9,
    "max_positions": 1000,
    "max_working_orders": 1000,
    "max_exposure": 1e12,
    "max_concentration_percent": 100,
    "order_rate_limit": 100_000,
    "order_rate_window_s": 10,
    "duplicate_window_ms": 1,
    "daily_trade_limit": 1000,
    "max_daily_loss": 1e9,
    "max_drawdown_percent": 99,
    "stop_loss_required": True,
    "stop_loss_min_percent": 1,
    "stop_loss_max_percent": 50,
    "price_collar_percent": 50,
    "restricted_symbols": ["BTCUSD"],
    "leverage_profile": "esma_retail",
}


def bind(owner: psycopg.Connection[Any], users: Sequence[User], limits: Mapping[str, object]) -> None:
    """Give the accounts `limits`, and what else their tier has."""
    accounts = [user.account_id for user in users]
    owner.execute("UPDATE risk_settings SET unlimited = '{}' WHERE account_id = ANY(%s)", (accounts,))
    for name, value in limits.items():
        statement = sql.SQL("UPDATE risk_settings SET {} = %s WHERE account_id = ANY(%s)")
        owner.execute(statement.format(sql.Identifier(name)), (value, accounts))


def protected_order(user: User) -> dict[str, object]:
    """A market order of the smallest lot with a stop loss."""
    return order_of(user, str(uuid.uuid4())) | {"stop_loss": "1.0000"}


def orders_of(url: str, users: Sequence[User]) -> Work:
    """Repeats an order with a stop loss, on any of the accounts."""

    def order(chance: random.Random) -> tuple[object, ...]:
        return (Jsonb(protected_order(chance.choice(users))),)

    return on_connection(url, CALL, order, FILLED)


def cpu_of_calls(url: str, users: Mapping[str, Sequence[User]], batches: int) -> dict[str, list[float]]:
    """Microseconds of CPU that a call took in the database's process, a figure a batch; batches take turns."""
    used: dict[str, list[float]] = {name: [] for name in users}
    chance = random.Random(1)
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        pid = connection.info.backend_pid
        for _ in range(batches + 1):
            for name, accounts in users.items():
                orders = [Jsonb(protected_order(chance.choice(accounts))) for _ in range(BATCH_CALLS)]
                before = cpu_microseconds(pid)
                for order in orders:
                    assert connection.execute(CALL, (order,)).fetchall() == [(FILLED,)]
                used[name].append((cpu_microseconds(pid) - before) / BATCH_CALLS)
    return {name: taken[1:] for name, taken in used.items()}  # the first made the plans


def cpu_microseconds(pid: int) -> float:
    """What the process has run so far, by Linux's scheduler."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000


def report_cpu(used: Mapping[str, Sequence[float]]) -> None:
    """Print each variant's CPU a call and its ratio to that without limits."""
    rows = [
        (
            name,
            f"{statistics.median(taken):.0f}",
            f"{min(taken):.0f}",
            str(Ratio.of(taken, used[NONE])),
            f"≤ {CPU_AIM}",
        )
        for name, taken in used.items()
    ]
    title = f"CPU of the database's process a call, {len(used[NONE])} batches of {BATCH_CALLS}"
    table(title, ("variant", "median µs", "lowest µs", "ratio (lowest–highest)", "aim"), rows)


def run(rounds: int, seconds: float) -> None:
    """Measure and print."""
    with prepared_market() as market:
        url = market.database.url_for("function_trader")
        with market.database.connect() as owner:
            # Netting, so that no account's book grows from round to round.
            unbound, as_tier, bound = (make_accounts(owner, ACCOUNTS, "netting") for _ in range(3))
            bind(owner, as_tier, {"daily_trade_limit": 1000})
            bind(owner, bound, LIMITS)
        users = {NONE: unbound, TIER: as_tier, EVERY: bound}
        report_cpu(cpu_of_calls(url, users, BATCHES_A_ROUND * rounds))
        variants = {name: orders_of(url, accounts) for name, accounts in users.items()}
        measured = measure(variants, clients=CLIENTS, rounds=rounds, seconds=seconds)
        report(f"Limits, {CLIENTS} clients, {rounds} rounds of {seconds:g} s", measured, NONE, AIMS)
