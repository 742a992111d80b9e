"""Circuit breakers: when they trip, that they stay tripped, and that a person arms them again."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.gateway import eventually
from tests.kit.kill_switch import Officer
from tests.kit.orders import Market, keyed_request, send
from tests.kit.ticks import Ticker, call

WINDOW = timedelta(seconds=60)
EVERYTHING = {"within_s": 3600, "accounts_max": 100}


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    """One database for the module; its books must hold after all tests."""
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def market(shared: Market) -> Market:
    """With breakers at a move of 2 % and a spread of 1 %, where the kit has none."""
    shared.prepare()
    shared.execute("UPDATE symbol_breakers SET move_percent = 2, spread_percent = 1")
    return shared


@pytest.fixture
def ticker(market: Market) -> Iterator[Ticker]:
    with Ticker.opened(market) as ticker:
        yield ticker


@pytest.fixture
def officer(market: Market) -> Iterator[Officer]:
    with Officer.opened(market) as officer:
        yield officer


@pytest.fixture
def trader(market: Market) -> User:
    return market.user()


def state(market: Market, symbol: str = "EURUSD") -> str:
    return market.execute("SELECT trading_state FROM instruments WHERE symbol = %s", (symbol,))[0][0]


def waits_for_a_lock(market: Market) -> bool:
    return bool(market.execute("SELECT pid FROM pg_locks WHERE NOT granted"))


def last_change(market: Market) -> tuple[str, str, str]:
    return market.execute("SELECT actor, after, reason FROM trading_state_changes ORDER BY id DESC LIMIT 1")[0]


class Prices:
    """Quotes of EURUSD without a spread, each some seconds after the first."""

    def __init__(self, ticker: Ticker) -> None:
        self.ticker = ticker
        self.begin = datetime.now(UTC) - timedelta(minutes=10)

    def tell(self, price: str, seconds: float, ask: str | None = None) -> None:
        self.ticker.record(("EURUSD", price, ask or price, self.begin + timedelta(seconds=seconds)))


@pytest.fixture
def prices(market: Market, ticker: Ticker) -> Prices:
    market.execute("DELETE FROM quotes WHERE symbol = 'EURUSD'")
    return Prices(ticker)


class TestLocks:
    def test_two_symbols_of_one_batch_trip_while_an_officer_sets_one_of_them(
        self, market: Market, ticker: Ticker, officer: Officer
    ) -> None:
        # given an officer who has the second symbol, and a batch that trips both and waits for it
        now = datetime.now(UTC)
        batch = [("EURUSD", "1.00", "1.10", now), ("GBPUSD", "1.00", "1.10", now)]
        market.execute("DELETE FROM quotes WHERE symbol IN ('EURUSD', 'GBPUSD')")
        with market.database.connect() as setting, ThreadPoolExecutor(1) as feed:
            setting.autocommit = False
            setting.execute("SELECT FROM instruments WHERE symbol = 'GBPUSD' FOR NO KEY UPDATE")
            recorded = feed.submit(ticker.record, *batch)
            eventually(lambda: waits_for_a_lock(market), what="a batch behind the officer")

            # when
            request = officer.request("symbol", symbol="GBPUSD", trading_state="halted")
            call(setting, "set_trading_state", request)
            setting.commit()
            recorded.result(10)

        # then neither ended the other
        assert (state(market), state(market, "GBPUSD")) == ("reducing", "halted")


class TestMove:
    @pytest.mark.parametrize(
        ("last", "expected"),
        [("1.02", "active"), ("1.020001", "reducing"), ("0.980393", "active"), ("0.980390", "reducing")],
    )
    def test_above_so_many_percent_either_way_it_trips(
        self, market: Market, prices: Prices, last: str, expected: str
    ) -> None:
        prices.tell("1.00", 0)
        prices.tell(last, 30)

        assert state(market) == expected

    def test_what_comes_back_at_once_has_tripped_it_all_the_same(self, market: Market, prices: Prices) -> None:
        prices.tell("1.00", 0)
        prices.tell("1.03", 10)
        prices.tell("1.00", 20)

        assert state(market) == "reducing"

    @pytest.mark.parametrize("begin", [1, 30, 59.9])
    def test_no_move_within_the_window_is_missed_wherever_it_begins(
        self, market: Market, prices: Prices, begin: float
    ) -> None:
        prices.tell("1.00", 0)
        prices.tell("1.00", begin)
        prices.tell("1.021", begin + WINDOW.total_seconds() - 0.1)

        assert state(market) == "reducing"

    def test_a_slow_move_trips_nothing(self, market: Market, prices: Prices) -> None:
        # 4 % in 10 windows' time: within two of them it is 0.8 %
        for number in range(11):
            prices.tell(str(1 + number * 0.004), number * 50)

        assert state(market) == "active"

    def test_what_opens_elsewhere_after_a_silence_is_no_move(self, market: Market, prices: Prices) -> None:
        prices.tell("1.00", 0)
        prices.tell("1.10", 2 * WINDOW.total_seconds())

        assert state(market) == "active"

    def test_prices_of_another_source_and_prices_set_by_hand_are_no_move(self, market: Market, ticker: Ticker) -> None:
        for source, price in (
            ("one", "1.00"),
            ("two", "1.10"),
            ("manual", "1.20"),
            ("manual", "1.30"),
            ("one", "1.40"),
        ):
            quotes = [{"symbol": "EURUSD", "bid": price, "ask": price}]
            call(ticker.prices, "record_quotes", {"source": source, "quotes": quotes})

        assert state(market) == "active"

    def test_a_batch_that_holds_the_whole_move_trips_it(self, market: Market, prices: Prices) -> None:
        prices.ticker.record(
            *(
                ("EURUSD", price, price, prices.begin + timedelta(seconds=second))
                for second, price in enumerate(("1.10", "1.20", "1.10"))
            )
        )

        assert state(market) == "reducing"


class TestSpread:
    @pytest.mark.parametrize(("ask", "expected"), [("1.00500", "active"), ("1.00501", "reducing")])
    def test_above_so_many_percent_it_trips(self, market: Market, prices: Prices, ask: str, expected: str) -> None:
        prices.tell("0.99500", 0, ask)

        assert state(market) == expected


class TestTripped:
    def test_what_opens_is_refused_and_what_closes_is_not(self, market: Market, ticker: Ticker, trader: User) -> None:
        held = market.trade(trader)["position_id"]
        for price in ("1.1000", "1.1500"):
            ticker.touch("EURUSD", price, price)

        assert market.trade(trader)["code"] == "TRADING_HALTED"
        assert market.close_out(trader, held)["outcome"] == "filled"
        assert market.trade(trader, symbol="USDJPY")["outcome"] == "filled"

    def test_it_stays_until_a_person_arms_it_again(self, market: Market, prices: Prices) -> None:
        prices.tell("1.00", 0)
        prices.tell("1.10", 1)
        prices.tell("1.10", 500)
        assert state(market) == "reducing"

        with Officer.opened(market) as officer:
            officer.set_state("symbol", "active", symbol="EURUSD")
        prices.tell("1.10", 501)

        assert state(market) == "active"

    def test_armed_again_it_measures_anew(self, market: Market, prices: Prices) -> None:
        # given a move that has tripped it, and an officer who arms it at once
        prices.tell("1.00", 0)
        prices.tell("1.03", 1)
        with Officer.opened(market) as officer:
            officer.set_state("symbol", "active", symbol="EURUSD")

        # when the price stays there
        for second in range(2, 8):
            prices.tell("1.03", second)
        assert state(market) == "active"

        # then only the next move trips it
        prices.tell("1.06", 8)
        assert state(market) == "reducing"

    def test_it_is_on_record_once_with_its_figures(self, market: Market, prices: Prices) -> None:
        before = market.execute("SELECT count(*) FROM trading_state_changes")[0][0]
        prices.tell("1.00", 0)
        for second in range(1, 4):
            prices.tell("1.05", second)

        assert last_change(market) == (
            "circuit_breaker",
            "reducing",
            "Circuit breaker: the price moved by 5.00 %, more than 2 %",
        )
        assert market.execute("SELECT count(*) FROM trading_state_changes")[0][0] == before + 1

    def test_what_a_person_has_halted_stays_halted(self, market: Market, prices: Prices) -> None:
        with Officer.opened(market) as officer:
            officer.set_state("symbol", "halted", symbol="EURUSD")

        prices.tell("1.00", 0)
        prices.tell("1.10", 1)

        assert state(market) == "halted"

    def test_where_trade_is_always_on_nothing_trips(self, market: Market, prices: Prices) -> None:
        market.execute("UPDATE platform_settings SET trade_always = true")

        prices.tell("1.00", 0)
        prices.tell("2.00", 1, "3.00")

        assert state(market) == "active"

    def test_without_limits_nothing_trips(self, market: Market, prices: Prices) -> None:
        market.execute("UPDATE symbol_breakers SET move_percent = NULL, spread_percent = NULL")

        prices.tell("1.00", 0)
        prices.tell("2.00", 1, "3.00")

        assert state(market) == "active"


class TestPlatform:
    """Trips above half of at least four orders, refused to at least two users."""

    @pytest.fixture
    def market(self, migrated: MigratedTemplate) -> Iterator[Market]:
        """Of its own, because all its orders count."""
        with Market.checked(migrated) as market:
            market.execute(
                "UPDATE platform_settings SET reject_rate_percent = 50, reject_rate_orders_min = 4, "
                "reject_rate_users_min = 2"
            )
            yield market

    @pytest.mark.parametrize(
        ("refused", "taken", "users", "tripped"),
        [(3, 1, 2, True), (2, 2, 2, False), (2, 1, 2, False), (3, 1, 1, False), (0, 0, 1, False)],
    )
    def test_it_trips_when_too_many_orders_of_several_users_are_refused(
        self, market: Market, refused: int, taken: int, users: int, tripped: bool
    ) -> None:
        # given
        poor = [market.user(balance=1) for _ in range(users)]
        for number in range(refused):
            assert market.trade(poor[number % users])["outcome"] == "denied"
        rich = market.user()
        for _ in range(taken):
            market.trade(rich)
        with Officer.opened(market) as officer:
            officer.set_state("symbol", "halted", symbol="USDJPY")  # that is another's, and begins nothing anew

        # when
        with market.database.connect("function_risk") as risk:
            answers = [call(risk, "watch_breakers", EVERYTHING) for _ in range(2)]

        # then once, and it stays
        assert [answer["tripped"] for answer in answers] == [tripped, False]
        assert market.trade(rich)["outcome"] == ("denied" if tripped else "filled")
        if tripped:
            assert last_change(market)[2] == "Circuit breaker: 75.00 % of the orders were refused, more than 50 %"

    def test_where_trade_is_always_on_it_does_not_trip(self, market: Market) -> None:
        market.execute("UPDATE platform_settings SET trade_always = true")
        for poor in [market.user(balance=1) for _ in range(4)]:
            market.trade(poor)

        with market.database.connect("function_risk") as risk:
            answer = call(risk, "watch_breakers", EVERYTHING)

        assert (answer["tripped"], answer["reject_rate"]) == (False, 100)

    def test_orders_of_before_the_window_do_not_count(self, market: Market) -> None:
        for poor in [market.user(balance=1) for _ in range(4)]:
            market.trade(poor)

        rates = "SELECT reject_rate(clock_timestamp()), reject_rate(clock_timestamp() + interval '61 s')"

        assert market.execute(rates) == [(100, None)]

    def test_armed_again_it_counts_anew(self, market: Market) -> None:
        # given one that has tripped, and an officer who arms it at once
        patient = market.user()
        for poor in [market.user(balance=1) for _ in range(4)]:
            market.trade(poor)
            market.place(patient)
        market.execute("UPDATE platform_settings SET reject_rate_percent = 49")
        with market.database.connect("function_risk") as risk, Officer.opened(market) as officer:
            assert call(risk, "watch_breakers", EVERYTHING)["tripped"]
            officer.set_state("platform", "active")

            # when nothing else is refused, and what was sent before comes to an end
            market.cancel_all(patient)
            answer = call(risk, "watch_breakers", EVERYTHING)
            for poor in [market.user(balance=1) for _ in range(4)]:
                market.trade(poor)
            later = call(risk, "watch_breakers", EVERYTHING)

        # then only what is sent from then on counts
        assert (answer["tripped"], answer["reject_rate"]) == (False, None)
        assert (later["tripped"], later["reject_rate"]) == (True, 100)

    def test_what_a_stopped_market_or_user_is_refused_for_does_not_count(self, market: Market) -> None:
        # given orders of users who may not trade, of others in a symbol that was halted, and in a market that is closed
        def refuse(code: str, **facts: str) -> None:
            for user in [market.user(**facts) for _ in range(4)]:
                assert market.trade(user)["code"] == code

        refuse("KYC_REQUIRED", kyc="pending")
        refuse("ACCOUNT_NOT_ACTIVE", status="suspended")
        with Officer.opened(market) as officer:
            officer.set_state("symbol", "halted", symbol="EURUSD")
            refuse("TRADING_HALTED")
            officer.set_state("symbol", "active", symbol="EURUSD")
        market.close("FX")
        refuse("MARKET_CLOSED")

        with market.database.connect("function_risk") as risk:
            answer = call(risk, "watch_breakers", EVERYTHING)

        assert answer == {"tripped": False, "reject_rate": None, "due": []}


class TestAccount:
    """Trips after three closes at a loss in a row."""

    @pytest.fixture
    def trader(self, market: Market) -> User:
        return market.user(risk={"max_losses_in_a_row": 3})

    def close(self, market: Market, user: User, *, at_a_profit: bool = False) -> None:
        held = market.trade(user)["position_id"]
        if at_a_profit:
            market.quote("EURUSD", "1.1100", "1.1102")
        market.close_out(user, held)
        market.quote("EURUSD", "1.1000", "1.1002")

    def watch(self, market: Market) -> list[bool]:
        """What came of the accounts that were named."""
        with market.database.connect("function_risk") as risk:
            due = call(risk, "watch_breakers", EVERYTHING)["due"]
            return [call(risk, "trip_account_breaker", account)["tripped"] for account in due]

    def test_after_so_many_losses_it_reduces_and_stays_so(self, market: Market, trader: User) -> None:
        for _ in range(2):
            self.close(market, trader)
        assert self.watch(market) == []
        self.close(market, trader)

        assert self.watch(market) == [True]

        assert market.last_event(trader)["event_type"] == "account.changed"
        assert market.trade(trader)["code"] == "TRADING_HALTED"
        assert self.watch(market) == []
        assert last_change(market) == ("circuit_breaker", "reducing", "Circuit breaker: 3 closes at a loss in a row")

    def test_a_profit_in_between_begins_anew(self, market: Market, trader: User) -> None:
        for profit in (False, False, True, False, False):
            self.close(market, trader, at_a_profit=profit)

        assert self.watch(market) == []

    def test_a_close_that_is_filled_in_parts_is_one(self, market: Market, ticker: Ticker) -> None:
        # given a netting trader who sells at a loss in four parts
        user = market.user(position_mode="netting", risk={"max_losses_in_a_row": 3})
        market.trade(user)
        market.place(user, side="sell", quantity="0.4", limit_price="1.1000", display_quantity="0.1")
        for _ in range(3):
            ticker.tick("EURUSD", "1.1000", "1.1002")
        assert len(market.rows("fills", user)) == 5

        assert self.watch(market) == []
        for _ in range(2):
            market.trade(user, side="sell", quantity="0.1")
        assert self.watch(market) == [True]

    def test_two_positions_closed_by_each_other_are_one(self, market: Market, trader: User) -> None:
        for _ in range(3):
            bought, sold = (market.trade(trader, side=side)["position_id"] for side in ("buy", "sell"))
            request = keyed_request(trader, position_id=bought, opposite_position_id=sold)
            assert send(market.trader, request, "close_by")["realized_pnl"] < 0

        assert self.watch(market) == [True]

    def test_losses_of_before_it_was_armed_again_do_not_count(self, market: Market, trader: User) -> None:
        for _ in range(3):
            self.close(market, trader)
        self.watch(market)
        with Officer.opened(market) as officer:
            officer.set_state("account", "active", account_id=str(trader.account_id))

        self.close(market, trader)

        assert self.watch(market) == []

    def test_what_came_right_meanwhile_is_left(self, market: Market, trader: User) -> None:
        for _ in range(3):
            self.close(market, trader)
        with market.database.connect("function_risk") as risk:
            (due,) = call(risk, "watch_breakers", EVERYTHING)["due"]
            self.close(market, trader, at_a_profit=True)

            assert call(risk, "trip_account_breaker", due) == {"losses": None, "tripped": False}

    def test_what_comes_right_just_now_is_waited_for(self, market: Market, trader: User) -> None:
        # given an account that is due, and a close at a profit that is not committed yet
        held = market.trade(trader)["position_id"]
        for _ in range(3):
            self.close(market, trader)
        request = keyed_request(trader, position_id=held)
        market.quote("EURUSD", "1.1100", "1.1102")
        with (
            market.database.connect("function_trader", autocommit=False) as closing,
            market.database.connect("function_risk") as risk,
            ThreadPoolExecutor(1) as watch,
        ):
            send(closing, request, "close_position")
            due = {"user_id": str(trader.user_id), "account_id": str(trader.account_id)}
            tripping = watch.submit(call, risk, "trip_account_breaker", due)
            eventually(lambda: waits_for_a_lock(market), what="a breaker behind the close")

            # when
            closing.commit()

            # then
            assert tripping.result(10) == {"losses": None, "tripped": False}

    def test_what_a_person_has_reduced_is_not_looked_at(self, market: Market, officer: Officer, trader: User) -> None:
        held = [market.trade(trader)["position_id"] for _ in range(3)]
        officer.set_state("account", "reducing", account_id=str(trader.account_id))
        for position_id in held:
            market.close_out(trader, position_id)

        assert self.watch(market) == []

    def test_without_a_limit_nothing_trips(self, market: Market) -> None:
        user = market.user()
        for _ in range(3):
            self.close(market, user)

        assert self.watch(market) == []

    def test_only_accounts_that_changed_are_looked_at(self, market: Market, trader: User) -> None:
        for _ in range(3):
            self.close(market, trader)

        with market.database.connect("function_risk") as risk:
            assert call(risk, "watch_breakers", EVERYTHING | {"within_s": 0})["due"] == []


def test_every_instrument_has_a_breaker(migrated: MigratedTemplate) -> None:
    scratch = migrated.clone()
    try:
        with scratch.connect() as owner:
            missing = owner.execute(
                "SELECT i.symbol FROM instruments AS i LEFT JOIN symbol_breakers AS b USING (symbol) "
                "WHERE b.move_percent IS NULL OR b.spread_percent IS NULL"
            ).fetchall()
    finally:
        scratch.drop()
    assert missing == []
