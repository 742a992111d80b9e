"""Which copy of a price feed writes."""

from alembic import op

from database.migrations.policies import secure

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE feed_leases (
        name text PRIMARY KEY CHECK (name <> ''),
        fence bigint NOT NULL CHECK (fence > 0),
        expires_at timestamptz NOT NULL
    ) WITH (fillfactor = 50);
    """)
    op.execute(secure("feed_leases", by_user=False))


def downgrade() -> None:
    op.execute("DROP TABLE feed_leases")
