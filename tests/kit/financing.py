"""Rolls as they come in a test: of now, or of dates that have passed, with the rates that they charge."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.kit.builders import User
from tests.kit.orders import Market
from trading.rollover import RolloverReport, roll_positions
from trading.store.database import Database
from trading.store.financing import FinancingStore

ROLE = "function_end_of_day"
ROLL_DATE = date(2026, 11, 25)
ENOUGH_TIME_MS = 50_000


def hold_schedules(market: Market) -> None:
    """No roll comes by the clock of the machine: what comes is what the test says."""
    market.execute("UPDATE financing_schedules SET rolls_after = '2099-01-01'")


def set_rate(
    market: Market,
    symbol: str,
    long_rate: str,
    short_rate: str,
    *,
    markup: str = "0",
    basis: str = "percent_360",
    valid_from: date = date(2020, 1, 1),
    valid_until: date = date(2099, 12, 31),
) -> None:
    """What the sides of `symbol` earn, by default for ever."""
    market.execute(
        "INSERT INTO financing_rates VALUES (%s, %s, %s, %s, %s, %s, %s, 'test') ON CONFLICT (symbol, valid_from) "
        "DO UPDATE SET (valid_until, long_rate, short_rate, markup, basis) = "
        "(excluded.valid_until, excluded.long_rate, excluded.short_rate, excluded.markup, excluded.basis)",
        (symbol, valid_from, valid_until, long_rate, short_rate, markup, basis),
    )


def roll(
    market: Market, symbol: str = "EURUSD", roll_date: date = ROLL_DATE, *, days: int = 1, at: datetime | None = None
) -> datetime:
    """Let `symbol` be rolled now, or at `at`, as the roll of `roll_date`; the instant."""
    ((rolled_at,),) = market.execute(
        "INSERT INTO instrument_rolls (symbol, roll_date, rolled_at, days) "
        "VALUES (%s, %s, coalesce(%s, clock_timestamp()), %s) RETURNING rolled_at",
        (symbol, roll_date, at, days),
    )
    return rolled_at


@contextmanager
def financing_store(market: Market) -> Iterator[FinancingStore]:
    """The procedures as the function calls them."""
    database = Database(lambda: market.database.url_for(ROLE))
    try:
        yield FinancingStore(database)
    finally:
        database.close()


def run_rollover(
    store: FinancingStore, announced: list[UUID] | None = None, *, time_left_ms: int = ENOUGH_TIME_MS
) -> RolloverReport:
    """One run; it adds to `announced` whom it tells the relay of."""
    told = announced if announced is not None else []
    return roll_positions(store, told.append, request_id="end-of-day-1", time_left_ms=lambda: time_left_ms)


def financed(market: Market, user: User) -> list[tuple[Any, date, Decimal]]:
    """(position, roll date, amount) of the user's financing, in the order of the ledger."""
    rows = sorted(market.rows("ledger_entries", user), key=lambda row: row["entry_number"])
    return [(row["position_id"], row["roll_date"], row["amount"]) for row in rows if row["entry_type"] == "financing"]


def now() -> datetime:
    """The clock, for what comes before and after a roll."""
    return datetime.now(UTC)
