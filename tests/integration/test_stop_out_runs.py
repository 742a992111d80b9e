"""The scheduled run that stops accounts out, and what happens to an account that many act on at once."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import UUID

import boto3
import pytest
from moto import mock_aws

from tests.kit import ScratchDatabase, User, order_request
from tests.kit.functions import function_environment, load_function
from tests.kit.orders import Market, send, stale_time
from tests.kit.risk import (
    ASK_AT_THE_LEVEL,
    BID_AT_THE_LEVEL,
    LongContext,
    long_eurusd,
    opened,
    rested,
    run_monitoring,
    stop_out_step,
)
from trading import monitoring
from trading.monitoring import MarginReport
from trading.store.database import Database
from trading.store.risk import RiskStore


@pytest.fixture
def market(database: ScratchDatabase) -> Iterator[Market]:
    """A market of the test's own: a run looks at every account."""
    with Market.opened(database) as market:
        yield market
        assert market.book_faults() == []
        assert deadlocks(market) == 0


@pytest.fixture
def store(market: Market) -> Iterator[RiskStore]:
    with_role = Database(lambda: market.database.url_for("function_risk"))
    yield RiskStore(with_role)
    with_role.close()


def deadlocks(market: Market) -> int:
    return market.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0][0]


def fall_to_the_level(market: Market) -> None:
    market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)


def risk_events(market: Market, user: User) -> list[str]:
    events = sorted(market.rows("events", user), key=lambda event: event["sequence"])
    return [event["event_type"] for event in events if "risk" in event["payload"]]


def open_positions(market: Market, user: User) -> int:
    return sum(position["status"] == "open" for position in market.rows("positions", user))


class TestRun:
    def test_the_call_comes_first_then_the_stop_out_then_the_calls_end(self, market: Market, store: RiskStore) -> None:
        # given an account that fell through both levels between two runs, with an order at rest
        user = long_eurusd(market)
        rested(market, user)
        fall_to_the_level(market)
        announced: list[UUID] = []

        # when
        report = run_monitoring(store, announced)

        # then
        assert risk_events(market, user) == ["margin_call.entered", "stop_out.closed", "margin_call.left"]
        assert (report.entered, report.stopped_out, report.positions_closed, report.orders_canceled, report.left) == (
            1,
            1,
            1,
            1,
            1,
        )
        assert (report.waiting, report.unfinished, report.unchanged, report.failed) == (0, 0, 0, 0)
        assert announced == [user.account_id] * 3
        # and another run finds nothing
        again = run_monitoring(store)
        assert (again.checked, again.stopped_out) == (0, 0)

    def test_who_was_called_before_is_told_that_it_got_worse_then_stopped_out(
        self, market: Market, store: RiskStore
    ) -> None:
        # given a call at 45 percent
        user = long_eurusd(market)
        market.quote("EURUSD", "1.09300", "1.09320")
        assert (run_monitoring(store).entered, risk_events(market, user)) == (1, ["margin_call.entered"])
        # when the price falls on
        fall_to_the_level(market)
        report = run_monitoring(store)
        # then
        assert (report.entered, report.escalated, report.stopped_out, report.left) == (0, 1, 1, 1)
        assert risk_events(market, user) == [
            "margin_call.entered",
            "margin_call.escalated",
            "stop_out.closed",
            "margin_call.left",
        ]

    def test_a_hovering_level_is_one_episode_and_one_stop_out(self, market: Market, store: RiskStore) -> None:
        # given two positions, of which the larger is enough to come back to 93 percent
        user = market.user(balance=6000)
        opened(market.trade(user, quantity="4"))
        opened(market.trade(user))
        # when the level falls to 19.09 percent, and the price hovers there
        for bid in ("1.09036", "1.09040", "1.09030", "1.09040", "1.09030"):
            market.quote("EURUSD", bid, "1.09060")
            run_monitoring(store)
        # then the four lots went, at once, and with them the call
        assert risk_events(market, user) == ["margin_call.entered", "stop_out.closed", "margin_call.left"]
        assert open_positions(market, user) == 1

    def test_the_call_stays_open_while_the_level_is_between_the_two(self, market: Market, store: RiskStore) -> None:
        # given equal positions of 1,100.26 of margin each, where each costs six of slippage when it goes
        user = market.user(balance=3200)
        for _ in range(2):
            opened(market.trade(user))
        # when 3,200 - 2 x 1,400 = 400 are 18.18 percent of 2,200.52
        market.quote("EURUSD", "1.08626", "1.08646")
        report = run_monitoring(store)
        # then one goes, and 394 are 35.81 percent of 1,100.26: no further position, and no end of the call, but no
        # stop-out any more
        assert (report.positions_closed, report.entered, report.eased, report.left) == (1, 1, 1, 0)
        told = ["margin_call.entered", "stop_out.closed", "margin_call.eased"]
        assert risk_events(market, user) == told
        # and hovering there changes nothing
        market.quote("EURUSD", "1.08630", "1.08650")
        run_monitoring(store)
        assert risk_events(market, user) == told
        assert open_positions(market, user) == 1

    def test_accounts_are_stopped_out_whoever_lies_between(self, market: Market, store: RiskStore) -> None:
        # given accounts at the level, above it, and one that is on a stale quote
        due = [long_eurusd(market) for _ in range(3)]
        above = [long_eurusd(market, "9000") for _ in range(2)]
        stale = market.user(balance=1000)
        opened(market.trade(stale, symbol="GBPUSD", quantity="0.5"))
        market.quote("GBPUSD", "1.2300", "1.2304", stale_time())
        fall_to_the_level(market)
        # when
        report = run_monitoring(store)
        # then
        assert (report.checked, report.stopped_out, report.skipped) == (6, 3, 1)
        assert [open_positions(market, user) for user in due + above + [stale]] == [0, 0, 0, 1, 1, 1]

    def test_a_closed_market_waits_and_is_taken_at_its_open(self, market: Market, store: RiskStore) -> None:
        # given
        user = long_eurusd(market)
        fall_to_the_level(market)
        market.close("FX")
        # when it runs at the weekend
        reports = [run_monitoring(store) for _ in range(2)]
        # then the call is told once, and each run waits
        assert [(report.entered, report.waiting, report.stopped_out) for report in reports] == [(1, 1, 0), (0, 1, 0)]
        assert risk_events(market, user) == ["margin_call.entered"]
        # when it opens
        market.execute("UPDATE market_calendars SET always_open = true WHERE name = 'FX'")
        # then
        assert run_monitoring(store).positions_closed == 1

    def test_an_account_takes_a_bounded_number_of_steps_a_run(
        self, market: Market, store: RiskStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # given three positions that all have to go, and two steps a run
        user = market.user(balance=3500)
        for _ in range(3):
            opened(market.trade(user))
        market.quote("EURUSD", "1.08000", "1.08020")
        monkeypatch.setattr(monitoring, "STOP_OUT_STEPS_MAX", 2)
        # when
        first, second = run_monitoring(store), run_monitoring(store)
        # then
        assert (first.positions_closed, first.stopped_out, first.unfinished) == (2, 1, 1)
        assert (second.positions_closed, second.stopped_out, second.unfinished) == (1, 1, 0)
        assert open_positions(market, user) == 0

    def test_one_accounts_fault_does_not_stop_the_others(self, market: Market, store: RiskStore) -> None:
        # given two accounts to be stopped out, and an order that holds the first one's lock past every attempt
        users = sorted((long_eurusd(market) for _ in range(2)), key=lambda user: user.user_id)
        fall_to_the_level(market)
        market.execute("ALTER ROLE function_risk SET lock_timeout = 50")
        try:
            with market.database.connect(autocommit=False) as order:
                order.execute("SELECT FROM accounts WHERE id = %s FOR NO KEY UPDATE", (users[0].account_id,))
                # when
                report = run_monitoring(store)
        finally:
            market.execute("ALTER ROLE function_risk SET lock_timeout = 4000")
        # then
        assert (report.failed, report.stopped_out) == (1, 1)
        assert [open_positions(market, user) for user in users] == [1, 0]
        assert run_monitoring(store).stopped_out == 1

    def test_two_runs_at_once_close_each_position_once(self, market: Market) -> None:
        # given eight accounts to be stopped out
        users = [long_eurusd(market) for _ in range(8)]
        fall_to_the_level(market)
        begin = Barrier(2)

        def one_run(_: int) -> MarginReport:
            connection = Database(lambda: market.database.url_for("function_risk"))
            begin.wait(30)
            try:
                return run_monitoring(RiskStore(connection))
            finally:
                connection.close()

        # when
        with ThreadPoolExecutor(2) as pool:
            reports = list(pool.map(one_run, range(2)))

        # then
        assert sum(report.positions_closed for report in reports) == 8
        assert all(risk_events(market, user).count("stop_out.closed") == 1 for user in users)


class TestRaces:
    def test_ten_steps_at_once_on_one_account(self, market: Market) -> None:
        # given six positions that all have to go: 6,800 - 6 x 1,098 = 212 of equity, less than 20 percent even of one
        # lot's margin, and each close costs 6 more
        user = market.user(balance=6800)
        orders = {str(rested(market, user)) for _ in range(2)}
        for _ in range(6):
            opened(market.trade(user))
        market.quote("EURUSD", "1.08928", "1.08948")
        begin = Barrier(10)

        def one_step(_: int) -> dict[str, Any]:
            with market.database.connect("function_risk") as connection:
                begin.wait(30)
                return stop_out_step(connection, user)

        # when
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(one_step, range(10)))

        # then each step found the account as the one before it left it
        states = [answer["state"] for answer in sorted(answers, key=lambda answer: answer["sequence"] or 10**6)]
        closed = [answer["position_id"] for answer in answers if answer["position_id"]]
        assert len(set(closed)) == len(closed) == 6
        assert states == ["more"] * 5 + ["done"] + ["recovered"] * 4
        assert {order for answer in answers for order in answer["canceled_orders"]} == orders
        assert open_positions(market, user) == 0

    def test_orders_and_steps_at_once(self, market: Market) -> None:
        # given an account to be stopped out, whose owner goes on buying
        user = market.user(balance=20_000, risk={"daily_trade_limit": None, "max_positions": None})
        for _ in range(8):
            opened(market.trade(user, quantity="2"))
        market.quote("EURUSD", "1.08800", "1.08820")
        begin = Barrier(10)

        def act(number: int) -> str:
            begin.wait(30)
            if number % 2:
                with market.database.connect("function_risk") as connection:
                    return stop_out_step(connection, user)["state"]
            with market.database.connect("function_trader") as connection:
                return send(connection, order_request(user, quantity="0.1"))["outcome"]

        # when
        with ThreadPoolExecutor(10) as pool:
            outcomes = list(pool.map(act, range(10)))

        # then every call was served; no order added exposure that the account could not carry, which the books show
        assert set(outcomes) <= {"more", "done", "recovered", "filled", "denied"}
        with market.database.connect("function_risk") as connection:
            while (answer := stop_out_step(connection, user))["state"] == "more":
                pass
        level = market.worth(user)["margin_level"]
        assert answer["state"] in {"done", "recovered"}
        assert level is None or Decimal(level) > 20


def test_a_scheduled_run_tells_the_relay_of_each_event_and_counts(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given an account to be stopped out, one that waits for its market, and the relay's queue
    user = long_eurusd(market)
    rested(market, user)
    waiting = market.user(balance=200)
    opened(market.trade(waiting, symbol="AAPL", quantity="20"))
    market.quote("AAPL", "141.00", "141.02")
    market.close("XNYS")
    fall_to_the_level(market)
    with mock_aws():
        sqs = boto3.client("sqs")
        queue = sqs.create_queue(QueueName="relay")["QueueUrl"]
        environment = function_environment(
            monkeypatch, tmp_path, database=market.database, role="function_risk", RELAY_QUEUE_URL=queue
        )
        # when the schedule starts the function
        with environment:
            answer = load_function("risk_monitoring")({"detail-type": "Scheduled Event"}, LongContext())
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]

    # then
    assert (answer["stopped_out"], answer["waiting"], answer["complete"]) == (1, 1, True)
    told = [json.loads(message["Body"])["account_id"] for message in messages]
    assert sorted(told) == sorted([str(user.account_id)] * 3 + [str(waiting.account_id)])
    (measured,) = [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if "StopOuts" in line]
    assert {name: measured[name] for name in ("StopOuts", "PositionsClosed", "OrdersCanceled")} == {
        "StopOuts": [1.0],
        "PositionsClosed": [1.0],
        "OrdersCanceled": [1.0],
    }
    assert (measured["StopOutsWaiting"], measured["StopOutsUnfinished"]) == ([1.0], [0.0])
