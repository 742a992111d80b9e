"""What a body says of an order that is to change."""

from typing import Any

import pytest

from trading.edge.change_dialects import changed_members
from trading.errors import ErrorCode, TradingError


@pytest.mark.parametrize("name", ["stop_loss", "take_profit", "conditions", "display_quantity", "display_variance"])
def test_null_takes_away_what_an_order_need_not_have(name: str) -> None:
    assert changed_members({name: None, "limit_price": None, "quantity": "2"}) == {name: None, "quantity": "2"}


def test_the_price_is_the_limit() -> None:
    assert changed_members({"price": "1.1"}) == {"limit_price": "1.1"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"price": "1.1", "limit_price": "1.1"}, "price"),
        ({"symbol": "EURUSD"}, "symbol"),
        ({"side": "buy"}, "side"),
        ({"order_type": "limit"}, "order_type"),
        ({"post_only": False}, "post_only"),
        ({"reduce_only": True}, "reduce_only"),
    ],
)
def test_what_cannot_change_is_refused(body: dict[str, Any], field: str) -> None:
    with pytest.raises(TradingError) as caught:
        changed_members({"quantity": "2"} | body)
    assert (caught.value.code, caught.value.details["field"]) == (ErrorCode.VALIDATION_FAILED, field)
