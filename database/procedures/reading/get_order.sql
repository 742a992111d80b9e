SET LOCAL ROLE trading_readers;

-- One order of a user with the rest of what was asked for and its fills in their order; NULL when the user has no such
-- order.
CREATE OR REPLACE FUNCTION get_order(p_user_id uuid, p_order_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    RETURN (
        SELECT readable_order(o) || jsonb_build_object(
            'parent_order_id', o.parent_order_id,
            'max_slippage', number_form(o.max_slippage),
            'reduce_only', o.reduce_only,
            'execution_instructions', o.execution_instructions,
            'strategy_id', o.strategy_id,
            'signal_id', o.signal_id,
            'component_name', o.component_name,
            'metadata', o.metadata
        ) || jsonb_build_object('fills', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'id', f.id,
                'order_id', f.order_id,
                'position_id', f.position_id,
                'side', f.side,
                'quantity', number_form(f.quantity),
                'price', price_form(f.price, i.tick_size),
                'commission', money_form(f.commission, a.currency),
                'realized_pnl', money_form(f.realized_pnl, a.currency),
                'venue', f.venue,
                'trade_id', f.trade_id,
                'transact_time', utc_text(f.transact_time)
            ) ORDER BY f.transact_time, f.id), '[]')
            FROM fills AS f
            INNER JOIN instruments AS i ON i.symbol = f.symbol
            INNER JOIN accounts AS a ON a.user_id = f.user_id AND a.id = f.account_id
            WHERE f.user_id = o.user_id AND f.order_id = o.id
        ))
        FROM orders AS o
        WHERE o.user_id = p_user_id AND o.id = p_order_id
    );
END
$$;

GRANT EXECUTE ON FUNCTION get_order(uuid, uuid) TO function_trader;
