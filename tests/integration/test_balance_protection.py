"""Negative balance protection: one entry brings to zero what a gap took below it, on accounts that have it."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from threading import Barrier
from uuid import UUID

import psycopg
import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.operators import act, operator_request
from tests.kit.orders import Market
from tests.kit.risk import long_eurusd, opened, run_monitoring, stop_out_step, watch_by
from trading.events import Event, frames_of
from trading.store.database import Database
from trading.store.risk import DueAccount, RiskStore

ENTRY = "negative_balance_protection"


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    return shared


@pytest.fixture
def store(market: Market) -> Iterator[RiskStore]:
    with_role = Database(lambda: market.database.url_for("function_risk"))
    yield RiskStore(with_role)
    with_role.close()


def gap(market: Market) -> None:
    """Five lots of EURUSD on 6,100.26 lose (1.04994 - 1.10026) x 500,000 = 25,160.00."""
    market.quote("EURUSD", "1.0500", "1.0502")


def entries(market: Market, user: User) -> list[tuple[str, Decimal, Decimal]]:
    rows = sorted(market.rows("ledger_entries", user), key=lambda entry: entry["entry_number"])
    return [(row["entry_type"], row["amount"], row["balance_after"]) for row in rows]


def test_a_gap_leaves_the_protected_at_zero_and_the_others_in_debt(market: Market, store: RiskStore) -> None:
    # given two accounts that differ in their profile alone
    protected = watch_by(market, long_eurusd(market), "retail")
    bare = long_eurusd(market)
    gap(market)
    announced: list[UUID] = []

    # when
    report = run_monitoring(store, announced)

    # then both lost the same, and one owes it
    assert (report.stopped_out, report.protected) == (2, 1)
    lost = [("realized_pnl", Decimal(-25160), Decimal("-19059.74")), ("commission", Decimal(0), Decimal("-19059.74"))]
    assert entries(market, bare)[-2:] == lost
    assert entries(market, protected)[-3:] == [*lost, (ENTRY, Decimal("19059.74"), Decimal(0))]
    assert [market.account(user)["balance"] for user in (protected, bare)] == [0, Decimal("-19059.74")]
    assert announced[-1] == protected.account_id
    # and the debt is shown
    assert market.worth(bare)["balance"] == "-19059.74"
    # and another run finds nothing
    assert run_monitoring(store).protected == 0


def test_what_an_operator_gave_is_not_in_its_way(market: Market, store: RiskStore) -> None:
    # given one who owes 19,059.74 after a gap, and gets 100 of it as a favour before protection comes by
    user = watch_by(market, long_eurusd(market), "retail")
    gap(market)
    with market.database.connect("function_risk") as connection:
        stop_out_step(connection, user)
    act(market.owner, "adjust", operator_request(user, amount="100"))

    run_monitoring(store)

    assert entries(market, user)[-2:] == [
        ("adjustment", Decimal(100), Decimal("-18959.74")), (ENTRY, Decimal("18959.74"), Decimal(0)),
    ]  # fmt: skip


def test_audit_event_and_frames_tell_it(market: Market, store: RiskStore) -> None:
    # given
    user = watch_by(market, long_eurusd(market), "retail")
    gap(market)
    # when
    run_monitoring(store)
    # then
    audit = max(market.rows("order_audit_log", user), key=lambda row: row["version"])
    assert (audit["action"], audit["details"]["amount"], audit["details"]["actor"]) == (
        "BALANCE_PROTECTED",
        Decimal("19059.74"),
        "platform",
    )
    assert audit["reason"].startswith("Negative balance protection")
    last = market.last_event(user)
    assert (last["event_type"], last["request_id"]) == ("account.balance_protected", "risk-1")
    event = Event(user.user_id, user.account_id, last["sequence"], last["event_type"], market.last_payload(user))
    account, alert = [json.loads(frame.text, parse_float=Decimal) for frame in frames_of(event)]
    assert (account["type"], account["data"]["balance"], account["data"]["equity"]) == ("account_update", 0, 0)
    assert alert["data"] == {
        "type": ENTRY,
        "state": "credited",
        "amount": Decimal("19059.74"),
        "margin_level": None,
        "threshold": None,
    }


def test_a_loss_that_no_stop_out_closed_is_protected_too(market: Market, store: RiskStore) -> None:
    # given a protected account whose owner closes in the gap
    user = watch_by(market, long_eurusd(market), "retail")
    gap(market)
    (position,) = market.rows("positions", user)
    assert market.close_out(user, position["id"])["outcome"] == "filled"
    # when / then
    assert run_monitoring(store).protected == 1
    assert market.account(user)["balance"] == 0


def test_nothing_is_protected_while_a_position_is_open(market: Market, store: RiskStore) -> None:
    # given an account in debt that holds shares whose market is closed
    user = watch_by(market, long_eurusd(market, "6700"), "retail")
    opened(market.trade(user, symbol="AAPL", quantity="1"))
    market.close("XNYS")
    gap(market)
    # when it waits, then
    assert (run_monitoring(store).protected, market.account(user)["balance"] < 0) == (0, True)
    # when the shares go at the open, then
    market.execute("UPDATE market_calendars SET always_open = true")
    assert run_monitoring(store).protected == 1
    assert market.account(user)["balance"] == 0


@pytest.mark.parametrize("amount", ["-0.01", "-500"])
def test_what_an_operator_took_below_zero_is_not_the_platforms(market: Market, store: RiskStore, amount: str) -> None:
    # given a protected account that a correction leaves in debt
    user = watch_by(market, market.user(balance=0), "retail")
    with market.database.connect("function_operator") as connection:
        act(connection, "adjust", operator_request(user, amount=amount))
    # when / then
    assert run_monitoring(store).protected == 0
    assert market.account(user)["balance"] == Decimal(amount)


def test_racers_book_it_once(market: Market, store: RiskStore) -> None:
    # given a protected account whose loss is booked already
    user = watch_by(market, long_eurusd(market), "retail")
    gap(market)
    (position,) = market.rows("positions", user)
    market.close_out(user, position["id"])
    begin = Barrier(8)

    def protect(_: int) -> str:
        connection = Database(lambda: market.database.url_for("function_risk"))
        begin.wait(30)
        try:
            return RiskStore(connection).protect_balance(DueAccount(user.user_id, user.account_id), "risk-1")
        finally:
            connection.close()

    # when
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(protect, range(8)))
    # then
    assert sorted(states) == ["protected"] + ["unchanged"] * 7
    assert [kind for kind, _, _ in entries(market, user)].count(ENTRY) == 1


def test_the_books_find_an_entry_that_the_audit_does_not_tell(market: Market, store: RiskStore) -> None:
    # given
    user = watch_by(market, long_eurusd(market), "retail")
    gap(market)
    run_monitoring(store)
    with market.database.connect(autocommit=False) as owner:
        # when its audit names another amount
        owner.execute("ALTER TABLE order_audit_log DISABLE TRIGGER USER")
        owner.execute(
            "UPDATE order_audit_log SET details = jsonb_set(details, '{amount}', '1') "
            "WHERE action = 'BALANCE_PROTECTED' AND user_id = %s",
            (user.user_id,),
        )
        found = owner.execute("SELECT problem FROM verify_books() WHERE invariant = 'I2'").fetchall()
        owner.rollback()
    # then
    assert any("the audit tells otherwise" in problem for (problem,) in found)


def test_only_risk_monitoring_may_protect(market: Market) -> None:
    for role in ("function_trader", "function_operator", "compliance"):
        for procedure in ("protect_balance", "find_unprotected_balances"):
            with market.database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT {procedure}('{{}}')".encode())
