"""Load what database/data says of instruments, markets, financing, risk and alerts. Running it again changes nothing.

    DATABASE_URL=postgresql://... python -m database.load_reference_data

What operators set by hand (an instrument's trading_state and is_active, whether a rule is enabled) is taken from the
file only for a new row.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class File:
    """One data file; `kept` columns are written only when a row is new."""

    table: LiteralString
    key: tuple[LiteralString, ...]
    kept: tuple[LiteralString, ...] = ()
    stamped: bool = False

    @property
    def path(self) -> Path:
        """Where the rows are."""
        return DATA / f"{self.table}.csv"


CALENDARS = File("market_calendars", ("name",))
SESSIONS = File("market_sessions", ("calendar", "opens_at"))
INSTRUMENTS = File("instruments", ("symbol",), kept=("trading_state", "is_active"), stamped=True)
ALERT_CHANNELS = File("alert_channels", ("name",))
ALERT_RULES = File("alert_rules", ("name",), kept=("enabled",))
ALERT_ESCALATIONS = File("alert_escalations", ("policy", "level"))
SCHEDULES = File("financing_schedules", ("name",))
ROLL_DAYS = File("financing_days", ("schedule", "roll_date"))
FINANCED = File("instrument_financing", ("symbol",))
RATES = File("financing_rates", ("symbol", "valid_from"))
LEVERAGE_CAPS = File("leverage_caps", ("profile", "asset_class", "symbol"))
BREAKERS = File("symbol_breakers", ("symbol",))
FILES = (
    CALENDARS,
    SESSIONS,
    INSTRUMENTS,
    SCHEDULES,
    ROLL_DAYS,
    FINANCED,
    RATES,
    LEVERAGE_CAPS,
    BREAKERS,
    ALERT_CHANNELS,
    ALERT_RULES,
    ALERT_ESCALATIONS,
)


def load(target: str | psycopg.Connection) -> dict[str, int]:
    """Bring the reference tables to what the files say, in one transaction; rows changed, by table.

    `target` is a URL or an open connection of the role that owns the database.
    """
    if isinstance(target, str):
        with psycopg.connect(target) as connection:
            return load(connection)
    with target.transaction(), target.cursor() as cursor:
        changed = {file.table: _upsert(cursor, file) for file in FILES}
        changed[SESSIONS.table] += _withdraw_sessions(cursor)
        return changed


def _upsert(cursor: psycopg.Cursor, file: File) -> int:
    """Insert new rows of `file` and update those that differ; how many."""
    data = file.path.read_bytes()
    columns = data.split(b"\n", 1)[0].decode().strip().split(",")
    _stage(cursor, file.table, columns, data)
    updated = [c for c in columns if c not in file.key and c not in file.kept]
    assignments: list[sql.Composable] = [sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c)) for c in updated]
    if file.stamped:
        assignments.append(sql.SQL("updated_at = clock_timestamp()"))
    cursor.execute(
        sql.SQL(
            "INSERT INTO {table} AS kept ({columns}) SELECT {columns} FROM {staged} "
            "ON CONFLICT ({key}) DO UPDATE SET {assignments} "
            "WHERE ({current}) IS DISTINCT FROM ({offered})"
        ).format(
            table=sql.Identifier(file.table),
            staged=_staged(file.table),
            columns=_names(columns),
            key=_names(file.key),
            assignments=sql.SQL(", ").join(assignments),
            current=sql.SQL(", ").join(sql.Identifier("kept", c) for c in updated),
            offered=sql.SQL(", ").join(sql.Identifier("excluded", c) for c in updated),
        )
    )
    return cursor.rowcount


def _stage(cursor: psycopg.Cursor, table: str, columns: Sequence[str], data: bytes) -> None:
    """Copy `data`, a CSV with a header, into a temporary table that is gone at commit."""
    cursor.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            _staged(table), _names(columns), sql.Identifier(table)
        )
    )
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, HEADER match)").format(_staged(table), _names(columns))
    with cursor.copy(statement) as copy:
        copy.write(data)


def _withdraw_sessions(cursor: psycopg.Cursor) -> int:
    """Delete sessions that the file no longer has; those from before its first day are history and stay."""
    cursor.execute(
        sql.SQL(
            "DELETE FROM market_sessions s USING "
            "(SELECT calendar, min(opens_at) AS first FROM {staged} GROUP BY calendar) f "
            "WHERE f.calendar = s.calendar AND s.opens_at >= f.first AND NOT EXISTS "
            "(SELECT FROM {staged} n WHERE n.calendar = s.calendar AND n.opens_at = s.opens_at)"
        ).format(staged=_staged(SESSIONS.table))
    )
    return cursor.rowcount


def _staged(table: str) -> sql.Identifier:
    return sql.Identifier(f"staged_{table}")


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(c) for c in columns)


def main() -> None:
    """Load into the database of DATABASE_URL and print what changed."""
    for table, rows in load(os.environ["DATABASE_URL"]).items():
        sys.stdout.write(f"{table}: {rows} rows changed\n")


if __name__ == "__main__":
    main()
