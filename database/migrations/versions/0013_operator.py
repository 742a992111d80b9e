"""The role of what operators do to accounts, and the way to a day of the audit over all of them."""

from alembic import op

from database.migrations.roles import create_role, limit_role

revision = "0013"
down_revision = "0012"

ROLE = "function_operator"
LIMITS_MS = {"statement_timeout": 5000, "lock_timeout": 4000}


def upgrade() -> None:
    op.execute(create_role(ROLE, "LOGIN"))
    op.execute(limit_role(ROLE, LIMITS_MS))
    op.execute(f"""
    GRANT USAGE ON SCHEMA public TO {ROLE};
    -- Rows lie in the order of their time, so a summary of each range of pages finds a report's days.
    CREATE INDEX order_audit_log_created ON order_audit_log USING brin (created_at) WITH (autosummarize = on);
    """)


def downgrade() -> None:
    op.execute(f"""
    DROP INDEX order_audit_log_created;
    REVOKE ALL ON SCHEMA public FROM {ROLE};
    """)
