"""Stops that trail the market, orders that show only a part of themselves, that only rest, and that wait for a time."""

from alembic import op

from database.migrations.policies import secure

revision = "0017"
down_revision = "0016"

TYPES_BEFORE = "'market', 'limit', 'stop', 'stop_limit', 'market_if_touched', 'limit_if_touched'"
TRAILING = "'trailing_stop', 'trailing_stop_limit'"
PRICES_BEFORE = """
    (order_type IN ('limit', 'stop_limit', 'limit_if_touched')) = (limit_price IS NOT NULL)
    AND (order_type IN ('stop', 'stop_limit', 'market_if_touched', 'limit_if_touched')) = (stop_price IS NOT NULL)
"""
# A trailing order gets its stop price, and from it its limit, from the level at which it triggers.
PRICES = f"""
    CASE order_type
        WHEN 'trailing_stop' THEN limit_price IS NULL
        WHEN 'trailing_stop_limit' THEN (limit_price IS NULL) = (stop_price IS NULL)
        ELSE {PRICES_BEFORE}
    END
    AND num_nonnulls(trail_amount, trail_percent) = CASE WHEN order_type IN ({TRAILING}) THEN 1 ELSE 0 END
    AND (order_type = 'trailing_stop_limit') = (limit_offset IS NOT NULL)
    AND (display_quantity IS NULL OR (order_type = 'limit' AND display_quantity <= quantity))
    AND (NOT post_only OR order_type = 'limit')
    AND (display_variance IS NULL OR (display_quantity IS NOT NULL AND display_variance <= 1))
"""
KINDS = "'order', 'stop_loss', 'take_profit', 'expiry'"


def upgrade() -> None:
    op.execute("""
    ALTER TABLE orders ADD COLUMN trail_amount positive_number, ADD COLUMN trail_percent positive_number,
    ADD COLUMN limit_offset unsigned_number, ADD COLUMN display_variance unsigned_number,
    ADD COLUMN post_only boolean NOT NULL DEFAULT false, ADD COLUMN active_at timestamptz;
    -- What waits for its time, not for a price.
    CREATE INDEX orders_timed ON orders (symbol, active_at)
    WHERE active_at IS NOT NULL AND status IN ('new', 'triggered', 'partially_filled');
    """)
    _order_types(f"{TYPES_BEFORE}, {TRAILING}", PRICES)
    op.execute(f"""
    ALTER TABLE trigger_queue DROP CONSTRAINT trigger_queue_kind_check,
    ADD CONSTRAINT trigger_queue_kind_check CHECK (kind IN ({KINDS}, 'trailing_stop'));

    -- Where each stop that trails stands. The feed moves mark and level, so they are no columns of the order or the
    -- position, which only a transaction of the account may write.
    CREATE TABLE trailing_levels (
        user_id uuid NOT NULL,
        -- The order, or the position, that it belongs to.
        subject_id uuid NOT NULL,
        account_id uuid NOT NULL,
        kind text NOT NULL CHECK (kind IN ('order', 'position')),
        symbol text NOT NULL REFERENCES instruments,
        watch price_watch NOT NULL CHECK (watch IN ('bid_falls', 'ask_rises')),
        trail_amount positive_number,
        trail_percent positive_number,
        -- The best price since it was set: the highest bid, or the lowest ask.
        mark positive_number NOT NULL,
        level positive_number NOT NULL,
        PRIMARY KEY (user_id, subject_id),
        CHECK (num_nonnulls(trail_amount, trail_percent) = 1)
    ) WITH (fillfactor = 70);
    CREATE INDEX trailing_levels_beaten ON trailing_levels (symbol, watch, mark);
    CREATE INDEX trailing_levels_touched ON trailing_levels (symbol, watch, level);

    CREATE FUNCTION end_trailing() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM trailing_levels WHERE user_id = OLD.user_id AND subject_id = OLD.id;
        RETURN NULL;
    END
    $$;
    -- Whatever ends or triggers it, in the transaction that does.
    CREATE TRIGGER trailing_ends AFTER UPDATE OF status ON orders FOR EACH ROW
    WHEN (OLD.status = 'new' AND NEW.status <> 'new' AND NEW.order_type IN ({TRAILING}))
    EXECUTE FUNCTION end_trailing();
    CREATE TRIGGER trailing_ends AFTER UPDATE OF status ON positions FOR EACH ROW
    WHEN (OLD.status = 'open' AND NEW.status <> 'open') EXECUTE FUNCTION end_trailing();
    """)
    op.execute(secure("trailing_levels", by_user=True, procedures="SELECT, INSERT, UPDATE, DELETE"))


def downgrade() -> None:
    op.execute(f"""
    DROP TRIGGER trailing_ends ON positions;
    DROP TRIGGER trailing_ends ON orders;
    DROP FUNCTION end_trailing();
    DROP TABLE trailing_levels;
    ALTER TABLE trigger_queue DROP CONSTRAINT trigger_queue_kind_check,
    ADD CONSTRAINT trigger_queue_kind_check CHECK (kind IN ({KINDS}));
    """)
    _order_types(TYPES_BEFORE, PRICES_BEFORE)
    op.execute("""
    ALTER TABLE orders DROP COLUMN active_at, DROP COLUMN post_only, DROP COLUMN display_variance,
    DROP COLUMN limit_offset, DROP COLUMN trail_percent, DROP COLUMN trail_amount;
    """)


def _order_types(types: str, prices: str) -> None:
    op.execute(f"""
    ALTER DOMAIN order_type DROP CONSTRAINT order_type_check;
    ALTER DOMAIN order_type ADD CONSTRAINT order_type_check CHECK (VALUE IN ({types}));
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
