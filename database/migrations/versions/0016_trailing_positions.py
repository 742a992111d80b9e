"""Positions that are managed: a stop loss that trails the market, and a version that a change can be held to."""

from alembic import op

revision = "0016"
down_revision = "0015"

OPEN_OR_CLOSED = """
    quantity <= opened_quantity AND (status = 'open') = (quantity > 0)
    AND (status = 'open') = (closed_at IS NULL) AND (status = 'open' OR margin_used = 0)
"""
# While a stop trails, stop_loss is trail_mark less trail_distance of a long, and plus it of a short.
TRAIL = "(trail_distance IS NULL) = (trail_mark IS NULL) AND (trail_distance IS NULL OR stop_loss IS NOT NULL)"


def upgrade() -> None:
    # One constraint, because each that a table has is parsed anew for every INSERT.
    op.execute(f"""
    ALTER TABLE positions
    ADD COLUMN trail_distance positive_number,
    ADD COLUMN trail_mark positive_number,
    ADD COLUMN version integer NOT NULL DEFAULT 1,
    DROP CONSTRAINT open_or_closed,
    ADD CONSTRAINT open_or_closed CHECK ({OPEN_OR_CLOSED} AND {TRAIL});
    """)


def downgrade() -> None:
    op.execute(f"""
    ALTER TABLE positions
    DROP CONSTRAINT open_or_closed,
    DROP COLUMN version,
    DROP COLUMN trail_mark,
    DROP COLUMN trail_distance,
    ADD CONSTRAINT open_or_closed CHECK ({OPEN_OR_CLOSED});
    """)
