"""Write database/data/market_calendars.csv and market_sessions.csv: when each market trades, as UTC instants.

    python -m database.tools.build_sessions

A tool for developers: exchange-calendars and pandas ship neither in the layer nor with the local system.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

FIRST_DAY = date(2026, 1, 1)
LAST_DAY = date(2028, 12, 31)
DATA = Path(__file__).parents[1] / "data"

NEW_YORK = ZoneInfo("America/New_York")
FX_ROLL = time(17)  # the forex week opens on Sunday and closes on Friday at this hour of New York
SUNDAY = 6
FX_WEEK = timedelta(days=5)

CHICAGO = ZoneInfo("America/Chicago")
FUTURES_BREAK = time(16)  # each day's futures session ends here; the next opens an hour later


@dataclass(frozen=True, slots=True)
class Calendar:
    """One market's hours; `always_open` ones have no sessions."""

    name: str
    description: str
    always_open: bool = False


CALENDARS = (
    Calendar("FX", "Forex: Sunday 17:00 to Friday 17:00, New York"),
    Calendar("CRYPTO", "Crypto assets: always open", always_open=True),
    Calendar("CMES", "CME futures: Sunday 17:00 to Friday 16:00 with an hour's break a day, Chicago"),
    Calendar("XNYS", "New York Stock Exchange"),
    Calendar("XLON", "London Stock Exchange"),
    Calendar("XETR", "Xetra, Frankfurt"),
    Calendar("XEUR", "Eurex futures, Frankfurt"),
    Calendar("XPAR", "Euronext Paris"),
    Calendar("XAMS", "Euronext Amsterdam"),
    Calendar("XMAD", "Bolsa de Madrid"),
    Calendar("XSWX", "SIX Swiss Exchange"),
    Calendar("XTKS", "Tokyo Stock Exchange"),
    Calendar("XHKG", "Hong Kong Stock Exchange"),
    Calendar("XASX", "Australian Securities Exchange"),
)

type Session = tuple[datetime, datetime]


def sessions(calendar: str, first: date, last: date) -> list[Session]:
    """The [open, close) instants, UTC, of the sessions of `calendar` that belong to the days `first` to `last`."""
    if calendar == "FX":
        return list(_forex_weeks(first, last))
    if calendar == "CMES":
        return [_before_the_break(day, span) for day, span in _exchange_sessions(calendar, first, last)]
    return [span for _, span in _exchange_sessions(calendar, first, last)]


def _forex_weeks(first: date, last: date) -> Iterator[Session]:
    sunday = first - timedelta(days=(first.weekday() - SUNDAY) % 7)
    while sunday <= last:
        opens = datetime.combine(sunday, FX_ROLL, NEW_YORK)
        closes = datetime.combine(sunday + FX_WEEK, FX_ROLL, NEW_YORK)
        yield opens.astimezone(UTC), closes.astimezone(UTC)
        sunday += timedelta(days=7)


def _exchange_sessions(calendar: str, first: date, last: date) -> Iterator[tuple[date, Session]]:
    """Half days close early; a lunch break splits the day into two sessions."""
    from exchange_calendars import get_calendar
    from pandas import isna

    # A slack on both sides, because a calendar wants at least one session between its bounds.
    start, end = str(first - timedelta(days=7)), str(last + timedelta(days=7))
    schedule = get_calendar(calendar, start=start, end=end).schedule.loc[str(first) : str(last)]
    for day, opens, break_start, break_end, closes in schedule.itertuples():
        spans = [(opens, closes)] if isna(break_start) else [(opens, break_start), (break_end, closes)]
        for begins, ends in spans:
            yield day.date(), (begins.to_pydatetime(), ends.to_pydatetime())


def _before_the_break(day: date, session: Session) -> Session:
    opens, closes = session
    return opens, min(closes, datetime.combine(day, FUTURES_BREAK, CHICAGO).astimezone(UTC))


def instant(moment: datetime) -> str:
    """`moment` as the files write it: 2026-01-02T14:30:00Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main() -> None:
    """Write both files."""
    with (DATA / "market_calendars.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "description", "always_open"))
        writer.writerows((c.name, c.description, str(c.always_open).lower()) for c in CALENDARS)
    with (DATA / "market_sessions.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("calendar", "opens_at", "closes_at"))
        for calendar in CALENDARS:
            if not calendar.always_open:
                for opens, closes in sessions(calendar.name, FIRST_DAY, LAST_DAY):
                    writer.writerow((calendar.name, instant(opens), instant(closes)))


if __name__ == "__main__":
    main()
