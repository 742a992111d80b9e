"""The loop around the accounts of a wind-down, on a store that says what it is told."""

import time
import uuid
from dataclasses import dataclass, field

import pytest

from trading.errors import ErrorCode, TradingError
from trading.store.kill_switch import AccountToWindDown, WindDownStep
from trading.winding_down import work_off_wind_downs

FIRST, SECOND = (AccountToWindDown(uuid.UUID(int=9), uuid.UUID(int=n), uuid.UUID(int=n), 1) for n in (1, 2))
CANCELED = WindDownStep("more", 2, 0, told=True)
CLOSED = WindDownStep("more", 0, 1, told=True)
WAITING = WindDownStep("waiting", 0, 0, told=False)
DONE = WindDownStep("done", 0, 0, told=False)


@dataclass
class Script:
    """Hands `claims` out one by one; the steps of each account in order."""

    claims: list[AccountToWindDown]
    steps: list[WindDownStep | TradingError]
    told: list[uuid.UUID] = field(default_factory=list[uuid.UUID])

    def claim(self) -> AccountToWindDown | None:
        return self.claims.pop(0) if self.claims else None

    def step(self, account: AccountToWindDown) -> WindDownStep:
        step = self.steps.pop(0)
        if isinstance(step, TradingError):
            raise step
        return step


def test_each_account_is_stepped_until_it_is_done_and_told_of_once() -> None:
    script = Script([FIRST, SECOND], [CANCELED, CLOSED, CLOSED, DONE, DONE])

    report = work_off_wind_downs(script, script.told.append, lambda *_: None, until=time.monotonic() + 60)

    assert (report.accounts, report.orders_canceled, report.positions_closed) == (2, 2, 2)
    assert script.told == [FIRST.account_id]


def test_what_waits_is_left_and_the_next_one_taken() -> None:
    script = Script([FIRST, SECOND], [CLOSED, WAITING, DONE])

    report = work_off_wind_downs(script, script.told.append, lambda *_: None, until=time.monotonic() + 60)

    assert (report.waiting, report.accounts, script.told) == (1, 1, [FIRST.account_id])


def test_an_account_that_fails_does_not_keep_the_others_up() -> None:
    script = Script([FIRST, SECOND], [CANCELED, TradingError(ErrorCode.INTERNAL_ERROR, "broken"), DONE])

    report = work_off_wind_downs(script, script.told.append, lambda *_: None, until=time.monotonic() + 60)

    assert (report.failed, report.accounts) == (1, 1)
    assert script.told == [FIRST.account_id]  # of what was done before


def test_without_the_database_the_run_ends() -> None:
    script = Script([FIRST, SECOND], [TradingError(ErrorCode.DATABASE_UNAVAILABLE, "gone")])

    with pytest.raises(TradingError):
        work_off_wind_downs(script, script.told.append, lambda *_: None, until=time.monotonic() + 60)


def test_nothing_is_begun_when_the_time_is_over() -> None:
    script = Script([FIRST], [DONE])

    assert work_off_wind_downs(script, script.told.append, lambda *_: None, until=time.monotonic()).accounts == 0
    assert script.claims == [FIRST]


def test_what_is_to_be_closed_at_a_venue_is_handed_on() -> None:
    sent = uuid.UUID(int=77)
    script = Script([FIRST], [WindDownStep("more", 0, 0, told=True, sent_order_id=sent), WAITING])
    routed: list[tuple[uuid.UUID, uuid.UUID]] = []

    report = work_off_wind_downs(
        script, script.told.append, lambda *order: routed.append(order), until=time.monotonic() + 60
    )

    assert (routed, report.positions_sent, report.positions_closed) == ([(FIRST.user_id, sent)], 1, 0)
