"""The kill switch as risk officers see and throw it, in the words of /api/v1."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from trading.edge.account_dialects import TAKEN as TAKEN_BY_ACCOUNTS
from trading.edge.envelope import timestamp
from trading.edge.http import Request
from trading.edge.members import read_members
from trading.kill_switch import StateChange, WindDownAct
from trading.kill_switch_requests import TradingStateChange, WindDown

type Facts = Mapping[str, Any]

# What each field takes, as it is told.
TAKEN: Mapping[str, str] = {
    "scope": "platform, symbol or account",
    "symbol": "the symbol of an instrument",
    "account_id": "the id of an account",
    "trading_state": "active, reducing or halted",
    "action": "cancel_orders or flatten",
    "confirmation": "the confirmation that the request without it got",
    "reason": TAKEN_BY_ACCOUNTS["reason"],
    "idempotency_key": TAKEN_BY_ACCOUNTS["idempotency_key"],
}


def state_change(request: Request, body: Facts) -> TradingStateChange:
    """The state that `body` asks for; VALIDATION_FAILED names the first field that does not fit."""
    return read_members(TradingStateChange, request, body, TAKEN)


def wind_down_asked(request: Request, body: Facts) -> WindDown:
    """The wind-down that `body` asks for; VALIDATION_FAILED names the first field that does not fit.

    Without a key of its own a confirmation is the key, so that one that comes again starts nothing more.
    """
    asked = read_members(WindDown, request, body, TAKEN)
    if asked.confirmation is None or body.get("idempotency_key") or "idempotency-key" in request.headers:
        return asked
    return asked.model_copy(update={"idempotency_key": asked.confirmation})


def without_confirmation(body: Facts) -> dict[str, Any]:
    """What a key is kept for: the confirmation is new each time."""
    return {name: value for name, value in body.items() if name != "confirmation"}


def state_body(change: StateChange) -> dict[str, Any]:
    """A state that was set; `settled` says that no order which has read the old one is under way any more."""
    return _change(change.answer) | {"settled": change.settled}


def states_body(states: Facts) -> dict[str, Any]:
    """What is not active, and who set what last."""
    return {
        "platform": states["platform"],
        "symbols": states["symbols"],
        "accounts": states["accounts"],
        "changes": [_change(change) | {"actor": change["actor"]} for change in states["changes"]],
    }


def wind_down_body(act: WindDownAct) -> dict[str, Any]:
    """What it would end, with its confirmation; or that it was started."""
    if act.confirmation is None:
        return _wind_down(act.answer)
    return {
        "accounts": act.answer["accounts"],
        "working_orders": act.answer["working_orders"],
        "open_positions": act.answer["open_positions"],
        "confirmation": act.confirmation.token,
        "confirmation_expires_at": timestamp(act.confirmation.expires_at),
    }


def progress_body(wind_down: Facts) -> dict[str, Any]:
    """How far it has come; `accounts` and `done` of them."""
    shown = ("reason", "actor", "done", "waiting", "orders_canceled", "positions_closed", "positions_sent", "finished")
    return _wind_down(wind_down) | {name: wind_down[name] for name in shown}


def _change(answer: Facts) -> dict[str, Any]:
    return {
        "id": answer["change_id"],
        **{name: answer[name] for name in ("scope", "symbol", "account_id", "before", "trading_state", "reason")},
        "changed_at": timestamp(datetime.fromisoformat(answer["transact_time"])),
        "sequence": answer["sequence"],
    }


def _wind_down(answer: Facts) -> dict[str, Any]:
    return {
        "id": answer["wind_down_id"],
        **{name: answer[name] for name in ("scope", "symbol", "account_id", "action", "accounts")},
        "started_at": timestamp(datetime.fromisoformat(answer["started_at"])),
    }
