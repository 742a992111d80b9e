"""Users, their accounts and money, orders, fills, positions, and the outbox of what happened to them.

Keys start with user_id, so that rows can be spread by user and cut by the time inside the uuidv7 later.
"""

from alembic import op

from database.migrations.policies import secure

revision = "0003"
down_revision = "0002"

WORKING = "('pending_new', 'new', 'triggered', 'partially_filled')"


# What a column may hold is a domain where orders pass: PostgreSQL keeps a domain's check ready, while it parses every
# CHECK of a table anew for each INSERT (23 of them were three quarters of an order row's cost).
DOMAINS = {
    "positive_number": ("numeric", "VALUE > 0 AND VALUE < 'Infinity'"),
    "unsigned_number": ("numeric", "VALUE >= 0 AND VALUE < 'Infinity'"),
    "finite_number": ("numeric", "VALUE > '-Infinity' AND VALUE < 'Infinity'"),
    "positive_count": ("bigint", "VALUE > 0"),
    "label": ("text", "length(VALUE) BETWEEN 1 AND 128"),
    "caller_key": ("text", "length(VALUE) BETWEEN 1 AND 255"),
    "order_type": ("text", "VALUE IN ('market', 'limit', 'stop', 'stop_limit')"),
    "order_side": ("text", "VALUE IN ('buy', 'sell')"),
    "order_time_in_force": ("text", "VALUE IN ('day', 'gtc', 'gtd', 'ioc', 'fok', 'opg', 'cls')"),
    "order_status": (
        "text",
        "VALUE IN ('pending_new', 'new', 'triggered', 'partially_filled', 'filled', 'canceled', 'expired', "
        "'replaced', 'denied', 'rejected')",
    ),
    "position_side": ("text", "VALUE IN ('long', 'short')"),
    "position_status": ("text", "VALUE IN ('open', 'closed')"),
    "ledger_entry_type": (
        "text",
        "VALUE IN ('deposit', 'withdrawal', 'adjustment', 'realized_pnl', 'commission', 'financing')",
    ),
}


def upgrade() -> None:
    for name, (base, check) in DOMAINS.items():
        op.execute(f"CREATE DOMAIN {name} AS {base} CHECK ({check})")
    _users_and_accounts()
    _orders()
    _positions_and_fills()
    _ledger()
    _keys_and_events()


def downgrade() -> None:
    op.execute("""
    DROP TABLE events, client_order_ids, idempotency_keys, ledger_entries, fills, positions, orders,
        order_transitions, risk_settings, accounts, profiles;
    DROP FUNCTION refuse_illegal_transition();
    DROP TYPE order_fill;
    """)
    for name in DOMAINS:
        op.execute(f"DROP DOMAIN {name}")


def _users_and_accounts() -> None:
    op.execute("""
    CREATE TABLE profiles (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        email text NOT NULL UNIQUE CHECK (email = lower(email) AND length(email) BETWEEN 3 AND 255),
        kyc_status text NOT NULL DEFAULT 'pending' CHECK (kyc_status IN ('pending', 'verified', 'rejected')),
        account_status text NOT NULL DEFAULT 'active' CHECK (account_status IN ('active', 'suspended', 'closed')),
        account_tier text NOT NULL DEFAULT 'bronze'
        CHECK (account_tier IN ('bronze', 'silver', 'gold', 'platinum')),
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );

    -- balance has no floor: a loss larger than the balance has to be bookable. Its only mover is the ledger.
    CREATE TABLE accounts (
        user_id uuid NOT NULL REFERENCES profiles,
        id uuid NOT NULL UNIQUE DEFAULT uuidv7(),
        currency text NOT NULL CHECK (currency IN ('USD', 'EUR', 'GBP')),
        kind text NOT NULL DEFAULT 'margin' CHECK (kind IN ('margin', 'cash')),
        leverage numeric NOT NULL DEFAULT 100 CHECK (leverage BETWEEN 1 AND 1000),
        position_mode text NOT NULL DEFAULT 'hedging' CHECK (position_mode IN ('hedging', 'netting')),
        balance finite_number NOT NULL DEFAULT 0,
        trading_state text NOT NULL DEFAULT 'active' CHECK (trading_state IN ('active', 'reducing', 'halted')),
        last_sequence bigint NOT NULL DEFAULT 0,
        ledger_version bigint NOT NULL DEFAULT 0,
        audit_version bigint NOT NULL DEFAULT 0,
        audit_head bytea NOT NULL DEFAULT '\\x',
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (user_id, id),
        CHECK (kind <> 'cash' OR (leverage = 1 AND position_mode = 'netting'))
    ) WITH (fillfactor = 70);

    -- A limit that is NULL does not bind. Sizes are lots of one symbol; the loss is in account currency.
    CREATE TABLE risk_settings (
        user_id uuid NOT NULL,
        account_id uuid NOT NULL,
        max_position_size numeric DEFAULT 100000 CHECK (max_position_size > 0),
        max_positions integer DEFAULT 10 CHECK (max_positions >= 0),
        daily_trade_limit integer DEFAULT 100 CHECK (daily_trade_limit >= 0),
        max_daily_loss numeric DEFAULT 10000 CHECK (max_daily_loss >= 0),
        margin_call_threshold numeric NOT NULL DEFAULT 50 CHECK (margin_call_threshold BETWEEN 0 AND 1000),
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (user_id, account_id),
        FOREIGN KEY (user_id, account_id) REFERENCES accounts (user_id, id)
    );
    """)
    op.execute(secure("profiles", by_user=True, user_column="id"))
    op.execute(secure("accounts", by_user=True))
    op.execute(secure("risk_settings", by_user=True))


def _orders() -> None:
    op.execute(f"""
    -- The legal steps of an order; an order is 'initialized' before its first row.
    CREATE TABLE order_transitions (
        from_status text NOT NULL,
        to_status text NOT NULL,
        PRIMARY KEY (from_status, to_status)
    );
    INSERT INTO order_transitions (from_status, to_status) VALUES
    ('initialized', 'denied'), ('initialized', 'pending_new'), ('initialized', 'rejected'),
    ('initialized', 'new'), ('initialized', 'canceled'), ('initialized', 'expired'), ('initialized', 'triggered'),
    ('pending_new', 'new'), ('pending_new', 'rejected'), ('pending_new', 'canceled'),
    ('pending_new', 'partially_filled'), ('pending_new', 'filled'),
    ('new', 'rejected'), ('new', 'canceled'), ('new', 'triggered'), ('new', 'expired'), ('new', 'replaced'),
    ('new', 'partially_filled'), ('new', 'filled'),
    ('triggered', 'rejected'), ('triggered', 'canceled'), ('triggered', 'expired'), ('triggered', 'replaced'),
    ('triggered', 'partially_filled'), ('triggered', 'filled'),
    ('partially_filled', 'canceled'), ('partially_filled', 'expired'), ('partially_filled', 'replaced'),
    ('partially_filled', 'partially_filled'), ('partially_filled', 'filled'),
    ('canceled', 'filled');

    CREATE TABLE orders (
        user_id uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        account_id uuid NOT NULL,
        client_order_id label,
        parent_order_id uuid,
        linked_order_ids uuid [] NOT NULL DEFAULT '{{}}',
        symbol text NOT NULL REFERENCES instruments,
        order_type order_type NOT NULL,
        side order_side NOT NULL,
        quantity positive_number NOT NULL,
        limit_price positive_number,
        stop_price positive_number,
        stop_loss positive_number,
        take_profit positive_number,
        time_in_force order_time_in_force NOT NULL DEFAULT 'gtc',
        expires_at timestamptz,
        max_slippage unsigned_number,
        reduce_only boolean NOT NULL DEFAULT false,
        display_quantity positive_number,
        conditions jsonb,
        execution_instructions jsonb,
        position_size_check boolean NOT NULL DEFAULT true,
        status order_status NOT NULL,
        filled_quantity unsigned_number NOT NULL DEFAULT 0,
        leaves_quantity unsigned_number NOT NULL,
        last_price positive_number,
        average_price positive_number,
        slippage unsigned_number,
        commission unsigned_number NOT NULL DEFAULT 0,
        total_cost finite_number,
        position_id uuid,
        transaction_id text,
        venue_order_id text,
        failure_code text,
        failure_reason text,
        rolled_back_at timestamptz,
        rolled_back_reason text,
        strategy_id label,
        signal_id label,
        component_name label,
        metadata jsonb,
        idempotency_key caller_key,
        request_id text,
        version integer NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        executed_at timestamptz,
        PRIMARY KEY (user_id, id),
        FOREIGN KEY (user_id, account_id) REFERENCES accounts (user_id, id),
        CONSTRAINT valid_prices_and_outcome CHECK (
            (order_type IN ('limit', 'stop_limit')) = (limit_price IS NOT NULL)
            AND (order_type IN ('stop', 'stop_limit')) = (stop_price IS NOT NULL)
            AND filled_quantity <= quantity
            AND CASE status
                WHEN 'filled' THEN filled_quantity = quantity AND leaves_quantity = 0
                    AND average_price IS NOT NULL AND executed_at IS NOT NULL
                WHEN 'denied' THEN failure_code IS NOT NULL
                WHEN 'rejected' THEN failure_code IS NOT NULL
                ELSE true
            END
        )
    );
    CREATE INDEX orders_working ON orders (user_id, account_id, symbol) WHERE status IN {WORKING};
    CREATE INDEX orders_executed ON orders (user_id, account_id, executed_at DESC) WHERE status = 'filled';

    CREATE FUNCTION refuse_illegal_transition() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (
            SELECT FROM order_transitions WHERE from_status = OLD.status AND to_status = NEW.status
        ) THEN
            RAISE EXCEPTION 'An order that is % cannot become %.', OLD.status, NEW.status USING ERRCODE = 'TR008';
        END IF;
        RETURN NEW;
    END
    $$;
    CREATE TRIGGER legal_transition BEFORE UPDATE OF status ON orders FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION refuse_illegal_transition();
    """)
    op.execute(secure("order_transitions", by_user=False, procedures="SELECT"))
    op.execute(secure("orders", by_user=True))
    op.execute("""
    -- What a market order comes to: amounts in account currency, prices in the instrument's quote currency.
    CREATE TYPE order_fill AS (
        price numeric,
        slippage numeric,
        slippage_details jsonb,
        commission numeric,
        margin numeric,
        unrealized_pnl numeric
    );
    """)


def _positions_and_fills() -> None:
    op.execute("""
    -- The mark and the unrealized P&L of a position are computed from quotes when asked for, so they cannot be stale.
    CREATE TABLE positions (
        user_id uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        account_id uuid NOT NULL,
        order_id uuid NOT NULL,
        symbol text NOT NULL REFERENCES instruments,
        side position_side NOT NULL,
        quantity unsigned_number NOT NULL,
        opened_quantity positive_number NOT NULL,
        entry_price positive_number NOT NULL,
        margin_used unsigned_number NOT NULL DEFAULT 0,
        stop_loss positive_number,
        take_profit positive_number,
        commission_paid unsigned_number NOT NULL DEFAULT 0,
        realized_pnl finite_number NOT NULL DEFAULT 0,
        status position_status NOT NULL DEFAULT 'open',
        transaction_id text,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        closed_at timestamptz,
        PRIMARY KEY (user_id, id),
        FOREIGN KEY (user_id, account_id) REFERENCES accounts (user_id, id),
        FOREIGN KEY (user_id, order_id) REFERENCES orders (user_id, id),
        CONSTRAINT open_or_closed CHECK (
            quantity <= opened_quantity AND (status = 'open') = (quantity > 0)
            AND (status = 'open') = (closed_at IS NULL) AND (status = 'open' OR margin_used = 0)
        )
    );
    CREATE INDEX positions_open ON positions (user_id, account_id, symbol) WHERE status = 'open';

    CREATE TABLE fills (
        user_id uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        order_id uuid NOT NULL,
        account_id uuid NOT NULL,
        position_id uuid NOT NULL,
        symbol text NOT NULL,
        side order_side NOT NULL,
        quantity positive_number NOT NULL,
        price positive_number NOT NULL,
        commission unsigned_number NOT NULL DEFAULT 0,
        realized_pnl finite_number NOT NULL DEFAULT 0,
        venue text NOT NULL,
        trade_id text NOT NULL,
        transact_time timestamptz NOT NULL,
        PRIMARY KEY (user_id, id),
        UNIQUE (user_id, venue, trade_id),
        FOREIGN KEY (user_id, order_id) REFERENCES orders (user_id, id),
        FOREIGN KEY (user_id, position_id) REFERENCES positions (user_id, id)
    );
    CREATE INDEX fills_of_order ON fills (user_id, order_id);
    """)
    op.execute(secure("positions", by_user=True))
    op.execute(secure("fills", by_user=True, procedures="SELECT, INSERT"))


def _ledger() -> None:
    op.execute("""
    CREATE TABLE ledger_entries (
        user_id uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        account_id uuid NOT NULL,
        entry_number positive_count NOT NULL,
        entry_type ledger_entry_type NOT NULL,
        amount finite_number NOT NULL,
        balance_after finite_number NOT NULL,
        currency text NOT NULL,
        order_id uuid,
        fill_id uuid,
        position_id uuid,
        reason text,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (user_id, id),
        UNIQUE (user_id, account_id, entry_number),
        FOREIGN KEY (user_id, account_id) REFERENCES accounts (user_id, id)
    );
    """)
    op.execute(secure("ledger_entries", by_user=True, procedures="SELECT, INSERT"))


def _keys_and_events() -> None:
    op.execute("""
    CREATE TABLE idempotency_keys (
        user_id uuid NOT NULL,
        account_id uuid NOT NULL,
        idempotency_key caller_key NOT NULL,
        request_hash text NOT NULL,
        answer jsonb NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        PRIMARY KEY (user_id, account_id, idempotency_key)
    );
    -- Keys come in the order of their expiry, so a summary of each range of pages finds the expired ones.
    CREATE INDEX idempotency_keys_expiry ON idempotency_keys USING brin (expires_at) WITH (autosummarize = on);

    -- Unlike idempotency keys these never expire: the caller's own name of an order stays unique for ever.
    CREATE TABLE client_order_ids (
        user_id uuid NOT NULL,
        account_id uuid NOT NULL,
        client_order_id text NOT NULL,
        order_id uuid NOT NULL,
        PRIMARY KEY (user_id, account_id, client_order_id)
    );

    CREATE TABLE events (
        user_id uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        account_id uuid NOT NULL,
        sequence positive_count NOT NULL,
        event_type text NOT NULL,
        payload jsonb NOT NULL,
        request_id text,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (user_id, id),
        UNIQUE (user_id, account_id, sequence),
        FOREIGN KEY (user_id, account_id) REFERENCES accounts (user_id, id)
    );
    CREATE INDEX events_created ON events (created_at);
    """)
    op.execute(secure("idempotency_keys", by_user=True, procedures="SELECT, INSERT, DELETE"))
    op.execute(secure("client_order_ids", by_user=True, procedures="SELECT, INSERT"))
    op.execute(secure("events", by_user=True, procedures="SELECT, INSERT"))
