SET LOCAL ROLE trading_readers;

-- An order as its owner reads it: words of the inside, decimals as text, times in UTC.
CREATE OR REPLACE FUNCTION readable_order(p_order orders) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'id', p_order.id,
        'user_id', p_order.user_id,
        'account_id', p_order.account_id,
        'client_order_id', p_order.client_order_id,
        'symbol', p_order.symbol,
        'order_type', p_order.order_type,
        'side', p_order.side,
        'quantity', number_form(p_order.quantity),
        'limit_price', price_form(p_order.limit_price, i.tick_size),
        'stop_price', price_form(p_order.stop_price, i.tick_size),
        'stop_loss', price_form(p_order.stop_loss, i.tick_size),
        'take_profit', price_form(p_order.take_profit, i.tick_size),
        'time_in_force', p_order.time_in_force,
        'expires_at', utc_text(p_order.expires_at),
        'status', p_order.status,
        'filled_quantity', number_form(p_order.filled_quantity),
        'leaves_quantity', number_form(p_order.leaves_quantity)
    ) || jsonb_build_object(
        'average_price', price_form(p_order.average_price, i.tick_size),
        'slippage', number_form(p_order.slippage),
        'commission', money_form(p_order.commission, a.currency),
        'total_cost', money_form(p_order.total_cost, a.currency),
        'position_id', p_order.position_id,
        'transaction_id', p_order.transaction_id,
        'contingency', p_order.contingency,
        'linked_order_ids', p_order.linked_order_ids,
        'held_quantity', number_form(p_order.held_quantity),
        'failure_code', p_order.failure_code,
        'failure_reason', p_order.failure_reason,
        'replaces_order_id', p_order.replaces_order_id,
        'version', p_order.version,
        'created_at', utc_text(p_order.created_at),
        'updated_at', utc_text(p_order.updated_at),
        'executed_at', utc_text(p_order.executed_at),
        'display_quantity', number_form(p_order.display_quantity),
        'display_variance', number_form(p_order.display_variance),
        'post_only', p_order.post_only,
        'active_at', utc_text(p_order.active_at),
        'conditions', CASE WHEN p_order.conditions IS NOT NULL THEN readable_conditions(p_order.conditions) END
    ) || readable_trail(p_order, i.tick_size)
    FROM accounts AS a
    CROSS JOIN instruments AS i
    WHERE a.user_id = p_order.user_id AND a.id = p_order.account_id AND i.symbol = p_order.symbol
$$;

-- A refused change shows the order as it is.
GRANT EXECUTE ON FUNCTION readable_order(orders) TO trading_procedures;
