"""The account and its worth."""

from collections.abc import Mapping
from typing import Any

from tools.openapi.errors import ACCOUNT_ID
from tools.openapi.forms import (
    COUNT,
    CURRENCY,
    DECIMAL,
    IDENTIFIER,
    TEXT,
    TIMESTAMP,
    Schema,
    closed,
    list_of,
    nullable,
    ref,
    word,
    words_of,
)
from tools.openapi.operation import Answer, Operation
from tools.openapi.parameters import ACCOUNT_ID as ACCOUNT_PARAMETER
from trading.accounts import AccountKind
from trading.edge.rate_limit import LIMIT_BY_TIER
from trading.edge.reading_dialects import account_body
from trading.errors import ErrorCode
from trading.pricing import COMMISSION_FACTOR_BY_TIER

# Null while a position or a conversion has no usable quote.
MARKED = nullable(DECIMAL)
ACCOUNT_MEMBERS: Mapping[str, Schema] = {
    "id": IDENTIFIER,
    "trader_id": IDENTIFIER,
    "currency": {**CURRENCY, "description": "Of every amount here."},
    "kind": word(words_of(AccountKind)),
    "leverage": DECIMAL,
    "position_mode": word(["hedging", "netting"]),
    "trading_state": word(["active", "reducing", "halted"]),
    "balance": DECIMAL,
    "unrealized_pnl": MARKED,
    "equity": {**MARKED, "description": "Balance and unrealized P&L."},
    "margin_used": {**DECIMAL, "description": "Of the open positions, less hedged_margin_credit."},
    "hedged_margin_credit": {
        **DECIMAL,
        "description": "What of it need not be held, because longs and shorts of a symbol cover each other.",
    },
    "free_margin": {**MARKED, "description": "Equity less used margin."},
    "margin_level": {**MARKED, "description": "Percent: equity / used margin; null while none is used."},
    "open_positions": COUNT,
    "sequence": {**COUNT, "description": "Of the account's last event: where to subscribe from."},
    "created_at": TIMESTAMP,
}
SCHEMAS: Mapping[str, Schema] = {
    "Account": closed(ACCOUNT_MEMBERS),
    "Profile": closed(
        {
            "id": IDENTIFIER,
            "email": TEXT,
            "kyc_status": word(["pending", "verified", "rejected"]),
            "account_status": word(["active", "suspended", "closed"]),
            "tier": {**word(COMMISSION_FACTOR_BY_TIER), "description": "Of the commission."},
            "rate_limit_tier": {**word(LIMIT_BY_TIER), "description": "Of the access token."},
            "role": TEXT,
            "permissions": list_of(TEXT),
            "accounts": list_of(
                closed(
                    {
                        "id": IDENTIFIER,
                        "currency": CURRENCY,
                        "kind": word(words_of(AccountKind)),
                        "leverage": DECIMAL,
                        "position_mode": word(["hedging", "netting"]),
                        "trading_state": word(["active", "reducing", "halted"]),
                        "margin_profile": {**TEXT, "description": "Which margin levels it is watched by."},
                        "limits": {**nullable(ref("Limits")), "description": "Without them nothing can be traded."},
                    }
                )
            ),
            "created_at": TIMESTAMP,
        }
    ),
    "Limits": {
        **closed(
            {
                "max_position_size": nullable(DECIMAL),
                "max_positions": nullable(COUNT),
                "max_working_orders": nullable(COUNT),
                "daily_trade_limit": nullable(COUNT),
                "max_daily_loss": nullable(DECIMAL),
                "margin_call_threshold": nullable(DECIMAL),
            }
        ),
        "description": "One that is null does not bind.",
    },
}
PROFILED: Mapping[str, Any] = {
    "id": "01a1fc5c-5be2-7d0e-a0d5-6a4c1a4a6a10",
    "email": "gold@example.com",
    "kyc_status": "verified",
    "account_status": "active",
    "tier": "gold",
    "rate_limit_tier": "gold",
    "role": "trader",
    "permissions": ["account:read", "orders:read", "orders:write", "positions:read"],
    "accounts": [
        {
            "id": ACCOUNT_ID,
            "currency": "USD",
            "kind": "margin",
            "leverage": "100",
            "position_mode": "hedging",
            "trading_state": "active",
            "margin_profile": "standard",
            "limits": {
                "max_position_size": "100000",
                "max_positions": 10,
                "max_working_orders": 100,
                "daily_trade_limit": 100,
                "max_daily_loss": "10000.00",
                "margin_call_threshold": "50",
            },
        }
    ],
    "created_at": "2026-11-21T04:20:02.114Z",
}
ACCOUNT_FACTS: Mapping[str, Any] = {
    "id": ACCOUNT_ID,
    "user_id": "01a1fc5c-5be2-7d0e-a0d5-6a4c1a4a6a10",
    "currency": "USD",
    "kind": "margin",
    "leverage": "100",
    "position_mode": "hedging",
    "trading_state": "active",
    "balance": "100000.00",
    "unrealized_pnl": "-2.00",
    "equity": "99998.00",
    "margin_used": "115.98",
    "hedged_margin_credit": "0.00",
    "free_margin": "99882.02",
    "margin_level": "86220.04",
    "open_positions": 1,
    "sequence": 2,
    "created_at": "2026-11-21T04:20:02.114080Z",
}

OPERATIONS = (
    Operation(
        route="GET /api/v1/account",
        operation_id="getAccount",
        tag="account",
        summary="Read what an account is worth now",
        permission="account:read",
        parameters=(ACCOUNT_PARAMETER,),
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: Answer("The account.", ref("Account"), account_body(ACCOUNT_FACTS))},
    ),
    Operation(
        route="GET /api/user/profile",
        operation_id="getProfile",
        tag="account",
        summary="Read who you are, your accounts and their limits",
        permission="account:read",
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: Answer("The profile.", ref("Profile"), PROFILED)},
    ),
)
