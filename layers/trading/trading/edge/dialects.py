"""The words of each API for what the domain calls by its own; one table a subject."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from trading.edge.envelope import Dialect
from trading.wording import ORDER_STATES

# inside: /api/v1, the only one that shows the audit
AUDIT_ACTIONS: Mapping[str, str] = {
    "SUBMITTED": "SUBMITTED",
    "APPROVED": "APPROVED",
    "EXECUTED": "EXECUTED",
    "FILLED": "FILLED",
    "REJECTED": "REJECTED",
    "TRIGGERED": "TRIGGERED",
    "EXPIRED": "EXPIRED",
    "CANCELED": "CANCELLED",
    "REPLACED": "REPLACED",
    "RECOVERED": "RECOVERED",
    "ACTIVATED": "ACTIVATED",
    "REDUCED": "REDUCED",
    "CONDITION_MET": "CONDITION_MET",
}


def order_state(dialect: Dialect, inside: str) -> str:
    """The word of `dialect` for an order's state; KeyError for a word that is not ours."""
    return ORDER_STATES[inside][_column(dialect)]


def order_states_inside(dialect: Dialect, outside: str) -> tuple[str, ...]:
    """The states inside that `dialect` calls `outside`, whatever its case; none for an unknown word."""
    column = _column(dialect)
    return tuple(inside for inside, words in ORDER_STATES.items() if words[column].lower() == outside.lower())


def order_state_words(dialect: Dialect, among: AbstractSet[str] | None = None) -> tuple[str, ...]:
    """The words of `dialect` for states, of `among` or of all, without repeats."""
    column = _column(dialect)
    return tuple(
        dict.fromkeys(words[column] for inside, words in ORDER_STATES.items() if among is None or inside in among)
    )


def spoken(dialect: Dialect, inside: str) -> str:
    """A side, order type, time in force or other such word as `dialect` writes it: /api/v1 in capitals."""
    return inside.upper() if dialect == "rest" else inside


def spoken_state(dialect: Dialect, inside: str) -> str:
    """The word of `dialect` for the state of an order or of a position."""
    return order_state(dialect, inside) if inside in ORDER_STATES else spoken(dialect, inside)


def _column(dialect: Dialect) -> int:
    return 1 if dialect == "rest" else 0
