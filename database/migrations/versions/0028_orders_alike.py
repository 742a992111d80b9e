"""What limits and breakers look at besides: all that an order asks for, trades that ended early, when one was armed."""

from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    op.execute("""
    -- What a new order asks for; NULL of one that a price has touched.
    ALTER TYPE limit_case ADD ATTRIBUTE asked jsonb;

    -- Trades of orders that were not filled whole.
    CREATE INDEX orders_ended_early ON orders (user_id, account_id, updated_at)
    WHERE status IN ('canceled', 'expired', 'replaced') AND filled_quantity > 0;

    -- When somebody last set the symbol's state to active: no move is measured from before.
    ALTER TABLE symbol_breakers ADD COLUMN armed_at timestamptz NOT NULL DEFAULT '-infinity';
    GRANT UPDATE (armed_at) ON symbol_breakers TO trading_procedures;
    """)


def downgrade() -> None:
    op.execute("""
    ALTER TABLE symbol_breakers DROP COLUMN armed_at;
    DROP INDEX orders_ended_early;
    ALTER TYPE limit_case DROP ATTRIBUTE asked;
    """)
