"""Orders as the procedures tell of them: what the renderers of the code make the examples of answers from."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tools.openapi.errors import ACCOUNT_ID, ORDER_ID
from tools.openapi.order_answers import (
    ASKED_MEMBERS,
)
from trading.execution import Execution

TRADER_ID = "01a1fc5c-5be2-7d0e-a0d5-6a4c1a4a6a10"
REPLACED_ID = "01a1fc5d-0a11-7c52-9d0e-5b1f1c2a7e10"
POSITION_ID = "01a1fc5d-1d65-7e95-b7ba-4385d0cd8a94"
FILL_ID = "01a1fc5d-1d65-7a33-8c87-9c3e967dedf3"
OTHER_ORDER_ID = "01a1fc5d-1d63-7c11-9a42-0c5f6e2b7d38"
TRANSACTION_ID = f"txn_1795235323_{FILL_ID}"
MOMENT = "2026-11-21T04:28:43.227114Z"
EXECUTION = Execution(
    {
        "outcome": "filled",
        "order_id": ORDER_ID,
        "account_id": ACCOUNT_ID,
        "position_id": POSITION_ID,
        "client_order_id": None,
        "status": "filled",
        "symbol": "EURUSD",
        "side": "buy",
        "order_type": "market",
        "quantity": "0.1",
        "execution_price": "1.15983",
        "slippage": "0.00012",
        "commission": "0.00",
        "total_cost": "115.98",
        "transact_time": MOMENT,
        "transaction_id": TRANSACTION_ID,
    },
    replayed=False,
    refusal=None,
)
ORDER_FACTS: Mapping[str, Any] = {
    "id": ORDER_ID,
    "user_id": TRADER_ID,
    "account_id": ACCOUNT_ID,
    "client_order_id": None,
    "symbol": "EURUSD",
    "order_type": "market",
    "side": "buy",
    "quantity": "0.1",
    "filled_quantity": "0.1",
    "leaves_quantity": "0",
    "limit_price": None,
    "stop_price": None,
    "trail_amount": None,
    "trail_percent": None,
    "limit_offset": None,
    "trail_mark": None,
    "trail_level": None,
    "display_quantity": None,
    "display_variance": None,
    "post_only": False,
    "active_at": None,
    "conditions": None,
    "stop_loss": None,
    "take_profit": None,
    "time_in_force": "gtc",
    "expires_at": None,
    "status": "filled",
    "average_price": "1.15983",
    "slippage": "0.00012",
    "commission": "0.00",
    "total_cost": "115.98",
    "position_id": POSITION_ID,
    "transaction_id": TRANSACTION_ID,
    "contingency": None,
    "linked_order_ids": [],
    "held_quantity": "0",
    "failure_code": None,
    "failure_reason": None,
    "replaces_order_id": None,
    "version": 1,
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "executed_at": MOMENT,
}
ASKED_FACTS: Mapping[str, Any] = dict.fromkeys(ASKED_MEMBERS) | {
    "reduce_only": False,
    "strategy_id": "momentum-7",
    "metadata": {"desk": "fx"},
}
FILL_FACTS: Mapping[str, Any] = {
    "id": FILL_ID,
    "order_id": ORDER_ID,
    "position_id": POSITION_ID,
    "side": "buy",
    "quantity": "0.1",
    "price": "1.15983",
    "commission": "0.00",
    "realized_pnl": "0.00",
    "venue": "paper",
    "trade_id": FILL_ID,
    "transact_time": MOMENT,
}
AUDIT_FACTS: Mapping[str, Any] = {
    "id": "01a1fc5d-1d66-7bb8-8e60-1cf0a0c1d3c2",
    "order_id": ORDER_ID,
    "user_id": TRADER_ID,
    "action": "FILLED",
    "status": "filled",
    "created_at": MOMENT,
    "reason": None,
    "error_code": None,
    "retry_attempt": None,
}
MARKET_ORDER = {
    "symbol": "EURUSD",
    "order_type": "market",
    "side": "buy",
    "quantity": "0.1",
    "idempotency_key": "my-first-order",
}
UNFILLED: Mapping[str, Any] = {
    "outcome": "canceled",
    "order_id": ORDER_ID,
    "client_order_id": None,
    "symbol": "AAPL",
    "side": "buy",
    "order_type": "limit",
    "quantity": 100,
    "limit_price": Decimal("140.00"),
    "stop_price": None,
    "time_in_force": "gtc",
    "status": "canceled",
    "filled_quantity": 0,
    "leaves_quantity": 0,
    "average_price": None,
    "expires_at": None,
    "created_at": MOMENT,
    "transact_time": MOMENT,
}
REPLACING: Mapping[str, Any] = {
    **UNFILLED,
    "outcome": "new",
    "status": "new",
    "quantity": 80,
    "leaves_quantity": 80,
    "limit_price": Decimal("141.50"),
    "stop_loss": Decimal("120.00"),
    "take_profit": None,
    "version": 1,
    "replaces_order_id": REPLACED_ID,
    "replaced": {**UNFILLED, "order_id": REPLACED_ID, "status": "replaced", "version": 2},
}
PREVIEWED = {
    "account_id": ACCOUNT_ID,
    "symbol": "EURUSD",
    "order_type": "MARKET",
    "side": "BUY",
    "quantity": "0.1",
    "filled_quantity": "0.1",
    "currency": "USD",
    "price": "1.15983",
    "slippage": "0.00012",
    "commission": "0.00",
    "margin": "115.98",
    "hedged_margin_credit": "0.00",
    "margin_released": "0.00",
    "total_cost": "115.98",
    "reduces_position": False,
    "realized_pnl": "0.00",
    "free_margin_before": "100000.00",
    "free_margin_after": "99882.02",
    "margin_level_before": None,
    "margin_level_after": "86220.04",
    "accepted": True,
    "refusal": None,
    "quoted_at": "2026-11-21T04:28:43.227Z",
}
