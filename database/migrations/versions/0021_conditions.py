"""Orders that are held until prices have come to where their conditions say."""

from alembic import op

from database.migrations.policies import secure

revision = "0021"
down_revision = "0020"

KINDS = "'order', 'stop_loss', 'take_profit', 'expiry', 'trailing_stop'"


def upgrade() -> None:
    op.execute(f"""
    -- The conditions that orders still wait for, so that what a quote has to look at is what waits: one that is met, or
    -- whose order has ended, has no row. All of an order's stand in its `conditions`, with when they were met.
    CREATE TABLE order_conditions (
        user_id uuid NOT NULL,
        -- The subject of its row in trigger_queue: one quote may meet several conditions of one order.
        id uuid NOT NULL DEFAULT uuidv7(),
        account_id uuid NOT NULL,
        order_id uuid NOT NULL,
        -- Where it stands in the order's `conditions`, from 1.
        place integer NOT NULL CHECK (place > 0),
        symbol text NOT NULL REFERENCES instruments,
        watch price_watch NOT NULL,
        level positive_number NOT NULL,
        PRIMARY KEY (user_id, id),
        UNIQUE (user_id, order_id, place),
        FOREIGN KEY (user_id, order_id) REFERENCES orders (user_id, id)
    );
    CREATE INDEX order_conditions_touched ON order_conditions (symbol, watch, level);

    CREATE FUNCTION end_conditions() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM order_conditions WHERE user_id = OLD.user_id AND order_id = OLD.id;
        RETURN NULL;
    END
    $$;
    -- Whatever ends it, in the transaction that does.
    CREATE TRIGGER conditions_end AFTER UPDATE OF status ON orders FOR EACH ROW
    WHEN (OLD.status = 'new' AND NEW.status <> 'new' AND OLD.conditions IS NOT NULL)
    EXECUTE FUNCTION end_conditions();

    ALTER TABLE trigger_queue DROP CONSTRAINT trigger_queue_kind_check,
    ADD CONSTRAINT trigger_queue_kind_check CHECK (kind IN ({KINDS}, 'condition'));
    """)
    op.execute(secure("order_conditions", by_user=True, procedures="SELECT, INSERT, DELETE"))


def downgrade() -> None:
    op.execute(f"""
    DELETE FROM trigger_queue WHERE kind = 'condition';
    ALTER TABLE trigger_queue DROP CONSTRAINT trigger_queue_kind_check,
    ADD CONSTRAINT trigger_queue_kind_check CHECK (kind IN ({KINDS}));
    DROP TRIGGER conditions_end ON orders;
    DROP FUNCTION end_conditions();
    DROP TABLE order_conditions;
    """)
