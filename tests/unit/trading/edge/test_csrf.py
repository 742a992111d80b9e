"""CSRF tokens: whose they are, and for how long."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from trading.edge.csrf import check_csrf_token, make_csrf_token
from trading.errors import ErrorCode, TradingError

SECRET = "a secret"
USER = uuid4()
NOW = datetime(2026, 3, 4, 12, 0, 0, 700_000, tzinfo=UTC)


def constraint_of_refusal(token: str, *, user: UUID = USER, session: str = "s", now: datetime = NOW) -> object:
    with pytest.raises(TradingError) as raised:
        check_csrf_token(SECRET, token, user, session, now)
    assert raised.value.code is ErrorCode.CSRF_FAILED
    return raised.value.details["constraint"]


def test_a_token_serves_its_session_until_it_expires() -> None:
    made = make_csrf_token(SECRET, USER, "s", NOW)

    check_csrf_token(SECRET, made.token, USER, "s", NOW)
    check_csrf_token(SECRET, made.token, USER, "s", made.expires_at - timedelta(microseconds=1))
    assert constraint_of_refusal(made.token, now=made.expires_at) == "expired"


def test_a_token_expires_a_quarter_of_an_hour_after_it_was_made() -> None:
    made = make_csrf_token(SECRET, USER, "s", NOW)

    assert made.expires_at == NOW.replace(microsecond=0) + timedelta(minutes=15)


def test_a_token_from_a_clock_ahead_of_ours_by_five_seconds_is_taken() -> None:
    issued = NOW.replace(microsecond=0)
    made = make_csrf_token(SECRET, USER, "s", issued)

    check_csrf_token(SECRET, made.token, USER, "s", issued - timedelta(seconds=5))
    early = issued - timedelta(seconds=5, microseconds=1)
    assert constraint_of_refusal(made.token, now=early) == "not valid yet"


def test_a_token_is_refused_to_others() -> None:
    made = make_csrf_token(SECRET, USER, "s", NOW)

    assert constraint_of_refusal(made.token, user=uuid4()) == "not of this session"
    assert constraint_of_refusal(made.token, session="t") == "not of this session"
    with pytest.raises(TradingError):
        check_csrf_token("another secret", made.token, USER, "s", NOW)


@pytest.mark.parametrize("token", ["", "v1", "v1...", "v2.1.0.0", " ", "v1.٣.00.00", "\ud800"])
def test_what_has_not_the_form_is_refused(token: str) -> None:
    assert constraint_of_refusal(token) == "malformed"


def test_tokens_are_never_the_same() -> None:
    assert len({make_csrf_token(SECRET, USER, "s", NOW).token for _ in range(50)}) == 50
