"""What a preview says is what is booked a moment later, to the last digit, whatever is traded by whom."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit import MigratedTemplate, User
from tests.kit.operators import act, operator_request
from tests.kit.orders import Market, keyed_request, send
from trading.accounts import round_money
from trading.closing_preview import preview_close
from trading.edge.preview_dialects import closes_body, preview_body
from trading.instruments import Instrument
from trading.order_entry import OrderEntry
from trading.preview import preview_order
from trading.store.database import Database
from trading.store.instruments import InstrumentCatalogue
from trading.store.reading import ReadingStore

EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Of every class, with quote currencies that no account has, and pairs without the account's currency.
SYMBOLS = (
    "EURUSD",
    "USDJPY",
    "EURGBP",
    "GBPJPY",
    "USDCHF",
    "AUDCAD",
    "AAPL",
    "US500",
    "JPN225",
    "SWI20",
    "XAUUSD",
    "BTCUSD",
)
CURRENCIES = ("USD", "EUR", "GBP")
TIERS = ("bronze", "silver", "gold", "platinum")
UNBOUND: dict[str, object] = {"max_position_size": None, "max_positions": None, "daily_trade_limit": None}


class Books:
    """A market with a quote of every instrument, and the previews of its function's role."""

    # No dataclass: Hypothesis would write out every instrument with each example.
    def __init__(self, market: Market, database: Database) -> None:
        self.market = market
        self._store = ReadingStore(database)
        self._catalogue = InstrumentCatalogue(database)
        self.instruments = self._catalogue.all()

    def preview(self, user: User, **fields: object) -> dict[str, Any]:
        given_fields = {"idempotency_key": str(uuid.uuid4()), "order_type": "market"} | fields
        order = OrderEntry.model_validate(given_fields)
        found = preview_order(order, user.user_id, instruments=self._catalogue, read_facts=self._store.preview_facts)
        return preview_body(order, found)

    def preview_close(self, how: str, user: User, **asked: object) -> dict[str, Any]:
        """`how` is the reading function that the facts come from."""
        return closes_body(preview_close(getattr(self._store, how)(user.user_id, asked)))

    def let_hedges_need(self, percent: int) -> None:
        """Of the margin of both sides."""
        self.market.execute("UPDATE instruments SET hedged_margin_percent = %s", (percent,))

    def move(self, symbol: str, percent: Decimal, volatility: Decimal) -> None:
        """The mid a little elsewhere, on the tick, and the market more or less restless."""
        self.market.execute(
            "UPDATE quotes AS q SET "
            "bid = round_to_tick(i.reference_price * (1 + %(p)s / 100), i.tick_size), "
            "ask = round_to_tick(i.reference_price * (1 + %(p)s / 100), i.tick_size) "
            "+ greatest(i.tick_size, round_to_tick(i.reference_spread, i.tick_size)), "
            "volatility = i.volatility_average * %(v)s, quoted_at = now(), received_at = now() "
            "FROM instruments AS i WHERE i.symbol = q.symbol AND q.symbol = %(symbol)s",
            {"p": percent, "v": volatility, "symbol": symbol},
        )


@pytest.fixture(scope="module")
def books(migrated: MigratedTemplate) -> Iterator[Books]:
    with Market.checked(migrated) as market:
        market.execute("UPDATE instruments SET quote_age_ms_max = 3600000")
        market.execute(
            "INSERT INTO quotes SELECT symbol, reference_price, reference_price + tick_size, now(), now(), 'test', "
            "volatility_average FROM instruments ON CONFLICT (symbol) DO NOTHING"
        )
        database = Database(lambda: market.database.url_for("function_trader"))
        yield Books(market, database)
        database.close()


@dataclass(frozen=True)
class Given:
    """One trader and one order of theirs in one market."""

    symbol: str
    side: str
    lots: Decimal
    currency: str
    tier: str
    leverage: int
    percent: Decimal
    volatility: Decimal

    def quantity(self, instrument: Instrument) -> Decimal:
        """A share of a quantity of moderate size, on the instrument's steps."""
        most = min(instrument.quantity_max, instrument.quantity_min * 3000)
        steps = int(most * self.lots / instrument.quantity_step)
        return max(instrument.quantity_min, steps * instrument.quantity_step)


cases = st.builds(
    Given,
    symbol=st.sampled_from(SYMBOLS),
    side=st.sampled_from(["buy", "sell"]),
    lots=st.decimals("0", "1", places=4),
    currency=st.sampled_from(CURRENCIES),
    tier=st.sampled_from(TIERS),
    leverage=st.integers(1, 500),
    percent=st.decimals("-20", "20", places=2),
    volatility=st.decimals("0.1", "5", places=1),
)


hedged_percents = st.sampled_from([0, 25, 50, 75, 100])


def booked(answer: dict[str, Any], instrument: Instrument, currency: str) -> dict[str, str]:
    """The figures of a stored answer in the forms of a preview."""
    price = Decimal(answer["execution_price"]).quantize(instrument.tick_size)
    figures = {
        name: f"{round_money(Decimal(answer[name]), currency):f}"
        for name in ("commission", "margin", "total_cost", "realized_pnl")
    }
    return figures | {"price": f"{price:f}", "slippage": f"{Decimal(answer['slippage']):f}"}


def figures_of(preview: dict[str, Any]) -> dict[str, str]:
    names = ("price", "slippage", "commission", "margin", "total_cost", "realized_pnl")
    return {name: preview[name] for name in names}


@EXAMPLES
@given(case=cases)
def test_a_new_position(books: Books, case: Given) -> None:
    # given a trader with money enough
    instrument = books.instruments[case.symbol]
    user = books.market.user(
        currency=case.currency, tier=case.tier, leverage=case.leverage, balance=10_000_000_000, risk=UNBOUND
    )
    books.move(case.symbol, case.percent, case.volatility)
    order = {"symbol": case.symbol, "side": case.side, "quantity": str(case.quantity(instrument))}
    # when the order is previewed, then executed
    preview = books.preview(user, **order)
    answer = books.market.trade(user, **order).answer
    # then each figure is the one that was told
    assert (preview["accepted"], answer["outcome"]) == (True, "filled")
    assert figures_of(preview) == booked(answer, instrument, case.currency)
    # and so is the account afterwards
    worth = books.market.worth(user)
    assert preview["free_margin_after"] == worth["free_margin"]
    assert preview["margin_level_after"] == worth["margin_level"]


@EXAMPLES
@given(case=cases, share=st.decimals("0", "1", places=2), moved=st.decimals("-5", "5", places=2))
def test_a_position_that_is_reduced(books: Books, case: Given, share: Decimal, moved: Decimal) -> None:
    # given a netting trader who holds a position, and a market that moved
    instrument = books.instruments[case.symbol]
    user = books.market.user(
        currency=case.currency, tier=case.tier, position_mode="netting", balance=10_000_000_000, risk=UNBOUND
    )
    books.move(case.symbol, case.percent, case.volatility)
    held = case.quantity(instrument)
    opened = books.market.trade(user, symbol=case.symbol, side=case.side, quantity=str(held))
    assert opened["outcome"] == "filled"
    books.move(case.symbol, case.percent + moved, case.volatility)
    closed = int(held * share / instrument.quantity_step) * instrument.quantity_step
    closed = max(instrument.quantity_min, closed)
    other = "sell" if case.side == "buy" else "buy"
    order = {"symbol": case.symbol, "side": other, "quantity": str(closed)}
    # when its reduction is previewed, then executed
    before = books.market.worth(user)
    preview = books.preview(user, **order)
    answer = books.market.trade(user, **order).answer
    # then each figure is the one that was told
    assert preview["reduces_position"] is True
    assert figures_of(preview) == booked(answer, instrument, case.currency)
    worth = books.market.worth(user)
    assert Decimal(preview["margin_released"]) == Decimal(before["margin_used"]) - Decimal(worth["margin_used"])
    assert preview["free_margin_before"] == before["free_margin"]
    assert preview["free_margin_after"] == worth["free_margin"]
    assert preview["margin_level_after"] == worth["margin_level"]


@EXAMPLES
@given(
    case=cases,
    share=st.decimals("0", "3", places=2),
    moved=st.decimals("-5", "5", places=2),
    spare=st.decimals("-0.5", "2", places=2),
    reduce_only=st.booleans(),
)
def test_a_position_that_is_turned_round_or_cut(
    books: Books, case: Given, share: Decimal, moved: Decimal, spare: Decimal, reduce_only: bool
) -> None:
    # given a netting trader who holds a position, a market that moved, and money for about as much again
    instrument = books.instruments[case.symbol]
    user = books.market.user(
        currency=case.currency, tier=case.tier, position_mode="netting", balance=10_000_000_000, risk=UNBOUND
    )
    books.move(case.symbol, case.percent, case.volatility)
    held = max(
        instrument.quantity_min, case.quantity(instrument) / 4 // instrument.quantity_step * instrument.quantity_step
    )
    opened = books.market.trade(user, symbol=case.symbol, side=case.side, quantity=str(held))
    assert opened["outcome"] == "filled"
    books.move(case.symbol, case.percent + moved, case.volatility)
    keep_margin(books.market, user, spare)
    more = int(held * share / instrument.quantity_step) * instrument.quantity_step
    asked = held + max(instrument.quantity_min, more)
    order = {
        "symbol": case.symbol,
        "side": "sell" if case.side == "buy" else "buy",
        "quantity": str(asked),
        "reduce_only": reduce_only,
    }
    # when an order for more than is held is previewed, then executed
    preview = books.preview(user, **order)
    answer = books.market.trade(user, **order).answer
    # then it is filled or refused as was told
    assert preview["accepted"] == (answer["outcome"] != "denied")
    assert preview["reduces_position"] is reduce_only
    if not preview["accepted"]:
        assert preview["refusal"] == {name: answer[name] for name in ("code", "message", "details")}
        return
    assert figures_of(preview) == booked(answer, instrument, case.currency)
    assert Decimal(preview["filled_quantity"]) == answer["filled_quantity"] == (held if reduce_only else asked)
    worth = books.market.worth(user)
    assert preview["free_margin_after"] == worth["free_margin"]
    assert preview["margin_level_after"] == worth["margin_level"]


def keep_margin(market: Market, user: User, share: Decimal) -> None:
    """Adjust the balance so that free margin is `share` of the margin used."""
    worth = market.worth(user)
    wanted = round_money(Decimal(worth["margin_used"]) * share, worth["currency"])
    amount = wanted - Decimal(worth["free_margin"])
    if amount:
        act(market.owner, "adjust", operator_request(user, amount=str(amount)))


@EXAMPLES
@given(case=cases, kind=st.sampled_from(["margin", "cash"]), balance=st.decimals("0", "100000", places=2))
def test_an_order_that_may_be_too_large(books: Books, case: Given, kind: str, balance: Decimal) -> None:
    # given a trader with some money
    instrument = books.instruments[case.symbol]
    user = books.market.user(currency=case.currency, tier=case.tier, kind=kind, balance=balance, risk=UNBOUND)
    books.move(case.symbol, case.percent, case.volatility)
    order = {"symbol": case.symbol, "side": case.side, "quantity": str(case.quantity(instrument))}
    # when the order is previewed, then executed
    preview = books.preview(user, **order)
    answer = books.market.trade(user, **order).answer
    # then it is refused as was told, in the same words
    assert preview["accepted"] == (answer["outcome"] == "filled")
    if not preview["accepted"]:
        assert preview["refusal"] == {name: answer[name] for name in ("code", "message", "details")}


@EXAMPLES
@given(
    case=cases,
    percent=hedged_percents,
    shares=st.lists(st.decimals("-1", "1", places=2), min_size=1, max_size=3),
    moved=st.decimals("-5", "5", places=2),
    spare=st.decimals("-0.2", "0.6", places=2),
)
def test_an_order_that_may_cover_positions(
    books: Books, case: Given, percent: int, shares: list[Decimal], moved: Decimal, spare: Decimal
) -> None:
    # given a hedging trader who holds longs or shorts, a market that moved, and some free margin
    instrument = books.instruments[case.symbol]
    books.let_hedges_need(percent)
    user = books.market.user(currency=case.currency, tier=case.tier, balance=10_000_000_000, risk=UNBOUND)
    books.move(case.symbol, case.percent, case.volatility)
    lots = case.quantity(instrument)
    for share in shares:
        part = max(instrument.quantity_min, abs(share) * lots // instrument.quantity_step * instrument.quantity_step)
        side = "buy" if share > 0 else "sell"
        opened = books.market.trade(user, symbol=case.symbol, side=side, quantity=str(part))
        assert opened["outcome"] == "filled"
    books.move(case.symbol, case.percent + moved, case.volatility)
    keep_margin(books.market, user, spare)
    order = {"symbol": case.symbol, "side": case.side, "quantity": str(lots)}
    # when one more order is previewed, then executed
    before = books.market.worth(user)
    preview = books.preview(user, **order)
    answer = books.market.trade(user, **order).answer
    # then it is filled or refused as was told
    assert preview["accepted"] == (answer["outcome"] == "filled")
    if not preview["accepted"]:
        assert preview["refusal"] == {name: answer[name] for name in ("code", "message", "details")}
        return
    assert figures_of(preview) == booked(answer, instrument, case.currency)
    worth = books.market.worth(user)
    assert preview["free_margin_after"] == worth["free_margin"]
    assert preview["margin_level_after"] == worth["margin_level"]
    grown = Decimal(worth["hedged_margin_credit"]) - Decimal(before["hedged_margin_credit"])
    assert Decimal(preview["hedged_margin_credit"]) == grown
    # and none is less than nothing
    figures = ("margin_used", "hedged_margin_credit", "free_margin")
    assert min(Decimal(worth[name]) for name in figures) >= 0


@EXAMPLES
@given(
    case=cases,
    percent=hedged_percents,
    share=st.decimals("0", "1", places=2),
    moved=st.decimals("-5", "5", places=2),
    how=st.sampled_from(["preview_close", "preview_close_by", "preview_close_all"]),
    which=st.sampled_from(["all", "losers", "winners"]),
)
def test_positions_that_are_closed(  # each is varied
    books: Books, case: Given, percent: int, share: Decimal, moved: Decimal, how: str, which: str
) -> None:
    # given a hedging trader with a long, a short and another position, and a market that moved in between
    instrument = books.instruments[case.symbol]
    books.let_hedges_need(percent)
    user = books.market.user(
        currency=case.currency,
        tier=case.tier,
        leverage=case.leverage,
        balance=10_000_000_000,
        risk=UNBOUND | {"max_daily_loss": None},
    )
    books.move(case.symbol, case.percent, case.volatility)
    held = case.quantity(instrument)
    first = books.market.trade(user, symbol=case.symbol, side=case.side, quantity=str(held))["position_id"]
    books.move(case.symbol, case.percent + moved, case.volatility)
    other = "sell" if case.side == "buy" else "buy"
    second = books.market.trade(user, symbol=case.symbol, side=other, quantity=str(held))["position_id"]
    books.market.trade(user, symbol="GBPUSD", side="buy", quantity="0.10")
    books.move(case.symbol, case.percent - moved, case.volatility)
    part = max(instrument.quantity_min, int(held * share / instrument.quantity_step) * instrument.quantity_step)
    asked: dict[str, object] = {
        "preview_close": {"position_id": first, "quantity": str(part)},
        "preview_close_by": {"position_id": first, "opposite_position_id": second, "quantity": str(part)},
        "preview_close_all": {"which": which, "positions_max": 100},
    }[how]
    # when closing is previewed, then done
    before = books.market.worth(user)
    preview = books.preview_close(how, user, **asked)
    answers = close_as(books.market, how, user, asked)
    # then each figure is the one that was told
    assert [each["accepted"] for each in preview["data"]] == [True] * len(preview["data"])
    assert preview["left"] == 0
    if how == "preview_close_by":
        (answer,) = answers
        assert [Decimal(each["price"]) for each in preview["data"]] == [Decimal(answer["execution_price"])] * 2
        assert preview["realized_pnl"] == f"{round_money(Decimal(answer['realized_pnl']), case.currency):f}"
    else:
        assert [each["position_id"] for each in preview["data"]] == [answer["position_id"] for answer in answers]
        for each, answer in zip(preview["data"], answers, strict=True):
            told = booked(answer, books.instruments[each["symbol"]], case.currency)
            figures = {name: each[name] for name in ("slippage", "commission", "realized_pnl")}
            assert figures == {name: told[name] for name in figures}
            assert Decimal(each["price"]) == Decimal(told["price"])
    # and so is the account before and afterwards
    worth = books.market.worth(user)
    assert (preview["balance_before"], preview["free_margin_before"]) == (before["balance"], before["free_margin"])
    assert (preview["balance_after"], preview["free_margin_after"]) == (worth["balance"], worth["free_margin"])
    assert preview["margin_level_after"] == worth["margin_level"]
    assert Decimal(preview["margin_released"]) == Decimal(before["margin_used"]) - Decimal(worth["margin_used"])


def close_as(market: Market, how: str, user: User, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers of what was previewed."""
    if how == "preview_close":
        return [market.close_out(user, asked["position_id"], quantity=asked["quantity"]).answer]
    if how == "preview_close_by":
        return [send(market.trader, keyed_request(user, **asked), "close_by").answer]
    plan = keyed_request(user, **asked)
    planned = send(market.trader, plan, "plan_closes").answer
    return [
        send(market.trader, plan | {"position_id": each["position_id"]}, "close_planned").answer
        for each in planned["positions"]
    ]
