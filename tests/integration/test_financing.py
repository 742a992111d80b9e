"""Financing of positions through the procedures: what a roll charges, whom, once, and by which quote and rate."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from decimal import Decimal
from threading import Barrier
from typing import Any
from uuid import UUID

import psycopg
import pytest

from database.load_reference_data import load
from tests.kit import MigratedTemplate, User
from tests.kit.financing import (
    ROLL_DATE,
    financed,
    financing_store,
    hold_schedules,
    now,
    roll,
    run_rollover,
    set_rate,
)
from tests.kit.functions import ROOT
from tests.kit.gateway import eventually
from tests.kit.operators import act, operator_request
from tests.kit.orders import QUOTES, Market, deadlocks, keyed_request, send
from tests.kit.risk import opened
from tests.kit.ticks import Ticker
from trading import rollover
from trading.store.financing import FinancingStore, Holder

# 100,000 x 1.1000 (the bid) x (-2.5 - 0.5) / 100 / 360 = -9.1666...
LONG_CHARGE = Decimal("-9.17")
# 100,000 x 1.1002 (the ask) x (1.0 - 0.5) / 100 / 360 = 1.5280...
SHORT_CHARGE = Decimal("1.53")


@pytest.fixture
def market(migrated: MigratedTemplate) -> Iterator[Market]:
    """A market of the test's own, because a run looks at every account; its books hold in the end."""
    with Market.checked(migrated) as market:
        hold_schedules(market)
        set_rate(market, "EURUSD", "-2.5", "1", markup="0.5")
        yield market
        assert deadlocks(market) == 0


@pytest.fixture
def store(market: Market) -> Iterator[FinancingStore]:
    with financing_store(market) as store:
        yield store


def test_a_long_pays_and_a_short_earns_what_the_rates_say_less_the_markup(
    market: Market, store: FinancingStore
) -> None:
    # given a long and a short position of one account, and one of another
    user, other = market.user(balance=10_000), market.user(balance=10_000)
    long, short = opened(market.trade(user)), opened(market.trade(user, side="sell"))
    opened(market.trade(other, quantity="0.5"))
    roll(market)
    announced: list[UUID] = []

    # when
    report = run_rollover(store, announced)

    # then
    assert sorted(financed(market, user)) == sorted([(long, ROLL_DATE, LONG_CHARGE), (short, ROLL_DATE, SHORT_CHARGE)])
    assert [amount for _, _, amount in financed(market, other)] == [Decimal("-4.58")]
    assert market.account(user)["balance"] == Decimal("9992.36")
    assert (report.charged, report.accounts, report.rolls_open, report.rolls_finished) == (3, 2, 1, 1)
    assert report.complete
    assert set(announced) == {user.account_id, other.account_id}


def documented() -> list[list[str]]:
    """The rows of the table of financing in docs/risk.md."""
    _, _, section = (ROOT / "docs" / "risk.md").read_text().partition("## Financing\n")
    lines = section.partition("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in cells if row[0].startswith(("long", "short"))]


def test_the_table_of_the_documentation_is_what_is_booked(market: Market, store: FinancingStore) -> None:
    # given each position on an account of its own, and the rates of both sides of each symbol
    expected: dict[User, Decimal] = {}
    rates: dict[str, dict[str, str]] = {}
    for position, quote, rate, markup, basis, days, currency, amount in documented():
        side, quantity, symbol = position.split()
        user = market.user(currency=currency)
        assert quote == " / ".join(QUOTES[symbol])
        opened(market.trade(user, symbol=symbol, side={"long": "buy", "short": "sell"}[side], quantity=quantity))
        rates.setdefault(symbol, {"markup": markup, "basis": basis, "days": days})[side] = rate
        expected[user] = Decimal(amount)
    for symbol, terms in rates.items():
        sides = terms.get("long", "0"), terms.get("short", "0")
        set_rate(market, symbol, *sides, markup=terms["markup"], basis=terms["basis"])
        roll(market, symbol, days=int(terms["days"]))

    run_rollover(store)

    assert len(expected) == 6
    assert {user: [amount for _, _, amount in financed(market, user)] for user in expected} == {
        user: [amount] for user, amount in expected.items()
    }


def test_it_is_told_in_ledger_audit_and_event(market: Market, store: FinancingStore) -> None:
    user = market.user(balance=10_000)
    position = opened(market.trade(user))
    roll(market, days=3)

    run_rollover(store)

    charged = Decimal("-27.50")
    (entry,) = [row for row in market.rows("ledger_entries", user) if row["entry_type"] == "financing"]
    assert (entry["amount"], entry["balance_after"], entry["reason"], entry["position_id"]) == (
        charged, Decimal("9972.50"), "Financing of 2026-11-25, 3 days", position,
    )  # fmt: skip
    (audited,) = [row for row in market.rows("order_audit_log", user) if row["action"] == "FINANCED"]
    told = audited["details"]
    assert {name: told[name] for name in ("symbol", "side", "roll_date", "basis", "days")} == {
        "symbol": "EURUSD", "side": "long", "roll_date": "2026-11-25", "basis": "percent_360", "days": 3,
    }  # fmt: skip
    assert [Decimal(told[name]) for name in ("quantity", "price", "rate", "markup", "amount")] == [
        1, Decimal("1.1"), Decimal("-2.5"), Decimal("0.5"), charged,
    ]  # fmt: skip
    event, payload = market.last_event(user), market.last_payload(user)
    assert event["event_type"] == "account.financing"
    assert event["request_id"] == "end-of-day-1"
    assert payload["account"]["balance"] == Decimal("9972.50")
    assert [(fact["position_id"], fact["financing_charged"]) for fact in payload["positions"]] == [
        (str(position), charged)
    ]


def test_positions_tell_what_all_their_rolls_came_to(market: Market, store: FinancingStore) -> None:
    # given two lots of EURUSD, of which one is closed after its first roll, and shares that are not rolled
    user = market.user()
    kept, closed = (opened(market.trade(user)) for _ in range(2))
    shares = opened(market.trade(user, symbol="AAPL"))
    roll(market)
    run_rollover(store)
    market.close_out(user, closed)
    roll(market, roll_date=date(2026, 11, 26), days=3)
    run_rollover(store)

    # when they are read as the API reads them
    listed = {row["id"]: row["financing"] for row in value_of(market, "list_positions(%s, NULL)", user)}
    page = value_of(market, "page_positions(%s, NULL, true, NULL, 10)", user)["positions"]

    # then each has its own: 9.17 and 27.50 for the one, 9.17 for the other
    assert listed == {str(kept): "-36.67", str(shares): "0.00"}
    assert {row["id"]: row["financing"] for row in page} == listed | {str(closed): "-9.17"}
    # and the event of the second roll tells both what it came to and all of it
    (fact,) = market.last_payload(user)["positions"]
    assert (fact["financing"], fact["financing_charged"]) == (Decimal("-36.67"), Decimal("-27.50"))


def test_the_sum_of_a_position_is_read_from_its_index_alone(market: Market) -> None:
    with market.owner.transaction(force_rollback=True):
        for setting in ("SET LOCAL enable_seqscan = off", "SET LOCAL ROLE trading_procedures"):
            market.execute(setting)
        plan = market.execute(
            "EXPLAIN SELECT sum(amount) FROM ledger_entries WHERE user_id = uuidv7() AND position_id = uuidv7() "
            "AND entry_type = 'financing'"
        )

    assert any("Index Only Scan using ledger_entries_financing" in line for (line,) in plan)


def value_of(market: Market, function: str, user: User) -> Any:
    """What a reading function tells the user."""
    row = market.trader.execute(f"SELECT {function}".encode(), (user.user_id,)).fetchone()
    assert row is not None
    return row[0]


def test_what_is_traded_in_the_very_instant_of_the_roll_counts_as_before_it(
    market: Market, store: FinancingStore
) -> None:
    # given a long lot that is turned into a short half at the instant of the roll, and one that is closed in it
    netter, hedger = market.user(position_mode="netting"), market.user()
    opened(market.trade(netter))
    closed = opened(market.trade(hedger))
    turned = opened(market.trade(netter, side="sell", quantity="1.5"))
    roll(market, at=fill_time(market, netter))
    market.close_out(hedger, closed)
    roll(market, roll_date=date(2026, 11, 26), at=fill_time(market, hedger))

    run_rollover(store)

    # then the first roll charges the short half alone and the lot that was open, the second what is left: the half
    half = SHORT_CHARGE / 2
    assert [(position, amount.quantize(half)) for position, _, amount in financed(market, netter)] == [
        (turned, Decimal("0.76")), (turned, Decimal("0.76")),
    ]  # fmt: skip
    assert financed(market, hedger) == [(closed, ROLL_DATE, LONG_CHARGE)]


def fill_time(market: Market, user: User) -> datetime:
    """When the user's last trade was made."""
    return max(row["transact_time"] for row in market.rows("fills", user))


def test_what_was_open_at_the_roll_is_charged_whatever_came_after(market: Market, store: FinancingStore) -> None:
    # given at the roll: one lot, of which some is closed afterwards; two that are closed; one that is added to
    hedger, netter = market.user(), market.user(position_mode="netting")
    reduced, closed = opened(market.trade(hedger)), opened(market.trade(hedger, quantity="2"))
    added = opened(market.trade(netter))
    roll(market)
    market.close_out(hedger, reduced, quantity="0.4")
    market.close_out(hedger, closed)
    opened(market.trade(hedger, quantity="5"))
    market.trade(netter, quantity="3")
    turned = opened(market.trade(netter, side="sell", quantity="6"))
    assert turned != added

    # when
    run_rollover(store)

    # then what is charged is 1, 2 and 1 lots, and nothing of what was opened since
    assert sorted(financed(market, hedger)) == sorted(
        [(reduced, ROLL_DATE, LONG_CHARGE), (closed, ROLL_DATE, Decimal("-18.33"))]
    )
    assert financed(market, netter) == [(added, ROLL_DATE, LONG_CHARGE)]


def test_positions_that_were_closed_by_each_other_are_charged_for_the_roll_before(
    market: Market, store: FinancingStore
) -> None:
    user = market.user()
    long, short = opened(market.trade(user)), opened(market.trade(user, side="sell"))
    roll(market)
    request = keyed_request(user, position_id=str(long), opposite_position_id=str(short))
    send(market.trader, request, "close_by")
    roll(market, roll_date=ROLL_DATE + timedelta(days=1))

    run_rollover(store)

    assert sorted(financed(market, user)) == sorted([(long, ROLL_DATE, LONG_CHARGE), (short, ROLL_DATE, SHORT_CHARGE)])


def test_the_last_quote_before_the_roll_counts_however_late_it_is_charged(
    market: Market, store: FinancingStore
) -> None:
    # given a schedule whose roll comes now, and quotes before and after it
    user = market.user()
    opened(market.trade(user))
    with Ticker.opened(market) as ticker:
        ticker.record(("EURUSD", "1.2000", "1.2002", now()))
        rolled_at = now()
        market.execute(
            "UPDATE financing_schedules SET roll_time = (%(at)s AT TIME ZONE 'UTC')::time, time_zone = 'UTC' "
            "WHERE name = 'FX'",
            {"at": rolled_at},
        )
        for bid, ask in (("1.3000", "1.3002"), ("1.4000", "1.4002")):
            ticker.record(("EURUSD", bid, ask, now()))
    roll(market, at=rolled_at)

    # when
    run_rollover(store)

    # then 100,000 x 1.2 x -0.03 / 360 is charged, and one quote was kept for it
    assert [amount for _, _, amount in financed(market, user)] == [Decimal("-10.00")]
    assert market.execute("SELECT symbol, bid FROM roll_quotes") == [("EURUSD", Decimal("1.2000"))]


def test_six_runs_at_once_and_one_more_charge_nothing_twice(market: Market, store: FinancingStore) -> None:
    # given accounts with positions over two rolls
    users = [market.user() for _ in range(4)]
    for user in users:
        opened(market.trade(user))
    roll(market)
    roll(market, roll_date=ROLL_DATE + timedelta(days=1))
    start = Barrier(6)

    def run(_: int) -> int:
        with financing_store(market) as racer:
            start.wait(30)
            return run_rollover(racer).charged

    # when six runs begin together, and one more comes behind them
    with ThreadPoolExecutor(6) as pool:
        charged = list(pool.map(run, range(6)))
    again = run_rollover(store)

    # then each position has one entry a roll, and the last run had nothing to do
    assert sum(charged) == 8
    assert [len(financed(market, user)) for user in users] == [2] * 4
    assert (again.charged, again.rolls_open) == (0, 0)


def test_a_job_that_was_down_for_ten_days_books_each_in_order_with_its_rate(
    market: Market, store: FinancingStore
) -> None:
    # given ten rolls that nobody has charged; the sixth is of a Wednesday, from the eighth on another rate holds
    user = market.user()
    position = opened(market.trade(user))
    dates = [ROLL_DATE + timedelta(days=day) for day in range(10)]
    set_rate(market, "EURUSD", "-4.5", "1", markup="0.5", valid_from=dates[7])
    for place, day in enumerate(dates):
        roll(market, roll_date=day, days=3 if place == 5 else 1)

    # when
    report = run_rollover(store)

    # then
    amounts = [LONG_CHARGE] * 5 + [Decimal("-27.50")] + [LONG_CHARGE] + [Decimal("-15.28")] * 3
    assert financed(market, user) == [(position, day, amount) for day, amount in zip(dates, amounts, strict=True)]
    assert (report.charged, report.rolls_finished) == (10, 10)
    assert len([row for row in market.rows("events", user) if row["event_type"] == "account.financing"]) == 1


def test_a_missing_rate_is_not_charged_but_reported_and_tried_again(market: Market, store: FinancingStore) -> None:
    # given two rolls of which the first has no rate, and one that nobody holds anything over
    user = market.user()
    position = opened(market.trade(user, symbol="GBPUSD"))
    later = ROLL_DATE + timedelta(days=1)
    set_rate(market, "GBPUSD", "-3.6", "1", valid_from=later)
    for symbol, day in (("GBPUSD", ROLL_DATE), ("GBPUSD", later), ("USDJPY", ROLL_DATE)):
        roll(market, symbol, day)

    # when
    reports = [run_rollover(store) for _ in range(2)]
    set_rate(market, "GBPUSD", "-7.2", "1", valid_from=ROLL_DATE, valid_until=ROLL_DATE)
    last = run_rollover(store)

    # then 100,000 x 1.25 x 3.6 % / 360 = 12.50 was charged at once, and twice as much when the rate had come
    assert [(report.rates_missing, report.charged, report.rolls_finished) for report in reports] == [
        (1, 1, 2), (1, 0, 0),
    ]  # fmt: skip
    assert (last.rates_missing, last.charged, last.rolls_finished) == (0, 1, 1)
    assert financed(market, user) == [
        (position, later, Decimal("-12.50")), (position, ROLL_DATE, Decimal("-25.00")),
    ]  # fmt: skip


def test_a_rate_that_is_corrected_in_between_charges_nobody_otherwise(market: Market, store: FinancingStore) -> None:
    # given two accounts, one of which was charged when the rate was corrected
    first, second = market.user(), market.user()
    for user in (first, second):
        opened(market.trade(user))
    roll(market)
    store.open_rolls()
    (holder,) = store.find_due(accounts_max=1, after=None).due
    store.finance(holder, entries_max=10, request_id="one")
    set_rate(market, "EURUSD", "-9", "1")

    run_rollover(store)

    assert {amount for user in (first, second) for _, _, amount in financed(market, user)} == {LONG_CHARGE}


def test_who_borrows_nothing_pays_nothing(market: Market, store: FinancingStore) -> None:
    # given a cash account that holds shares at the roll
    holder = market.user(kind="cash")
    opened(market.trade(holder, symbol="AAPL", quantity="10"))
    set_rate(market, "AAPL", "-5", "1")
    roll(market, "AAPL")

    report = run_rollover(store)

    assert financed(market, holder) == []
    assert report.rolls_finished == 1


def test_it_is_converted_at_the_quotes_of_the_roll(market: Market, store: FinancingStore) -> None:
    user = market.user(currency="EUR")
    opened(market.trade(user, symbol="USDJPY", side="sell"))
    set_rate(market, "USDJPY", "3.6", "-4.32")
    with Ticker.opened(market) as ticker:
        rolled_at = roll(market, "USDJPY")
        market.execute(
            "UPDATE financing_schedules SET roll_time = (%s::timestamptz AT TIME ZONE 'UTC')::time, time_zone = 'UTC'",
            (rolled_at,),
        )
        ticker.record(("USDJPY", "250.000", "250.010", now()), ("EURUSD", "2.1000", "2.1002", now()))

    run_rollover(store)

    # then 100,000 x 150.010 x 4.32 % / 360 = 1,800.12 JPY are paid at 1 / 150.000, then 1 / 1.1000: the bids of then
    assert [amount for _, _, amount in financed(market, user)] == [Decimal("-10.91")]


def test_what_cannot_be_converted_waits_and_the_rest_is_charged(market: Market, store: FinancingStore) -> None:
    # given a position in yen whose account has lost its rate to the euro before the roll, and one in dollars
    user = market.user(currency="EUR")
    opened(market.trade(user, symbol="USDJPY"))
    set_rate(market, "USDJPY", "3.6", "-4.32")
    market.execute("DELETE FROM quotes WHERE symbol = 'EURUSD'")
    roll(market, "USDJPY")

    waiting = run_rollover(store)
    market.quote("EURUSD", "1.1000", "1.1002", now() - timedelta(minutes=1))
    charged = run_rollover(store)

    assert (waiting.charged, waiting.unconverted, waiting.rolls_finished) == (0, 1, 0)
    assert (charged.charged, charged.rolls_finished) == (1, 1)


def test_pages_name_who_can_be_charged_now_and_go_on_behind_the_last(market: Market, store: FinancingStore) -> None:
    # given one who has sold since the roll what they held, one whose roll has no rate, and one who still holds theirs
    sold, unrated, holder = users = [market.user() for _ in range(3)]
    position = opened(market.trade(sold))
    opened(market.trade(unrated, symbol="GBPUSD"))
    opened(market.trade(holder))
    for symbol in ("EURUSD", "GBPUSD"):
        roll(market, symbol)
    assert market.close_out(sold, position)["outcome"] == "filled"
    store.open_rolls()

    # when they are asked for one by one
    pages = [store.find_due(accounts_max=1, after=None)]
    while pages[-1].next_after and len(pages) < 9:
        pages.append(store.find_due(accounts_max=1, after=pages[-1].next_after))

    # then each comes once, and who is named can be charged; what is booked to the last leaves nothing
    keys = {user.user_id: Holder(user.user_id, user.account_id) for user in users}
    assert [page.checked for page in pages] == [1, 1, 1, 0]
    assert [holder for page in pages for holder in page.due] == [
        key for _, key in sorted(keys.items()) if key.user_id != unrated.user_id
    ]
    financed_at_once = store.finance(keys[holder.user_id], entries_max=1, request_id="one")
    assert (financed_at_once.booked, financed_at_once.more) == (1, False)


def test_what_it_charges_follows_on_what_the_account_is_doing(market: Market, store: FinancingStore) -> None:
    # given a charge that is due while money comes in
    user = market.user(balance=1000)
    opened(market.trade(user, quantity="0.1"))
    roll(market)
    store.open_rolls()
    with (
        market.database.connect("function_operator", autocommit=False) as operator,
        ThreadPoolExecutor(1) as pool,
    ):
        act(operator, "deposit", operator_request(user, amount="100"))
        charging = pool.submit(store.finance, Holder(user.user_id, user.account_id), entries_max=10, request_id="one")
        eventually(lambda: market.execute("SELECT pid FROM pg_locks WHERE NOT granted"), what="the charge behind it")

        # when that is booked
        operator.commit()
        assert charging.result(10).booked == 1

    # then both are in the balance
    assert market.account(user)["balance"] == 1100 + financed(market, user)[0][2]


def test_a_run_without_time_begins_nothing_and_the_next_goes_on(market: Market, store: FinancingStore) -> None:
    user = market.user()
    opened(market.trade(user))
    roll(market)

    cut = run_rollover(store, time_left_ms=1_000)
    whole = run_rollover(store)

    assert (cut.charged, cut.complete, cut.rolls_finished) == (0, False, 0)
    assert (whole.charged, whole.complete, whole.rolls_finished) == (1, True, 1)


def test_many_positions_are_charged_in_several_transactions(
    market: Market, store: FinancingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollover, "ENTRIES_MAX", 2)
    monkeypatch.setattr(rollover, "PAGE_ACCOUNTS_MAX", 1)
    users = [market.user() for _ in range(2)]
    for user in users:
        for _ in range(5):
            opened(market.trade(user, quantity="0.1"))
    roll(market)

    report = run_rollover(store)

    assert (report.charged, report.accounts, report.rolls_finished) == (10, 6, 1)
    assert [len(financed(market, user)) for user in users] == [5, 5]


class TestRolls:
    """open_rolls: which rolls become rows."""

    def rolls_of(self, market: Market, symbol: str) -> list[tuple[date, int]]:
        return market.execute(
            "SELECT roll_date, days FROM instrument_rolls WHERE symbol = %s ORDER BY roll_date", (symbol,)
        )

    def test_each_missed_one_is_made_once_and_charges_nothing_that_was_opened_since(
        self, market: Market, store: FinancingStore
    ) -> None:
        # given schedules that were last looked at more than ten days ago, and a position of now
        user = market.user()
        opened(market.trade(user))
        for table in ("financing_schedules", "instrument_financing"):
            market.execute(f"UPDATE {table} SET rolls_after = clock_timestamp() - interval '10 days'")

        first, second = run_rollover(store), run_rollover(store)

        # then the rolls of ten days are there, three days' worth of money on seven at least, and are finished
        crypto, forex = self.rolls_of(market, "BTCUSD"), self.rolls_of(market, "EURUSD")
        assert len(crypto) == 10
        assert [days for _, days in crypto] == [1] * 10
        assert all(day.weekday() < 5 for day, _ in forex)
        assert first.rolls_open == first.rolls_finished > 500
        assert second.rolls_open == 0
        assert financed(market, user) == []

    def test_an_instrument_that_is_financed_from_now_on_has_no_rolls_of_before(
        self, market: Market, store: FinancingStore
    ) -> None:
        # given schedules that have long been rolled, and a symbol that a release has only now given one of them
        market.execute("UPDATE financing_schedules SET rolls_after = clock_timestamp() - interval '10 days'")
        market.execute("UPDATE instrument_financing SET rolls_after = '-infinity'")
        market.execute("DELETE FROM instrument_financing WHERE symbol = 'BTCUSD'")
        load(market.owner)

        store.open_rolls()

        assert self.rolls_of(market, "BTCUSD") == []
        assert len(self.rolls_of(market, "ETHUSD")) == 10

    def test_a_roll_of_this_minute_is_left_alone(self, market: Market, store: FinancingStore) -> None:
        market.execute(
            "UPDATE financing_schedules SET rolls_after = clock_timestamp() - interval '1 hour', time_zone = 'UTC', "
            "roll_time = (clock_timestamp() - interval '30 seconds')::time, days = '{1,1,1,1,1,1,1}'"
        )

        assert store.open_rolls() == ()


def test_the_ledger_takes_no_second_entry_whoever_writes_it(market: Market, store: FinancingStore) -> None:
    user = market.user()
    opened(market.trade(user))
    roll(market)
    run_rollover(store)

    with pytest.raises(psycopg.errors.UniqueViolation):
        market.execute(
            "INSERT INTO ledger_entries (user_id, account_id, entry_number, entry_type, amount, balance_after, "
            "currency, position_id, roll_date, created_at) SELECT user_id, account_id, entry_number + 1, entry_type, "
            "amount, "
            "balance_after, currency, position_id, roll_date, created_at FROM ledger_entries "
            "WHERE entry_type = 'financing'"
        )
