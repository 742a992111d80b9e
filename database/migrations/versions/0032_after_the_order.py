"""What follows an order: closing it at its venue, and what its position has been charged overnight."""

from alembic import op

revision = "0032"
down_revision = "0027"


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

    CREATE POLICY watchers_all ON positions FOR SELECT TO trading_watchers USING (true);
    GRANT SELECT (user_id, id, status) ON positions TO trading_watchers;
    GRANT SELECT (closes_position_id, created_at) ON venue_routes TO trading_watchers;
    """)


def downgrade() -> None:
    op.execute("""
    DROP INDEX ledger_entries_financing;
    CREATE UNIQUE INDEX ledger_entries_financing ON ledger_entries (user_id, position_id, roll_date)
    WHERE entry_type = 'financing';
    DROP POLICY watchers_all ON positions;
    REVOKE SELECT (user_id, id, status) ON positions FROM trading_watchers;
    REVOKE SELECT (created_at) ON venue_routes FROM trading_watchers;
    ALTER TABLE wind_down_accounts DROP COLUMN positions_sent;
    ALTER TABLE venue_routes DROP COLUMN closes_position_id;
    """)
