"""What a preview tells is what the order is told a moment later: each kind of order in each situation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from tests.kit import MigratedTemplate, User, order_request
from tests.kit.operators import act, operator_request
from tests.kit.orders import Market, send
from tests.kit.venues import PAIR, VENUE, VenueWorld, required_by
from trading.errors import CODE_BY_SQLSTATE, ErrorCode, TradingError
from trading.order_entry import OrderEntry
from trading.previews.orders import Preview, preview_order
from trading.pricing import depth
from trading.store.database import Database
from trading.store.instruments import InstrumentCatalogue
from trading.store.reading import ReadingStore

type Fields = dict[str, object]
# A code, or that it is taken; and which limit it breaks.
type Told = tuple[str, object]

LIMIT: Fields = {"order_type": "limit", "limit_price": "1.0500"}
REDUCING_LIMIT: Fields = {"side": "sell", "order_type": "limit", "limit_price": "1.2000"}
# EURUSD stands at 1.1000/1.1002. Those who net are long two lots.
ORDERS: dict[str, Fields] = {
    "market": {},
    "market with a stop loss": {"stop_loss": "1.0900"},
    "market sale": {"side": "sell", "quantity": "1"},
    "market sale that turns": {"side": "sell", "quantity": "3"},
    "limit": LIMIT,
    "limit with a stop loss": LIMIT | {"stop_loss": "1.0400"},
    "limit with a far stop loss": LIMIT | {"stop_loss": "0.5000"},
    "limit with a close stop loss": LIMIT | {"stop_loss": "1.0499"},
    "limit that reduces": REDUCING_LIMIT,
    "limit that turns": REDUCING_LIMIT | {"quantity": "3"},
    "ioc": {"order_type": "limit", "limit_price": "1.1002", "time_in_force": "ioc"},
    "ioc sale": {"side": "sell", "order_type": "limit", "limit_price": "1.1000", "time_in_force": "ioc"},
    "ioc at a better price": {"order_type": "limit", "limit_price": "1.1001", "time_in_force": "ioc"},
    "market if touched": {"order_type": "market_if_touched", "stop_price": "1.1100"},
    "limit if touched": {"order_type": "limit_if_touched", "stop_price": "1.1002", "limit_price": "1.1002"},
    "limit if touched later": {"order_type": "limit_if_touched", "stop_price": "1.1002", "limit_price": "1.1001"},
    "fok sale": {"side": "sell", "order_type": "limit", "limit_price": "1.1000", "time_in_force": "fok"},
    "iceberg": LIMIT | {"quantity": "1", "display_quantity": "0.1", "display_variance": "0.5"},
    "stop": {"order_type": "stop", "stop_price": "1.2000"},
    "stop that reduces": {"side": "sell", "order_type": "stop", "stop_price": "1.0500"},
    "trailing": {"order_type": "trailing_stop", "trail_amount": "0.0100"},
    "at the close": {"time_in_force": "cls"},
    "at the close, without slippage": {"time_in_force": "cls", "max_slippage": "0"},
    "conditional": {
        "time_in_force": "gtc",
        "conditions": [{"symbol": "GBPUSD", "watch": "bid", "direction": "at_or_above", "level": "2"}],
    },
}
REDUCING_ONLY: dict[str, Fields] = {
    "reduce_only": {"side": "sell", "quantity": "5", "reduce_only": True},
    "limit, reduce_only": REDUCING_LIMIT | {"quantity": "5", "reduce_only": True},
}


@dataclass(frozen=True)
class Situation:
    """What has become of a trader with 20,000 who bought two lots of EURUSD, and of trading."""

    profile: Fields = field(default_factory=dict)
    risk: Fields = field(default_factory=dict)
    state: str = "active"
    prepare: Callable[[Market, User], None] = lambda _market, _user: None


def close_the_market(market: Market, _: User) -> None:
    market.close("FX", datetime.now(UTC) + timedelta(hours=1))


def let_a_weekend_come(market: Market, user: User) -> None:
    """The last price is that of the session's end."""
    close_the_market(market, user)
    market.quote("EURUSD", "1.1000", "1.1002", datetime.now(UTC) - timedelta(hours=24))


def let_one_rest(market: Market, user: User) -> None:
    assert market.place(user, quantity="0.01")["outcome"] == "new"


def send_elsewhere(market: Market, user: User) -> None:
    """Most of the margin is reserved for what is on its way to a venue."""
    request = order_request(user, symbol=PAIR, quantity="15")
    assert send(market.trader, request, "accept_order")["outcome"] == "pending_new"


def leave_little(market: Market, user: User) -> None:
    """1,100.25 of free margin."""
    amount = Decimal("1100.25") - Decimal(market.worth(user)["free_margin"])
    act(market.owner, "adjust", operator_request(user, amount=str(amount)))


SITUATIONS: dict[str, Situation] = {
    "nothing special": Situation(),
    "reducing": Situation(state="reducing"),
    "halted": Situation(state="halted"),
    "not verified": Situation(profile={"kyc_status": "pending"}),
    "suspended while halted": Situation(profile={"account_status": "suspended"}, state="halted"),
    "a closed market": Situation(prepare=close_the_market),
    "a weekend": Situation(prepare=let_a_weekend_come),
    "as many at rest as may": Situation(risk={"max_working_orders": 1}, prepare=let_one_rest),
    "a stop loss is required": Situation(risk={"stop_loss_required": True}),
    "stop losses within bounds": Situation(risk={"stop_loss_min_percent": "0.5", "stop_loss_max_percent": 20}),
    "little margin": Situation(prepare=leave_little),
    "margin in flight": Situation(prepare=send_elsewhere),
    "a position in flight": Situation(risk={"max_positions": 2}, prepare=send_elsewhere),
    "a trade in flight": Situation(risk={"daily_trade_limit": 2}, prepare=send_elsewhere),
}


@pytest.fixture(scope="module")
def world(migrated: MigratedTemplate) -> Iterator[VenueWorld]:
    with Market.checked(migrated) as market, VenueWorld.joined(market) as world:
        yield world


@pytest.fixture(scope="module")
def shared(world: VenueWorld) -> Market:
    return world.market


@pytest.fixture
def market(shared: Market) -> Iterator[Market]:
    shared.prepare()
    shared.quote(PAIR, "1.1000", "1.1002")
    yield shared
    shared.prepare()


@dataclass(frozen=True)
class Previews:
    """What the function knows of instruments, and where it reads facts."""

    instruments: InstrumentCatalogue
    store: ReadingStore

    def ask(self, user: User, fields: Fields) -> Preview:
        """What an order would come to, by default one lot of EURUSD bought at the market."""
        request = {"symbol": "EURUSD", "side": "buy", "quantity": "1", "order_type": "market", "idempotency_key": "key"}
        return preview_order(
            OrderEntry.model_validate(request | fields),
            user.user_id,
            instruments=self.instruments,
            venues={VENUE},
            read_facts=self.store.preview_facts,
        )


@pytest.fixture(scope="module")
def previews(shared: Market) -> Iterator[Previews]:
    database = Database(lambda: shared.database.url_for("function_trader"))
    yield Previews(InstrumentCatalogue(database), ReadingStore(database))
    database.close()


# Where nothing reduces, every order opens a position of its own.
HEDGING = ("nothing special", "reducing", "little margin", "margin in flight", "a position in flight")


@pytest.mark.parametrize(
    ("name", "mode"), [(name, "netting") for name in SITUATIONS] + [(name, "hedging") for name in HEDGING]
)
def test_each_kind_of_order_is_told_what_its_preview_told(
    market: Market, previews: Previews, name: str, mode: str
) -> None:
    # given
    user = given_trader(market, SITUATIONS[name], mode)
    orders = ORDERS | (REDUCING_ONLY if mode == "netting" else {})

    # when each is previewed, and sent without anything that stays
    previewed = {kind: told_by_preview(previews, user, fields) for kind, fields in orders.items()}
    outcomes = {kind: told_by_order(market, user, fields) for kind, fields in orders.items()}

    # then
    assert previewed == outcomes


def test_a_preview_knows_how_far_a_quote_goes(market: Market, previews: Previews) -> None:
    user = market.user()

    depths = market.execute(
        "SELECT t.symbol, venue_depth(t) FROM order_terms AS t WHERE t.user_id = %s", (user.user_id,)
    )

    assert {symbol: depth(previews.instruments.all()[symbol]) for symbol, _ in depths} == dict(depths)


def test_a_preview_counts_what_is_on_its_way_out_to_a_venue(
    world: VenueWorld, market: Market, previews: Previews
) -> None:
    # given ten lots that a venue has filled, of which six and then all are being sold there
    user = market.user(position_mode="netting", balance=100_000)
    world.fill(world.sent(user, symbol=PAIR), "10", "1.1002")
    told: dict[str, tuple[Told, Told]] = {}
    for selling in ("6", "4"):
        assert world.accept(user, PAIR, side="sell", quantity=selling)["outcome"] == "pending_new"

        # when more of them are
        for quantity in ("4", "4.01"):
            sale: Fields = {"symbol": PAIR, "side": "sell", "quantity": quantity}
            told[f"{quantity} after {selling}"] = (
                told_by_preview(previews, user, sale),
                told_by_order(market, user, sale, "accept_order"),
            )

    # then
    refused = (ErrorCode.INSUFFICIENT_POSITION, None)
    assert told == {
        "4 after 6": (("taken", None), ("taken", None)),
        "4.01 after 6": (refused, refused),
        "4 after 4": (refused, refused),
        "4.01 after 4": (refused, refused),
    }


def test_a_preview_cuts_nothing_that_goes_to_a_venue(world: VenueWorld, market: Market, previews: Previews) -> None:
    # given two lots held at a venue, and no exposure that may be added
    user = market.user(position_mode="netting", balance=100_000)
    world.fill(world.sent(user, symbol=PAIR, quantity="2"), "2", "1.1002")
    market.execute("UPDATE accounts SET trading_state = 'reducing' WHERE user_id = %s", (user.user_id,))

    # when as much, or more than is held, may only reduce it
    told: list[tuple[Told, Told]] = []
    for quantity in ("2", "5"):
        sale: Fields = {"symbol": PAIR, "side": "sell", "quantity": quantity, "reduce_only": True}
        told.append((told_by_preview(previews, user, sale), told_by_order(market, user, sale, "accept_order")))

    # then
    taken, halted = ("taken", None), (ErrorCode.TRADING_HALTED, None)
    assert told == [(taken, taken), (halted, halted)]


def test_a_preview_covers_behind_what_is_in_flight_to_a_venue(
    world: VenueWorld, market: Market, previews: Previews
) -> None:
    """Lots of 0.75 sold at 1.09994 against two bought at 1.1002, where hedges need half.

    margin  75,000 / 100 x 1.09994 = 824.96, and 19.50 of spread
    credit  (2,200.40 x 0.75 / 2 + 824.96) / 2 = 825.06, of two (1,650.30 + 1,649.92) / 2 = 1,650.11,
            of three, which the two lots cover in part, (2,200.40 + 2,474.88 x 2 / 2.25) / 2 = 2,200.15
    """
    # given a hedging trader with that long, and a purchase on its way, which covers nothing of a sale
    market.execute("UPDATE instruments SET hedged_margin_percent = 50 WHERE symbol = %s", (PAIR,))
    user = market.user(balance=100_000)
    world.fill(world.sent(user, symbol=PAIR, quantity="2"), "2", "1.1002")
    world.accept(user, PAIR, side="buy", quantity="1")

    # when one sale after the other is previewed, then sent
    told: list[Decimal] = []
    reserved: list[Decimal] = []
    for _ in range(3):
        sale: Fields = {"symbol": PAIR, "side": "sell", "quantity": "0.75"}
        told.append(required_by(previews.ask(user, sale)))
        reserved.append(world.route(world.sent(user, **sale))["margin_required"])
    market.execute("UPDATE instruments SET hedged_margin_percent = 100 WHERE symbol = %s", (PAIR,))

    # then each needs what was told
    assert told == reserved == [Decimal("19.40"), Decimal("19.41"), Decimal("294.42")]


def given_trader(market: Market, situation: Situation, mode: str) -> User:
    user = market.user(position_mode=mode, balance=20_000)
    assert market.trade(user, quantity="2")["outcome"] == "filled"
    for table, values in (("profiles", situation.profile), ("risk_settings", situation.risk)):
        key = "id" if table == "profiles" else "user_id"
        for column, value in values.items():
            market.execute(f"UPDATE {table} SET {column} = %s WHERE {key} = %s", (value, user.user_id))
    situation.prepare(market, user)
    market.execute("UPDATE instruments SET trading_state = %s WHERE symbol = 'EURUSD'", (situation.state,))
    return user


def told_by_preview(previews: Previews, user: User, fields: Fields) -> Told:
    try:
        found = previews.ask(user, fields)
    except TradingError as error:
        return error.code, None
    if found.refusal is None:
        return "taken", None
    return found.refusal.code, found.refusal.details.get("limit")


def told_by_order(market: Market, user: User, fields: Fields, at_once: str = "execute_order_atomic") -> Told:
    request = order_request(user, **fields)
    waits = fields.get("order_type", "market") != "market" or fields.keys() & {"time_in_force", "conditions"}
    try:
        with market.trader.transaction(force_rollback=True):
            outcome = send(market.trader, request, "place_order" if waits else at_once)
    except psycopg.Error as error:
        return CODE_BY_SQLSTATE[error.sqlstate or ""], None
    answer = outcome.answer
    if answer["outcome"] not in ("denied", "rejected"):
        return "taken", None
    return ErrorCode(answer["code"]), answer["details"].get("limit")
