"""What moved an account's balance, and what operators do to accounts."""

from collections.abc import Mapping
from typing import Any

from tools.openapi.errors import ACCOUNT_ID, ORDER_ID
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
)
from tools.openapi.operation import Answer, Operation, Parameter
from tools.openapi.order_body import keyed_body
from tools.openapi.parameters import ACCOUNT_ID as ACCOUNT
from tools.openapi.parameters import PAGE_LIMIT, path_id
from tools.openapi.routes.account import ACCOUNT_FACTS, ACCOUNT_MEMBERS
from trading.account_requests import REASON_CHARACTERS_MAX
from trading.edge.account_dialects import EMAIL_CHARACTERS_MAX, accounts_body, change_body, movement_body
from trading.edge.reading_dialects import CURSOR_DIGITS_MAX, ledger_body
from trading.errors import ErrorCode
from trading.pricing import COMMISSION_FACTOR_BY_TIER

TERMS: Mapping[str, Schema] = {
    "kyc_status": word(["pending", "verified", "rejected"]),
    "account_status": word(["active", "suspended", "closed"]),
    "account_tier": word(COMMISSION_FACTOR_BY_TIER),
}
REASON: Schema = {"type": "string", "minLength": 1, "maxLength": REASON_CHARACTERS_MAX, "pattern": r"\S"}
AMOUNT: Schema = {
    "description": "In whole minor units of the account's currency; only an adjustment may be below 0.",
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^-?[0-9]{1,18}(\.[0-9]{1,12})?$"}],
}
LEDGER_ENTRY = closed(
    {
        "id": IDENTIFIER,
        "account_id": IDENTIFIER,
        "entry_number": {**COUNT, "description": "Gapless in the account."},
        "entry_type": word(["deposit", "withdrawal", "adjustment", "realized_pnl", "commission", "financing"]),
        "amount": {**DECIMAL, "description": "Signed."},
        "balance": {**DECIMAL, "description": "After it."},
        "currency": CURRENCY,
        "reason": nullable(TEXT),
        "order_id": nullable(IDENTIFIER),
        "position_id": nullable(IDENTIFIER),
        "created_at": TIMESTAMP,
    }
)
MOVEMENT: Mapping[str, Schema] = {
    "entry_type": word(["deposit", "withdrawal", "adjustment"]),
    "amount": AMOUNT,
    "reason": REASON,
}
SCHEMAS: Mapping[str, Schema] = {
    "LedgerEntry": LEDGER_ENTRY,
    "MovementRequest": {**keyed_body(MOVEMENT), "required": list(MOVEMENT)},
    "Movement": closed(
        {
            "id": IDENTIFIER,
            "account_id": IDENTIFIER,
            "entry_type": MOVEMENT["entry_type"],
            "amount": {**DECIMAL, "description": "Signed, as in the ledger."},
            "balance": {**DECIMAL, "description": "After it."},
            "currency": CURRENCY,
            "reason": TEXT,
            "created_at": TIMESTAMP,
            "sequence": COUNT,
        }
    ),
    "AccountChangeRequest": {
        **keyed_body({**TERMS, "leverage": {"type": "number", "minimum": 1, "maximum": 1000}, "reason": REASON}),
        "required": ["reason"],
    },
    "AccountTerms": closed(
        {
            "id": IDENTIFIER,
            "trader_id": IDENTIFIER,
            **TERMS,
            "leverage": DECIMAL,
            "updated_at": TIMESTAMP,
            "sequence": COUNT,
        }
    ),
    "FoundAccount": closed({**ACCOUNT_MEMBERS, "email": TEXT, **TERMS}),
}
CURSOR = Parameter(
    "cursor",
    {"type": "string", "pattern": f"^[0-9]{{1,{CURSOR_DIGITS_MAX}}}$"},
    "The next_cursor of the page before.",
)
EMAIL = Parameter(
    "email",
    {"type": "string", "minLength": 3, "maxLength": EMAIL_CHARACTERS_MAX, "pattern": r"^\S[ -~]+\S$"},
    "Whose accounts.",
    required=True,
)
ENTRY_FACTS: Mapping[str, Any] = {
    "id": "01a1fc5d-1d66-7c20-9f1d-3b1c5f4a7e11",
    "account_id": ACCOUNT_ID,
    "entry_number": 2,
    "entry_type": "commission",
    "amount": "0.00",
    "balance": "100000.00",
    "currency": "USD",
    "reason": None,
    "order_id": ORDER_ID,
    "position_id": "01a1fc5d-1d65-7e95-b7ba-4385d0cd8a94",
    "created_at": "2026-11-21T04:28:43.227114Z",
}
MOVED: Mapping[str, Any] = {
    "entry_id": ENTRY_FACTS["id"],
    "account_id": ACCOUNT_ID,
    "entry_type": "deposit",
    "amount": 250,
    "balance": 100250,
    "currency": "USD",
    "reason": "wire of 20 November",
    "transact_time": "2026-11-21T04:28:43.227114Z",
    "sequence": 3,
}
CHANGED: Mapping[str, Any] = {
    "account_id": ACCOUNT_ID,
    "user_id": ACCOUNT_FACTS["user_id"],
    "kyc_status": "verified",
    "account_status": "suspended",
    "account_tier": "gold",
    "leverage": 100,
    "transact_time": "2026-11-21T04:28:43.227114Z",
    "sequence": 4,
}
LEDGER = Answer(
    "A page of entries, newest first. next_cursor is null on the last one.",
    closed({"data": list_of(ref("LedgerEntry")), "next_cursor": nullable({"type": "string"})}),
    ledger_body({"entries": [ENTRY_FACTS], "next": None}),
)
OPERATORS_ALONE = "For the role operator, who may not change an account of their own."

OPERATORS = (
    Operation(
        route="GET /api/v1/account/ledger-entries",
        operation_id="listOwnLedgerEntries",
        tag="account",
        summary="List what moved your balance",
        permission="account:read",
        parameters=(ACCOUNT, PAGE_LIMIT, CURSOR),
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: LEDGER},
    ),
    Operation(
        route="GET /api/v1/accounts",
        operation_id="findAccounts",
        tag="operators",
        summary="Find the accounts of a user",
        description="For the role operator.",
        permission="accounts:write",
        parameters=(EMAIL,),
        answers={
            200: Answer(
                "Their accounts; none for an unknown address.",
                closed({"data": list_of(ref("FoundAccount")), "total": COUNT}),
                accounts_body([{**ACCOUNT_FACTS, **CHANGED, "email": "gold@example.com", "leverage": "100"}]),
            )
        },
    ),
    Operation(
        route="GET /api/v1/accounts/{id}/ledger-entries",
        operation_id="listLedgerEntries",
        tag="operators",
        summary="List what moved an account's balance",
        description="For the role operator.",
        permission="accounts:write",
        parameters=(path_id("an account"), PAGE_LIMIT, CURSOR),
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: LEDGER},
    ),
    Operation(
        route="POST /api/v1/accounts/{id}/ledger-entries",
        operation_id="moveMoney",
        tag="operators",
        summary="Deposit, withdraw or adjust",
        description=OPERATORS_ALONE,
        permission="accounts:write",
        state_changing=True,
        keyed=True,
        parameters=(path_id("an account"),),
        body=ref("MovementRequest"),
        body_example={"entry_type": "deposit", "amount": "250.00", "reason": "wire of 20 November"},
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.INSUFFICIENT_FUNDS, ErrorCode.MARKET_DATA_UNAVAILABLE}),
        answers={201: Answer("It is booked.", ref("Movement"), movement_body(MOVED), ("Idempotency-Replayed",))},
    ),
    Operation(
        route="PATCH /api/v1/accounts/{id}",
        operation_id="changeAccount",
        tag="operators",
        summary="Change what an account's user is and may",
        description=OPERATORS_ALONE,
        permission="accounts:write",
        state_changing=True,
        keyed=True,
        parameters=(path_id("an account"),),
        body=ref("AccountChangeRequest"),
        body_example={"account_status": "suspended", "reason": "under review"},
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: Answer("It is changed.", ref("AccountTerms"), change_body(CHANGED), ("Idempotency-Replayed",))},
    ),
)
