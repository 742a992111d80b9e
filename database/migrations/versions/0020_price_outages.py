"""When quotes were too old to trade on, and which connection has been told of which symbols."""

from alembic import op

from database.migrations.policies import secure

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE price_outages (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        symbol text NOT NULL REFERENCES instruments (symbol),
        -- Of the last quote before; null when there had been none.
        quoted_at timestamptz,
        entered_at timestamptz NOT NULL,
        left_at timestamptz CHECK (left_at >= entered_at)
    );
    CREATE UNIQUE INDEX price_outages_open ON price_outages (symbol) WHERE left_at IS NULL;

    ALTER TABLE connections
    -- The symbols of which it was last told that their prices are stale, sorted.
    ADD COLUMN stale_told text[] NOT NULL DEFAULT '{}',
    -- Somebody is telling it; whoever comes after this may try again.
    ADD COLUMN stale_claimed_until timestamptz;
    """)
    op.execute(secure("price_outages", by_user=False))


def downgrade() -> None:
    op.execute("""
    ALTER TABLE connections DROP COLUMN stale_told, DROP COLUMN stale_claimed_until;
    DROP TABLE price_outages;
    """)
