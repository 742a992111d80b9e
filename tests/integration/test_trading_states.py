"""set_trading_state: who may trade, of the platform, a symbol or an account, at once and on record."""

import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.gateway import eventually
from tests.kit.kill_switch import Officer
from tests.kit.linked import leg, linked_request, place_linked
from tests.kit.orders import Market, details_of, order_request, raises_sqlstate, send
from tests.kit.ticks import call


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
    with Officer.opened(market) as officer:
        yield officer


@pytest.fixture
def trader(market: Market) -> User:
    return market.user()


def subject(scope: str, trader: User) -> dict[str, str]:
    return {
        "platform": {},
        "symbol": {"symbol": "EURUSD"},
        "account": {"account_id": str(trader.account_id)},
    }[scope]


def platform_audit(market: Market) -> list[tuple[str, dict[str, Any], str]]:
    return market.execute(
        "SELECT actor, details, reason FROM platform_audit_log WHERE action = 'TRADING_STATE_SET' ORDER BY version"
    )


SCOPES = ["platform", "symbol", "account"]


class TestWhatItStops:
    @pytest.mark.parametrize("scope", SCOPES)
    @pytest.mark.parametrize("state", ["reducing", "halted"])
    def test_new_exposure_is_refused_at_once_and_taken_again_when_active(
        self, market: Market, officer: Officer, trader: User, scope: str, state: str
    ) -> None:
        # given
        held = market.trade(trader)["position_id"]

        # when
        answer = officer.set_state(scope, state, **subject(scope, trader))["answer"]

        # then what opens is denied, what closes is not
        assert (answer["before"], answer["trading_state"]) == ("active", state)
        assert market.trade(trader)["code"] == "TRADING_HALTED"
        assert market.place(trader)["code"] == "TRADING_HALTED"
        assert market.close_out(trader, held)["outcome"] == "filled"

        # and when it is lifted
        officer.set_state(scope, "active", **subject(scope, trader))
        assert market.trade(trader)["outcome"] == "filled"

    def test_another_symbol_and_another_account_trade_on(self, market: Market, officer: Officer, trader: User) -> None:
        other = market.user()

        officer.set_state("symbol", "halted", symbol="EURUSD")
        officer.set_state("account", "halted", account_id=str(other.account_id))

        assert market.trade(trader, symbol="USDJPY")["outcome"] == "filled"
        assert market.trade(other, symbol="USDJPY")["code"] == "TRADING_HALTED"

    def test_the_strictest_state_holds(self, market: Market, officer: Officer, trader: User) -> None:
        officer.set_state("symbol", "reducing", symbol="EURUSD")
        officer.set_state("platform", "halted")
        officer.set_state("platform", "active")

        assert market.trade(trader)["code"] == "TRADING_HALTED"

    @pytest.mark.parametrize(("state", "outcome"), [("reducing", "new"), ("halted", "denied")])
    def test_an_order_that_only_reduces_rests_while_reducing_and_not_while_halted(
        self, market: Market, officer: Officer, state: str, outcome: str
    ) -> None:
        # given what a netting account could sell at a better price
        user = market.user(position_mode="netting")
        market.trade(user, quantity="2")

        # when
        officer.set_state("symbol", state, symbol="EURUSD")

        # then
        resting = {"side": "sell", "limit_price": "1.2000", "quantity": "1", "reduce_only": True}
        assert market.place(user, **resting)["outcome"] == outcome
        assert market.trade(user, side="sell", quantity="1")["outcome"] == "filled"

    @pytest.mark.parametrize(("state", "outcome"), [("reducing", "placed"), ("halted", "denied")])
    def test_what_would_rest_behind_a_market_order_that_reduces_is_judged_too(
        self, market: Market, officer: Officer, state: str, outcome: str
    ) -> None:
        user = market.user(position_mode="netting")
        market.trade(user, quantity="2")
        officer.set_state("symbol", state, symbol="EURUSD")

        entry = leg(order_type="market", limit_price=None, side="sell")
        answer = place_linked(market, linked_request(user, "oto", entry, leg(side="sell", limit_price="1.2000")))

        assert (answer["outcome"], answer.answer.get("code")) == (
            outcome,
            "TRADING_HALTED" if outcome == "denied" else None,
        )

    def test_an_order_that_waits_for_its_account_is_judged_by_the_new_state(
        self, market: Market, officer: Officer, trader: User
    ) -> None:
        # given an order that is in the procedure already, behind the account's lock
        outcome: list[str] = []
        with market.database.connect("function_trader") as waiting, market.database.connect() as holder:
            holder.autocommit = False
            holder.execute("SELECT FROM accounts WHERE id = %s FOR NO KEY UPDATE", (trader.account_id,))
            order = threading.Thread(target=lambda: outcome.append(send(waiting, order_request(trader))["outcome"]))
            order.start()
            eventually(lambda: waits_for_a_lock(market), what="an order behind the lock")

            # when
            officer.set_state("symbol", "halted", symbol="EURUSD")
            holder.rollback()
            order.join(10)

        # then
        assert outcome == ["denied"]

    def test_who_halts_can_see_that_no_order_is_under_way_by_the_old_state(
        self, market: Market, officer: Officer, trader: User
    ) -> None:
        # given an order that has read the old state and is not committed
        with market.database.connect("function_trader") as ordering:
            ordering.autocommit = False
            send(ordering, order_request(trader))

            # when
            officer.set_state("symbol", "halted", symbol="EURUSD")
            horizon = value(officer.states, "SELECT order_horizon()")

            # then it is seen until it ends
            assert not value(officer.states, "SELECT orders_are_over(%s)", horizon)
            ordering.commit()
        assert value(officer.states, "SELECT orders_are_over(%s)", horizon)

    def test_also_an_order_that_began_after_the_change_and_before_its_commit_is_seen(
        self, market: Market, officer: Officer, trader: User
    ) -> None:
        # given a change that is not committed, and an order that begins after it and so reads the old state
        officer.states.autocommit = False
        officer.set_state("symbol", "halted", symbol="EURUSD")
        with market.database.connect("function_trader") as ordering:
            ordering.autocommit = False
            assert send(ordering, order_request(trader))["outcome"] == "filled"

            # when
            officer.states.commit()
            officer.states.autocommit = True
            horizon = value(officer.states, "SELECT order_horizon()")

            # then it is seen until it ends
            assert not value(officer.states, "SELECT orders_are_over(%s)", horizon)
            ordering.commit()
        assert value(officer.states, "SELECT orders_are_over(%s)", horizon)


class TestRecord:
    def test_of_the_platform_and_of_symbols_the_audit_tells_who_what_and_why(
        self, market: Market, officer: Officer
    ) -> None:
        officer.set_state("symbol", "halted", symbol="EURUSD", reason="Bad prices")

        actor, details, reason = platform_audit(market)[-1]
        assert (actor, reason) == (str(officer.user_id), "Bad prices")
        assert details.items() >= {"symbol": "EURUSD", "before": "active", "trading_state": "halted"}.items()

    def test_of_an_account_its_own_audit_and_an_event_tell(
        self, market: Market, officer: Officer, trader: User
    ) -> None:
        answer = officer.set_state("account", "reducing", account_id=str(trader.account_id))["answer"]

        (event,) = [e for e in market.rows("events", trader) if e["sequence"] == answer["sequence"]]
        audit = market.rows("order_audit_log", trader)[-1]
        assert event["event_type"] == "account.changed"
        assert event["payload"]["account"]["trading_state"] == "reducing"
        assert audit["details"]["after"] == {"trading_state": "reducing"}
        assert audit["reason"] == "A drill"

    def test_what_is_set_already_is_kept_as_history_and_not_told(
        self, market: Market, officer: Officer, trader: User
    ) -> None:
        told, sequence = len(platform_audit(market)), market.account(trader)["last_sequence"]

        platform = officer.set_state("platform", "active")["answer"]
        account = officer.set_state("account", "active", account_id=str(trader.account_id))["answer"]

        assert (platform["before"], account["before"], account["sequence"]) == ("active", "active", None)
        assert (len(platform_audit(market)), market.account(trader)["last_sequence"]) == (told, sequence)
        listed = value(officer.states, "SELECT list_trading_states()")
        assert [change["change_id"] for change in listed["changes"][:2]] == [
            account["change_id"],
            platform["change_id"],
        ]

    @pytest.mark.parametrize("scope", SCOPES)
    def test_of_two_changes_at_once_each_begins_where_the_other_ended(
        self, market: Market, officer: Officer, trader: User, scope: str
    ) -> None:
        with (
            market.database.connect("function_risk_officer", autocommit=False) as first,
            ThreadPoolExecutor(1) as other,
        ):
            # given one that is not committed yet, and another one that waits for it
            call(first, "set_trading_state", officer.request(scope, trading_state="reducing", **subject(scope, trader)))
            second = other.submit(officer.set_state, scope, "halted", **subject(scope, trader))
            eventually(lambda: waits_for_a_lock(market), what="a change behind the other")

            # when
            first.commit()

            # then
            assert second.result(10)["answer"]["before"] == "reducing"

    def test_the_list_names_what_is_not_active(self, officer: Officer, trader: User) -> None:
        officer.set_state("symbol", "halted", symbol="AAPL")
        officer.set_state("symbol", "reducing", symbol="GBPUSD")
        officer.set_state("account", "reducing", account_id=str(trader.account_id))

        listed = value(officer.states, "SELECT list_trading_states()")

        assert listed["platform"] == "active"
        assert listed["symbols"] == [
            {"symbol": "AAPL", "trading_state": "halted"},
            {"symbol": "GBPUSD", "trading_state": "reducing"},
        ]
        assert {"account_id": str(trader.account_id), "trading_state": "reducing"} in listed["accounts"]

    def test_only_who_sets_a_symbol_active_has_its_breaker_measure_anew(self, market: Market, officer: Officer) -> None:
        armed = "SELECT symbol, armed_at::text FROM symbol_breakers WHERE symbol IN ('EURUSD', 'GBPUSD')"
        before = dict(market.execute(armed))

        for state in ("reducing", "halted"):
            officer.set_state("symbol", state, symbol="EURUSD")
            assert dict(market.execute(armed)) == before
        officer.set_state("symbol", "active", symbol="EURUSD")

        after = dict(market.execute(armed))
        assert after["EURUSD"] != before["EURUSD"]
        assert after["GBPUSD"] == before["GBPUSD"]

    def test_the_books_see_a_state_that_nobody_set(self, market: Market, officer: Officer, trader: User) -> None:
        officer.set_state("account", "halted", account_id=str(trader.account_id))
        market.execute("UPDATE accounts SET trading_state = 'active' WHERE id = %s", (trader.account_id,))

        faults = market.book_faults()

        market.execute("UPDATE accounts SET trading_state = 'halted' WHERE id = %s", (trader.account_id,))
        assert [fault for fault in faults if "trading_state" in str(fault)]


class TestKeys:
    @pytest.mark.parametrize("scope", SCOPES)
    def test_a_repeat_gets_the_first_answer_and_changes_nothing(
        self, market: Market, officer: Officer, trader: User, scope: str
    ) -> None:
        # given
        request = officer.request(scope, trading_state="halted", **subject(scope, trader))
        first = call(officer.states, "set_trading_state", request)
        officer.set_state(scope, "active", **subject(scope, trader))

        # when
        again = call(officer.states, "set_trading_state", request)

        # then
        assert again == {"replayed": True, "answer": first["answer"]}
        assert market.trade(trader)["outcome"] == "filled"

    def test_another_request_under_a_key_is_refused(self, officer: Officer) -> None:
        key = str(uuid.uuid4())
        officer.set_state("platform", "reducing", idempotency_key=key)

        with raises_sqlstate("TR003"):
            officer.set_state("symbol", "halted", symbol="EURUSD", idempotency_key=key, request_hash="other")

    def test_a_key_is_its_officers_own(self, market: Market, officer: Officer) -> None:
        key = str(uuid.uuid4())
        officer.set_state("symbol", "reducing", symbol="EURUSD", idempotency_key=key)

        with Officer.opened(market) as another:
            answer = another.set_state("symbol", "halted", symbol="EURUSD", idempotency_key=key)

        assert (answer["replayed"], answer["answer"]["trading_state"]) == (False, "halted")

    def test_twenty_at_once_are_one_change(self, market: Market, officer: Officer) -> None:
        request = officer.request("symbol", symbol="EURUSD", trading_state="halted")
        before = len(platform_audit(market))

        def once(_: int) -> dict[str, Any]:
            with market.database.connect("function_risk_officer") as connection:
                return call(connection, "set_trading_state", request)

        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(once, range(20)))

        assert sorted(answer["replayed"] for answer in answers) == [False] + [True] * 19
        assert len({json.dumps(answer["answer"], sort_keys=True) for answer in answers}) == 1
        assert len(platform_audit(market)) == before + 1


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ({"scope": "everything"}, "scope"),
        ({"scope": "symbol"}, "symbol"),
        ({"scope": "account"}, "account_id"),
        ({"symbol": "EURUSD"}, "symbol"),
        ({"account_id": str(uuid.uuid4())}, "account_id"),
        ({"trading_state": "closed"}, "trading_state"),
        ({"trading_state": None}, "trading_state"),
        ({"reason": " "}, "reason"),
        ({"reason": None}, "reason"),
        ({"idempotency_key": None}, "idempotency_key"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_field(officer: Officer, fault: dict[str, Any], field: str) -> None:
    request = officer.request("platform", trading_state="halted") | fault

    with raises_sqlstate("TR006") as caught:
        call(officer.states, "set_trading_state", request)

    assert details_of(caught.value)["field"] == field


def test_an_officer_does_not_act_on_an_account_of_their_own(officer: Officer, trader: User) -> None:
    with raises_sqlstate("TR011"):
        officer.set_state("account", "active", account_id=str(trader.account_id), actor_id=str(trader.user_id))


@pytest.mark.parametrize(
    ("scope", "subject", "sqlstate"),
    [("symbol", {"symbol": "NOPE"}, "TR002"), ("account", {"account_id": str(uuid.uuid4())}, "TR001")],
)
def test_what_there_is_not_is_refused(officer: Officer, scope: str, subject: dict[str, Any], sqlstate: str) -> None:
    with raises_sqlstate(sqlstate):
        officer.set_state(scope, "halted", **subject)


def value(connection: psycopg.Connection[Any], statement: str, *parameters: object) -> Any:
    row = connection.execute(statement.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def waits_for_a_lock(market: Market) -> bool:
    return market.execute(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
    )[0][0]
