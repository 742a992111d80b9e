"""Prices that cannot be traded on: no fill, no row, and the key is as free as before."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.kit.builders import set_quote
from tests.kit.fault_runs import MARKET_ORDER, QUOTE_AGE_MS, FaultRun
from tests.kit.functions import call, function_environment, load_function, order_event
from tests.kit.orders import ORDER_TABLES

GOOD = ("1.1000", "1.1002")
STALE = -(QUOTE_AGE_MS / 1000 + 1)
AHEAD = 60.0


@dataclass(frozen=True)
class BadQuote:
    """A quote that nobody may trade on; `seconds` is its time from now."""

    bid: str = "1.1000"
    ask: str = "1.1002"
    seconds: float = 0.0

    @property
    def at(self) -> datetime:
        """When it says that it was made."""
        return datetime.now(UTC) + timedelta(seconds=self.seconds)


NUMBERS = {
    "zero": BadQuote(bid="0"),
    "negative": BadQuote(bid="-1.1"),
    "NaN": BadQuote(ask="NaN"),
    "infinite": BadQuote(ask="Infinity"),
    "crossed": BadQuote(bid="1.1003"),
}
TIMES = {"stale": BadQuote(seconds=STALE), "future-dated": BadQuote(seconds=AHEAD)}


def order(run: FaultRun, redis_url: str, folder: Path, event: dict[str, Any]) -> Any:
    """What the function answers."""
    with (
        pytest.MonkeyPatch.context() as patch,
        function_environment(patch, folder, database=run.database, redis_url=redis_url),
    ):
        return call(load_function("execute_order"), event)


def counted(run: FaultRun) -> list[int]:
    """How many rows there are of everything that an order may write."""
    return [run.value(f"SELECT count(*) FROM {table}") for table in ORDER_TABLES]


@pytest.mark.parametrize("quote", TIMES.values(), ids=TIMES.keys())
def test_a_price_of_another_time_fills_nothing_and_keeps_nothing(
    run: FaultRun, redis_url: str, tmp_path: Path, quote: BadQuote
) -> None:
    """F9: in the table, past intake."""
    # given
    event = order_event(run.user())
    set_quote(run.database, "EURUSD", quote.bid, quote.ask, quote.at)
    before = counted(run)

    # when
    refused = order(run, redis_url, tmp_path, event)

    # then
    assert (refused.status, refused.body["error"]["code"]) == (503, "MARKET_DATA_UNAVAILABLE")
    assert refused.headers["Retry-After"] == "1"
    assert counted(run) == before
    # and with a good price the same key is a first order
    set_quote(run.database, "EURUSD", *GOOD)
    executed = order(run, redis_url, tmp_path, event)
    assert executed.status == 200, executed.text
    assert "Idempotency-Replayed" not in executed.headers
    run.settle()


@pytest.mark.parametrize("quote", NUMBERS.values(), ids=NUMBERS.keys())
def test_a_price_that_is_none_cannot_stand_in_the_table(run: FaultRun, quote: BadQuote) -> None:
    """F9: whoever writes it."""
    with pytest.raises(psycopg.errors.CheckViolation):
        set_quote(run.database, "EURUSD", quote.bid, quote.ask, quote.at)


@pytest.mark.parametrize("quote", (NUMBERS | TIMES).values(), ids=(NUMBERS | TIMES).keys())
def test_a_bad_quote_at_intake_leaves_the_good_one_to_trade_on(
    run: FaultRun, redis_url: str, tmp_path: Path, quote: BadQuote
) -> None:
    """F9: at intake. A stale quote is taken only where there is no newer one, so it cannot displace it."""
    # given a price
    event = order_event(run.user())
    set_quote(run.database, "EURUSD", *GOOD)

    # when the feed brings another one that is none
    record(run, quote)

    # then orders are executed at the one that was there
    answer = order(run, redis_url, tmp_path, event)
    assert answer.status == 200, answer.text
    assert run.value("SELECT (bid, ask)::text FROM quotes WHERE symbol = 'EURUSD'") == f"({','.join(GOOD)})"
    assert Decimal("1.1002") <= run.value("SELECT average_price FROM orders") < Decimal("1.1010")
    run.settle()


def record(run: FaultRun, quote: BadQuote) -> None:
    """Bring a quote the way that the feed does."""
    request = {
        "version": 1,
        "source": "simulated",
        "quotes": [{"symbol": "EURUSD", "bid": quote.bid, "ask": quote.ask, "quoted_at": quote.at.isoformat()}],
    }
    with run.database.connect("function_prices") as connection:
        connection.execute("SELECT record_quotes(%s)", (Jsonb(request),))


def test_no_price_at_all_is_no_price(run: FaultRun, redis_url: str, tmp_path: Path) -> None:
    """F9, I10."""
    event = order_event(run.user())
    run.execute("DELETE FROM quotes WHERE symbol = 'EURUSD'")
    before = counted(run)

    answer = order(run, redis_url, tmp_path, event)

    assert (answer.status, answer.body["error"]["code"]) == (503, "MARKET_DATA_UNAVAILABLE")
    assert counted(run) == before
    set_quote(run.database, "EURUSD", *GOOD)
    assert order(run, redis_url, tmp_path, event).status == 200
    run.settle()


def test_a_price_that_goes_stale_in_mid_run_stops_all_and_comes_back_to_all(run: FaultRun) -> None:
    """F9 under load, I9: clients send the same key until there is a price again."""
    from trading.errors import ErrorCode, TradingError

    # given
    client = run.client(run.user(), [MARKET_ORDER])
    assert client.attempt("before", 0) is not None
    run.execute("UPDATE quotes SET quoted_at = quoted_at - %s * interval '1 ms'", QUOTE_AGE_MS + 1000)

    # when
    with pytest.raises(TradingError) as caught:
        client.attempt("during", 1)

    # then
    assert caught.value.code is ErrorCode.MARKET_DATA_UNAVAILABLE
    run.execute("UPDATE quotes SET quoted_at = clock_timestamp(), received_at = clock_timestamp()")
    assert client.attempt("during", 1) is not None
    run.settle()
