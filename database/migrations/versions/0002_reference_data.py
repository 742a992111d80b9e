"""What is traded, when, and at which quotes."""

from alembic import op

from database.migrations.policies import secure

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE market_calendars (
        name text PRIMARY KEY,
        description text NOT NULL,
        always_open boolean NOT NULL DEFAULT false
    );

    CREATE TABLE market_sessions (
        calendar text NOT NULL REFERENCES market_calendars,
        opens_at timestamptz NOT NULL,
        closes_at timestamptz NOT NULL,
        PRIMARY KEY (calendar, opens_at),
        CHECK (closes_at > opens_at)
    );

    CREATE TABLE instruments (
        symbol text PRIMARY KEY CHECK (symbol ~ '^[A-Z0-9_]{1,20}$'),
        name text NOT NULL,
        asset_class text NOT NULL
        CHECK (asset_class IN ('forex', 'stock', 'etf', 'index', 'commodity', 'crypto', 'bond')),
        base_currency text NOT NULL,
        quote_currency text NOT NULL,
        contract_size numeric NOT NULL CHECK (contract_size > 0),
        quantity_min numeric NOT NULL CHECK (quantity_min > 0),
        quantity_max numeric NOT NULL,
        quantity_step numeric NOT NULL CHECK (quantity_step > 0),
        tick_size numeric NOT NULL CHECK (tick_size > 0),
        leverage numeric NOT NULL CHECK (leverage >= 1),
        maintenance_margin_percent numeric NOT NULL CHECK (maintenance_margin_percent > 0),
        slippage_base numeric NOT NULL CHECK (slippage_base >= 0),
        slippage_min numeric NOT NULL CHECK (slippage_min >= 0),
        slippage_max numeric NOT NULL,
        slippage_volatility_multiplier numeric NOT NULL CHECK (slippage_volatility_multiplier > 0),
        slippage_step numeric NOT NULL CHECK (slippage_step > 0),
        slippage_liquidity_base numeric NOT NULL CHECK (slippage_liquidity_base > 0),
        slippage_after_hours_multiplier numeric NOT NULL CHECK (slippage_after_hours_multiplier >= 1),
        slippage_variation numeric NOT NULL CHECK (slippage_variation >= 0 AND slippage_variation < 1),
        volatility_average numeric NOT NULL CHECK (volatility_average > 0),
        daily_volume numeric NOT NULL CHECK (daily_volume > 0),
        commission_per_unit numeric NOT NULL CHECK (commission_per_unit >= 0),
        commission_min numeric NOT NULL CHECK (commission_min >= 0),
        commission_max numeric NOT NULL,
        quote_age_ms_max integer NOT NULL CHECK (quote_age_ms_max > 0),
        calendar text NOT NULL REFERENCES market_calendars,
        trading_state text NOT NULL DEFAULT 'active' CHECK (trading_state IN ('active', 'reducing', 'halted')),
        is_active boolean NOT NULL DEFAULT true,
        reference_price numeric NOT NULL CHECK (reference_price > 0),
        reference_spread numeric NOT NULL CHECK (reference_spread > 0),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CHECK (quantity_max >= quantity_min),
        CHECK (slippage_max >= slippage_min),
        CHECK (commission_max >= commission_min)
    );

    -- One row a symbol, rewritten several times a second: room in the page keeps the updates off the index.
    CREATE TABLE quotes (
        symbol text PRIMARY KEY REFERENCES instruments,
        bid numeric NOT NULL CHECK (bid > 0 AND bid < 'Infinity'),
        ask numeric NOT NULL CHECK (ask > 0 AND ask < 'Infinity'),
        quoted_at timestamptz NOT NULL,
        received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        source text NOT NULL,
        volatility numeric NOT NULL CHECK (volatility >= 0),
        CHECK (ask >= bid)
    ) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

    CREATE TABLE platform_settings (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        trading_state text NOT NULL DEFAULT 'active' CHECK (trading_state IN ('active', 'reducing', 'halted')),
        trade_always boolean NOT NULL DEFAULT false,
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    INSERT INTO platform_settings DEFAULT VALUES;
    """)
    op.execute(secure("market_calendars", by_user=False, procedures="SELECT"))
    op.execute(secure("market_sessions", by_user=False, procedures="SELECT"))
    op.execute(secure("instruments", by_user=False, procedures="SELECT, UPDATE"))
    op.execute(secure("quotes", by_user=False))
    op.execute(secure("platform_settings", by_user=False, procedures="SELECT, UPDATE"))


def downgrade() -> None:
    op.execute("DROP TABLE platform_settings, quotes, instruments, market_sessions, market_calendars")
