"""Margin profiles that risk officers change: how often each was changed, by whom, and why."""

from alembic import op

from database.migrations.policies import secure

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    op.execute("""
    ALTER TABLE margin_profiles ADD COLUMN version integer NOT NULL DEFAULT 1 CHECK (version > 0);

    -- One row a change: what differed before it and after it. A key is the profile's for ever.
    CREATE TABLE margin_profile_changes (
        id uuid PRIMARY KEY,
        profile text NOT NULL REFERENCES margin_profiles,
        actor text NOT NULL,
        reason text NOT NULL,
        before jsonb NOT NULL,
        after jsonb NOT NULL,
        idempotency_key caller_key NOT NULL,
        request_hash text NOT NULL,
        answer jsonb NOT NULL,
        changed_at timestamptz NOT NULL,
        UNIQUE (profile, idempotency_key)
    );
    CREATE INDEX margin_profile_changes_of_profile ON margin_profile_changes (profile, id);
    GRANT UPDATE ON margin_profiles TO trading_procedures;
    GRANT INSERT, DELETE ON margin_profile_levels TO trading_procedures;
    """)
    op.execute(secure("margin_profile_changes", by_user=False, procedures="SELECT, INSERT"))


def downgrade() -> None:
    # The levels stay as they were set: only who set them is forgotten here, and told by the platform's audit.
    op.execute("""
    REVOKE UPDATE ON margin_profiles FROM trading_procedures;
    REVOKE INSERT, DELETE ON margin_profile_levels FROM trading_procedures;
    DROP TABLE margin_profile_changes;
    ALTER TABLE margin_profiles DROP COLUMN version;
    """)
