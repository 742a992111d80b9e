"""Which order took the place of which."""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    # A denied order may name one that works on; any other one took its place, which happens once.
    op.execute("""
    ALTER TABLE orders ADD COLUMN replaces_order_id uuid,
    ADD CONSTRAINT orders_replaces FOREIGN KEY (user_id, replaces_order_id) REFERENCES orders (user_id, id);
    CREATE UNIQUE INDEX orders_replacing ON orders (user_id, replaces_order_id)
    WHERE replaces_order_id IS NOT NULL AND status <> 'denied';
    """)


def downgrade() -> None:
    op.execute("ALTER TABLE orders DROP COLUMN replaces_order_id")
