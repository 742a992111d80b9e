"""Financing: when positions are rolled, at which rates and quotes; and what accounts were worth, hour by hour."""

from alembic import op

from database.migrations.policies import secure
from database.migrations.roles import create_role, limit_role

revision = "0025"
down_revision = "0024"

ROLE = "function_end_of_day"
LIMITS_MS = {"statement_timeout": 20000, "lock_timeout": 4000}
# Look-ups by key from pages of accounts: statistics of a ledger that a run itself has filled would come too late.
PLANNING = {"enable_seqscan": "off", "jit": "off"}


def upgrade() -> None:
    op.execute(create_role(ROLE, "LOGIN"))
    op.execute(limit_role(ROLE, LIMITS_MS))
    op.execute(f"GRANT USAGE ON SCHEMA public TO {ROLE}")
    for name, value in PLANNING.items():
        op.execute(f"ALTER ROLE {ROLE} SET {name} = {value}")
    op.execute(_SCHEDULES)
    op.execute(_ROLLS)
    op.execute(_LEDGER)
    op.execute(_SNAPSHOTS)
    for table in ("financing_schedules", "financing_days", "instrument_financing"):
        op.execute(secure(table, by_user=False, procedures="SELECT"))
    op.execute(secure("financing_rates", by_user=False))
    op.execute(secure("instrument_rolls", by_user=False))
    op.execute(secure("roll_quotes", by_user=False, procedures="SELECT, INSERT"))
    op.execute(secure("equity_snapshots", by_user=True, procedures="SELECT, INSERT"))
    op.execute(secure("snapshot_scan", by_user=False, procedures="SELECT, UPDATE"))


def downgrade() -> None:
    op.execute(f"""
    DROP TABLE snapshot_scan, equity_snapshots, roll_quotes, instrument_rolls, financing_rates, instrument_financing,
        financing_days, financing_schedules;
    DROP DOMAIN financing_basis;
    DROP INDEX fills_transacted, ledger_entries_financing;
    ALTER TABLE ledger_entries DROP COLUMN roll_date;
    REVOKE ALL ON SCHEMA public FROM {ROLE};
    """)


_SCHEDULES = """
-- A percentage a year of the position's value, over 360 or 365 days, or points (ticks) a day.
CREATE DOMAIN financing_basis AS text CHECK (VALUE IN ('percent_360', 'percent_365', 'points'));

-- When positions are rolled: at roll_time in time_zone of each day that has days to charge. `days` holds those of
-- Monday to Sunday; none is no roll.
CREATE TABLE financing_schedules (
    name text PRIMARY KEY,
    description text NOT NULL,
    roll_time time NOT NULL,
    time_zone text NOT NULL CHECK (timestamp '2026-01-01' AT TIME ZONE time_zone IS NOT NULL),
    days integer [] NOT NULL CHECK (cardinality(days) = 7 AND 0 <= ALL (days) AND array_position(days, NULL) IS NULL),
    -- Rolls before this are none of ours: it keeps a new release from charging the past.
    rolls_after timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Dates, holidays and those around them, on which other days are charged than on their day of the week.
CREATE TABLE financing_days (
    schedule text NOT NULL REFERENCES financing_schedules,
    roll_date date NOT NULL,
    days integer NOT NULL CHECK (days >= 0),
    PRIMARY KEY (schedule, roll_date)
);

-- An instrument without a row is not financed.
CREATE TABLE instrument_financing (
    symbol text PRIMARY KEY REFERENCES instruments,
    schedule text NOT NULL REFERENCES financing_schedules
);

-- What each side of a position earns, negative: pays, before the broker's markup, which both sides pay. Of several that
-- hold on a date the one that began last is meant.
CREATE TABLE financing_rates (
    symbol text NOT NULL REFERENCES instruments,
    valid_from date NOT NULL,
    valid_until date NOT NULL CHECK (valid_until >= valid_from),
    long_rate finite_number NOT NULL,
    short_rate finite_number NOT NULL,
    markup unsigned_number NOT NULL DEFAULT 0,
    basis financing_basis NOT NULL,
    source text NOT NULL,
    PRIMARY KEY (symbol, valid_from)
);
"""

_ROLLS = """
-- One roll of one instrument. Its quote and rates are written once, as soon as both are known, so that all accounts are
-- charged by the same; finished_at once nothing is left to charge.
CREATE TABLE instrument_rolls (
    symbol text NOT NULL REFERENCES instruments,
    roll_date date NOT NULL,
    rolled_at timestamptz NOT NULL,
    days integer NOT NULL CHECK (days > 0),
    bid positive_number,
    ask positive_number,
    quoted_at timestamptz CHECK (quoted_at <= rolled_at),
    long_rate finite_number,
    short_rate finite_number,
    markup unsigned_number,
    basis financing_basis,
    finished_at timestamptz,
    PRIMARY KEY (symbol, roll_date),
    CONSTRAINT priced_whole CHECK (
        num_nulls(bid, ask, quoted_at, long_rate, short_rate, markup, basis) IN (0, 7)
    )
);
CREATE INDEX instrument_rolls_open ON instrument_rolls (rolled_at) WHERE finished_at IS NULL;

-- The last quote of a symbol before each roll of any schedule, kept when the one after it comes: a day's close.
CREATE TABLE roll_quotes (
    symbol text NOT NULL REFERENCES instruments,
    quoted_at timestamptz NOT NULL,
    bid positive_number NOT NULL,
    ask positive_number NOT NULL,
    PRIMARY KEY (symbol, quoted_at)
);
"""

_LEDGER = """
ALTER TABLE ledger_entries ADD COLUMN roll_date date;
CREATE UNIQUE INDEX ledger_entries_financing ON ledger_entries (user_id, position_id, roll_date)
WHERE entry_type = 'financing';
-- Rows lie in the order of their time, so a summary of each range of pages finds what was traded since a roll.
CREATE INDEX fills_transacted ON fills USING brin (transact_time) WITH (autosummarize = on);
"""

_SNAPSHOTS = """
-- What an account was worth in an hour (UTC) in which it held something or its money moved, in its currency.
CREATE TABLE equity_snapshots (
    user_id uuid NOT NULL,
    account_id uuid NOT NULL,
    hour timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    taken_at timestamptz NOT NULL,
    ledger_version bigint NOT NULL,
    balance finite_number NOT NULL,
    equity finite_number NOT NULL,
    margin_used unsigned_number NOT NULL,
    exposure unsigned_number NOT NULL,
    PRIMARY KEY (user_id, account_id, hour),
    FOREIGN KEY (user_id, account_id) REFERENCES accounts (user_id, id)
);

-- The last account that the snapshots of `hour` have come to; NULL where they came to the last.
CREATE TABLE snapshot_scan (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    hour timestamptz NOT NULL,
    after_user_id uuid,
    after_account_id uuid,
    CHECK ((after_user_id IS NULL) = (after_account_id IS NULL))
);
INSERT INTO snapshot_scan (hour) VALUES ('-infinity');
"""
