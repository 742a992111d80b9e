"""An operator at the running system: money moved and accounts changed over HTTP, as the trader sees it at once."""

import subprocess
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from threading import Barrier

import httpx
import pytest

from tests.kit.local_system import ROOT, LocalSystem, clean_environment
from tests.kit.traders import Trader, Traders, error_of, exact, of_type

OPERATOR = "operator@example.com"
WITHDRAWALS = 20


@pytest.fixture
def operator(traders: Traders) -> Trader:
    return traders.named(OPERATOR)


def entries(trader: Trader) -> str:
    return f"/api/v1/accounts/{trader.account_id}/ledger-entries"


def move(operator: Trader, trader: Trader, entry_type: str, amount: str, **fields: object) -> httpx.Response:
    body = {"entry_type": entry_type, "amount": amount, "reason": "a test"} | fields
    return operator.http.post(entries(trader), json=body)


def change(operator: Trader, trader: Trader, **fields: object) -> httpx.Response:
    return operator.http.patch(f"/api/v1/accounts/{trader.account_id}", json={"reason": "a test"} | fields)


def test_money_comes_and_goes_and_the_trader_hears_of_it(operator: Trader, traders: Traders) -> None:
    # given a trader who listens
    trader = traders.new()
    with trader.stream("account") as stream:
        # when money comes in and goes out
        deposited = move(operator, trader, "deposit", "250.50")
        withdrawn = move(operator, trader, "withdrawal", "100000")
        # then both are booked
        assert (deposited.status_code, withdrawn.status_code) == (201, 201)
        assert (exact(withdrawn)["amount"], exact(withdrawn)["balance"]) == ("-100000.00", "250.50")
        # and told, one event each, with the request that did it
        for response, balance in ((deposited, "100250.50"), (withdrawn, "250.50")):
            told = stream.wait_for(of_type("account_update", exact(response)["sequence"])).message
            assert told["data"]["balance"] == Decimal(balance)
            assert told["request_id"] == response.headers["x-request-id"]
    # and the trader reads it in their own ledger
    ledger = trader.read("/api/v1/account/ledger-entries")["data"]
    assert [(entry["entry_type"], entry["amount"]) for entry in ledger] == [
        ("withdrawal", "-100000.00"),
        ("deposit", "250.50"),
        ("deposit", "100000.00"),
    ]
    assert trader.read("/api/v1/account")["balance"] == "250.50"


def test_a_suspended_trader_is_denied_the_next_order(operator: Trader, traders: Traders) -> None:
    # given a trader who trades
    trader = traders.new()
    assert trader.order().status_code == 200
    # when an operator suspends them
    with trader.stream("account") as stream:
        suspended = change(operator, trader, account_status="suspended")
        told = stream.wait_for(of_type("account_update", exact(suspended)["sequence"])).message
    # then they hear of it, and the next order is denied and kept
    assert (suspended.status_code, told["data"]["account_status"]) == (200, "suspended")
    denied = trader.order()
    assert (denied.status_code, error_of(denied)["code"]) == (403, "ACCOUNT_NOT_ACTIVE")
    # and the one after the suspension was lifted is executed
    assert change(operator, trader, account_status="active").status_code == 200
    assert trader.order().status_code == 200
    statuses = Counter(row["status"] for row in trader.rows("orders", "status"))
    assert statuses == {"filled": 2, "denied": 1}


def test_a_change_of_leverage_binds_the_next_order(operator: Trader, traders: Traders) -> None:
    trader = traders.new()
    trader.order(quantity="1")
    change(operator, trader, leverage=50)

    trader.order(quantity="1")

    first, second = (row["margin_used"] for row in trader.rows("positions", "margin_used"))
    assert abs(second - 2 * first) < first / 100


def test_withdrawals_at_once_take_no_more_than_there_is(operator: Trader, traders: Traders) -> None:
    # given money for five of them
    trader, start = traders.new(), Barrier(WITHDRAWALS)

    def withdraw(number: int) -> httpx.Response:
        start.wait()
        return move(operator, trader, "withdrawal", "20000", idempotency_key=f"out-{number}")

    # when twenty come at once
    with ThreadPoolExecutor(WITHDRAWALS) as pool:
        responses = list(pool.map(withdraw, range(WITHDRAWALS)))
    # then five are paid out
    outcomes = Counter("paid" if response.status_code == 201 else exact(response)["error"] for response in responses)
    assert outcomes == {"paid": 5, "INSUFFICIENT_FUNDS": 15}
    assert trader.read("/api/v1/account")["balance"] == "0.00"
    # and a repeat of each gets what it got
    repeated = move(operator, trader, "withdrawal", "20000", idempotency_key="out-0")
    assert (repeated.status_code, repeated.content) == (responses[0].status_code, responses[0].content)
    assert repeated.headers["idempotency-replayed"] == "true"


def test_nobody_else_may(operator: Trader, traders: Traders) -> None:
    trader, other = traders.new(), traders.new()

    for response in (
        move(trader, other, "deposit", "1"),
        move(trader, trader, "deposit", "1"),
        change(traders.named("risk@example.com"), trader, leverage=500),
        trader.http.get("/api/v1/accounts", params={"email": other.email}),
        # nor an operator for themselves
        move(operator, operator, "deposit", "1000000"),
        change(operator, operator, account_tier="platinum"),
    ):
        assert (response.status_code, exact(response)["error"]) == (403, "FORBIDDEN")
    assert move(operator, trader, "deposit", "1").status_code == 201
    unknown = operator.http.patch(f"/api/v1/accounts/{uuid.uuid4()}", json={"leverage": 2, "reason": "a test"})
    assert (unknown.status_code, exact(unknown)["error"]) == (404, "NOT_FOUND")


def test_an_operator_finds_a_traders_account(operator: Trader, traders: Traders) -> None:
    trader = traders.new()

    found = operator.http.get("/api/v1/accounts", params={"email": trader.email})

    (account,) = exact(found)["data"]
    assert (account["id"], account["balance"]) == (str(trader.account_id), "100000.00")


def test_a_browser_may_ask_to_patch(local_system: LocalSystem) -> None:
    answer = httpx.options(
        f"{local_system.api_url}/api/v1/accounts/{uuid.uuid4()}",
        headers={"Origin": "http://localhost:3000", "Access-Control-Request-Method": "PATCH"},
        trust_env=False,
    )

    assert "PATCH" in answer.headers["access-control-allow-methods"]


def make(system: LocalSystem, target: str, *variables: str) -> subprocess.CompletedProcess[str]:
    """A make target against the running system."""
    command = ["make", "-s", "-C", str(ROOT), target, f"STATE={system.folder}", *variables]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=clean_environment())


def test_the_reports_read_the_running_system(local_system: LocalSystem, traders: Traders) -> None:
    # given a trader who was refused for margin
    trader = traders.new()
    refused = error_of(trader.order(quantity="900"))["details"]["order_id"]

    # when / then each command tells of it
    diagnosis = make(local_system, "diagnose", f"EMAIL={trader.email}")
    assert (diagnosis.returncode, diagnosis.stderr) == (0, "")
    assert "buy 900 EURUSD: INSUFFICIENT_MARGIN" in diagnosis.stdout
    assert "is missing. About " in diagnosis.stdout
    measured = make(local_system, "measure")
    assert (measured.returncode, measured.stderr) == (0, "")
    assert "INSUFFICIENT_MARGIN" in measured.stdout
    report = make(local_system, "execution-report", "FROM=2020-01-01", "TO=2999-12-31")
    assert (report.returncode, report.stderr) == (0, "")
    assert f"{trader.user_id},{refused},REJECTED," in report.stdout
    replayed = make(local_system, "replay", f"ORDER={refused}")
    assert (replayed.returncode, replayed.stderr) == (0, "")
    assert "REJECTED  pending_new -> denied  by platform, told by event " in replayed.stdout
    assert replayed.stdout.endswith("The tables are what the audit tells.\n")
    # and an unknown address is answered by those that are known
    unknown = make(local_system, "diagnose", "EMAIL=nobody@example.com")
    assert unknown.returncode == 2
    assert OPERATOR in unknown.stderr
