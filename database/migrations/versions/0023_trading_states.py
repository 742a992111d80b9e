"""Who set which trading state, and the winding down of what a kill switch leaves: orders canceled, positions closed."""

from alembic import op

from database.migrations.policies import secure
from database.migrations.roles import create_role, limit_role

revision = "0023"
down_revision = "0019"

STATES = "('active', 'reducing', 'halted')"


def upgrade() -> None:
    op.execute(create_role("function_risk_officer", "LOGIN"))
    op.execute(limit_role("function_risk_officer", {"statement_timeout": 5000, "lock_timeout": 4000}))
    op.execute("GRANT USAGE ON SCHEMA public TO function_risk_officer")
    op.execute(f"""
    -- Each time that somebody set a state, also to what it was already. Rows are only added.
    CREATE TABLE trading_state_changes (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        scope text NOT NULL CHECK (scope IN ('platform', 'symbol', 'account')),
        symbol text REFERENCES instruments,
        user_id uuid,
        account_id uuid,
        before text NOT NULL CHECK (before IN {STATES}),
        after text NOT NULL CHECK (after IN {STATES}),
        actor text NOT NULL,
        reason text NOT NULL,
        idempotency_key caller_key NOT NULL,
        request_hash text NOT NULL,
        answer jsonb NOT NULL,
        changed_at timestamptz NOT NULL,
        UNIQUE (actor, idempotency_key),
        FOREIGN KEY (user_id, account_id) REFERENCES accounts (user_id, id),
        CHECK ((scope = 'symbol') = (symbol IS NOT NULL) AND (scope = 'account') = (account_id IS NOT NULL)),
        CHECK ((user_id IS NULL) = (account_id IS NULL))
    );
    CREATE INDEX trading_state_changes_of ON trading_state_changes (scope, symbol, account_id, id);

    CREATE TABLE wind_downs (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        scope text NOT NULL CHECK (scope IN ('platform', 'symbol', 'account')),
        symbol text REFERENCES instruments,
        account_id uuid REFERENCES accounts (id),
        action text NOT NULL CHECK (action IN ('cancel_orders', 'flatten')),
        actor text NOT NULL,
        reason text NOT NULL,
        accounts bigint NOT NULL CHECK (accounts >= 0),
        idempotency_key caller_key NOT NULL,
        request_hash text NOT NULL,
        started_at timestamptz NOT NULL,
        UNIQUE (actor, idempotency_key),
        CHECK ((scope = 'symbol') = (symbol IS NOT NULL) AND (scope = 'account') = (account_id IS NOT NULL))
    );

    -- What each account of a wind-down has come to. A row is worked on under a lease, and what it still has to do is
    -- looked at anew under the account's lock each time.
    CREATE TABLE wind_down_accounts (
        wind_down_id uuid NOT NULL REFERENCES wind_downs,
        user_id uuid NOT NULL,
        account_id uuid NOT NULL,
        orders_canceled integer NOT NULL DEFAULT 0,
        positions_closed integer NOT NULL DEFAULT 0,
        -- Not before: something of it could not be closed.
        due_at timestamptz NOT NULL,
        done_at timestamptz,
        attempts integer NOT NULL DEFAULT 0,
        lease_holder uuid,
        lease_fencing bigint NOT NULL DEFAULT 0,
        lease_expires_at timestamptz,
        PRIMARY KEY (user_id, account_id, wind_down_id),
        FOREIGN KEY (user_id, account_id) REFERENCES accounts (user_id, id)
    ) WITH (fillfactor = 70);
    CREATE INDEX wind_down_accounts_due ON wind_down_accounts (due_at) WHERE done_at IS NULL;
    CREATE INDEX wind_down_accounts_of ON wind_down_accounts (wind_down_id);
    """)
    op.execute(secure("trading_state_changes", by_user=True, procedures="SELECT, INSERT"))
    op.execute(secure("wind_downs", by_user=False, procedures="SELECT, INSERT"))
    op.execute(secure("wind_down_accounts", by_user=True))


def downgrade() -> None:
    op.execute("DROP TABLE wind_down_accounts, wind_downs, trading_state_changes")
