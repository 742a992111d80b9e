"""What follows an order: closing it at its venue, its financing, and how long histories are kept."""

from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    op.execute("""
    ALTER TABLE venue_routes
    -- The position that the order was sent to close; NULL for one that goes by its symbol.
    ADD COLUMN closes_position_id uuid,
    ADD FOREIGN KEY (user_id, closes_position_id) REFERENCES positions (user_id, id);
    CREATE INDEX venue_routes_closing ON venue_routes (user_id, closes_position_id)
    WHERE closes_position_id IS NOT NULL;

    ALTER TABLE wind_down_accounts ADD COLUMN positions_sent integer NOT NULL DEFAULT 0;

    -- With the amounts, so that the sum of a position's financing is read from the index alone.
    DROP INDEX ledger_entries_financing;
    CREATE UNIQUE INDEX ledger_entries_financing ON ledger_entries (user_id, position_id, roll_date) INCLUDE (amount)
    WHERE entry_type = 'financing';

    -- An instrument that is financed from now on is not charged for the rolls that its schedule had before.
    ALTER TABLE instrument_financing ADD COLUMN rolls_after timestamptz;
    UPDATE instrument_financing SET rolls_after = '-infinity';
    ALTER TABLE instrument_financing ALTER COLUMN rolls_after SET NOT NULL,
    ALTER COLUMN rolls_after SET DEFAULT clock_timestamp();

    -- What an account holds of a symbol, as its value at risk looks at it: amounts in account currency.
    CREATE TYPE held_risk AS (symbol text, currency text, value numeric, unrealized_pnl numeric);

    ALTER TABLE platform_settings
    -- Equity is kept by the hour for as long; of each day before, the hours in which most and least was gained.
    ADD COLUMN equity_hours_days integer NOT NULL DEFAULT 92 CHECK (equity_hours_days >= 2),
    -- Longer than the 250 rolls of value at risk take.
    ADD COLUMN roll_quotes_days integer NOT NULL DEFAULT 400 CHECK (roll_quotes_days >= 400),
    ADD COLUMN price_outages_days integer NOT NULL DEFAULT 400 CHECK (price_outages_days >= 1);
    -- All snapshots of before are thinned.
    ALTER TABLE snapshot_scan ADD COLUMN thinned_until timestamptz NOT NULL
    DEFAULT date_trunc('day', clock_timestamp(), 'UTC');
    UPDATE snapshot_scan SET thinned_until = least(thinned_until, (
        SELECT date_trunc('day', min(s.hour), 'UTC') FROM equity_snapshots AS s
    ));
    GRANT DELETE ON equity_snapshots, roll_quotes, price_outages TO trading_procedures;

    CREATE POLICY watchers_all ON positions FOR SELECT TO trading_watchers USING (true);
    GRANT SELECT (user_id, id, status) ON positions TO trading_watchers;
    GRANT SELECT (closes_position_id, created_at) ON venue_routes TO trading_watchers;
    """)


def downgrade() -> None:
    op.execute("""
    DROP TYPE held_risk CASCADE;
    REVOKE DELETE ON equity_snapshots, roll_quotes, price_outages FROM trading_procedures;
    ALTER TABLE snapshot_scan DROP COLUMN thinned_until;
    ALTER TABLE platform_settings DROP COLUMN equity_hours_days, DROP COLUMN roll_quotes_days,
    DROP COLUMN price_outages_days;
    ALTER TABLE instrument_financing DROP COLUMN rolls_after;
    DROP INDEX ledger_entries_financing;
    CREATE UNIQUE INDEX ledger_entries_financing ON ledger_entries (user_id, position_id, roll_date)
    WHERE entry_type = 'financing';
    DROP POLICY watchers_all ON positions;
    REVOKE SELECT (user_id, id, status) ON positions FROM trading_watchers;
    REVOKE SELECT (created_at) ON venue_routes FROM trading_watchers;
    ALTER TABLE wind_down_accounts DROP COLUMN positions_sent;
    ALTER TABLE venue_routes DROP COLUMN closes_position_id;
    """)
