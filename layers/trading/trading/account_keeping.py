"""What operators do to accounts: the steps of moving money and of changing terms, in order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from trading.account_requests import AccountChange, MoneyMovement
from trading.errors import ErrorCode, TradingError
from trading.execution import Origin, RelayWaker


@dataclass(frozen=True, slots=True)
class OperatorAct:
    """The stored outcome of an operator's request; `refusal` is set when money was refused.

    `answer` is as the procedure documents it: deposit, withdraw, adjust or change_account.
    """

    answer: Mapping[str, Any]
    replayed: bool
    refusal: TradingError | None


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What the answer of a request is kept under beside its key: its hash, and for how many days."""

    request_hash: str
    key_days: int


class Owners(Protocol):
    """Who has which account."""

    def owner(self, account_id: UUID) -> UUID | None:
        """The user whose account it is."""
        ...


class Store(Owners, Protocol):
    """Where it is booked; see `store.accounts.AccountStore`, also for what the procedures raise."""

    def move_money(self, entry_type: str, request: Mapping[str, object]) -> dict[str, Any]:
        """The answer of deposit, withdraw or adjust."""
        ...

    def change(self, request: Mapping[str, object]) -> dict[str, Any]:
        """The answer of change_account."""
        ...


def owner_of(store: Owners, account_id: UUID) -> UUID:
    """The user whose account it is; NOT_FOUND."""
    owner = store.owner(account_id)
    if owner is None:
        raise TradingError(
            ErrorCode.NOT_FOUND,
            "There is no account with this id. GET /api/v1/accounts?email= lists a user's.",
            {"field": "id", "value": str(account_id), "constraint": "an account"},
        )
    return owner


def move_money(
    store: Store, account_id: UUID, movement: MoneyMovement, operator: Origin, terms: KeyTerms, wake_relay: RelayWaker
) -> OperatorAct:
    """Book `movement` and wake the relay for its event. Raises NOT_FOUND and what the store raises."""
    request = operator_request(owner_of(store, account_id), account_id, operator, terms)
    asked = movement.model_dump(mode="python", exclude={"entry_type"})
    return told_outcome(store.move_money(movement.entry_type, asked | request), wake_relay)


def change_account(
    store: Store, account_id: UUID, change: AccountChange, operator: Origin, terms: KeyTerms, wake_relay: RelayWaker
) -> OperatorAct:
    """Make `change` and wake the relay for its event. Raises NOT_FOUND and what the store raises."""
    request = operator_request(owner_of(store, account_id), account_id, operator, terms)
    return told_outcome(store.change(change.model_dump(mode="python", exclude_none=True) | request), wake_relay)


def operator_request(user_id: UUID, account_id: UUID, operator: Origin, terms: KeyTerms) -> dict[str, object]:
    """What an operator's request about an account carries beside what it asks for."""
    return {"user_id": user_id, "account_id": account_id} | operator_origin(operator, terms)


def operator_origin(operator: Origin, terms: KeyTerms) -> dict[str, object]:
    """Who asks, from where, and under which key."""
    # The audit names the actor by id; address, user agent and e-mail go to its personal data alone.
    return {
        "actor": str(operator.user_id),
        "actor_id": operator.user_id,
        "email": operator.email,
        "ip_address": operator.ip_address,
        "user_agent": operator.user_agent,
        "request_id": operator.request_id,
        "request_hash": terms.request_hash,
        "idempotency_key_days": terms.key_days,
    }


def told_outcome(answer: dict[str, Any], wake_relay: RelayWaker) -> OperatorAct:
    """The outcome in `answer`, once the relay knows of its event."""
    if not answer["replayed"]:
        wake_relay(UUID(answer["account_id"]))
    refusal = None
    if answer["outcome"] == "refused":
        refusal = TradingError(ErrorCode(answer["code"]), answer["message"], answer["details"])
    return OperatorAct(answer, answer["replayed"], refusal)
