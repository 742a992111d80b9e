"""Reading back: one's own orders, positions and account, and nobody else's."""

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.kit import ScratchDatabase, User, make_user, order_request, set_quote
from tests.kit.functions import (
    CSRF_SECRET,
    Answer,
    bearer,
    call,
    function_environment,
    http_event,
    load_function,
    make_token,
)
from trading.edge.csrf import check_csrf_token


@pytest.fixture(autouse=True)
def environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str, database: ScratchDatabase
) -> Iterator[None]:
    with database.connect() as connection:
        connection.execute("UPDATE platform_settings SET trade_always = true")
    set_quote(database, "EURUSD", "1.1000", "1.1002")
    with function_environment(monkeypatch, tmp_path, database=database, redis_url=redis_url):
        yield


@pytest.fixture
def trader(database: ScratchDatabase) -> User:
    return make_user(database)


def get(path: str, user: User | uuid.UUID, query: dict[str, str] | None = None, **claims: Any) -> Answer:
    """The answer to `user` at a path under /api/v1, routed as API Gateway would."""
    parts = path.strip("/").split("/")
    parameters = {"id": parts[1]} if len(parts) > 1 else {}
    route = "/".join("{id}" if place == 1 else part for place, part in enumerate(parts))
    event = http_event(
        f"GET /api/v1/{route}",
        path_parameters=parameters,
        query=query,
        headers=bearer(make_token(user, **({"tier": "unmetered"} | claims))),
    )
    return call(load_function("manage_orders"), event)


def execute(database: ScratchDatabase, user: User, **overrides: object) -> dict[str, Any]:
    """Run an order through the procedure as the function does; the stored answer."""
    with database.connect("function_trader") as connection:
        row = connection.execute(
            "SELECT execute_order_atomic(%s)::text", (Jsonb(order_request(user, **overrides)),)
        ).fetchone()
    assert row is not None
    return json.loads(row[0], parse_float=Decimal)


def order_ids(database: ScratchDatabase, user: User) -> list[str]:
    """The ids of a user's orders, oldest first."""
    with database.connect() as connection:
        rows = connection.execute("SELECT id FROM orders WHERE user_id = %s ORDER BY id", (user.user_id,)).fetchall()
    return [str(row[0]) for row in rows]


def test_an_order_is_read_back_with_its_fill(database: ScratchDatabase, trader: User) -> None:
    execute(database, trader, quantity="0.5", client_order_id="mine-1")
    (order_id,) = order_ids(database, trader)

    answer = get(f"orders/{order_id}", trader)

    order = answer.body
    assert answer.status == 200
    assert order["id"] == order_id
    assert order["trader_id"] == str(trader.user_id)
    assert order["client_order_id"] == "mine-1"
    assert (order["symbol"], order["side"], order["order_type"], order["status"]) == (
        "EURUSD",
        "BUY",
        "MARKET",
        "FILLED",
    )
    assert Decimal(order["quantity"]) == Decimal(order["filled_quantity"]) == Decimal("0.5")
    assert Decimal(order["leaves_quantity"]) == 0
    (fill,) = order["fills"]
    assert fill["order_id"] == order_id
    assert Decimal(fill["quantity_filled"]) == Decimal("0.5")
    assert fill["price_at_fill"] == order["average_price"]
    assert Decimal(fill["price_at_fill"]) >= Decimal("1.1002")
    assert datetime.fromisoformat(order["executed_at"]).tzinfo is not None


def test_an_order_shows_all_that_was_asked_for(database: ScratchDatabase, trader: User) -> None:
    asked = {
        "max_slippage": "0.5",
        "execution_instructions": {"urgency": "high"},
        "strategy_id": "momentum-7",
        "signal_id": "s-1",
        "component_name": "bot",
        "metadata": {"desk": "fx", "weights": [1, Decimal("0.50")]},
    }
    execute(database, trader)
    first = order_ids(database, trader)[0]
    execute(database, trader, parent_order_id=first, **asked)

    order, parent = (get(f"orders/{order_id}", trader).body for order_id in reversed(order_ids(database, trader)))

    shown = asked | {"parent_order_id": first, "reduce_only": False}
    assert {name: order[name] for name in shown} == shown
    assert {name: parent[name] for name in shown} == dict.fromkeys(shown) | {"reduce_only": False}


def test_a_denied_order_says_why(database: ScratchDatabase, trader: User) -> None:
    execute(database, trader, quantity="100")
    (order_id,) = order_ids(database, trader)

    order = get(f"orders/{order_id}", trader).body

    assert (order["status"], order["failure_code"]) == ("REJECTED", "INSUFFICIENT_MARGIN")
    assert order["failure_reason"]
    assert order["fills"] == []


def test_the_audit_tells_each_step_in_its_order(database: ScratchDatabase, trader: User) -> None:
    execute(database, trader)
    (order_id,) = order_ids(database, trader)

    answer = get(f"orders/{order_id}/audit", trader)

    audit = answer.body
    assert audit["total"] == len(audit["data"])
    assert [row["action"] for row in audit["data"]] == ["SUBMITTED", "APPROVED", "EXECUTED", "FILLED"]
    assert audit["data"][-1]["status"] == "FILLED"
    assert set(audit["data"][0]) == {
        "id",
        "order_id",
        "trader_id",
        "action",
        "status",
        "timestamp",
        "reason",
        "error_code",
        "retry_attempt",
    }
    assert {row["trader_id"] for row in audit["data"]} == {str(trader.user_id)}


def test_the_audit_of_a_denied_order_ends_with_the_refusal(database: ScratchDatabase, trader: User) -> None:
    execute(database, trader, quantity="100")
    (order_id,) = order_ids(database, trader)

    last = get(f"orders/{order_id}/audit", trader).body["data"][-1]

    assert (last["action"], last["status"]) == ("REJECTED", "REJECTED")
    assert last["reason"]


@pytest.mark.parametrize("suffix", ["", "/audit"])
def test_a_strangers_order_is_as_unknown_as_one_that_does_not_exist(
    database: ScratchDatabase, trader: User, suffix: str
) -> None:
    # given an order of a trader, and another trader
    execute(database, trader)
    (order_id,) = order_ids(database, trader)
    stranger, nowhere = make_user(database), str(uuid.uuid4())

    # when
    foreign = get(f"orders/{order_id}{suffix}", stranger)
    unknown = get(f"orders/{nowhere}{suffix}", stranger)

    # then both answers are equal but for the id that was asked for
    assert (foreign.status, foreign.body["error"]) == (404, "NOT_FOUND")
    assert unknown.status == 404
    assert foreign.text.replace(order_id, nowhere) == unknown.text


def test_compliance_reads_any_audit_and_only_the_audit(database: ScratchDatabase, trader: User) -> None:
    execute(database, trader)
    (order_id,) = order_ids(database, trader)
    officer = uuid.uuid4()

    assert get(f"orders/{order_id}/audit", officer, role="compliance").body["total"] == 4
    assert get(f"orders/{order_id}", officer, role="compliance").status == 404
    assert get(f"orders/{uuid.uuid4()}/audit", officer, role="compliance").status == 404
    for role in ("trader", "risk_officer", "operator", "Compliance"):
        assert get(f"orders/{order_id}/audit", officer, role=role).status == 404


def test_what_is_no_id_is_refused_by_name(trader: User) -> None:
    for text in ("abc123", "1", "'; DROP TABLE orders; --", "%7B", "0" * 32, "{" + "0" * 36 + "}"):
        for suffix in ("", "/audit"):
            answer = get(f"orders/{text}{suffix}", trader)

            assert (answer.status, answer.body["error"]) == (400, "VALIDATION_FAILED")
            assert answer.body["details"]["field"] == "id"


def test_pages_hold_each_order_once_while_new_ones_come_in(database: ScratchDatabase, trader: User) -> None:
    # given five orders
    for _ in range(5):
        execute(database, trader, quantity="0.01")
    expected = order_ids(database, trader)[::-1]

    # when they are read by two, and another one comes in between
    first = get("orders", trader, {"limit": "2"}).body
    execute(database, trader, quantity="0.01")
    second = get("orders", trader, {"limit": "2", "cursor": first["next_cursor"]}).body
    third = get("orders", trader, {"limit": "2", "cursor": second["next_cursor"]}).body

    # then
    read = [order["id"] for page in (first, second, third) for order in page["data"]]
    assert read == expected
    assert third["next_cursor"] is None


def test_a_full_last_page_has_no_next_one(database: ScratchDatabase, trader: User) -> None:
    for _ in range(2):
        execute(database, trader, quantity="0.01")

    assert get("orders", trader, {"limit": "2"}).body["next_cursor"] is None
    assert len(get("orders", trader, {"limit": "1"}).body["data"]) == 1


def test_orders_are_filtered_by_the_words_of_the_api(database: ScratchDatabase, trader: User) -> None:
    execute(database, trader, quantity="0.01")
    execute(database, trader, quantity="100")

    def states(status: str) -> list[str]:
        return [order["status"] for order in get("orders", trader, {"status": status}).body["data"]]

    assert states("FILLED") == ["FILLED"]
    assert states("rejected") == ["REJECTED"]
    assert states("PENDING") == []
    assert states("FILLED, REJECTED") == ["REJECTED", "FILLED"]


def test_a_wrong_filter_is_refused_by_name(trader: User) -> None:
    wrong = [
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "-1"),
        ("limit", "1.5"),
        ("limit", "٣"),
        ("cursor", "x"),
        ("status", "executed"),
        ("status", "FILLED,"),
        ("account_id", "x"),
    ]
    for field, value in wrong:
        answer = get("orders", trader, {field: value})

        assert (answer.status, answer.body["details"]["field"]) == (400, field)


def test_lists_hold_nothing_of_others(database: ScratchDatabase, trader: User) -> None:
    execute(database, trader)
    stranger = make_user(database)

    assert get("orders", stranger).body == {"data": [], "next_cursor": None}
    assert get("positions", stranger).body == {"data": [], "total": 0}
    assert get("orders", stranger, {"account_id": str(trader.account_id)}).body["data"] == []
    assert get("positions", stranger, {"account_id": str(trader.account_id)}).body["data"] == []
    assert get("account", stranger, {"account_id": str(trader.account_id)}).status == 404


def test_positions_are_marked_at_the_quote_of_the_moment(database: ScratchDatabase, trader: User) -> None:
    # given a long and a short position of one lot
    execute(database, trader)
    execute(database, trader, side="sell")

    # when the market moves
    set_quote(database, "EURUSD", "1.2000", "1.2003")
    long, short = get("positions", trader).body["data"]

    # then longs are worth the bid, shorts the ask, in account currency
    assert (long["side"], short["side"]) == ("LONG", "SHORT")
    assert (Decimal(long["current_price"]), Decimal(short["current_price"])) == (Decimal("1.2"), Decimal("1.2003"))
    for position, sign in ((long, 1), (short, -1)):
        moved = (Decimal(position["current_price"]) - Decimal(position["entry_price"])) * sign
        assert Decimal(position["unrealized_pnl"]) == moved * 100_000
        assert position["status"] == "OPEN"
        assert Decimal(position["margin_used"]) > 0


def test_the_account_adds_up(database: ScratchDatabase, trader: User) -> None:
    execute(database, trader)

    account = get("account", trader).body
    (position,) = get("positions", trader).body["data"]

    worth = {name: Decimal(account[name]) for name in ("balance", "equity", "margin_used", "free_margin")}
    assert worth["equity"] == worth["balance"] + Decimal(account["unrealized_pnl"])
    assert worth["free_margin"] == worth["equity"] - worth["margin_used"]
    assert account["unrealized_pnl"] == position["unrealized_pnl"]
    assert Decimal(account["margin_level"]) == (worth["equity"] / worth["margin_used"] * 100).quantize(Decimal("0.01"))
    assert (account["currency"], account["kind"], account["position_mode"], account["trading_state"]) == (
        "USD",
        "margin",
        "hedging",
        "active",
    )
    assert account["id"] == str(trader.account_id)
    assert account["sequence"] == 2
    assert account["open_positions"] == 1


def test_an_unused_account_has_no_margin_level(trader: User) -> None:
    account = get("account", trader).body

    assert account["margin_level"] is None
    assert Decimal(account["free_margin"]) == Decimal(account["balance"]) == 100_000


class TestForms:
    """Money in whole minor units, prices with the places of their tick, quantities without needless zeros."""

    @pytest.mark.parametrize("balance", ["1170", "1170.0", "1170.00"])
    def test_an_account_before_and_after_its_first_order(self, database: ScratchDatabase, balance: str) -> None:
        trader = make_user(database, balance=balance)
        money = ("balance", "unrealized_pnl", "equity", "margin_used", "free_margin")

        before = get("account", trader).body
        execute(database, trader, quantity="0.01")
        after = get("account", trader).body

        assert [before[name] for name in money] == ["1170.00", "0.00", "1170.00", "0.00", "1170.00"]
        assert all(re.fullmatch(r"-?[0-9]+\.[0-9]{2}", after[name]) for name in (*money, "margin_level"))
        assert before["leverage"] == after["leverage"] == "100"

    def test_an_account_that_never_had_money(self, database: ScratchDatabase) -> None:
        account = get("account", make_user(database, balance=0)).body

        assert (account["balance"], account["equity"], account["free_margin"]) == ("0.00", "0.00", "0.00")

    def test_an_order_its_fill_and_its_position(self, database: ScratchDatabase, trader: User) -> None:
        # given a market without random slippage, and numbers written in other ways than we show them
        with database.connect() as connection:
            connection.execute("UPDATE instruments SET slippage_variation = 0")
        execute(database, trader, quantity="0.50", stop_loss="1.05", take_profit="1.200000000")

        order = get(f"orders/{order_ids(database, trader)[0]}", trader).body
        (position,) = get("positions", trader).body["data"]

        (fill,) = order["fills"]
        assert (order["quantity"], order["filled_quantity"], order["leaves_quantity"]) == ("0.5", "0.5", "0")
        assert (order["stop_loss"], order["take_profit"]) == ("1.05000", "1.20000")
        assert re.fullmatch(r"1\.[0-9]{5}", order["average_price"])
        assert not order["slippage"].endswith("0")
        assert (order["commission"], order["price"]) == ("0.00", None)
        assert re.fullmatch(r"[0-9]+\.[0-9]{2}", order["total_cost"])
        assert (fill["quantity_filled"], fill["price_at_fill"]) == ("0.5", order["average_price"])
        assert (fill["commission"], fill["realized_pnl"]) == ("0.00", "0.00")
        assert (position["quantity"], position["entry_price"]) == ("0.5", order["average_price"])
        assert position["current_price"] == "1.10000"
        assert (position["stop_loss"], position["take_profit"]) == ("1.05000", "1.20000")
        assert (position["commission_paid"], position["realized_pnl"]) == ("0.00", "0.00")
        assert all(re.fullmatch(r"-?[0-9]+\.[0-9]{2}", position[name]) for name in ("unrealized_pnl", "margin_used"))

    def test_an_average_keeps_what_the_tick_does_not_show(self, database: ScratchDatabase) -> None:
        # given a netted position of 0.01 lots at one price and 0.02 lots at another; no third of their sum is on a tick
        with database.connect() as connection:
            connection.execute("UPDATE instruments SET slippage_variation = 0")
        trader = make_user(database, position_mode="netting")
        execute(database, trader, quantity="0.01")
        set_quote(database, "EURUSD", "1.2000", "1.2002")
        execute(database, trader, quantity="0.02")

        entry_price = get("positions", trader).body["data"][0]["entry_price"]

        assert re.fullmatch(r"1\.166[0-9]{2}6666+7", entry_price)

    def test_a_denied_order(self, database: ScratchDatabase, trader: User) -> None:
        execute(database, trader, quantity="100.0")

        (order,) = get("orders", trader).body["data"]

        assert (order["quantity"], order["filled_quantity"], order["commission"]) == ("100", "0", "0.00")
        assert (order["average_price"], order["slippage"], order["total_cost"]) == (None, None, None)


def test_a_user_with_several_accounts_is_told_which(database: ScratchDatabase, trader: User) -> None:
    # given a second account
    with database.connect() as connection:
        row = connection.execute(
            "INSERT INTO accounts (user_id, currency) VALUES (%s, 'EUR') RETURNING id", (trader.user_id,)
        ).fetchone()
    assert row is not None
    both = sorted([str(trader.account_id), str(row[0])])

    # when none is named
    answer = get("account", trader)

    # then both are, and either may be
    assert (answer.status, answer.body["error"]) == (400, "VALIDATION_FAILED")
    details = answer.body["details"]
    assert (details["field"], details["value"], details["account_ids"]) == ("account_id", None, both)
    assert all(account in answer.body["message"] for account in both)
    assert [get("account", trader, {"account_id": account}).body["id"] for account in both] == both


def test_a_user_without_account_has_none_to_show() -> None:
    answer = get("account", uuid.uuid4())

    assert (answer.status, answer.body["error"]) == (404, "NOT_FOUND")


def test_reading_takes_a_token() -> None:
    answer = call(load_function("manage_orders"), http_event("GET /api/v1/account"))

    assert (answer.status, answer.body["error"]) == (401, "UNAUTHENTICATED")


def test_a_csrf_token_is_given_to_a_session_and_works_there() -> None:
    user_id = uuid.uuid4()
    event = http_event("GET /functions/v1/csrf-token", headers=bearer(make_token(user_id, sid="session-9")))

    answer = call(load_function("manage_orders"), event)

    data = answer.body["data"]
    assert set(data) == {"csrf_token", "expires_at"}
    check_csrf_token(CSRF_SECRET, data["csrf_token"], user_id, "session-9", datetime.now(UTC))
    left = datetime.fromisoformat(data["expires_at"]) - datetime.now(UTC)
    assert 890 < left.total_seconds() <= 900


def test_an_api_client_has_no_csrf_token() -> None:
    answer = call(
        load_function("manage_orders"), http_event("GET /functions/v1/csrf-token", headers=bearer(make_token()))
    )

    assert (answer.status, answer.body["error"]["code"]) == (403, "FORBIDDEN")


READERS = [
    "list_orders(gen_random_uuid(), NULL, NULL, NULL, 10)",
    "get_order(gen_random_uuid(), gen_random_uuid())",
    "get_order_audit(gen_random_uuid(), gen_random_uuid())",
    "get_order_owner(gen_random_uuid())",
    "list_positions(gen_random_uuid(), NULL)",
    "get_account(gen_random_uuid(), NULL)",
    "probe_health()",
]


def test_reading_functions_serve_the_traders_functions_only(database: ScratchDatabase) -> None:
    for role in ("function_relay", "function_prices", "function_risk", "compliance", "backup"):
        with database.connect(role) as connection:
            for function in READERS:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(f"SELECT {function}".encode())


def test_what_a_reading_function_sets_does_not_outlive_it(database: ScratchDatabase, trader: User) -> None:
    with database.connect("function_trader") as connection:
        connection.execute("SELECT list_positions(%s, NULL)", (trader.user_id,))
        row = connection.execute("SELECT nullif(current_setting('app.user_id', true), '')").fetchone()

    assert row == (None,)
