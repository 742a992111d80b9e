"""What histories keep: nothing goes that a roll, value at risk or a drawdown still asks for."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.financing import ROLE, hold_schedules
from tests.kit.operators import act, operator_request
from tests.kit.orders import Market
from trading.store.database import Database
from trading.store.equity import EquityStore
from trading.store.retention import PurgedHistories, purge_histories

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        hold_schedules(market)
        yield market


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    for table in ("roll_quotes", "instrument_rolls", "price_outages", "equity_snapshots"):
        shared.execute(f"DELETE FROM {table}")
    return shared


@pytest.fixture
def database(market: Market) -> Iterator[Database]:
    database = Database(lambda: market.database.url_for(ROLE))
    yield database
    database.close()


def days_ago(days: int, hour: int = 0) -> datetime:
    return TODAY - timedelta(days=days) + timedelta(hours=hour)


@pytest.mark.parametrize(
    ("unfinished", "kept"),
    [
        # The last quote before the 400 days stands for every moment of theirs.
        (None, [402, 300, 1]),
        # A roll that has not been charged needs the last quote before it, as a cross through another symbol may.
        (450, [460, 440, 402, 300, 1]),
    ],
)
def test_a_quote_before_a_roll_stays_as_long_as_it_may_be_asked_for(
    market: Market, database: Database, unfinished: int | None, kept: list[int]
) -> None:
    for days in (500, 460, 440, 402, 300, 1):
        market.execute("INSERT INTO roll_quotes VALUES ('EURUSD', %s, 1.1, 1.1)", (days_ago(days),))
    market.execute("INSERT INTO roll_quotes VALUES ('GBPUSD', %s, 1.2, 1.2)", (days_ago(900),))
    if unfinished is not None:
        market.execute(
            "INSERT INTO instrument_rolls (symbol, roll_date, rolled_at, days) VALUES ('AAPL', %s, %s, 1)",
            (days_ago(unfinished).date(), days_ago(unfinished)),
        )
    # One that has been charged needs none.
    market.execute(
        "INSERT INTO instrument_rolls (symbol, roll_date, rolled_at, days, finished_at) VALUES ('AAPL', %s, %s, 1, %s)",
        (days_ago(700).date(), days_ago(700), days_ago(699)),
    )

    purged = purge_histories(database)

    found = market.execute("SELECT symbol, quoted_at FROM roll_quotes ORDER BY symbol, quoted_at")
    # A symbol that nobody quotes any more keeps its last one.
    assert found == [("EURUSD", days_ago(days)) for days in kept] + [("GBPUSD", days_ago(900))]
    assert purged == PurgedHistories(roll_quotes=6 - len(kept), price_outages=0)


def test_outages_that_are_long_over_go(market: Market, database: Database) -> None:
    for symbol, began, ended in (("EURUSD", 500, 401), ("EURUSD", 500, 399), ("GBPUSD", 500, None)):
        left = None if ended is None else days_ago(ended)
        market.execute(
            "INSERT INTO price_outages (symbol, entered_at, left_at) VALUES (%s, %s, %s)",
            (symbol, days_ago(began), left),
        )

    assert purge_histories(database).price_outages == 1
    assert market.execute("SELECT left_at FROM price_outages ORDER BY symbol") == [(days_ago(399),), (None,)]


def test_old_days_keep_their_best_and_their_worst_hour(market: Market, database: Database) -> None:
    # given two days of long ago and one of not so long ago; on the second, money came between two hours
    user = market.user(balance=1_000)
    act(market.owner, "deposit", operator_request(user, amount="500"))
    for days, hour, version, equity in (
        (100, 1, 1, 1000), (100, 2, 1, 1300), (100, 3, 1, 1200), (100, 4, 1, 700), (100, 5, 1, 900),
        # 1,400 after a deposit of 500 is 900 of what was there before: the worst of the day.
        (99, 1, 1, 1000), (99, 2, 1, 1100), (99, 3, 2, 1400), (99, 4, 2, 1550),
        (90, 1, 2, 1500), (90, 2, 2, 1600), (90, 3, 2, 1700),
    ):  # fmt: skip
        keep(market, user, days_ago(days, hour), version, equity)
    market.execute("UPDATE snapshot_scan SET thinned_until = %s", (days_ago(101),))
    worst = drawdown(market, user)["max"]

    # when more snapshots are taken, which thin a day at a time
    for _ in range(4):
        EquityStore(database).take_snapshots(accounts_max=1_000)
        market.execute("UPDATE snapshot_scan SET hour = hour - interval '1 hour'")

    # then what was lost at most is told as before
    hours = [(99, 2), (99, 3), (90, 1), (90, 2), (90, 3)]
    assert [row["hour"] for row in market.rows("equity_snapshots", user)] == [
        days_ago(100, 2), days_ago(100, 4), *(days_ago(*hour) for hour in hours),
    ]  # fmt: skip
    assert drawdown(market, user)["max"] == worst == "600.00"


def keep(market: Market, user: User, hour: datetime, version: int, equity: int) -> None:
    """A snapshot of that hour, when the ledger had `version` entries."""
    market.execute(
        "INSERT INTO equity_snapshots VALUES (%s, %s, %s, %s, %s, %s, %s, 0, 0)",
        (user.user_id, user.account_id, hour, hour, version, Decimal(equity), Decimal(equity)),
    )


def drawdown(market: Market, user: User) -> dict[str, Any]:
    row = market.trader.execute("SELECT get_account_risk(%s, NULL) -> 'drawdown'", (user.user_id,)).fetchone()
    assert row is not None
    return row[0]
