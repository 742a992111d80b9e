"""Every operation of docs/api/openapi.json, asked with what fits it and with what does not.

Each answer is held against the document by the client itself (tests/kit/openapi.py): its status, its headers, the
form of its dialect, and for VALIDATION_FAILED the field, the value and the constraint.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit.fuzz import Sent, fitting, send, token_of, unfitting
from tests.kit.openapi import Described, operations
from tests.kit.traders import Trader, Traders, exact

bounded = settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)
every_operation = pytest.mark.parametrize("described", operations(), ids=lambda each: each.operation["operationId"])


@dataclass(frozen=True, slots=True)
class Caller:
    """A trader with an order and a position, and a token that carries every permission."""

    trader: Trader
    token: str
    real: dict[str, list[Any]]

    def send(self, sent: Sent) -> httpx.Response:
        return send(self.trader.http, self.token, sent)


@pytest.fixture(scope="module")
def caller(all_traders: Traders) -> Iterator[Caller]:
    trader = all_traders.new()
    ordered = exact(trader.order())["data"]
    real = {
        "symbol": ["EURUSD", "eurusd", "BTCUSD", "AAPL"],
        "order_type": ["market", "MARKET"],
        "account_id": [str(trader.account_id)],
        "id": [ordered["order_id"], ordered["position_id"], str(trader.account_id)],
        "cursor": [ordered["order_id"]],
    }
    yield Caller(trader, token_of(trader), real)
    trader.close()


@every_operation
def test_what_fits_is_answered_as_described(caller: Caller, described: Described) -> None:
    @bounded
    @given(fitting(described, caller.real))
    def asked(sent: Sent) -> None:
        response = caller.send(sent)
        assert response.status_code < 500, (sent, response.text)

    asked()


@every_operation
def test_what_does_not_fit_is_refused(caller: Caller, described: Described) -> None:
    strategy = unfitting(described)
    if strategy is None:
        return

    @bounded
    @given(strategy)
    def asked(sent: Sent) -> None:
        response = caller.send(sent)
        assert 400 <= response.status_code < 500, (sent, response.text)

    asked()
