"""Confirmations: good for one subject, for two minutes, and for nobody who cannot make one."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from trading.confirmations import CLOCK_SKEW, LIFETIME, check_confirmation, make_confirmation
from trading.edge.csrf import make_csrf_token
from trading.errors import ErrorCode, TradingError

SECRET = "s" * 32
SUBJECT = ("wind_down", "officer", "flatten", "symbol", "EURUSD")
NOW = datetime(2026, 3, 2, 12, 0, 0, tzinfo=UTC)
TOKEN = make_confirmation(SECRET, SUBJECT, NOW).token


def test_it_says_until_when_it_is_good() -> None:
    assert make_confirmation(SECRET, SUBJECT, NOW).expires_at == NOW + LIFETIME


@pytest.mark.parametrize("age", [timedelta(0), LIFETIME - timedelta(microseconds=1), -CLOCK_SKEW])
def test_it_is_taken_while_it_is_young(age: timedelta) -> None:
    check_confirmation(SECRET, TOKEN, SUBJECT, NOW + age)


@pytest.mark.parametrize("age", [LIFETIME, timedelta(days=1), -CLOCK_SKEW - timedelta(microseconds=1)])
def test_it_is_refused_once_it_is_old_and_when_it_comes_from_the_future(age: timedelta) -> None:
    assert refused(TOKEN, now=NOW + age)


@pytest.mark.parametrize("place", range(len(SUBJECT)))
def test_it_confirms_nothing_else(place: int) -> None:
    other = tuple("other" if number == place else part for number, part in enumerate(SUBJECT))

    assert refused(TOKEN, subject=other)


def test_parts_do_not_run_into_each_other() -> None:
    assert refused(make_confirmation(SECRET, ("ab", "c"), NOW).token, subject=("a", "bc"))


@pytest.mark.parametrize("token", ["", "v1", TOKEN[:-1], TOKEN + "0", TOKEN.replace("v1", "v2"), "v1.١." + "0" * 64])
def test_what_has_another_form_is_refused(token: str) -> None:
    assert refused(token)


def test_what_says_a_time_that_no_calendar_has_is_refused() -> None:
    assert refused("v1.999999999999." + "0" * 64)


def test_another_key_makes_another_one() -> None:
    assert refused(make_confirmation("t" * 32, SUBJECT, NOW).token)


def test_a_csrf_token_is_none() -> None:
    assert refused(make_csrf_token(SECRET, UUID(int=1), "session", NOW).token)


def refused(token: str, *, subject: tuple[str, ...] = SUBJECT, now: datetime = NOW) -> bool:
    with pytest.raises(TradingError) as caught:
        check_confirmation(SECRET, token, subject, now)
    assert caught.value.details["field"] == "confirmation"
    return caught.value.code is ErrorCode.VALIDATION_FAILED
