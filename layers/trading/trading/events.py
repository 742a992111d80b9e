"""What a trader's stream says about an event of an account: the frames of each channel."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from trading.json_text import json_text
from trading.wording import ORDER_STATES

ORDERS = "orders"
POSITIONS = "positions"
ACCOUNT = "account"
RISK = "risk"
MARKET_DATA = "market_data"
CHANNELS = (POSITIONS, ORDERS, ACCOUNT, RISK, MARKET_DATA)

# The frames of a channel go out on it, and on each wider one that cannot be followed without them.
_HEARD_ON: Mapping[str, frozenset[str]] = {
    ORDERS: frozenset({ORDERS}),
    POSITIONS: frozenset({POSITIONS}),
    ACCOUNT: frozenset({ACCOUNT, POSITIONS, ORDERS}),
    RISK: frozenset({RISK, ACCOUNT, POSITIONS, ORDERS}),
}

FRAME_BYTES_MAX = 32 * 1024
# More orders of one event than this share frames: posting a frame each could take longer than a relay may send.
ORDERS_APART_MAX = 20
# What such a frame holds besides its orders, with room to spare.
FRAME_BYTES_AROUND = 1024

_SIDE_OF_POSITION: Mapping[str, str] = {"long": "buy", "short": "sell"}

# Outside: inside.
_LEVELS: Mapping[str, str] = {
    "stop_loss": "stop_loss",
    "take_profit": "take_profit",
    "trailing_distance": "trail_distance",
}

type Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """A row of the outbox. `payload` holds the facts of the account's transaction by kind."""

    user_id: UUID
    account_id: UUID
    sequence: int
    event_type: str
    payload: Facts
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One WebSocket message, and the narrowest channel that carries it."""

    channel: str
    text: str


class UnrenderableError(Exception):
    """An event whose facts cannot be told; the message says what is wrong with them."""


def frames_of(event: Event) -> list[Frame]:
    """The frames of `event` on all channels: orders and their fills first, then positions, account, risk.

    Raises UnrenderableError when a fact is missing or malformed, or a frame would pass FRAME_BYTES_MAX.
    """
    payload = event.payload
    try:
        frames = _order_frames(event, [_order_data(fact) for fact in _facts(payload, "orders")])
        frames += [_fill_frame(event, fact) for fact in _facts(payload, "fills")]
        frames += [
            _frame(event, POSITIONS, "position_update", _position_data(fact)) for fact in _facts(payload, "positions")
        ]
        if payload.get("account"):
            frames.append(_frame(event, ACCOUNT, "account_update", _account_data(payload["account"])))
        if payload.get("risk"):
            frames.append(_frame(event, RISK, "risk_alert", _risk_data(payload["risk"])))
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UnrenderableError(f"{type(error).__name__}: {error}") from error
    if any(len(frame.text.encode()) > FRAME_BYTES_MAX for frame in frames):
        raise UnrenderableError(f"a frame of more than {FRAME_BYTES_MAX} bytes")
    return frames


def texts_for(event: Event, frames: Sequence[Frame], channels: Collection[str]) -> list[str]:
    """What a connection with `channels` is sent of `event`: each frame once, and at least the sequence."""
    heard = [frame.text for frame in frames if not _HEARD_ON[frame.channel].isdisjoint(channels)]
    return heard or [sequence_text(event)]


def sequence_text(event: Event) -> str:
    """The frame that says only that `event` happened, so that a reader can tell a gap from silence."""
    return json_text({"type": "sequence"} | _identity(event))


def _facts(payload: Facts, kind: str) -> Sequence[Facts]:
    return cast("Sequence[Facts]", payload.get(kind) or ())


def _frame(event: Event, channel: str, message_type: str, data: Mapping[str, object]) -> Frame:
    return Frame(channel, json_text({"type": message_type} | _identity(event) | {"data": data}))


def _identity(event: Event) -> dict[str, object]:
    """What every frame of `event` says of where it belongs; request_id is of the request that caused it."""
    return _present({"account_id": event.account_id, "sequence": event.sequence, "request_id": event.request_id})


def _order_frames(event: Event, orders: Sequence[Mapping[str, object]]) -> list[Frame]:
    """A frame an order; of many orders as few frames as hold them, in the same order, numbered by `part`."""
    if len(orders) <= ORDERS_APART_MAX:
        return [_frame(event, ORDERS, "order_update", data) for data in orders]
    parts: list[list[Mapping[str, object]]] = []
    bytes_left = 0
    for data in orders:
        bytes_taken = len(json_text(data).encode()) + 1
        if bytes_taken > bytes_left:
            parts.append([])
            bytes_left = FRAME_BYTES_MAX - FRAME_BYTES_AROUND
        parts[-1].append(data)
        bytes_left -= bytes_taken
    return [
        _frame(event, ORDERS, "orders_update", {"part": number, "parts": len(parts), "orders": part})
        for number, part in enumerate(parts, 1)
    ]


def _order_data(fact: Facts) -> dict[str, object]:
    data = {
        "order_id": str(fact["order_id"]),
        "client_order_id": fact.get("client_order_id"),
        "replaces_order_id": fact.get("replaces_order_id"),
        "symbol": fact.get("symbol"),
        "side": fact.get("side"),
        "order_type": fact.get("order_type"),
        "status": ORDER_STATES[fact["status"]][0],
        "quantity": _number(fact.get("quantity")),
        "limit_price": _number(fact.get("limit_price")),
        "stop_price": _number(fact.get("stop_price")),
        "trail_amount": _number(fact.get("trail_amount")),
        "trail_percent": _number(fact.get("trail_percent")),
        "limit_offset": _number(fact.get("limit_offset")),
        "display_quantity": _number(fact.get("display_quantity")),
        "display_variance": _number(fact.get("display_variance")),
        "post_only": fact.get("post_only"),
        "active_at": fact.get("active_at"),
        "contingency": fact.get("contingency"),
        "parent_order_id": fact.get("parent_order_id"),
        "linked_order_ids": fact.get("linked_order_ids"),
        "held_quantity": _number(fact.get("held_quantity")),
        "conditions": _conditions(fact.get("conditions")),
        "filled_quantity": _number(fact.get("filled_quantity")),
        "execution_price": _number(fact.get("average_price")),
        "executed_at": fact.get("executed_at"),
        "failure_code": fact.get("failure_code"),
        "failure_reason": fact.get("failure_reason"),
    }
    return _present(data)


def _conditions(facts: Sequence[Facts] | None) -> list[dict[str, object]] | None:
    """What an order was or is held for; `met_at` is absent until it is met."""
    return None if facts is None else [_present({**fact, "level": _required(fact["level"])}) for fact in facts]


def _fill_frame(event: Event, fact: Facts) -> Frame:
    whole = _required(fact["leaves_quantity"]) == 0
    message = {
        "event": "order.filled" if whole else "order.partial",
        **_identity(event),
        "order_id": str(fact["order_id"]),
        "fill_id": fact.get("fill_id"),
        "quantity_filled": _required(fact["quantity"]),
        "price_at_fill": _required(fact["price"]),
        "total_filled": _required(fact["total_filled"]),
        "status": "FILLED" if whole else "PARTIAL",
        "timestamp": fact["transact_time"],
    }
    return Frame(ORDERS, json_text(_present(message)))


def _position_data(fact: Facts) -> dict[str, object]:
    data = {
        "position_id": str(fact["position_id"]),
        "symbol": fact["symbol"],
        "side": _SIDE_OF_POSITION[fact["side"]],
        "quantity": _required(fact["quantity"]),
        "entry_price": _number(fact.get("entry_price")),
        "current_price": _number(fact.get("current_price")),
        "unrealized_pnl": _number(fact.get("unrealized_pnl")),
        "realized_pnl": _number(fact.get("realized_pnl")),
        "margin_used": _number(fact.get("margin_used")),
        "financing": _number(fact.get("financing")),
        "financing_charged": _number(fact.get("financing_charged")),
        "status": fact.get("status"),
        "version": fact.get("version"),
    }
    # Told where they may have changed; null says that there is none, its absence would read as "unchanged".
    levels = {name: _number(fact[inside]) for name, inside in _LEVELS.items() if inside in fact}
    return _present(data) | levels


def _account_data(fact: Facts) -> dict[str, object]:
    # Told only where an operator or a risk officer changed one of them.
    told = ("kyc_status", "account_status", "account_tier", "position_mode", "margin_profile", "limits")
    terms = {name: fact.get(name) for name in told}
    # margin_level is null while no margin is used: its absence would read as "unchanged".
    return _present(terms | {"leverage": _number(fact.get("leverage"))}) | {
        "currency": fact["currency"],
        "balance": _required(fact["balance"]),
        "equity": _number(fact.get("equity")),
        "unrealized_pnl": _number(fact.get("unrealized_pnl")),
        "margin_used": _number(fact.get("margin_used")),
        "hedged_margin_credit": _number(fact.get("hedged_margin_credit")),
        "free_margin": _number(fact.get("free_margin")),
        "margin_level": _number(fact.get("margin_level")),
    }


def _risk_data(fact: Facts) -> dict[str, object]:
    data = dict(fact)
    data["margin_level"] = _number(fact.get("margin_level"))
    data["threshold"] = _number(fact.get("threshold"))
    if "amount" in fact:
        data["amount"] = _number(fact["amount"])
    return data


def _present(data: Mapping[str, object]) -> dict[str, object]:
    """`data` without what is not known; optional fields are absent, not null."""
    return {name: value for name, value in data.items() if value is not None}


def _number(value: object) -> Decimal | None:
    return None if value is None else _required(value)


def _required(value: object) -> Decimal:
    """A number that the database wrote as a JSON number or as text; a float has already lost digits."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise TypeError(f"not a number: {type(value).__name__}")
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError(f"not a finite number: {value}")
    return number
