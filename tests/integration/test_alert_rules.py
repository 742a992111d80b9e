"""Every alert rule, fired and cleared by the figures that it is about."""

import csv
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import boto3
import pytest
from moto import mock_aws

from database.load_reference_data import DATA
from tests.kit import MigratedTemplate, User
from tests.kit.alerts import AlertWorld, answer_of
from tests.kit.financing import financing_store, hold_schedules, roll, run_rollover, set_rate
from tests.kit.functions import ROOT
from tests.kit.kill_switch import Officer
from tests.kit.orders import Market
from tests.kit.risk import ASK_AT_THE_LEVEL, BID_AT_THE_LEVEL, long_eurusd, stop_out_step
from tests.kit.security import STRANGER, Watch
from tests.kit.ticks import Ticker
from tests.kit.venues import PAIR, VenueWorld
from trading.collectors.from_cloudwatch import CloudWatchCollector, Sources
from trading.store.database import Database
from trading.store.relay import Delivered, RelayStore
from trading.store.venues import RoutedOrder

SECONDS = timedelta(seconds=1)
UNBOUND = {"max_positions": None, "daily_trade_limit": None, "max_daily_loss": None, "max_position_size": None}
ORDER_RULES = {
    "ORDER_EXECUTION_FAILURE",
    "ORDER_ERRORS",
    "ORDER_ERROR_RATE",
    "ORDER_LATENCY",
    "ORDER_LATENCY_ON_CALL",
    "SLOW_ORDERS",
    "REJECTIONS",
}
QUEUE_RULES = {"TRIGGER_BACKLOG", "TRIGGERS_STUCK", "RELAY_BACKLOG", "VENUE_SILENT", "VENUE_CLOSING"}
DUTY_RULES = {"STOP_OUT_OVERDUE", "WIND_DOWN_OVERDUE", "FINANCING_OVERDUE", "RATES_MISSING"}
SERVER_RULES = {"PRICES_STALE", "MARGIN_WATCH_SILENT", "CONNECTIONS"}
TRADING_RULES = {"CIRCUIT_BREAKER"}
SECURITY_RULES = {"SECURITY_SCORE_LOW", "SECURITY_THREAT"}
NEWS_RULES = {"DEPLOYMENT_SUCCESS", "PERFORMANCE_IMPROVED"}
CLOUDWATCH_RULES = {
    "REQUEST_FAILURE",
    "REQUEST_LATENCY",
    "REQUEST_ERROR_RATE",
    "STOP_OUT_FAILURE",
    "CAPACITY_CPU",
    "CAPACITY_MEMORY",
    "FUNCTION_ERRORS",
    "DEAD_LETTERS",
}
# Shown in test_alerts.py.
OWN_RULES = {"DATABASE_FAILURE", "COLLECTOR_FAILED"}


@pytest.fixture
def world(migrated: MigratedTemplate) -> Iterator[AlertWorld]:
    with AlertWorld.opened(migrated) as world:
        yield world
        assert world.market.book_faults() == []


def open_rules(world: AlertWorld) -> set[str]:
    return {rule for rule, _, state in world.alerts() if state == "open"}


def test_orders(world: AlertWorld) -> None:
    """Of 50 orders 30 are refused, 12 take over a second, 2 fail; then come 400 good ones."""
    with VenueWorld.joined(world.market) as venues:
        market = world.market
        trader = market.user(balance=10_000_000, risk=UNBOUND)
        poor = market.user(balance=1, risk=UNBOUND)
        world.only(*ORDER_RULES)

        # given orders that a venue is slow with, or refuses, and orders without margin
        routed = [venues.sent(trader, symbol=PAIR, quantity="0.01") for _ in range(14)]
        for _ in range(30):
            assert market.trade(poor)["outcome"] == "denied"
        market.execute("SELECT pg_sleep(1.05)")
        for each in routed[:12]:
            venues.fill(each, "0.01", "1.1002")
        for each in routed[12:]:
            venues.store.end(each, "rejected", code="VENUE_REJECTED", reason="no", retry_attempt=0)
        fill_some(world, trader, 8)

        # when the minute's run comes by, then what can be said of 20 orders is said
        assert world.evaluate().opened == 5
        assert open_rules(world) == ORDER_RULES - {"ORDER_ERRORS", "ORDER_ERROR_RATE"}
        # and of 100 orders the rest
        fill_some(world, trader, 78)
        world.evaluate()
        assert open_rules(world) == ORDER_RULES

        # when only good ones have come for a while, then each ends, in its time
        fill_some(world, trader, 310)
        world.evaluate()
        world.evaluate(31 * SECONDS)
        assert "ORDER_ERRORS" not in open_rules(world)
        world.evaluate(62 * SECONDS)
        assert open_rules(world) == set()
        assert {state for _, _, state in world.alerts()} == {"cleared"}


def test_what_our_own_halt_refuses_is_no_news(world: AlertWorld) -> None:
    market = world.market
    world.only("REJECTIONS")
    market.execute("UPDATE alert_rules SET samples_min = 1 WHERE name = 'REJECTIONS'")
    trader, poor = market.user(risk=UNBOUND), market.user(balance=1, risk=UNBOUND)
    # given orders that meet a kill switch, and none or few others
    with Officer.opened(market) as officer:
        officer.set_state("symbol", "halted", symbol="EURUSD")
        assert [market.trade(trader)["code"] for _ in range(5)] == ["TRADING_HALTED"] * 5
        world.evaluate()
        officer.set_state("symbol", "active", symbol="EURUSD")
    fill_some(world, trader, 2)
    world.evaluate()
    assert open_rules(world) == set()
    # when one of the three others is refused for what it asks
    assert market.trade(poor)["outcome"] == "denied"
    world.evaluate()
    assert world.alerts("rule", "samples", "round(last_value)") == [("REJECTIONS", 3, 33)]


def fill_some(world: AlertWorld, trader: User, orders: int) -> None:
    for place in range(orders):
        side = "buy" if place % 2 else "sell"
        assert world.market.trade(trader, quantity="0.01", side=side)["outcome"] == "filled"


def test_queues(world: AlertWorld) -> None:
    """What waits: an order that a price has touched, events that nobody pushes, a submission without an answer, and a
    position that a venue was to close."""
    market = world.market
    world.only(*QUEUE_RULES)
    with Ticker.opened(market) as ticker, VenueWorld.joined(market) as venues, Officer.opened(market) as officer:
        # given one of each
        trader = market.user()
        market.place(trader, limit_price="1.0900")
        assert ticker.touch("EURUSD", "1.0880", "1.0882") == 1
        routed = venues.sent(trader, symbol=PAIR, quantity="0.01")
        venues.store.record(routed, "EXECUTED", retry_attempt=0, step="submit", error_code="TIMEOUT")
        closing = wound_down_at_venue(venues, officer, market.user())

        # when they have waited for too long, but not for long enough to be told of
        world.evaluate(65 * SECONDS)
        assert open_rules(world) == {"VENUE_SILENT", "VENUE_CLOSING"}
        world.evaluate(126 * SECONDS)
        assert open_rules(world) == QUEUE_RULES
        assert world.alerts("subject") == [("mock",), ("mock",), ("",), ("",), ("",)]

        # when the work is done, then the next run ends them
        assert ticker.work() == ["filled"]
        venues.fill(routed, "0.01", "1.1002")
        venues.fill(closing, "0.01", "1.1000")
        push_all(world)
        world.evaluate(127 * SECONDS)
        assert open_rules(world) == set()


def wound_down_at_venue(venues: VenueWorld, officer: Officer, user: User) -> RoutedOrder:
    """The order that closes the position of `user`, of which the venue has not said anything yet."""
    venues.fill(venues.sent(user, symbol=PAIR, quantity="0.01"), "0.01", "1.1002")
    named = {"account_id": str(user.account_id)}
    officer.set_state("account", "halted", **named)
    officer.wind_down("account", **named)
    officer.work()
    (closing,) = [row for row in venues.market.rows("orders", user) if row["status"] == "pending_new"]
    routed = venues.leased(user, closing["id"])
    venues.store.record(routed, "EXECUTED", retry_attempt=0, step="submit")
    return routed


def push_all(world: AlertWorld) -> None:
    """Deliver every event, as the relay does to a channel that nobody listens to."""
    database = Database(lambda: world.market.database.url_for("function_relay"))
    store = RelayStore(
        database, UUID(int=7), lease_ms=5000, publish_retry_ms=100, post_retry_ms=100, post_retry_ms_max=100
    )
    accounts = [row[0] for row in world.market.execute("SELECT id FROM accounts")]
    claimed = store.claim(accounts, limit=100, recent_ms=None)
    store.advance([Delivered(each, each.last_sequence, False, (), ()) for each in claimed.streams])
    database.close()


def test_duties(world: AlertWorld) -> None:
    """What nobody does: a stop-out, a wind-down, the charging of a roll, and a rate that does not come."""
    market = world.market
    # A quote is good for an hour here: what is late is the work, not the price.
    market.execute("UPDATE instruments SET quote_age_ms_max = 3600000")
    hold_schedules(market)
    with (
        Officer.opened(market) as officer,
        financing_store(market) as financing,
        market.database.connect("function_risk") as risk,
    ):
        # given an account at its stop-out level, of which only the episode is recorded
        user = long_eurusd(market)
        market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)
        account = {"user_id": str(user.user_id), "account_id": str(user.account_id)}
        assert answer_of(risk, "record_margin_call", **account)["level"] == "stop_out"
        # and one that is to be wound down, and rolls of an hour ago: with its rate, and without
        market.place(market.user(), symbol="GBPUSD", limit_price="1.2000")
        officer.set_state("symbol", "reducing", symbol="GBPUSD")
        officer.wind_down("symbol", symbol="GBPUSD")
        set_rate(market, "EURUSD", "-2.5", "1.0")
        hour_ago = datetime.now(UTC) - 3605 * SECONDS
        for symbol in ("EURUSD", "USDJPY"):
            quote_before(market, symbol, hour_ago - SECONDS)
            roll(market, symbol, at=hour_ago)
        financing.open_rolls()

        # when they have waited, each for its own time
        world.only(*DUTY_RULES)
        world.evaluate(100 * SECONDS)
        assert open_rules(world) == {"FINANCING_OVERDUE", "RATES_MISSING"}
        world.evaluate(125 * SECONDS)
        assert open_rules(world) == DUTY_RULES - {"WIND_DOWN_OVERDUE"}
        world.evaluate(305 * SECONDS)
        assert open_rules(world) == DUTY_RULES

        # when the work is done and the rate is there, then each ends
        set_rate(market, "USDJPY", "3.8", "-3.8")
        stop_out_step(risk, user)
        officer.work()
        run_rollover(financing)
    for after in (306, 367):
        world.evaluate(after * SECONDS)
    assert open_rules(world) == set()


def quote_before(market: Market, symbol: str, at: datetime) -> None:
    """The last quote before a roll."""
    market.execute("INSERT INTO roll_quotes (symbol, quoted_at, bid, ask) VALUES (%s, %s, 1.1, 1.2)", (symbol, at))


def test_server(world: AlertWorld) -> None:
    """No prices in open markets, a watch over margin that does not come by, connections that run out."""
    market = world.market
    world.only(*SERVER_RULES)
    (used,) = world.call("collect_server_figures", windows=[])[1:2]
    threshold = Decimal(str(used["value"])) + 3
    market.execute(
        "UPDATE alert_rules SET threshold = %(t)s, clear_threshold = %(t)s WHERE name = 'CONNECTIONS'", {"t": threshold}
    )

    with ExitStack() as held:
        # given quotes of four symbols among all that are open, a scan that stands still, and ten connections more
        for _ in range(10):
            held.enter_context(market.database.connect())
        world.evaluate()
        world.evaluate(121 * SECONDS)
        assert open_rules(world) == {"PRICES_STALE", "CONNECTIONS"}
        world.evaluate(301 * SECONDS)
        assert open_rules(world) == SERVER_RULES

    # when every symbol has a quote, the watch comes by, and the connections are gone
    market.execute(
        "INSERT INTO quotes (symbol, bid, ask, quoted_at, received_at, source, volatility) SELECT symbol, 1, 1.1, "
        "clock_timestamp(), clock_timestamp(), 'test', volatility_average FROM instruments ON CONFLICT DO NOTHING"
    )
    market.execute("UPDATE quotes SET quoted_at = clock_timestamp(), received_at = clock_timestamp()")
    world.call("monitor_margin", role="function_risk", accounts_max=10, calls_max=10)
    market.execute("UPDATE instruments SET quote_age_ms_max = 600000")
    for after in (302, 363):
        market.execute("UPDATE margin_scan SET updated_at = clock_timestamp() + interval '5 minutes'")
        world.evaluate(after * SECONDS)
    assert open_rules(world) == set()


def test_trading(world: AlertWorld) -> None:
    """Breakers of symbols trip by their prices; the alert ends when an officer has armed them again."""
    market = world.market
    world.only(*TRADING_RULES)
    market.execute("UPDATE symbol_breakers SET move_percent = 2 WHERE symbol IN ('EURUSD', 'GBPUSD')")
    with Ticker.opened(market) as ticker, Officer.opened(market) as officer:
        # given
        for bid, ask in (("1.1000", "1.1002"), ("1.1500", "1.1502")):
            ticker.touch("EURUSD", bid, ask)
        world.evaluate()
        assert open_rules(world) == TRADING_RULES
        # and another, which is told as well
        for bid, ask in (("1.3000", "1.3002"), ("1.3500", "1.3502")):
            ticker.touch("GBPUSD", bid, ask)
        world.evaluate()
        assert {(each.kind, each.value) for each in world.inbox.notices} == {("opened", 1), ("worsened", 2)}

        # when
        for symbol in ("EURUSD", "GBPUSD"):
            officer.set_state("symbol", "active", symbol=symbol)

    # then
    world.evaluate(1 * SECONDS)
    assert open_rules(world) == set()


def test_security(world: AlertWorld) -> None:
    """Forged tokens from one address, and a user who tries for rights, are threats; they end when they stop."""
    market = world.market
    world.only(*SECURITY_RULES)
    with (
        market.database.connect("function_incidents") as officer,
        market.database.connect("function_security") as guard,
    ):
        watch = Watch(market, officer, guard)
        # given one finding: a threat, but the score is 90 still
        watch.happened("authentication_failure|signature", 10, address=STRANGER)
        assert watch.found() == [("brute_force", "high")]
        world.evaluate()
        assert open_rules(world) == {"SECURITY_THREAT"}
        # and another
        watch.happened("privilege_escalation|role", 3, user=market.user(), address="198.51.100.10")
        watch.found()
        world.evaluate()
        assert open_rules(world) == SECURITY_RULES

        # when it is over, and has been for five minutes
        market.execute("DELETE FROM security_events")
        market.execute(
            "UPDATE security_findings SET started_at = started_at - interval '1 hour', "
            "last_seen_at = last_seen_at - interval '1 hour'"
        )
        assert watch.found() == []
        world.evaluate()
        assert open_rules(world) == SECURITY_RULES
        world.evaluate(301 * SECONDS)
        assert open_rules(world) == set()


def test_news(world: AlertWorld) -> None:
    """A release that runs for the first time, and a day that was better than the one before it."""
    market = world.market
    world.only(*NEWS_RULES)
    trader = market.user(risk=UNBOUND)
    fill_some(world, trader, 3)

    # given a release that nobody has seen
    world.evaluate(release="2026.11.1")
    world.evaluate(release="2026.11.1")
    assert world.alerts("rule", "subject", "severity") == [("DEPLOYMENT_SUCCESS", "2026.11.1", "info")]
    assert world.inbox.told() == [("DEPLOYMENT_SUCCESS", "opened", "slack")]
    # and, of yesterday, a sample that was worse than those that these runs kept of today
    market.execute("UPDATE alert_rules SET samples_min = 3 WHERE name = 'PERFORMANCE_IMPROVED'")
    market.execute(
        "INSERT INTO figure_samples SELECT figure, subject, observed_at - interval '1 day', 90, samples "
        "FROM figure_samples WHERE figure = 'performance_score'"
    )
    world.evaluate(release="2026.11.1")
    assert open_rules(world) == NEWS_RULES
    assert world.alerts("rule", "last_value")[1] == ("PERFORMANCE_IMPROVED", Decimal("11.111"))

    # when the release is no news any more, and today is no better, then both end, and nobody is told of that
    market.execute("UPDATE figure_samples SET value = 100 WHERE figure = 'performance_score'")
    world.evaluate(601 * SECONDS, release="2026.11.1")
    world.evaluate(4300 * SECONDS, release="2026.11.1")
    assert open_rules(world) == set()
    assert {kind for _, kind, _ in world.inbox.told()} == {"opened"}


SOURCES = Sources(
    namespace="Trading",
    functions={"get_price": "stack-get-price", "execute_order": "stack-execute-order"},
    dead_letter_queues=("stack-dead",),
    database_id="writer",
    database_memory_mb=1024,
)
ROUTE = {"service": "execute-order", "route": "POST /api/v1/orders"}
BAD = {
    ("Trading", "Requests"): (ROUTE, [50, 50]),
    ("Trading", "Errors"): (ROUTE, [3, 1]),
    ("AWS/Lambda", "Throttles"): ({"FunctionName": "stack-execute-order"}, [2, 0]),
    ("Trading", "Latency"): (ROUTE, [25_000, 25_000]),
    ("Trading", "AccountsFailed"): ({"service": "risk-monitoring"}, [0, 1]),
    ("AWS/Lambda", "Invocations"): ({"FunctionName": "stack-get-price"}, [10, 10]),
    ("AWS/Lambda", "Errors"): ({"FunctionName": "stack-get-price"}, [1, 1]),
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): ({"QueueName": "stack-dead"}, [0, 1]),
    ("AWS/RDS", "CPUUtilization"): ({"DBInstanceIdentifier": "writer"}, [85, 95]),
    ("AWS/RDS", "FreeableMemory"): ({"DBInstanceIdentifier": "writer"}, [100 * 1024 * 1024] * 2),
}
GOOD = {
    ("Trading", "Requests"): [1000, 1000],
    ("Trading", "Errors"): [0, 1],
    ("Trading", "Latency"): [100_000, 100_000],
    ("AWS/Lambda", "Invocations"): [100, 100],
    ("AWS/RDS", "FreeableMemory"): [900 * 1024 * 1024] * 2,
}


@mock_aws
def test_cloudwatch(world: AlertWorld) -> None:
    """What CloudWatch measured: a bad quarter of an hour, then a good one."""
    world.only(*CLOUDWATCH_RULES)
    collectors = {"cloudwatch": CloudWatchCollector(SOURCES)}
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    measure(now, BAD)
    measure(
        now + 20 * 60 * SECONDS,
        {metric: (dimensions, GOOD.get(metric, [0, 0])) for metric, (dimensions, _) in BAD.items()},
    )

    world.evaluate(at(now + 61 * SECONDS), collectors=collectors)
    assert open_rules(world) == CLOUDWATCH_RULES
    assert dict(world.alerts("rule", "opened_value")) == {
        "REQUEST_FAILURE": Decimal("5.882"),
        "REQUEST_ERROR_RATE": Decimal("5.882"),
        "REQUEST_LATENCY": Decimal("500.000"),
        "STOP_OUT_FAILURE": Decimal(1),
        "CAPACITY_CPU": Decimal("90.000"),
        "CAPACITY_MEMORY": Decimal("90.234"),
        "FUNCTION_ERRORS": Decimal("10.000"),
        "DEAD_LETTERS": Decimal(1),
    }
    # while nothing is measured, nothing is said
    world.evaluate(at(now + 600 * SECONDS), collectors=collectors)
    assert open_rules(world) == CLOUDWATCH_RULES
    for seconds in (1261, 1325, 1385):
        world.evaluate(at(now + seconds * SECONDS), collectors=collectors)
    assert open_rules(world) == set()


def at(moment: datetime) -> timedelta:
    return moment - datetime.now(UTC)


def measure(at: datetime, values: dict[tuple[str, str], tuple[dict[str, str], list[int]]]) -> None:
    """Two minutes of each metric, the second beginning at `at`."""
    client: Any = boto3.client("cloudwatch")
    for (namespace, name), (dimensions, points) in values.items():
        client.put_metric_data(
            Namespace=namespace,
            MetricData=[
                {
                    "MetricName": name,
                    "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
                    "Timestamp": at - (1 - place) * 60 * SECONDS,
                    "Value": value,
                }
                for place, value in enumerate(points)
            ],
        )


def test_none_is_left_out() -> None:
    shown = (
        ORDER_RULES
        | QUEUE_RULES
        | DUTY_RULES
        | SERVER_RULES
        | TRADING_RULES
        | SECURITY_RULES
        | NEWS_RULES
        | CLOUDWATCH_RULES
        | OWN_RULES
    )

    with (DATA / "alert_rules.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["name"] for row in rows} == shown
    # and each is told of in the documents as it is
    told = (ROOT / "docs" / "alerts.md").read_text()
    for row in rows:
        cells = f"| {row['name']} | {row['figure']}"
        (line,) = [line for line in told.splitlines() if line.startswith(cells)]
        sign = ">" if row["comparison"] == "above" else "<"
        channels = row["channels"].strip("{}").replace(",", " ")
        assert f"| {sign} {row['threshold']}" in line, line
        assert f"| {row['severity']} | {channels} |" in line, line
        assert not row["runbook"] or (ROOT / "docs" / "runbooks" / f"{row['runbook']}.md").exists()
        assert row["severity"] != "critical" or row["runbook"]
