"""Episodes of all accounts are listed newest first."""

from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    op.execute("CREATE INDEX margin_call_episodes_listed ON margin_call_episodes (id)")


def downgrade() -> None:
    op.execute("DROP INDEX margin_call_episodes_listed")
