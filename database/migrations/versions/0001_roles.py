"""Roles: owners that nobody logs in as, and one login for each kind of caller.

Roles belong to the whole cluster, so the downgrade takes back what they hold in this database and leaves them be.
"""

from alembic import op

from database.migrations.roles import create_role, limit_role

revision = "0001"
down_revision = None

OWNERS = ("trading_owner", "trading_procedures", "trading_readers")
# Login role -> settings that bound what one statement of it may take. Milliseconds.
LOGINS = {
    "function_trader": {"statement_timeout": 5000, "lock_timeout": 4000},
    "function_relay": {"statement_timeout": 5000, "lock_timeout": 2000},
    "function_prices": {"statement_timeout": 5000, "lock_timeout": 2000},
    "function_risk": {"statement_timeout": 20000, "lock_timeout": 4000},
    "compliance": {"statement_timeout": 60000, "lock_timeout": 2000},
    "backup": {"statement_timeout": 0, "lock_timeout": 0},
}
# An order's statements are look-ups by key. Their plans are made once a connection, and must not depend on statistics:
# what was planned while a table was empty would go on reading it from end to end as it grows.
PLANNING = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}


def upgrade() -> None:
    for role in OWNERS:
        op.execute(create_role(role, "NOLOGIN"))
    for role, limits in LOGINS.items():
        op.execute(create_role(role, "LOGIN"))
        op.execute(limit_role(role, limits))
    for name, value in PLANNING.items():
        op.execute(f"ALTER ROLE function_trader SET {name} = {value}")
    logins = ", ".join(LOGINS)
    op.execute(f"""
    GRANT USAGE ON SCHEMA public TO {", ".join(OWNERS)}, {logins};
    GRANT CREATE ON SCHEMA public TO trading_owner;
    -- A function is nobody's to call until it is granted by name.
    ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
    """)


def downgrade() -> None:
    logins = ", ".join(LOGINS)
    op.execute(f"""
    ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC;
    REVOKE ALL ON SCHEMA public FROM {", ".join(OWNERS)}, {logins};
    """)
