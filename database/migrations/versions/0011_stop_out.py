"""Stop-out: the level at or below which positions are closed, beside the level below which a margin call begins."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute("""
    ALTER TABLE risk_settings ADD COLUMN stop_out_level numeric;
    UPDATE risk_settings SET stop_out_level = least(20, margin_call_threshold);
    -- Never above the threshold of the margin call: nobody's positions are closed who was not warned.
    ALTER TABLE risk_settings
    ALTER COLUMN stop_out_level SET DEFAULT 20,
    ALTER COLUMN stop_out_level SET NOT NULL,
    ADD CONSTRAINT stop_out_below_margin_call CHECK (stop_out_level BETWEEN 0 AND margin_call_threshold);
    """)


def downgrade() -> None:
    op.execute("ALTER TABLE risk_settings DROP COLUMN stop_out_level")
