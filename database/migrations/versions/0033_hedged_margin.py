"""Hedged margin: what longs and shorts of one symbol need together, less than what they were opened with."""

from alembic import op

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    op.execute("""
    -- What has to be held of the margin of both sides where they cover each other; all of it unless it is set.
    ALTER TABLE instruments ADD COLUMN hedged_margin_percent numeric NOT NULL DEFAULT 100
    CHECK (hedged_margin_percent BETWEEN 0 AND 100);
    -- What less an account has to hold once the fill has covered something, in account currency.
    ALTER TYPE order_fill ADD ATTRIBUTE hedged_margin_credit numeric;
    """)


def downgrade() -> None:
    op.execute("""
    ALTER TYPE order_fill DROP ATTRIBUTE hedged_margin_credit;
    ALTER TABLE instruments DROP COLUMN hedged_margin_percent;
    """)
