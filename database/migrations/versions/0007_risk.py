"""Margin calls: the episode that is open or was, and how far the scan over all accounts has got."""

from alembic import op

from database.migrations.policies import secure

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("""
    -- A call ends only this much above its threshold (percent of it), so that a level that hovers there is one
    -- episode and not a storm of them.
    ALTER TABLE risk_settings
    ADD COLUMN margin_call_release_percent numeric NOT NULL DEFAULT 105
    CHECK (margin_call_release_percent BETWEEN 100 AND 200);

    -- Levels are percent; they are NULL where no margin is used any more. Amounts are in account currency.
    CREATE TABLE margin_call_episodes (
        user_id uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        account_id uuid NOT NULL,
        threshold numeric NOT NULL,
        release_level numeric NOT NULL CHECK (release_level >= threshold),
        entered_at timestamptz NOT NULL,
        entered_level numeric NOT NULL CHECK (entered_level < threshold),
        entered_equity numeric NOT NULL,
        entered_margin_used numeric NOT NULL CHECK (entered_margin_used > 0),
        left_at timestamptz CHECK (left_at >= entered_at),
        left_level numeric CHECK (left_level >= release_level),
        left_equity numeric,
        PRIMARY KEY (user_id, id),
        FOREIGN KEY (user_id, account_id) REFERENCES accounts (user_id, id),
        CHECK ((left_at IS NULL) = (left_equity IS NULL)),
        CHECK (left_at IS NOT NULL OR left_level IS NULL)
    );
    CREATE UNIQUE INDEX margin_call_episodes_open ON margin_call_episodes (user_id, account_id)
    WHERE left_at IS NULL;

    -- The last account that the scan looked at; NULL where it begins again.
    CREATE TABLE margin_scan (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        after_user_id uuid,
        after_account_id uuid,
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CHECK ((after_user_id IS NULL) = (after_account_id IS NULL))
    );
    INSERT INTO margin_scan DEFAULT VALUES;
    """)
    op.execute(secure("margin_call_episodes", by_user=True))
    op.execute(secure("margin_scan", by_user=False, procedures="SELECT, UPDATE"))


def downgrade() -> None:
    op.execute("""
    DROP TABLE margin_scan, margin_call_episodes;
    ALTER TABLE risk_settings DROP COLUMN margin_call_release_percent;
    """)
