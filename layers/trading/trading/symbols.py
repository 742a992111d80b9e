"""Symbols as callers name them."""

import re
from typing import cast

from trading.errors import validation_failed

SYMBOLS_MAX = 100
_SYMBOL = re.compile(r"[A-Z0-9_]{1,20}", re.ASCII)


def read_symbols(given: object, field: str) -> list[str]:
    """The symbols in `given`, text with commas or a list of texts; capitals, in order, without repeats.

    VALIDATION_FAILED on `field` for none, more than SYMBOLS_MAX, or what no symbol looks like.
    """
    constraint = f"1 to {SYMBOLS_MAX} symbols of letters, digits and underscores"
    names = given.split(",") if isinstance(given, str) else given
    if not isinstance(names, list):
        raise validation_failed(field, given, constraint, f"Name {constraint} in {field}.")
    symbols = list(dict.fromkeys(_symbol(name, field) for name in cast("list[object]", names)))
    if not 1 <= len(symbols) <= SYMBOLS_MAX:
        raise validation_failed(field, len(symbols), constraint, f"Name {constraint} in {field}.")
    return symbols


def _symbol(name: object, field: str) -> str:
    symbol = name.strip().upper() if isinstance(name, str) else ""
    if not _SYMBOL.fullmatch(symbol):
        constraint = "1 to 20 letters, digits and underscores"
        raise validation_failed(field, name, constraint, f"A symbol has {constraint}, like EURUSD.")
    return symbol
