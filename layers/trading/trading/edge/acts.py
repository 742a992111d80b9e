"""What the requests of staff share: who acts, under which key, who is woken after it, and how its outcome is told."""

from collections.abc import Mapping
from functools import partial

from trading.account_keeping import KeyTerms, OperatorAct
from trading.edge.gate import Caller
from trading.edge.http import Request
from trading.execution import Origin, RelayWaker, hash_of_request
from trading.queue import notify_relay_unless_awake
from trading.settings import settings


def origin_of(request: Request, caller: Caller) -> Origin:
    """Who asks, and from where."""
    return Origin(caller.user_id, caller.email, request.source_ip, request.user_agent, request.request_id)


def key_terms(request: Request, body: Mapping[str, object]) -> KeyTerms:
    """What the answer is kept under beside its key."""
    return KeyTerms(hash_of_request(request.route_key, body), settings().idempotency_key_days)


def relay_waker(request: Request, caller: Caller) -> RelayWaker:
    """Tells the relay of an account's news after the commit, unless it was seen awake."""
    return partial(
        notify_relay_unless_awake,
        relay_awake=caller.relay_awake,
        started_at=request.started_at,
        request_id=request.request_id,
    )


def mark_repeat(request: Request, *, replayed: bool) -> None:
    """Say of the answer to a repeat that it is one."""
    if replayed:
        request.answer_headers["Idempotency-Replayed"] = "true"


def told_act(request: Request, act: OperatorAct) -> OperatorAct:
    """`act`, marked if it is a repeat's; raises what it was refused for."""
    mark_repeat(request, replayed=act.replayed)
    if act.refusal is not None:
        raise act.refusal
    return act
