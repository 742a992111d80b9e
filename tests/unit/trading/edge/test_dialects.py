"""The words of the APIs."""

import re
from pathlib import Path

import pytest

from trading.edge.dialects import (
    AUDIT_ACTIONS,
    order_state,
    order_state_words,
    order_states_inside,
    spoken,
    spoken_state,
)
from trading.wording import ORDER_STATES


@pytest.mark.parametrize(
    ("inside", "functions", "rest"),
    [
        ("pending_new", "pending", "PENDING"),
        ("new", "pending", "PENDING"),
        ("triggered", "pending", "PENDING"),
        ("partially_filled", "pending", "PARTIAL"),
        ("filled", "executed", "FILLED"),
        ("canceled", "cancelled", "CANCELLED"),
        ("expired", "cancelled", "EXPIRED"),
        ("replaced", "cancelled", "REPLACED"),
        ("denied", "failed", "REJECTED"),
        ("rejected", "failed", "REJECTED"),
    ],
)
def test_each_state_has_a_word_in_each_dialect(inside: str, functions: str, rest: str) -> None:
    assert order_state("functions", inside) == functions
    assert order_state("rest", inside) == rest


def test_a_word_means_every_state_that_is_called_so() -> None:
    assert order_states_inside("rest", "PENDING") == ("pending_new", "new", "triggered")
    assert order_states_inside("rest", "rejected") == ("denied", "rejected")
    assert order_states_inside("functions", "executed") == ("filled",)
    assert order_states_inside("rest", "executed") == ()


def test_the_words_of_some_states_are_theirs_alone() -> None:
    assert order_state_words("functions", {"new", "triggered", "filled"}) == ("pending", "executed")
    assert order_state_words("rest", {"partially_filled"}) == ("PARTIAL",)
    assert order_state_words("rest", set()) == ()


@pytest.mark.parametrize("dialect", ["functions", "rest"])
def test_the_words_of_a_dialect_cover_all_states_once(dialect: str) -> None:
    words = order_state_words(dialect)  # pyright: ignore[reportArgumentType]
    covered = [state for word in words for state in order_states_inside(dialect, word)]  # pyright: ignore[reportArgumentType]

    assert sorted(covered) == sorted(ORDER_STATES)


def test_a_state_of_an_order_or_a_position_has_a_word() -> None:
    assert spoken_state("rest", "canceled") == "CANCELLED"
    assert spoken_state("functions", "filled") == "executed"
    assert spoken_state("rest", "closed") == "CLOSED"


def test_other_words_differ_in_case_alone() -> None:
    assert spoken("rest", "stop_limit") == "STOP_LIMIT"
    assert spoken("functions", "stop_limit") == "stop_limit"


def test_the_audit_has_a_word_for_every_action_that_procedures_write_about_an_order() -> None:
    written = set[str]()
    for file in (Path(__file__).parents[4] / "database" / "procedures").rglob("*order*.sql"):
        written |= set(re.findall(r"ROW\('([A-Z_]+)', ", file.read_text()))

    assert written
    assert written <= set(AUDIT_ACTIONS)
