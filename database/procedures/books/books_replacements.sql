SET LOCAL ROLE trading_procedures;

-- I3 of orders that took another one's place: the old one ended by nothing else, both are of one account and for one
-- thing, one event tells both, and the audit of the old one names the new. The other way round: books_rebuilt_orders.
CREATE OR REPLACE FUNCTION books_replacements() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    WITH replacing AS (
        SELECT * FROM orders WHERE replaces_order_id IS NOT NULL AND status <> 'denied'
    )
    SELECT o.account_id, o.id::text, format('its state is %s, %s orders take its place', o.status, count(n.id))
    FROM orders AS o
    LEFT JOIN replacing AS n ON o.user_id = n.user_id AND o.id = n.replaces_order_id
    GROUP BY o.user_id, o.id
    HAVING count(n.id) <> CASE o.status WHEN 'replaced' THEN 1 ELSE 0 END
    UNION ALL
    SELECT n.account_id, n.id::text, 'it replaces an order of another kind'
    FROM orders AS n
    INNER JOIN orders AS o ON n.user_id = o.user_id AND n.replaces_order_id = o.id
    WHERE (n.account_id, n.symbol, n.side, n.order_type) <> (o.account_id, o.symbol, o.side, o.order_type)
        OR n.created_at < o.created_at
    UNION ALL
    SELECT n.account_id, n.id::text, 'no event tells that it replaces the other'
    FROM replacing AS n
    LEFT JOIN events AS v
        ON n.user_id = v.user_id AND n.account_id = v.account_id AND v.event_type = 'order.replaced'
        AND v.created_at = n.created_at AND v.payload @> jsonb_build_object('orders', jsonb_build_array(
            jsonb_build_object('order_id', n.replaces_order_id, 'status', 'replaced'),
            jsonb_build_object('order_id', n.id, 'replaces_order_id', n.replaces_order_id)
        ))
    WHERE v.id IS NULL
    UNION ALL
    SELECT coalesce(n.account_id, l.account_id), coalesce(n.id::text, l.details ->> 'replaced_by'),
        'the audit of what it replaces tells otherwise'
    FROM replacing AS n
    FULL JOIN (SELECT * FROM order_audit_log WHERE action = 'REPLACED') AS l
        ON n.user_id = l.user_id AND n.id = (l.details ->> 'replaced_by')::uuid
    WHERE n.replaces_order_id IS DISTINCT FROM l.order_id
$$;
