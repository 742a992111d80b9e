"""Orders that live: what each one waits for, and the queue of what a price has touched."""

from alembic import op

from database.migrations.policies import secure
from database.migrations.roles import create_role, limit_role

revision = "0014"
down_revision = "0013"

ROLE = "function_triggers"
LIMITS_MS = {"statement_timeout": 5000, "lock_timeout": 4000}
# As the role of orders, and for its reason: look-ups by key, planned once, whatever the tables held then.
PLANNING = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}

TYPES = "('market', 'limit', 'stop', 'stop_limit', 'market_if_touched', 'limit_if_touched')"
TYPES_BEFORE = "('market', 'limit', 'stop', 'stop_limit')"
PRICES = """
    (order_type IN ('limit', 'stop_limit', 'limit_if_touched')) = (limit_price IS NOT NULL)
    AND (order_type IN ('stop', 'stop_limit', 'market_if_touched', 'limit_if_touched')) = (stop_price IS NOT NULL)
"""
PRICES_BEFORE = """
    (order_type IN ('limit', 'stop_limit')) = (limit_price IS NOT NULL)
    AND (order_type IN ('stop', 'stop_limit')) = (stop_price IS NOT NULL)
"""
WORKING = "('new', 'triggered', 'partially_filled')"


def upgrade() -> None:
    op.execute(create_role(ROLE, "LOGIN"))
    op.execute(limit_role(ROLE, LIMITS_MS))
    op.execute(f"GRANT USAGE ON SCHEMA public TO {ROLE}")
    for name, value in PLANNING.items():
        op.execute(f"ALTER ROLE {ROLE} SET {name} = {value}")
    _order_types(TYPES, PRICES)
    op.execute(f"""
    CREATE DOMAIN price_watch AS text CHECK (VALUE IN ('ask_rises', 'ask_falls', 'bid_rises', 'bid_falls'));

    -- What a working order waits for: a side of the quote that comes to trigger_price from below (rises) or above.
    ALTER TABLE orders ADD COLUMN trigger_watch price_watch, ADD COLUMN trigger_price positive_number,
    ADD COLUMN triggered_at timestamptz;
    UPDATE orders SET
        trigger_watch = CASE WHEN order_type = 'limit'
            THEN CASE side WHEN 'buy' THEN 'ask_falls' ELSE 'bid_rises' END
            ELSE CASE side WHEN 'buy' THEN 'ask_rises' ELSE 'bid_falls' END
        END,
        trigger_price = coalesce(stop_price, limit_price)
    WHERE status IN {WORKING} AND order_type <> 'market';
    CREATE INDEX orders_touched ON orders (symbol, trigger_watch, trigger_price)
    WHERE trigger_price IS NOT NULL AND status IN {WORKING};
    CREATE INDEX orders_expiring ON orders (expires_at)
    WHERE expires_at IS NOT NULL AND status IN {WORKING};
    CREATE INDEX positions_stop_loss ON positions (symbol, side, stop_loss)
    WHERE stop_loss IS NOT NULL AND status = 'open';
    CREATE INDEX positions_take_profit ON positions (symbol, side, take_profit)
    WHERE take_profit IS NOT NULL AND status = 'open';

    -- A quote of a batch, judged: reason says why it is refused; place counts the quotes of its symbol by time.
    CREATE TYPE offered_quote AS (
        symbol text,
        bid numeric,
        ask numeric,
        quoted_at timestamptz,
        volatility_average numeric,
        reason text,
        place integer
    );
    ALTER TYPE order_fill ADD ATTRIBUTE free_margin numeric;
    """)
    op.execute("""
    -- What a price has touched and nobody has executed yet, with the quote that touched it. A row outlives a crash:
    -- it goes in the transaction that executes it.
    CREATE TABLE trigger_queue (
        user_id uuid NOT NULL,
        -- The order, or the position whose stop loss or take profit it is.
        subject_id uuid NOT NULL,
        account_id uuid NOT NULL,
        kind text NOT NULL CHECK (kind IN ('order', 'stop_loss', 'take_profit', 'expiry')),
        bid positive_number,
        ask positive_number,
        quoted_at timestamptz NOT NULL,
        source text,
        touched_at timestamptz NOT NULL,
        attempts integer NOT NULL DEFAULT 0,
        lease_holder uuid,
        -- Grows with each lease: who comes back late with an older one executes nothing.
        lease_fencing bigint NOT NULL DEFAULT 0,
        lease_expires_at timestamptz,
        PRIMARY KEY (user_id, subject_id),
        CHECK (kind = 'expiry' OR (bid IS NOT NULL AND ask IS NOT NULL))
    ) WITH (fillfactor = 70);
    CREATE INDEX trigger_queue_due ON trigger_queue (touched_at);
    """)
    op.execute(secure("trigger_queue", by_user=True, procedures="SELECT, INSERT, UPDATE, DELETE"))


def downgrade() -> None:
    op.execute(f"""
    DROP TABLE trigger_queue;
    ALTER TYPE order_fill DROP ATTRIBUTE free_margin;
    DROP TYPE offered_quote CASCADE;
    DROP INDEX positions_take_profit, positions_stop_loss, orders_expiring, orders_touched;
    ALTER TABLE orders DROP COLUMN triggered_at, DROP COLUMN trigger_price, DROP COLUMN trigger_watch;
    DROP DOMAIN price_watch;
    REVOKE ALL ON SCHEMA public FROM {ROLE};
    """)
    _order_types(TYPES_BEFORE, PRICES_BEFORE)


def _order_types(types: str, prices: str) -> None:
    op.execute(f"""
    ALTER DOMAIN order_type DROP CONSTRAINT order_type_check;
    ALTER DOMAIN order_type ADD CONSTRAINT order_type_check CHECK (VALUE IN {types});
    ALTER TABLE orders DROP CONSTRAINT valid_prices_and_outcome;
    ALTER TABLE orders ADD CONSTRAINT valid_prices_and_outcome CHECK (
        {prices}
        AND filled_quantity <= quantity
        AND CASE status
            WHEN 'filled' THEN filled_quantity = quantity AND leaves_quantity = 0
                AND average_price IS NOT NULL AND executed_at IS NOT NULL
            WHEN 'denied' THEN failure_code IS NOT NULL
            WHEN 'rejected' THEN failure_code IS NOT NULL
            ELSE true
        END
    );
    """)
