"""end_of_day through its handler: the relay is woken for who was charged, and each hour has its snapshots once."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from tests.kit import MigratedTemplate
from tests.kit.financing import ROLE, financed, hold_schedules, roll, set_rate
from tests.kit.functions import function_environment, load_function
from tests.kit.orders import Market
from tests.kit.risk import LongContext, opened
from trading.store.database import Database
from trading.store.equity import EquityStore


@pytest.fixture
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        hold_schedules(market)
        yield market


@pytest.fixture
def queue() -> Iterator[str]:
    with mock_aws():
        yield boto3.client("sqs").create_queue(QueueName="relay")["QueueUrl"]


@pytest.fixture
def handler(market: Market, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, queue: str) -> Iterator[Any]:
    environment = function_environment(
        monkeypatch, tmp_path, database=market.database, role=ROLE, RELAY_QUEUE_URL=queue
    )
    with environment:
        yield load_function("end_of_day")


def snapshots(market: Market) -> list[tuple[Any, ...]]:
    return market.execute(
        "SELECT account_id, hour, balance, equity, margin_used, exposure FROM equity_snapshots ORDER BY 1, 2"
    )


def test_a_run_charges_tells_and_keeps_what_accounts_are_worth(market: Market, handler: Any, queue: str) -> None:
    # given one that holds a lot over a roll, one whose money has come, and one with nothing at all
    holder, saver = market.user(balance=10_000), market.user(balance=500)
    market.user(balance=0)
    opened(market.trade(holder))
    set_rate(market, "EURUSD", "-2.5", "1", markup="0.5")
    roll(market)

    # when it runs twice
    hours = {datetime.now(UTC).replace(minute=0, second=0, microsecond=0)}
    first, second = handler({}, LongContext()), handler({}, LongContext())
    hours.add(datetime.now(UTC).replace(minute=0, second=0, microsecond=0))

    # then who holds something was charged and told once
    assert (first["rollover"]["charged"], second["rollover"]["charged"]) == (1, 0)
    assert [amount for _, _, amount in financed(market, holder)] == [Decimal("-9.17")]
    messages = boto3.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert [json.loads(message["Body"]) for message in messages] == [{"account_id": str(holder.account_id)}]
    # and each has its snapshot: 1 lot bought at 1.10026 is marked at 1.1000
    taken = snapshots(market)
    assert {hour for _, hour, *_ in taken} <= hours
    figures = {account_id: tuple(amounts) for account_id, _, *amounts in taken}
    assert figures == {
        holder.account_id: (Decimal("9990.83"), Decimal("9964.83"), Decimal("1100.26"), 110_000),
        saver.account_id: (500, 500, 0, 0),
    }
    assert first["snapshots"]["taken"] == 2
    assert second["snapshots"]["complete"]


def test_the_next_hour_takes_those_that_hold_something_or_have_moved(market: Market, handler: Any) -> None:
    # given an hour in which one held something and one had money
    holder, saver, leaver = market.user(), market.user(), market.user()
    opened(market.trade(holder))
    leaving = opened(market.trade(leaver))
    handler({}, LongContext())
    market.close_out(leaver, leaving)

    # when another hour comes
    for table in ("equity_snapshots", "snapshot_scan"):
        market.execute(f"UPDATE {table} SET hour = hour - interval '1 hour'")
    report = handler({}, LongContext())["snapshots"]

    # then who has neither is left out, and who has left is written once more
    assert report["taken"] == 2
    counts = Counter(account_id for account_id, *_ in snapshots(market))
    assert [counts[user.account_id] for user in (holder, saver, leaver)] == [2, 1, 2]
    assert handler({}, LongContext())["snapshots"] == {"checked": 0, "taken": 0, "complete": True}


def test_a_scan_that_was_cut_short_begins_anew_with_the_next_hour(market: Market) -> None:
    # given three accounts in pages of one, of which the second cannot be valued any more
    first, unpriced, last = sorted((market.user() for _ in range(3)), key=lambda user: user.user_id)
    opened(market.trade(unpriced, symbol="GBPUSD"))
    market.execute("DELETE FROM quotes WHERE symbol = 'GBPUSD'")
    database = Database(lambda: market.database.url_for(ROLE))
    store = EquityStore(database)
    pages = [store.take_snapshots(accounts_max=1) for _ in range(2)]

    # when the hour is over before the last was looked at
    for table in ("equity_snapshots", "snapshot_scan"):
        market.execute(f"UPDATE {table} SET hour = hour - interval '1 hour'")
    market.execute("UPDATE accounts SET ledger_version = ledger_version + 1")
    pages += [store.take_snapshots(accounts_max=1) for _ in range(5)]
    market.execute("UPDATE accounts SET ledger_version = ledger_version - 1")
    database.close()

    # then the next one has them all from the first on, each once
    assert [(page.checked, page.taken, page.finished) for page in pages] == [
        (1, 1, False), (1, 0, False),
        (1, 1, False), (1, 0, False), (1, 1, False), (0, 0, True), (0, 0, True),
    ]  # fmt: skip
    counts = Counter(account_id for account_id, *_ in snapshots(market))
    assert [counts[user.account_id] for user in (first, unpriced, last)] == [2, 0, 1]


def test_days_that_have_ended_begin_anew_for_who_holds_something(market: Market, handler: Any) -> None:
    # given one who holds a lot that has lost 1,000 since, one who holds nothing, and days that have ended for both
    holder, saver = market.user(balance=10_000), market.user(balance=500)
    opened(market.trade(holder))
    market.quote("EURUSD", "1.09026", "1.09046")
    for statement in (
        "UPDATE account_days SET starts_at = starts_at - interval '2 days', opened_at = opened_at - interval '2 days', "
        "ends_at = ends_at - interval '2 days'",
        "UPDATE accounts SET day_ends_at = day_ends_at - interval '2 days'",
    ):
        market.execute(statement)

    # when it runs twice
    first, second = handler({}, LongContext())["days"], handler({}, LongContext())["days"]

    # then the day of who holds something begins once, with what is owned now, and has brought nothing yet
    assert (first, second) == (
        {"opened": 1, "failed": 0, "complete": True},
        {"opened": 0, "failed": 0, "complete": True},
    )
    equities = [row["start_equity"] for row in market.rows("account_days", holder)]
    assert equities == [0, Decimal("9000.00")]
    assert len(market.rows("account_days", saver)) == 1
    row = market.trader.execute("SELECT get_account_risk(%s, NULL) -> 'day'", (holder.user_id,)).fetchone()
    assert row is not None
    assert (row[0]["start_equity"], row[0]["pnl"]) == ("9000.00", "0.00")
