"""The days of an account: opened by its first business, at its own boundary; what counts from them, and is verified."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.kit import MigratedTemplate, User
from tests.kit.linked import leg, linked_request, placed, stop_leg
from tests.kit.operators import act, operator_request
from tests.kit.orders import Market
from tests.kit.ticks import Ticker

ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia")


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market:
            yield market
    finally:
        scratch.drop()


@pytest.fixture
def market(shared: Market) -> Iterator[Market]:
    shared.prepare()
    yield shared
    assert shared.book_faults() == []


def days(market: Market, user: User) -> list[dict[str, Any]]:
    return sorted(market.rows("account_days", user), key=lambda row: row["starts_at"])


def end_day(market: Market, user: User) -> None:
    """Let the account's day have ended an hour ago, as if it had begun a day before that."""
    for statement in (
        "UPDATE account_days SET starts_at = starts_at - interval '2 days', opened_at = opened_at - interval '2 days', "
        "ends_at = ends_at - interval '2 days' WHERE user_id = %(user)s",
        "UPDATE accounts SET day_ends_at = day_ends_at - interval '2 days' WHERE user_id = %(user)s",
    ):
        market.execute(statement, {"user": user.user_id})


class TestBoundaries:
    @pytest.mark.parametrize(
        ("zone", "hour", "at", "day", "starts_at", "ends_at"),
        [
            ("UTC", 0, "2026-03-08T00:00:00", "2026-03-08", "2026-03-08T00:00:00", "2026-03-09T00:00:00"),
            ("UTC", 0, "2026-03-07T23:59:59", "2026-03-07", "2026-03-07T00:00:00", "2026-03-08T00:00:00"),
            # 17:00 in New York, in a night in which its clocks go forward: a day of 23 hours
            ("America/New_York", 17, "2026-03-08T03:00:00", "2026-03-07", "2026-03-07T22:00:00", "2026-03-08T21:00:00"),
            # and in one in which they go back: of 25
            ("America/New_York", 17, "2026-11-01T03:00:00", "2026-10-31", "2026-10-31T21:00:00", "2026-11-01T22:00:00"),
            # the first of two half past ones of that night, when its day begins at the second one o'clock
            ("America/New_York", 1, "2026-11-01T05:30:00", "2026-10-31", "2026-10-31T05:00:00", "2026-11-01T06:00:00"),
        ],
    )
    def test_a_day_begins_at_its_hour_in_its_zone(
        self, market: Market, zone: str, hour: int, at: str, day: str, starts_at: str, ends_at: str
    ) -> None:
        (found,) = market.execute(
            "SELECT day::text, starts_at AT TIME ZONE 'UTC', ends_at AT TIME ZONE 'UTC' "
            "FROM day_bounds(%s, %s, %s::timestamp AT TIME ZONE 'UTC')",
            (zone, hour, at),
        )

        assert found == (day, datetime.fromisoformat(starts_at), datetime.fromisoformat(ends_at))

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        zone=st.sampled_from(ZONES),
        hour=st.integers(0, 23),
        at=st.integers(1_577_836_800, 1_893_456_000),
    )
    def test_each_moment_lies_in_one_day_and_days_meet(self, shared: Market, zone: str, hour: int, at: int) -> None:
        moment = datetime.fromtimestamp(at, UTC)
        (bounds,) = shared.execute(
            "SELECT b.starts_at, b.ends_at, n.starts_at FROM day_bounds(%(zone)s, %(hour)s, %(at)s) AS b "
            "CROSS JOIN LATERAL day_bounds(%(zone)s, %(hour)s, b.ends_at) AS n",
            {"zone": zone, "hour": hour, "at": moment},
        )

        starts_at, ends_at, next_starts_at = bounds
        assert starts_at <= moment < ends_at
        assert next_starts_at == ends_at


class TestOpening:
    def test_the_first_business_opens_the_day_and_the_next_finds_it(self, market: Market) -> None:
        user = market.user(balance=1000)  # a deposit

        (day,) = days(market, user)
        assert (day["start_balance"], day["start_equity"], day["transferred"]) == (0, 0, 1000)
        assert day["peak_equity"] == 1000
        market.trade(user, quantity="0.1")
        assert days(market, user) == [day]
        assert market.account(user)["day_ends_at"] == day["ends_at"]

    def test_a_new_day_begins_with_what_positions_are_worth_then(self, market: Market) -> None:
        user = market.user(balance=100_000)
        market.trade(user)  # stands at -26
        end_day(market, user)

        market.quote("EURUSD", "1.0900", "1.0902")
        market.cancel_all(user)

        old, new = days(market, user)
        assert (new["start_balance"], new["start_equity"]) == (100_000, Decimal("98974.00"))
        assert new["starts_at"] >= old["ends_at"]
        assert new["ledger_version"] == 2

    def test_it_opens_where_a_quote_is_missing(self, market: Market) -> None:
        user = market.user(balance=100_000)
        market.trade(user)
        end_day(market, user)
        market.execute("DELETE FROM quotes")

        market.cancel_all(user)

        assert days(market, user)[1]["start_equity"] == 100_000

    def test_a_changed_boundary_holds_from_the_next_day_on(self, market: Market) -> None:
        user = market.user()
        market.execute(
            "UPDATE risk_settings SET day_time_zone = 'America/New_York', day_start_hour = 17 WHERE user_id = %s",
            (user.user_id,),
        )
        market.trade(user)
        assert len(days(market, user)) == 1
        end_day(market, user)

        market.trade(user)

        old, new = days(market, user)
        assert new["ends_at"].astimezone(UTC).hour in (21, 22)
        assert new["starts_at"] >= old["ends_at"]

    def test_a_new_boundary_that_lies_in_the_old_day_makes_no_two_days_meet(self, market: Market) -> None:
        # given a day that ended a minute ago, and one that by its new hour began before that
        user = market.user()
        end_day(market, user)
        over = datetime.now(UTC) - timedelta(minutes=1)
        for table, column in (("account_days", "ends_at"), ("accounts", "day_ends_at")):
            market.execute(f"UPDATE {table} SET {column} = %s WHERE user_id = %s", (over, user.user_id))
        hour = (over - timedelta(hours=1)).hour
        market.execute("UPDATE risk_settings SET day_start_hour = %s WHERE user_id = %s", (hour, user.user_id))

        market.trade(user)

        old, new = days(market, user)
        assert old["ends_at"] == new["starts_at"] == over
        # and the very moment in which that one ends is the next one's
        opened = "SELECT (open_account_day(a, a.day_ends_at)).day_ends_at FROM accounts AS a WHERE a.id = %s"
        with market.owner.transaction(force_rollback=True):
            assert market.execute(opened, (user.account_id,))[0][0] > new["ends_at"]


class TestWhatCounts:
    def test_a_loss_of_yesterday_does_not_count_and_one_since_does(self, market: Market) -> None:
        user = market.user(risk={"max_daily_loss": 1000, "price_collar_percent": None})
        market.trade(user)  # a lot at 1.10026
        market.quote("EURUSD", "1.0900", "1.0902")
        assert market.trade(user)["details"]["limit"] == "max_daily_loss"
        end_day(market, user)

        assert market.trade(user, quantity="0.01")["outcome"] == "filled"
        market.quote("EURUSD", "1.0803", "1.0805")
        assert market.trade(user, quantity="0.01")["outcome"] == "filled"
        market.quote("EURUSD", "1.0798", "1.0800")
        assert market.trade(user, quantity="0.01")["details"]["limit"] == "max_daily_loss"

    def test_what_is_asked_about_before_the_day_begins_has_lost_nothing_yet(self, market: Market) -> None:
        user = market.user(risk={"max_daily_loss": 1000})
        market.trade(user)  # a lot at 1.10026
        market.quote("EURUSD", "1.0900", "1.0902")
        pair = linked_request(user, "oco", leg(limit_price="1.0850"), stop_leg(stop_price="1.1050"))

        def refusal() -> dict[str, Any] | None:
            ((told,),) = market.trader.execute("SELECT preview_group(%s, %s)", (user.user_id, Jsonb(pair))).fetchall()
            return told["refusal"]

        assert (refusal() or {})["details"]["limit"] == "max_daily_loss"
        end_day(market, user)

        assert refusal() is None

    def test_what_comes_in_and_goes_out_is_neither_loss_nor_profit(self, market: Market) -> None:
        user = market.user(balance=10_000, risk={"max_daily_loss": 100, "max_drawdown_percent": 10})

        act(market.owner, "withdraw", operator_request(user, amount="5000"))

        assert market.trade(user, quantity="0.1")["outcome"] == "filled"
        assert days(market, user)[0]["peak_equity"] == 5000

        # and the next day's is not the first one's
        end_day(market, user)
        act(market.owner, "deposit", operator_request(user, amount="100"))
        assert [day["transferred"] for day in days(market, user)] == [5000, 100]

    @pytest.mark.parametrize("how", ["placed", "replaced", "in a group", "touched", "turned round", "only asked about"])
    def test_whatever_is_judged_keeps_the_peak_that_it_has_seen_but_for_a_preview(
        self, market: Market, how: str
    ) -> None:
        # given a lot bought at 1.10026, a stop above, and 10 percent of profit since
        user = market.user(balance=10_000, position_mode="netting", risk={"max_drawdown_percent": 20})
        market.trade(user)
        above = {"order_type": "stop", "limit_price": None, "stop_price": "1.1104"}
        resting = market.place(user, quantity="0.01", **above)["order_id"]
        market.quote("EURUSD", "1.11026", "1.11046")
        pair = linked_request(user, "oco", leg(quantity="0.01"), stop_leg(quantity="0.01", stop_price="1.12"))

        # when an order is judged
        match how:
            case "placed":
                market.place(user, quantity="0.01", limit_price="1.08")
            case "replaced":
                market.replace(user, resting, stop_price="1.12")
            case "in a group":
                placed(market, pair)
            case "touched":
                with Ticker.opened(market) as ticker:
                    assert "filled" in ticker.tick("EURUSD", "1.11026", "1.11046")
            case "turned round":
                market.trade(user, side="sell", quantity="1.01")
            case _:
                market.trader.execute("SELECT preview_group(%s, %s)", (user.user_id, Jsonb(pair)))

        # then the account's highest equity is what it was worth then
        assert days(market, user)[0]["peak_equity"] == (10_000 if how == "only asked about" else 11_000)

    @pytest.mark.parametrize("later", ["on that day", "on the next"])
    def test_the_peak_is_the_highest_equity_that_an_order_has_seen(self, market: Market, later: str) -> None:
        user = market.user(balance=10_000, risk={"max_drawdown_percent": 20})
        market.trade(user)
        # given 10 percent of profit, seen by an order, of which 20 percent of the peak are lost
        market.quote("EURUSD", "1.11026", "1.11046")
        market.trade(user, quantity="0.01")
        assert days(market, user)[0]["peak_equity"] == 11_000

        if later == "on the next":
            end_day(market, user)
        market.quote("EURUSD", "1.0884", "1.0886")
        denied = market.trade(user, quantity="0.01")

        assert denied["details"]["limit"] == "max_drawdown_percent"

        # and what is seen higher since is no peak of a day that is over
        market.quote("EURUSD", "1.1200", "1.1202")
        market.trade(user, quantity="0.01")
        peaks = [day["peak_equity"] for day in days(market, user)]
        assert peaks[-1] > 11_900
        assert peaks[:-1] == ([11_000] if later == "on the next" else [])


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE account_days SET start_balance = start_balance + 1 WHERE user_id = %s", "the ledger had"),
        ("UPDATE account_days SET transferred = 7 WHERE user_id = %s", "the ledger sums to"),
        ("UPDATE account_days SET peak_equity = start_equity WHERE user_id = %s", "below what it began with"),
        ("UPDATE accounts SET day_ends_at = day_ends_at + interval '1 h' WHERE user_id = %s", "the last one at"),
        ("DELETE FROM account_days WHERE user_id = %s", "the last one at"),
        (
            "INSERT INTO account_days SELECT (jsonb_populate_record(d, jsonb_build_object('starts_at', "
            "d.starts_at + interval '1 h'))).* FROM account_days AS d WHERE user_id = %s",
            "the next day begins before it ends",
        ),
    ],
)
def test_books_that_tell_of_another_day_are_found(shared: Market, statement: str, problem: str) -> None:
    user = shared.user()
    with shared.owner.transaction(force_rollback=True):
        shared.execute(statement, (user.user_id,))

        assert any(problem in found for _, _, found in shared.book_faults())


OF_THE_ACCOUNT = "the audit tells another change of limits"
OF_THE_TIER = "the audit tells another change of a tier's limits"


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE risk_settings SET max_positions = 4 WHERE user_id = %(user)s", "the last change made it 3, it is 4"),
        ("UPDATE risk_changes SET after = '{\"max_positions\": 4}' WHERE user_id = %(user)s", OF_THE_ACCOUNT),
        ("UPDATE risk_changes SET before = '{\"max_positions\": 4}' WHERE user_id = %(user)s", OF_THE_ACCOUNT),
        ("DELETE FROM risk_changes WHERE user_id = %(user)s", OF_THE_ACCOUNT),
        ("UPDATE risk_defaults SET max_positions = 6 WHERE tier = 'silver'", "the last change made it 5, it is 6"),
        ("UPDATE risk_changes SET before = '{\"max_positions\": 4}' WHERE tier = 'silver'", OF_THE_TIER),
        ("UPDATE risk_changes SET after = '{\"max_positions\": 4}' WHERE tier = 'silver'", OF_THE_TIER),
        ("UPDATE risk_changes SET tier = 'gold' WHERE tier = 'silver'", OF_THE_TIER),
        ("DELETE FROM risk_changes WHERE tier = 'silver'", OF_THE_TIER),
    ],
)
def test_limits_that_no_change_made_are_found(shared: Market, statement: str, problem: str) -> None:
    user = shared.user()
    tier = {"version": 1, "tier": "silver", "idempotency_key": "once", "request_hash": "", "actor": "tests"}
    with shared.owner.transaction(force_rollback=True):
        act(shared.owner, "change_risk_settings", operator_request(user, limits={"max_positions": 3}))
        act(shared.owner, "change_risk_defaults", tier | {"limits": {"max_positions": 5}, "reason": "a test"})
        assert shared.book_faults() == []
        shared.execute(statement, {"user": user.user_id})

        assert any(problem in said for _, _, said in shared.book_faults())
