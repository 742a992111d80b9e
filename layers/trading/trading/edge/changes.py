"""What every request for a change shares: its caller is admitted, its origin noted, its outcome told."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from trading.edge.dialects import spoken_state
from trading.edge.gate import Caller, admit
from trading.edge.http import Request
from trading.errors import TradingError
from trading.execution import Execution, Origin, RelayWaker
from trading.queue import notify_relay_unless_awake
from trading.settings import settings


@dataclass(frozen=True, slots=True)
class Change:
    """A change that its caller may ask for; its answer is kept for `key_days`."""

    caller: Caller
    origin: Origin
    key_days: int
    wake_relay: RelayWaker


def admit_change(request: Request, *, route_group: str, permission: str) -> Change:
    """Admit the caller of a request that changes something; raises what `admit` raises."""
    caller = admit(request, route_group=route_group, state_changing=True, permission=permission)
    return Change(
        caller,
        Origin(caller.user_id, caller.email, request.source_ip, request.user_agent, request.request_id),
        settings().idempotency_key_days,
        partial(
            notify_relay_unless_awake,
            relay_awake=caller.relay_awake,
            started_at=request.started_at,
            request_id=request.request_id,
        ),
    )


def tell_outcome(request: Request, execution: Execution) -> None:
    """Mark the answer of a repeat; raise the refusal of a denied order."""
    if execution.replayed:
        request.answer_headers["Idempotency-Replayed"] = "true"
    if execution.refusal is not None:
        raise execution.refusal


@contextmanager
def states_as_spoken() -> Generator[None]:
    """A refusal inside that names the state of an order or position, or shows an order, does so as /api/v1 speaks."""
    try:
        yield
    except TradingError as error:
        speak_state(error)
        if "order" in error.details:
            # Only a refused change of an order has one; not every function that changes something reads orders.
            from trading.edge.reading_dialects import order_members

            error.details["order"] = order_members(cast("Mapping[str, Any]", error.details["order"]))
        raise


def speak_state(refusal: TradingError) -> None:
    """Where `refusal` names the state of an order or position, let it do so in the words of /api/v1."""
    if refusal.details.get("field") == "status":
        refusal.details["value"] = spoken_state("rest", str(refusal.details["value"]))
