"""Closing many positions of an account, each by an order of its own."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict

from trading.errors import CODE_BY_SQLSTATE, ErrorCode, TradingError
from trading.execution import OrderProcedure, Origin, RelayWaker, RouteStarter, origin_fields, sent_on, settled
from trading.order_entry import Key, Symbol, lower_case
from trading.positions import PositionSide

# Of one request.
POSITIONS_MAX = 100
# Well within the function's own limit, so that who waits is told.
SECONDS_MAX = 7.0


class CloseAllEntry(BaseModel):
    """Which positions are to be closed: of an account (None: the only one), a symbol, a side, with a loss or profit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    account_id: UUID | None = None
    symbol: Symbol | None = None
    side: Annotated[PositionSide | None, BeforeValidator(lower_case)] = None
    which: Annotated[Literal["all", "losers", "winners"], BeforeValidator(lower_case)] = "all"
    idempotency_key: Key

    def asked(self) -> dict[str, object]:
        """What is asked for, without the key."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"idempotency_key"})


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one position: the `answer` of its order where it was closed or sent, else the `refusal`."""

    position: Mapping[str, Any]
    answer: Mapping[str, Any]
    refusal: TradingError | None

    @property
    def sent(self) -> bool:
        """Whether its order is on its way to a venue."""
        return self.refusal is None and self.answer["outcome"] == "pending_new"


@dataclass(frozen=True, slots=True)
class MassClosing:
    """What became of the positions that a request chose; `left` of those that matched it are still open."""

    attempts: list[Attempt]
    left: int
    replayed: bool


def close_all(
    entry: CloseAllEntry,
    origin: Origin,
    *,
    request_hash: str,
    key_days: int,
    plan: OrderProcedure,
    close: OrderProcedure,
    start_routing: RouteStarter,
    wake_relay: RelayWaker,
    now: Callable[[], float] = time.monotonic,
) -> MassClosing:
    """Choose the positions by `plan`, `close` one after the other, and wake the relay once for all events.

    `start_routing` is told each order that a venue is to fill.

    Raises what store.positions.plan_closes and close_planned raise, and DATABASE_UNAVAILABLE when SECONDS_MAX were not
    enough; the same key then goes on where this ended.
    """
    began = now()
    fields = origin_fields(origin, request_hash, key_days)
    chosen = plan(entry.model_dump(mode="python", exclude_none=True) | {"positions_max": POSITIONS_MAX} | fields)
    replayed: bool = chosen["replayed"]
    attempts: list[Attempt] = []
    woken: set[UUID] = set()
    try:
        for position in chosen["answer"]["positions"]:
            if now() - began > SECONDS_MAX:
                raise _out_of_time(len(attempts))
            asked = {"position_id": position["position_id"], "idempotency_key": entry.idempotency_key}
            kept = sent_on(settled(close(asked | fields), woken.add), origin, start_routing)
            replayed = replayed and kept.replayed
            attempts.append(Attempt(position, kept.answer, kept.refusal or _refusal(kept.answer)))
    finally:
        for account_id in woken:
            wake_relay(account_id)
    closed = sum(attempt.refusal is None and not attempt.sent for attempt in attempts)
    return MassClosing(attempts, chosen["answer"]["matched"] - closed, replayed)


def _refusal(answer: Mapping[str, Any]) -> TradingError | None:
    """Why there was no order: the position was not open any more, or had no fresh price."""
    if answer["outcome"] != "refused":
        return None
    return TradingError(CODE_BY_SQLSTATE[answer["sqlstate"]], answer["message"], answer["details"])


def _out_of_time(done: int) -> TradingError:
    return TradingError(
        ErrorCode.DATABASE_UNAVAILABLE,
        f"{done} positions are done, and time is up. Send the same request with the same idempotency key again for the "
        "rest.",
        retry_after=1,
    )
