"""The life of a WebSocket connection: accepted, authenticated, subscribed, closed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol
from uuid import UUID

from trading.errors import ErrorCode, TradingError, validation_failed
from trading.events import ORDERS
from trading.json_text import json_text
from trading.messages import SYMBOLS_MAX, Subscribe, Unsubscribe
from trading.queue import ConnectionTask
from trading.sockets import Outcome, Sockets
from trading.store.connections import Answer, ConnectionStore

# A client of this sub-protocol hears of its orders from the start and need not subscribe.
ORDER_UPDATES = "order-updates"

AUTHENTICATION_SECONDS_MAX = 10
# API Gateway itself ends a connection after two hours; older rows are leftovers.
CONNECTION_SECONDS_MAX = 2 * 60 * 60 + 60
# Each event of a user is sent to each of these.
CONNECTIONS_PER_USER_MAX = 100
CLOSED_PER_SWEEP_MAX = 500
# The relay leaves a new subscription alone this long, unless it is released earlier.
HOLD_MS = 1000
# A connection whose handshake is not over yet looks as if it were gone.
HANDSHAKE_WAITS_SECONDS = (0.02, 0.05, 0.1, 0.2)
ACKNOWLEDGE_TASKS_MAX = 3

# What a task asks for.
TIME_OUT = "time_out"
ACKNOWLEDGE = "acknowledge"

CLOSE_UNKNOWN = 4404
CLOSE_UNAUTHENTICATED = 4401
CLOSE_EXPIRED = 4403
CLOSE_AGED = 4408
CLOSE_BLOCKED = 4423

_CLOSINGS: Mapping[str, tuple[int, str]] = {
    "unknown": (CLOSE_UNKNOWN, "This connection is not known any more. Connect again and subscribe since=N."),
    "unauthenticated": (
        CLOSE_UNAUTHENTICATED,
        f'No {{"type":"auth","token":"..."}} came within {AUTHENTICATION_SECONDS_MAX} seconds. Connect again.',
    ),
    "expired": (CLOSE_EXPIRED, "Your access token has expired. Connect again with a new one."),
    "blocked": (CLOSE_BLOCKED, "Your address is blocked. If that is a mistake, ask support."),
    "aged": (CLOSE_AGED, "This connection is too old. Connect again and subscribe since=N."),
}


class Holder(Protocol):
    """What is needed of a verified token."""

    @property
    def user_id(self) -> UUID:
        """Whose token it is."""
        ...

    @property
    def role(self) -> str:
        """The holder's role."""
        ...

    @property
    def expires_at(self) -> float:
        """When it ends, in seconds since 1970."""
        ...


class ConnectionClosedError(Exception):
    """The connection may not go on; it was told why and cut."""


@dataclass(frozen=True, slots=True)
class Hints:
    """The queue messages that connections need; sending one never raises."""

    notify_relay: Callable[[UUID], None]
    send_task: Callable[[ConnectionTask], None]
    watch_prices: Callable[[], None]


class Connections:
    """The steps of a connection's life. `verify` turns a token into its holder or raises UNAUTHENTICATED."""

    def __init__(
        self,
        store: ConnectionStore,
        sockets: Sockets,
        verify: Callable[[str], Holder],
        hints: Hints,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._sockets = sockets
        self._verify = verify
        self._hints = hints
        self._sleep = sleep

    def accept(self, connection_id: str, *, token: str | None, protocol: str | None, source_ip: str | None) -> None:
        """Take a connection in. A `token` given at once is verified at once: UNAUTHENTICATED refuses the connection.

        It cannot be written to before this is over, so that the acknowledgement follows by a task.
        """
        holder = self._verify(token) if token is not None else None
        self._store.register(connection_id, protocol=protocol, source_ip=source_ip)
        if holder is None:
            self._hints.send_task(ConnectionTask(connection_id, TIME_OUT, AUTHENTICATION_SECONDS_MAX))
            return
        try:
            self._bind(connection_id, holder)
        except TradingError:
            self._store.drop([connection_id])
            raise
        self._hints.send_task(ConnectionTask(connection_id, ACKNOWLEDGE, 0))

    def authenticate(self, connection_id: str, token: str) -> None:
        """Bind the connection to the token's holder and acknowledge; a newer token of the same user extends it."""
        self._bind(connection_id, self._verify(token))
        known = self._known(connection_id)
        self.answer(connection_id, _acknowledgement(connection_id, known))
        self._store.acknowledge(connection_id)
        self._begin(connection_id, known)

    def acknowledge(self, connection_id: str, attempt: int) -> None:
        """Tell a connection that showed its token while connecting that it is authenticated."""
        known = self._store.touch(connection_id)
        if known["status"] != "ready" or known["acknowledged"]:
            return
        text = json_text(_acknowledgement(connection_id, known))
        outcome = self._sockets.post(connection_id, text)
        for wait_seconds in HANDSHAKE_WAITS_SECONDS:
            if outcome is Outcome.DELIVERED:
                break
            self._sleep(wait_seconds)
            outcome = self._sockets.post(connection_id, text)
        if outcome is Outcome.DELIVERED:
            self._store.acknowledge(connection_id)
            self._begin(connection_id, known)
        elif attempt < ACKNOWLEDGE_TASKS_MAX:
            self._hints.send_task(ConnectionTask(connection_id, ACKNOWLEDGE, attempt, attempt + 1))
        elif outcome is Outcome.GONE:
            self._store.drop([connection_id])

    def subscribe(self, connection_id: str, wanted: Subscribe) -> None:
        """Add channels and symbols, say so, then let the relay send what the connection is behind with."""
        answer = self._subscribe(connection_id, wanted)
        self.answer(
            connection_id,
            {
                "type": "subscribed",
                "channels": answer["channels"],
                "symbols": answer["symbols"],
                "sequence": answer["accounts"][0]["sequence"] if len(answer["accounts"]) == 1 else None,
                "accounts": answer["accounts"],
            },
        )
        self._release(connection_id)
        if answer["prices_stale"]:
            self._hints.watch_prices()

    def unsubscribe(self, connection_id: str, unwanted: Unsubscribe) -> None:
        """Take channels and symbols away and say what is left."""
        answer = self._admitted(
            connection_id,
            self._store.unsubscribe(connection_id, channels=unwanted.channels, symbols=unwanted.symbols),
        )
        message = {"type": "unsubscribed", "channels": answer["channels"], "symbols": answer["symbols"]}
        self.answer(connection_id, message)

    def ping(self, connection_id: str) -> None:
        """Answer a sign of life; a connection that is not known or whose token has expired is told and cut."""
        known = self._store.touch(connection_id)
        if known["status"] != "unauthenticated":
            self._admitted(connection_id, known)
        self.answer(connection_id, {"type": "pong"})

    def leave(self, connection_id: str) -> None:
        """Forget a connection that ended."""
        self._store.drop([connection_id])

    def do(self, task: str, connection_id: str, attempt: int) -> None:
        """Carry out a ConnectionTask; ValueError for an unknown one."""
        if task == TIME_OUT:
            self.time_out(connection_id)
        elif task == ACKNOWLEDGE:
            self.acknowledge(connection_id, attempt)
        else:
            raise ValueError(f"unknown task {task[:40]!r}")

    def time_out(self, connection_id: str) -> None:
        """Close a connection that has shown no token in time; safe to repeat."""
        if self._store.drop_unauthenticated(connection_id):
            self._sockets.close(connection_id, *_CLOSINGS["unauthenticated"])

    def cut(self, connection_id: str) -> None:
        """Close the connection of an address that is blocked, at no cost of the database; $disconnect forgets it."""
        self._sockets.close(connection_id, *_CLOSINGS["blocked"])

    def answer(self, connection_id: str, message: Mapping[str, object]) -> None:
        """Send one message; a connection that is gone is forgotten."""
        if self._sockets.post(connection_id, json_text(message)) is Outcome.GONE:
            self._store.drop([connection_id])

    def refuse(self, connection_id: str, error: TradingError) -> None:
        """Send an error as a frame."""
        self.answer(
            connection_id,
            {"type": "error", "code": error.code.value, "message": error.message, "details": error.details},
        )

    def _bind(self, connection_id: str, holder: Holder) -> None:
        answer = self._store.authenticate(
            connection_id,
            user_id=holder.user_id,
            role=holder.role,
            expires_at=datetime.fromtimestamp(holder.expires_at, UTC),
            connections_max=CONNECTIONS_PER_USER_MAX,
        )
        match answer["status"]:
            case "authenticated":
                return
            case "unknown":
                self._close(connection_id, "unknown")
            case "too_many":
                raise TradingError(
                    ErrorCode.RATE_LIMIT_EXCEEDED,
                    f"You have {CONNECTIONS_PER_USER_MAX} connections already. Close one first.",
                )
            case "other_user":
                raise TradingError(
                    ErrorCode.FORBIDDEN, "This connection belongs to another user. Open a new one for this token."
                )
            case _:
                raise TradingError(ErrorCode.UNAUTHENTICATED, "The user of this token is not known here.")

    def _known(self, connection_id: str) -> Answer:
        return self._admitted(connection_id, self._store.touch(connection_id), acknowledge=False)

    def _subscribe(self, connection_id: str, wanted: Subscribe) -> Answer:
        answer = self._store.subscribe(
            connection_id,
            channels=wanted.channels,
            symbols=wanted.symbols,
            since=wanted.since,
            account_id=wanted.account_id,
            symbols_max=SYMBOLS_MAX,
            hold_ms=HOLD_MS,
        )
        _check_subscription(answer)
        return self._admitted(connection_id, answer)

    def _begin(self, connection_id: str, known: Answer) -> None:
        """What an acknowledged connection hears without asking: all since the sequences that it was just told."""
        if known["protocol"] == ORDER_UPDATES:
            for account in known["accounts"]:
                wanted = Subscribe((ORDERS,), (), account["sequence"], UUID(str(account["account_id"])))
                self._subscribe(connection_id, wanted)
            self._release(connection_id)

    def _release(self, connection_id: str) -> None:
        for account_id in self._store.release(connection_id):
            self._hints.notify_relay(account_id)

    def _admitted(self, connection_id: str, answer: Answer, *, acknowledge: bool = True) -> Answer:
        """`answer`, when the connection may go on. One that has not heard so yet is told first that it is in."""
        match answer["status"]:
            case "unauthenticated":
                raise TradingError(ErrorCode.UNAUTHENTICATED, 'Authenticate first: send {"type":"auth","token":"..."}.')
            case "unknown" | "expired" as reason:
                self._close(connection_id, reason)
            case _ if acknowledge and not answer["acknowledged"]:
                self.answer(connection_id, _acknowledgement(connection_id, self._store.touch(connection_id)))
                self._store.acknowledge(connection_id)
            case _:
                pass
        return answer

    def _close(self, connection_id: str, reason: str) -> NoReturn:
        self._sockets.close(connection_id, *_CLOSINGS[reason])
        self._store.drop([connection_id])
        raise ConnectionClosedError(reason)


def close_expired(store: ConnectionStore, sockets: Sockets, *, until: float) -> int:
    """Close connections that never authenticated, whose token expired, or that are too old; how many were closed.

    Stops at `until` on the monotonic clock; the next sweep goes on.
    """
    expired = store.expired(
        # Somewhat later than the task of its own that each connection gets.
        unauthenticated_seconds=AUTHENTICATION_SECONDS_MAX + 2,
        age_seconds_max=CONNECTION_SECONDS_MAX,
        limit=CLOSED_PER_SWEEP_MAX,
    )
    closed: list[str] = []
    for connection_id, reason in expired:
        if time.monotonic() >= until:
            break
        sockets.close(connection_id, *_CLOSINGS[reason])
        closed.append(connection_id)
    return store.drop(closed) if closed else 0


def agreed_protocol(offered: str | None) -> str | None:
    """The sub-protocol to agree on, of those in a Sec-WebSocket-Protocol header; None when we know none of them."""
    names: Sequence[str] = [name.strip() for name in (offered or "").split(",")]
    return ORDER_UPDATES if ORDER_UPDATES in names else None


def _acknowledgement(connection_id: str, known: Mapping[str, Any]) -> dict[str, object]:
    return {
        "type": "connection_acknowledged",
        "connection_id": connection_id,
        "user_id": known["user_id"],
        "accounts": known["accounts"],
    }


def _check_subscription(answer: Answer) -> None:
    match answer["status"]:
        case "unknown_symbols":
            raise TradingError(
                ErrorCode.UNKNOWN_SYMBOL,
                "Some of these symbols are not traded here.",
                {"field": "symbols", "value": ", ".join(answer["symbols"])[:100], "constraint": "known symbols"},
            )
        case "too_many_symbols":
            raise validation_failed("symbols", None, f"at most {SYMBOLS_MAX}", f"Subscribe to {SYMBOLS_MAX} at most.")
        case "unknown_account":
            raise TradingError(ErrorCode.NOT_FOUND, "You have no such account.")
        case "since_ahead":
            raise validation_failed(
                "since",
                answer["since"],
                f"at most {answer['sequence']}",
                f"The last sequence of this account is {answer['sequence']}, so what you have is not of its present "
                f"history. Read your orders and positions anew, then subscribe since {answer['sequence']}.",
            )
        case "account_needed":
            raise validation_failed(
                "account_id", None, "required", "You have several accounts: name the one that since counts in."
            )
        case _:
            return
