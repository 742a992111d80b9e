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
        'quantity', p_order.quantity::text,
        'limit_price', p_order.limit_price::text,
        'stop_price', p_order.stop_price::text,
        'stop_loss', p_order.stop_loss::text,
        'take_profit', p_order.take_profit::text,
        'time_in_force', p_order.time_in_force,
        'status', p_order.status,
        'filled_quantity', p_order.filled_quantity::text,
        'leaves_quantity', p_order.leaves_quantity::text
    ) || jsonb_build_object(
        'average_price', p_order.average_price::text,
        'slippage', p_order.slippage::text,
        'commission', p_order.commission::text,
        'total_cost', p_order.total_cost::text,
        'position_id', p_order.position_id,
        'transaction_id', p_order.transaction_id,
        'failure_code', p_order.failure_code,
        'failure_reason', p_order.failure_reason,
        'created_at', utc_text(p_order.created_at),
        'updated_at', utc_text(p_order.updated_at),
        'executed_at', utc_text(p_order.executed_at)
    )
$$;

ALTER FUNCTION readable_order(orders) OWNER TO trading_readers;
REVOKE ALL ON FUNCTION readable_order(orders) FROM PUBLIC;
