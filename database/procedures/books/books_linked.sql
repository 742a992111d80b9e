SET LOCAL ROLE trading_procedures;

-- I3 of orders that depend on each other: what is held is what the parent has not filled yet, what one of two has
-- filled the other may not fill again, only what is workable waits for a price, an exit works for a position that is
-- open, and the orders that a group's answer names are there.
CREATE OR REPLACE FUNCTION books_linked() RETURNS TABLE (account_id uuid, subject text, problem text)
LANGUAGE sql STABLE AS $$
    SELECT o.account_id, o.id::text, format('holds %s, its parent is %s with %s of %s filled',
        o.held_quantity, p.status, p.filled_quantity, p.quantity)
    FROM orders AS o
    INNER JOIN orders AS p ON o.user_id = p.user_id AND o.parent_order_id = p.id
    WHERE o.contingency IN ('oto_child', 'bracket_exit') AND o.status IN ('new', 'triggered', 'partially_filled')
        AND o.held_quantity <> CASE
            WHEN p.status IN ('new', 'triggered', 'partially_filled') THEN o.quantity - released_quantity(p, o)
            ELSE 0
        END
    UNION ALL
    SELECT o.account_id, o.id::text, 'more was filled than its parent has released'
    FROM orders AS o
    INNER JOIN orders AS p ON o.user_id = p.user_id AND o.parent_order_id = p.id
    WHERE o.contingency IN ('oto_child', 'bracket_exit') AND o.filled_quantity > released_quantity(p, o)
    UNION ALL
    SELECT o.account_id, o.id::text, format('%s filled, %s of its linked order', o.filled_quantity, l.filled_quantity)
    FROM orders AS o
    INNER JOIN orders AS l ON o.user_id = l.user_id AND l.id = ANY (o.linked_order_ids)
    WHERE o.contingency IN ('oco', 'bracket_exit') AND (
        o.filled_quantity + l.filled_quantity > o.quantity
        OR o.status IN ('new', 'triggered', 'partially_filled') AND o.canceled_quantity < l.filled_quantity
        OR NOT l.linked_order_ids @> ARRAY[o.id]
    )
    UNION ALL
    SELECT o.account_id, o.id::text, format('%s of %s left is held, and it waits for %s',
        o.held_quantity, o.leaves_quantity, coalesce(o.trigger_price::text, 'no price'))
    FROM orders AS o
    WHERE o.contingency IS NOT NULL AND (
        o.held_quantity > o.leaves_quantity
        OR o.status IN ('new', 'triggered', 'partially_filled') AND o.order_type <> 'market'
        AND o.active_at IS NULL
        AND (o.trigger_price IS NULL) <> (o.held_quantity = o.leaves_quantity)
    )
    UNION ALL
    SELECT o.account_id, o.id::text, format('is to close %s of a position that is not open', workable_quantity(o))
    FROM orders AS o
    INNER JOIN orders AS e ON o.user_id = e.user_id AND o.parent_order_id = e.id
    WHERE o.contingency = 'bracket_exit' AND o.status IN ('new', 'triggered', 'partially_filled')
        AND workable_quantity(o) > 0 AND NOT EXISTS (
            SELECT FROM positions AS p WHERE p.user_id = e.user_id AND p.id = e.position_id AND p.status = 'open'
        )
    UNION ALL
    SELECT k.account_id, k.idempotency_key, 'the answer names an order of a group that is not there'
    FROM idempotency_keys AS k
    CROSS JOIN LATERAL jsonb_array_elements(k.answer -> 'orders') AS x (fact)
    LEFT JOIN orders AS o ON k.user_id = o.user_id AND (x.fact ->> 'order_id')::uuid = o.id
    WHERE k.answer ->> 'outcome' = 'placed' AND o.contingency IS NULL
$$;
