"""How many orders of an account may rest at once."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    # As with the other limits, NULL does not bind.
    op.execute(
        "ALTER TABLE risk_settings ADD COLUMN max_working_orders integer DEFAULT 100 CHECK (max_working_orders >= 0)"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE risk_settings DROP COLUMN max_working_orders")
