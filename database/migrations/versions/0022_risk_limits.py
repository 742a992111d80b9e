"""Limits of an account and of its tier, their history, leverage by profile, and the days that limits count from."""

from alembic import op

from database.migrations.policies import secure
from database.migrations.roles import create_role, limit_role

revision = "0022"
down_revision = "0021"

ROLE = "function_risk_officer"
LIMITS_MS = {"statement_timeout": 5000, "lock_timeout": 4000}

# Amounts are in account currency, quantities in lots, prices' distances in percent of the price.
NEW_LIMITS = """
    {alter} max_order_quantity numeric CHECK (max_order_quantity > 0),
    {alter} max_order_notional numeric CHECK (max_order_notional > 0),
    {alter} max_exposure numeric CHECK (max_exposure >= 0),
    -- The share of one symbol in the exposure, judged while that is above concentration_from_exposure.
    {alter} max_concentration_percent numeric CHECK (max_concentration_percent BETWEEN 0 AND 100),
    {alter} concentration_from_exposure numeric CHECK (concentration_from_exposure >= 0),
    {alter} order_rate_limit integer CHECK (order_rate_limit >= 0),
    {alter} order_rate_window_s integer CHECK (order_rate_window_s BETWEEN 1 AND 86400),
    {alter} duplicate_window_ms integer CHECK (duplicate_window_ms BETWEEN 1 AND 3600000),
    {alter} max_drawdown_percent numeric CHECK (max_drawdown_percent BETWEEN 0 AND 100),
    {alter} stop_loss_required boolean,
    {alter} stop_loss_min_percent numeric CHECK (stop_loss_min_percent BETWEEN 0 AND 100),
    {alter} stop_loss_max_percent numeric CHECK (stop_loss_max_percent BETWEEN 0 AND 100),
    {alter} price_collar_percent numeric CHECK (price_collar_percent BETWEEN 0 AND 1000),
    {alter} restricted_symbols text [] CHECK (cardinality(restricted_symbols) <= 200),
    {alter} leverage_profile text CHECK (leverage_profile ~ '^[a-z][a-z0-9_]{{0,31}}$'),
    {alter} day_time_zone text CHECK (length(day_time_zone) BETWEEN 1 AND 64),
    {alter} day_start_hour integer CHECK (day_start_hour BETWEEN 0 AND 23)
"""
OLD_DEFAULTS = {
    "max_position_size": 100000,
    "max_positions": 10,
    "max_working_orders": 100,
    "daily_trade_limit": 100,
    "max_daily_loss": 10000,
}
NEW_COLUMNS = (
    "max_order_quantity",
    "max_order_notional",
    "max_exposure",
    "max_concentration_percent",
    "concentration_from_exposure",
    "order_rate_limit",
    "order_rate_window_s",
    "duplicate_window_ms",
    "max_drawdown_percent",
    "stop_loss_required",
    "stop_loss_min_percent",
    "stop_loss_max_percent",
    "price_collar_percent",
    "restricted_symbols",
    "leverage_profile",
    "day_time_zone",
    "day_start_hour",
)


def upgrade() -> None:
    _defaults()
    _settings()
    _history()
    _leverage()
    _days()
    op.execute(_TYPES)
    op.execute(create_role(ROLE, "LOGIN"))
    op.execute(limit_role(ROLE, LIMITS_MS))
    op.execute(f"GRANT USAGE ON SCHEMA public TO {ROLE}")


def downgrade() -> None:
    restored = ", ".join(
        f"{name} = CASE WHEN '{name}' = ANY (unlimited) THEN NULL ELSE coalesce({name}, {value}) END"
        for name, value in OLD_DEFAULTS.items()
    )
    op.execute(f"""
    DROP TYPE limit_facts, limit_case;
    DROP TRIGGER transfer_counts ON ledger_entries;
    DROP FUNCTION count_transfer();
    DROP TABLE account_days, risk_changes, leverage_caps, risk_defaults;
    ALTER TABLE accounts DROP COLUMN day_ends_at;
    UPDATE risk_settings SET {restored};
    ALTER TABLE risk_settings DROP COLUMN unlimited, {", ".join(f"DROP COLUMN {name}" for name in NEW_COLUMNS)},
    {", ".join(f"ALTER COLUMN {name} SET DEFAULT {value}" for name, value in OLD_DEFAULTS.items())};
    REVOKE ALL ON SCHEMA public FROM {ROLE};
    """)


def _defaults() -> None:
    op.execute(f"""
    -- What binds an account of the tier where its own settings say nothing; a limit that is NULL does not bind.
    CREATE TABLE risk_defaults (
        tier text PRIMARY KEY CHECK (tier IN ('bronze', 'silver', 'gold', 'platinum')),
        max_position_size numeric CHECK (max_position_size > 0),
        max_positions integer CHECK (max_positions >= 0),
        max_working_orders integer CHECK (max_working_orders >= 0),
        daily_trade_limit integer CHECK (daily_trade_limit >= 0),
        max_daily_loss numeric CHECK (max_daily_loss >= 0),
        {NEW_LIMITS.format(alter="")},
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CHECK (stop_loss_min_percent <= stop_loss_max_percent),
        CHECK (day_time_zone IS NOT NULL AND day_start_hour IS NOT NULL)
    );
    INSERT INTO risk_defaults (
        tier, max_position_size, max_positions, max_working_orders, daily_trade_limit, max_daily_loss,
        max_order_notional, price_collar_percent, day_time_zone, day_start_hour
    ) VALUES
    ('bronze', 100000, 10, 100, 100, 10000, 50000000, 80, 'UTC', 0),
    ('silver', 100000, 10, 100, 100, 10000, 100000000, 80, 'UTC', 0),
    ('gold', 100000, 10, 100, 100, 10000, 250000000, 80, 'UTC', 0),
    ('platinum', 100000, 10, 100, 100, 10000, 500000000, 80, 'UTC', 0);
    """)
    op.execute(secure("risk_defaults", by_user=False, procedures="SELECT, UPDATE"))


def _settings() -> None:
    lifted = ", ".join(f"CASE WHEN {name} IS NULL THEN '{name}' END" for name in OLD_DEFAULTS)
    inherited = ", ".join(f"{name} = nullif({name}, {value})" for name, value in OLD_DEFAULTS.items())
    op.execute(f"""
    -- NULL: as the tier has it. `unlimited` names the limits of the tier that do not bind this account.
    ALTER TABLE risk_settings
    {NEW_LIMITS.format(alter="ADD COLUMN")},
    ADD COLUMN unlimited text [] NOT NULL DEFAULT '{{}}',
    {", ".join(f"ALTER COLUMN {name} DROP DEFAULT" for name in OLD_DEFAULTS)};
    UPDATE risk_settings SET unlimited = array_remove(ARRAY[{lifted}], NULL), {inherited};
    """)


def _history() -> None:
    op.execute("""
    -- Who changed which limits, when and why: of an account, or of a tier. Rows are only added.
    CREATE TABLE risk_changes (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        user_id uuid,
        account_id uuid,
        tier text REFERENCES risk_defaults,
        actor text NOT NULL,
        reason text NOT NULL,
        before jsonb NOT NULL,
        after jsonb NOT NULL,
        idempotency_key caller_key,
        request_hash text,
        answer jsonb,
        changed_at timestamptz NOT NULL,
        FOREIGN KEY (user_id, account_id) REFERENCES accounts (user_id, id),
        CHECK ((tier IS NULL) = (account_id IS NOT NULL) AND (user_id IS NULL) = (account_id IS NULL))
    );
    CREATE INDEX risk_changes_of_account ON risk_changes (user_id, account_id, id) WHERE account_id IS NOT NULL;
    CREATE INDEX risk_changes_of_tier ON risk_changes (tier, id) WHERE tier IS NOT NULL;
    CREATE UNIQUE INDEX risk_changes_key ON risk_changes (tier, idempotency_key) WHERE tier IS NOT NULL;
    """)
    op.execute(secure("risk_changes", by_user=True, procedures="SELECT, INSERT"))


def _leverage() -> None:
    op.execute("""
    -- The highest leverage by profile: of an asset class where symbol is '', else of that symbol.
    CREATE TABLE leverage_caps (
        profile text NOT NULL CHECK (profile ~ '^[a-z][a-z0-9_]{0,31}$'),
        asset_class text NOT NULL,
        symbol text NOT NULL,
        leverage numeric NOT NULL CHECK (leverage >= 1),
        PRIMARY KEY (profile, asset_class, symbol)
    );
    """)
    op.execute(secure("leverage_caps", by_user=False, procedures="SELECT"))


def _days() -> None:
    op.execute("""
    -- A day of an account, from its own boundary on; see open_account_day. Amounts are in account currency.
    CREATE TABLE account_days (
        user_id uuid NOT NULL,
        account_id uuid NOT NULL,
        starts_at timestamptz NOT NULL,
        ends_at timestamptz NOT NULL,
        day date NOT NULL,
        opened_at timestamptz NOT NULL,
        -- Of the account when the day was opened.
        ledger_version bigint NOT NULL,
        start_balance finite_number NOT NULL,
        start_equity finite_number NOT NULL,
        -- What came in and went out since, but for trading.
        transferred finite_number NOT NULL DEFAULT 0,
        -- The highest equity seen, moved by what came in and went out.
        peak_equity finite_number NOT NULL,
        PRIMARY KEY (user_id, account_id, starts_at),
        FOREIGN KEY (user_id, account_id) REFERENCES accounts (user_id, id),
        CHECK (starts_at <= opened_at AND opened_at < ends_at)
    ) WITH (fillfactor = 80);
    ALTER TABLE accounts ADD COLUMN day_ends_at timestamptz NOT NULL DEFAULT 'epoch';

    CREATE FUNCTION count_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE account_days AS d SET
            transferred = d.transferred + NEW.amount,
            peak_equity = d.peak_equity + NEW.amount
        FROM accounts AS a
        WHERE a.user_id = NEW.user_id AND a.id = NEW.account_id AND d.user_id = a.user_id AND d.account_id = a.id
            AND d.ends_at = a.day_ends_at;
        RETURN NULL;
    END
    $$;
    -- Whatever is booked besides trading, by whichever procedure, is no loss and no profit of the day.
    CREATE TRIGGER transfer_counts AFTER INSERT ON ledger_entries FOR EACH ROW
    WHEN (NEW.entry_type NOT IN ('realized_pnl', 'commission', 'financing')) EXECUTE FUNCTION count_transfer();
    """)
    op.execute(secure("account_days", by_user=True))


_TYPES = """
-- An order as the limits look at it: lots, prices in quote currency, equity in account currency.
CREATE TYPE limit_case AS (
    side text,
    order_type text,
    order_quantity numeric,
    -- What of it adds to the exposure, and at which price that is judged.
    added numeric,
    price numeric,
    limit_price numeric,
    stop_price numeric,
    trail_amount numeric,
    trail_percent numeric,
    -- Of the order, of the exit that comes with it, or of the position that it adds to.
    stop_loss numeric,
    -- Sent just now, with so many orders in one request; not one that a price has touched.
    is_new boolean,
    orders integer,
    replaces_order_id uuid,
    -- It makes a position of its own; the one that it closes first.
    opens boolean,
    closed_position_id uuid,
    -- Of the account before it.
    open_positions bigint,
    equity numeric,
    -- What waits for a venue's answer: orders, and lots of this symbol and side.
    orders_in_flight bigint,
    lots_in_flight numeric
);

-- What was read for the limits that are set, and the first of them that the order breaks.
CREATE TYPE limit_facts AS (
    broken text,
    held numeric,
    order_notional numeric,
    symbol_exposure numeric,
    exposure numeric,
    recent_orders numeric,
    duplicate_age_ms numeric,
    day_ends_at timestamptz,
    trades bigint,
    loss numeric,
    drawdown_percent numeric,
    collar_deviation numeric,
    stop_distance numeric
);
"""
