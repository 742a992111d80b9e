"""Figures that the database counts from its rows."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from trading.alerts import Figure
from trading.collectors.protocol import Collectors
from trading.store.database import Database

REQUEST_VERSION = 1
PROCEDURES: Mapping[str, str] = {
    "orders": "collect_order_figures",
    "queues": "collect_queue_figures",
    "prices": "collect_price_figures",
    "server": "collect_server_figures",
    "duties": "collect_duty_figures",
    "history": "collect_history_figures",
    "security": "collect_security_figures",
}


def database_collectors(database: Database) -> Collectors:
    """A collector a procedure; each raises what `Database.call` does."""
    return {name: partial(_collect, database, procedure) for name, procedure in PROCEDURES.items()}


def _collect(database: Database, procedure: str, windows: Sequence[int], at: datetime | None) -> list[Figure]:
    request = {"version": REQUEST_VERSION, "windows": list(windows), "at": at}
    return [_figure(row) for row in database.call(procedure, request) or ()]


def _figure(row: Mapping[str, Any]) -> Figure:
    value = None if row["value"] is None else Decimal(row["value"])
    return Figure(row["figure"], value, row["samples"], row["subject"], row["window_seconds"])
