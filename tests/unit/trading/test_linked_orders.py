"""What a group of orders is refused for before the database sees it, and where the fault is said to lie."""

from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from tests.kit.instruments import AAPL, EURUSD, instrument
from trading.errors import ErrorCode, TradingError
from trading.instruments import Instrument
from trading.linked_orders import LinkedEntry, LinkKind, StopLoss, TakeProfit, asked_of, check_linked
from trading.order_entry import OrderEntry

LIMIT = {"order_type": "limit", "limit_price": "1.1"}
STOP = {"order_type": "stop", "stop_price": "1.2"}
MARKET = {"order_type": "market"}
CONDITION = {"symbol": "AAPL", "watch": "ask", "direction": "at_or_above", "level": "150"}


class Floor:
    """An allow-list."""

    def find(self, symbol: str) -> Instrument | None:
        return {"EURUSD": EURUSD, "AAPL": AAPL, "ELSEWHERE": instrument(symbol="ELSEWHERE", venue="paper")}.get(symbol)


def group(kind: LinkKind, *orders: dict[str, Any], **exits: Any) -> LinkedEntry:
    common = {"symbol": "EURUSD", "side": "buy", "quantity": "1", "idempotency_key": "key"}
    entries = tuple(OrderEntry.model_validate(common | order) for order in orders)
    return LinkedEntry(kind, entries, tuple(f"orders.{place}" for place in range(len(orders))), **exits)


@pytest.mark.parametrize(
    "entry",
    [
        group("oco", LIMIT, STOP),
        group("oco", LIMIT | {"post_only": True}, STOP),
        group("oto", MARKET, LIMIT, STOP | {"symbol": "AAPL", "quantity": "2"}),
        group("oto", LIMIT | {"post_only": True}, LIMIT),
        group("oto", MARKET | {"time_in_force": "fok"}, LIMIT | {"time_in_force": "day"}),
        group("bracket", MARKET, take_profit=TakeProfit(limit_price=Decimal("1.3"))),
        group("oto", LIMIT | {"symbol": "ELSEWHERE"}, LIMIT),
    ],
)
def test_what_goes_together(entry: LinkedEntry) -> None:
    check_linked(entry, Floor())


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (group("oco", LIMIT, STOP | {"symbol": "AAPL"}), "orders.1.symbol"),
        (group("oco", LIMIT, STOP | {"quantity": "2"}), "orders.1.quantity"),
        (group("oco", MARKET, STOP), "orders.0.order_type"),
        (group("oco", LIMIT, MARKET), "orders.1.order_type"),
        (group("oto", LIMIT, MARKET), "orders.1.order_type"),
        (group("oto", LIMIT, STOP, MARKET), "orders.2.order_type"),
        (group("oto", MARKET, LIMIT | {"post_only": True}), "orders.1.post_only"),
        (group("oto", MARKET | {"symbol": "ELSEWHERE"}, LIMIT), "orders.0.order_type"),
        (group("oto", MARKET, {"order_type": "trailing_stop", "trail_amount": "1"}), "orders.1.order_type"),
        (group("oto", MARKET, LIMIT | {"conditions": [CONDITION]}), "orders.1.conditions"),
        (group("oto", MARKET | {"time_in_force": "opg"}, LIMIT), "orders.0.time_in_force"),
        (group("oto", MARKET, LIMIT | {"time_in_force": "ioc"}), "orders.1.time_in_force"),
        (group("oto", MARKET, LIMIT | {"limit_price": "1.000001"}), "orders.1.limit_price"),
        (group("bracket", LIMIT | {"stop_loss": "1"}), "orders.0.stop_loss"),
        (group("bracket", LIMIT | {"take_profit": "2"}), "orders.0.take_profit"),
        (
            group("bracket", LIMIT, take_profit=TakeProfit.model_validate({"limit_price": "1.300001"})),
            "take_profit.limit_price",
        ),
        (
            group("bracket", LIMIT, stop_loss=StopLoss.model_validate({"stop_price": "1.000001"})),
            "stop_loss.stop_price",
        ),
        (
            group(
                "bracket", LIMIT, stop_loss=StopLoss.model_validate({"stop_price": "1", "limit_price": "0.900001"})
            ),
            "stop_loss.limit_price",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together(entry: LinkedEntry, field: str) -> None:
    with pytest.raises(TradingError) as caught:
        check_linked(entry, Floor())
    assert (caught.value.code, caught.value.details["field"]) == (ErrorCode.VALIDATION_FAILED, field)


def test_an_unknown_symbol_is_named_where_it_stands() -> None:
    with pytest.raises(TradingError) as caught:
        check_linked(group("oto", LIMIT, LIMIT | {"symbol": "NOSUCH"}), Floor())
    assert (caught.value.code, caught.value.details["field"]) == (ErrorCode.UNKNOWN_SYMBOL, "orders.1.symbol")


def test_account_and_exits_are_asked_for_the_group_as_a_whole() -> None:
    # given
    account_id = uuid4()
    entry = group(
        "bracket",
        LIMIT | {"account_id": str(account_id)},
        take_profit=TakeProfit.model_validate({"limit_price": "1.3"}),
        stop_loss=StopLoss.model_validate({"stop_price": "1"}),
    )
    # when
    asked: dict[str, Any] = asked_of(entry)
    # then
    (order,) = asked.pop("orders")
    assert (order["symbol"], order.keys() & {"account_id", "idempotency_key"}) == ("EURUSD", set())
    assert asked == {
        "kind": "bracket",
        "account_id": account_id,
        "take_profit": {"limit_price": Decimal("1.3")},
        "stop_loss": {"stop_price": Decimal(1)},
    }
    assert asked_of(group("oco", LIMIT, STOP)).keys() == {"kind", "orders"}
