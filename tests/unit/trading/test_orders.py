"""The states of an order: which steps are legal, by every account of them."""

from typing import get_args

import pytest

from tests.kit.reference import reference
from trading.orders import TRANSITIONS, OrderStatus

STATUSES = get_args(OrderStatus.__value__)
# The reference's word -> ours; what has no word here is not used.
WORDS = {
    "INITIALIZED": "initialized",
    "SUBMITTED": "pending_new",
    "ACCEPTED": "new",
    "TRIGGERED": "triggered",
    "PARTIALLY_FILLED": "partially_filled",
    "FILLED": "filled",
    "CANCELED": "canceled",
    "EXPIRED": "expired",
    "DENIED": "denied",
    "REJECTED": "rejected",
}
TERMINAL = {"filled", "expired", "replaced", "denied", "rejected"}


def steps() -> set[tuple[str, str]]:
    return {(status, following) for status, followings in TRANSITIONS.items() for following in followings}


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(STATUSES)
    assert {following for _, following in steps()} <= set(STATUSES)


def test_nothing_becomes_initialized_and_terminal_states_stay() -> None:
    assert "initialized" not in {following for _, following in steps()}
    assert {status for status in STATUSES if not TRANSITIONS[status]} == TERMINAL


@pytest.mark.parametrize(
    ("status", "following", "legal"),
    [
        ("initialized", "denied", True),
        ("pending_new", "denied", False),  # denied only as the first state
        ("new", "denied", False),
        ("pending_new", "filled", True),
        ("new", "replaced", True),
        ("new", "rejected", True),
        ("triggered", "rejected", True),
        ("partially_filled", "partially_filled", True),
        ("partially_filled", "rejected", False),
        ("canceled", "filled", True),  # a fill that arrives late, with nothing left
        ("canceled", "partially_filled", False),  # with something left the order stays canceled
        ("filled", "canceled", False),
        ("denied", "new", False),
    ],
)
def test_a_step(status: OrderStatus, following: OrderStatus, legal: bool) -> None:
    assert (following in TRANSITIONS[status]) is legal


def test_the_reference_allows_the_same_steps_but_for_those_that_we_chose() -> None:
    # given the reference, with pending modifications left out and fills split by what is left
    told: set[tuple[str, str]] = set()
    for line in reference("order_transitions.json")["rows"]:
        for after in (
            line["to"].replace("FILLED if leaves_qty==0 else PARTIALLY_FILLED", "FILLED PARTIALLY_FILLED").split()
        ):
            if line["from"] in WORDS and after in WORDS and (line["event"] != "UPDATED"):
                told.add((WORDS[line["from"]], WORDS[after]))

    ours = steps()

    # then these are ours alone: replacing is a state of its own
    assert ours - told == {
        ("new", "replaced"),
        ("triggered", "replaced"),
        ("partially_filled", "replaced"),
    }
    # and these are not ours: a modified order keeps working, and a canceled one with something left stays canceled
    assert told - ours == {("partially_filled", "new"), ("canceled", "partially_filled")}
