"""What operators do to accounts, and the ledger that shows it to them and to its owner."""

from collections.abc import Mapping
from decimal import Decimal
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
    whole_list_of,
    word,
    words_of,
)
from tools.openapi.operation import Answer, Operation, Parameter
from tools.openapi.order_body import keyed_body
from tools.openapi.parameters import ACCOUNT_ID as ACCOUNT
from tools.openapi.parameters import PAGE_LIMIT, path_id
from tools.openapi.routes.account import ACCOUNT_FACTS
from tools.openapi.routes.account import SCHEMAS as ACCOUNT_SCHEMAS
from trading.account_requests import PROFILE_CHARACTERS_MAX, REASON_CHARACTERS_MAX, AccountChange, EntryType
from trading.edge.account_dialects import EMAIL_CHARACTERS_MAX, TAKEN, accounts_body, change_body, movement_body
from trading.edge.reading_dialects import CURSOR_DIGITS_MAX, ledger_body
from trading.errors import ErrorCode
from trading.order_entry import DIGITS_MAX, PLAIN_DECIMAL

# As exact as a JSON number in a schema can be.
BOUND = 10**DIGITS_MAX
DECIMAL_TEXT: Schema = {"type": "string", "pattern": f"^{PLAIN_DECIMAL.pattern}$"}
LEDGER_CURSOR: Schema = {"type": "string", "pattern": f"^[0-9]{{1,{CURSOR_DIGITS_MAX}}}$"}
# Those that an operator books, and those that trading does.
ENTRY_TYPES = (*words_of(EntryType), "realized_pnl", "commission", "financing", "negative_balance_protection")


def _taken(name: str, form: Schema, more: str = "") -> Schema:
    """A member of a body, described in the words that refusals use."""
    return {"description": f"Send {TAKEN[name]}{more}.", **form}


def _words(name: str) -> Schema:
    """The words that a change takes as `name`."""
    return word(AccountChange.model_json_schema()["properties"][name]["anyOf"][0]["enum"])


def _body(required: Mapping[str, Schema], optional: Mapping[str, Schema]) -> dict[str, Any]:
    """A body whose `required` members may not be null either."""
    keyed = keyed_body(optional)
    return {**keyed, "properties": {**required, **keyed["properties"]}, "required": list(required)}


REASON = _taken("reason", {"type": "string", "minLength": 1, "maxLength": REASON_CHARACTERS_MAX}, ", not only spaces")
TERMS: Mapping[str, Schema] = {
    "kyc_status": _words("kyc_status"),
    "account_status": _words("account_status"),
    "account_tier": _words("account_tier"),
    "leverage": DECIMAL,
}
CHANGES: Mapping[str, Schema] = {
    "kyc_status": _taken("kyc_status", TERMS["kyc_status"], " (its case is ignored)"),
    "account_status": _taken("account_status", TERMS["account_status"], " (its case is ignored)"),
    "account_tier": _taken("account_tier", TERMS["account_tier"], " (its case is ignored)"),
    "leverage": _taken(
        "leverage",
        {"anyOf": [{"type": "number", "minimum": 1, "maximum": 1000}, DECIMAL_TEXT]},
        " with at most 2 places, as a number or as text; 1 on a cash account",
    ),
    "position_mode": _taken("position_mode", _words("position_mode"), " (its case is ignored); a cash account nets"),
    "margin_profile": _taken(
        "margin_profile",
        {"type": "string", "minLength": 1, "maxLength": PROFILE_CHARACTERS_MAX},
        " (its case is ignored); none on a cash account",
    ),
}
SEQUENCE: Schema = {**COUNT, "description": "Of the event that tells it."}
SCHEMAS: Mapping[str, Schema] = {
    "LedgerEntry": closed(
        {
            "id": IDENTIFIER,
            "account_id": IDENTIFIER,
            "entry_number": {"type": "integer", "minimum": 1, "description": "Counted in the account, without gaps."},
            "entry_type": word(ENTRY_TYPES),
            "amount": {**DECIMAL, "description": "Signed: below zero it left the account."},
            "balance": {**DECIMAL, "description": "After this entry."},
            "currency": CURRENCY,
            "reason": {
                **nullable(TEXT),
                "description": "What the operator said, or which roll it is of; null for what trading booked.",
            },
            "order_id": nullable(IDENTIFIER),
            "position_id": nullable(IDENTIFIER),
            "created_at": TIMESTAMP,
        }
    ),
    "LedgerPage": closed({"data": list_of(ref("LedgerEntry")), "next_cursor": nullable(LEDGER_CURSOR)}),
    "MoneyMovementRequest": _body(
        {
            "entry_type": _taken("entry_type", word(words_of(EntryType)), " (its case is ignored)"),
            "amount": _taken(
                "amount",
                {"anyOf": [{"type": "number", "exclusiveMinimum": -BOUND, "exclusiveMaximum": BOUND}, DECIMAL_TEXT]},
                ", as a number or as text; positive, or for an adjustment of any sign but not zero",
            ),
            "reason": REASON,
        },
        {},
    ),
    "MoneyMovement": closed(
        {
            "id": {**IDENTIFIER, "description": "Of the ledger entry."},
            "account_id": IDENTIFIER,
            "entry_type": word(words_of(EntryType)),
            "amount": {**DECIMAL, "description": "Signed: a withdrawal's is below zero."},
            "balance": {**DECIMAL, "description": "After this entry."},
            "currency": CURRENCY,
            "reason": TEXT,
            "created_at": TIMESTAMP,
            "sequence": SEQUENCE,
        }
    ),
    "AccountChangeRequest": {
        **_body({"reason": REASON}, CHANGES),
        "description": "One of the terms at least, with a value that differs from what is set.",
        "anyOf": [{"required": [name]} for name in CHANGES],
    },
    "ChangedAccount": closed(
        {
            "id": IDENTIFIER,
            "trader_id": IDENTIFIER,
            **TERMS,
            "position_mode": _words("position_mode"),
            "margin_profile": {**nullable(TEXT), "description": "null: the default of the account's kind and tier."},
            "updated_at": TIMESTAMP,
            "sequence": SEQUENCE,
        },
        # Answers that an earlier release kept do not say it.
        optional=("position_mode", "margin_profile"),
    ),
    "FoundAccount": closed({**ACCOUNT_SCHEMAS["Account"]["properties"], "email": TEXT, **TERMS}),
}

ENTRY_ID = "01a1fc5d-0b31-7c18-9d0e-64b1f7a0c2e5"
MOMENT = "2026-11-21T04:28:43.227114Z"
SAID = "wire 4711 has arrived"
TERMS_FACTS: Mapping[str, Any] = {
    "kyc_status": "verified",
    "account_status": "active",
    "account_tier": "gold",
    "leverage": "30",
}
LEDGER_FACTS: Mapping[str, Any] = {
    "entries": [
        {
            "id": ENTRY_ID,
            "account_id": ACCOUNT_ID,
            "entry_number": 2,
            "entry_type": "deposit",
            "amount": "250.50",
            "balance": "100250.50",
            "currency": "USD",
            "reason": SAID,
            "order_id": None,
            "position_id": None,
            "created_at": MOMENT,
        }
    ],
    "next": 2,
}
MOVED: Mapping[str, Any] = {
    "entry_id": ENTRY_ID,
    "account_id": ACCOUNT_ID,
    "entry_type": "deposit",
    "amount": Decimal("250.5"),
    "balance": Decimal("100250.5"),
    "currency": "USD",
    "reason": SAID,
    "transact_time": MOMENT,
    "sequence": 3,
}
CHANGED: Mapping[str, Any] = {
    **TERMS_FACTS,
    "position_mode": "netting",
    "margin_profile": "retail",
    "account_id": ACCOUNT_ID,
    "user_id": ACCOUNT_FACTS["user_id"],
    "transact_time": MOMENT,
    "sequence": 3,
}
FOUND: Mapping[str, Any] = {**ACCOUNT_FACTS, **TERMS_FACTS, "email": "gold@example.com"}

LEDGER = Answer("A page of the ledger.", ref("LedgerPage"), ledger_body(LEDGER_FACTS))
LEDGER_PAGE = (PAGE_LIMIT, Parameter("cursor", LEDGER_CURSOR, "The next_cursor of the page before."))
EMAIL = Parameter(
    "email",
    {"type": "string", "minLength": 3, "maxLength": EMAIL_CHARACTERS_MAX},
    "The user's address; its case is ignored.",
    required=True,
)
ROLE = "For the role operator alone; another is FORBIDDEN whatever its permissions."
READERS = ("accounts:write", "risk:write")
READERS_ROLE = (
    "For the role operator by accounts:write, and for risk_officer by risk:write; another is FORBIDDEN whatever its "
    "permissions."
)
NOT_ONES_OWN = f"{ROLE} So is an account of one's own: another operator has to act on it."

OPERATIONS = (
    Operation(
        route="GET /api/v1/account/ledger-entries",
        operation_id="listLedgerEntries",
        tag="account",
        summary="List what moved your balance, newest first",
        permission="account:read",
        parameters=(ACCOUNT, *LEDGER_PAGE),
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: LEDGER},
    ),
    Operation(
        route="GET /api/v1/accounts",
        operation_id="findAccounts",
        tag="operators",
        summary="Find the accounts of a user and their worth",
        description=f"{READERS_ROLE} An address that nobody has is answered with no accounts.",
        permission=READERS,
        parameters=(EMAIL,),
        answers={
            200: Answer(
                "The user's accounts, oldest first.",
                whole_list_of(ref("FoundAccount")),
                accounts_body([FOUND]),
            )
        },
    ),
    Operation(
        route="GET /api/v1/accounts/{id}/ledger-entries",
        operation_id="listLedgerEntriesOfAccount",
        tag="operators",
        summary="List what moved an account's balance, newest first",
        description=READERS_ROLE,
        permission=READERS,
        parameters=(path_id("an account"), *LEDGER_PAGE),
        errors=frozenset({ErrorCode.NOT_FOUND}),
        answers={200: LEDGER},
    ),
    Operation(
        route="POST /api/v1/accounts/{id}/ledger-entries",
        operation_id="moveMoney",
        tag="operators",
        summary="Book a deposit, a withdrawal or an adjustment",
        description=(
            f"{NOT_ONES_OWN} A withdrawal takes at most what is free at fresh quotes; without those it is "
            "MARKET_DATA_UNAVAILABLE. Without an idempotency key, a repeat is another movement."
        ),
        permission="accounts:write",
        keyed=True,
        parameters=(path_id("an account"),),
        body=ref("MoneyMovementRequest"),
        body_example={"entry_type": "deposit", "amount": "250.50", "reason": SAID, "idempotency_key": "wire-4711"},
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.INSUFFICIENT_FUNDS, ErrorCode.MARKET_DATA_UNAVAILABLE}),
        answers={201: Answer("The money is moved.", ref("MoneyMovement"), movement_body(MOVED))},
    ),
    Operation(
        route="PATCH /api/v1/accounts/{id}",
        operation_id="changeAccount",
        tag="operators",
        summary="Change what an account's user is and may",
        description=(
            f"{NOT_ONES_OWN} What is left out stays. KYC, status and tier are the user's, on all accounts; leverage "
            "and position mode are the account's. It holds from the next order on. The position mode changes while "
            "the account has no open position and no working order, else it is CONFLICT."
        ),
        permission="accounts:write",
        keyed=True,
        parameters=(path_id("an account"),),
        body=ref("AccountChangeRequest"),
        body_example={"leverage": 30, "reason": "asked for less risk", "idempotency_key": "ticket-4712"},
        errors=frozenset({ErrorCode.NOT_FOUND, ErrorCode.CONFLICT}),
        answers={200: Answer("What holds now.", ref("ChangedAccount"), change_body(CHANGED))},
    ),
)
