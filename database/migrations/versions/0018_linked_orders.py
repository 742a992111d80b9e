"""Orders that depend on each other."""

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.execute("""
    CREATE DOMAIN order_contingency AS text CHECK (VALUE IN ('oco', 'oto_parent', 'oto_child', 'bracket_exit'));

    -- held_quantity waits for fills of the parent; canceled_quantity was taken off by fills of a linked order while the
    -- rest works on. What is left to fill is quantity - filled_quantity - canceled_quantity, held or not.
    ALTER TABLE orders ADD COLUMN contingency order_contingency,
    ADD COLUMN held_quantity unsigned_number NOT NULL DEFAULT 0,
    ADD COLUMN canceled_quantity unsigned_number NOT NULL DEFAULT 0;
    """)


def downgrade() -> None:
    op.execute("""
    ALTER TABLE orders DROP COLUMN canceled_quantity, DROP COLUMN held_quantity, DROP COLUMN contingency;
    DROP DOMAIN order_contingency;
    """)
