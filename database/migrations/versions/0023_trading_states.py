"""Who set which trading state, the circuit breakers that set one too, and the winding down of what is left then."""

from alembic import op

from database.migrations.policies import secure

revision = "0023"
down_revision = "0022"

STATES = "('active', 'reducing', 'halted')"


def upgrade() -> None:
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
    op.execute("""
    -- At what a symbol's breaker trips; NULL: never. A move is between the lowest and the highest mid of
    -- price_move_window_s, a spread is of the mid, both in percent.
    CREATE TABLE symbol_breakers (
        symbol text PRIMARY KEY REFERENCES instruments,
        move_percent numeric CHECK (move_percent > 0),
        spread_percent numeric CHECK (spread_percent > 0)
    );
    ALTER TABLE risk_defaults ADD COLUMN max_losses_in_a_row integer CHECK (max_losses_in_a_row > 0);
    ALTER TABLE risk_settings ADD COLUMN max_losses_in_a_row integer CHECK (max_losses_in_a_row > 0);
    ALTER TABLE platform_settings
    ADD COLUMN price_move_window_s integer NOT NULL DEFAULT 60 CHECK (price_move_window_s BETWEEN 1 AND 3600),
    -- The platform's breaker: so many percent of the orders of a window refused, of at least so many, sent by at least
    -- so many users, because one whose orders are all bad is nobody's emergency but their own.
    ADD COLUMN reject_rate_percent numeric DEFAULT 50 CHECK (reject_rate_percent BETWEEN 0 AND 100),
    ADD COLUMN reject_rate_window_s integer NOT NULL DEFAULT 60 CHECK (reject_rate_window_s BETWEEN 1 AND 3600),
    ADD COLUMN reject_rate_orders_min integer NOT NULL DEFAULT 100 CHECK (reject_rate_orders_min > 0),
    ADD COLUMN reject_rate_users_min integer NOT NULL DEFAULT 5 CHECK (reject_rate_users_min > 0);

    -- The mids of a symbol in the window that runs and in the one before it: together they reach back one to two.
    CREATE TYPE price_range AS (
        since timestamptz,
        low numeric,
        high numeric,
        low_before numeric,
        high_before numeric
    );
    ALTER TABLE quotes ADD COLUMN range price_range;
    """)
    op.execute(secure("symbol_breakers", by_user=False, procedures="SELECT"))
    op.execute(secure("trading_state_changes", by_user=True, procedures="SELECT, INSERT"))
    op.execute(secure("wind_downs", by_user=False, procedures="SELECT, INSERT"))
    op.execute(secure("wind_down_accounts", by_user=True))


def downgrade() -> None:
    op.execute("""
    ALTER TABLE quotes DROP COLUMN range;
    DROP TYPE price_range;
    ALTER TABLE risk_settings DROP COLUMN max_losses_in_a_row;
    ALTER TABLE risk_defaults DROP COLUMN max_losses_in_a_row;
    ALTER TABLE platform_settings
    DROP COLUMN price_move_window_s, DROP COLUMN reject_rate_percent, DROP COLUMN reject_rate_window_s,
    DROP COLUMN reject_rate_orders_min, DROP COLUMN reject_rate_users_min;
    DROP TABLE symbol_breakers, wind_down_accounts, wind_downs, trading_state_changes;
    """)
