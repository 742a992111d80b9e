"""What a market order fills at and what it costs, by hand."""

from decimal import Decimal
from hashlib import sha256

import pytest

from tests.kit.instruments import AAPL, EURUSD, instrument, price
from trading.instruments import Instrument
from trading.orders import Side
from trading.pricing import FillPrice, MarketPrice, commission, depth, fill_price, round_to_tick, slippage_draw

QUOTE = price("1.1000", "1.1002")


def filled(
    of: Instrument = EURUSD,
    market: MarketPrice = QUOTE,
    side: Side = "buy",
    quantity: str = "1",
    seed: str = "",
    *,
    after_hours: bool = False,
) -> FillPrice:
    return fill_price(of, market, side, Decimal(quantity), seed=seed, after_hours=after_hours)


class TestSlippage:
    def test_base_times_volatility_in_pips(self) -> None:
        # 0.2 x 3 (average volatility) = 0.6 pips of 0.0001
        assert filled() == FillPrice(Decimal("1.10026"), Decimal("0.00006"))
        assert filled(side="sell") == FillPrice(Decimal("1.09994"), Decimal("0.00006"))

    def test_it_is_added_in_price_steps_never_as_a_fraction(self) -> None:
        assert filled(of=instrument(slippage_base="0.6", slippage_volatility_multiplier="1")).price < Decimal("1.1004")

    @pytest.mark.parametrize(
        ("volatility", "pips"),
        [
            ("0", "0.2"),  # the factor is at least 1
            ("0.0013", "0.2"),  # 0.975
            ("0.002", "0.3"),  # 1.5
            ("0.008", "1.2"),  # 6
            ("0.04", "1.2"),  # 30, at most twice the maximum of 0.6
        ],
    )
    def test_volatility(self, volatility: str, pips: str) -> None:
        got = filled(market=price("1.1000", "1.1002", volatility), of=instrument(tick_size="0.000001"))

        assert got.slippage == Decimal(pips) * Decimal("0.0001")

    @pytest.mark.parametrize(
        ("quantity", "pips"),
        [
            ("250000", "0.6"),  # 10 % of the daily volume: (10 / 10) ^ 1.5 = 1
            ("1000000", "4.8"),  # 40 %: 4 ^ 1.5 = 8
        ],
    )
    def test_size(self, quantity: str, pips: str) -> None:
        assert filled(of=instrument(slippage_max="100"), quantity=quantity).slippage == Decimal(pips) / 10_000

    def test_after_hours(self) -> None:
        assert filled(of=instrument(slippage_max="100"), after_hours=True).slippage == Decimal("0.00012")

    def test_at_least_the_minimum(self) -> None:
        # 0.05 x 2 = 0.1 pips of 0.01, at least 2
        assert filled(of=instrument(AAPL, slippage_min="2", slippage_max="3"), market=price("150")).slippage == Decimal(
            "0.02"
        )

    def test_less_than_half_a_tick_is_nothing(self) -> None:
        assert filled(of=AAPL, market=price("149.98", "150.00", "0.012")) == FillPrice(Decimal("150.00"), Decimal(0))

    def test_a_price_stays_above_zero(self) -> None:
        coarse = instrument(slippage_min="100", slippage_max="100", slippage_step="1", tick_size="0.01")

        assert filled(of=coarse, market=price("0.05"), side="sell").price == Decimal("0.01")

    def test_the_random_part_follows_the_seed_alone(self) -> None:
        wide = instrument(slippage_base="100", slippage_max="1000", slippage_variation="0.5")

        prices = {seed: filled(of=wide, seed=seed).slippage for seed in ("a", "b", "c")}

        assert len(set(prices.values())) == 3
        assert filled(of=wide, seed="b").slippage == prices["b"]
        assert all(Decimal("0.015") <= slippage <= Decimal("0.045") for slippage in prices.values())

    @pytest.mark.parametrize(
        ("seed", "slippage"),
        [
            ("", "0.04168"),  # 300 pips x (1 + 0.5 x (2 x 0.889416 - 1)) = 416.8248
            (None, "0.03"),  # as if the middle had been drawn
        ],
    )
    def test_the_draw_lies_around_what_is_expected(self, seed: str | None, slippage: str) -> None:
        wide = instrument(slippage_base="100", slippage_max="1000", slippage_variation="0.5")

        got = fill_price(wide, QUOTE, "buy", Decimal(1), seed=seed, after_hours=False)

        assert got.slippage == Decimal(slippage)


class TestDraw:
    def test_it_is_the_first_32_bits_of_the_hash(self) -> None:
        # given that the SHA-256 of nothing begins with e3b0c442
        assert sha256(b"").hexdigest().startswith("e3b0c442")

        assert slippage_draw("") == Decimal("0.889416")  # 3,820,012,610 / 2^32 = 0.88941564

    def test_letters_beyond_ascii(self) -> None:
        assert Decimal(0) <= slippage_draw("é€") <= Decimal(1)


class TestCommission:
    @pytest.mark.parametrize(
        ("tier", "quantity", "charged"),
        [
            ("bronze", "100", "2"),
            ("silver", "100", "1.8"),
            ("gold", "100", "1.6"),
            ("platinum", "100", "1.4"),
            ("bronze", "1", "1"),  # at least
            ("platinum", "60", "1"),  # 1.2 x 0.7 = 0.84: the bounds hold after the discount
            ("bronze", "100000", "50"),  # at most
        ],
    )
    def test_per_unit_and_tier_within_bounds(self, tier: str, quantity: str, charged: str) -> None:
        assert commission(AAPL, Decimal(quantity), tier) == Decimal(charged)

    def test_none_where_none_is_charged(self) -> None:
        assert commission(instrument(commission_min="5", commission_max="9"), Decimal(1), "bronze") == 0


@pytest.mark.parametrize(
    ("daily_volume", "lots"),
    [
        ("2592000", "30"),
        ("2500000", "28.93"),  # 28.935 a second, down to the step
        ("864", "0.01"),
        ("800", "0.01"),  # less than a step, but at least the smallest quantity
    ],
)
def test_a_quote_gives_what_is_traded_in_a_second(daily_volume: str, lots: str) -> None:
    assert depth(instrument(daily_volume=daily_volume)) == Decimal(lots)


@pytest.mark.parametrize(
    ("given", "tick", "rounded"),
    [("1.000005", "0.00001", "1.00001"), ("1.0000049", "0.00001", "1"), ("10.125", "0.25", "10.25"), ("7", "3", "6")],
)
def test_rounding_to_the_tick_is_half_up(given: str, tick: str, rounded: str) -> None:
    assert round_to_tick(Decimal(given), Decimal(tick)) == Decimal(rounded)
