"""A position whose stop no longer trails has no level that the feed moves, whoever ended the trail."""

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.execute("""
    CREATE TRIGGER trail_ends AFTER UPDATE OF trail_distance ON positions FOR EACH ROW
    WHEN (OLD.trail_distance IS NOT NULL AND NEW.trail_distance IS NULL) EXECUTE FUNCTION end_trailing();
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER trail_ends ON positions")
