"""The files of financing: every instrument has a schedule, and forex is charged from one value date to the next."""

import csv
import json
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

DATA = Path(__file__).parents[3] / "database" / "data"


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


SCHEDULES = {row["name"]: row for row in rows("financing_schedules")}
DAYS = {name: json.loads(row["days"].translate(str.maketrans("{}", "[]"))) for name, row in SCHEDULES.items()}
HOLIDAYS: dict[str, dict[date, int]] = defaultdict(dict)
for _row in rows("financing_days"):
    HOLIDAYS[_row["schedule"]][date.fromisoformat(_row["roll_date"])] = int(_row["days"])


def test_every_instrument_has_a_schedule_that_is_there() -> None:
    schedule_of = {row["symbol"]: row["schedule"] for row in rows("instrument_financing")}

    assert schedule_of.keys() == {row["symbol"] for row in rows("instruments")}
    assert set(schedule_of.values()) == SCHEDULES.keys()
    assert {symbol for symbol, name in schedule_of.items() if name == "FX_NEXT_DAY"} == {"USDCAD", "USDTRY", "USDRUB"}
    assert all(ZoneInfo(row["time_zone"]) for row in SCHEDULES.values())


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_week_is_seven_days(name: str) -> None:
    assert sum(DAYS[name]) == 7


def settles(day: date) -> bool:
    """Whether money moves on it: no weekend, New Year or Christmas."""
    return day.weekday() < 5 and (day.month, day.day) not in {(1, 1), (12, 25)}


def next_of(day: date, count: int = 1) -> date:
    while count:
        day += timedelta(days=1)
        count -= settles(day)
    return day


@pytest.mark.parametrize(("name", "days_to_settle"), [("FX", 2), ("FX_NEXT_DAY", 1)])
def test_forex_is_charged_from_one_value_date_to_the_next(name: str, days_to_settle: int) -> None:
    """The days of a roll: from the value date of a trade of that day to that of a trade of the next one."""
    day = date(2026, 1, 1)
    while day <= date(2028, 12, 31):
        charged = HOLIDAYS[name].get(day, DAYS[name][day.weekday()])
        expected = (next_of(next_of(day), days_to_settle) - next_of(day, days_to_settle)).days if settles(day) else 0
        assert charged == expected, day
        day += timedelta(days=1)
