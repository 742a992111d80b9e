"""Loading the reference data: once it changes everything, twice nothing."""

import time

from database.load_reference_data import load
from tests.kit import ScratchDatabase, set_quote

NOTHING = {
    "market_calendars": 0,
    "market_sessions": 0,
    "instruments": 0,
    "financing_schedules": 0,
    "financing_days": 0,
    "instrument_financing": 0,
    "financing_rates": 0,
    "leverage_caps": 0,
    "symbol_breakers": 0,
    "alert_channels": 0,
    "alert_rules": 0,
    "alert_escalations": 0,
}
SECONDS_MAX = 5.0


def test_an_empty_database_gets_every_row(database: ScratchDatabase) -> None:
    with database.connect() as connection:
        for table in reversed(NOTHING):
            connection.execute(f"DELETE FROM {table}".encode())
        changed = load(connection)
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()[0]  # pyright: ignore[reportOptionalSubscript]
            for table in NOTHING
        }

    assert changed == counts
    assert counts["instruments"] >= 60
    assert counts["market_sessions"] > 5000


def test_a_second_run_writes_no_row_and_is_quick(database: ScratchDatabase) -> None:
    with database.connect() as connection:
        versions = "SELECT array_agg((symbol, xmin::text, updated_at)::text ORDER BY symbol) FROM instruments"
        before = connection.execute(versions.encode()).fetchone()
        started = time.perf_counter()
        changed = load(database.url)
        took = time.perf_counter() - started

        assert changed == NOTHING
        assert connection.execute(versions.encode()).fetchone() == before
        assert took < SECONDS_MAX


def test_a_row_that_differs_goes_back_to_the_file(database: ScratchDatabase) -> None:
    with database.connect() as connection:
        connection.execute(
            "UPDATE instruments SET leverage = 7, updated_at = '2026-01-01' WHERE symbol IN ('EURUSD', 'AAPL')"
        )
        connection.execute("UPDATE market_sessions SET closes_at = closes_at + interval '1 s' WHERE calendar = 'FX'")
        changed = load(connection)

        assert changed["instruments"] == 2
        assert changed["market_sessions"] > 100
        row = connection.execute(
            "SELECT leverage, updated_at > '2026-01-01' FROM instruments WHERE symbol = 'EURUSD'"
        ).fetchone()
        assert row == (500, True)


def test_what_operators_have_set_stays(database: ScratchDatabase) -> None:
    with database.connect() as connection:
        connection.execute(
            "UPDATE instruments SET trading_state = 'halted', is_active = false, leverage = 7 WHERE symbol = 'EURUSD'"
        )
        load(connection)
        row = connection.execute(
            "SELECT trading_state, is_active, leverage FROM instruments WHERE symbol = 'EURUSD'"
        ).fetchone()

    assert row == ("halted", False, 500)


def test_sessions_that_the_file_no_longer_has_are_withdrawn_and_history_stays(database: ScratchDatabase) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO market_sessions VALUES ('FX', '2026-11-21T01:00Z', '2026-11-21T02:00Z'), "
            "('FX', '2020-11-21T01:00Z', '2020-11-21T02:00Z')"
        )
        changed = load(connection)
        left = connection.execute(
            "SELECT extract(year FROM opens_at) FROM market_sessions WHERE calendar = 'FX' "
            "AND closes_at - opens_at = interval '1 hour'"
        ).fetchall()

    assert changed["market_sessions"] == 1
    assert left == [(2020,)]


def test_recorded_quotes_outlive_a_reload(database: ScratchDatabase) -> None:
    set_quote(database, "EURUSD", "1.1", "1.2")
    load(database.url)

    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM quotes").fetchone() == (1,)
