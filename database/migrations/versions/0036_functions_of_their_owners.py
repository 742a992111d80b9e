"""A function is nobody's to call until it is granted by name, whichever owner makes it: files are run as theirs."""

from alembic import op

revision = "0036"
down_revision = "0035"

OWNERS = "trading_procedures, trading_readers, trading_watchers"


def upgrade() -> None:
    op.execute(f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNERS} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")


def downgrade() -> None:
    op.execute(f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNERS} GRANT EXECUTE ON FUNCTIONS TO PUBLIC")
