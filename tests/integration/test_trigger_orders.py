"""trigger_orders through its handler: a message, or the minute, works the queue off and wakes the relay."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from tests.kit import MigratedTemplate
from tests.kit.functions import Context, function_environment, load_function
from tests.kit.kill_switch import Officer
from tests.kit.orders import Market
from tests.kit.ticks import Ticker


@pytest.fixture
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def queue() -> Iterator[str]:
    with mock_aws():
        yield boto3.client("sqs").create_queue(QueueName="relay")["QueueUrl"]


@pytest.fixture
def handler(market: Market, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, queue: str) -> Iterator[Any]:
    environment = function_environment(
        monkeypatch, tmp_path, database=market.database, role="function_triggers", RELAY_QUEUE_URL=queue
    )
    with environment:
        yield load_function("trigger_orders")


@pytest.mark.parametrize("event", [{"Records": [{"body": "{}"}, {"body": "{}"}]}, {"version": "2.0"}])
def test_what_prices_have_touched_is_executed_and_told(
    market: Market, handler: Any, queue: str, event: dict[str, Any]
) -> None:
    user = market.user()
    market.place(user, limit_price="1.0950", take_profit="1.1000")
    with Ticker.opened(market) as ticker:
        ticker.touch("EURUSD", "1.0948", "1.0950")
        first = handler(event, Context())
        ticker.touch("EURUSD", "1.1000", "1.1002")
        second = handler(event, Context())

    assert (first["states"], second["states"]) == ({"filled": 1}, {"filled": 1})
    assert first["batchItemFailures"] == []
    messages = boto3.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert [json.loads(message["Body"]) for message in messages] == [{"account_id": str(user.account_id)}] * 2
    filled = market.last_event(user)
    assert filled["request_id"].startswith("trigger-")


def test_nothing_queued_is_nothing_done(handler: Any) -> None:
    assert handler({"version": "2.0"}, Context())["claimed"] == 0


def test_what_an_officer_winds_down_goes_before_what_prices_touch(market: Market, handler: Any) -> None:
    user = market.user()
    market.place(user, limit_price="1.0950")
    held = market.trade(user)["position_id"]
    with Ticker.opened(market) as ticker, Officer.opened(market) as officer:
        ticker.touch("EURUSD", "1.0948", "1.0950")
        officer.set_state("symbol", "halted", symbol="EURUSD")
        officer.wind_down("symbol", symbol="EURUSD")

        done = handler({"version": "2.0"}, Context())

    assert done["wound_down"] == {
        "accounts": 1,
        "orders_canceled": 1,
        "positions_closed": 1,
        "positions_sent": 0,
        "waiting": 0,
        "failed": 0,
    }
    assert done["states"] == {"idle": 1}
    assert [row["status"] for row in market.rows("positions", user) if str(row["id"]) == held] == ["closed"]
