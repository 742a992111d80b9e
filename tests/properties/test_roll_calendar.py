"""When positions are rolled: the database's calendar and the layer's are one, also in nights in which clocks change."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit import MigratedTemplate
from trading.financing import RollSchedule

EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ZONES = ("America/New_York", "Europe/London", "Europe/Berlin", "Asia/Tokyo", "Australia/Sydney", "UTC")


@pytest.fixture(scope="module")
def connection(migrated: MigratedTemplate) -> Iterator[psycopg.Connection[Any]]:
    """The owner's; what an example changes it rolls back."""
    scratch = migrated.clone()
    try:
        with scratch.connect() as connection:
            yield connection
    finally:
        scratch.drop()


def put(connection: psycopg.Connection[Any], schedule: RollSchedule) -> None:
    """Make it the only schedule."""
    connection.execute("DELETE FROM instrument_financing")
    connection.execute("DELETE FROM financing_days")
    connection.execute("DELETE FROM financing_schedules")
    connection.execute(
        "INSERT INTO financing_schedules (name, description, roll_time, time_zone, days) "
        "VALUES ('ANY', '', %s, %s, %s)",
        (schedule.roll_time, schedule.time_zone.key, list(schedule.days)),
    )
    for day, days in schedule.holidays.items():
        connection.execute("INSERT INTO financing_days VALUES ('ANY', %s, %s)", (day, days))


def rolls(connection: psycopg.Connection[Any], begin: datetime, end: datetime) -> list[tuple[date, datetime, int]]:
    return connection.execute(
        "SELECT roll_date, rolled_at, roll_days('ANY', roll_date) FROM rolls_between(%s, %s) ORDER BY roll_date",
        (begin, end),
    ).fetchall()


# No schedule rolls in the hours in which clocks are set.
schedules = st.builds(
    RollSchedule,
    st.times(time(4), time(23, 59)).filter(lambda at: at.tzinfo is None),
    st.sampled_from(ZONES).map(ZoneInfo),
    st.tuples(*[st.integers(0, 3)] * 7),
    st.dictionaries(st.dates(date(2026, 1, 1), date(2028, 12, 31)), st.integers(0, 5), max_size=10),
)


@EXAMPLES
@given(
    schedule=schedules,
    begin=st.datetimes(datetime(2026, 1, 1), datetime(2028, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
    length=st.timedeltas(timedelta(0), timedelta(days=40)),
)
def test_the_same_rolls(
    connection: psycopg.Connection[Any], schedule: RollSchedule, begin: datetime, length: timedelta
) -> None:
    with connection.transaction(force_rollback=True):
        put(connection, schedule)

        found = rolls(connection, begin, begin + length)

    assert found == [(day, at, schedule.days_of(day)) for day, at in schedule.rolls(begin, begin + length)]


NEW_YORK = ZoneInfo("America/New_York")
FOREX = RollSchedule(time(17), NEW_YORK, (1, 1, 3, 1, 1, 0, 0))


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        # New York's clocks go on by an hour on 8 March 2026 and back on 1 November.
        (date(2026, 3, 6), ["2026-03-06T22:00 1", "2026-03-07T22:00 0", "2026-03-08T21:00 0", "2026-03-09T21:00 1"]),
        (date(2026, 10, 31), ["2026-10-31T21:00 0", "2026-11-01T22:00 0", "2026-11-02T22:00 1"]),
        # A Wednesday carries the weekend; 2028 has a 29 February.
        (date(2028, 2, 28), ["2028-02-28T22:00 1", "2028-02-29T22:00 1", "2028-03-01T22:00 3", "2028-03-02T22:00 1"]),
    ],
)
def test_nights_in_which_clocks_change_and_a_leap_day(
    connection: psycopg.Connection[Any], first: date, expected: list[str]
) -> None:
    begin = FOREX.rolled_at(first)
    end = FOREX.rolled_at(first + timedelta(days=len(expected)))
    with connection.transaction(force_rollback=True):
        put(connection, FOREX)
        found = rolls(connection, begin, end)

    assert [f"{at.astimezone(UTC):%Y-%m-%dT%H:%M} {days}" for _, at, days in found] == expected
    assert found == [(day, at, FOREX.days_of(day)) for day, at in FOREX.rolls(begin, end)]
