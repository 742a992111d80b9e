-- I3 of stops that trail: each order that waits for its level has a row that says where that is, and nothing else has
-- one; what is asked for is what the audit tells, and what was triggered was at the level that the audit tells.
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
    UNION ALL
    SELECT o.account_id, o.id::text, 'the audit tells another trail'
    FROM orders AS o
    LEFT JOIN order_audit_log AS l ON o.user_id = l.user_id AND o.id = l.order_id AND l.action = 'SUBMITTED'
    WHERE is_trailing(o.order_type) AND (o.trail_amount, o.trail_percent, o.limit_offset) IS DISTINCT FROM (
            (l.details ->> 'trail_amount')::numeric, (l.details ->> 'trail_percent')::numeric,
            (l.details ->> 'limit_offset')::numeric
        )
    UNION ALL
    SELECT o.account_id, o.id::text, format('its level is %s, the audit tells %s', o.stop_price, l.details ->> 'level')
    FROM orders AS o
    INNER JOIN order_audit_log AS l ON o.user_id = l.user_id AND o.id = l.order_id AND l.details ? 'level'
    WHERE is_trailing(o.order_type) AND (
            o.stop_price IS DISTINCT FROM (l.details ->> 'level')::numeric
            OR o.limit_price IS DISTINCT FROM limit_of_level(
                CASE o.side WHEN 'buy' THEN 'ask_rises' ELSE 'bid_falls' END, o.stop_price, o.limit_offset
            )
        )
$$;

ALTER FUNCTION books_trailing() OWNER TO trading_procedures;
REVOKE ALL ON FUNCTION books_trailing() FROM PUBLIC;
