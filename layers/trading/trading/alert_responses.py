"""Automatic responses of alerts: each an intervention that is bounded, ends by itself, and is undone by one call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from trading.errors import ErrorCode, TradingError
from trading.intervention_means import FEED
from trading.observability import logger
from trading.reserved_concurrency import Capacity
from trading.store.alerts import DueResponse
from trading.store.interventions import Intervention, InterventionStore

# How long each lasts unless it is undone before, in seconds.
MAINTENANCE_SECONDS = 1_800
CONCURRENCY_SECONDS = 7_200
PROVIDER_SECONDS = 7_200
BLOCK_SECONDS = 3_600
SUSPENSION_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Limits:
    """What is configured: the function whose concurrency may be raised, how far, and the provider that stands by."""

    function: str | None = None
    concurrency_max: int | None = None
    standby_provider: str | None = None


class Responses:
    """Begins what alerts ask for; the key of each is made of alert and kind, so that it is begun once.

    `announce` is told each account that was suspended; it must not raise.
    """

    def __init__(self, store: InterventionStore, limits: Limits, announce: Callable[[UUID], None]) -> None:
        self._store = store
        self._limits = limits
        self._announce = announce
        self._begin: Mapping[str, Callable[[DueResponse], Mapping[str, object]]] = {
            "maintenance": self._maintenance,
            "reserved_concurrency": self._reserved_concurrency,
            "price_provider": self._price_provider,
            "ip_block": lambda due: self._stop_suspects(due, BLOCK_SECONDS),
            "account_suspension": lambda due: self._stop_suspects(due, SUSPENSION_SECONDS),
        }

    def begin(self, response: DueResponse) -> Mapping[str, object]:
        """Begin `response`; {intervention_ids}, or {error} in words. TradingError when it cannot be begun."""
        begin = self._begin.get(response.kind)
        if begin is None:
            raise TradingError(ErrorCode.INTERNAL_ERROR, f"No response is called {response.kind}.")
        return begin(response)

    def _maintenance(self, due: DueResponse) -> Mapping[str, object]:
        return self._started(due, None, {}, MAINTENANCE_SECONDS)

    def _reserved_concurrency(self, due: DueResponse) -> Mapping[str, object]:
        if self._limits.function is None or self._limits.concurrency_max is None:
            raise _not_configured("ALERT_CONCURRENCY_MAX")
        parameters = {"concurrency": self._limits.concurrency_max}
        return self._started(due, self._limits.function, parameters, CONCURRENCY_SECONDS)

    def _price_provider(self, due: DueResponse) -> Mapping[str, object]:
        if self._limits.standby_provider is None:
            raise _not_configured("QUOTE_STANDBY_PROVIDER")
        return self._started(due, FEED, {"provider": self._limits.standby_provider}, PROVIDER_SECONDS)

    def _stop_suspects(self, due: DueResponse, seconds: int) -> Mapping[str, object]:
        """Stop each subject of an open finding that nobody has stopped yet.

        One that may not be stopped (it is ours, or stopped by hand meanwhile) does not keep the others from it, and is
        left to people.
        """
        begun: list[str] = []
        refused: list[str] = []
        for suspect in self._store.suspects(due.kind, due.alert_id):
            try:
                started = self._store.start(
                    due.kind,
                    suspect.target,
                    {},
                    seconds=seconds,
                    reason=due.title,
                    rule=due.rule,
                    finding_id=suspect.finding_id,
                    key=f"{_key(due)}/{suspect.finding_id}",
                )
                begun.append(str(started.id))
                if due.kind == "account_suspension":
                    self._announce(UUID(suspect.target))
            except TradingError as error:
                if error.code is ErrorCode.DATABASE_UNAVAILABLE:
                    raise
                self._store.note_not_stopped(suspect.finding_id, f"{error.code}: {error.message}")
                refused.append(str(error.code))
        return {"intervention_ids": begun, "refused": refused}

    def _started(
        self, due: DueResponse, target: str | None, parameters: Mapping[str, object], seconds: int
    ) -> Mapping[str, object]:
        started = self._store.start(
            due.kind, target, parameters, seconds=seconds, reason=due.title, rule=due.rule, key=_key(due)
        )
        return {"intervention_ids": [str(started.id)]}


def carry_out(store: InterventionStore, capacity: Capacity, *, limits: Limits) -> int:
    """Give back and raise reserved concurrency as interventions ask for it; how many were settled.

    One that fails says so in its outcome and comes again in the next run. What is over is given back first: one that
    began since would take what was raised for what was before, and be lost when that is given back.
    """
    settled = 0
    not_given_back: set[str] = set()
    for intervention in store.to_revert("reserved_concurrency"):
        if _guarded(store, intervention, lambda each: _give_back_concurrency(store, capacity, each)):
            settled += 1
        else:
            not_given_back.add(intervention.target)
    for intervention in store.to_carry_out("reserved_concurrency"):
        if intervention.target not in not_given_back:
            settled += _guarded(store, intervention, lambda each: _raise_concurrency(store, capacity, each, limits))
    return settled


def _raise_concurrency(
    store: InterventionStore, capacity: Capacity, intervention: Intervention, limits: Limits
) -> None:
    function = intervention.target
    outcome = intervention.outcome
    previous = outcome["previous"] if "previous" in outcome else capacity.reserved(function)
    # Noted before it is changed: after a crash between the two, what was raised would be taken for what was before.
    store.note(intervention.id, {"previous": previous})
    if limits.concurrency_max is None:
        raise _not_configured("ALERT_CONCURRENCY_MAX")
    wanted = min(int(intervention.parameters["concurrency"]), limits.concurrency_max)
    if previous is None or previous >= wanted:
        # Nothing is reserved, so nothing limits it; or it has as much already.
        store.note(intervention.id, {"set": None}, carried_out=True)
        return
    capacity.reserve(function, wanted)
    store.note(intervention.id, {"set": wanted}, carried_out=True)


def _give_back_concurrency(store: InterventionStore, capacity: Capacity, intervention: Intervention) -> None:
    raised, previous = intervention.outcome.get("set"), intervention.outcome.get("previous")
    if raised is not None and previous is not None:
        found = capacity.reserved(intervention.target)
        if found == raised:
            capacity.reserve(intervention.target, int(previous))
        else:
            # Somebody else has set it since: theirs stands.
            store.note(intervention.id, {"left": found}, reverted=True)
            return
    store.note(intervention.id, {}, reverted=True)


def _guarded(store: InterventionStore, intervention: Intervention, settle: Callable[[Intervention], None]) -> bool:
    try:
        settle(intervention)
        if intervention.outcome.get("error") is not None:
            store.note(intervention.id, {"error": None})
    except TradingError as error:
        if error.code is ErrorCode.DATABASE_UNAVAILABLE:
            raise
        logger().error("an intervention was not carried out", extra={"id": str(intervention.id)}, exc_info=error)
        store.note(intervention.id, {"error": error.message})
        return False
    return True


def _key(due: DueResponse) -> str:
    return f"alert-{due.alert_id}-{due.kind}"


def _not_configured(variable: str) -> TradingError:
    return TradingError(ErrorCode.CONFLICT, f"{variable} is not set.")
