"""A key of an intervention is its actor's own: what somebody else calls theirs stands in nobody's way."""

from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    op.execute("""
    ALTER TABLE interventions DROP CONSTRAINT interventions_start_key_key;
    ALTER TABLE interventions ADD CONSTRAINT interventions_start_key UNIQUE (actor, start_key);
    """)


def downgrade() -> None:
    # Of one key that several have used, the first one keeps it.
    op.execute("""
    ALTER TABLE interventions DROP CONSTRAINT interventions_start_key;
    UPDATE interventions AS i SET start_key = NULL
    WHERE EXISTS (SELECT FROM interventions AS f WHERE f.start_key = i.start_key AND f.id < i.id);
    ALTER TABLE interventions ADD CONSTRAINT interventions_start_key_key UNIQUE (start_key);
    """)
