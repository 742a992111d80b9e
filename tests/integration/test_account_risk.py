"""An account's exposure, value at risk and drawdown, by hand and against the layer's own formulas."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from local import commands
from tests.kit import MigratedTemplate, User
from tests.kit.financing import ROLE, hold_schedules
from tests.kit.functions import bearer, call, function_environment, http_event, load_function, make_token
from tests.kit.operators import act, operator_request
from tests.kit.orders import Market
from tests.kit.risk import opened
from trading.store.database import Database
from trading.store.equity import EquityStore
from trading.value_at_risk import QUANTILE_95, QUANTILE_99, historical_var, parametric_var, scenario_loss

MIDNIGHT = datetime(2025, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        hold_schedules(market)
        yield market


@pytest.fixture
def market(shared: Market) -> Iterator[Market]:
    """One market for the module; quotes are as ever, and a history is the test's own."""
    shared.prepare()
    yield shared
    shared.execute("DELETE FROM roll_quotes")
    shared.execute("DELETE FROM instrument_rolls")


def risk(market: Market, user: User) -> dict[str, Any]:
    row = market.trader.execute("SELECT get_account_risk(%s, NULL)", (user.user_id,)).fetchone()
    assert row is not None
    return row[0]


def closes(market: Market, symbol: str, mids: list[Decimal]) -> None:
    """A history of one roll a day, each with its last quote before it."""
    for day, mid in enumerate(mids):
        rolled_at = MIDNIGHT + timedelta(days=day)
        market.execute(
            "INSERT INTO instrument_rolls (symbol, roll_date, rolled_at, days, finished_at) VALUES (%s, %s, %s, 1, %s)",
            (symbol, rolled_at.date(), rolled_at, rolled_at),
        )
        market.execute(
            "INSERT INTO roll_quotes VALUES (%s, %s, %s, %s)", (symbol, rolled_at - timedelta(seconds=1), mid, mid)
        )


def test_exposure_by_symbol_and_by_currency(market: Market) -> None:
    # given on a euro account 2 lots of EURUSD less half a lot, a lot of USDJPY sold, and 100 shares
    user = market.user(currency="EUR", balance=1_000_000)
    for symbol, side, quantity in (
        ("EURUSD", "buy", "2"),
        ("EURUSD", "sell", "0.5"),
        ("USDJPY", "sell", "1"),
        ("AAPL", "buy", "100"),
    ):
        opened(market.trade(user, symbol=symbol, side=side, quantity=quantity))

    exposure = risk(market, user)["exposure"]

    # then values are at bid and ask, and turned into euros at the ask of EURUSD: by 1.1002
    assert exposure["by_symbol"] == [
        {"symbol": "AAPL", "long_quantity": "100", "short_quantity": "0", "long_value": "13632.07",
         "short_value": "0.00"},
        {"symbol": "EURUSD", "long_quantity": "2", "short_quantity": "0.5", "long_value": "199963.64",
         "short_value": "50000.00"},
        {"symbol": "USDJPY", "long_quantity": "0", "short_quantity": "1", "long_value": "0.00",
         "short_value": "90892.56"},
    ]  # fmt: skip
    assert (exposure["gross"], exposure["net"]) == ("354488.27", "72703.14")
    assert {entry["currency"]: entry["amount"] for entry in exposure["by_currency"]} == {
        # 200,000 - 50,000
        "EUR": "150000.00",
        # - 200,000 x 1.1 + 50,000 x 1.1002 - 100,000 + 100 x 149.98
        "USD": "-249992.00",
        # 100,000 x 150.010
        "JPY": "15001000",
    }
    # and value at risk goes by what each symbol has gained for itself
    gained = "SELECT h.symbol, h.unrealized_pnl FROM unnest(held_risks(%s)) AS h ORDER BY 1"
    valued = "SELECT symbol, sum(unrealized_pnl) FROM valued_positions(%s, %s) GROUP BY 1 ORDER BY 1"
    assert market.execute(gained, (user.account_id,)) == market.execute(valued, (user.user_id, user.account_id))


def test_without_a_history_it_is_by_volatility_and_nothing_is_netted(market: Market) -> None:
    user = market.user()
    opened(market.trade(user))
    opened(market.trade(user, symbol="GBPUSD", side="sell"))

    found = risk(market, user)["value_at_risk"]

    values = [Decimal(110_000), Decimal(-125040)]
    volatilities = [
        volatility
        for (volatility,) in market.execute(
            "SELECT volatility_average FROM instruments WHERE symbol IN ('EURUSD', 'GBPUSD') ORDER BY symbol"
        )
    ]
    assert found == {
        "method": "parametric",
        "scenarios": 0,
        "one_day_95": f"{parametric_var(values, volatilities, QUANTILE_95):.2f}",
        "one_day_99": f"{parametric_var(values, volatilities, QUANTILE_99):.2f}",
    }


def test_with_a_history_it_is_a_loss_that_was(market: Market) -> None:
    # given 200 days: EURUSD falls by 1 % on each 20th, gains a little on the others; GBPUSD falls with it by 2 %
    user = market.user()
    opened(market.trade(user))
    opened(market.trade(user, symbol="GBPUSD", side="sell"))
    euro, pound = [Decimal("1.1")], [Decimal("1.25")]
    for day in range(1, 201):
        euro.append(euro[-1] * (Decimal("0.99") if day % 20 == 0 else Decimal("1.0005")))
        pound.append(pound[-1] * (Decimal("0.98") if day % 50 == 0 else Decimal("1.001")))
    closes(market, "EURUSD", [mid.quantize(Decimal("1e-12")) for mid in euro])
    closes(market, "GBPUSD", [mid.quantize(Decimal("1e-12")) for mid in pound])

    found = risk(market, user)["value_at_risk"]

    # then it is what the layer finds among the same days: 100,000 x 1.1000 long, 100,000 x 1.2504 short
    losses = [
        -(Decimal(110_000) * (euro[d] / euro[d - 1] - 1) - Decimal(125_040) * (pound[d] / pound[d - 1] - 1))
        for d in range(1, 201)
    ]
    at_95, at_99 = (historical_var(losses, Decimal(level)) for level in ("0.95", "0.99"))
    assert (found["method"], found["scenarios"]) == ("historical", 200)
    assert (found["one_day_95"], found["one_day_99"]) == (f"{at_95:.2f}", f"{at_99:.2f}")
    # by hand: ten of 200 days lost 1,100 in euros; the 190th loss of 200 is still one of the others
    assert (found["one_day_95"], found["one_day_99"]) == ("70.04", "1225.04")


def test_no_more_than_the_last_250_days_are_looked_at(market: Market) -> None:
    # given a fall by a half on the first of 252 days, by a tenth on the second, and nothing since
    user = market.user()
    opened(market.trade(user))
    closes(market, "EURUSD", [Decimal(2), Decimal(1), Decimal("0.9"), *[Decimal("0.9")] * 250])

    found = risk(market, user)["value_at_risk"]

    assert (found["method"], found["scenarios"], found["one_day_99"]) == ("historical", 250, "0.00")
    # and of 251 the second one counts
    market.execute("DELETE FROM instrument_rolls WHERE roll_date = (SELECT max(roll_date) FROM instrument_rolls)")
    assert market.execute("SELECT count(*), min(daily_return) FROM daily_returns(ARRAY['EURUSD'], 250)") == [
        (250, Decimal("-0.1"))
    ]


@pytest.mark.parametrize(("days", "scenarios"), [((101, 130), 100), ((130, 101), 100), ((130, 100), 0)])
def test_a_hundred_days_that_tell_of_all_that_is_held_are_enough(
    market: Market, days: tuple[int, int], scenarios: int
) -> None:
    user = market.user()
    for symbol, count in zip(("EURUSD", "GBPUSD"), days, strict=True):
        opened(market.trade(user, symbol=symbol))
        closes(market, symbol, [Decimal(1)] * count)

    found = risk(market, user)["value_at_risk"]

    assert (found["method"], found["scenarios"]) == ("historical" if scenarios else "parametric", scenarios)


def test_a_cross_moves_with_both_of_its_pairs(market: Market) -> None:
    # given on a euro account a position in yen, and days on which yen, dollar and euro all move
    user = market.user(currency="EUR")
    opened(market.trade(user, symbol="USDJPY"))
    market.quote("USDJPY", "160.000", "160.010")
    yen, euro = [Decimal(150)], [Decimal("1.1")]
    for day in range(1, 121):
        yen.append(yen[-1] * (Decimal("0.98") if day % 7 == 0 else Decimal("1.004")))
        euro.append(euro[-1] * (Decimal("1.03") if day % 14 == 0 else Decimal("0.999")))
    closes(market, "USDJPY", yen)
    closes(market, "EURUSD", euro[:111])  # the last ten days tell of one pair alone

    found = risk(market, user)["value_at_risk"]

    # then each loss is what the layer makes of value, gain, return and rate: JPY to USD, and that to EUR
    ((value, gained),) = market.execute(
        "SELECT h.value, h.unrealized_pnl FROM unnest(held_risks(%s)) AS h", (user.account_id,)
    )
    losses = [
        scenario_loss(value, gained, yen[d] / yen[d - 1] - 1, yen[d - 1] / yen[d] * euro[d - 1] / euro[d] - 1)
        for d in range(1, 111)
    ]
    at_95, at_99 = (historical_var(losses, Decimal(level)) for level in ("0.95", "0.99"))
    assert found["scenarios"] == 110
    assert (found["one_day_95"], found["one_day_99"]) == (f"{at_95:.2f}", f"{at_99:.2f}")


@pytest.mark.parametrize(
    ("sold", "bought", "pairs"),
    [
        ("EUR", "EUR", []),
        ("USD", "JPY", [("USDJPY", False)]),
        ("EUR", "JPY", [("EURUSD", False), ("USDJPY", False)]),
        ("JPY", "EUR", [("EURUSD", True), ("USDJPY", True)]),
        ("CHF", "EUR", [("EURUSD", True)]),  # of which one half is not quoted
    ],
)
def test_an_amount_is_at_risk_of_each_pair_that_converts_it(
    market: Market, sold: str, bought: str, pairs: list[tuple[str, bool]]
) -> None:
    market.execute("DELETE FROM quotes WHERE symbol NOT IN ('EURUSD', 'USDJPY')")

    assert market.execute("SELECT * FROM conversion_pairs(%s, %s) ORDER BY 1", (sold, bought)) == pairs


def test_what_was_gained_in_another_currency_is_at_risk_of_its_rate(market: Market) -> None:
    # given on a euro account 100 shares that have gained 1,000.00 dollars, and no history
    user = market.user(currency="EUR")
    opened(market.trade(user, symbol="AAPL", quantity="100"))
    market.quote("AAPL", "160.00", "160.02")
    value, gained = Decimal(16_000) / Decimal("1.1002"), Decimal(1_000) / Decimal("1.1002")
    shares, euro = (
        volatility
        for (volatility,) in market.execute(
            "SELECT volatility_average FROM instruments WHERE symbol IN ('AAPL', 'EURUSD') ORDER BY symbol"
        )
    )
    found = risk(market, user)["value_at_risk"]
    assert (found["method"], found["one_day_95"]) == (
        "parametric", f"{parametric_var([value, gained], [shares, euro], QUANTILE_95):.2f}"
    )  # fmt: skip

    # when there are 200 days: the shares fall by 1 % on each 20th, the euro rises by 2 % on each 25th
    share, rate = [Decimal(160)], [Decimal("1.1")]
    for day in range(1, 201):
        share.append(share[-1] * (Decimal("0.99") if day % 20 == 0 else 1))
        rate.append(rate[-1] * (Decimal("1.02") if day % 25 == 0 else 1))
    closes(market, "AAPL", share)
    closes(market, "EURUSD", rate)
    found = risk(market, user)["value_at_risk"]

    # then it is what the layer finds among the same days
    losses = [
        scenario_loss(value, gained, share[d] / share[d - 1] - 1, rate[d - 1] / rate[d] - 1) for d in range(1, 201)
    ]
    at_95, at_99 = (historical_var(losses, Decimal(level)) for level in ("0.95", "0.99"))
    assert (found["method"], found["scenarios"]) == ("historical", 200)
    assert (found["one_day_95"], found["one_day_99"]) == (f"{at_95:.2f}", f"{at_99:.2f}")
    # by hand: 908.93 euros of gain lose 1 - 1 / 1.02 of themselves on six days that the shares stand still, up to the
    # 190th loss of 200; 14,542.81 lose 1 % on eight days that the rate does, up to the 198th
    assert (found["one_day_95"], found["one_day_99"]) == ("17.82", "145.43")


def test_an_account_that_holds_nothing(market: Market) -> None:
    user = market.user(balance=500)

    found = risk(market, user)

    # its day began with the deposit, before that was there
    assert found.pop("day") | {"starts_at": None} == {"starts_at": None, "start_equity": "0.00", "pnl": "0.00"}
    assert found == {
        "account_id": str(user.account_id),
        "currency": "USD",
        "equity": "500.00",
        "exposure": {"gross": "0.00", "net": "0.00", "by_symbol": [], "by_currency": []},
        "value_at_risk": {"method": "parametric", "scenarios": 0, "one_day_95": "0.00", "one_day_99": "0.00"},
        "drawdown": {"peak_equity": "500.00", "current": "0.00", "current_percent": "0.00", "max": "0.00"},
    }


def test_an_account_that_never_had_anything_and_one_whose_day_is_over(market: Market) -> None:
    nobody, user = market.user(balance=0), market.user(balance=500)
    market.execute(
        "UPDATE account_days SET starts_at = starts_at - interval '2 days', opened_at = opened_at - interval '2 days', "
        "ends_at = ends_at - interval '2 days' WHERE user_id = %s",
        (user.user_id,),
    )
    market.execute(
        "UPDATE accounts SET day_ends_at = day_ends_at - interval '2 days' WHERE user_id = %s", (user.user_id,)
    )

    nothing = {"starts_at": None, "start_equity": None, "pnl": None}
    assert [risk(market, each)["day"] for each in (nobody, user)] == [nothing, nothing]
    assert risk(market, nobody)["drawdown"] == {
        "peak_equity": "0.00", "current": "0.00", "current_percent": None, "max": "0.00",
    }  # fmt: skip


@pytest.mark.parametrize("losses", [[], [-3, -2, -1], [-3, 2, 1], list(range(-99, 101))])
def test_a_loss_that_is_not_exceeded_is_none_below_zero(market: Market, losses: list[int]) -> None:
    asked = "SELECT historical_var(%s::numeric[], 0.95)"

    assert market.execute(asked, (losses,)) == [(historical_var([Decimal(loss) for loss in losses], Decimal("0.95")),)]


def test_without_a_quote_nothing_is_made_up(market: Market) -> None:
    user = market.user()
    opened(market.trade(user))
    opened(market.trade(user, symbol="GBPUSD", side="sell"))
    market.execute("DELETE FROM quotes WHERE symbol = 'EURUSD'")

    found = risk(market, user)

    # then a sum of which one part is not known is not known either
    exposure, at_risk = found["exposure"], found["value_at_risk"]
    assert (found["equity"], exposure["gross"], exposure["net"]) == (None, None, None)
    assert (at_risk["one_day_95"], at_risk["one_day_99"], found["drawdown"]["current"]) == (None, None, None)
    assert {entry["currency"]: entry["amount"] for entry in exposure["by_currency"]} == {
        "EUR": "100000.00", "GBP": "-100000.00", "USD": None,
    }  # fmt: skip


def test_drawdown_counts_what_was_gained_not_what_came_and_went(market: Market) -> None:
    # given a lot bought at 1.10026 that rises by 2,000 from there, falls by 5,000, with money coming and going
    user = market.user(balance=10_000)
    opened(market.trade(user))
    database = Database(lambda: market.database.url_for(ROLE))
    store = EquityStore(database)

    def hours_ago(hours: int, bid: str) -> None:
        market.quote("EURUSD", bid, str(Decimal(bid) + Decimal("0.0002")))
        store.take_snapshots(accounts_max=100)
        market.execute("UPDATE snapshot_scan SET hour = hour - interval '1 hour'")
        ago = timedelta(hours=hours)
        market.execute(
            "UPDATE equity_snapshots SET hour = hour - %s, taken_at = taken_at - %s "
            "WHERE hour > clock_timestamp() - interval '2 hours'",
            (ago, ago),
        )

    hours_ago(30, "1.12026")
    act(market.owner, "withdraw", operator_request(user, amount="3000"))
    hours_ago(20, "1.07026")
    act(market.owner, "deposit", operator_request(user, amount="500"))
    hours_ago(10, "1.09026")
    database.close()

    # then the peak of 12,000 has moved with the money to 9,500; it was 5,000 below and is 3,000 below now
    assert risk(market, user)["drawdown"] == {
        "peak_equity": "9500.00", "current": "3000.00", "current_percent": "31.58", "max": "5000.00",
    }  # fmt: skip


def test_what_was_lost_and_paid_for_trading_counts_as_lost(market: Market) -> None:
    # given ten shares bought at 150.00 and sold at 140.00, for a commission each time
    user = market.user(balance=10_000)
    position = opened(market.trade(user, symbol="AAPL", quantity="10"))
    market.quote("AAPL", "140.00", "140.02")
    assert market.close_out(user, position)["outcome"] == "filled"
    lost = 10_000 - market.account(user)["balance"]

    told = risk(market, user)
    found = told["drawdown"]

    assert told["exposure"]["by_symbol"] == []
    assert {row["entry_type"] for row in market.rows("ledger_entries", user)} == {
        "deposit", "commission", "realized_pnl",
    }  # fmt: skip
    assert (found["peak_equity"], found["current"], found["max"]) == ("10000.00", f"{lost:.2f}", f"{lost:.2f}")


def test_compliance_prints_it(
    market: Market, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    user = market.user(balance=500)
    monkeypatch.setenv("DATABASE_URL", market.database.url_for("compliance"))

    assert commands.main(["account-risk", "--email", user.email]) == 0
    assert json.loads(capsys.readouterr().out) == risk(market, user)
    assert commands.main(["account-risk", "--email", "nobody@example.com"]) == 2


def test_owners_and_operators_read_it_over_http(
    market: Market, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str
) -> None:
    user, operator = market.user(balance=500), market.user(balance=0)
    own = http_event("GET /api/v1/account/risk", headers=bearer(make_token(user)))
    foreign = http_event(
        "GET /api/v1/accounts/{id}/risk",
        path_parameters={"id": str(user.account_id)},
        headers=bearer(make_token(operator, role="operator", permissions=["accounts:write"])),
    )

    answers = []
    for role, function, event in (
        ("function_trader", "manage_orders", own),
        ("function_operator", "manage_accounts", foreign),
    ):
        given = {"database": market.database, "redis_url": redis_url, "role": role}
        with function_environment(monkeypatch, tmp_path, **given):
            answers.append(call(load_function(function), event))

    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].body == answers[1].body == risk(market, user)
