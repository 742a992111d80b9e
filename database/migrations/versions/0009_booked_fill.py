"""What is booked of a fill travels with its price: one value from the pricing of an order to its answer."""

from alembic import op

revision = "0009"
down_revision = "0008"

BOOKED = {
    "order_id": "uuid",
    "fill_id": "uuid",
    "position_id": "uuid",
    "quantity": "numeric",
    "realized_pnl": "numeric",
    "balance": "numeric",
    "transaction_id": "text",
}


def upgrade() -> None:
    op.execute("ALTER TYPE order_fill " + ", ".join(f"ADD ATTRIBUTE {name} {kind}" for name, kind in BOOKED.items()))


def downgrade() -> None:
    op.execute("ALTER TYPE order_fill " + ", ".join(f"DROP ATTRIBUTE {name}" for name in BOOKED))
