"""What is booked is computed in SQL; the layer's formulas say the same to the last digit, whatever the numbers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from tests.kit import MigratedTemplate
from trading.accounts import Account, AccountKind, round_money
from trading.conversion import NoRateError, Rates
from trading.financing import FinancingRate, RateBasis, RolledPosition, financing_amount
from trading.hedges import Sides
from trading.instruments import AssetClass, Instrument
from trading.margin import required_margin
from trading.positions import Position, PositionSide, margin_after_reducing, realized_pnl, unrealized_pnl
from trading.pricing import COMMISSION_FACTOR_BY_TIER, MarketPrice, commission, fill_price, slippage_draw
from trading.trailing import Trail, trailing_level

EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ASSET_CLASSES: tuple[AssetClass, ...] = ("forex", "stock", "index", "crypto")
SIDES: tuple[PositionSide, ...] = ("long", "short")
ANY_MARGIN = Decimal("1234.56")
KINDS: tuple[AccountKind, ...] = ("margin", "cash")
BASES: tuple[RateBasis, ...] = ("percent_360", "percent_365", "points")
ACCOUNT_CURRENCIES = ("USD", "EUR", "GBP")
CURRENCIES = ("USD", "EUR", "GBP", "JPY", "CHF")
PAIRS: tuple[str, ...] = ("EURUSD", "GBPUSD", "USDJPY", "USDCHF", "EURGBP", "EURJPY", "GBPJPY")
FAR = "2030-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def connection(migrated: MigratedTemplate) -> Iterator[psycopg.Connection[Any]]:
    """The owner's; every example is rolled back."""
    scratch = migrated.clone()
    try:
        with scratch.connect() as connection:
            yield connection
    finally:
        scratch.drop()


def decimals(least: str, most: str, places: int) -> st.SearchStrategy[Decimal]:
    return st.decimals(Decimal(least), Decimal(most), allow_nan=False, allow_infinity=False, places=places)


@st.composite
def market_prices(draw: st.DrawFn) -> MarketPrice:
    bid = draw(decimals("0.00001", "200000", 5))
    return MarketPrice(bid, bid + draw(decimals("0", "100", 5)), draw(decimals("0", "1", 10)))


@st.composite
def instruments(draw: st.DrawFn) -> Instrument:
    asset_class: AssetClass = draw(st.sampled_from(ASSET_CLASSES))
    base, quote = draw(st.lists(st.sampled_from(CURRENCIES), min_size=2, max_size=2, unique=True))
    slippage_min, commission_min = draw(decimals("0", "20", 4)), draw(decimals("0", "5", 2))
    return Instrument(
        symbol="ANY",
        asset_class=asset_class,
        base_currency=base,
        quote_currency=quote,
        contract_size=draw(st.sampled_from([Decimal(1), Decimal(100), Decimal(5000), Decimal(100_000)])),
        quantity_min=Decimal("0.001"),
        quantity_max=Decimal(1_000_000),
        quantity_step=Decimal("0.001"),
        tick_size=draw(st.sampled_from([Decimal(t) for t in ("0.00001", "0.001", "0.01", "0.25", "0.1", "1", "3")])),
        leverage=draw(decimals("1", "500", 0)),
        leverage_cap=draw(st.none() | decimals("1", "500", 0)),
        slippage_base=draw(decimals("0", "50", 4)),
        slippage_min=slippage_min,
        slippage_max=slippage_min + draw(decimals("0", "50", 4)),
        slippage_volatility_multiplier=draw(decimals("0.1", "5", 1)),
        slippage_step=draw(st.sampled_from([Decimal(t) for t in ("0.0001", "0.01", "0.1", "1")])),
        slippage_liquidity_base=draw(st.sampled_from([Decimal(t) for t in ("10", "5", "2", "0.5")])),
        slippage_after_hours_multiplier=draw(decimals("1", "5", 1)),
        slippage_variation=draw(decimals("0", "0.99", 2)),
        volatility_average=draw(decimals("0.0001", "0.1", 6)),
        daily_volume=draw(decimals("1", "100000000", 0)),
        commission_per_unit=draw(st.sampled_from([Decimal(0)]) | decimals("0", "1", 3)),
        commission_min=commission_min,
        commission_max=commission_min + draw(decimals("0", "100", 2)),
    )


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    kind: AccountKind = draw(st.sampled_from(KINDS))
    leverage = Decimal(1) if kind == "cash" else draw(decimals("1", "1000", 0))
    return Account(draw(st.sampled_from(ACCOUNT_CURRENCIES)), kind, leverage)


@st.composite
def some_rates(draw: st.DrawFn) -> Rates:
    return Rates({symbol: draw(market_prices()) for symbol in draw(st.sets(st.sampled_from(PAIRS)))})


quantities = decimals("0.001", "100000", 3)
amounts = decimals("-10000000", "10000000", 4)


@dataclass(frozen=True)
class Sql:
    """The formulas of the database, in a transaction that holds the quotes of one example."""

    connection: psycopg.Connection[Any]

    def quote(self, given: Rates) -> None:
        self.connection.execute("DELETE FROM quotes")
        for symbol, price in given.quotes.items():
            self.connection.execute(
                "INSERT INTO quotes VALUES (%s, %s, %s, now(), now(), 'test', 0)", (symbol, price.bid, price.ask)
            )

    def value(self, expression: str, **parameters: object) -> Any:
        row = self.connection.execute(f"SELECT {expression}".encode(), parameters).fetchone()
        assert row is not None
        return row[0]


@pytest.fixture
def database(connection: psycopg.Connection[Any]) -> Iterator[Sql]:
    with connection.transaction(force_rollback=True):
        yield Sql(connection)


TERMS = "jsonb_populate_record(NULL::order_terms, %(terms)s)"
ACCOUNT = "jsonb_populate_record(NULL::accounts, %(account)s)"
POSITION = "jsonb_populate_record(NULL::positions, %(position)s)"


def row(of: Instrument | Account | Position | Mapping[str, Any], **more: object) -> Jsonb:
    """A row as jsonb, numbers as text so that no digit is lost."""
    facts = dict(of) if isinstance(of, Mapping) else {member.name: getattr(of, member.name) for member in fields(of)}
    return Jsonb({name: str(value) for name, value in (facts | more).items() if value is not None})


@EXAMPLES
@given(seed=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50))
def test_the_draw_of_a_seed(database: Sql, seed: str) -> None:
    assert database.value("slippage_draw(%(seed)s)", seed=seed) == slippage_draw(seed)


@EXAMPLES
@given(
    instrument=instruments(),
    market=market_prices(),
    side=st.sampled_from(["buy", "sell"]),
    quantity=quantities,
    seed=st.uuids().map(str),
    after_hours=st.booleans(),
)
def test_price_and_slippage(
    database: Sql,
    instrument: Instrument,
    market: MarketPrice,
    side: Any,
    quantity: Decimal,
    seed: str,
    after_hours: bool,
) -> None:
    filled = fill_price(instrument, market, side, quantity, seed=seed, after_hours=after_hours)

    price, slippage = database.connection.execute(
        f"SELECT f.price, f.slippage FROM price_order({TERMS}, %(side)s, %(quantity)s, %(seed)s, %(after_hours)s) AS f"
        .encode(),
        {
            "terms": row(instrument, bid=market.bid, ask=market.ask, volatility=market.volatility),
            "side": side,
            "quantity": quantity,
            "seed": seed,
            "after_hours": after_hours,
        },
    ).fetchall()[0]  # fmt: skip
    assert (price, slippage) == (filled.price, filled.slippage)
    assert price % instrument.tick_size == 0
    assert price > 0


@EXAMPLES
@given(instrument=instruments(), quantity=quantities, tier=st.sampled_from(sorted(COMMISSION_FACTOR_BY_TIER)))
def test_commission(database: Sql, instrument: Instrument, quantity: Decimal, tier: str) -> None:
    booked = database.value(
        f"order_commission({TERMS}, %(quantity)s)", terms=row(instrument, account_tier=tier), quantity=quantity
    )

    assert booked == commission(instrument, quantity, tier)


@EXAMPLES
@given(
    given_rates=some_rates(),
    amount=amounts,
    source=st.sampled_from(CURRENCIES),
    target=st.sampled_from(CURRENCIES),
)
def test_conversion(database: Sql, given_rates: Rates, amount: Decimal, source: str, target: str) -> None:
    database.quote(given_rates)
    names = {"source": source, "target": target, "amount": amount}
    try:
        converted = given_rates.convert(amount, source, target)
    except NoRateError:
        assert database.value("convert_amount(%(amount)s, %(source)s, %(target)s)", **names) is None
        return

    in_sql = database.value("convert_amount(%(amount)s, %(source)s, %(target)s)", **names)
    for currency in ACCOUNT_CURRENCIES:
        assert round_money(in_sql, currency) == round_money(converted, currency)


@EXAMPLES
@given(
    account=accounts(), instrument=instruments(), quantity=quantities, price=market_prices(), given_rates=some_rates()
)
def test_margin(
    database: Sql, account: Account, instrument: Instrument, quantity: Decimal, price: MarketPrice, given_rates: Rates
) -> None:
    database.quote(given_rates)
    parameters = {"account": row(account), "terms": row(instrument), "quantity": quantity, "price": price.ask}
    margin = f"order_margin({ACCOUNT}, {TERMS}, %(quantity)s, %(price)s, NULL)"
    try:
        required = required_margin(account, instrument, quantity, price.ask, given_rates)
    except NoRateError:
        assert database.value(margin, **parameters) is None
        return

    assert database.value(margin, **parameters) == required


@EXAMPLES
@given(
    account=accounts(),
    instrument=instruments(),
    position=st.builds(
        Position, st.sampled_from(SIDES), quantities, decimals("0.00001", "200000", 5), st.just(ANY_MARGIN)
    ),
    share=st.fractions(0, 1, max_denominator=1000),
    market=market_prices(),
    given_rates=some_rates(),
)
def test_profit_and_loss(
    database: Sql,
    account: Account,
    instrument: Instrument,
    position: Position,
    share: Fraction,
    market: MarketPrice,
    given_rates: Rates,
) -> None:
    database.quote(given_rates)
    held = position.quantity
    closed = min(held, max(Decimal("0.001"), (held * share.numerator / share.denominator).quantize(Decimal("0.001"))))
    parameters = {
        "account": row(account),
        "terms": row(instrument, bid=market.bid, ask=market.ask),
        "position": row(position),
        "closed": closed,
        "price": market.ask,
        "currency": account.currency,
    }
    realized = f"realized_pnl({ACCOUNT}, {TERMS}, {POSITION}, %(closed)s, %(price)s, NULL)"
    unrealized = f"position_pnl({POSITION}, {TERMS}, %(currency)s)"
    try:
        expected = realized_pnl(position, closed, market.ask, instrument, account.currency, given_rates)
        standing = unrealized_pnl(position, instrument, market, account.currency, given_rates)
    except NoRateError:
        assert database.value(realized, **parameters) is None
        return

    assert database.value(realized, **parameters) == expected
    assert database.value(unrealized, **parameters) == round_money(standing, account.currency)


@EXAMPLES
@given(
    instrument=instruments(),
    position=st.builds(RolledPosition, st.sampled_from(SIDES), quantities),
    market=market_prices(),
    rate=st.builds(
        FinancingRate,
        decimals("-30", "30", 4),
        decimals("-30", "30", 4),
        decimals("0", "5", 4),
        st.sampled_from(BASES),
    ),
    days=st.integers(1, 7),
    currency=st.sampled_from(ACCOUNT_CURRENCIES),
    given_rates=some_rates(),
)
def test_financing(
    database: Sql,
    instrument: Instrument,
    position: RolledPosition,
    market: MarketPrice,
    rate: FinancingRate,
    days: int,
    currency: str,
    given_rates: Rates,
) -> None:
    database.quote(given_rates)
    parameters = {
        "units": position.quantity * instrument.contract_size,
        "price": market.bid if position.side == "long" else market.ask,
        "tick": instrument.tick_size,
        "rate": rate.long_rate if position.side == "long" else rate.short_rate,
        "markup": rate.markup,
        "days": days,
        "basis": rate.basis,
        "quote": instrument.quote_currency,
        "currency": currency,
    }
    booked = (
        "financing_amount(%(units)s, %(price)s, %(tick)s, %(rate)s, %(markup)s, %(days)s, %(basis)s, "
        "fraction_before(%(quote)s, %(currency)s, %(rate)s > %(markup)s, now()), %(currency)s)"
    )
    try:
        expected = financing_amount(position, instrument, market, rate, days, currency, given_rates)
    except NoRateError:
        assert database.value(booked, **parameters) is None
        return

    assert database.value(booked, **parameters) == expected
    # who earns is never charged, and the other way round
    assert expected == 0 or (expected > 0) == (rate.of(position.side) > 0)


@EXAMPLES
@given(
    margin=decimals("0", "1000000", 2),
    held=quantities,
    closed=quantities,
    currency=st.sampled_from(ACCOUNT_CURRENCIES),
)
def test_margin_that_stays_when_a_position_is_reduced(
    database: Sql, margin: Decimal, held: Decimal, closed: Decimal, currency: str
) -> None:
    closed = min(held, closed)
    position = Position("long", held, Decimal(1), margin)
    booked = database.value(
        "remaining_margin(%(margin)s, %(held)s, %(left)s, %(currency)s)",
        margin=margin,
        held=held,
        left=held - closed,
        currency=currency,
    )

    assert booked == margin_after_reducing(position, closed, currency)


@EXAMPLES
@given(amount=decimals("-100000000", "100000000", 5), currency=st.sampled_from([*CURRENCIES, "HUF", "KRW"]))
def test_money_is_rounded_half_up(database: Sql, amount: Decimal, currency: str) -> None:
    in_sql = database.value("round_money(%(amount)s, %(currency)s)", amount=amount, currency=currency)

    assert str(in_sql) == str(round_money(amount, currency))


def test_the_formulas_hold_for_every_instrument_that_is_traded(connection: psycopg.Connection[Any]) -> None:
    """Nothing drawn: the real rows, a buy and a sell of the smallest and the largest order."""
    with connection.cursor(row_factory=dict_row) as cursor:
        traded = cursor.execute("SELECT * FROM instruments WHERE is_active").fetchall()
    assert len(traded) >= 60

    for facts in traded:
        instrument = Instrument.from_row(facts)
        bid = facts["reference_price"] - facts["reference_spread"] / 2
        market = MarketPrice(bid, bid + facts["reference_spread"], facts["volatility_average"])
        terms = row(facts, bid=market.bid, ask=market.ask, volatility=market.volatility, account_tier="gold")
        for quantity in (instrument.quantity_min, instrument.quantity_max):
            for side in ("buy", "sell"):
                price, slippage, charged = connection.execute(
                    f"SELECT f.price, f.slippage, order_commission(t, %(quantity)s) FROM {TERMS} AS t, "
                    "price_order(t, %(side)s, %(quantity)s, 'a seed', false) AS f".encode(),
                    {"terms": terms, "side": side, "quantity": quantity},
                ).fetchall()[0]
                filled = fill_price(instrument, market, side, quantity, seed="a seed", after_hours=False)
                assert (price, slippage) == (filled.price, filled.slippage), instrument.symbol
                assert charged == commission(instrument, quantity, "gold"), instrument.symbol


@EXAMPLES
@given(
    side=st.sampled_from(["buy", "sell"]),
    mark=decimals("0.00001", "200000", 7),
    amount=decimals("0.00001", "1000", 5),
    percent=st.none() | decimals("0.000001", "99.999999", 6),
    tick=st.sampled_from([Decimal(tick) for tick in ("0.00001", "0.001", "0.01", "0.25", "1")]),
)
def test_the_level_of_a_trailing_stop(
    database: Sql, side: Any, mark: Decimal, amount: Decimal, percent: Decimal | None, tick: Decimal
) -> None:
    level = trailing_level(side, mark, Trail(None if percent else amount, percent), tick)

    assert level == database.value(
        "level_of_mark(%(watch)s, %(mark)s, %(amount)s, %(percent)s, %(tick)s)",
        watch="ask_rises" if side == "buy" else "bid_falls",
        mark=mark,
        amount=None if percent else amount,
        percent=percent,
        tick=tick,
    )
    # on the tick, and never nearer to the mark than the trail
    distance = amount if percent is None else mark * percent / 100
    assert level % tick == 0
    assert distance <= abs(mark - level) < distance + tick


sides_held = st.builds(
    Sides, decimals("0", "100", 2), *[st.sampled_from([Decimal(0)]) | decimals("0.001", "100000", 3)] * 4
)


@EXAMPLES
@given(held=sides_held, currency=st.sampled_from(CURRENCIES))
def test_the_credit_of_a_hedge(connection: psycopg.Connection[Any], held: Sides, currency: str) -> None:
    # given sides whose margin is nothing where they are
    held = replace(
        held,
        long_margin=round_money(held.long_margin, currency) if held.long_quantity else Decimal(0),
        short_margin=round_money(held.short_margin, currency) if held.short_quantity else Decimal(0),
    )
    row = connection.execute(
        "SELECT hedged_margin_credit(%s, %s, %s, %s, %s, %s)",
        (*(getattr(held, field.name) for field in fields(held)), currency),
    ).fetchone()
    credit = held.credit(currency)
    assert row == (credit,)
    # and no margin becomes less than nothing
    assert 0 <= credit <= held.long_margin + held.short_margin
