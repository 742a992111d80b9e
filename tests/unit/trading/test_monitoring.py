"""How a run goes on and where it stops, by scripted answers of the database: what comes when is hard to have a real one
do. What the database answers is proven in tests/integration/test_stop_out.py."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import pytest

from trading import monitoring
from trading.errors import ErrorCode, TradingError
from trading.monitoring import TIME_LEFT_MS_MIN, MarginReport, monitor_margin
from trading.store.risk import RiskStore

type Answer = Mapping[str, Any] | TradingError

ENOUGH = TIME_LEFT_MS_MIN
FAULT = TradingError(ErrorCode.DATABASE_UNAVAILABLE, "gone")
POSITION = str(UUID(int=9))


class Script:
    """The database's answers by procedure, the last one for ever; and what was called."""

    def __init__(self, due: Sequence[Mapping[str, Any]], **answers: Sequence[Answer]) -> None:
        page = {"checked": len(due), "breached": 0, "skipped": 0, "unpriced": [], "due": due, "finished": True}
        nobody = {"accounts": []}
        self._answers = {"monitor_margin": [page], "find_unprotected_balances": [nobody]} | {
            name: list(given) for name, given in answers.items()
        }
        self.calls: list[str] = []

    @property
    def settled(self) -> list[str]:
        """The calls that were about one account."""
        return [call for call in self.calls if call not in {"monitor_margin", "find_unprotected_balances"}]

    def call(self, procedure: str, request: Mapping[str, object]) -> Any:
        self.calls.append(procedure)
        assert request["version"] == 1
        answers = self._answers[procedure]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, TradingError):
            raise answer
        return answer


def account(number: int, state: str | None, *, stop_out: bool = True) -> dict[str, Any]:
    return {"user_id": str(UUID(int=1)), "account_id": str(UUID(int=number)), "state": state, "stop_out": stop_out}


def step(state: str, *, sequence: int | None = 1, canceled: Sequence[str] = ()) -> dict[str, Any]:
    closed = state in {"more", "done"}
    return {
        "state": state,
        "margin_level": None,
        "order_id": None,
        "venue": None,
        "position_id": POSITION if closed else None,
        "canceled_orders": canceled,
        "sequence": sequence if closed or canceled else None,
    }


def run(script: Script, time_left: Sequence[int] = (ENOUGH,)) -> tuple[MarginReport, list[int]]:
    """The report, and the accounts that were announced."""
    announced: list[int] = []
    left = list(time_left)
    report = monitor_margin(
        RiskStore(script),
        lambda account_id: announced.append(account_id.int),
        lambda *_: None,
        request_id="risk-1",
        time_left_ms=lambda: left.pop(0) if len(left) > 1 else left[0],
    )
    return report, announced


def test_the_call_then_steps_until_done_then_the_call_again() -> None:
    # given
    script = Script(
        [account(1, "entered")],
        record_margin_call=[{"state": "entered"}, {"state": "left"}],
        stop_out_step=[step("more", canceled=["a", "b"]), step("done")],
    )
    # when
    report, announced = run(script)
    # then
    assert script.settled == ["record_margin_call", "stop_out_step", "stop_out_step", "record_margin_call"]
    assert (report.entered, report.left, report.stopped_out) == (1, 1, 1)
    assert (report.positions_closed, report.orders_canceled, report.unfinished) == (2, 2, 0)
    assert announced == [1, 1, 1, 1]


def test_a_call_alone_is_not_stepped() -> None:
    script = Script([account(1, "left", stop_out=False)], record_margin_call=[{"state": "left"}])
    run(script)
    assert script.settled == ["record_margin_call"]


def test_an_open_call_is_not_recorded_again_unless_something_was_closed() -> None:
    # given an account whose orders alone could be canceled
    script = Script([account(1, None)], stop_out_step=[step("waiting", canceled=["a"])])
    # when
    report, announced = run(script)
    # then
    assert script.settled == ["stop_out_step"]
    assert (report.stopped_out, report.waiting, report.positions_closed, announced) == (1, 1, 0, [1])


@pytest.mark.parametrize(("state", "counted"), [("recovered", 0), ("waiting", 0), ("skipped", 1)])
def test_a_step_that_did_nothing_ends_it_and_tells_nobody(state: str, counted: int) -> None:
    report, announced = run(script := Script([account(1, None)], stop_out_step=[step(state)]))
    assert script.settled == ["stop_out_step"]
    assert (report.stopped_out, report.skipped, announced) == (0, counted, [])


def test_an_account_without_prices_is_counted_once_and_not_stepped() -> None:
    report, _ = run(script := Script([account(1, "entered")], record_margin_call=[{"state": "skipped"}]))
    assert script.settled == ["record_margin_call"]
    assert report.skipped == 1


def test_the_steps_of_one_account_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # given one account that would go on for ever, and another
    monkeypatch.setattr(monitoring, "STOP_OUT_STEPS_MAX", 3)
    script = Script(
        [account(1, None), account(2, None)],
        stop_out_step=[step("more")] * 3 + [step("done")],
        record_margin_call=[{"state": "unchanged"}],
    )
    # when
    report, announced = run(script)
    # then
    assert (report.unfinished, report.stopped_out, report.positions_closed) == (1, 2, 4)
    assert announced == [1, 1, 1, 2]


def test_no_step_is_begun_without_time() -> None:
    # given time for the protected, the scan, the account and one step
    script = Script([account(1, None), account(2, None)], stop_out_step=[step("more")])
    # when
    report, announced = run(script, [ENOUGH] * 4 + [ENOUGH - 1])
    # then the close was told, and what is left is left to the next run
    assert script.settled == ["stop_out_step"]
    assert (report.positions_closed, report.unfinished, report.complete, announced) == (1, 1, False, [1])


def test_a_fault_between_two_steps_costs_that_account_alone() -> None:
    # given
    script = Script(
        [account(1, None), account(2, None)],
        stop_out_step=[step("more"), FAULT, step("done")],
        record_margin_call=[{"state": "left"}],
    )
    # when
    report, announced = run(script)
    # then the step that was booked before it is told and counted
    assert (report.failed, report.stopped_out, report.positions_closed, report.left) == (1, 2, 2, 1)
    assert announced == [1, 2, 2]


def test_a_run_in_which_everything_fails_fails() -> None:
    script = Script([account(number, None) for number in range(monitoring.FAILURES_MAX + 5)], stop_out_step=[FAULT])
    with pytest.raises(TradingError):
        run(script)
    assert script.calls.count("stop_out_step") == monitoring.FAILURES_MAX


def test_balances_are_protected_before_the_scan_and_after_what_it_closed() -> None:
    # given an account that a run before left, and one that is closed by this one
    owed = {"user_id": str(UUID(int=1)), "account_id": str(UUID(int=7))}
    closed = {"user_id": str(UUID(int=1)), "account_id": str(UUID(int=1))}
    script = Script(
        [account(1, None)],
        stop_out_step=[step("done")],
        record_margin_call=[{"state": "left"}],
        find_unprotected_balances=[{"accounts": [owed]}, {"accounts": [closed]}],
        protect_balance=[{"state": "protected"}],
    )
    # when
    report, announced = run(script)
    # then
    assert script.settled == ["protect_balance", "stop_out_step", "record_margin_call", "protect_balance"]
    assert (report.protected, announced) == (2, [7, 1, 1, 1])


def test_each_change_of_an_episode_is_counted_and_told() -> None:
    states = ("entered", "escalated", "eased", "left")
    script = Script(
        [account(number, state, stop_out=False) for number, state in enumerate(states)],
        record_margin_call=[{"state": state} for state in states],
    )
    report, announced = run(script)
    assert (report.entered, report.escalated, report.eased, report.left) == (1, 1, 1, 1)
    assert announced == [0, 1, 2, 3]


def test_what_is_to_be_closed_at_a_venue_is_handed_on_and_ends_the_account_for_now() -> None:
    # given a first position that goes to a venue and is not enough, and a second one that is
    sent = [str(UUID(int=number)) for number in (77, 78)]
    steps = [
        step(state) | {"position_id": POSITION, "order_id": order, "venue": "mock", "sequence": 1}
        for state, order in zip(("more", "routed"), sent, strict=True)
    ]
    script = Script([account(1, None)], stop_out_step=steps)
    routed: list[tuple[UUID, UUID]] = []

    report = monitor_margin(
        RiskStore(script),
        lambda _: None,
        lambda *order: routed.append(order),
        request_id="risk-1",
        time_left_ms=lambda: ENOUGH,
    )

    # then nothing counts as closed, so that no episode is looked at again
    assert routed == [(UUID(int=1), UUID(order)) for order in sent]
    assert (report.orders_sent, report.routed, report.positions_closed, report.unfinished) == (2, 1, 0, 0)
    assert script.settled == ["stop_out_step", "stop_out_step"]
