"""Worked cases of others, through what books: margin, profit and loss, conversion, stop-out, the fill in a gap."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.kit import MigratedTemplate, User
from tests.kit.builders import make_position
from tests.kit.orders import Market
from tests.kit.reference import worked_case
from tests.kit.risk import make_profile, stop_out_step, watch_by
from tests.kit.ticks import Ticker
from trading.accounts import Worth
from trading.margin_levels import stop_out_due

ANY_LEVERAGE = 1_000_000


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    """A market of this module's own, in which no account and no instrument is what another test expects."""
    scratch = migrated.clone()
    try:
        with Market.opened(scratch) as market:
            market.execute("UPDATE instruments SET leverage = %s", (ANY_LEVERAGE,))
            market.execute("UPDATE instruments SET contract_size = 1 WHERE asset_class <> 'forex'")
            yield market
    finally:
        scratch.drop()


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    return shared


def margin(
    market: Market,
    symbol: str,
    lots: Decimal | str,
    price: Decimal | str,
    leverage: Decimal | str,
    currency: str = "USD",
) -> Decimal:
    """What order_margin books for `lots` opened at `price` on an account of that leverage and currency."""
    account = Jsonb({"kind": "margin", "currency": currency, "leverage": str(leverage)})
    ((booked,),) = market.execute(
        "SELECT order_margin(jsonb_populate_record(NULL::accounts, %s), t, %s, %s, NULL) "
        "FROM (SELECT DISTINCT ON (symbol) * FROM order_terms) AS t WHERE t.symbol = %s",
        (account, lots, price, symbol),
    )
    return booked


def gained(
    market: Market, side: str, units: Decimal, entry: Decimal, leave: Decimal, symbol: str = "EURUSD"
) -> Decimal:
    """What realized_pnl books in the quote currency of `symbol`, in account currency."""
    ((booked,),) = market.execute(
        "SELECT realized_pnl(jsonb_populate_record(NULL::accounts, %s), t, "
        "jsonb_populate_record(NULL::positions, %s), %s / t.contract_size, %s, NULL) "
        "FROM (SELECT DISTINCT ON (symbol) * FROM order_terms) AS t WHERE t.symbol = %s",
        (Jsonb({"currency": "USD"}), Jsonb({"side": side, "entry_price": str(entry)}), units, leave, symbol),
    )
    return booked


@pytest.fixture(autouse=True)
def somebody(market: Market) -> User:
    """The view of an order's terms has rows only where somebody could trade."""
    return market.user()


class TestMargin:
    def test_pound_dollar(self, market: Market) -> None:
        given, expected = worked_case("mt5-gbpusd-margin")
        for side in ("buy", "sell"):
            booked = margin(market, "GBPUSD", given["lots"], given[side], given["leverage"])
            assert booked == expected[f"{side}_margin"]

    def test_dollar_franc(self, market: Market) -> None:
        given, expected = worked_case("mt5-usdchf-margin")
        assert margin(market, "USDCHF", given["lots"], "0.9", given["leverage"]) == expected["margin"]

    def test_percentages(self, market: Market) -> None:
        _, expected = worked_case("mt5-pct-margin")
        assert margin(market, "GBPUSD", "1", "1.30", "20") == expected["gbpusd_1lot_1_30_5pct"]
        assert margin(market, "EURUSD", "0.1", "1.15", "50") == expected["eurusd_10k_1_15_2pct"]
        assert margin(market, "EURUSD", "0.1", "1.15", "400") == expected["eurusd_0_1lot_1_15_400"]

    def test_an_initial_rate_is_a_leverage(self, market: Market) -> None:
        given, expected = worked_case("nautilus-margin")
        lots = given["qty"] / 100_000
        for name, leverage in (("standard", 1), ("leveraged_10", 10), ("leveraged_50", 50)):
            booked = margin(market, "AUDUSD", lots, given["price"], leverage / given["margin_init"])
            assert booked == expected[name]

    def test_retail_caps(self, market: Market) -> None:
        given, expected = worked_case("esma-cfd")
        ((index,),) = market.execute(
            "SELECT symbol FROM instruments WHERE asset_class = 'index' AND quote_currency = 'GBP'"
        )
        assert margin(market, "AAPL", given["stock_notional"] / 100, "100", "5") == expected["stock_init"]
        assert margin(market, index, "1", given["uk100_px"], "20", "GBP") == expected["idx_init"]

    def test_a_pair_that_is_hedged(self, market: Market) -> None:
        # given an account in euros, and an instrument whose hedges need half
        given, expected = worked_case("hedged-50")
        user = market.user(currency="EUR", leverage=given["leverage"])
        market.execute(
            "UPDATE instruments SET hedged_margin_percent = %s WHERE symbol = 'EURUSD' AND contract_size = %s",
            (given["hedged_rate"] * 100, given["contract"]),
        )
        # when
        for side in ("buy", "sell"):
            market.trade(user, side=side, quantity=str(given[side]))
        # then
        assert Decimal(market.worth(user)["margin_used"]) == expected["margin"]
        assert [row["margin_used"] for row in market.rows("positions", user)] == [expected["margin"]] * 2


class TestProfitAndLoss:
    @pytest.mark.parametrize("case", ["oanda-usdcad", "oanda-eurusd"])
    def test_a_sell_that_falls(self, market: Market, case: str) -> None:
        given, expected = worked_case(case)
        assert gained(market, "short", given["units"], given["open"], given["close"]) == expected["pl"]

    def test_a_round_trip_less_its_commission(self, market: Market) -> None:
        given, expected = worked_case("nautilus-roundtrip")
        profit = gained(market, "long", given["qty"], given["open"], given["close"])
        assert profit - given["commission"] == expected["realized"]

    def test_a_short_of_bitcoin_to_the_cent(self, market: Market) -> None:
        given, expected = worked_case("short-btc")
        booked = gained(market, "short", given["qty"], given["open"], given["close"], "BTCUSD")
        assert booked == expected["gross"].quantize(Decimal("0.01"))

    def test_a_profit_in_a_third_currency(self, market: Market) -> None:
        given, expected = worked_case("oanda-crossccy-pl")
        market.quote("GBPUSD", str(given["quote_home"]), str(given["quote_home"]))
        profit = given["units"] * (given["close"] - given["open"])
        ((converted,),) = market.execute("SELECT convert_amount(%s, 'GBP', 'USD')", (profit,))
        assert converted == expected["pl"]


class TestStopOut:
    def level(self, market: Market, user: User) -> dict[str, Any]:
        names = ("unrealized_pnl", "equity", "margin_level", "stop_out_due")
        ((*values,),) = market.execute(
            f"SELECT {', '.join(names)} FROM margin_levels(ARRAY[%s]::uuid[], clock_timestamp())", (user.account_id,)
        )
        return dict(zip(names, values, strict=True))

    def test_the_account_of_the_smart_stop_out(self, market: Market) -> None:
        # given its account, whose venue closes at or below 50 percent
        given, expected = worked_case("ctrader-smart-stopout")
        user = market.user(balance=given["balance"], leverage=given["leverage"], risk={"stop_out_level": 50})
        market.quote("USDJPY", str(given["usdjpy"]), str(given["usdjpy"]))
        entry = str(given["usdjpy"] + given["loss_pips"] / 100)
        for lots in ("2", "0.5"):
            required = margin(market, "USDJPY", lots, entry, given["leverage"])
            make_position(market.owner, user, "USDJPY", "long", lots, entry, str(required))
        # when
        level = self.level(market, user)
        # then
        assert [round(level[name], 2) for name in ("unrealized_pnl", "equity", "margin_level")] == [
            expected["unrealized_pl"],
            expected["equity"],
            expected["level_pct"],
        ]
        assert level["stop_out_due"]
        # and where that venue closes as much as it takes, ours closes the larger position whole, if not told otherwise
        with market.database.connect("function_risk") as connection:
            answer = stop_out_step(connection, user)
        assert answer["state"] == "done"
        left = [row["quantity"] for row in market.rows("positions", user) if row["status"] == "open"]
        assert left == [Decimal("0.5")]

    def test_the_smart_stop_out_itself(self, market: Market) -> None:
        # given its account, by a profile that closes as much as it takes and no more, and fills without slippage
        given, expected = worked_case("ctrader-smart-stopout")
        make_profile(
            market,
            "smart",
            policy="smallest_partial_step",
            levels={"stop_out": ("stop_out", int(given["stop_out"]), 100)},
        )
        user = watch_by(market, market.user(balance=given["balance"], leverage=given["leverage"]), "smart")
        market.execute("UPDATE instruments SET slippage_base = 0, slippage_min = 0 WHERE symbol = 'USDJPY'")
        market.quote("USDJPY", str(given["usdjpy"]), str(given["usdjpy"]))
        entry = str(given["usdjpy"] + given["loss_pips"] / 100)
        for lots in ("2", "0.5"):
            required = margin(market, "USDJPY", lots, entry, given["leverage"])
            make_position(market.owner, user, "USDJPY", "long", lots, entry, str(required))
        # when
        with market.database.connect("function_risk") as connection:
            answer = stop_out_step(connection, user)
        # then
        assert (answer["quantity"] * 100_000, answer["realized_pnl"], answer["margin_level"]) == (
            expected["closed_units"],
            expected["realized"],
            expected["level_after_pct"],
        )
        held = market.rows("positions", user)
        assert sum(row["margin_used"] for row in held) == expected["margin_after"]

    @pytest.mark.parametrize(("cents", "due"), [("0.00", True), ("0.01", False)])
    def test_a_retail_clients_close_out_at_half_the_initial_margin(self, market: Market, cents: str, due: bool) -> None:
        # given shares held at a fifth of their value, and an equity of the maintenance margin, or a cent more
        given, expected = worked_case("esma-cfd")
        user = market.user(balance=expected["stock_maint"] + Decimal(cents), risk={"stop_out_level": 50})
        shares = str(given["stock_notional"] / 100)
        make_position(market.owner, user, "AAPL", "long", shares, "100", str(expected["stock_init"]))
        market.quote("AAPL", "100", "100")
        # when
        level = self.level(market, user)
        # then
        worth = Worth(expected["stock_maint"] + Decimal(cents), Decimal(0), expected["stock_init"])
        assert level["margin_level"] == worth.margin_level
        assert level["stop_out_due"] is stop_out_due("margin", Decimal(50), worth.margin_level) is due


class TestFinancing:
    def test_points(self, market: Market) -> None:
        # given lots whose point is worth a unit of the account's currency each
        given, expected = worked_case("swap-points")
        # when
        ((booked,),) = market.execute(
            "SELECT financing_amount(%(lots)s, 1, %(point_value)s, %(points)s, 0, 1, 'points', '{1,1}', 'USD')", given
        )
        # then
        assert booked == expected["swap"]


class TestGaps:
    @pytest.mark.parametrize("side", ["buy", "sell"])
    def test_a_limit_order_is_filled_at_the_open_beyond_it(self, market: Market, side: str) -> None:
        # given a limit on its side of the market
        given, expected = worked_case("lean-limit-gap")
        between = str((given["buy_limit"] + given["sell_limit"]) / 2)
        market.quote("AAPL", between, between)
        user = market.user()
        placed = market.place(user, symbol="AAPL", side=side, quantity="1", limit_price=str(given[f"{side}_limit"]))
        # when the market opens beyond it
        gap = str(given[f"{side}_gap_open"])
        with Ticker.opened(market) as ticker:
            states = ticker.tick("AAPL", gap, gap)
        # then
        (order,) = market.rows("orders", user)
        assert (placed["outcome"], states) == ("new", ["filled"])
        assert order["average_price"] == expected[f"{side}_fill"]
