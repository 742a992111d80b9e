"""realized_pnl_fifo: first in, first out beside the weighted average, against hand calculations and an own count."""

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from database.run_query import run_query
from local import commands, environment
from local.environment import State
from tests.kit import MigratedTemplate, User
from tests.kit.orders import Market

ALWAYS = {"from": "-infinity", "to": "infinity"}
EXAMPLES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def market(shared: Market) -> Market:
    shared.prepare()
    # no slippage: a fill is at the quote
    shared.execute("UPDATE instruments SET slippage_base = 0, slippage_min = 0")
    return shared


def realized(market: Market, user: User, **bounds: str) -> list[dict[str, Any]]:
    with market.database.connect("compliance") as connection:
        (table,) = run_query(connection, "realized_pnl_fifo", ALWAYS | bounds)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return [row for row in rows if row["account_id"] == user.account_id]


def trade_at(market: Market, user: User, side: str, quantity: str, price: str) -> None:
    market.quote("EURUSD", price, price)
    market.trade(user, side=side, quantity=quantity)


def test_what_came_first_goes_first(market: Market) -> None:
    # given 1 lot at 1.1000 and 2 at 1.1300, which cost 1.1200 on average
    user = market.user(position_mode="netting")
    trade_at(market, user, "buy", "1", "1.1000")
    trade_at(market, user, "buy", "2", "1.1300")

    # when 1.5 lots are sold at 1.1400
    trade_at(market, user, "sell", "1.5", "1.1400")

    # then 0.0400 of 1 and 0.0100 of 0.5 by FIFO; 0.0200 of 1.5 by the average, which is booked
    assert realized(market, user) == [
        {
            "account_id": user.account_id,
            "symbol": "EURUSD",
            "closing_fills": 1,
            "quantity": Decimal("1.5"),
            "quote_currency": "USD",
            "fifo": Decimal(4500),
            "weighted_average": Decimal(3000),
            "difference": Decimal(1500),
            "currency": "USD",
            "booked": Decimal(3000),
        }
    ]
    # and when the rest is sold, the two ways have come to the same
    trade_at(market, user, "sell", "1.5", "1.1400")
    (row,) = realized(market, user)
    assert (row["fifo"], row["difference"], row["booked"]) == (6000, 0, 6000)


def test_a_short_is_counted_the_other_way(market: Market) -> None:
    user = market.user(position_mode="netting")
    trade_at(market, user, "sell", "1", "1.1400")
    trade_at(market, user, "sell", "1", "1.1000")

    trade_at(market, user, "buy", "1", "1.1000")

    (row,) = realized(market, user)
    assert (row["fifo"], row["weighted_average"]) == (4000, 2000)


def test_each_position_begins_anew(market: Market) -> None:
    # given a position that is closed, and another of the same symbol
    user = market.user(position_mode="netting")
    trade_at(market, user, "buy", "1", "1.1000")
    trade_at(market, user, "sell", "1", "1.1100")
    trade_at(market, user, "buy", "1", "1.1200")
    trade_at(market, user, "sell", "1", "1.1250")

    (row,) = realized(market, user)

    assert (row["closing_fills"], row["fifo"], row["booked"]) == (2, 1500, 1500)


def test_the_bounds_are_of_the_closing(market: Market) -> None:
    user = market.user(position_mode="netting")
    trade_at(market, user, "buy", "1", "1.1000")
    opened = datetime.now(UTC)
    trade_at(market, user, "sell", "1", "1.1100")

    assert realized(market, user, to=opened.isoformat()) == []
    (row,) = realized(market, user, **{"from": opened.isoformat()})
    assert row["fifo"] == 1000


def test_hedging_accounts_are_not_in_it(market: Market) -> None:
    user = market.user()
    market.close_out(user, market.trade(user)["position_id"])

    assert realized(market, user) == []


@EXAMPLES
@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.integers(1, 5), st.integers(-300, 300)),
        min_size=1,
        max_size=10,
    )
)
def test_it_is_what_a_queue_of_lots_says(market: Market, steps: list[tuple[bool, int, int]]) -> None:
    # given buys and sales of a long, never of more than is held
    user = market.user(position_mode="netting", balance=10_000_000, risk={"daily_trade_limit": None})
    lots: deque[Decimal] = deque()
    fifo, whole = Decimal(0), Decimal(0)
    for buys, most, ticks in steps:
        price = Decimal("1.1") + ticks * Decimal("0.0001")
        count = most if buys else min(most, len(lots))
        if buys:
            lots.extend([price] * count)
        else:
            fifo += sum((price - lots.popleft() for _ in range(count)), Decimal(0)) * 10_000
        if count:
            trade_at(market, user, "buy" if buys else "sell", str(count * Decimal("0.1")), str(price))
    rows = realized(market, user)

    # then FIFO is what the queue says
    assert sum((row["fifo"] for row in rows), Decimal(0)) == fifo
    # and once nothing is left, the average says the same
    if lots:
        whole = sum((Decimal("1.2") - price for price in lots), Decimal(0)) * 10_000
        trade_at(market, user, "sell", str(len(lots) * Decimal("0.1")), "1.2000")
        (row,) = realized(market, user)
        assert row["fifo"] == fifo + whole
        assert abs(row["difference"]) < Decimal("0.000001")
        # each fill was rounded once
        assert abs(row["booked"] - row["fifo"]) <= Decimal("0.005") * row["closing_fills"]


def test_the_command_prints_it(market: Market, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user = market.user(position_mode="netting")
    trade_at(market, user, "buy", "1", "1.1000")
    trade_at(market, user, "sell", "1", "1.1100")
    state = State(tmp_path / "state")
    state.create()
    environment.write_env(state, port=8000, owner_url=market.database.url, redis_url="redis://127.0.0.1/0")
    (state.secrets / "compliance.password").write_text(market.database.passwords["compliance"])
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()

    printed = [
        (commands.main(["--state", str(state.folder), "realized-pnl", *bounds]), capsys.readouterr().out)
        for bounds in ([], ["--from", tomorrow])
    ]

    assert [code for code, _ in printed] == [0, 0]
    assert str(user.account_id) in printed[0][1]
    assert printed[1][1].split() == [
        "account_id", "symbol", "closing_fills", "quantity", "quote_currency", "fifo", "weighted_average",
        "difference", "currency", "booked",
    ]  # fmt: skip
