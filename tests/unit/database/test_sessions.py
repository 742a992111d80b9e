"""The sessions file is what the tool makes, and has the odd days right."""

import csv
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from database.tools.build_sessions import CALENDARS, DATA, FIRST_DAY, LAST_DAY, instant, sessions

FIRST, LAST = date(2026, 10, 19), date(2027, 1, 15)  # the end of summer time, Thanksgiving, Christmas, New Year


def committed() -> dict[str, list[tuple[str, str]]]:
    rows: dict[str, list[tuple[str, str]]] = defaultdict(list)
    with (Path(DATA) / "market_sessions.csv").open() as file:
        for row in csv.DictReader(file):
            rows[row["calendar"]].append((row["opens_at"], row["closes_at"]))
    return rows


COMMITTED = committed()
WITH_SESSIONS = [calendar.name for calendar in CALENDARS if not calendar.always_open]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("calendar", WITH_SESSIONS)
def test_a_slice_made_anew_is_what_is_committed(calendar: str) -> None:
    made = [(instant(opens), instant(closes)) for opens, closes in sessions(calendar, FIRST, LAST)]

    kept = [row for row in COMMITTED[calendar] if made[0][0] <= row[0] <= made[-1][0]]
    assert made == kept
    assert len(made) >= 12


@pytest.mark.parametrize("calendar", WITH_SESSIONS)
def test_sessions_are_in_order_do_not_overlap_and_fill_the_years(calendar: str) -> None:
    rows = COMMITTED[calendar]
    instants = [moment for row in rows for moment in row]

    assert instants == sorted(instants)
    assert all(opens < closes for opens, closes in rows)
    assert datetime.fromisoformat(rows[0][0]).date() <= FIRST_DAY + timedelta(days=5)
    assert datetime.fromisoformat(rows[-1][1]).date() >= LAST_DAY - timedelta(days=3)


@pytest.mark.parametrize(
    ("calendar", "opens_at", "closes_at"),
    [
        # Forex keeps New York's hours: an hour later in UTC when summer time ends on 1 November 2026.
        ("FX", "2026-10-25T21:00:00Z", "2026-10-30T21:00:00Z"),
        ("FX", "2026-11-01T22:00:00Z", "2026-11-06T22:00:00Z"),
        ("XNYS", "2026-11-25T14:30:00Z", "2026-11-25T21:00:00Z"),
        # The day after Thanksgiving ends at 13:00 in New York, Christmas Eve at 12:30 in London.
        ("XNYS", "2026-11-27T14:30:00Z", "2026-11-27T18:00:00Z"),
        ("XLON", "2026-12-24T08:00:00Z", "2026-12-24T12:30:00Z"),
        # Tokyo has lunch.
        ("XTKS", "2026-11-24T00:00:00Z", "2026-11-24T02:30:00Z"),
        ("XTKS", "2026-11-24T03:30:00Z", "2026-11-24T06:30:00Z"),
        # Futures rest for an hour a day, and end at noon in Chicago on Thanksgiving.
        ("CMES", "2026-11-24T23:00:00Z", "2026-11-25T22:00:00Z"),
        ("CMES", "2026-11-25T23:00:00Z", "2026-11-26T18:00:00Z"),
    ],
)
def test_odd_days(calendar: str, opens_at: str, closes_at: str) -> None:
    assert (opens_at, closes_at) in COMMITTED[calendar]


@pytest.mark.parametrize(
    ("calendar", "day"),
    [("XNYS", "2026-11-26"), ("XNYS", "2026-12-25"), ("XLON", "2026-12-28"), ("XETR", "2026-12-24")],
)
def test_holidays_have_no_session(calendar: str, day: str) -> None:
    assert not [opens_at for opens_at, _ in COMMITTED[calendar] if opens_at.startswith(day)]


def test_instants_are_written_in_utc() -> None:
    assert instant(datetime(2026, 1, 2, 14, 30, tzinfo=UTC)) == "2026-01-02T14:30:00Z"
