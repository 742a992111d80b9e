"""A diagnosis of a user's margin as text for a person; see database/procedures/operations/diagnose_margin.sql."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

type Facts = Mapping[str, Any]


def diagnosis_lines(diagnosis: Facts) -> Iterator[str]:
    """The lines of what diagnose_margin found, the verdict last."""
    profile = diagnosis["profile"]
    yield (
        f"{profile['email']} (user {profile['user_id']}): KYC {profile['kyc_status']}, {profile['account_status']}, "
        f"{profile['account_tier']}"
    )
    if not diagnosis["accounts"]:
        yield "There is no account."
    for account in diagnosis["accounts"]:
        yield from _account_lines(account)


def _account_lines(found: Facts) -> Iterator[str]:
    account, margin = found["account"], found["margin"]
    currency = account["currency"]
    yield ""
    yield (
        f"Account {account['id']}: {account['kind']}, {currency}, leverage {account['leverage']}, "
        f"{account['position_mode']}, trading {account['trading_state']}"
    )
    yield from _section("Limits", [_limits(found["limits"])])
    yield from _section("Open positions", [line for fact in found["positions"] for line in _position(fact, currency)])
    yield from _section("Margin", list(_margin(margin, currency)))
    yield from _section("Working orders", [_order(order) for order in found["working_orders"]])
    yield from _section("Last denials", [_denial(order) for order in found["denials"]])
    yield from _section("Quotes", [_quote(quote) for quote in found["quotes"]])
    yield from _section("Verdict", found["verdict"])


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    yield f"  {title}"
    yield from (f"    {line}" for line in lines or ["none"])


def _limits(limits: Facts | None) -> str:
    if limits is None:
        return "no risk settings: the account cannot trade"
    return ", ".join(f"{name} {'none' if limit is None else limit}" for name, limit in limits.items())


def _position(fact: Facts, currency: str) -> Iterator[str]:
    yield (
        f"{fact['side']} {fact['quantity']} {fact['symbol']} opened at {fact['entry_price']}, now "
        f"{_known(fact['mark'])}: {_known(fact['unrealized_pnl'])} {currency}"
    )
    line = f"  margin {fact['margin_used']} {currency} = {fact['margin_calculation']}, fixed at the opening"
    present = fact["margin_at_present_terms"]
    yield line if present in (None, fact["margin_used"]) else f"{line}; {present} at present terms"


def _margin(margin: Facts, currency: str) -> Iterator[str]:
    yield f"balance {margin['balance']} {currency}, unrealized P&L {_known(margin['unrealized_pnl'])}"
    credit = Decimal(margin["hedged_margin_credit"])
    booked = Decimal(margin["margin_used"]) + credit
    agrees = "as" if booked == Decimal(margin["margin_used_by_audit"]) else "BUT"
    yield f"margin used {booked}, the sum of the positions, {agrees} the audit tells: {margin['margin_used_by_audit']}"
    if credit:
        yield f"less {credit}, because longs and shorts of one symbol cover each other: {margin['margin_used']}"
    level = margin["margin_level"]
    yield (
        f"equity {_known(margin['equity'])}, free margin {_known(margin['free_margin'])}, "
        f"margin level {'-' if level is None else level + ' %'}"
    )


def _order(order: Facts) -> str:
    price = order["limit_price"] or order["stop_price"]
    at = f" at {price}" if price else ""
    return f"{order['status']}: {order['order_type']} {order['side']} {order['quantity']} {order['symbol']}{at}"


def _denial(order: Facts) -> str:
    return (
        f"{order['created_at']} {order['side']} {order['quantity']} {order['symbol']}: {order['failure_code']}: "
        f"{order['failure_reason']}"
    )


def _quote(quote: Facts) -> str:
    if quote["age_ms"] is None:
        return f"{quote['symbol']}: none"
    market = "open" if quote["market_open"] else "closed"
    fresh = "STALE" if quote["stale"] else "usable"
    return (
        f"{quote['symbol']}: {quote['bid']} / {quote['ask']} from {quote['source']}, {quote['age_ms']} ms old (at most "
        f"{quote['age_ms_max']}), market {market}: {fresh}"
    )


def _known(figure: str | None) -> str:
    return "unknown" if figure is None else figure
