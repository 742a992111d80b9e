"""Accounts as operators see and change them, in the words of /api/v1."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from trading.account_requests import REASON_TAKEN, AccountChange, MoneyMovement
from trading.accounts import round_money
from trading.edge.envelope import timestamp
from trading.edge.http import Request
from trading.edge.members import read_members
from trading.edge.order_faults import TAKEN as TAKEN_BY_ORDERS
from trading.edge.reading_dialects import Facts, account_body
from trading.errors import validation_failed
from trading.json_text import shortest
from trading.order_entry import DIGITS_MAX

EMAIL_CHARACTERS_MAX = 255

# What each field takes. Whatever of another kind, form or size came, the answer is "Send <field> as <this>".
TAKEN: Mapping[str, str] = {
    "entry_type": "deposit, withdrawal or adjustment",
    "amount": f"a number in whole minor units of the account's currency with at most {DIGITS_MAX} digits",
    "kyc_status": "pending, verified or rejected",
    "account_status": "active, suspended or closed",
    "account_tier": "bronze, silver, gold or platinum",
    "leverage": "a number from 1 to 1000",
    "position_mode": "hedging or netting",
    "margin_profile": "the name of a margin profile",
    "reason": REASON_TAKEN,
    "idempotency_key": TAKEN_BY_ORDERS["idempotency_key"],
}


def money_movement(request: Request, body: Mapping[str, Any]) -> MoneyMovement:
    """The movement that `body` asks for; VALIDATION_FAILED names the first field that does not fit."""
    return read_members(MoneyMovement, request, body, TAKEN)


def account_change(request: Request, body: Mapping[str, Any]) -> AccountChange:
    """The change that `body` asks for; VALIDATION_FAILED names the first field that does not fit."""
    return read_members(AccountChange, request, body, TAKEN)


def sought_email(query: Mapping[str, str]) -> str:
    """The address whose accounts are asked for; VALIDATION_FAILED without one."""
    email = query.get("email", "").strip()
    if not 3 <= len(email) <= EMAIL_CHARACTERS_MAX or not email.isprintable():
        constraint = f"an address of 3 to {EMAIL_CHARACTERS_MAX} characters"
        raise validation_failed("email", email or None, constraint, f"Send email as {constraint}.")
    return email


def movement_body(answer: Facts) -> dict[str, Any]:
    """A booked movement; amount signed as in the ledger, balance after it."""
    return {
        "id": answer["entry_id"],
        "account_id": answer["account_id"],
        "entry_type": answer["entry_type"],
        "amount": _money(answer["amount"], answer["currency"]),
        "balance": _money(answer["balance"], answer["currency"]),
        "currency": answer["currency"],
        "reason": answer["reason"],
        "created_at": _time(answer["transact_time"]),
        "sequence": answer["sequence"],
    }


def change_body(answer: Facts) -> dict[str, Any]:
    """What an account's user is and may after a change."""
    return {
        "id": answer["account_id"],
        "trader_id": answer["user_id"],
        **_terms(answer),
        # Answers of an earlier release, which a repeat gets again, do not say.
        **{name: answer[name] for name in ("position_mode", "margin_profile") if name in answer},
        "updated_at": _time(answer["transact_time"]),
        "sequence": answer["sequence"],
    }


def accounts_body(accounts: Sequence[Facts]) -> dict[str, Any]:
    """The accounts of a user: {data, total}."""
    return {
        "data": [account_body(account) | {"email": account["email"]} | _terms(account) for account in accounts],
        "total": len(accounts),
    }


def _terms(facts: Facts) -> dict[str, Any]:
    return {
        "kyc_status": facts["kyc_status"],
        "account_status": facts["account_status"],
        "account_tier": facts["account_tier"],
        "leverage": shortest(Decimal(facts["leverage"])),
    }


def _money(amount: Decimal | int, currency: str) -> str:
    return f"{round_money(Decimal(amount), currency):f}"


def _time(text: str) -> str:
    return timestamp(datetime.fromisoformat(text))
