"""What every request for a change shares: its caller is admitted, its origin noted, its outcome told."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from trading.edge.acts import mark_repeat, origin_of, relay_waker
from trading.edge.dialects import spoken_state
from trading.edge.gate import Caller, admit
from trading.edge.http import Request
from trading.errors import TradingError
from trading.execution import Execution, Origin, RelayWaker
from trading.settings import settings


@dataclass(frozen=True, slots=True)
class Change:
    """A change that its caller may ask for; its answer is kept for `key_days`."""

    caller: Caller
    origin: Origin
    key_days: int
    wake_relay: RelayWaker


def admit_change(request: Request, *, route_group: str, permission: str, reduces: bool = False) -> Change:
    """Admit the caller of a request that changes something; raises what `admit` raises.

    One that only `reduces` risk is let through in maintenance that is not full.
    """
    caller = admit(request, route_group=route_group, state_changing=True, permission=permission, reduces=reduces)
    return Change(caller, origin_of(request, caller), settings().idempotency_key_days, relay_waker(request, caller))


def tell_outcome(request: Request, execution: Execution) -> None:
    """Mark the answer of a repeat; raise the refusal of a denied order."""
    mark_repeat(request, replayed=execution.replayed)
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
