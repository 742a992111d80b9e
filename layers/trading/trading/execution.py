"""Executing an order, or letting it rest: the steps of the job, in order."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol, cast
from uuid import UUID

from trading.errors import ErrorCode, TradingError, validation_failed
from trading.instruments import INTERNAL, Instrument
from trading.json_text import json_text, shortest
from trading.order_entry import Condition, OrderEntry

# Part of the hash: a change in what is hashed is a new version, so that keys in flight are not taken for reused ones.
HASH_VERSION = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an order comes from; address, user agent and e-mail go to the audit's personal data alone."""

    user_id: UUID
    email: str
    ip_address: str
    user_agent: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Execution:
    """The stored outcome of an order or of its cancellation; `refusal` is set when it was denied or rejected.

    `answer` holds outcome, order_id, account_id, sequence, transact_time and, for a filled order, position_id, symbol,
    side, order_type, quantity, execution_price, slippage (quote currency), commission, margin, realized_pnl, total_cost
    (account currency), currency and transaction_id; for one that rests, is in flight to its venue or was canceled, what
    `order_fact` tells.
    """

    answer: Mapping[str, Any]
    replayed: bool
    refusal: TradingError | None


class Instruments(Protocol):
    """The allow-list of symbols."""

    def find(self, symbol: str) -> Instrument | None:
        """The instrument of `symbol`, or None."""
        ...


class OrderProcedure(Protocol):
    """A procedure of store.orders on the database at hand."""

    def __call__(self, request: Mapping[str, object], /) -> dict[str, Any]:
        """{replayed, answer}; TradingError as store.orders says."""
        ...


class RelayWaker(Protocol):
    """Tells the relay that an account has events to push."""

    def __call__(self, account_id: UUID, /) -> None:
        """Never raises: a lost message is made good by the relay's sweep."""
        ...


class RouteStarter(Protocol):
    """Tells the router that an order waits to be handed to its venue."""

    def __call__(self, user_id: UUID, order_id: UUID, /) -> None:
        """Never raises: a lost message is made good by the router's sweep."""
        ...


@dataclass(frozen=True, slots=True)
class Routing:
    """How orders for other venues leave: accepted by `procedure`, then announced. `venues` are the ones served."""

    procedure: OrderProcedure
    start: RouteStarter
    venues: Collection[str]


def execute_order(
    order: OrderEntry,
    origin: Origin,
    *,
    request_hash: str,
    key_days: int,
    instruments: Instruments,
    execute: OrderProcedure,
    place: OrderProcedure,
    routing: Routing,
    wake_relay: RelayWaker,
) -> Execution:
    """Check `order` against its instrument; `execute` it, `place` one that rests, or accept it for its venue.

    Then wake who goes on from there. Raises what the procedures of store.orders raise, and VENUE_UNAVAILABLE for a
    venue that is not served.
    """
    instrument = check_order(order, instruments, routing.venues)
    asked = order.model_dump(mode="python", exclude_none=True) | origin_fields(origin, request_hash, key_days)
    if order.waits:
        return settled(place(asked), wake_relay)
    if instrument.venue == INTERNAL:
        return settled(execute(asked), wake_relay)
    return sent_on(settled(routing.procedure(asked), wake_relay), origin, routing.start)


def sent_on(execution: Execution, origin: Origin, start: RouteStarter) -> Execution:
    """The execution; the router is told of an order that was accepted just now for its venue."""
    if execution.answer["outcome"] == "pending_new" and not execution.replayed:
        start(origin.user_id, UUID(execution.answer["order_id"]))
    return execution


def settled(kept: Mapping[str, Any], wake_relay: RelayWaker) -> Execution:
    """What a procedure's {replayed, answer} came to; the relay is woken unless it is a repeat."""
    answer: dict[str, Any] = kept["answer"]
    if not kept["replayed"]:
        wake_relay(UUID(answer["account_id"]))
    return Execution(answer, kept["replayed"], _refusal(answer))


def check_order(order: OrderEntry, instruments: Instruments, venues: Collection[str]) -> Instrument:
    """The instrument of an order that is fit to be judged; UNKNOWN_SYMBOL, VALIDATION_FAILED, VENUE_UNAVAILABLE.

    What waits is held here, whatever venue its instrument has: it needs none of the `venues` that are served.
    """
    instrument = check_against_instrument(order, instruments.find(order.symbol))
    check_conditions(order.conditions or (), instruments)
    if order.waits or instrument.venue == INTERNAL or instrument.venue in venues:
        return instrument
    raise TradingError(
        ErrorCode.VENUE_UNAVAILABLE,
        f"The venue of {order.symbol} is not connected at the moment. Send the same request again later.",
        {"field": "symbol", "value": order.symbol, "constraint": "an instrument whose venue is connected"},
        retry_after=60,
    )


def check_against_instrument(order: OrderEntry, instrument: Instrument | None) -> Instrument:
    """The instrument; UNKNOWN_SYMBOL, or VALIDATION_FAILED for what it does not take."""
    if instrument is None:
        raise _unknown_symbol("symbol", order.symbol)
    if not instrument.takes_quantity(order.quantity):
        bounds = f"{instrument.quantity_min} to {instrument.quantity_max} in steps of {instrument.quantity_step}"
        raise validation_failed("quantity", order.quantity, bounds, f"Send a quantity of {bounds} lots.")
    shown = order.display_quantity
    if shown is not None and not instrument.takes_quantity(shown):
        bounds = f"{instrument.quantity_min} to the quantity in steps of {instrument.quantity_step}"
        raise validation_failed("display_quantity", shown, bounds, f"Send a display_quantity of {bounds} lots.")
    for field in ("limit_price", "stop_price", "trail_amount", "limit_offset", "stop_loss", "take_profit"):
        price = cast("Decimal | None", getattr(order, field))
        # An offset of 0 is the only price that may be nothing.
        if price and not instrument.takes_price(price):
            tick = f"a multiple of {instrument.tick_size:f}"
            raise validation_failed(field, price, tick, f"Prices of {order.symbol} have a tick: send {tick}.")
    return instrument


def check_conditions(conditions: Iterable[Condition], instruments: Instruments) -> None:
    """UNKNOWN_SYMBOL, or VALIDATION_FAILED for a level between two ticks, by where it stands: conditions.0.level."""
    for place, condition in enumerate(conditions):
        instrument = instruments.find(condition.symbol)
        if instrument is None:
            raise _unknown_symbol(f"conditions.{place}.symbol", condition.symbol)
        if not instrument.takes_price(condition.level):
            field, tick = f"conditions.{place}.level", f"a multiple of {instrument.tick_size:f}"
            message = f"Prices of {condition.symbol} have a tick: send {field} as {tick}."
            raise validation_failed(field, condition.level, tick, message)


def hash_of_request(route: str, body: Mapping[str, Any]) -> str:
    """The fingerprint under which an idempotency key is kept: route and fields as received, numbers normalised."""
    content = {name: _normalised(value) for name, value in sorted(body.items()) if name != "idempotency_key"}
    return hashlib.sha256(f"{HASH_VERSION}\n{route}\n{json_text(content)}".encode()).hexdigest()


def origin_fields(origin: Origin, request_hash: str, key_days: int) -> dict[str, object]:
    """What every keyed request of a procedure says of who asks, and how its answer is kept."""
    return {
        "user_id": origin.user_id,
        "email": origin.email,
        "ip_address": origin.ip_address,
        "user_agent": origin.user_agent,
        "request_id": origin.request_id,
        "request_hash": request_hash,
        "idempotency_key_days": key_days,
    }


def _unknown_symbol(field: str, symbol: str) -> TradingError:
    return TradingError(
        ErrorCode.UNKNOWN_SYMBOL,
        f"There is no instrument {symbol}. Check the spelling of {field}.",
        {"field": field, "value": symbol, "constraint": "a known symbol"},
    )


def _normalised(value: object) -> object:
    """Equal numbers in equal form: 0.10 is 0.1; members in the order of their names."""
    match value:
        case bool() | None:
            return value
        case str():
            return f"text:{value}"
        case Decimal() | int():
            return f"number:{shortest(Decimal(value))}"
        case dict():
            members = cast("dict[str, object]", value)
            return {name: _normalised(member) for name, member in sorted(members.items())}
        case list():
            return [_normalised(item) for item in cast("list[object]", value)]
        case _:
            raise TypeError(f"{type(value).__name__} does not come from JSON")


def _refusal(answer: Mapping[str, Any]) -> TradingError | None:
    if answer["outcome"] not in ("denied", "rejected"):
        return None
    details = {**answer["details"], "order_id": answer["order_id"]}
    return TradingError(ErrorCode(answer["code"]), answer["message"], details)
