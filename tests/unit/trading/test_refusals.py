"""The sentences of refusals, and when there is none."""

from decimal import Decimal

import pytest

from trading.accounts import Account, AccountKind, Worth
from trading.errors import ErrorCode
from trading.refusals import level_text, margin_refusal, money_text, slippage_refusal

HUNDRED = Worth(Decimal(100), Decimal(0), Decimal(0))


def refused(worth: Worth, needed: dict[str, str], kind: AccountKind = "margin") -> dict[str, object] | None:
    amounts = {"margin": "0", "commission": "0", "opening_pnl": "0", "reserved": "0"} | needed
    found = margin_refusal(
        Account("USD", kind, Decimal(1)), worth, **{name: Decimal(amount) for name, amount in amounts.items()}
    )
    return None if found is None else {"code": found.code, "message": found.message} | found.details


@pytest.mark.parametrize(
    "needed",
    [
        {"margin": "100"},
        {"margin": "99", "commission": "1"},
        {"margin": "101", "opening_pnl": "1"},
        {"margin": "60", "reserved": "40"},
    ],
)
def test_what_is_free_may_be_used_to_the_last_cent(needed: dict[str, str]) -> None:
    assert refused(HUNDRED, needed) is None
    assert refused(Worth(Decimal("99.99"), Decimal(0), Decimal(0)), needed) is not None


def test_a_margin_account_is_told_what_it_needs() -> None:
    told = refused(
        Worth(Decimal(150), Decimal(-25), Decimal(50)), {"margin": "100", "commission": "1.60", "opening_pnl": "-2"}
    )

    assert told == {
        "code": ErrorCode.INSUFFICIENT_MARGIN,
        "message": "This order needs 103.60 USD of free margin; you have 75.00. Reduce the quantity, close a position "
        "or deposit.",
        "field": "quantity",
        "value": None,
        "constraint": "margin within the free margin",
        "required": "103.60",
        "available": "75.00",
        "margin_level": "250.00",
    }


def test_a_cash_account_cannot_spend_profit_that_is_not_realized() -> None:
    rich_on_paper = Worth(Decimal(100), Decimal(1000), Decimal(60))

    told = refused(rich_on_paper, {"margin": "50"}, "cash")

    assert told is not None
    assert told["message"] == "Insufficient funds for $50 order; available: $40"
    assert (told["required_balance"], told["available_balance"]) == (Decimal("50.00"), Decimal("40.00"))
    assert refused(rich_on_paper, {"margin": "50"}, "margin") is None


@pytest.mark.parametrize(
    ("needed", "cost", "required", "available"),
    [
        ({"margin": "39", "commission": "2"}, "$41", "41", "40"),
        ({"margin": "40", "commission": "1"}, "$41", "41", "40"),
        ({"margin": "41", "commission": "1"}, "$41", "42", "40"),  # not even the holding itself is paid for
        ({"margin": "35", "reserved": "10"}, "$35", "35", "30"),
    ],
)
def test_a_cash_account_is_told_the_cost_that_is_too_much(
    needed: dict[str, str], cost: str, required: str, available: str
) -> None:
    told = refused(Worth(Decimal(100), Decimal(0), Decimal(60)), needed, "cash")

    assert told is not None
    assert told["message"] == f"Insufficient funds for {cost} order; available: ${available}"
    assert (told["required_balance"], told["available_balance"]) == (Decimal(required), Decimal(available))


def test_slippage_is_refused_above_what_is_allowed() -> None:
    assert slippage_refusal(Decimal("0.0001"), None) is None
    assert slippage_refusal(Decimal("0.0001"), Decimal("0.0001")) is None
    refusal = slippage_refusal(Decimal("0.0001"), Decimal(0))
    assert refusal is not None
    assert (refusal.code, refusal.details["value"]) == (ErrorCode.SLIPPAGE_EXCEEDED, "0")


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("15000", "USD", "$15,000"),
        ("15000.50", "USD", "$15,000.50"),
        ("0.1", "EUR", "€0.10"),
        ("-1234567.89", "GBP", "-£1,234,567.89"),
        ("5", "JPY", "JPY 5"),
        ("0", "USD", "$0"),
    ],
)
def test_money_reads_as_people_write_it(amount: str, currency: str, text: str) -> None:
    assert money_text(Decimal(amount), currency) == text


def test_a_level_has_two_places_and_none_without_margin() -> None:
    assert level_text(HUNDRED) is None
    assert level_text(Worth(Decimal(1), Decimal(0), Decimal(3))) == "33.33"
