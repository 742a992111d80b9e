"""Stop-outs by each policy, to the cent: the same account in three currencies, worked by hand in docs/risk.md."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.orders import Market
from tests.kit.risk import STANDARD_LEVELS, make_profile, opened, stop_out_step, watch_by

# What a step closes: symbol, lots, price, realized P&L and commission (EUR), and the margin level that it leaves.
type Closed = tuple[str, Decimal, Decimal, Decimal, Decimal, Decimal]

RUNS = {
    "largest_loss_first": [
        ("USDJPY", "1", "147.710", "-1427.84", "0", "19.75"),
        ("EURUSD", "1.5", "1.09094", "-1281.39", "0", "62.01"),
    ],
    "most_margin_first": [("EURUSD", "1.5", "1.09094", "-1281.39", "0", "26.62")],
    "fifo": [
        ("AAPL", "100", "140.00", "-916.59", "1.47", "17.86"),
        ("USDJPY", "1", "147.710", "-1427.84", "0", "28.63"),
    ],
    "smallest_partial_step": [
        ("USDJPY", "1", "147.710", "-1427.84", "0", "19.75"),
        ("EURUSD", "0.14", "1.09094", "-119.60", "0", "21.07"),
    ],
}
BALANCES = {
    "largest_loss_first": "1339.32",
    "most_margin_first": "2767.16",
    "fifo": "1702.65",
    "smallest_partial_step": "2501.11",
}


@pytest.fixture(scope="module")
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        for policy in RUNS:
            make_profile(market, policy, policy=policy)
        yield market


@pytest.fixture(scope="module")
def risk(market: Market) -> Iterator[psycopg.Connection[Any]]:
    with market.database.connect("function_risk") as connection:
        yield connection


def run_of(risk: psycopg.Connection[Any], user: User) -> list[dict[str, Any]]:
    """The answers of a stop-out, up to the step after which nothing is due."""
    answers = [stop_out_step(risk, user)]
    while answers[-1]["state"] == "more":
        answers.append(stop_out_step(risk, user))
    return answers


def closed_by(market: Market, user: User, answers: list[dict[str, Any]]) -> list[Closed]:
    orders = {str(row["id"]): row for row in market.rows("orders", user)}
    return [
        (
            (order := orders[answer["order_id"]])["symbol"],
            order["quantity"],
            order["average_price"],
            answer["realized_pnl"],
            order["commission"],
            answer["margin_level"],
        )
        for answer in answers
    ]


@pytest.mark.parametrize("policy", RUNS)
def test_a_run_by_its_policy(market: Market, risk: psycopg.Connection[Any], policy: str) -> None:
    # given a euro account with 100 shares, a lot of USDJPY and 1.5 lots of EURUSD, opened in this order
    market.prepare()
    user = watch_by(market, market.user(currency="EUR", balance=4050), policy)
    for symbol, quantity in (("AAPL", "100"), ("USDJPY", "1"), ("EURUSD", "1.5")):
        opened(market.trade(user, symbol=symbol, quantity=quantity))
    # when all three fall, to 431.60 EUR of equity on 3,090.62 of margin: 13.96 percent
    market.quote("AAPL", "140.00", "140.02")
    market.quote("USDJPY", "147.711", "147.721")
    market.quote("EURUSD", "1.0910", "1.0912")
    answers = run_of(risk, user)
    # then
    assert closed_by(market, user, answers) == [(symbol, *map(Decimal, figures)) for symbol, *figures in RUNS[policy]]
    assert [answer["state"] for answer in answers] == ["more"] * (len(answers) - 1) + ["done"]
    assert market.account(user)["balance"] == Decimal(BALANCES[policy])
    # and the audit says by which policy
    submitted = [row["details"] for row in market.rows("order_audit_log", user) if row["action"] == "SUBMITTED"]
    told = [details["stop_out_policy"] for details in submitted if details.get("component_name") == "stop_out"]
    assert told == [policy] * len(answers)


class TestSmallestPart:
    @pytest.fixture
    def user(self, market: Market) -> User:
        """Five lots of EURUSD, 5,501.30 of margin, which 6,000.26 carry: 1,000.26 or 18.18 percent at 1.09026."""
        market.prepare()
        user = watch_by(market, market.user(balance="6000.26"), "smallest_partial_step")
        opened(market.trade(user, quantity="5"))
        market.quote("EURUSD", "1.09026", "1.09046")
        return user

    def test_a_step_of_a_lot_less_is_not_enough(
        self, market: Market, risk: psycopg.Connection[Any], user: User
    ) -> None:
        # when
        answer = stop_out_step(risk, user)
        # then 0.69 lots, which cost 6 dollars a lot: 996.12 on 4,742.12 (0.68 would leave 996.18 on 4,753.12: 20.96)
        assert (answer["state"], answer["quantity"], answer["margin_level"]) == (
            "done",
            Decimal("0.69"),
            Decimal("21.01"),
        )
        (position,) = market.rows("positions", user)
        assert (position["quantity"], position["margin_used"]) == (Decimal("4.31"), Decimal("4742.12"))
        # and it is not closed again by the next tick
        market.quote("EURUSD", "1.09020", "1.09040")
        assert stop_out_step(risk, user)["state"] == "recovered"

    def test_without_equity_the_whole_goes(self, market: Market, risk: psycopg.Connection[Any], user: User) -> None:
        # given a gap beyond the balance
        market.quote("EURUSD", "1.0800", "1.0802")
        # when / then
        answer = stop_out_step(risk, user)
        assert (answer["state"], answer["quantity"], answer["margin_level"]) == ("done", 5, None)

    def test_no_part_is_smaller_than_an_order_may_be(
        self, market: Market, risk: psycopg.Connection[Any], user: User
    ) -> None:
        # given an instrument that is traded from a lot on
        market.execute("UPDATE instruments SET quantity_min = 1 WHERE symbol = 'EURUSD'")
        try:
            answer = stop_out_step(risk, user)
        finally:
            market.execute("UPDATE instruments SET quantity_min = 0.01 WHERE symbol = 'EURUSD'")
        # then
        assert (answer["state"], answer["quantity"]) == ("done", 1)


def test_a_profile_needs_a_known_policy_and_one_stop_out(market: Market) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        make_profile(market, "by_chance", policy="at_random")
    with pytest.raises(psycopg.errors.UniqueViolation):
        make_profile(market, "twice", levels=STANDARD_LEVELS | {"again": ("stop_out", 10, 105)})
