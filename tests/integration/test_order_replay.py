"""make replay: an order's life by the audit, and whether the tables agree with it."""

import json
import subprocess
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local import commands
from local.environment import State
from local.replay import replay_agrees, replay_lines
from local.servers import postgres_programs
from tests.integration.test_reports import state_of
from tests.integration.test_verification import tampered
from tests.kit import MigratedTemplate
from tests.kit.orders import Market
from tests.kit.risk import ASK_AT_THE_LEVEL, BID_AT_THE_LEVEL, long_eurusd, stop_out_step
from tests.kit.venues import STOCK, VenueWorld


@pytest.fixture(scope="module")
def venues(migrated: MigratedTemplate) -> Iterator[VenueWorld]:
    scratch = migrated.clone()
    try:
        with VenueWorld.opened(scratch) as world:
            yield world
    finally:
        scratch.drop()


@pytest.fixture
def market(venues: VenueWorld) -> Market:
    venues.market.prepare()
    venues.market.quote(STOCK, "149.98", "150.00")
    return venues.market


@pytest.fixture
def state(market: Market, tmp_path: Path) -> State:
    return state_of(tmp_path, market.database)


def replay(market: Market, order_id: object) -> Any:
    """The document that compliance is given, with exact figures."""
    with market.database.connect("compliance") as connection:
        row = connection.execute("SELECT replay_order(%s)::text", (order_id,)).fetchone()
    assert row is not None
    return json.loads(row[0] or "null", parse_float=Decimal)


def tampered_replay(market: Market, order_id: object, *statements: str) -> Any:
    """The document after `statements` on the order `%(order)s`, which are rolled back."""
    with tampered(market, *statements, order=order_id):
        ((text,),) = market.execute("SELECT replay_order(%s)::text", (order_id,))
    return json.loads(text, parse_float=Decimal)


def said(document: Any) -> str:
    return "\n".join(replay_lines(document))


def steps(document: Any) -> list[tuple[Any, ...]]:
    return [
        (step["action"], step["status_before"], step["status"], step["actor"], step["sequence"])
        for step in document["steps"]
    ]


class TestLives:
    def test_a_filled_order_in_figures(self, market: Market) -> None:
        user = market.user()
        filled = market.trade(user, stop_loss="1.05", client_order_id="mine")

        found = replay(market, filled["order_id"])

        assert steps(found) == [
            ("SUBMITTED", "initialized", "pending_new", "trader", 2),
            ("APPROVED", "pending_new", "pending_new", "platform", 2),
            ("EXECUTED", "pending_new", "pending_new", "platform", 2),
            ("FILLED", "pending_new", "filled", "platform", 2),
        ]
        assert [step["version"] for step in found["steps"]] == [2, 3, 4, 5]
        text = said(found)
        for part in (
            f"Order {filled['order_id']}: buy 1 EURUSD market filled\nof user {user.user_id}, ",
            f"\n{filled['transact_time']}  row 2  SUBMITTED  initialized -> pending_new  by trader, told by event 2\n",
            "client_order_id mine, ",
            "stop_loss 1.05",
            "    commission 0.00, margin 1100.26, reduces no\n",
            "ask 1.1002, bid 1.1000, ",
            "1 at 1.10026, commission 0.00, realized P&L 0, balance after it 10000",
            "leaves the position open: long 1 EURUSD entered at 1.10026, margin_used 1100.26, ",
            "\ntotal_cost ",
        ):
            assert part in text, (part, text)
        assert text.splitlines()[-1] == "The tables are what the audit tells."
        assert replay_agrees(found)

    def test_an_order_that_rested_and_was_canceled(self, market: Market) -> None:
        user = market.user()
        order_id = market.place(user)["order_id"]
        market.cancel(user, order_id)

        found = replay(market, order_id)

        assert steps(found) == [
            ("SUBMITTED", "initialized", "pending_new", "trader", 2),
            ("APPROVED", "pending_new", "new", "platform", 2),
            ("CANCELED", "new", "canceled", "trader", 3),
        ]
        assert "    because: User requested cancellation" in said(found)
        assert replay_agrees(found)

    def test_a_denied_order_says_why(self, market: Market) -> None:
        user = market.user(balance=1000)
        denied = market.trade(user)

        found = replay(market, denied["order_id"])

        assert steps(found)[-1] == ("REJECTED", "pending_new", "denied", "platform", 2)
        assert f"    because: {denied['message']}" in said(found)
        assert ["failure_code", "INSUFFICIENT_MARGIN"] in [line.split()[:2] for line in said(found).splitlines()]
        assert found["positions"] == []
        assert replay_agrees(found)

    def test_an_order_of_a_venue_with_its_attempts(self, venues: VenueWorld, market: Market) -> None:
        user = market.user()
        routed = venues.sent(user)
        venues.store.record(routed, "EXECUTED", retry_attempt=0, step="submit", error_code="TIMEOUT", unresolved=True)
        venues.fill(routed, "4", "150")
        venues.fill(routed, "6", "150.01")

        found = replay(market, routed.id.order_id)

        assert steps(found)[2:] == [
            ("EXECUTED", "pending_new", "pending_new", "platform", 3),
            ("FILLED", "pending_new", "partially_filled", "venue mock", 4),
            ("FILLED", "partially_filled", "filled", "venue mock", 5),
        ]
        text = said(found)
        assert "by platform, attempt 1, told by event 3\n    error_code TIMEOUT, step submit, venue mock" in text
        assert "4 at 150, commission " in text
        assert found["order"]["rebuilt"]["average_price"] == Decimal("150.006")
        assert replay_agrees(found)

    def test_an_order_of_the_platforms_own(self, market: Market) -> None:
        user = long_eurusd(market)
        market.quote("EURUSD", BID_AT_THE_LEVEL, ASK_AT_THE_LEVEL)
        with market.database.connect("function_risk") as risk:
            step = stop_out_step(risk, user)

        found = replay(market, step["order_id"])

        assert steps(found)[0][3] == "platform"
        assert "because: Stop-out: margin level " in said(found)
        (position,) = found["positions"]
        assert (position["id"], position["rebuilt"]["status"]) == (step["position_id"], "closed")
        assert replay_agrees(found)


class TestWhatIsNotShown:
    def test_neither_personal_data_nor_the_callers_own_words(self, market: Market) -> None:
        user = market.user()
        filled = market.trade(
            user, metadata={"note": "call Ann"}, execution_instructions={"urgency": "high"}, user_agent="a browser"
        )

        found = replay(market, filled["order_id"])

        for word in ("Ann", "urgency", "192.0.2.1", "a browser", user.email):
            assert word not in json.dumps(found, default=str), word
        assert replay_agrees(found)

    @pytest.mark.parametrize("role", ["function_trader", "function_operator", "backup"])
    def test_only_compliance_may_ask(self, market: Market, role: str) -> None:
        with market.database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT replay_order(uuidv7())")


class TestDifferences:
    @pytest.fixture
    def order_id(self, market: Market) -> object:
        return market.trade(market.user())["order_id"]

    @pytest.mark.parametrize(
        ("statement", "line"),
        [
            (
                "UPDATE orders SET commission = 0.5 WHERE id = %(order)s",
                "the order: commission is 0.5 in the table, 0.00 by the audit",
            ),
            (
                "UPDATE positions SET stop_loss = 1.09 WHERE order_id = %(order)s",
                "stop_loss is 1.09 in the table, none by the audit",
            ),
            (
                "UPDATE orders SET id = uuidv7() WHERE id = %(order)s",
                "the order is told by the audit and not in the table",
            ),
            (
                "UPDATE order_audit_log SET order_id = NULL WHERE order_id = %(order)s",
                "the order is in the table and not told by the audit",
            ),
            (
                "UPDATE order_audit_log SET reason = 'another' WHERE order_id = %(order)s AND action = 'APPROVED'",
                "row 3 of the audit was changed after it was written",
            ),
        ],
    )
    def test_each_is_named(self, market: Market, order_id: object, statement: str, line: str) -> None:
        unbound = (
            "ALTER TABLE fills DROP CONSTRAINT fills_user_id_order_id_fkey",
            "ALTER TABLE positions DROP CONSTRAINT positions_user_id_order_id_fkey",
        )
        with market.owner.transaction(force_rollback=True):
            for constraint in unbound:
                market.execute(constraint)
            found = tampered_replay(market, order_id, statement)

        assert not replay_agrees(found)
        text = said(found)
        assert line in text, text
        assert "NOT IN ORDER:" in text

    def test_what_differs_is_marked_in_its_row(self, market: Market, order_id: object) -> None:
        found = tampered_replay(market, order_id, "UPDATE orders SET slippage = 1 WHERE id = %(order)s")

        (line,) = [line for line in said(found).splitlines() if line.startswith("slippage ")]
        assert line.split() == ["slippage", "0.00006", "1", "<--", "DIFFERS"]


class TestCommand:
    def test_an_order_in_order(self, market: Market, state: State, capsys: pytest.CaptureFixture[str]) -> None:
        order_id = market.trade(market.user())["order_id"]

        assert commands.main(["--state", str(state.folder), "replay", "--order", f" {order_id.upper()} "]) == 0

        printed = capsys.readouterr()
        assert printed.out.startswith(f"Order {order_id}: buy 1 EURUSD market filled\n")
        assert printed.err == ""

    def test_a_difference_exits_1(self, market: Market, state: State, capsys: pytest.CaptureFixture[str]) -> None:
        user = market.user()
        order_id = market.trade(user)["order_id"]
        market.execute("UPDATE orders SET slippage = 1 WHERE user_id = %s", (user.user_id,))

        assert commands.main(["--state", str(state.folder), "replay", "--order", order_id]) == 1

        assert "the order: slippage is 1 in the table, 0.00006 by the audit" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("order", "line"),
        [
            ("", "Say which order: ORDER=its id, a UUID, not ''."),
            ("my-order", "Say which order: ORDER=its id, a UUID, not 'my-order'."),
            (str(uuid.UUID(int=7)), f"Neither table nor audit knows an order {uuid.UUID(int=7)}."),
        ],
    )
    def test_an_unknown_order_is_told_where_ids_are(
        self, state: State, capsys: pytest.CaptureFixture[str], order: str, line: str
    ) -> None:
        assert commands.main(["--state", str(state.folder), "replay", "--order", order]) == 2

        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(line)
        assert "`make execution-report FROM= TO=`" in printed.err

    def test_psql_prints_the_same_document(self, market: Market) -> None:
        order_id = market.trade(market.user())["order_id"]
        query = Path(__file__).parents[2] / "database" / "queries" / "replay_order.sql"

        done = subprocess.run(
            [
                *(postgres_programs() / "psql", market.database.url_for("compliance"), "-X", "-A", "-t"),
                *("-v", f"order_id={order_id}", "-f", query),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

        printed = json.loads(done.stdout, parse_float=Decimal)
        assert printed | {"at": None} == replay(market, order_id) | {"at": None}
