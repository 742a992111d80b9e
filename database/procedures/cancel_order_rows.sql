-- Cancels the working orders of an account among p_order_ids (NULL: all of them) and returns them as they are then, in
-- key order. An order that is in flight to a venue (pending_new) is not ours to cancel and stays. The caller holds the
-- account's lock, and writes audit and event.
CREATE OR REPLACE FUNCTION cancel_order_rows(p_account accounts, p_order_ids uuid[], p_at timestamptz)
RETURNS SETOF orders
LANGUAGE sql AS $$
    WITH working AS MATERIALIZED (
        SELECT o.user_id, o.id
        FROM orders AS o
        WHERE o.user_id = p_account.user_id AND o.account_id = p_account.id
            AND o.status IN ('new', 'triggered', 'partially_filled')
            AND (p_order_ids IS NULL OR o.id = ANY (p_order_ids))
        ORDER BY o.id
        FOR NO KEY UPDATE
    ),
    canceled AS (
        UPDATE orders AS o SET status = 'canceled', leaves_quantity = 0, version = o.version + 1, updated_at = p_at
        FROM working AS w
        WHERE o.user_id = w.user_id AND o.id = w.id
        RETURNING o.*
    )
    SELECT * FROM canceled ORDER BY id
$$;

ALTER FUNCTION cancel_order_rows(accounts, uuid[], timestamptz) OWNER TO trading_procedures;
REVOKE ALL ON FUNCTION cancel_order_rows(accounts, uuid[], timestamptz) FROM PUBLIC;
