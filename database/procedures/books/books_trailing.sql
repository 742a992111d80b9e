SET LOCAL ROLE trading_procedures;

-- I3 of stops that trail: each order that waits for its level has a row that says where that is, and nothing else has
-- one. What was asked for and where it was touched: books_rebuilt_orders.
CREATE OR REPLACE FUNCTION books_trailing() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    SELECT coalesce(o.account_id, t.account_id), coalesce(o.id, t.subject_id)::text,
        CASE WHEN o.id IS NULL THEN 'a level trails for it though it does not wait for one' ELSE 'nothing says where it trails' END
    FROM (SELECT * FROM orders WHERE is_trailing(order_type) AND status = 'new') AS o
    FULL JOIN (SELECT * FROM trailing_levels WHERE kind = 'order') AS t ON o.user_id = t.user_id AND o.id = t.subject_id
    WHERE (o.account_id, o.symbol, o.trigger_watch, o.trail_amount, o.trail_percent) IS DISTINCT FROM
        (t.account_id, t.symbol, t.watch, t.trail_amount, t.trail_percent)
    UNION ALL
    SELECT coalesce(p.account_id, t.account_id), coalesce(p.id, t.subject_id)::text,
        format('its stop trails by %s from %s, the level of the feed by %s at %s', p.trail_distance, p.stop_loss,
            t.trail_amount, t.level)
    FROM (SELECT * FROM positions WHERE trail_distance IS NOT NULL AND status = 'open') AS p
    FULL JOIN (SELECT * FROM trailing_levels WHERE kind = 'position') AS t
        ON p.user_id = t.user_id AND p.id = t.subject_id
    WHERE (p.account_id, p.symbol, p.trail_distance) IS DISTINCT FROM (t.account_id, t.symbol, t.trail_amount)
        OR CASE p.side WHEN 'long' THEN t.level < p.stop_loss ELSE t.level > p.stop_loss END
$$;
