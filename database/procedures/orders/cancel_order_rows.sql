SET LOCAL ROLE trading_procedures;

-- Cancels the working orders of an account among p_order_ids and returns them as they are then, in key order. An order
-- that is in flight to a venue (pending_new) is not ours to cancel and stays. The caller holds the account's lock, and
-- writes audit and event.
CREATE OR REPLACE FUNCTION cancel_order_rows(p_account accounts, p_order_ids uuid[], p_at timestamptz)
RETURNS SETOF orders
LANGUAGE sql AS $$
    WITH working AS MATERIALIZED (
        SELECT o.user_id, o.id
        FROM orders AS o
        WHERE o.user_id = p_account.user_id AND o.account_id = p_account.id
            AND o.status IN ('new', 'triggered', 'partially_filled')
            AND o.id = ANY (p_order_ids)
        ORDER BY o.id
        FOR NO KEY UPDATE
    ),
    canceled AS (
        UPDATE orders AS o SET
            status = 'canceled',
            leaves_quantity = 0,
            held_quantity = 0,
            version = o.version + 1,
            updated_at = p_at
        FROM working AS w
        WHERE o.user_id = w.user_id AND o.id = w.id
        RETURNING o.*
    )
    SELECT * FROM canceled ORDER BY id
$$;

-- The same with an audit row each, p_details beside what was filled, chained on the account's row; returns the orders
-- as their event tells them. The caller still has to write the event, on the account as it is then.
CREATE OR REPLACE FUNCTION cancel_audited_orders(
    p_account accounts, p_order_ids uuid[], p_details jsonb, p_reason text, p_at timestamptz, p_pii jsonb
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders;
    v_facts jsonb [] := '{}';
BEGIN
    FOR v_order IN SELECT * FROM cancel_order_rows(p_account, p_order_ids, p_at) LOOP
        p_account.audit_head := append_audit(p_account, v_order.id, ARRAY[ROW(
            'CANCELED', 'canceled', p_details || jsonb_build_object('filled_quantity', v_order.filled_quantity),
            p_reason, NULL
        )::audit_entry], p_at, p_pii);
        p_account.audit_version := p_account.audit_version + 1;
        v_facts := v_facts || (
            order_fact(v_order) || jsonb_build_object('created_at', utc_text(v_order.created_at))
        );
    END LOOP;
    IF v_facts <> '{}' THEN
        UPDATE accounts SET
            audit_version = p_account.audit_version,
            audit_head = p_account.audit_head,
            updated_at = p_at
        WHERE user_id = p_account.user_id AND id = p_account.id;
    END IF;
    RETURN to_jsonb(v_facts);
END
$$;

-- The working orders of an account, or of p_symbol alone, that are canceled before positions are closed: all but those
-- that are at a venue to close one.
CREATE OR REPLACE FUNCTION orders_to_call_off(p_account accounts, p_symbol text) RETURNS uuid[]
LANGUAGE sql STABLE AS $$
    SELECT ARRAY(
        SELECT o.id FROM orders AS o
        WHERE o.user_id = p_account.user_id AND o.account_id = p_account.id
            AND o.status IN ('new', 'triggered', 'partially_filled')
            AND (p_symbol IS NULL OR o.symbol = p_symbol)
            AND NOT EXISTS (
                SELECT FROM venue_routes AS r
                WHERE r.user_id = o.user_id AND r.order_id = o.id AND r.closes_position_id IS NOT NULL
            )
        ORDER BY o.id
    )
$$;
