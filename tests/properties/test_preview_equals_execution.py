"""What a preview says is what is booked a moment later, to the last digit, whatever is traded by whom."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.kit import MigratedTemplate, User, order_request
from tests.kit.operators import act, operator_request
from tests.kit.orders import Market, Outcome, keyed_request, send
from tests.kit.venues import VENUE, required_by
from trading.accounts import round_money
from trading.edge.preview_dialects import change_preview_body, closes_body, group_preview_body, preview_body
from trading.errors import TradingError
from trading.instruments import Instrument
from trading.linked_orders import LinkedEntry, LinkKind, StopLoss, TakeProfit, asked_of
from trading.order_entry import OrderEntry
from trading.previews.closes import preview_close
from trading.previews.groups import preview_linked
from trading.previews.orders import Preview, preview_order
from trading.previews.position_changes import preview_change
from trading.store.database import Database
from trading.store.instruments import InstrumentCatalogue
from trading.store.orders import place_linked_orders
from trading.store.positions import change_position
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
        self.database = database
        self._store = ReadingStore(database)
        self._catalogue = InstrumentCatalogue(database)
        self.instruments = self._catalogue.all()

    def preview(self, user: User, **fields: object) -> dict[str, Any]:
        order, found = self.ask(user, **fields)
        return preview_body(order, found)

    def ask(self, user: User, **fields: object) -> tuple[OrderEntry, Preview]:
        """An order, and what it would come to."""
        given_fields = {"idempotency_key": str(uuid.uuid4()), "order_type": "market"} | fields
        order = OrderEntry.model_validate(given_fields)
        found = preview_order(
            order,
            user.user_id,
            instruments=self._catalogue,
            venues={VENUE},
            read_facts=self._store.preview_facts,
        )
        return order, found

    def preview_close(self, how: str, user: User, **asked: object) -> dict[str, Any]:
        """`how` is the reading function that the facts come from."""
        return closes_body(preview_close(getattr(self._store, how)(user.user_id, asked)))

    def preview_change(self, user: User, position_id: str, levels: dict[str, object]) -> dict[str, Any]:
        """What a change of levels would come to, its numbers as Decimal."""
        asked = {"position_id": position_id, "levels": levels}
        return change_preview_body(preview_change(self._store.preview_position_change(user.user_id, asked)))

    def preview_group(self, user: User, entry: LinkedEntry) -> dict[str, Any]:
        """How a group would be judged."""
        found = preview_linked(entry, user.user_id, instruments=self._catalogue, read_group=self._store.preview_group)
        return group_preview_body(found)

    def booked_at(self, user: User, position_id: str, price: str) -> str:
        """What closing the position at `price` books now, by the database's own function."""
        ((made,),) = self.market.execute(
            "SELECT money_form(realized_pnl(a, t, p, p.quantity, %s::numeric, clock_timestamp()), a.currency) "
            "FROM positions AS p INNER JOIN accounts AS a ON a.user_id = p.user_id AND a.id = p.account_id "
            "INNER JOIN order_terms AS t ON t.user_id = p.user_id AND t.account_id = a.id AND t.symbol = p.symbol "
            "WHERE p.user_id = %s AND p.id = %s",
            (price, user.user_id, position_id),
        )
        return made

    def accept(self, user: User, **fields: object) -> Outcome:
        """An order for its venue."""
        return send(self.market.trader, order_request(user, **fields), "accept_order")

    def let_hedges_need(self, percent: int) -> None:
        """Of the margin of both sides."""
        self.market.execute("UPDATE instruments SET hedged_margin_percent = %s", (percent,))

    def execute_at(self, symbol: str, venue: str) -> None:
        """Where the instrument is traded from now on."""
        self.market.execute("UPDATE instruments SET venue = %s WHERE symbol = %s", (venue, symbol))

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


@settings(EXAMPLES, max_examples=30)
@given(
    case=cases,
    percent=hedged_percents,
    shares=st.lists(st.decimals("-1", "1", places=2), min_size=1, max_size=2),
    ahead=st.lists(st.decimals("-1", "1", places=2), max_size=2),
    spare=st.decimals("-0.2", "0.6", places=2),
)
def test_an_order_behind_others_in_flight_to_a_venue(
    books: Books, case: Given, percent: int, shares: list[Decimal], ahead: list[Decimal], spare: Decimal
) -> None:
    # given a hedging trader who holds longs or shorts of what is traded elsewhere by now, and has sent orders there
    instrument = books.instruments[case.symbol]
    books.let_hedges_need(percent)
    user = books.market.user(currency=case.currency, tier=case.tier, balance=10_000_000_000, risk=UNBOUND)
    books.move(case.symbol, case.percent, case.volatility)
    lots = case.quantity(instrument)

    def order_of(share: Decimal) -> dict[str, object]:
        part = max(instrument.quantity_min, abs(share) * lots // instrument.quantity_step * instrument.quantity_step)
        return {"symbol": case.symbol, "side": "buy" if share > 0 else "sell", "quantity": str(part)}

    for share in shares:
        assert books.market.trade(user, **order_of(share))["outcome"] == "filled"
    books.execute_at(case.symbol, VENUE)
    for share in ahead:
        assert books.accept(user, **order_of(share))["outcome"] == "pending_new"
    keep_margin(books.market, user, spare)
    order = {"symbol": case.symbol, "side": case.side, "quantity": str(lots)}
    # when one more is previewed, then sent
    entry, found = books.ask(user, **order)
    answer = books.accept(user, **order).answer
    books.execute_at(case.symbol, "internal")
    # then it leaves, with what was told reserved, or is refused in the same words
    preview = preview_body(entry, found)
    assert preview["accepted"] == (answer["outcome"] == "pending_new")
    if not preview["accepted"]:
        assert preview["refusal"] == {name: answer[name] for name in ("code", "message", "details")}
        return
    (route,) = [row for row in books.market.rows("venue_routes", user) if str(row["order_id"]) == answer["order_id"]]
    assert route["margin_required"] == required_by(found)


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


LEVEL_FORMS = ("price", "distance", "amount", "trailing_distance", "breakeven")


@EXAMPLES
@given(
    case=cases,
    moved=st.decimals("-5", "5", places=2),
    stop=st.sampled_from(LEVEL_FORMS),
    profit=st.sampled_from(LEVEL_FORMS[:3]),
    away=st.integers(-3, 400),
    cents=st.integers(1, 10_000_000),
)
def test_levels_that_are_changed(  # every argument is a fact that varies
    books: Books, case: Given, moved: Decimal, stop: str, profit: str, away: int, cents: int
) -> None:
    # given a position, and a market that moved
    instrument = books.instruments[case.symbol]
    user = books.market.user(currency=case.currency, tier=case.tier, balance=10_000_000_000, risk=UNBOUND)
    books.move(case.symbol, case.percent, case.volatility)
    opened = books.market.trade(user, symbol=case.symbol, side=case.side, quantity=str(case.quantity(instrument)))
    books.move(case.symbol, case.percent + moved, case.volatility)
    position_id = opened["position_id"]
    ((bid, ask),) = books.market.execute("SELECT bid, ask FROM quotes WHERE symbol = %s", (case.symbol,))
    mark, up = (bid, 1) if case.side == "buy" else (ask, -1)
    distance, amount = away * instrument.tick_size, Decimal(cents) / 100
    levels = level("stop_loss", stop, distance, amount, mark - up * distance)
    levels |= level("take_profit", profit, distance, amount, mark + up * distance)
    # when the change is previewed, then made
    preview = outcome_of(lambda: books.preview_change(user, position_id, levels))
    answer = outcome_of(
        lambda: change_position(books.database, keyed_request(user, position_id=position_id, levels=levels))
    )
    # then it is refused in the same words
    if isinstance(answer, TradingError):
        assert isinstance(preview, TradingError)
        assert (preview.code, str(preview), preview.details) == (answer.code, str(answer), answer.details)
        return
    # or leaves the levels that were told, each with what a close there would book
    assert not isinstance(preview, TradingError)
    position = answer["answer"]["position"]
    after = preview["after"]
    assert after["trailing_distance"] == position["trailing_distance"]
    for name in ("stop_loss", "take_profit"):
        price = position[name]
        assert after[name] == {"price": price, "realized_pnl": books.booked_at(user, position_id, price)}


def level(name: str, form: str, distance: Decimal, amount: Decimal, price: Decimal) -> dict[str, object]:
    """A level as a change gives it in one of its forms."""
    match form:
        case "price":
            return {name: price}
        case "distance":
            return {f"{name}_distance": distance}
        case "amount":
            return {f"{name}_amount": amount}
        case "breakeven":
            return {form: True}
        case _:
            return {form: distance}


# What stands in the way of some traders.
HINDRANCES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "nothing much": {"risk": {"max_drawdown_percent": 50}},
    "the account": {"status": "suspended"},
    "the stop loss": {"risk": {"stop_loss_required": True}},
    "its distance": {"risk": {"stop_loss_min_percent": 1}},
    "what works": {"risk": {"max_working_orders": 2}},
    "the rate": {"risk": {"order_rate_limit": 2, "order_rate_window_s": 3600}},
}


@dataclass(frozen=True)
class Grouped:
    """Orders that depend on each other, their prices so many ticks away from the side of the quote that they take.

    The first is `first`, unless one of two cancels the other: those rest.
    """

    kind: LinkKind
    first: str
    away: int
    exit_away: int

    def entry(self, case: Given, quantity: Decimal, quote: Decimal, tick: Decimal) -> LinkedEntry:
        """The group of `quantity` lots that `case` trades at `quote`."""
        up, other = (tick, "sell") if case.side == "buy" else (-tick, "buy")
        away, exit_away = up * self.away, up * self.exit_away

        def order(order_type: str, price: Decimal | None, side: str = case.side) -> OrderEntry:
            asked = {"symbol": case.symbol, "side": side, "quantity": quantity, "order_type": order_type}
            if price is not None:
                asked |= {"stop_price" if order_type == "stop" else "limit_price": price, "time_in_force": "gtc"}
            return OrderEntry.model_validate(asked | {"idempotency_key": str(uuid.uuid4())})

        if self.kind == "oco":
            pair = order("limit", quote - away), order("stop", quote + exit_away)
            return LinkedEntry(self.kind, pair, ("orders.0", "orders.1"))
        price = {"market": None, "limit": quote - away, "stop": quote + away}[self.first]
        if self.kind == "oto":
            pair = order(self.first, price), order("limit", quote + exit_away, other)
            return LinkedEntry(self.kind, pair, ("parent", "children.0"))
        at = price or quote
        exits = TakeProfit(limit_price=at + exit_away), StopLoss(stop_price=at - exit_away)
        return LinkedEntry(self.kind, (order(self.first, price),), ("entry",), *exits)


@settings(EXAMPLES, max_examples=80)
@given(
    case=cases,
    group=st.builds(
        Grouped,
        kind=st.sampled_from(["oco", "oto", "bracket"]),
        first=st.sampled_from(["market", "limit", "stop"]),
        away=st.integers(-1, 400),
        exit_away=st.integers(-20, 400),
    ),
    held=st.sampled_from([None, "0.5", "1", "2"]),
    money=st.sampled_from(["10000000000", "100000", "1000"]),
    hindrance=st.sampled_from(sorted(HINDRANCES)),
)
def test_orders_that_depend_on_each_other(
    books: Books, case: Given, group: Grouped, held: str | None, money: str, hindrance: str
) -> None:
    # The limits of an order at the market are asked in a preview as if nothing slipped.
    assume(hindrance != "its distance" or group.first != "market" or group.kind == "oco")
    # given a trader, perhaps with a position on the other side, and a group of orders
    instrument = books.instruments[case.symbol]
    facts = HINDRANCES[hindrance]
    user = books.market.user(
        currency=case.currency,
        tier=case.tier,
        leverage=case.leverage,
        balance=money,
        position_mode="netting" if held else "hedging",
        **facts | {"risk": UNBOUND | {"max_daily_loss": None} | facts.get("risk", {})},
    )
    books.move(case.symbol, case.percent, case.volatility)
    quantity = case.quantity(instrument)
    if held:
        lots = quantity * Decimal(held) // instrument.quantity_step * instrument.quantity_step
        other = "sell" if case.side == "buy" else "buy"
        books.market.trade(user, symbol=case.symbol, side=other, quantity=str(max(instrument.quantity_min, lots)))
    ((bid, ask),) = books.market.execute("SELECT bid, ask FROM quotes WHERE symbol = %s", (case.symbol,))
    entry = group.entry(case, quantity, ask if case.side == "buy" else bid, instrument.tick_size)
    # when it is previewed, then placed
    before = books.market.worth(user)
    preview = outcome_of(lambda: books.preview_group(user, entry))
    asked = keyed_request(user, **asked_of(entry))
    placed = outcome_of(lambda: place_linked_orders(books.database, asked))
    # then it is refused in the same words
    if isinstance(placed, TradingError):
        assert isinstance(preview, TradingError)
        assert (preview.code, preview.details) == (placed.code, placed.details)
        return
    assert not isinstance(preview, TradingError)
    answer = placed["answer"]
    judgements = [order["judgement"] for order in preview["orders"]]
    if answer["outcome"] == "denied":
        assert preview["refusal"] == {name: answer[name] for name in ("code", "message", "details")}
        assert judgements.count("REFUSED") == 1
        return
    # or each order that works is approved with the margin and the commission that were told
    works = ["ACCEPTED"] * (2 if group.kind == "oco" else 1)
    assert (preview["accepted"], judgements) == (True, works + ["WHEN_TOUCHED"] * (len(judgements) - len(works)))
    for told, order in list(zip(preview["orders"], answer["orders"], strict=True))[: len(works)]:
        figures = {name: f"{round_money(Decimal(told[name]), case.currency):f}" for name in ("margin", "commission")}
        assert figures == approval(books.market, user, order["order_id"], case.currency)
    # and what is filled at once leaves the account as was told
    assert preview["free_margin_before"] == before["free_margin"]
    if entry.orders[0].order_type == "market":
        worth = books.market.worth(user)
        assert preview["free_margin_after"] == worth["free_margin"]
        assert preview["margin_level_after"] == worth["margin_level"]


def approval(market: Market, user: User, order_id: str, currency: str) -> dict[str, str]:
    """With which margin and commission the order was accepted, by the audit; what only reduces takes none."""
    (approved,) = [row["details"] for row in market.audit(user, order_id) if row["action"] == "APPROVED"]
    return {
        name: f"{round_money(Decimal(str(approved.get(name) or 0)), currency):f}" for name in ("margin", "commission")
    }


def outcome_of[T](asked: Callable[[], T]) -> T | TradingError:
    """What it answers, or how it is refused."""
    try:
        return asked()
    except TradingError as error:
        return error


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
