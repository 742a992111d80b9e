"""Why an order is refused once it is priced, in the words of `order_refusals`; a property test holds the two equal."""

from decimal import ROUND_HALF_UP, Decimal, localcontext

from trading.accounts import Account, Worth, round_money
from trading.errors import ErrorCode, TradingError
from trading.pricing import EXACT

CENT = Decimal("0.01")
SIGN_BY_CURRENCY = {"USD": "$", "EUR": "€", "GBP": "£"}


def slippage_refusal(slippage: Decimal, allowed: Decimal | None) -> TradingError | None:
    """SLIPPAGE_EXCEEDED when a price slips by more than is `allowed`; None allows any."""
    if allowed is None or slippage <= allowed:
        return None
    return TradingError(
        ErrorCode.SLIPPAGE_EXCEEDED,
        f"The price slips by {slippage:f}; you allow {allowed:f}. Allow more or reduce the quantity.",
        {"field": "max_slippage", "value": f"{allowed:f}", "constraint": f"at least {slippage:f}"},
    )


def margin_refusal(
    account: Account, worth: Worth, *, reserved: Decimal, margin: Decimal, commission: Decimal, opening_pnl: Decimal
) -> TradingError | None:
    """INSUFFICIENT_MARGIN, or INSUFFICIENT_FUNDS of a cash account, when free margin would fall below zero.

    What must be free: margin + commission - what the new position is worth at the other side of its quote. What is
    `reserved` for orders in flight is not, and a cash account cannot spend unrealized profit.
    """
    required = margin + commission - opening_pnl
    available = worth.free_margin - reserved
    if account.kind == "cash":
        available = min(worth.free_margin, worth.balance - worth.margin_used) - reserved
    if required <= available:
        return None
    required, available = (round_money(amount, account.currency) for amount in (required, available))
    if account.kind == "cash":
        cost = margin if margin > available else required
        return TradingError(
            ErrorCode.INSUFFICIENT_FUNDS,
            f"Insufficient funds for {money_text(cost, account.currency)} order; "
            f"available: {money_text(available, account.currency)}",
            {
                "field": "quantity",
                "value": None,
                "constraint": "cost within the available balance",
                "required_balance": required,
                "available_balance": available,
            },
        )
    return TradingError(
        ErrorCode.INSUFFICIENT_MARGIN,
        f"This order needs {required:f} {account.currency} of free margin; you have {available:f}. "
        "Reduce the quantity, close a position or deposit.",
        {
            "field": "quantity",
            "value": None,
            "constraint": "margin within the free margin",
            "required": f"{required:f}",
            "available": f"{available:f}",
            "margin_level": level_text(worth),
        },
    )


def level_text(worth: Worth) -> str | None:
    """The margin level in percent with two places; None while no margin is used."""
    with localcontext(EXACT):
        level = worth.margin_level
        return None if level is None else f"{level.quantize(CENT, ROUND_HALF_UP):f}"


def money_text(amount: Decimal, currency: str) -> str:
    """$15,000 or $15,000.50, whole amounts without places."""
    rounded = amount.quantize(CENT, ROUND_HALF_UP)
    sign = SIGN_BY_CURRENCY.get(currency, f"{currency} ")
    places = 0 if rounded == rounded.to_integral_value() else 2
    return f"{'-' if amount < 0 else ''}{sign}{abs(rounded):,.{places}f}"
