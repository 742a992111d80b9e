"""record_quotes: what comes in, what is refused, what is held."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.kit import ScratchDatabase

AT = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)


@pytest.fixture
def prices(database: ScratchDatabase) -> Iterator[psycopg.Connection[Any]]:
    with database.connect("function_prices") as connection:
        yield connection


def record(
    connection: psycopg.Connection[Any], *quotes: dict[str, object], source: str = "test", **more: object
) -> Any:
    request = {"version": 1, "source": source, "quotes": list(quotes), **more}
    row = connection.execute("SELECT record_quotes(%s)", (Jsonb(request),)).fetchone()
    assert row is not None
    return row[0]


def quote(symbol: str, bid: str, ask: str, at: datetime | str | None = AT) -> dict[str, object]:
    return {"symbol": symbol, "bid": bid, "ask": ask, "quoted_at": at.isoformat() if isinstance(at, datetime) else at}


def row_of(database: ScratchDatabase, symbol: str) -> tuple[Any, ...] | None:
    with database.connect() as owner:
        return owner.execute(
            "SELECT bid::text, ask::text, quoted_at, source, volatility FROM quotes WHERE symbol = %s", (symbol,)
        ).fetchone()


def average_of(database: ScratchDatabase, symbol: str) -> Decimal:
    with database.connect() as owner:
        row = owner.execute("SELECT volatility_average FROM instruments WHERE symbol = %s", (symbol,)).fetchone()
    assert row is not None
    return row[0]


def test_a_batch_is_recorded_with_the_digits_of_the_tick(
    database: ScratchDatabase, prices: psycopg.Connection[Any]
) -> None:
    answer = record(prices, quote("EURUSD", "1.1", "1.1002"), quote("AAPL", "265", "265.02"))

    assert answer == {"accepted": 2, "ignored": 0, "touched": 0, "due": False, "refused": [], "held": []}
    assert row_of(database, "EURUSD") == ("1.10000", "1.10020", AT, "test", average_of(database, "EURUSD"))
    assert row_of(database, "AAPL") == ("265.00", "265.02", AT, "test", average_of(database, "AAPL"))


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (quote("EURUSD", "0", "1.1"), "not_positive"),
        (quote("EURUSD", "-1", "1.1"), "not_positive"),
        (quote("EURUSD", "1", "1e18"), "too_large"),
        (quote("EURUSD", "1e400", "1e400"), "too_large"),
        (quote("EURUSD", "1e400", "1"), "crossed"),
        (quote("EURUSD", "NaN", "1.1"), "not_a_number"),
        (quote("EURUSD", "1.1", "NaN"), "not_a_number"),
        (quote("EURUSD", "1.1", "Infinity"), "not_a_number"),
        (quote("EURUSD", "-Infinity", "1.1"), "not_positive"),
        (quote("EURUSD", "1,1", "1.2"), "not_a_number"),
        ({"symbol": "EURUSD", "ask": "1.1"}, "not_a_number"),
        (quote("EURUSD", "1.2", "1.1"), "crossed"),
        (quote("EURUSD", "1.1", "1.2", "soon"), "no_time"),
        (quote("EURUSD", "1.1", "1.2", "-infinity"), "no_time"),
        (quote("NOSUCH", "1.1", "1.2"), "unknown_symbol"),
        ({"bid": "1.1", "ask": "1.2"}, "unknown_symbol"),
    ],
)
def test_a_bad_quote_is_refused_with_its_reason_and_the_others_are_kept(
    database: ScratchDatabase, prices: psycopg.Connection[Any], refused: dict[str, object], reason: str
) -> None:
    answer = record(prices, refused, quote("GBPUSD", "1.3", "1.31"))

    assert answer["refused"] == [{"symbol": refused.get("symbol"), "reason": reason}]
    assert answer["accepted"] == 1
    assert row_of(database, "EURUSD") is None
    assert row_of(database, "GBPUSD") is not None


def test_a_quote_may_be_at_most_one_second_ahead(database: ScratchDatabase, prices: psycopg.Connection[Any]) -> None:
    now = datetime.now(UTC)
    answer = record(
        prices,
        quote("EURUSD", "1.1", "1.2", now + timedelta(seconds=30)),
        quote("GBPUSD", "1.3", "1.31", now + timedelta(milliseconds=500)),
    )

    assert answer["refused"] == [{"symbol": "EURUSD", "reason": "in_the_future"}]
    assert row_of(database, "GBPUSD") is not None


def test_a_locked_market_is_taken(database: ScratchDatabase, prices: psycopg.Connection[Any]) -> None:
    record(prices, quote("EURUSD", "1.1", "1.1"))

    row = row_of(database, "EURUSD")
    assert row is not None
    assert row[:2] == ("1.10000", "1.10000")


def test_without_a_time_the_database_s_clock_counts(database: ScratchDatabase, prices: psycopg.Connection[Any]) -> None:
    before = datetime.now(UTC)
    record(prices, quote("EURUSD", "1.1", "1.2", None))

    row = row_of(database, "EURUSD")
    assert row is not None
    assert before <= row[2] <= datetime.now(UTC)


@pytest.mark.parametrize("late_by", [timedelta(0), timedelta(milliseconds=1), timedelta(days=1)])
def test_quotes_only_move_forward(
    database: ScratchDatabase, prices: psycopg.Connection[Any], late_by: timedelta
) -> None:
    record(prices, quote("EURUSD", "1.1", "1.2"))
    answer = record(prices, quote("EURUSD", "1.3", "1.4", AT - late_by))

    assert answer == {"accepted": 0, "ignored": 1, "touched": 0, "due": False, "refused": [], "held": []}
    row = row_of(database, "EURUSD")
    assert row is not None
    assert row[:3] == ("1.10000", "1.20000", AT)


def test_two_quotes_of_a_symbol_in_a_batch_are_taken_in_the_order_of_their_times(
    database: ScratchDatabase, prices: psycopg.Connection[Any]
) -> None:
    answer = record(prices, quote("EURUSD", "1.3", "1.4", AT), quote("EURUSD", "1.1", "1.2", AT - timedelta(seconds=1)))

    assert (answer["accepted"], answer["ignored"]) == (2, 0)
    row = row_of(database, "EURUSD")
    assert row is not None
    assert row[:2] == ("1.30000", "1.40000")


def test_a_price_set_by_hand_is_held_against_the_simulator(
    database: ScratchDatabase, prices: psycopg.Connection[Any]
) -> None:
    record(prices, quote("EURUSD", "1.16", "1.1601", AT), source="simulated")
    record(prices, quote("EURUSD", "1.1", "1.1002", AT + timedelta(seconds=1)), source="manual")

    later = AT + timedelta(seconds=2)
    answer = record(
        prices, quote("EURUSD", "1.17", "1.1701", later), quote("GBPUSD", "1.3", "1.31", later), source="simulated"
    )

    assert answer["held"] == [{"symbol": "EURUSD", "bid": "1.10000", "ask": "1.10020", "source": "manual"}]
    assert row_of(database, "EURUSD") == ("1.10000", "1.10020", later, "manual", average_of(database, "EURUSD"))


def test_any_other_source_takes_a_held_symbol_over(database: ScratchDatabase, prices: psycopg.Connection[Any]) -> None:
    record(prices, quote("EURUSD", "1.1", "1.1002", AT), source="manual")
    later = AT + timedelta(seconds=1)
    answer = record(prices, quote("EURUSD", "1.17", "1.1701", later), source="exchange")

    assert answer["held"] == []
    # The jump from a price set by hand is no movement of the market.
    assert row_of(database, "EURUSD") == ("1.17000", "1.17010", later, "exchange", average_of(database, "EURUSD"))


def test_volatility_is_a_moving_average_of_returns_scaled_to_a_day(
    database: ScratchDatabase, prices: psycopg.Connection[Any]
) -> None:
    # given a mid of 1.1, then 0.1 % more after 5 minutes, the half-life
    record(prices, quote("EURUSD", "1.0999", "1.1001", AT))
    record(prices, quote("EURUSD", "1.1010", "1.1012", AT + timedelta(minutes=5)))

    # then it stands half way between the average and the return times sqrt(288)
    row = row_of(database, "EURUSD")
    assert row is not None
    expected = (average_of(database, "EURUSD") + Decimal("0.001") * Decimal(288).sqrt()) / 2
    assert abs(row[4] - expected) < Decimal("0.000001")


def test_after_a_long_silence_the_volatility_is_the_average(
    database: ScratchDatabase, prices: psycopg.Connection[Any]
) -> None:
    record(prices, quote("EURUSD", "1.0999", "1.1001", AT))
    record(prices, quote("EURUSD", "1.2999", "1.3001", AT + timedelta(minutes=11)))

    row = row_of(database, "EURUSD")
    assert row is not None
    assert row[4] == average_of(database, "EURUSD")


@pytest.mark.parametrize(
    "request_body",
    [
        {"source": "test", "quotes": []},
        {"version": 2, "source": "test", "quotes": []},
        {"version": 1, "quotes": []},
        {"version": 1, "source": "", "quotes": []},
        {"version": 1, "source": "test", "quotes": {}},
        {"version": 1, "source": "test"},
        {"version": 1, "source": "test", "quotes": [{}] * 1001},
    ],
)
def test_a_malformed_request_is_refused_whole(prices: psycopg.Connection[Any], request_body: dict[str, object]) -> None:
    with pytest.raises(psycopg.Error) as caught:
        prices.execute("SELECT record_quotes(%s)", (Jsonb(request_body),))
    assert caught.value.sqlstate == "TR006"


@pytest.mark.parametrize("role", ["function_trader", "function_relay", "function_risk", "compliance", "backup"])
def test_only_the_price_function_records(database: ScratchDatabase, role: str) -> None:
    with database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        record(connection, quote("EURUSD", "1.1", "1.2"))


def test_the_price_function_has_no_door_but_its_procedures(prices: psycopg.Connection[Any]) -> None:
    for statement in (
        b"UPDATE quotes SET bid = 1",
        b"SELECT * FROM quotes",
        b"INSERT INTO feed_leases VALUES ('quotes', 1, now())",
        b"SELECT quote_volatility(1, 1, 1, 1, 1)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            prices.execute(statement)
