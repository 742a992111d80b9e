-- A user's open positions, oldest first, marked at the newest quotes; P&L in account currency, decimals as text.
CREATE OR REPLACE FUNCTION list_positions(p_user_id uuid, p_account_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'id', p.position_id,
            'account_id', a.id,
            'order_id', p.order_id,
            'symbol', p.symbol,
            'side', p.side,
            'quantity', number_form(p.quantity),
            'entry_price', price_form(p.entry_price, i.tick_size),
            'current_price', price_form(p.current_price, i.tick_size),
            'unrealized_pnl', money_form(p.unrealized_pnl, a.currency),
            'realized_pnl', money_form(p.realized_pnl, a.currency),
            'currency', a.currency,
            'margin_used', money_form(p.margin_used, a.currency),
            'stop_loss', price_form(p.stop_loss, i.tick_size),
            'take_profit', price_form(p.take_profit, i.tick_size),
            'commission_paid', money_form(p.commission_paid, a.currency),
            'created_at', utc_text(p.created_at),
            'updated_at', utc_text(p.updated_at)
        ) ORDER BY p.position_id), '[]')
        FROM accounts AS a
        CROSS JOIN LATERAL valued_positions(a.user_id, a.id) AS p
        INNER JOIN instruments AS i ON i.symbol = p.symbol
        WHERE a.user_id = p_user_id AND (p_account_id IS NULL OR a.id = p_account_id)
    );
END
$$;

ALTER FUNCTION list_positions(uuid, uuid) OWNER TO trading_readers;
REVOKE ALL ON FUNCTION list_positions(uuid, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION list_positions(uuid, uuid) TO function_trader;
