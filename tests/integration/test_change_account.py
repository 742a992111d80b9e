"""What a user is and may is changed by operators alone, with a reason, and takes effect for the next order."""

import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from threading import Barrier
from typing import Any

import psycopg
import pytest

from local.servers import LOGIN_ROLES
from tests.kit import MigratedTemplate, User, order_request
from tests.kit.builders import make_other_account
from tests.kit.operators import OPERATOR_ID, Desk, act, operator_request
from tests.kit.orders import Market, details_of, raises_sqlstate, send
from tests.kit.venues import make_venue_instrument

CHANGES: list[dict[str, Any]] = [
    {"kyc_status": "rejected"},
    {"account_status": "suspended"},
    {"account_tier": "platinum"},
    {"leverage": 30},
    {"position_mode": "netting"},
    {"margin_profile": "retail"},
    {"kyc_status": "pending", "account_status": "closed", "account_tier": "bronze", "leverage": 1},
]


@pytest.fixture(scope="module")
def desk(migrated: MigratedTemplate) -> Iterator[Desk]:
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market, scratch.connect("function_operator") as connection:
            yield Desk(market, connection)
            assert market.book_faults() == []
    finally:
        scratch.drop()


@pytest.fixture
def user(desk: Desk) -> User:
    desk.market.prepare()
    return desk.market.user()


def terms(desk: Desk, user: User) -> dict[str, Any]:
    """What the rows of profile and account say."""
    (row,) = desk.market.execute(
        "SELECT jsonb_build_object('kyc_status', p.kyc_status, 'account_status', p.account_status, 'account_tier', "
        "p.account_tier, 'leverage', a.leverage, 'position_mode', a.position_mode, 'margin_profile', a.margin_profile) "
        "FROM profiles AS p JOIN accounts AS a ON a.user_id = p.id WHERE a.id = %s",
        (user.account_id,),
    )
    return row[0]


class TestChanges:
    @pytest.mark.parametrize("change", CHANGES)
    def test_what_is_given_is_changed_and_nothing_else(self, desk: Desk, user: User, change: dict[str, Any]) -> None:
        before = terms(desk, user)

        answer = desk.act("change_account", user, **change)

        assert terms(desk, user) == before | change
        assert {name: answer[name] for name in before} == before | change
        assert (answer["outcome"], answer["replayed"]) == ("changed", False)

    def test_it_is_audited_with_before_and_after_and_told(self, desk: Desk, user: User) -> None:
        desk.act(
            "change_account", user, account_status="suspended", leverage="30", kyc_status="verified", request_id="r-1"
        )

        # then the audit says what was changed from what, by whom and why
        audit = max(desk.market.rows("order_audit_log", user), key=lambda row: row["version"])
        assert (audit["action"], audit["reason"], audit["order_id"]) == ("ACCOUNT_CHANGED", "asked for by a test", None)
        assert audit["details"] == {
            "before": {"account_status": "active", "leverage": 100},
            "after": {"account_status": "suspended", "leverage": 30},
            "actor": str(OPERATOR_ID),
        }
        (personal,) = desk.market.rows("audit_pii", user)
        assert (personal["audit_id"], personal["email"]) == (audit["id"], "operator@example.com")
        # and the account's stream says what it is now
        event = max(desk.market.rows("events", user), key=lambda row: row["sequence"])
        told = event["payload"]["account"]
        assert (event["event_type"], event["sequence"], event["request_id"]) == ("account.changed", 2, "r-1")
        assert (told["account_status"], told["leverage"], told["kyc_status"]) == ("suspended", 30, "verified")
        assert (told["account_tier"], told["balance"]) == ("gold", 100_000)

    def test_terms_of_one_account_are_none_of_the_users_other_one(self, desk: Desk, user: User) -> None:
        other = make_other_account(desk.market.owner, user)

        for one, leverage in ((user, 30), (other, 50), (user, 20)):
            desk.act("change_account", one, leverage=leverage)
        desk.act("change_account", other, account_tier="silver")
        desk.act("change_account", user, account_tier="gold")

        assert (terms(desk, user)["leverage"], terms(desk, other)["leverage"]) == (20, 50)
        assert desk.market.book_faults() == []

    def test_profile_account_audit_and_event_are_one_transaction(self, desk: Desk, user: User) -> None:
        desk.act("change_account", user, account_tier="silver", leverage=50)

        written = {
            desk.market.execute(f"SELECT xmin::text FROM {rows}", {"user": user.user_id})[0][0]
            for rows in (
                "profiles WHERE id = %(user)s",
                "accounts WHERE user_id = %(user)s",
                "order_audit_log WHERE user_id = %(user)s AND action = 'ACCOUNT_CHANGED'",
                "events WHERE user_id = %(user)s AND event_type = 'account.changed'",
                "idempotency_keys WHERE user_id = %(user)s AND answer ->> 'outcome' = 'changed'",
            )
        }
        assert len(written) == 1

    def test_a_key_changes_once(self, desk: Desk, user: User) -> None:
        request = operator_request(user, leverage=30)

        first = act(desk.connection, "change_account", request)
        desk.act("change_account", user, leverage=40)
        again = act(desk.connection, "change_account", request)

        assert again == first | {"replayed": True}
        assert terms(desk, user)["leverage"] == 40
        with raises_sqlstate("TR003"):
            act(desk.connection, "change_account", request | {"request_hash": "another"})

    def test_changes_at_once_follow_on_each_other(self, desk: Desk, user: User) -> None:
        def change(leverage: int) -> None:
            with desk.market.database.connect("function_operator") as connection:
                act(connection, "change_account", operator_request(user, leverage=leverage))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(change, range(10, 18)))

        # then each began where the one before it ended, which the checker sees to as well
        audit = [row for row in desk.market.rows("order_audit_log", user) if row["action"] == "ACCOUNT_CHANGED"]
        audit.sort(key=lambda row: row["version"])
        steps = [(row["details"]["before"]["leverage"], row["details"]["after"]["leverage"]) for row in audit]
        assert len(steps) == 8
        assert [before for before, _ in steps] == [100, *(after for _, after in steps[:-1])]


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"kyc_status": "perhaps"}, "kyc_status"),
            ({"account_status": "ACTIVE"}, "account_status"),
            ({"account_tier": "unmetered"}, "account_tier"),
            ({"account_tier": ""}, "account_tier"),
            ({"leverage": 0}, "leverage"),
            ({"leverage": 1001}, "leverage"),
            ({"leverage": "NaN"}, "leverage"),
            ({"leverage": "1.001"}, "leverage"),
            ({"leverage": "many"}, "leverage"),
            ({"position_mode": "both"}, "position_mode"),
            ({"margin_profile": "lenient"}, "margin_profile"),
            ({"position_mode": "hedging"}, "changes"),
            ({}, "changes"),
            ({"leverage": 100, "account_tier": "gold"}, "changes"),
            ({"leverage": 30, "reason": None}, "reason"),
            ({"leverage": 30, "reason": " "}, "reason"),
        ],
    )
    def test_what_is_unknown_or_nothing_is_refused_and_keeps_nothing(
        self, desk: Desk, user: User, change: dict[str, Any], field: str
    ) -> None:
        before = terms(desk, user), desk.market.counts(user)

        with raises_sqlstate("TR006") as caught:
            desk.act("change_account", user, **change)

        assert details_of(caught.value)["field"] == field
        assert (terms(desk, user), desk.market.counts(user)) == before

    def test_a_cash_account_borrows_nothing(self, desk: Desk) -> None:
        user = desk.market.user(kind="cash")

        with raises_sqlstate("TR006") as caught:
            desk.act("change_account", user, leverage=2)

        assert details_of(caught.value)["field"] == "leverage"
        assert desk.act("change_account", user, leverage=1, account_tier="silver")["after"] == {
            "account_tier": "silver"
        }

    def test_nobody_changes_what_they_are_themselves(self, desk: Desk, user: User) -> None:
        with raises_sqlstate("TR011"):
            desk.act("change_account", user, leverage=30, actor_id=str(user.user_id))

        assert terms(desk, user)["leverage"] == 100

    def test_an_account_that_is_not_there(self, desk: Desk, user: User) -> None:
        with raises_sqlstate("TR001"):
            desk.act("change_account", user, leverage=30, account_id=str(uuid.uuid4()))


class TestPositionMode:
    def refusal(self, desk: Desk, user: User, mode: str = "netting") -> str:
        before = terms(desk, user), desk.market.counts(user)
        with raises_sqlstate("TR010") as caught:
            desk.act("change_account", user, position_mode=mode)
        assert (terms(desk, user), desk.market.counts(user)) == before
        assert details_of(caught.value)["field"] == "position_mode"
        return details_of(caught.value)["constraint"]

    def test_an_open_position_stands_in_the_way(self, desk: Desk, user: User) -> None:
        opened = desk.market.trade(user)

        refusal = self.refusal(desk, user)
        desk.market.close_out(user, opened["position_id"])

        assert refusal == "no open positions (now 1) and no working orders (now 0)"
        assert desk.act("change_account", user, position_mode="netting")["outcome"] == "changed"

    def test_a_working_order_stands_in_the_way(self, desk: Desk, user: User) -> None:
        placed = desk.market.place(user)

        refusal = self.refusal(desk, user)
        desk.market.cancel(user, placed["order_id"])

        assert refusal == "no open positions (now 0) and no working orders (now 1)"
        assert desk.act("change_account", user, position_mode="netting")["position_mode"] == "netting"

    def test_so_does_an_order_in_flight_to_its_venue(self, desk: Desk) -> None:
        user = desk.market.user(position_mode="netting")
        make_venue_instrument(desk.market.owner, "ROUTED")
        desk.market.quote("ROUTED", "149.98", "150.00")
        accepted = send(desk.market.trader, order_request(user, symbol="ROUTED"), "accept_order")
        assert accepted["outcome"] == "pending_new"

        refusal = self.refusal(desk, user, "hedging")

        assert refusal == "no open positions (now 0) and no working orders (now 1)"

    def test_other_terms_change_whatever_is_held(self, desk: Desk, user: User) -> None:
        desk.market.trade(user)

        assert desk.act("change_account", user, leverage=50, position_mode="hedging")["after"] == {"leverage": 50}

    def test_a_cash_account_nets(self, desk: Desk) -> None:
        with raises_sqlstate("TR006") as caught:
            desk.act("change_account", desk.market.user(kind="cash"), position_mode="hedging")

        assert details_of(caught.value)["field"] == "position_mode"

    def test_the_next_order_nets(self, desk: Desk, user: User) -> None:
        desk.act("change_account", user, position_mode="netting")

        for side in ("buy", "buy", "sell"):
            desk.market.trade(user, side=side)

        (position,) = desk.market.rows("positions", user)
        assert (position["side"], position["quantity"]) == ("long", 1)

    def test_orders_and_changes_at_once(self, desk: Desk) -> None:
        # given ten callers who buy, and ten operators who would net the account
        user = desk.market.user(balance=1_000_000, risk={"max_positions": None})
        start = Barrier(20)

        def change(_: int) -> str:
            with desk.market.database.connect("function_operator") as connection:
                start.wait(30)
                try:
                    return act(connection, "change_account", operator_request(user, position_mode="netting"))["outcome"]
                except psycopg.Error as error:
                    return error.sqlstate or repr(error)

        def buy(_: int) -> str:
            with desk.market.database.connect("function_trader") as connection:
                start.wait(30)
                return send(connection, order_request(user))["outcome"]

        with ThreadPoolExecutor(20) as pool:
            changes, orders = pool.map(change, range(10)), pool.map(buy, range(10))
            told, filled = list(changes), list(orders)

        # then the mode changed before the first order or not at all, and the positions are of the mode there is
        mode = terms(desk, user)["position_mode"]
        assert filled == ["filled"] * 10
        assert told.count("changed") == (1 if mode == "netting" else 0)
        assert set(told) <= {"changed", "TR006", "TR010"}
        assert len(desk.market.rows("positions", user)) == (1 if mode == "netting" else 10)
        assert desk.market.book_faults() == []


class TestEffect:
    def test_a_suspension_binds_the_next_order_and_its_end_the_one_after(self, desk: Desk, user: User) -> None:
        desk.act("change_account", user, account_status="suspended")
        denied = desk.market.trade(user)
        desk.act("change_account", user, account_status="active")

        assert denied["code"] == "ACCOUNT_NOT_ACTIVE"
        assert desk.market.trade(user)["outcome"] == "filled"

    def test_a_suspended_client_still_reduces(self, desk: Desk) -> None:
        user = desk.market.user(position_mode="netting")
        desk.market.trade(user)
        desk.act("change_account", user, account_status="suspended")

        assert desk.market.trade(user, side="sell", quantity="0.4")["outcome"] == "filled"
        assert desk.market.trade(user, side="buy", quantity="0.4")["code"] == "ACCOUNT_NOT_ACTIVE"

    def test_kyc_binds_the_next_order(self, desk: Desk, user: User) -> None:
        desk.act("change_account", user, kyc_status="rejected")

        assert desk.market.trade(user)["code"] == "KYC_REQUIRED"

    def test_the_commission_follows_the_tier(self, desk: Desk) -> None:
        # given the commission of a share as a bronze client pays it, above the minimum
        user = desk.market.user(tier="bronze", balance=10_000_000)
        bronze = Decimal(str(desk.market.trade(user, symbol="AAPL", quantity="1000")["commission"]))
        desk.act("change_account", user, account_tier="platinum")

        platinum = Decimal(str(desk.market.trade(user, symbol="AAPL", quantity="1000")["commission"]))

        assert (bronze > 0, platinum) == (True, bronze * Decimal("0.7"))

    def test_leverage_binds_new_positions_alone(self, desk: Desk, user: User) -> None:
        # given a position opened at leverage 100
        first = desk.market.trade(user)
        desk.act("change_account", user, leverage=50)

        second = desk.market.trade(user)

        margins = {str(row["order_id"]): row["margin_used"] for row in desk.market.rows("positions", user)}
        assert margins[first["order_id"]] == Decimal("1100.26")
        assert margins[second["order_id"]] == Decimal("2200.52")


class TestTheOnlyWay:
    """The columns are written by one procedure, and no login can write them past it."""

    @pytest.mark.parametrize("role", LOGIN_ROLES)
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE profiles SET kyc_status = 'verified'",
            "UPDATE profiles SET account_status = 'active'",
            "UPDATE profiles SET account_tier = 'platinum'",
            "UPDATE accounts SET leverage = 1000",
            "UPDATE accounts SET position_mode = 'netting'",
            "UPDATE accounts SET margin_profile = 'retail'",
            "SELECT write_account_terms(a, '{\"leverage\": 1000}', now()) FROM accounts AS a",
        ],
    )
    def test_no_login_writes_them(self, desk: Desk, role: str, statement: str) -> None:
        with desk.market.database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())

    def test_one_function_writes_them_and_one_calls_it(self, desk: Desk) -> None:
        sources = dict(
            desk.market.execute(
                "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace "
                "AND proowner IN ('trading_procedures'::regrole, 'trading_readers'::regrole)"
            )
        )
        assignment = re.compile(
            r"\bUPDATE\s+profiles\b|\bINTO\s+(profiles|accounts)\b|\bleverage\s*=(?!=)", re.IGNORECASE
        )

        assert {name for name, source in sources.items() if assignment.search(source)} == {"write_account_terms"}
        assert {name for name, source in sources.items() if "write_account_terms(" in source} == {"change_account"}

    def test_of_the_logins_operators_alone_may_call_it(self, desk: Desk) -> None:
        granted = desk.market.execute(
            "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s) "
            "AND has_function_privilege(rolname, 'change_account(jsonb)', 'EXECUTE')",
            (list(LOGIN_ROLES),),
        )

        assert granted == [("function_operator",)]
