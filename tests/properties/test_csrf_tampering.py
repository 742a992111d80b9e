"""No change to a CSRF token leaves it valid, whatever the user, the session and the change."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trading.edge.csrf import check_csrf_token, make_csrf_token
from trading.errors import ErrorCode, TradingError

SECRET = "a secret of the tests"
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)

sessions = st.text(min_size=1, max_size=40)


@given(user=st.uuids(), session=sessions)
def test_an_untouched_token_is_taken(user: UUID, session: str) -> None:
    check_csrf_token(SECRET, make_csrf_token(SECRET, user, session, NOW).token, user, session, NOW)


@given(user=st.uuids(), data=st.data())
def test_a_changed_token_is_refused(user: UUID, data: st.DataObject) -> None:
    token = make_csrf_token(SECRET, user, "session", NOW).token
    at = data.draw(st.integers(0, len(token)))
    removed = data.draw(st.integers(0, 3))
    inserted = data.draw(st.text(alphabet="0123456789abcdefv.", max_size=3))
    changed = token[:at] + inserted + token[at + removed :]
    assume(changed != token)

    with pytest.raises(TradingError) as raised:
        check_csrf_token(SECRET, changed, user, "session", NOW)

    assert raised.value.code is ErrorCode.CSRF_FAILED


@given(owner=st.tuples(st.uuids(), sessions), other=st.tuples(st.uuids(), sessions))
def test_a_token_fits_one_user_and_session_only(owner: tuple[UUID, str], other: tuple[UUID, str]) -> None:
    assume(owner != other)
    token = make_csrf_token(SECRET, *owner, NOW).token

    with pytest.raises(TradingError):
        check_csrf_token(SECRET, token, *other, NOW)
