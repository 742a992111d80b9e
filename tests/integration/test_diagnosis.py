"""make diagnose: why a user's orders are refused for margin, in figures that add up and lines that say what to do."""

import json
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local import commands
from local.diagnosis import diagnosis_lines
from local.servers import postgres_programs
from tests.integration.test_reports import state_of
from tests.kit import MigratedTemplate, User
from tests.kit.operators import Desk
from tests.kit.orders import Market, stale_time


@pytest.fixture(scope="module")
def desk(migrated: MigratedTemplate) -> Iterator[Desk]:
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market, scratch.connect("function_operator") as connection:
            yield Desk(market, connection)
    finally:
        scratch.drop()


@pytest.fixture
def market(desk: Desk) -> Market:
    desk.market.prepare()
    return desk.market


def diagnose(market: Market, email: str) -> dict[str, Any]:
    with market.database.connect("compliance") as connection:
        row = connection.execute("SELECT diagnose_margin(%s)", (email,)).fetchone()
    assert row is not None
    return row[0]


def account_of(market: Market, user: User) -> dict[str, Any]:
    (account,) = diagnose(market, user.email)["accounts"]
    return account


def text_of(market: Market, user: User) -> str:
    return "\n".join(diagnosis_lines(diagnose(market, user.email)))


class TestFigures:
    def test_a_new_client_has_all_that_was_paid_in(self, market: Market) -> None:
        user = market.user(balance=5000)

        found = account_of(market, user)

        assert found["margin"] == {
            "balance": "5000.00",
            "unrealized_pnl": "0.00",
            "equity": "5000.00",
            "margin_used": "0.00",
            "hedged_margin_credit": "0.00",
            "margin_used_by_audit": "0.00",
            "free_margin": "5000.00",
            "margin_level": None,
        }
        assert (found["positions"], found["working_orders"], found["denials"], found["quotes"]) == ([], [], [], [])
        assert found["should_have_margin"] is True
        assert found["limits"]["max_positions"] == 10
        assert found["verdict"] == [
            "There should be margin: equity 5000.00 less margin used 0.00 leaves 5000.00 USD free.",
            "No order was refused for want of margin or funds.",
        ]

    def test_a_position_is_shown_with_its_mark_its_loss_and_its_margin(self, market: Market) -> None:
        user = market.user(balance=5000)
        market.trade(user)

        found = account_of(market, user)

        (position,) = found["positions"]
        assert {name: position[name] for name in position if name != "position_id"} == {
            "symbol": "EURUSD",
            "side": "long",
            "quantity": "1",
            "entry_price": "1.10026",
            "mark": "1.10000",
            "pnl": "-26",
            "quote_currency": "USD",
            "unrealized_pnl": "-26.00",
            "margin_used": "1100.26",
            "margin_calculation": "1 lots x 100000 x 1.10026 USD / leverage 100",
            "margin_at_present_terms": "1100.26",
        }
        margin = found["margin"]
        assert (margin["margin_used"], margin["margin_used_by_audit"]) == ("1100.26", "1100.26")
        assert (margin["equity"], margin["free_margin"], margin["margin_level"]) == ("4974.00", "3873.74", "452.07")
        # and so does the account's owner see it
        worth = market.worth(user)
        assert {name: worth[name] for name in margin if name in worth} == {
            name: value for name, value in margin.items() if name in worth
        }

    @pytest.mark.parametrize(
        ("currency", "symbol", "quantity", "calculation"),
        [
            ("EUR", "EURUSD", "1", "1 lots x 100000 EUR / leverage 100"),
            ("EUR", "USDJPY", "0.1", "0.1 lots x 100000 USD / leverage 100, converted to EUR"),
            ("USD", "USDJPY", "0.1", "0.1 lots x 100000 USD / leverage 100"),
            ("EUR", "AAPL", "10", "10 lots x 1 x 150.02 USD / leverage 20, converted to EUR"),
            ("USD", "AAPL", "10", "10 lots x 1 x 150.02 USD / leverage 20"),
        ],
    )
    def test_how_a_margin_comes_about(
        self, market: Market, currency: str, symbol: str, quantity: str, calculation: str
    ) -> None:
        user = market.user(currency=currency)
        market.trade(user, symbol=symbol, quantity=quantity)

        (position,) = account_of(market, user)["positions"]

        assert position["margin_calculation"].replace(position["entry_price"], "150.02") == calculation
        assert position["margin_at_present_terms"] == position["margin_used"]

    def test_by_which_leverage_a_margin_comes_about(self, market: Market) -> None:
        cash, capped = market.user(kind="cash"), market.user(risk={"leverage_profile": "esma_retail"})
        market.trade(cash, symbol="AAPL", quantity="10")
        market.trade(capped)

        told = [account_of(market, user)["positions"][0]["margin_calculation"] for user in (cash, capped)]

        assert [line.rpartition(" / ")[2] for line in told] == ["leverage 1", "leverage 30"]

    def test_what_is_closed_in_part_is_what_the_audit_told_last(self, market: Market) -> None:
        user = market.user()
        market.trade(user)
        (position,) = market.rows("positions", user)
        assert market.close_out(user, position["id"], quantity="0.4")["outcome"] == "filled"

        margin = diagnose(market, user.email.upper())["accounts"][0]["margin"]

        assert margin["margin_used"] == margin["margin_used_by_audit"] == "660.16"

    def test_a_margin_is_fixed_whatever_leverage_became(self, desk: Desk, market: Market) -> None:
        user = market.user()
        market.trade(user)
        desk.act("change_account", user, leverage=50)

        (position,) = account_of(market, user)["positions"]

        assert (position["margin_used"], position["margin_at_present_terms"]) == ("1100.26", "2200.52")
        assert "margin 1100.26 USD = " in text_of(market, user)
        assert "; 2200.52 at present terms" in text_of(market, user)

    def test_a_margin_that_the_audit_tells_otherwise_is_pointed_at(self, market: Market) -> None:
        user = market.user()
        market.trade(user)
        market.execute("UPDATE positions SET margin_used = 1 WHERE user_id = %s", (user.user_id,))

        said = text_of(market, user)

        assert "margin used 1.00, the sum of the positions, BUT the audit tells: 1100.26" in said
        market.execute("UPDATE positions SET margin_used = 1100.26 WHERE user_id = %s", (user.user_id,))
        assert "margin used 1100.26, the sum of the positions, as the audit tells: 1100.26" in text_of(market, user)

    def test_working_orders_are_listed(self, market: Market) -> None:
        user = market.user()
        market.execute(
            "INSERT INTO orders (user_id, account_id, symbol, order_type, side, quantity, leaves_quantity, "
            "limit_price, status) VALUES (%s, %s, 'GBPUSD', 'limit', 'buy', 2, 2, 1.2, 'new')",
            (user.user_id, user.account_id),
        )

        (order,) = account_of(market, user)["working_orders"]

        assert (order["symbol"], order["limit_price"], order["status"]) == ("GBPUSD", "1.2", "new")
        assert "new: limit buy 2 GBPUSD at 1.2" in text_of(market, user)


class TestVerdict:
    def test_what_the_refused_order_needs_and_what_would_fit(self, market: Market) -> None:
        # given 5000 against the 1126.26 a lot of margin and spread
        user = market.user(balance=5000)
        market.trade(user, quantity="6")

        found = account_of(market, user)

        (denial,) = found["denials"]
        assert (denial["failure_code"], denial["quantity"]) == ("INSUFFICIENT_MARGIN", "6")
        assert denial["failure_reason"].startswith("This order needs 6757.56 USD")
        line = found["verdict"][-1]
        assert "(buy 6 EURUSD, " in line
        assert (
            "would need about 6757.56 USD of margin, commission and spread now; 5000.00 is free: 1757.56 is missing"
            in line
        )
        assert line.endswith("About 4.43 lots fit.")
        # and that is what the next orders find
        assert market.trade(user, quantity="4.43")["outcome"] == "filled"

    def test_of_several_it_is_the_last_with_its_commission(self, market: Market) -> None:
        # given 100 shares that a bronze account pays 2.00 for, refused after a lot of EURUSD
        user = market.user(balance=700, tier="bronze")
        for symbol, quantity in (("EURUSD", "1"), ("AAPL", "100")):
            assert market.trade(user, symbol=symbol, quantity=quantity)["code"] == "INSUFFICIENT_MARGIN"

        line = account_of(market, user)["verdict"][-1]

        # then 100 x 150.00 / 20 of margin, 100 x 0.02 of spread and the commission
        assert "(buy 100 AAPL, " in line
        assert "would need about 754.00 USD" in line

    def test_an_order_that_fits_by_now(self, desk: Desk, market: Market) -> None:
        user = market.user(balance=1000)
        market.trade(user)
        desk.act("deposit", user, amount="126.26")

        assert account_of(market, user)["verdict"][-1].endswith("1126.26 is free: it fits.")
        assert market.trade(user)["outcome"] == "filled"

    def test_no_margin_at_all(self, market: Market) -> None:
        # given a loss that leaves less than what is used
        user = market.user(balance=2000)
        market.trade(user)
        market.quote("EURUSD", "1.0900", "1.0902")

        found = account_of(market, user)

        assert found["should_have_margin"] is False
        assert found["verdict"][0] == (
            "There is no margin: equity 974.00 does not exceed margin used 1100.26 USD. Close a position or deposit."
        )

    def test_a_cash_account_spends_no_profit(self, market: Market) -> None:
        # given holdings that have doubled, and 5,000 in cash
        user = market.user(kind="cash", balance=20_000)
        market.trade(user, symbol="AAPL", quantity="100")
        market.trade(user, symbol="AAPL", quantity="100")
        market.quote("AAPL", "300.00", "300.02")
        account, worth = market.account(user), market.worth(user)
        cash = account["balance"] - Decimal(worth["margin_used"])

        line = account_of(market, user)["verdict"][-1]

        assert f"{cash} is free" in line
        assert Decimal(worth["free_margin"]) > cash

    @pytest.mark.parametrize(
        ("change", "line"),
        [
            ({"kyc_status": "rejected"}, "KYC is rejected: every order that opens is refused (KYC_REQUIRED)"),
            ({"account_status": "suspended"}, "The account is suspended: every order that opens is refused (ACCOUNT_"),
        ],
    )
    def test_what_refuses_beside_margin(self, desk: Desk, market: Market, change: dict[str, object], line: str) -> None:
        user = market.user()
        desk.act("change_account", user, **change)

        assert account_of(market, user)["verdict"][0].startswith(line)

    def test_a_halt_is_named_with_its_place(self, market: Market) -> None:
        user = market.user()
        market.execute("UPDATE platform_settings SET trading_state = 'reducing'")
        market.execute("UPDATE accounts SET trading_state = 'halted' WHERE id = %s", (user.account_id,))

        verdict = account_of(market, user)["verdict"]

        assert {"halted on the account", "reducing on the platform"} <= {
            part for line in verdict for part in ("halted on the account", "reducing on the platform") if part in line
        }


class TestQuotes:
    def test_those_concerned_are_shown_with_their_age(self, market: Market) -> None:
        # given a position in yen of an account in euros, and a stale pair that converts dollars
        user = market.user(currency="EUR")
        market.trade(user, symbol="USDJPY", quantity="0.1")
        market.quote("EURUSD", "1.1000", "1.1002", stale_time())

        found = account_of(market, user)

        quotes = {quote["symbol"]: quote for quote in found["quotes"]}
        assert {"USDJPY", "EURUSD"} <= set(quotes)
        assert (quotes["USDJPY"]["stale"], quotes["EURUSD"]["stale"]) == (False, True)
        assert quotes["EURUSD"]["age_ms"] > quotes["EURUSD"]["age_ms_max"]
        assert any(line.startswith("The quote of EURUSD is ") for line in found["verdict"])
        assert "market open: STALE" in text_of(market, user)

    def test_without_a_quote_what_is_not_known_is_said_so(self, market: Market) -> None:
        user = market.user()
        market.trade(user)
        market.trade(user, quantity="900")
        market.execute("DELETE FROM quotes WHERE symbol = 'EURUSD'")

        found = account_of(market, user)

        assert (found["margin"]["equity"], found["should_have_margin"]) == (None, None)
        assert "The quote of EURUSD is missing" in found["verdict"][0]
        assert found["verdict"][1] == "The equity is not known, because a quote is missing."
        assert found["verdict"][2].endswith("cannot be valued now, because a quote is missing.")
        assert "EURUSD: none" in text_of(market, user)


class TestCommand:
    def test_it_prints_all_of_it(self, market: Market, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        user = market.user(balance=2000)
        market.trade(user)
        market.trade(user, quantity="5")
        state = state_of(tmp_path, market.database)

        # an address is one whatever its case
        assert commands.main(["--state", str(state.folder), "diagnose", "--email", user.email.upper()]) == 0

        said = capsys.readouterr().out
        for part in (
            f"{user.email} (user {user.user_id}): KYC verified, active, gold",
            f"Account {user.account_id}: margin, USD, leverage 100, hedging, trading active",
            "max_positions 10",
            "long 1 EURUSD opened at 1.10026, now 1.10000: -26.00 USD",
            "margin 1100.26 USD = 1 lots x 100000 x 1.10026 USD / leverage 100, fixed at the opening\n",
            "margin level 179.41 %",
            "buy 5 EURUSD: INSUFFICIENT_MARGIN: This order needs",
            "EURUSD: 1.10000 / 1.10020 from test, ",
            "There should be margin: equity 1974.00",
        ):
            assert part in said, part

    def test_an_unknown_address_gets_those_that_are_known(
        self, market: Market, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        user = market.user(email="a-known-one@example.com")
        state = state_of(tmp_path, market.database)

        assert commands.main(["--state", str(state.folder), "diagnose", "--email", "nobody@example.com"]) == 2

        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("No user has the address nobody@example.com. Known: ")
        assert user.email in said.err

    def test_without_a_system_the_way_to_one_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert commands.main(["--state", str(tmp_path), "diagnose"]) == 1

        assert "make start" in capsys.readouterr().err

    def test_a_user_without_an_account(self, market: Market) -> None:
        market.execute("INSERT INTO profiles (email) VALUES ('new@example.com')")

        assert list(diagnosis_lines(diagnose(market, "new@example.com")))[-1] == "There is no account."

    def test_psql_prints_the_same_document(self, market: Market) -> None:
        user = market.user()
        query = Path(__file__).parents[2] / "database" / "queries" / "diagnose_margin.sql"

        done = subprocess.run(
            [
                *(postgres_programs() / "psql", market.database.url_for("compliance"), "-X", "-A", "-t"),
                *("-v", f"email={user.email}", "-f", query),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

        printed, called = json.loads(done.stdout), diagnose(market, user.email)
        assert printed | {"at": None} == called | {"at": None}

    @pytest.mark.parametrize("role", ["function_trader", "function_operator", "backup"])
    def test_only_compliance_may_ask(self, market: Market, role: str) -> None:
        with market.database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT diagnose_margin('gold@example.com')")
