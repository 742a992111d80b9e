"""How a run of the rollover goes on and where it stops, by scripted answers of the database. What the database answers
is proven in tests/integration/test_financing.py."""

from collections.abc import Mapping, Sequence
from datetime import date, time
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from trading import rollover
from trading.errors import ErrorCode, TradingError
from trading.financing import RollSchedule
from trading.rollover import TIME_LEFT_MS_MIN, RolloverReport, roll_positions
from trading.store.financing import FinancingStore

ENOUGH = TIME_LEFT_MS_MIN
FAULT = TradingError(ErrorCode.DATABASE_UNAVAILABLE, "gone")
ROLL = {"symbol": "EURUSD", "roll_date": "2026-11-25"}
OTHER = {"symbol": "AAPL", "roll_date": "2026-11-25"}
THIRD = {"symbol": "BTCUSD", "roll_date": "2026-11-25"}
BOOKED = {"booked": 1, "more": False, "unconverted": [], "sequence": 7}


class Script:
    """The database's answers by procedure, the last one for ever; and what was called."""

    def __init__(
        self,
        *pages: Mapping[str, Any],
        finance: Sequence[Any] = (BOOKED,),
        rolls: Sequence[Mapping[str, str]] = (ROLL, OTHER),
    ) -> None:
        self._answers: dict[str, list[Any]] = {
            "open_rolls": [{"rolls": rolls}],
            "find_due_financing": list(pages),
            "finance_account": list(finance),
            "finish_rolls": [{"finished": 1}],
        }
        self.calls: list[str] = []
        self.finished: list[Any] = []
        # the account behind which each page begins
        self.pages_after: list[int | None] = []

    def call(self, procedure: str, request: Mapping[str, object]) -> Any:
        self.calls.append(procedure)
        if procedure == "find_due_financing":
            after = request.get("after_account_id")
            self.pages_after.append(None if after is None else UUID(str(after)).int)
        if procedure == "finish_rolls":
            self.finished.append(request["rolls"])
        answers = self._answers[procedure]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, TradingError):
            raise answer
        return answer


def page(*accounts: int, unsettled: Sequence[Mapping[str, Any]] = (), more: bool = False) -> dict[str, Any]:
    due = [{"user_id": str(UUID(int=1)), "account_id": str(UUID(int=number))} for number in accounts]
    return {"checked": 1, "due": due, "unsettled": [{"lacks": None, **roll} for roll in unsettled],
            "next": due[-1] if more else None}  # fmt: skip


def run(script: Script, time_left: Sequence[int] = (ENOUGH,)) -> tuple[RolloverReport, list[int]]:
    """The report, and the accounts that were announced."""
    announced: list[int] = []
    left = list(time_left)
    report = roll_positions(
        FinancingStore(script),
        lambda account_id: announced.append(account_id.int),
        request_id="end-of-day-1",
        time_left_ms=lambda: left.pop(0) if len(left) > 1 else left[0],
    )
    return report, announced


def test_what_nobody_held_is_finished_at_once_and_what_was_charged_after_another_look() -> None:
    # given two pages with an account to charge for the same roll, and then nothing
    script = Script(page(1, unsettled=[ROLL], more=True), page(2, unsettled=[ROLL]), page())

    report, announced = run(script)

    assert script.finished == [[OTHER], [ROLL]]
    assert script.pages_after == [None, 1, None]
    assert (report.charged, report.accounts, report.rolls_open, report.rolls_finished) == (2, 2, 2, 2)
    assert (report.complete, announced) == (True, [1, 2])


def test_without_an_open_roll_nobody_is_looked_for() -> None:
    report, _ = run(script := Script(rolls=[]))

    assert (script.calls, report) == (["open_rolls"], RolloverReport(complete=True))


def test_an_account_that_could_not_be_charged_whole_is_counted() -> None:
    # given an account with a position whose currency had no rate, and nothing else to charge
    nothing = BOOKED | {"booked": 0, "sequence": None, "unconverted": ["CHFUSD"]}
    script = Script(page(1, 2, unsettled=[ROLL]), page(unsettled=[ROLL]), finance=[nothing, BOOKED])

    report, announced = run(script)

    assert (report.unconverted, report.accounts, announced) == (1, 1, [2])


def test_what_lacks_its_rate_stays_open_and_is_counted() -> None:
    lacking = [ROLL | {"lacks": "rate"}, OTHER | {"lacks": "quote"}, THIRD | {"lacks": "rate"}]
    script = Script(page(unsettled=lacking), rolls=[ROLL, OTHER, THIRD])

    report, _ = run(script)

    assert script.finished == []
    assert (report.rates_missing, report.quotes_missing, report.complete) == (2, 1, True)


def test_a_fault_of_one_account_leaves_its_roll_open_and_the_others_are_charged() -> None:
    script = Script(page(1, 2, unsettled=[ROLL]), page(1, unsettled=[ROLL]), finance=[FAULT, BOOKED, FAULT])

    report, announced = run(script)

    assert (report.failed, report.charged, announced) == (2, 1, [2])
    assert script.finished == [[OTHER]]


def test_a_run_whose_accounts_all_fail_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollover, "FAILURES_MAX", 2)
    script = Script(page(1, 2, 3, unsettled=[ROLL]), finance=[FAULT])

    with pytest.raises(TradingError):
        run(script)

    assert script.calls.count("finance_account") == 2


def test_an_account_with_more_is_charged_until_it_makes_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollover, "ROUNDS_MAX", 3)
    script = Script(page(1, unsettled=[ROLL]), page(unsettled=[ROLL]), finance=[BOOKED | {"more": True}])

    report, announced = run(script)

    assert (report.charged, announced) == (3, [1, 1, 1])


@pytest.mark.parametrize("time_left", [(ENOUGH - 1,), (ENOUGH, ENOUGH - 1)])
def test_no_page_and_no_account_is_begun_without_time(time_left: Sequence[int]) -> None:
    report, _ = run(script := Script(page(1, unsettled=[ROLL])), time_left)

    assert "finance_account" not in script.calls
    assert (report.complete, script.finished) == (False, [])


def test_no_round_of_an_account_is_begun_without_time() -> None:
    # given time for the page, the account and its first round
    script = Script(page(1, unsettled=[ROLL]), finance=[BOOKED | {"more": True}])

    report, _ = run(script, [ENOUGH, ENOUGH, ENOUGH - 1])

    assert (report.charged, report.complete) == (1, False)


def test_holidays_say_otherwise_than_the_day_of_the_week() -> None:
    schedule = RollSchedule(time(17), ZoneInfo("America/New_York"), (1, 1, 3, 1, 1, 0, 0), {date(2026, 12, 23): 1})

    assert [schedule.days_of(date(2026, 12, day)) for day in (16, 23, 26)] == [3, 1, 0]
    assert str(schedule.rolled_at(date(2026, 12, 23))) == "2026-12-23 22:00:00+00:00"
