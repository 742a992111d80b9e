"""What positions gain and lose."""

from decimal import Decimal

import pytest

from tests.kit.instruments import EURUSD, forex, instrument, price, rates
from tests.kit.reference import worked_case
from trading.accounts import Worth, round_money
from trading.margin_levels import stop_out_due
from trading.positions import Position, PositionSide, margin_after_reducing, mark, pnl, realized_pnl, unrealized_pnl


def position(side: PositionSide = "long", quantity: str = "1", entry: str = "1.1", margin: str = "1100") -> Position:
    return Position(side, Decimal(quantity), Decimal(entry), Decimal(margin))


def gained(side: PositionSide, units: Decimal, entry: Decimal, leave: Decimal) -> Decimal:
    return pnl(side, units, entry, leave, Decimal(1))


def test_longs_are_marked_at_bid_and_shorts_at_ask() -> None:
    assert mark("long", price("1.1", "1.2")) == Decimal("1.1")
    assert mark("short", price("1.1", "1.2")) == Decimal("1.2")


@pytest.mark.parametrize(
    ("side", "entry", "leave", "profit"),
    [("long", "1.1", "1.2", "10000"), ("long", "1.2", "1.1", "-10000"), ("short", "1.2", "1.1", "10000")],
)
def test_profit(side: PositionSide, entry: str, leave: str, profit: str) -> None:
    assert pnl(side, Decimal(1), Decimal(entry), Decimal(leave), Decimal(100_000)) == Decimal(profit)


def test_a_loss_in_yen_is_changed_at_the_bid_and_a_profit_at_the_ask() -> None:
    yen = forex("USDJPY")
    quotes = rates(USDJPY=("150.000", "150.010"))

    lost = realized_pnl(position(entry="150.011"), Decimal("0.5"), Decimal("150.000"), yen, "USD", quotes)
    won = realized_pnl(position(entry="149.000"), Decimal("0.5"), Decimal("150.000"), yen, "USD", quotes)

    assert lost == Decimal("-3.67")  # -550 / 150.000
    assert won == Decimal("333.31")  # 50,000 / 150.010


def test_unrealized_is_not_rounded() -> None:
    standing = unrealized_pnl(
        position(entry="1.10026"), EURUSD, price("1.1000", "1.1002"), "EUR", rates(EURUSD=("1.1000", "1.1002"))
    )

    assert standing != round_money(standing, "EUR")
    assert round_money(standing, "EUR") == Decimal("-23.64")


@pytest.mark.parametrize(
    ("closed", "left"), [("0.1", "220.05"), ("0.3", "0.00"), ("0.15", "165.04")]
)  # 330.08 x 2/3 = 220.053, 330.08 / 2
def test_margin_is_released_in_proportion(closed: str, left: str) -> None:
    assert margin_after_reducing(position(quantity="0.3", margin="330.08"), Decimal(closed), "USD") == Decimal(left)


class TestWorkedCases:
    @pytest.mark.parametrize("case", ["oanda-usdcad", "oanda-eurusd"])
    def test_a_sell_that_falls(self, case: str) -> None:
        given, expected = worked_case(case)

        assert gained("short", given["units"], given["open"], given["close"]) == expected["pl"]

    def test_a_round_trip_less_its_commission(self) -> None:
        given, expected = worked_case("nautilus-roundtrip")

        profit = gained("long", given["qty"], given["open"], given["close"])

        assert profit - given["commission"] == expected["realized"]

    def test_a_short_of_bitcoin(self) -> None:
        given, expected = worked_case("short-btc")

        assert gained("short", given["qty"], given["open"], given["close"]) == expected["gross"]

    def test_an_account_before_its_stop_out(self) -> None:
        given, expected = worked_case("ctrader-smart-stopout")
        entry = given["usdjpy"] + given["loss_pips"] / 100
        units = instrument(forex("USDJPY"), contract_size="1")
        held = Position("long", Decimal(250_000), entry, Decimal(500))

        lost = unrealized_pnl(held, units, price(str(given["usdjpy"])), "USD", rates(USDJPY=str(given["usdjpy"])))
        worth = Worth(given["balance"], lost, held.margin_used)

        assert round_money(lost, "USD") == expected["unrealized_pl"]
        assert round_money(worth.equity, "USD") == expected["equity"]
        assert worth.margin_level is not None
        assert round_money(worth.margin_level, "USD") == expected["level_pct"]
        assert stop_out_due("margin", given["stop_out"], worth.margin_level)
