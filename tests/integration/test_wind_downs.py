"""Winding down after trading was stopped: orders canceled and positions closed, account by account, whatever fails."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.gateway import eventually
from tests.kit.kill_switch import Officer
from tests.kit.linked import leg, linked_request, placed
from tests.kit.orders import Market, details_of, raises_sqlstate, stale_time
from tests.kit.risk import stop_out_step
from tests.kit.ticks import HOLDER, Ticker, call


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    """One database for the module; its books must hold after all tests."""
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    return shared


@pytest.fixture
def officer(market: Market) -> Iterator[Officer]:
    # What other tests have left undone is no work of this one's.
    market.execute("UPDATE wind_down_accounts SET done_at = clock_timestamp() WHERE done_at IS NULL")
    with Officer.opened(market) as officer:
        yield officer


@pytest.fixture
def trader(market: Market) -> User:
    """With a position and a resting order in two symbols."""
    user = market.user()
    for symbol, limit_price in (("EURUSD", "1.0500"), ("USDJPY", "140.000")):
        market.trade(user, symbol=symbol)
        market.place(user, symbol=symbol, limit_price=limit_price)
    return user


def held(market: Market, user: User) -> set[str]:
    return {row["symbol"] for row in market.rows("positions", user) if row["status"] == "open"}


def working(market: Market, user: User) -> set[str]:
    return {row["symbol"] for row in market.rows("orders", user) if row["status"] == "new"}


def account(user: User) -> dict[str, str]:
    return {"account_id": str(user.account_id)}


def progress(officer: Officer, wind_down: dict[str, Any]) -> dict[str, Any]:
    row = officer.states.execute("SELECT get_wind_down(%s)", (wind_down["answer"]["wind_down_id"],)).fetchone()
    assert row is not None
    return row[0]


class TestWhatItEnds:
    def test_to_flatten_cancels_all_orders_and_closes_all_positions(
        self, market: Market, officer: Officer, trader: User
    ) -> None:
        officer.set_state("account", "halted", **account(trader))

        started = officer.wind_down("account", **account(trader))
        states = officer.work()

        assert states == ["more", "more", "more", "done"]
        assert (held(market, trader), working(market, trader)) == (set(), set())
        oldest_first = sorted(market.rows("positions", trader), key=lambda row: row["closed_at"])
        assert [row["symbol"] for row in oldest_first] == ["EURUSD", "USDJPY"]
        done = progress(officer, started)
        assert (done["accounts"], done["done"], done["orders_canceled"], done["positions_closed"]) == (1, 1, 2, 2)
        assert done["finished"]

    def test_to_cancel_orders_leaves_positions(self, market: Market, officer: Officer, trader: User) -> None:
        officer.set_state("account", "reducing", **account(trader))

        officer.wind_down("account", "cancel_orders", **account(trader))

        assert officer.work() == ["more", "done"]
        assert (held(market, trader), working(market, trader)) == ({"EURUSD", "USDJPY"}, set())

    def test_of_a_symbol_only_that_ends_and_of_all_accounts(
        self, market: Market, officer: Officer, trader: User
    ) -> None:
        other = market.user()
        market.trade(other)
        officer.set_state("symbol", "halted", symbol="EURUSD")

        officer.wind_down("symbol", symbol="EURUSD")
        officer.work()

        assert (held(market, trader), working(market, trader)) == ({"USDJPY"}, {"USDJPY"})
        assert held(market, other) == set()

    def test_what_children_hold_ends_with_their_parent(self, market: Market, officer: Officer) -> None:
        # given an entry that rests, with a child of another symbol
        user = market.user()
        placed(market, linked_request(user, "oto", leg(), leg(symbol="GBPUSD", limit_price="1.2000")))
        officer.set_state("symbol", "halted", symbol="EURUSD")

        officer.wind_down("symbol", "cancel_orders", symbol="EURUSD")
        officer.work()

        assert working(market, user) == set()

    def test_what_is_done_is_not_begun_again(self, market: Market, officer: Officer) -> None:
        # given
        user = market.user(position_mode="netting")
        market.trade(user)
        market.place(user)
        officer.set_state("account", "reducing", **account(user))
        officer.wind_down("account", "cancel_orders", **account(user))
        (claimed,) = officer.claim()
        assert [officer.step(claimed)["state"] for _ in range(2)] == ["more", "done"]

        # when an order rests that was sent since, and the worker comes again
        market.place(user, side="sell", quantity="0.1", limit_price="1.2000", reduce_only=True)

        assert officer.step(claimed)["state"] == "lost"
        assert working(market, user) == {"EURUSD"}

    def test_each_step_is_audited_and_told_with_the_reason(
        self, market: Market, officer: Officer, trader: User
    ) -> None:
        officer.set_state("account", "halted", **account(trader))
        before = market.account(trader)["last_sequence"]

        officer.wind_down("account", reason="Prices cannot be trusted", **account(trader))
        officer.work()

        events = [row["event_type"] for row in market.rows("events", trader) if row["sequence"] > before]
        reasons = [row["reason"] for row in market.rows("order_audit_log", trader) if row["reason"]]
        assert events == ["orders.canceled", "order.filled", "order.filled"]
        assert reasons.count("Prices cannot be trusted") >= 4


class TestWhatWaits:
    def test_a_closed_market_keeps_its_positions_whatever_its_last_quote(
        self, market: Market, officer: Officer
    ) -> None:
        user = market.user()
        for symbol in ("EURUSD", "AAPL"):
            market.trade(user, symbol=symbol)
        officer.set_state("account", "halted", **account(user))
        officer.wind_down("account", **account(user))
        market.close("FX")

        assert officer.work() == ["more", "waiting"]
        assert held(market, user) == {"EURUSD"}

    def test_a_price_that_is_missing_keeps_the_rest_until_it_comes(
        self, market: Market, officer: Officer, trader: User
    ) -> None:
        # given
        officer.set_state("account", "halted", **account(trader))
        market.quote("EURUSD", "1.1000", "1.1002", stale_time())
        started = officer.wind_down("account", **account(trader))
        begun = market.execute("SELECT started_at FROM wind_downs ORDER BY id DESC LIMIT 1")
        due_since = "SELECT wind_down_due_since()"
        assert market.execute(due_since) == begun

        # when somebody is at it, it is due as long as before
        (claimed,) = officer.claim(lease_ms=0)
        assert market.execute(due_since) == begun
        states = officer.work()

        # then what can be closed is, and the rest is due again in a minute
        assert states[-1] == "waiting"
        assert held(market, trader) == {"EURUSD"}
        assert officer.claim() == []
        due_again = market.execute("SELECT max(due_at) FROM wind_down_accounts WHERE done_at IS NULL")
        assert market.execute(due_since) == due_again > begun
        assert officer.step(claimed)["state"] == "lost"
        assert (progress(officer, started)["waiting"], progress(officer, started)["finished"]) == (1, False)

        # and when there is a price again
        market.quote("EURUSD", "1.1000", "1.1002")
        market.execute("UPDATE wind_down_accounts SET due_at = clock_timestamp() WHERE done_at IS NULL")
        assert officer.work() == ["more", "done"]
        assert held(market, trader) == set()
        assert market.execute(due_since) == [(None,)]

    def test_a_rate_that_is_stale_keeps_up_only_what_it_converts(self, market: Market, officer: Officer) -> None:
        # given on a euro account shares in dollars, whose rate has gone stale, and behind them a pair in pounds
        user = market.user(currency="EUR")
        market.quote("EURGBP", "0.8500", "0.8502")
        for symbol, quantity in (("AAPL", "10"), ("EURGBP", "0.1")):
            market.trade(user, symbol=symbol, quantity=quantity)
        officer.set_state("account", "halted", **account(user))
        officer.wind_down("account", **account(user))
        market.quote("EURUSD", "1.1000", "1.1002", stale_time())

        assert officer.work() == ["more", "waiting"]
        assert held(market, user) == {"AAPL"}

    def test_what_somebody_else_has_done_meanwhile_is_not_done_again(
        self, market: Market, officer: Officer, trader: User
    ) -> None:
        officer.set_state("account", "halted", **account(trader))
        officer.wind_down("account", **account(trader))
        market.cancel_all(trader)
        for position in market.rows("positions", trader):
            market.close_out(trader, position["id"])

        assert officer.work() == ["done"]

    def test_where_trading_is_active_again_nothing_more_is_closed(
        self, market: Market, officer: Officer, trader: User
    ) -> None:
        # given one that waits for a price, and trading that is set to active meanwhile
        officer.set_state("account", "halted", **account(trader))
        market.quote("EURUSD", "1.1000", "1.1002", stale_time())
        started = officer.wind_down("account", **account(trader))
        officer.work()
        officer.set_state("account", "active", **account(trader))

        # when its price comes, and something was bought by then
        market.quote("EURUSD", "1.1000", "1.1002")
        market.trade(trader, symbol="GBPUSD")
        market.execute("UPDATE wind_down_accounts SET due_at = clock_timestamp() WHERE done_at IS NULL")
        states = officer.work()

        assert (states, held(market, trader)) == (["done"], {"EURUSD", "GBPUSD"})
        assert progress(officer, started)["finished"]

    def test_a_stop_out_at_the_same_time_closes_nothing_twice(self, market: Market, officer: Officer) -> None:
        # given one who holds six lots that have lost nearly all
        user = market.user(balance="6800")
        for _ in range(6):
            market.trade(user)
        market.quote("EURUSD", "1.0900", "1.0902")
        officer.set_state("account", "reducing", **account(user))
        officer.wind_down("account", **account(user))
        both = Barrier(2)

        def stop_out() -> list[str]:
            with market.database.connect("function_risk") as connection:
                both.wait()
                return [stop_out_step(connection, user)["state"] for _ in range(8)]

        with ThreadPoolExecutor(1) as threads:
            stopped = threads.submit(stop_out)
            both.wait()
            assert officer.work()[-1] == "done"
            assert stopped.result()[-1] == "recovered"

        # then each was closed once; the books say so after all tests
        assert (held(market, user), len(market.rows("positions", user))) == (set(), 6)

    @pytest.mark.parametrize("holder", [HOLDER, uuid.uuid4()], ids=["itself", "another"])
    def test_a_worker_that_lost_its_lease_does_nothing(
        self, market: Market, officer: Officer, trader: User, holder: uuid.UUID
    ) -> None:
        # given one that died with its lease, and one that took over
        officer.set_state("account", "halted", **account(trader))
        officer.wind_down("account", **account(trader))
        (late,) = officer.claim(lease_ms=0)
        (current,) = officer.claim(holder)

        assert late["fencing"] < current["fencing"]
        assert officer.step(late)["state"] == "lost"
        assert working(market, trader) == {"EURUSD", "USDJPY"}

    def test_an_account_whose_worker_always_dies_does_not_keep_the_others_up(
        self, market: Market, officer: Officer
    ) -> None:
        for user in (market.user(), market.user()):
            market.trade(user)
        officer.set_state("symbol", "halted", symbol="EURUSD")
        officer.wind_down("symbol", symbol="EURUSD")
        count = len(officer.claim(lease_ms=0))

        claimed = [
            call(officer.triggers, "claim_wind_downs", {"holder": str(uuid.uuid4()), "limit": 1, "lease_ms": 0})
            for _ in range(count)
        ]

        assert len({row["account_id"] for (row,) in claimed}) == count >= 2

    def test_it_is_over_with_its_last_account(self, market: Market, officer: Officer) -> None:
        market.quote("AUDUSD", "0.6500", "0.6502")
        for user in (market.user(), market.user()):
            market.place(user, symbol="AUDUSD", limit_price="0.6000")
        officer.set_state("symbol", "halted", symbol="AUDUSD")
        started = officer.wind_down("symbol", symbol="AUDUSD")

        def told() -> tuple[int, int, bool]:
            now = progress(officer, started)
            return now["done"], now["waiting"], now["finished"]

        # given both wait, nobody has looked at them yet
        assert told() == (0, 0, False)
        claimed = officer.claim()
        assert told() == (0, 2, False)

        # when they are worked off one after the other
        for done, account in enumerate(claimed, start=1):
            assert [officer.step(account)["state"] for _ in range(2)] == ["more", "done"]
            assert told() == (done, 2 - done, done == 2)

    def test_two_workers_share_the_accounts(self, market: Market, officer: Officer) -> None:
        users = [market.user() for _ in range(3)]
        for user in users:
            market.trade(user)
        officer.set_state("symbol", "halted", symbol="EURUSD")
        officer.wind_down("symbol", symbol="EURUSD")

        first, second = officer.claim(), officer.claim(uuid.uuid4())

        assert {str(user.account_id) for user in users} <= {row["account_id"] for row in first}
        assert second == []


class TestStarting:
    def test_what_comes_while_it_starts_is_none_of_its_accounts(self, market: Market, officer: Officer) -> None:
        # given a wind-down that is kept up between the two rows that it writes
        first, second = market.user(), market.user(position_mode="netting")
        market.place(first, symbol="GBPUSD", limit_price="1.1")
        market.trade(second, symbol="GBPUSD")
        officer.set_state("symbol", "reducing", symbol="GBPUSD")
        market.execute(
            "CREATE FUNCTION await_turn() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN PERFORM pg_advisory_xact_lock(77); RETURN NEW; END$$; "
            "CREATE TRIGGER await_turn BEFORE INSERT ON wind_downs FOR EACH ROW EXECUTE FUNCTION await_turn()"
        )
        try:
            with market.database.connect() as turn, ThreadPoolExecutor(1) as threads:
                turn.execute("SELECT pg_advisory_lock(77)")
                starting = threads.submit(officer.wind_down, "symbol", "cancel_orders", symbol="GBPUSD")
                waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted"
                eventually(lambda: market.execute(waiting), seconds=3, what="the wind-down between its rows")

                # when somebody else's order of that symbol comes to rest meanwhile
                rested = market.place(second, symbol="GBPUSD", side="sell", limit_price="1.4")
                assert rested["outcome"] == "new", rested.text
                turn.execute("SELECT pg_advisory_unlock(77)")
                started = starting.result()
        finally:
            market.execute("DROP TRIGGER await_turn ON wind_downs; DROP FUNCTION await_turn()")

        # then it ends when the accounts that it counted are done
        officer.work()
        assert (progress(officer, started)["accounts"], progress(officer, started)["finished"]) == (1, True)

    def test_while_trading_is_active_it_is_refused(self, officer: Officer, trader: User) -> None:
        with raises_sqlstate("TR010") as caught:
            officer.wind_down("account", **account(trader))

        assert details_of(caught.value)["field"] == "trading_state"

    def test_a_halted_platform_lets_a_symbol_be_wound_down(self, officer: Officer, trader: User) -> None:
        officer.set_state("platform", "halted")

        assert officer.wind_down("account", **account(trader))["answer"]["accounts"] == 1

    def test_an_order_that_is_filled_in_part_counts(self, market: Market, officer: Officer) -> None:
        user = market.user()
        market.execute("UPDATE instruments SET daily_volume = 86400 WHERE symbol = 'GBPUSD'")
        market.place(user, symbol="GBPUSD", quantity="3", limit_price="1.2400")
        with Ticker.opened(market) as ticker:
            assert ticker.tick("GBPUSD", "1.2398", "1.2400") == ["partially_filled"]
        officer.set_state("account", "halted", **account(user))

        preview = call(
            officer.states, "preview_wind_down", officer.request("account", action="flatten", **account(user))
        )

        assert preview == {"accounts": 1, "working_orders": 1, "open_positions": 1}
        officer.wind_down("account", **account(user))
        assert officer.work() == ["more", "more", "done"]

    def test_a_repeat_at_once_waits_for_the_first(self, market: Market, officer: Officer, trader: User) -> None:
        officer.set_state("account", "halted", **account(trader))
        request = officer.request("account", action="flatten", **account(trader))
        waits = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        with (
            market.database.connect("function_risk_officer", autocommit=False) as first,
            ThreadPoolExecutor(1) as other,
        ):
            started = call(first, "start_wind_down", request)
            repeated = other.submit(call, officer.states, "start_wind_down", request)
            eventually(lambda: market.execute(waits), what="the repeat behind the first")
            first.commit()

            assert repeated.result(10) == {"replayed": True, "answer": started["answer"]}

    def test_a_preview_counts_and_changes_nothing(self, market: Market, officer: Officer, trader: User) -> None:
        officer.set_state("account", "halted", **account(trader))

        counted = call(
            officer.states, "preview_wind_down", officer.request("account", action="flatten", **account(trader))
        )

        assert counted == {"accounts": 1, "working_orders": 2, "open_positions": 2}
        assert officer.claim() == []
        assert working(market, trader) == {"EURUSD", "USDJPY"}

    def test_a_repeat_starts_nothing_more(self, officer: Officer, trader: User) -> None:
        officer.set_state("account", "halted", **account(trader))
        request = officer.request("account", action="flatten", **account(trader))

        first = call(officer.states, "start_wind_down", request)
        again = call(officer.states, "start_wind_down", request)

        assert again == {"replayed": True, "answer": first["answer"]}
        with raises_sqlstate("TR003"):
            call(officer.states, "start_wind_down", request | {"request_hash": "other"})
        assert len(officer.claim()) == 1

    def test_the_platform_s_audit_tells_of_it(self, market: Market, officer: Officer, trader: User) -> None:
        officer.set_state("account", "halted", **account(trader))

        started = officer.wind_down("account", **account(trader))["answer"]

        ((actor, details),) = market.execute(
            "SELECT actor, details FROM platform_audit_log WHERE action = 'WIND_DOWN_STARTED' "
            "ORDER BY version DESC LIMIT 1"
        )
        assert (actor, details["wind_down_id"]) == (str(officer.user_id), started["wind_down_id"])

    @pytest.mark.parametrize(
        ("fault", "field"),
        [
            ({"action": "sell"}, "action"),
            ({"action": None}, "action"),
            ({"reason": ""}, "reason"),
            ({"scope": "x"}, "scope"),
        ],
    )
    def test_what_does_not_fit_is_refused_by_its_field(
        self, officer: Officer, fault: dict[str, Any], field: str
    ) -> None:
        officer.set_state("platform", "halted")

        with raises_sqlstate("TR006") as caught:
            call(officer.states, "start_wind_down", officer.request("platform", action="flatten") | fault)

        assert details_of(caught.value)["field"] == field
