"""Orders executed elsewhere: an instrument's venue, the orders on their way, and the simulated venues' books."""

from alembic import op

from database.migrations.policies import secure

revision = "0012"
down_revision = "0011"

ROLE = "function_router"
# Milliseconds.
LIMITS = {
    "statement_timeout": 5000,
    "lock_timeout": 4000,
    "idle_in_transaction_session_timeout": 5000,
    "client_connection_check_interval": 1000,
}
# As the role of orders, and for its reason: look-ups by key, planned once, whatever the tables held then.
PLANNING = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}


def upgrade() -> None:
    _role()
    # No CHECK on accounts: every order writes that table, and verify_books compares the sum with its parts.
    op.execute("""
    ALTER TABLE instruments ADD COLUMN venue text NOT NULL DEFAULT 'internal'
    CHECK (venue ~ '^[a-z][a-z0-9_]{0,31}$');
    ALTER TABLE accounts ADD COLUMN margin_reserved numeric NOT NULL DEFAULT 0;
    """)
    op.execute(_ROUTES)
    op.execute(_RECORDS)
    op.execute(secure("venue_routes", by_user=True))
    op.execute(secure("venue_records", by_user=False, procedures="SELECT, INSERT"))


def downgrade() -> None:
    op.execute(f"""
    DROP TABLE venue_records, venue_routes;
    ALTER TABLE accounts DROP COLUMN margin_reserved;
    ALTER TABLE instruments DROP COLUMN venue;
    REVOKE ALL ON SCHEMA public FROM {ROLE};
    """)


def _role() -> None:
    op.execute(f"""
    DO $$
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
            CREATE ROLE {ROLE} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION;
        END IF;
        IF NOT pg_has_role(current_user, '{ROLE}', 'USAGE') THEN
            GRANT {ROLE} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE;
        END IF;
    END
    $$;
    GRANT USAGE ON SCHEMA public TO {ROLE};
    """)
    for name, value in (LIMITS | PLANNING).items():
        op.execute(f"ALTER ROLE {ROLE} SET {name} = {value}")


_ROUTES = """
-- An order on its way to a venue. The row is also the work queue: who holds the lease talks to the venue about it.
CREATE TABLE venue_routes (
    user_id uuid NOT NULL,
    order_id uuid NOT NULL,
    account_id uuid NOT NULL,
    venue text NOT NULL,
    -- new: never sent. unknown: sent, perhaps, and not answered. working: the venue has it. done: nothing more comes.
    state text NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'unknown', 'working', 'done')),
    -- Of the quote at acceptance the side that the order takes, and the worst price that its max_slippage allows.
    reference_price positive_number NOT NULL,
    worst_price positive_number,
    adds_exposure boolean NOT NULL,
    -- In account currency: what the whole order was estimated to take of the free margin, and what its rest still does.
    margin_required unsigned_number NOT NULL,
    margin_reserved unsigned_number NOT NULL,
    -- Submissions begun.
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    submitted_at timestamptz,
    -- The trader was told that the outcome is not known.
    told_at timestamptz,
    due_at timestamptz NOT NULL,
    lease_holder uuid,
    -- Grows with each lease: who comes back late with an older one changes nothing.
    lease_fencing bigint NOT NULL DEFAULT 0,
    lease_expires_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, order_id),
    FOREIGN KEY (user_id, order_id) REFERENCES orders (user_id, id),
    CHECK (margin_reserved <= margin_required AND (state <> 'done' OR margin_reserved = 0))
) WITH (fillfactor = 70);
CREATE INDEX venue_routes_due ON venue_routes (due_at) WHERE state <> 'done';
CREATE INDEX venue_routes_account ON venue_routes (user_id, account_id) WHERE state <> 'done';
"""

_RECORDS = """
-- The books of the venues that are simulated here: what each took, under the client id that it came with.
CREATE TABLE venue_records (
    venue text NOT NULL,
    client_order_id label NOT NULL,
    record jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (venue, client_order_id)
);
"""
