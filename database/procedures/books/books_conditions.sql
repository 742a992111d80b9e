SET LOCAL ROLE trading_procedures;

-- I3 of orders with conditions: what quotes look for is what the orders still wait for, an order is held whole as long
-- as it waits for any and not at all after that, and nothing that was held was filled.
CREATE OR REPLACE FUNCTION books_conditions() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    WITH awaited AS (
        SELECT o.user_id, o.id, o.account_id, c.place, c.condition
        FROM orders AS o
        CROSS JOIN LATERAL jsonb_array_elements(o.conditions) WITH ORDINALITY AS c (condition, place)
        WHERE o.status = 'new' AND c.condition ->> 'met_at' IS NULL
    )
    SELECT coalesce(a.account_id, w.account_id), coalesce(a.id, w.order_id)::text, CASE
        WHEN a.id IS NULL THEN 'a quote may meet a condition that it does not wait for'
        ELSE format('no quote meets its condition %s', a.place)
    END
    FROM awaited AS a
    FULL JOIN order_conditions AS w ON a.user_id = w.user_id AND a.id = w.order_id AND a.place = w.place
    WHERE (
            a.account_id, a.condition ->> 'symbol', (a.condition ->> 'level')::numeric,
            (a.condition ->> 'watch')
            || CASE a.condition ->> 'direction' WHEN 'at_or_above' THEN '_rises' ELSE '_falls' END
        ) IS DISTINCT FROM (w.account_id, w.symbol, w.level, w.watch::text)
    UNION ALL
    SELECT o.account_id, o.id::text, format('%s of %s left is held, waiting for conditions: %s',
        o.held_quantity, o.leaves_quantity, awaits_conditions(o.conditions))
    FROM orders AS o
    WHERE o.conditions IS NOT NULL AND o.status = 'new' AND (
            o.held_quantity <> CASE WHEN awaits_conditions(o.conditions) THEN o.leaves_quantity ELSE 0 END
            OR (o.trigger_price IS NULL AND o.active_at IS NULL) <> awaits_conditions(o.conditions)
        )
    UNION ALL
    SELECT o.account_id, o.id::text, format('it became %s before its conditions were met', o.status)
    FROM orders AS o
    WHERE o.conditions IS NOT NULL AND awaits_conditions(o.conditions)
        AND (o.filled_quantity > 0 OR o.status NOT IN ('new', 'canceled', 'expired', 'replaced', 'denied'))
$$;
