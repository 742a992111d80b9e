SET LOCAL ROLE trading_procedures;

-- The part of verify_books that rebuilds orders, positions and balances from the audit alone and holds them against the
-- tables.

-- Where a row is not what was rebuilt, field by field. An average of several fills
-- may end in other digits than a sum of them divided once: nothing that is booked is finer than eight places.
-- What the caller wrote in words of their own is not repeated.
CREATE OR REPLACE FUNCTION row_differences(p_row jsonb, p_rebuilt jsonb)
RETURNS TABLE (field text, by_table text, by_audit text)
LANGUAGE sql STABLE AS $$
    SELECT d.field, said.by_table, said.by_audit
    FROM jsonb_object_keys(p_rebuilt) AS d (field)
    CROSS JOIN LATERAL (
        SELECT
            CASE WHEN d.field NOT IN ('metadata', 'execution_instructions') THEN coalesce(p_row ->> d.field, 'none')
                ELSE 'not shown' END AS by_table,
            CASE WHEN d.field NOT IN ('metadata', 'execution_instructions') THEN coalesce(p_rebuilt ->> d.field, 'none')
                ELSE 'not shown' END AS by_audit
    ) AS said
    WHERE CASE
        WHEN jsonb_typeof(p_row -> d.field) = 'number' AND jsonb_typeof(p_rebuilt -> d.field) = 'number'
            THEN abs((p_row ->> d.field)::numeric - (p_rebuilt ->> d.field)::numeric) >= 0.00000001
        ELSE p_row -> d.field IS DISTINCT FROM p_rebuilt -> d.field
    END
    ORDER BY d.field
$$;

-- I3: every order is, column by column, what the audit tells of it.
CREATE OR REPLACE FUNCTION books_rebuilt_orders() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    SELECT coalesce(o.account_id, r.account_id), coalesce(o.id, r.id)::text, 'the audit tells another order: ' || CASE
        WHEN o.id IS NULL THEN 'the table has none'
        WHEN r.id IS NULL THEN 'it has none'
        ELSE d.said
    END
    FROM orders AS o
    FULL JOIN rebuilt_orders() AS r ON o.user_id = r.user_id AND o.id = r.id
    CROSS JOIN LATERAL (
        SELECT string_agg(format('%s is %s, by the audit %s', f.field, f.by_table, f.by_audit), '; ') AS said
        FROM row_differences(to_jsonb(o), to_jsonb(r)) AS f
    ) AS d
    WHERE (
            (o.account_id, o.client_order_id, o.parent_order_id, o.symbol, o.order_type, o.side, o.quantity)
            IS DISTINCT FROM
            (r.account_id, r.client_order_id, r.parent_order_id, r.symbol, r.order_type, r.side, r.quantity)
            OR (o.stop_loss, o.take_profit, o.max_slippage, o.time_in_force, o.reduce_only)
            IS DISTINCT FROM
            (r.stop_loss, r.take_profit, r.max_slippage, r.time_in_force, r.reduce_only)
            OR (o.limit_price, o.stop_price, o.trail_amount, o.trail_percent, o.limit_offset) IS DISTINCT FROM
            (r.limit_price, r.stop_price, r.trail_amount, r.trail_percent, r.limit_offset)
            OR (o.execution_instructions, o.metadata, o.strategy_id, o.signal_id, o.component_name)
            IS DISTINCT FROM
            (r.execution_instructions, r.metadata, r.strategy_id, r.signal_id, r.component_name)
            OR (o.idempotency_key, o.request_id, o.created_at, o.executed_at, o.failure_code, o.failure_reason, o.expires_at)
            IS DISTINCT FROM
            (r.idempotency_key, r.request_id, r.created_at, r.executed_at, r.failure_code, r.failure_reason, r.expires_at)
            OR (o.status, o.filled_quantity, o.leaves_quantity, o.last_price, o.average_price, o.slippage)
            IS DISTINCT FROM
            (r.status, r.filled_quantity, r.leaves_quantity, r.last_price, r.average_price, r.slippage)
            OR (o.canceled_quantity, o.held_quantity) IS DISTINCT FROM (r.canceled_quantity, r.held_quantity)
            OR (o.commission, o.total_cost, o.position_id, o.transaction_id, o.venue_order_id, o.triggered_at) IS DISTINCT FROM
            (r.commission, r.total_cost, r.position_id, r.transaction_id, r.venue_order_id, r.triggered_at)
            OR (o.replaces_order_id, o.conditions, o.active_at, o.display_quantity, o.display_variance, o.post_only)
            IS DISTINCT FROM
            (r.replaces_order_id, r.conditions, r.active_at, r.display_quantity, r.display_variance, r.post_only)
        )
        AND (d.said IS NOT NULL OR o.id IS NULL OR r.id IS NULL)
$$;

-- I2: every position is, column by column, what the audit tells of it.
CREATE OR REPLACE FUNCTION books_rebuilt_positions() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    SELECT coalesce(p.account_id, r.account_id), coalesce(p.id, r.id)::text,
        'the audit tells another position: ' || CASE
            WHEN p.id IS NULL THEN 'the table has none'
            WHEN r.id IS NULL THEN 'it has none'
            ELSE d.said
        END
    FROM positions AS p
    FULL JOIN rebuilt_positions() AS r ON p.user_id = r.user_id AND p.id = r.id
    CROSS JOIN LATERAL (
        SELECT string_agg(format('%s is %s, by the audit %s', f.field, f.by_table, f.by_audit), '; ') AS said
        FROM row_differences(to_jsonb(p), rebuilt_beside(p, to_jsonb(r))) AS f
    ) AS d
    WHERE (
            (p.account_id, p.order_id, p.symbol, p.side, p.quantity, p.opened_quantity, p.entry_price, p.margin_used)
            IS DISTINCT FROM
            (r.account_id, r.order_id, r.symbol, r.side, r.quantity, r.opened_quantity, r.entry_price, r.margin_used)
            OR (p.take_profit, p.trail_distance, p.commission_paid, p.realized_pnl, p.status, p.transaction_id)
            IS DISTINCT FROM
            (r.take_profit, r.trail_distance, r.commission_paid, r.realized_pnl, r.status, r.transaction_id)
            OR (p.trail_distance IS NULL AND p.stop_loss IS DISTINCT FROM r.stop_loss)
            OR (p.created_at, p.closed_at) IS DISTINCT FROM (r.created_at, r.closed_at)
        )
        AND (d.said IS NOT NULL OR p.id IS NULL OR r.id IS NULL)
    UNION ALL
    SELECT p.account_id, p.id::text, format('its stop trails at %s, its mark is %s', p.stop_loss, p.trail_mark)
    FROM positions AS p
    INNER JOIN rebuilt_positions() AS r ON p.user_id = r.user_id AND p.id = r.id
    CROSS JOIN (VALUES ('long', 1), ('short', -1)) AS d (side, sign)
    WHERE p.trail_distance IS NOT NULL AND d.side = p.side AND (
            p.stop_loss <> p.trail_mark - d.sign * p.trail_distance OR (p.stop_loss - r.stop_loss) * d.sign < 0
        )
$$;

-- What of a rebuilt position its row has to be equal to: a stop that trails moves without the audit, but only with its
-- mark, and never back.
CREATE OR REPLACE FUNCTION rebuilt_beside(p_position positions, p_rebuilt jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_position.trail_distance IS NULL THEN p_rebuilt ELSE p_rebuilt - 'stop_loss' END
$$;

-- I2: every movement of money in the audit leaves the balance that it says, and the last one that of the account.
CREATE OR REPLACE FUNCTION books_rebuilt_balances() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    WITH moved AS (
        SELECT
            l.user_id, l.account_id, l.id, (l.details ->> 'balance_after')::numeric AS told,
            sum(coalesce(
                (l.details ->> 'amount')::numeric,
                (l.details ->> 'realized_pnl')::numeric - (l.details ->> 'commission')::numeric
            )) OVER (PARTITION BY l.user_id, l.account_id ORDER BY l.version) AS summed,
            lead(l.id) OVER (PARTITION BY l.user_id, l.account_id ORDER BY l.version) IS NULL AS is_last
        FROM order_audit_log AS l
        WHERE l.details ? 'balance_after'
    )
    SELECT m.account_id, m.id::text,
        format('the audit''s balance after is %s, its movements sum to %s', m.told, m.summed)
    FROM moved AS m
    WHERE m.told IS DISTINCT FROM m.summed
    UNION ALL
    SELECT a.id, 'balance', format('balance is %s, by the audit %s', a.balance, coalesce(m.summed, 0))
    FROM accounts AS a
    LEFT JOIN moved AS m ON a.user_id = m.user_id AND a.id = m.account_id AND m.is_last
    WHERE a.balance <> coalesce(m.summed, 0)
$$;
