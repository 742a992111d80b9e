"""Counted requests, for the time that Redis is gone."""

from alembic import op

from database.migrations.policies import secure

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("""
    -- A crash may lose counts, which only a helper's stand-in may: so it is not logged, and costs no WAL.
    -- taken_at holds the times of the counted requests in the window, oldest first.
    CREATE UNLOGGED TABLE rate_limit_counters (
        key text PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 255),
        taken_at timestamptz [] NOT NULL,
        expires_at timestamptz NOT NULL
    ) WITH (fillfactor = 50);
    CREATE INDEX rate_limit_counters_expired ON rate_limit_counters (expires_at);
    """)
    # Keys hold addresses of people and stand for nothing after a minute: compliance has no use for them.
    op.execute(
        secure("rate_limit_counters", by_user=False, procedures="SELECT, INSERT, UPDATE, DELETE", compliance=False)
    )


def downgrade() -> None:
    op.execute("DROP TABLE rate_limit_counters")
