"""Operators move money: out no more than an account can spare, corrections with their reason, each once per key."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from threading import Barrier
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.kit import MigratedTemplate, User, order_request
from tests.kit.operators import OPERATOR_ID, Desk, act, operator_request
from tests.kit.orders import Market, details_of, raises_sqlstate, send, stale_time

PROCEDURES = ("deposit", "withdraw", "adjust")


@pytest.fixture(scope="module")
def desk(migrated: MigratedTemplate) -> Iterator[Desk]:
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market, scratch.connect("function_operator") as connection:
            yield Desk(market, connection)
            assert market.book_faults() == []
    finally:
        scratch.drop()


@pytest.fixture(autouse=True)
def fresh_quotes(desk: Desk) -> None:
    desk.market.prepare()


@pytest.fixture
def user(desk: Desk) -> User:
    return desk.market.user(balance=1000)


def last(rows: list[dict[str, Any]], by: str) -> dict[str, Any]:
    return max(rows, key=lambda row: row[by])


def at_once[T](callers: int, call: Callable[[int], T]) -> list[T]:
    start = Barrier(callers)

    def begin(number: int) -> T:
        start.wait(30)
        return call(number)

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(begin, range(callers)))


class TestBooking:
    @pytest.mark.parametrize(
        ("procedure", "amount", "entry_type", "signed", "action", "event_type"),
        [
            ("deposit", "250.50", "deposit", "250.50", "DEPOSITED", "account.deposited"),
            ("withdraw", "250.50", "withdrawal", "-250.50", "WITHDRAWN", "account.withdrawn"),
            ("adjust", "250.50", "adjustment", "250.50", "ADJUSTED", "account.adjusted"),
            ("adjust", "-250.50", "adjustment", "-250.50", "ADJUSTED", "account.adjusted"),
        ],
    )
    def test_a_movement_is_booked_audited_and_told_in_one_transaction(
        self,
        desk: Desk,
        user: User,
        procedure: str,
        amount: str,
        entry_type: str,
        signed: str,
        action: str,
        event_type: str,
    ) -> None:
        answer = desk.act(procedure, user, amount=amount, request_id="request-7")

        # then the ledger moves the balance
        entry = last(desk.market.rows("ledger_entries", user), "entry_number")
        account = desk.market.account(user)
        balance = 1000 + Decimal(signed)
        assert (entry["entry_type"], entry["amount"], entry["balance_after"]) == (entry_type, Decimal(signed), balance)
        assert (entry["reason"], entry["currency"], entry["entry_number"]) == ("asked for by a test", "USD", 2)
        assert (account["balance"], account["ledger_version"]) == (balance, 2)
        # and the audit says who and why, by an id; what is personal lies beside it
        audit = last(desk.market.rows("order_audit_log", user), "version")
        assert (audit["action"], audit["reason"]) == (action, "asked for by a test")
        assert audit["details"]["actor"] == str(OPERATOR_ID)
        assert "operator@example.com" not in str(audit)
        (personal,) = desk.market.rows("audit_pii", user)
        assert (personal["audit_id"], personal["email"]) == (audit["id"], "operator@example.com")
        # and it is told
        event = last(desk.market.rows("events", user), "sequence")
        assert (event["event_type"], event["sequence"], event["request_id"]) == (event_type, 2, "request-7")
        assert Decimal(str(event["payload"]["account"]["balance"])) == balance
        # and answered
        assert answer["entry_id"] == str(entry["id"])
        assert (answer["outcome"], answer["entry_type"], answer["replayed"]) == ("booked", entry_type, False)
        assert Decimal(str(answer["amount"])) == Decimal(signed)
        assert answer["sequence"] == 2
        # and all of it was one transaction
        written = {
            desk.market.execute(
                f"SELECT xmin::text FROM {table} WHERE user_id = %s ORDER BY {key} DESC LIMIT 1", (user.user_id,)
            )[0][0]
            for table, key in (
                ("accounts", "id"),
                ("ledger_entries", "entry_number"),
                ("order_audit_log", "version"),
                ("events", "sequence"),
                ("idempotency_keys", "created_at"),
            )
        }
        assert len(written) == 1

    def test_a_correction_may_go_below_zero(self, desk: Desk, user: User) -> None:
        desk.act("adjust", user, amount="-1000.01")

        assert desk.balance(user) == Decimal("-0.01")

    @pytest.mark.parametrize("reason", [None, "", "  ", "x" * 501])
    def test_a_correction_needs_its_reason(self, desk: Desk, user: User, reason: str | None) -> None:
        with raises_sqlstate("TR006") as caught:
            desk.act("adjust", user, amount="1", reason=reason)

        assert details_of(caught.value)["field"] == "reason"
        assert desk.balance(user) == 1000

    def test_a_reason_has_five_hundred_characters(self, desk: Desk, user: User) -> None:
        desk.act("adjust", user, amount="1", reason="x" * 500)

        assert desk.balance(user) == 1001


class TestAmounts:
    @pytest.mark.parametrize("procedure", PROCEDURES)
    @pytest.mark.parametrize(
        "amount", ["0", "0.001", "NaN", "Infinity", "-Infinity", "1e18", "1e400", "1,5", "ten", "", None]
    )
    def test_what_is_no_money_is_refused(self, desk: Desk, user: User, procedure: str, amount: str | None) -> None:
        before = desk.market.counts(user)

        with raises_sqlstate("TR006") as caught:
            desk.act(procedure, user, amount=amount)

        assert details_of(caught.value)["field"] == "amount"
        assert desk.market.counts(user) == before

    @pytest.mark.parametrize("procedure", ["deposit", "withdraw"])
    def test_a_direction_is_not_turned_by_a_sign(self, desk: Desk, user: User, procedure: str) -> None:
        with raises_sqlstate("TR006"):
            desk.act(procedure, user, amount="-1")

        assert desk.balance(user) == 1000

    def test_eighteen_digits_are_taken(self, desk: Desk, user: User) -> None:
        desk.act("deposit", user, amount="999999999999999999.99")

        assert desk.balance(user) == Decimal("1000000000000000999.99")


class TestWithdrawing:
    def test_all_that_is_free_may_go_and_no_cent_more(self, desk: Desk, user: User) -> None:
        refused = desk.act("withdraw", user, amount="1000.01")
        booked = desk.act("withdraw", user, amount="1000")

        assert (refused["outcome"], booked["outcome"]) == ("refused", "booked")
        assert desk.balance(user) == 0

    def test_a_loss_and_used_margin_are_not_free(self, desk: Desk) -> None:
        # given a position that ties up 1100.26 and stands at -26
        user = desk.market.user(balance=5000)
        desk.market.trade(user)

        # when more than 5000 - 26 - 1100.26 is asked for
        refused = desk.act("withdraw", user, amount="3873.75")

        # then it is told what could go
        assert refused["code"] == "INSUFFICIENT_FUNDS"
        assert refused["message"] == "Insufficient funds for $3,873.75 withdrawal; available: $3,873.74"
        details = refused["details"]
        assert {name: Decimal(str(details[name])) for name in ("required_balance", "available_balance")} == {
            "required_balance": Decimal("3873.75"),
            "available_balance": Decimal("3873.74"),
        }
        assert (details["field"], details["constraint"]) == ("amount", "at most 3873.74")
        # and that may go
        assert desk.act("withdraw", user, amount="3873.74")["outcome"] == "booked"
        assert Decimal(desk.market.worth(user)["free_margin"]) == 0

    def test_unrealized_profit_is_not_paid_out(self, desk: Desk) -> None:
        # given a profit far above the margin used
        user = desk.market.user(balance=5000)
        desk.market.trade(user)
        desk.market.quote("EURUSD", "1.2000", "1.2002")

        assert desk.act("withdraw", user, amount="5000.01")["outcome"] == "refused"
        assert desk.act("withdraw", user, amount="5000")["outcome"] == "booked"

    def test_a_cash_account_keeps_what_its_holdings_cost(self, desk: Desk) -> None:
        # given 15,000 of 20,000 spent on shares, which have doubled
        user = desk.market.user(kind="cash", balance=20_000)
        desk.market.trade(user, symbol="AAPL", quantity="100")
        cost = Decimal(str(desk.market.worth(user)["margin_used"]))
        cash = desk.market.account(user)["balance"] - cost
        desk.market.quote("AAPL", "300.00", "300.02")

        assert desk.act("withdraw", user, amount=str(cash + Decimal("0.01")))["outcome"] == "refused"
        assert desk.act("withdraw", user, amount=str(cash))["outcome"] == "booked"

    def test_what_is_free_is_rounded_down(self, desk: Desk) -> None:
        # given a free margin of 4,xxx.xxx: a loss in yen, converted without rounding
        user = desk.market.user(balance=5000)
        desk.market.trade(user, symbol="USDJPY")
        (row,) = desk.market.execute(
            "SELECT free_margin FROM account_valuation(%s, %s)", (user.user_id, user.account_id)
        )
        assert row[0] != round(row[0], 2)

        available = Decimal(str(desk.act("withdraw", user, amount="5000")["details"]["available_balance"]))

        assert available <= row[0] < available + Decimal("0.01")
        assert desk.act("withdraw", user, amount=str(available))["outcome"] == "booked"

    def test_nothing_is_free_of_what_is_below_zero(self, desk: Desk, user: User) -> None:
        desk.act("adjust", user, amount="-2000")

        refused = desk.act("withdraw", user, amount="0.01")

        assert Decimal(str(refused["details"]["available_balance"])) == 0

    def test_a_refusal_is_kept_audited_and_told_and_moves_nothing(self, desk: Desk, user: User) -> None:
        request = operator_request(user, amount="2000")

        first = act(desk.connection, "withdraw", request)
        desk.act("deposit", user, amount="5000")
        again = act(desk.connection, "withdraw", request)

        # then the key keeps its answer, whatever came in since
        assert (first["outcome"], first["replayed"]) == ("refused", False)
        assert again == first | {"replayed": True}
        assert desk.balance(user) == 6000
        actions = [
            row["action"] for row in sorted(desk.market.rows("order_audit_log", user), key=lambda r: r["version"])
        ]
        assert actions == ["DEPOSITED", "WITHDRAWAL_REFUSED", "DEPOSITED"]
        events = [row["event_type"] for row in sorted(desk.market.rows("events", user), key=lambda r: r["sequence"])]
        assert events == ["account.deposited", "account.withdrawal_refused", "account.deposited"]

    @pytest.mark.parametrize(
        ("currency", "held", "symbol"),
        [("EUR", "USDJPY", "USDJPY"), ("EUR", "USDJPY", "EURUSD"), ("USD", "EURUSD", "EURUSD")],
    )
    def test_without_fresh_quotes_nothing_goes(self, desk: Desk, currency: str, held: str, symbol: str) -> None:
        # given a holding whose quote, or its conversion's, is too old
        user = desk.market.user(balance=50_000, currency=currency)
        desk.market.trade(user, symbol=held, quantity="0.1")
        before = desk.market.counts(user)
        bid, ask = {"USDJPY": ("150.000", "150.010"), "EURUSD": ("1.1000", "1.1002")}[symbol]
        desk.market.quote(symbol, bid, ask, stale_time())
        request = operator_request(user, amount="1")

        with raises_sqlstate("TR004"):
            act(desk.connection, "withdraw", request)

        # then nothing is kept, and the key is free for the next attempt
        assert desk.market.counts(user) == before
        desk.market.quote(symbol, bid, ask)
        assert act(desk.connection, "withdraw", request)["outcome"] == "booked"

    def test_stale_quotes_of_what_is_not_held_do_not_matter(self, desk: Desk, user: User) -> None:
        for symbol in ("EURUSD", "USDJPY"):
            desk.market.quote(symbol, "1.1000", "1.1002", stale_time())

        assert desk.act("withdraw", user, amount="1")["outcome"] == "booked"


class TestKeys:
    @pytest.mark.parametrize("procedure", PROCEDURES)
    def test_the_same_key_moves_money_once(self, desk: Desk, user: User, procedure: str) -> None:
        request = operator_request(user, amount="10")

        first, second = act(desk.connection, procedure, request), act(desk.connection, procedure, request)

        assert second == first | {"replayed": True}
        assert len(desk.market.rows("ledger_entries", user)) == 2

    @pytest.mark.parametrize("procedure", PROCEDURES)
    def test_other_content_under_the_key(self, desk: Desk, user: User, procedure: str) -> None:
        request = operator_request(user, amount="10", request_hash=None)
        act(desk.connection, procedure, request)
        balance = desk.balance(user)

        with raises_sqlstate("TR003"):
            act(desk.connection, procedure, request | {"amount": "11"})
        with raises_sqlstate("TR003"):
            act(desk.connection, procedure, request | {"request_hash": "another"})

        assert desk.balance(user) == balance

    def test_a_deposit_is_no_answer_to_a_withdrawal(self, desk: Desk, user: User) -> None:
        request = operator_request(user, amount="10", request_hash=None)
        act(desk.connection, "deposit", request)

        for procedure in ("withdraw", "adjust"):
            with raises_sqlstate("TR003"):
                act(desk.connection, procedure, request)

    def test_a_deposit_made_by_the_release_before_is_replayed(self, desk: Desk, user: User) -> None:
        # given a key that was kept with the hash that the release before made of this request
        request = {
            "version": 1,
            "user_id": str(user.user_id),
            "account_id": str(user.account_id),
            "amount": "10",
            "reason": "bank transfer",
            "idempotency_key": "kept",
            "actor": "local",
        }
        desk.market.execute(
            "INSERT INTO idempotency_keys (user_id, account_id, idempotency_key, request_hash, answer, created_at, "
            "expires_at) SELECT %(user)s, %(account)s, 'kept', encode(sha256(convert_to((%(request)s::jsonb "
            "- ARRAY['idempotency_key', 'idempotency_key_days', 'request_id'])::text, 'UTF8')), 'hex'), "
            "'{\"amount\": 10}', clock_timestamp(), clock_timestamp() + interval '1 day'",
            {
                "user": user.user_id,
                "account": user.account_id,
                "request": Jsonb(request),
            },
        )

        assert act(desk.connection, "deposit", request) == {"amount": 10, "replayed": True}

    @pytest.mark.parametrize("procedure", PROCEDURES)
    def test_a_known_key_is_answered_without_the_accounts_lock(self, desk: Desk, user: User, procedure: str) -> None:
        request = operator_request(user, amount="10")
        first = act(desk.connection, procedure, request)

        with desk.market.owner.transaction():
            desk.market.execute("SELECT FROM accounts WHERE id = %s FOR UPDATE", (user.account_id,))
            assert act(desk.connection, procedure, request) == first | {"replayed": True}


class TestWho:
    @pytest.mark.parametrize("procedure", PROCEDURES)
    def test_nobody_moves_money_on_an_account_of_their_own(self, desk: Desk, user: User, procedure: str) -> None:
        before = desk.market.counts(user)

        with raises_sqlstate("TR011") as caught:
            desk.act(procedure, user, amount="1", actor_id=str(user.user_id))

        assert details_of(caught.value)["field"] == "account_id"
        assert desk.market.counts(user) == before

    @pytest.mark.parametrize("procedure", PROCEDURES)
    @pytest.mark.parametrize("field", ["user_id", "account_id"])
    def test_an_account_that_is_not_there(self, desk: Desk, user: User, procedure: str, field: str) -> None:
        with raises_sqlstate("TR001"):
            desk.act(procedure, user, amount="1", **{field: str(uuid.uuid4())})

    @pytest.mark.parametrize("procedure", [*PROCEDURES, "change_account"])
    @pytest.mark.parametrize(
        "role", ["function_trader", "function_relay", "function_prices", "function_risk", "compliance"]
    )
    def test_only_operators_may(self, desk: Desk, user: User, role: str, procedure: str) -> None:
        with desk.market.database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            act(connection, procedure, operator_request(user, amount="1", leverage=10))


class TestRaces:
    def test_twenty_withdrawals_of_which_the_balance_allows_five(self, desk: Desk, user: User) -> None:
        def withdraw(_: int) -> str:
            with desk.market.database.connect("function_operator") as connection:
                return act(connection, "withdraw", operator_request(user, amount="200"))["outcome"]

        outcomes = at_once(20, withdraw)

        assert Counter(outcomes) == {"booked": 5, "refused": 15}
        assert desk.balance(user) == 0
        sequences = sorted(row["sequence"] for row in desk.market.rows("events", user))
        assert sequences == list(range(1, 22))

    def test_twenty_callers_of_one_key_withdraw_once(self, desk: Desk, user: User) -> None:
        request = operator_request(user, amount="100")

        def withdraw(_: int) -> dict[str, Any]:
            with desk.market.database.connect("function_operator") as connection:
                return act(connection, "withdraw", request)

        answers = at_once(20, withdraw)

        assert sum(not answer["replayed"] for answer in answers) == 1
        assert len({str(answer | {"replayed": None}) for answer in answers}) == 1
        assert desk.balance(user) == 900

    def test_withdrawals_and_orders_at_once_leave_free_margin(self, desk: Desk) -> None:
        # given an account that carries three of these orders, or three of these withdrawals, or a mixture
        user = desk.market.user(balance=4000)

        def either(number: int) -> str:
            if number % 2:
                with desk.market.database.connect("function_operator") as connection:
                    return act(connection, "withdraw", operator_request(user, amount="1126.26"))["outcome"]
            with desk.market.database.connect("function_trader") as connection:
                return str(send(connection, order_request(user))["outcome"])

        outcomes = Counter(at_once(16, either))

        assert outcomes["booked"] + outcomes["filled"] == 3
        assert outcomes["refused"] == 8 - outcomes["booked"]
        assert outcomes["denied"] == 8 - outcomes["filled"]
        assert 0 <= Decimal(desk.market.worth(user)["free_margin"]) < Decimal("1126.26")


@settings(max_examples=40, deadline=None)
@given(
    movements=st.lists(
        st.tuples(st.sampled_from(PROCEDURES), st.integers(min_value=-300_000, max_value=300_000)), max_size=8
    )
)
def test_any_run_of_movements_keeps_the_books(desk: Desk, movements: list[tuple[str, int]]) -> None:
    """The balance is what the accepted movements sum to, and a withdrawal never takes it below zero."""
    user, expected = desk.market.user(balance=1000), Decimal(1000)
    for procedure, cents in movements:
        amount = Decimal(cents) / 100
        if cents == 0 or (cents < 0 and procedure != "adjust"):
            with raises_sqlstate("TR006"):
                desk.act(procedure, user, amount=str(amount))
            continue
        outcome = desk.act(procedure, user, amount=str(amount))["outcome"]
        affordable = procedure != "withdraw" or amount <= max(expected, 0)
        assert outcome == ("booked" if affordable else "refused")
        if affordable:
            expected += -amount if procedure == "withdraw" else amount
        assert desk.balance(user) == expected
