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
            'quantity', p.quantity::text,
            'entry_price', p.entry_price::text,
            'current_price', p.current_price::text,
            'unrealized_pnl', round_money(p.unrealized_pnl, a.currency)::text,
            'realized_pnl', p.realized_pnl::text,
            'currency', a.currency,
            'margin_used', p.margin_used::text,
            'stop_loss', p.stop_loss::text,
            'take_profit', p.take_profit::text,
            'commission_paid', p.commission_paid::text,
            'created_at', utc_text(p.created_at),
            'updated_at', utc_text(p.updated_at)
        ) ORDER BY p.position_id), '[]')
        FROM accounts AS a
        CROSS JOIN LATERAL valued_positions(a.user_id, a.id) AS p
        WHERE a.user_id = p_user_id AND (p_account_id IS NULL OR a.id = p_account_id)
    );
END
$$;

ALTER FUNCTION list_positions(uuid, uuid) OWNER TO trading_readers;
REVOKE ALL ON FUNCTION list_positions(uuid, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION list_positions(uuid, uuid) TO function_trader;
