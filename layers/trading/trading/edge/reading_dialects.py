"""Reading back in the words of /api/v1: from a query to what is asked for, from facts to a body."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

from trading.edge.dialects import AUDIT_ACTIONS, order_state, order_state_words, order_states_inside, spoken
from trading.edge.envelope import timestamp
from trading.edge.gate import Caller
from trading.edge.order_dialects import spoken_conditions
from trading.errors import validation_failed
from trading.moments import read_moment
from trading.order_entry import LABEL_CHARACTERS_MAX
from trading.orders import CLOSED_STATUSES, OrderType
from trading.store.reading import OrderFilters
from trading.symbols import read_symbols

PAGE_ROWS_MAX = 100
PAGE_ROWS_DEFAULT = 50
SIDES = ("buy", "sell")
ORDER_TYPES: tuple[OrderType, ...] = get_args(OrderType.__value__)
POSITION_STATUSES = ("open", "closed", "all")
CURSOR_DIGITS_MAX = 18
NAME_CHARACTERS_MAX = 100
# What one order shows of its request beside what every order of a list does.
ASKED_BESIDE = (
    "parent_order_id",
    "max_slippage",
    "reduce_only",
    "execution_instructions",
    "strategy_id",
    "signal_id",
    "component_name",
    "metadata",
)

type Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list: what comes after `before`, the last one of the page before; None begins."""

    before: UUID | None
    limit: int


@dataclass(frozen=True, slots=True)
class LedgerPage:
    """Which ledger entries are asked for: those numbered below `before`, None for the newest."""

    before: int | None
    limit: int


@dataclass(frozen=True, slots=True)
class PositionQuery:
    """Which positions are asked for; `page` is None for the open ones, which are listed whole."""

    account_id: UUID | None
    with_open: bool
    page: Page | None


def order_query(query: Mapping[str, str], *, closed_only: bool = False) -> tuple[OrderFilters, Page]:
    """The orders that `query` asks for.

    By status (words with commas between them; with `closed_only` only those of closed orders), symbol, side,
    order_type, from and to (of created_at, ISO 8601 with offset, `to` excluded), account_id, client_order_id, limit
    and cursor, the next_cursor of the page before. VALIDATION_FAILED names what does not fit.
    """
    filters = OrderFilters(
        account_id=optional_id(query, "account_id"),
        statuses=_statuses(query.get("status"), CLOSED_STATUSES if closed_only else None),
        symbol=_symbol(query.get("symbol")),
        side=_word(query, "side", SIDES),
        order_type=_word(query, "order_type", ORDER_TYPES),
        created_from=_moment(query, "from"),
        created_to=_moment(query, "to"),
        client_order_id=_client_order_id(query.get("client_order_id")),
    )
    return filters, read_page(query)


def position_query(query: Mapping[str, str]) -> PositionQuery:
    """The positions that `query` asks for by status (open, closed, all), account_id and, but for open ones, page."""
    status = _word(query, "status", POSITION_STATUSES) or "open"
    if status == "open":
        for field in ("limit", "cursor"):
            if query.get(field):
                constraint = "with status closed or all"
                raise validation_failed(
                    field, query[field], constraint, f"Open positions come whole: send {field} {constraint}."
                )
    page = None if status == "open" else read_page(query)
    return PositionQuery(optional_id(query, "account_id"), with_open=status != "closed", page=page)


def read_page(query: Mapping[str, str]) -> Page:
    """The page that `query` asks for by limit and cursor, the next_cursor of the page before; VALIDATION_FAILED."""
    return Page(before=optional_id(query, "cursor"), limit=_limit(query.get("limit")))


def ledger_page(query: Mapping[str, str]) -> LedgerPage:
    """The page that `query` asks for by limit and cursor, the next_cursor of the page before; VALIDATION_FAILED."""
    cursor = query.get("cursor") or None
    if cursor is not None and not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= CURSOR_DIGITS_MAX):
        constraint = "a next_cursor"
        raise validation_failed("cursor", cursor, constraint, f"Send cursor as {constraint} of the page before.")
    return LedgerPage(before=int(cursor) if cursor else None, limit=_limit(query.get("limit")))


def parse_id(text: str, field: str) -> UUID:
    """The id that `text` is in its usual form; VALIDATION_FAILED for everything else."""
    try:
        parsed = UUID(text)
    except ValueError:
        parsed = None
    # UUID() also takes braces, urn:uuid: and no hyphens, under which two texts would name one thing.
    if parsed is None or str(parsed) != text.lower():
        raise validation_failed(field, text, "a UUID", f"{field} must be an id such as GET /api/v1/orders shows.")
    return parsed


def parse_name(text: str, field: str) -> str:
    """The name that `text` is, of something that there may be; VALIDATION_FAILED for what no name can hold."""
    if not text.isprintable() or len(text) > NAME_CHARACTERS_MAX:
        constraint = f"text of 1 to {NAME_CHARACTERS_MAX} characters, all of them printable"
        raise validation_failed(field, text, constraint, f"Send {field} as {constraint}.")
    return text


def optional_id(query: Mapping[str, str], field: str) -> UUID | None:
    """The id in a member of `query`; None when it is left out or empty."""
    return parse_id(query[field], field) if query.get(field) else None


def orders_body(page: Facts) -> dict[str, Any]:
    """A page of orders, newest first: {data, next_cursor}."""
    return {"data": [order_members(order) for order in page["orders"]], "next_cursor": page["next"]}


def order_body(order: Facts) -> dict[str, Any]:
    """One order with all that was asked for, and its fills."""
    asked = {name: order[name] for name in ASKED_BESIDE}
    return order_members(order) | asked | {"fills": [_fill(fill) for fill in order["fills"]]}


def order_members(fact: Facts) -> dict[str, Any]:
    """An order without its fills."""
    return {
        "id": fact["id"],
        "trader_id": fact["user_id"],
        "account_id": fact["account_id"],
        "client_order_id": fact["client_order_id"],
        "symbol": fact["symbol"],
        "order_type": spoken("rest", fact["order_type"]),
        "side": spoken("rest", fact["side"]),
        "quantity": fact["quantity"],
        "filled_quantity": fact["filled_quantity"],
        "leaves_quantity": fact["leaves_quantity"],
        "price": fact["limit_price"],
        "stop_price": fact["stop_price"],
        "trail_amount": fact["trail_amount"],
        "trail_percent": fact["trail_percent"],
        "limit_offset": fact["limit_offset"],
        "trail_mark": fact["trail_mark"],
        "trail_level": fact["trail_level"],
        "display_quantity": fact["display_quantity"],
        "display_variance": fact["display_variance"],
        "post_only": fact["post_only"],
        "active_at": _time(fact["active_at"]),
        "conditions": fact["conditions"] and spoken_conditions(fact["conditions"], "rest"),
        "stop_loss": fact["stop_loss"],
        "take_profit": fact["take_profit"],
        "time_in_force": spoken("rest", fact["time_in_force"]),
        "expires_at": _time(fact["expires_at"]),
        "status": order_state("rest", fact["status"]),
        "average_price": fact["average_price"],
        "slippage": fact["slippage"],
        "commission": fact["commission"],
        "total_cost": fact["total_cost"],
        "position_id": fact["position_id"],
        "transaction_id": fact["transaction_id"],
        "contingency": spoken("rest", fact["contingency"]) if fact["contingency"] else None,
        "linked_order_ids": fact["linked_order_ids"],
        "held_quantity": fact["held_quantity"],
        "failure_code": fact["failure_code"],
        "failure_reason": fact["failure_reason"],
        "replaces_order_id": fact["replaces_order_id"],
        "version": fact["version"],
        "created_at": _time(fact["created_at"]),
        "updated_at": _time(fact["updated_at"]),
        "executed_at": _time(fact["executed_at"]),
    }


def audit_body(rows: Sequence[Facts]) -> dict[str, Any]:
    """What happened to an order, oldest first: {data, total}."""
    return {"data": [_audit_row(row) for row in rows], "total": len(rows)}


def ledger_body(page: Facts) -> dict[str, Any]:
    """A page of an account's ledger, newest first: {data, next_cursor}; amounts are signed."""
    cursor = page["next"]
    return {
        "data": [dict(entry) | {"created_at": _time(entry["created_at"])} for entry in page["entries"]],
        "next_cursor": None if cursor is None else str(cursor),
    }


def position_body(fact: Facts) -> dict[str, Any]:
    """A position."""
    return {
        "id": fact["id"],
        "account_id": fact["account_id"],
        "order_id": fact["order_id"],
        "symbol": fact["symbol"],
        "side": spoken("rest", fact["side"]),
        "status": spoken("rest", fact["status"]),
        "quantity": fact["quantity"],
        "opened_quantity": fact["opened_quantity"],
        "entry_price": fact["entry_price"],
        "current_price": fact["current_price"],
        "unrealized_pnl": fact["unrealized_pnl"],
        "financing": fact["financing"],
        "realized_pnl": fact["realized_pnl"],
        "currency": fact["currency"],
        "margin_used": fact["margin_used"],
        "stop_loss": fact["stop_loss"],
        "take_profit": fact["take_profit"],
        "trailing_distance": fact["trailing_distance"],
        "version": fact["version"],
        "commission_paid": fact["commission_paid"],
        "created_at": _time(fact["created_at"]),
        "updated_at": _time(fact["updated_at"]),
        "closed_at": _time(fact["closed_at"]),
    }


def positions_body(positions: Sequence[Facts]) -> dict[str, Any]:
    """The open positions: {data, total}."""
    return {"data": [position_body(position) for position in positions], "total": len(positions)}


def position_page_body(page: Facts) -> dict[str, Any]:
    """A page of positions, newest first: {data, next_cursor}."""
    return {"data": [position_body(position) for position in page["positions"]], "next_cursor": page["next"]}


def position_summary_body(held: Sequence[Facts]) -> dict[str, Any]:
    """What is held of each symbol on each account: {data, total}."""
    members = (
        "account_id",
        "symbol",
        "positions",
        "long_quantity",
        "short_quantity",
        "net_quantity",
        "long_entry_price",
        "short_entry_price",
        "unrealized_pnl",
        "margin_used",
        "hedged_margin_credit",
        "currency",
    )
    return {"data": [{name: fact[name] for name in members} for fact in held], "total": len(held)}


def profile_body(profile: Facts, caller: Caller) -> dict[str, Any]:
    """A user with their accounts, and what their token says they may do."""
    return {
        "id": profile["id"],
        "email": profile["email"],
        "kyc_status": profile["kyc_status"],
        "account_status": profile["account_status"],
        "tier": profile["account_tier"],
        "rate_limit_tier": caller.tier,
        "role": caller.role,
        "permissions": sorted(caller.permissions),
        "accounts": profile["accounts"],
        "created_at": _time(profile["created_at"]),
    }


def account_body(account: Facts) -> dict[str, Any]:
    """An account and its worth."""
    return {
        "id": account["id"],
        "trader_id": account["user_id"],
        "currency": account["currency"],
        "kind": account["kind"],
        "leverage": account["leverage"],
        "position_mode": account["position_mode"],
        "trading_state": account["trading_state"],
        "balance": account["balance"],
        "unrealized_pnl": account["unrealized_pnl"],
        "equity": account["equity"],
        "margin_used": account["margin_used"],
        "hedged_margin_credit": account["hedged_margin_credit"],
        "free_margin": account["free_margin"],
        "margin_level": account["margin_level"],
        "open_positions": account["open_positions"],
        "sequence": account["sequence"],
        "created_at": _time(account["created_at"]),
    }


def _limit(text: str | None) -> int:
    if not text:
        return PAGE_ROWS_DEFAULT
    if not (text.isascii() and text.isdecimal() and len(text) <= 3 and 1 <= int(text) <= PAGE_ROWS_MAX):
        constraint = f"1 to {PAGE_ROWS_MAX}"
        raise validation_failed("limit", text, constraint, f"limit must be a whole number from {constraint}.")
    return int(text)


def _statuses(text: str | None, among: AbstractSet[str] | None) -> tuple[str, ...] | None:
    known = order_state_words("rest", among)
    if not text:
        return None if among is None else tuple(sorted(among))
    inside: list[str] = []
    for word in text.split(","):
        if word.strip().upper() not in known:
            constraint = ", ".join(known)
            raise validation_failed("status", word, constraint, f"status must be one or more of {constraint}.")
        inside.extend(order_states_inside("rest", word.strip()))
    return tuple(inside)


def _symbol(text: str | None) -> str | None:
    return read_symbols([text], "symbol")[0] if text else None


def _word(query: Mapping[str, str], field: str, known: Sequence[str]) -> str | None:
    word = query.get(field)
    if not word:
        return None
    if word.lower() not in known:
        constraint = ", ".join(spoken("rest", each) for each in known)
        raise validation_failed(field, word, constraint, f"{field} must be one of {constraint}.")
    return word.lower()


def _moment(query: Mapping[str, str], field: str) -> datetime | None:
    if not query.get(field):
        return None
    try:
        return read_moment(query[field])
    except ValueError:
        constraint = "a time in ISO 8601 with its offset"
        raise validation_failed(
            field, query[field], constraint, f"{field} must be {constraint}, such as 2030-01-31T18:00:00Z."
        ) from None


def _client_order_id(text: str | None) -> str | None:
    if text and not (len(text) <= LABEL_CHARACTERS_MAX and text.isascii() and text.isprintable() and " " not in text):
        constraint = f"1 to {LABEL_CHARACTERS_MAX} letters, digits and signs (ASCII, no spaces)"
        raise validation_failed("client_order_id", text, constraint, f"client_order_id has {constraint}.")
    return text or None


def _fill(fact: Facts) -> dict[str, Any]:
    return {
        "id": fact["id"],
        "order_id": fact["order_id"],
        "position_id": fact["position_id"],
        "side": spoken("rest", fact["side"]),
        "quantity_filled": fact["quantity"],
        "price_at_fill": fact["price"],
        "commission": fact["commission"],
        "realized_pnl": fact["realized_pnl"],
        "venue": fact["venue"],
        "trade_id": fact["trade_id"],
        "timestamp": _time(fact["transact_time"]),
    }


def _audit_row(fact: Facts) -> dict[str, Any]:
    return {
        "id": fact["id"],
        "order_id": fact["order_id"],
        "trader_id": fact["user_id"],
        "action": AUDIT_ACTIONS[fact["action"]],
        "status": order_state("rest", fact["status"]) if fact["status"] else None,
        "timestamp": _time(fact["created_at"]),
        "reason": fact["reason"],
        "error_code": fact["error_code"],
        "retry_attempt": fact["retry_attempt"],
    }


def _time(text: str | None) -> str | None:
    return timestamp(datetime.fromisoformat(text)) if text else None
