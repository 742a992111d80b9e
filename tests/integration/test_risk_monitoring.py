"""Margin calls on a real database: one a episode, valued as the account is, whoever runs at the same time."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import boto3
import psycopg
import pytest
from moto import mock_aws
from psycopg.rows import dict_row

from tests.kit.builders import User, make_position, make_user, set_quote
from tests.kit.functions import function_environment, load_function
from tests.kit.risk import ENOUGH_TIME_MS, LongContext, run_monitoring
from tests.kit.servers import ScratchDatabase
from trading import monitoring
from trading.errors import ErrorCode, TradingError
from trading.margin_levels import LevelAction, MarginLevel, episode_change, standing_level
from trading.monitoring import MarginReport, monitor_holders
from trading.store.database import Database
from trading.store.risk import DueAccount, RiskStore


@pytest.fixture
def world(database: ScratchDatabase) -> "World":
    """Markets that are open at any hour."""
    world = World(database)
    world.execute("UPDATE instruments SET calendar = 'CRYPTO'")
    return world


@pytest.fixture
def store(database: ScratchDatabase) -> Iterator[RiskStore]:
    with_role = Database(lambda: database.url_for("function_risk"))
    yield RiskStore(with_role)
    with_role.close()


class World:
    """What a test sets up and looks at, as the owner."""

    def __init__(self, database: ScratchDatabase) -> None:
        self.database = database

    def execute(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        with self.database.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def close_positions(self, user: User) -> None:
        self.execute(
            "UPDATE positions SET status = 'closed', quantity = 0, margin_used = 0, closed_at = clock_timestamp() "
            "WHERE user_id = %s",
            user.user_id,
        )

    def close_market(self, symbol: str) -> None:
        self.execute("INSERT INTO market_calendars VALUES ('NEVER', 'never open') ON CONFLICT DO NOTHING")
        self.execute("UPDATE instruments SET calendar = 'NEVER' WHERE symbol = %s", symbol)

    def quote(self, symbol: str, bid: str, ask: str, *, age: timedelta = timedelta(0)) -> None:
        # Quotes of a test stay fresh for as long as it runs.
        self.execute("UPDATE instruments SET quote_age_ms_max = 600000 WHERE symbol = %s", symbol)
        set_quote(self.database, symbol, bid, ask, datetime.now(UTC) - age)

    def events(self, user: User) -> list[dict[str, Any]]:
        return self.execute(
            "SELECT sequence, event_type, payload, request_id FROM events WHERE account_id = %s "
            "AND event_type LIKE 'margin_call%%' ORDER BY sequence",
            user.account_id,
        )

    def risk_events(self, user: User) -> list[dict[str, Any]]:
        return self.execute(
            "SELECT event_type FROM events WHERE account_id = %s AND event_type LIKE 'margin%%' ORDER BY sequence",
            user.account_id,
        )

    def event_types(self, user: User) -> list[str]:
        return [event["event_type"] for event in self.events(user)]

    def episodes(self, user: User) -> list[dict[str, Any]]:
        return self.execute(
            "SELECT * FROM margin_call_episodes WHERE account_id = %s ORDER BY entered_at", user.account_id
        )

    def account(self, user: User) -> dict[str, Any]:
        return self.execute("SELECT * FROM accounts WHERE id = %s", user.account_id)[0]

    def long_eurusd(self, balance: int = 10_000, **facts: Any) -> User:
        """A user who is long ten lots of EURUSD at 1.1000 with 11,000 of margin used."""
        user = make_user(self.database, balance=balance, **facts)
        make_position(self.database, user, "EURUSD", "long", "10", "1.1000", "11000")
        return user


class TestEpisode:
    def test_a_call_is_entered_once(self, world: World, store: RiskStore) -> None:
        # Given an account with equity 10,000 - 5,000 on 11,000 of margin: 45.45 percent, below its threshold of 50
        user = world.long_eurusd()
        world.quote("EURUSD", "1.0950", "1.0952")
        announced: list[UUID] = []

        # When the watch runs twice
        first = run_monitoring(store, announced)
        second = run_monitoring(store, announced)

        # Then there is one episode, one event, one announcement
        assert (first.checked, first.breached, first.entered, first.complete) == (1, 1, 1, True)
        assert (second.checked, second.breached, second.entered, second.unchanged) == (1, 1, 0, 0)
        assert announced == [user.account_id]
        (event,) = world.events(user)
        assert event["event_type"] == "margin_call.entered"
        assert event["request_id"] == "risk-1"
        assert event["payload"]["risk"]["state"] == "entered"
        assert Decimal(str(event["payload"]["risk"]["margin_level"])) == Decimal("45.45")
        assert event["payload"]["account"]["equity"] == 5000
        (episode,) = world.episodes(user)
        assert (episode["entered_equity"], episode["entered_margin_used"], episode["left_at"]) == (5000, 11000, None)

    def test_audit_sequence_and_episode_stand_or_fall_together(self, world: World, store: RiskStore) -> None:
        # Given an account about to be called
        user = world.long_eurusd()
        world.quote("EURUSD", "1.0950", "1.0952")
        before = world.account(user)

        # When it is
        run_monitoring(store)

        # Then the account's sequence and audit head moved by one, with the rows that say so, in one transaction
        after = world.account(user)
        assert after["last_sequence"] == before["last_sequence"] + 1
        assert after["audit_version"] == before["audit_version"] + 1
        assert after["balance"] == before["balance"]
        (audit,) = world.execute(
            "SELECT action, details, previous_hash, hash FROM order_audit_log WHERE account_id = %s AND version = %s",
            user.account_id,
            after["audit_version"],
        )
        assert audit["action"] == "MARGIN_CALL_ENTERED"
        assert audit["details"]["episode_id"] == str(world.episodes(user)[0]["id"])
        assert (audit["details"]["equity"], audit["details"]["margin_used"]) == (5000, 11000)
        assert (audit["previous_hash"], audit["hash"]) == (before["audit_head"], after["audit_head"])
        transactions = world.execute(
            "SELECT DISTINCT t.xmin::text FROM (SELECT xmin FROM accounts WHERE id = %s UNION ALL "
            "SELECT xmin FROM margin_call_episodes UNION ALL SELECT xmin FROM events WHERE sequence = %s UNION ALL "
            "SELECT xmin FROM order_audit_log WHERE version = %s) AS t",
            user.account_id,
            after["last_sequence"],
            after["audit_version"],
        )
        assert len(transactions) == 1

    def test_it_is_left_above_the_release_level_and_not_before(self, world: World, store: RiskStore) -> None:
        # Given a called account
        user = world.long_eurusd()
        world.quote("EURUSD", "1.0950", "1.0952")
        run_monitoring(store)

        # When its level comes back to 51 percent, above the threshold and below the release level of 52.5
        world.quote("EURUSD", "1.09561", "1.0958")
        hovering = run_monitoring(store)
        # Then the episode goes on
        assert (hovering.left, world.event_types(user)) == (0, ["margin_call.entered"])

        # When it reaches 90.9 percent
        world.quote("EURUSD", "1.1000", "1.1002")
        recovered = run_monitoring(store)
        # Then it is left, once
        assert recovered.left == 1
        assert run_monitoring(store).left == 0
        assert world.event_types(user) == ["margin_call.entered", "margin_call.left"]
        (episode,) = world.episodes(user)
        assert episode["left_level"] >= episode["release_level"] == Decimal("52.5")

        # When it falls again
        world.quote("EURUSD", "1.0950", "1.0952")
        # Then that is another episode
        assert run_monitoring(store).entered == 1
        assert len(world.episodes(user)) == 2

    def test_a_level_at_the_threshold_is_no_breach(self, world: World, store: RiskStore) -> None:
        # Given equity of 5,500 on 11,000: exactly 50 percent
        user = world.long_eurusd()
        world.quote("EURUSD", "1.0955", "1.0957")
        # When / then
        assert run_monitoring(store).breached == 0
        assert world.episodes(user) == []

    def test_closing_everything_ends_it(self, world: World, store: RiskStore) -> None:
        # Given a called account whose positions are closed since
        user = world.long_eurusd()
        world.quote("EURUSD", "1.0950", "1.0952")
        run_monitoring(store)
        world.close_positions(user)

        # When
        report = run_monitoring(store)

        # Then the call is left, with no level because no margin is used
        assert (report.left, report.complete) == (1, True)
        assert world.event_types(user) == ["margin_call.entered", "margin_call.left"]
        assert world.events(user)[-1]["payload"]["risk"]["margin_level"] is None
        assert run_monitoring(store).checked == 0

    @pytest.mark.parametrize("bid", ["1.0900", "1.0800"])
    def test_equity_at_or_below_zero_is_called_too(self, world: World, store: RiskStore, bid: str) -> None:
        # Given equity of exactly zero, or of minus 10,000
        user = world.long_eurusd()
        world.quote("EURUSD", bid, "1.1000")
        # When / then
        assert run_monitoring(store).entered == 1
        assert world.episodes(user)[0]["entered_level"] <= 0
        # Whose positions are about to be closed hears of a call, not of a warning
        assert world.event_types(user)[0] == "margin_call.entered"

    def test_the_threshold_is_the_accounts_own(self, world: World, store: RiskStore) -> None:
        # Given two accounts at 90.9 percent, one of which wants its call at 100
        strict = world.long_eurusd(risk={"margin_call_threshold": 100})
        lax = world.long_eurusd()
        world.quote("EURUSD", "1.1000", "1.1002")
        # When / then
        assert run_monitoring(store).entered == 1
        assert (len(world.episodes(strict)), len(world.episodes(lax))) == (1, 0)

    def test_a_cash_account_borrows_nothing_and_gets_no_call(self, world: World, store: RiskStore) -> None:
        # Given a share bought in full that lost 90 percent
        user = make_user(world.database, kind="cash", balance=100)
        make_position(world.database, user, "AAPL", "long", "1", "100", "100")
        world.quote("AAPL", "10", "10.1")
        # When
        report = run_monitoring(store)
        # Then
        assert (report.checked, report.breached, world.episodes(user)) == (1, 0, [])


class TestQuotes:
    def test_a_stale_quote_leaves_the_account_out_and_says_so(
        self, world: World, store: RiskStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        # Given one account on a stale quote and another on a fresh one
        stale = world.long_eurusd()
        world.quote("EURUSD", "1.0500", "1.0502", age=timedelta(minutes=11))
        fresh = make_user(world.database, balance=600)
        make_position(world.database, fresh, "GBPUSD", "short", "1", "1.3000", "1300")
        world.quote("GBPUSD", "1.3005", "1.3006")

        # When
        report = run_monitoring(store)

        # Then only the second is judged
        assert (report.checked, report.skipped, report.entered) == (2, 1, 1)
        assert world.events(stale) == []
        assert world.event_types(fresh) == ["margin_call.entered"]
        (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
        assert vars(warning)["unpriced"] == ("EURUSD",)

    def test_a_symbol_that_was_never_quoted_counts_as_unpriced(self, world: World, store: RiskStore) -> None:
        # Given
        world.long_eurusd()
        world.execute("DELETE FROM quotes")
        # When / then
        assert run_monitoring(store).skipped == 1
        world.close_market("EURUSD")
        assert run_monitoring(store).skipped == 1

    def test_the_sessions_last_quote_holds_while_the_market_is_closed(self, world: World, store: RiskStore) -> None:
        # Given an old quote of a closed market
        user = world.long_eurusd()
        world.quote("EURUSD", "1.0950", "1.0952", age=timedelta(days=2))
        world.close_market("EURUSD")
        # When / then
        assert (run_monitoring(store).entered, world.event_types(user)) == (1, ["margin_call.entered"])

    def test_a_stale_conversion_leaves_the_account_out(self, world: World, store: RiskStore) -> None:
        # Given a euro account with a dollar share: the share is priced, the dollar is not
        user = make_user(world.database, currency="EUR", balance=130)
        make_position(world.database, user, "AAPL", "long", "10", "200", "100")
        world.quote("AAPL", "190", "190.1")
        world.quote("EURUSD", "1.1", "1.1002", age=timedelta(minutes=11))
        # When / then
        assert run_monitoring(store).skipped == 1
        # When the dollar is priced again
        world.quote("EURUSD", "1.1", "1.1002")
        # Then the loss of 100 USD is 90.91 EUR: 39 percent is left
        assert run_monitoring(store).entered == 1
        assert world.episodes(user)[0]["entered_level"].quantize(Decimal("0.01")) == Decimal("39.09")

    def test_quotes_are_looked_at_again_under_the_lock(self, world: World, store: RiskStore) -> None:
        # Given an account that was due when it was scanned
        user = world.long_eurusd()
        world.quote("EURUSD", "1.0950", "1.0952")
        due = DueAccount(user.user_id, user.account_id)
        # When its price has recovered, or gone stale, by the time it is recorded
        world.quote("EURUSD", "1.1000", "1.1002")
        recovered = store.record_margin_call(due, "risk-1")
        world.quote("EURUSD", "1.0950", "1.0952", age=timedelta(minutes=11))
        stale = store.record_margin_call(due, "risk-1")
        # Then nothing is booked
        assert (recovered, stale, world.episodes(user)) == ("unchanged", "skipped", [])


def test_levels_are_those_of_the_accounts_valuation(world: World) -> None:
    # Given accounts in three currencies with winners and losers in four, one of them crossed through the dollar
    prices = {
        "EURUSD": ("1.1000", "1.1002"),
        "GBPUSD": ("1.3000", "1.3003"),
        "USDJPY": ("150.10", "150.13"),
        "EURGBP": ("0.8461", "0.8463"),
        "AAPL": ("199.5", "199.6"),
        "SAP": ("240.1", "240.3"),
    }
    for symbol, (bid, ask) in prices.items():
        world.quote(symbol, bid, ask)
    for currency in ("USD", "EUR", "GBP"):
        user = make_user(world.database, currency=currency, balance=5_000)
        make_position(world.database, user, "EURUSD", "long", "0.37", "1.0931", "404.45")
        make_position(world.database, user, "USDJPY", "short", "1.13", "149.07", "1130")
        make_position(world.database, user, "EURGBP", "long", "0.5", "0.8502", "500")
        make_position(world.database, user, "AAPL", "short", "13", "201.37", "26.18")
        make_position(world.database, user, "SAP", "long", "7", "239.99", "16.80")

    # When every account is valued in one statement and one by one
    rows = world.execute(
        "SELECT l.unrealized_pnl, l.equity, l.margin_used, l.margin_level, v.unrealized_pnl AS one_pnl, "
        "v.equity AS one_equity, v.margin_used AS one_margin_used, v.margin_level AS one_level "
        "FROM (SELECT array_agg(id) AS ids, clock_timestamp() AS at FROM accounts) AS a, "
        "margin_levels(a.ids, a.at) AS l, account_valuation(l.user_id, l.account_id, a.at) AS v"
    )

    # Then both say the same to the last digit
    assert len(rows) == 3
    for row in rows:
        assert row["unrealized_pnl"] == row["one_pnl"] != 0
        assert row["equity"] == row["one_equity"]
        assert row["margin_used"] == row["one_margin_used"] == Decimal("2077.43")
        assert row["margin_level"] == row["one_level"]


def levels_at(warning: int, call: int, stop_out: int, *, call_release_percent: int = 105) -> tuple[MarginLevel, ...]:
    return (
        MarginLevel.of("warning", LevelAction.WARN, Decimal(warning), Decimal(105)),
        MarginLevel.of("margin_call", LevelAction.CALL, Decimal(call), Decimal(call_release_percent)),
        MarginLevel.of("stop_out", LevelAction.STOP_OUT, Decimal(stop_out), Decimal(105)),
    )


RETAIL = levels_at(100, 75, 50)
# Whose owner wants to stay called for longer, and of a profile that has the three at one level
LONGER = levels_at(100, 75, 50, call_release_percent=120)
AT_ONCE = levels_at(75, 75, 75)


@pytest.mark.parametrize(
    ("levels", "at"),
    [
        *((RETAIL, at) for at in (None, *RETAIL)),
        (LONGER, LONGER[0]),
        *((AT_ONCE, at) for at in (None, AT_ONCE[1])),
    ],
)
def test_the_database_decides_by_the_rules_of_the_layer(
    world: World, levels: tuple[MarginLevel, ...], at: MarginLevel | None
) -> None:
    # Given retail accounts on 100 of margin whose equity is their level, around each limit
    world.quote("AAPL", "200", "200")
    own: dict[str, object] = {"margin_call_release_percent": 120} if levels is LONGER else {}
    users = {}
    for limit in sorted(
        {limit for level in levels for limit in (level.threshold, level.release_level)} | {Decimal(400)}
    ):
        for step in ("-0.01", "0", "0.01"):
            level = limit + Decimal(step)
            user = make_user(world.database, balance=level, risk=own)
            make_position(world.database, user, "AAPL", "long", "1", "200", "100")
            users[user.account_id] = level
    world.execute("UPDATE accounts SET margin_profile = 'retail'")
    for level in levels:
        statement = "UPDATE margin_profile_levels SET threshold = %s WHERE profile = 'retail' AND name = %s"
        world.execute(statement, level.threshold, level.name)
    if at is not None:
        world.execute(
            "INSERT INTO margin_call_episodes (user_id, account_id, level_name, level_action, threshold, "
            "release_level, entered_at, entered_level, entered_equity, entered_margin_used, changed_at) "
            "SELECT user_id, id, %s, %s, %s, %s, clock_timestamp(), 49, 49, 100, clock_timestamp() FROM accounts",
            at.name,
            at.action,
            at.threshold,
            at.release_level,
        )

    # When
    rows = world.execute("SELECT * FROM margin_levels(%s, clock_timestamp())", list(users))

    # Then
    assert len(rows) == len(users)
    for row in rows:
        standing = standing_level(levels, users[row["account_id"]], at)
        named = standing or at
        assert row["margin_level"] == users[row["account_id"]]
        assert row["due"] == episode_change(at, standing)
        assert (row["level_name"], row["threshold"], row["release_level"]) == (
            (named.name, named.threshold, named.release_level) if named else (None, None, None)
        )
        assert row["breached"] == any(level.begins_at(row["margin_level"]) for level in levels)
        assert row["stop_out_due"] == levels[-1].begins_at(row["margin_level"])


class TestScan:
    def test_pages_reach_every_account_once(
        self, world: World, store: RiskStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given five accounts to be called, and pages of two
        users = [world.long_eurusd() for _ in range(5)]
        world.quote("EURUSD", "1.0950", "1.0952")
        monkeypatch.setattr(monitoring, "PAGE_ACCOUNTS_MAX", 2)
        # When
        report = run_monitoring(store)
        # Then
        assert (report.checked, report.entered, report.complete) == (5, 5, True)
        assert all(world.event_types(user) == ["margin_call.entered"] for user in users)
        assert run_monitoring(store).checked == 5

    def test_a_page_ends_behind_the_last_account_that_it_names(self, world: World, store: RiskStore) -> None:
        # Given four accounts, of which the first, second and fourth are due
        users = sorted((world.long_eurusd() for _ in range(4)), key=lambda user: user.user_id)
        world.execute(
            "UPDATE risk_settings SET margin_call_threshold = 0, stop_out_level = 0 WHERE user_id = %s",
            users[2].user_id,
        )
        world.quote("EURUSD", "1.0950", "1.0952")
        # When pages may name two
        first = store.scan_margin(accounts_max=10, calls_max=2)
        second = store.scan_margin(accounts_max=10, calls_max=2)
        # Then the second page begins behind the second account
        assert [due.user_id for due in first.due] == [users[0].user_id, users[1].user_id]
        assert (first.checked, first.finished) == (2, False)
        assert [due.user_id for due in second.due] == [users[3].user_id]
        assert (second.checked, second.finished) == (2, True)

    def test_a_run_that_is_cut_short_is_continued_by_the_next(
        self, world: World, store: RiskStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given three accounts, and a run that may look at two
        users = [world.long_eurusd() for _ in range(3)]
        world.quote("EURUSD", "1.0950", "1.0952")
        monkeypatch.setattr(monitoring, "PAGE_ACCOUNTS_MAX", 2)
        monkeypatch.setattr(monitoring, "RUN_ACCOUNTS_MAX", 2)
        # When
        first, second = run_monitoring(store), run_monitoring(store)
        # Then
        assert (first.checked, first.complete) == (2, False)
        assert (second.checked, second.complete) == (1, True)
        assert sum(len(world.episodes(user)) for user in users) == 3

    def test_nothing_is_begun_without_time(self, world: World, store: RiskStore) -> None:
        # Given
        user = world.long_eurusd()
        world.quote("EURUSD", "1.0950", "1.0952")
        # When
        report = run_monitoring(store, time_left_ms=monitoring.TIME_LEFT_MS_MIN - 1)
        # Then
        assert (report.checked, report.complete, world.episodes(user)) == (0, False, [])

    def test_two_runs_at_once_call_each_account_once(self, world: World) -> None:
        # Given eight accounts to be called
        users = [world.long_eurusd() for _ in range(8)]
        world.quote("EURUSD", "1.0950", "1.0952")
        begin = threading.Barrier(2)
        reports: list[MarginReport] = []

        def one_run() -> None:
            connection = Database(lambda: world.database.url_for("function_risk"))
            begin.wait()
            reports.append(run_monitoring(RiskStore(connection)))
            connection.close()

        # When two runs start together
        threads = [threading.Thread(target=one_run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        # Then
        assert sum(report.entered for report in reports) == 8
        assert all(world.event_types(user) == ["margin_call.entered"] for user in users)

    def test_an_account_that_waits_for_its_lock_does_not_stop_the_others(self, world: World, store: RiskStore) -> None:
        # Given two accounts to be called, and an order that holds the first one's lock past every attempt
        users = sorted((world.long_eurusd() for _ in range(2)), key=lambda user: user.user_id)
        world.quote("EURUSD", "1.0950", "1.0952")
        world.execute("ALTER ROLE function_risk SET lock_timeout = 50")
        try:
            with world.database.connect(autocommit=False) as order:
                order.execute("SELECT FROM accounts WHERE id = %s FOR NO KEY UPDATE", (users[0].account_id,))
                # When
                report = run_monitoring(store)
        finally:
            world.execute("ALTER ROLE function_risk SET lock_timeout = 4000")
        # Then the second is called, the first counted, and called by the next run
        assert (report.failed, report.entered) == (1, 1)
        assert run_monitoring(store).entered == 1


class TestHolders:
    def watch(self, store: RiskStore, *symbols: str) -> MarginReport:
        return monitor_holders(
            store, symbols, lambda _: None, lambda *_: None, request_id="risk-1", time_left_ms=lambda: ENOUGH_TIME_MS
        )

    def test_only_those_who_hold_what_moved_are_looked_at(self, world: World, store: RiskStore) -> None:
        # Given two accounts to be called, in different symbols
        euro = world.long_eurusd()
        pound = make_user(world.database, balance=600)
        make_position(world.database, pound, "GBPUSD", "short", "1", "1.3000", "1300")
        world.quote("EURUSD", "1.0950", "1.0952")
        world.quote("GBPUSD", "1.3005", "1.3006")
        # When the euro has moved
        report = self.watch(store, "EURUSD", "USDJPY")
        # Then
        assert (report.checked, report.entered, report.complete) == (1, 1, True)
        assert (world.event_types(euro), world.event_types(pound)) == (["margin_call.entered"], [])
        # And nobody is looked at for what nobody holds, or for nothing
        assert (self.watch(store, "USDJPY").checked, self.watch(store).checked) == (0, 0)
        # And the scan of all has not moved on
        assert run_monitoring(store).checked == 2

    def test_pages_reach_every_holder_once(
        self, world: World, store: RiskStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given five accounts to be called, pages of four, and three calls a page
        users = [world.long_eurusd() for _ in range(5)]
        world.quote("EURUSD", "1.0950", "1.0952")
        monkeypatch.setattr(monitoring, "PAGE_ACCOUNTS_MAX", 4)
        monkeypatch.setattr(monitoring, "PAGE_CALLS_MAX", 3)
        # When
        report = self.watch(store, "EURUSD")
        # Then
        assert (report.checked, report.entered, report.complete) == (5, 5, True)
        assert all(world.event_types(user) == ["margin_call.entered"] for user in users)


class TestHovering:
    def test_a_level_that_hovers_about_its_thresholds_is_one_episode(self, world: World, store: RiskStore) -> None:
        # Given a retail account on 11,000 of margin: warned below 100, called below 75, until 105 and 78.75
        user = world.long_eurusd(balance=11_000)
        world.execute("UPDATE accounts SET margin_profile = 'retail' WHERE id = %s", user.account_id)
        told = []
        # When its level hovers about 100, about 75, eases, hovers about 105 and rises
        for level, due in [
            ("100", None),
            ("99.9", "margin_warning.entered"),
            ("100.1", None),
            ("99.8", None),
            ("104.9", None),
            ("75.1", None),
            ("74.9", "margin_call.escalated"),
            ("75.1", None),
            ("74.8", None),
            ("78.7", None),
            ("78.8", "margin_warning.eased"),
            ("75.1", None),
            ("104.9", None),
            ("105.1", "margin_warning.left"),
            ("100.1", None),
        ]:
            # 1,000,000 euros at 1.1000: 0.01 percent of 11,000 is 1.1 dollars, 0.0000011 of price
            bid = Decimal("1.1000") + (Decimal(level) - 100) * Decimal("0.00011")
            world.quote("EURUSD", str(bid), str(bid + Decimal("0.0002")))
            run_monitoring(store)
            told += [due] if due else []
            # Then each change is told once, and nothing else is
            assert [event["event_type"] for event in world.risk_events(user)] == told, level
            at = [(episode["level_name"], episode["level_action"]) for episode in world.episodes(user)]
            assert at in ([], [("warning", "warn")], [("margin_call", "call")]), level
        (episode,) = world.episodes(user)
        assert (episode["level_name"], episode["entered_level"], episode["left_at"] is not None) == (
            "warning",
            Decimal("99.9"),
            True,
        )
        # And the audit tells the same
        actions = world.execute(
            "SELECT action FROM order_audit_log WHERE account_id = %s AND action LIKE 'MARGIN%%' ORDER BY version",
            user.account_id,
        )
        assert [row["action"].lower() for row in actions] == [event.replace(".", "_") for event in told]
        assert world.execute("SELECT * FROM books_episodes()") == []


class TestBooks:
    @pytest.mark.parametrize(
        ("statement", "problem"),
        [
            ("DELETE FROM margin_call_episodes", "the audit tells another episode"),
            ("UPDATE margin_call_episodes SET level_name = 'warning'", "the audit tells another episode"),
            (
                "UPDATE margin_call_episodes SET left_at = changed_at, left_level = 60, left_equity = 60",
                "the audit tells another episode",
            ),
            ("DELETE FROM events WHERE event_type = 'margin_call.entered'", "the events tell otherwise"),
            (
                "UPDATE events SET payload = jsonb_set(payload, '{risk,level}', '\"warning\"') "
                "WHERE event_type LIKE 'margin_call.%%'",
                "the events tell otherwise",
            ),
        ],
    )
    def test_they_find_an_episode_that_is_not_what_was_told(
        self, world: World, store: RiskStore, statement: str, problem: str
    ) -> None:
        # Given a called account, whose episode the books find in order
        world.long_eurusd()
        world.quote("EURUSD", "1.0950", "1.0952")
        run_monitoring(store)
        assert world.execute("SELECT * FROM books_episodes()") == []
        # When / then
        world.execute(statement)
        assert any(row["problem"].startswith(problem) for row in world.execute("SELECT * FROM books_episodes()"))


class TestDoors:
    @pytest.mark.parametrize("role", ["function_trader", "function_relay", "function_prices", "compliance"])
    def test_only_risk_monitoring_may_call(self, database: ScratchDatabase, role: str) -> None:
        for procedure in ("monitor_margin", "monitor_symbols", "record_margin_call", "stop_out_step"):
            with database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT {procedure}('{{}}')".encode())

    @pytest.mark.parametrize("table", ["margin_call_episodes", "margin_scan", "accounts", "positions"])
    def test_it_reads_no_table_itself(self, database: ScratchDatabase, table: str) -> None:
        with database.connect("function_risk") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT FROM {table}".encode())

    def test_an_unknown_version_or_account_is_refused(self, database: ScratchDatabase, store: RiskStore) -> None:
        procedures = Database(lambda: database.url_for("function_risk"))
        with pytest.raises(TradingError) as version:
            procedures.call("monitor_margin", {"version": 2, "accounts_max": 1, "calls_max": 1})
        with pytest.raises(TradingError) as limit:
            procedures.call("monitor_margin", {"version": 1, "accounts_max": 0, "calls_max": 1})
        nobody = UUID("00000000-0000-7000-8000-000000000000")
        with pytest.raises(TradingError) as account:
            store.record_margin_call(DueAccount(nobody, nobody), "risk-1")
        procedures.close()
        assert version.value.code == ErrorCode.VALIDATION_FAILED
        assert limit.value.code == ErrorCode.VALIDATION_FAILED
        assert account.value.code == ErrorCode.NOT_FOUND

    def test_one_open_episode_an_account(self, world: World, store: RiskStore) -> None:
        # Given a called account
        world.long_eurusd()
        world.quote("EURUSD", "1.0950", "1.0952")
        run_monitoring(store)
        # When / then
        with pytest.raises(psycopg.errors.UniqueViolation):
            world.execute(
                "INSERT INTO margin_call_episodes (user_id, account_id, level_name, level_action, threshold, "
                "release_level, entered_at, entered_level, entered_equity, entered_margin_used, changed_at) "
                "SELECT user_id, account_id, level_name, level_action, threshold, release_level, entered_at, "
                "entered_level, entered_equity, entered_margin_used, changed_at FROM margin_call_episodes"
            )


class TestFunction:
    def test_a_scheduled_run_books_tells_the_relay_and_counts(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        # Given an account to be called, and the relay's queue
        user = world.long_eurusd()
        world.quote("EURUSD", "1.0950", "1.0952")
        context = LongContext()
        with mock_aws():
            sqs = boto3.client("sqs")
            queue = sqs.create_queue(QueueName="relay")["QueueUrl"]
            environment = function_environment(
                monkeypatch, tmp_path, database=world.database, role="function_risk", RELAY_QUEUE_URL=queue
            )
            # When the schedule starts the function
            with environment:
                answer = load_function("risk_monitoring")({"detail-type": "Scheduled Event"}, context)
            messages = sqs.receive_message(
                QueueUrl=queue, MaxNumberOfMessages=10, MessageAttributeNames=["request_id"]
            )["Messages"]

        # Then the event names the run, and the queue the account
        assert (answer["entered"], answer["complete"]) == (1, True)
        assert world.events(user)[0]["request_id"] == f"risk-{context.aws_request_id}"
        (message,) = messages
        assert json.loads(message["Body"]) == {"account_id": str(user.account_id)}
        assert message["MessageAttributes"]["request_id"]["StringValue"] == f"risk-{context.aws_request_id}"
        # And metrics and log lines carry the counts, with the run as their correlation id
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        (measured,) = [line for line in lines if "MarginCallsEntered" in line]
        assert measured["MarginCallsEntered"] == [1.0]
        assert measured["AccountsChecked"] == [1.0]
        assert measured["AccountsSkipped"] == measured["AccountsFailed"] == measured["ScansCutShort"] == [0.0]
        logged = [line for line in lines if line.get("message") == "margin levels watched"]
        assert [line["correlation_id"] for line in logged] == [f"risk-{context.aws_request_id}"]

    def test_messages_say_whose_prices_have_moved(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given an account to be called, two messages about its symbol and one that says nothing
        user = world.long_eurusd()
        world.quote("EURUSD", "1.0950", "1.0952")
        bodies = ['{"symbols": ["EURUSD"]}', '{"symbols": ["USDJPY", "EURUSD"]}', '{"symbols": "EURUSD"}']
        records = [{"messageId": str(number), "body": body} for number, body in enumerate(bodies)]
        environment = function_environment(
            monkeypatch, tmp_path, database=world.database, role="function_risk", RELAY_QUEUE_URL="http://127.0.0.1:9"
        )
        # When
        with mock_aws(), environment:
            answer = load_function("risk_monitoring")({"Records": records}, LongContext())
        # Then
        assert (answer["checked"], answer["entered"]) == (1, 1)
        assert answer["batchItemFailures"] == [{"itemIdentifier": "2"}]
        assert world.event_types(user) == ["margin_call.entered"]
