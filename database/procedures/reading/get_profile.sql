SET LOCAL ROLE trading_readers;

-- A user with their accounts and limits, decimals as text; NULL when there is no such user. A limit that is null does
-- not bind; sizes are lots of one symbol, the loss is in account currency. The threshold, in percent, is the account's
-- own or its profile's; null where that has no margin call.
CREATE OR REPLACE FUNCTION get_profile(p_user_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    RETURN (
        SELECT jsonb_build_object(
            'id', u.id,
            'email', u.email,
            'kyc_status', u.kyc_status,
            'account_status', u.account_status,
            'account_tier', u.account_tier,
            'created_at', utc_text(u.created_at),
            'accounts', (
                SELECT coalesce(jsonb_agg(jsonb_build_object(
                    'id', a.id,
                    'currency', a.currency,
                    'kind', a.kind,
                    'leverage', number_form(a.leverage),
                    'position_mode', a.position_mode,
                    'trading_state', a.trading_state,
                    'margin_profile', t.profile,
                    'limits', CASE WHEN r.user_id IS NOT NULL THEN jsonb_build_object(
                        'max_position_size', number_form(r.max_position_size),
                        'max_positions', r.max_positions,
                        'max_working_orders', r.max_working_orders,
                        'daily_trade_limit', r.daily_trade_limit,
                        'max_daily_loss', money_form(r.max_daily_loss, a.currency),
                        'margin_call_threshold', number_form(t.call_threshold)
                    ) END
                ) ORDER BY a.id), '[]')
                FROM accounts AS a
                INNER JOIN margin_terms(NULL) AS t ON t.user_id = a.user_id AND t.account_id = a.id
                LEFT JOIN effective_limits AS r ON r.user_id = a.user_id AND r.account_id = a.id
                WHERE a.user_id = u.id
            )
        )
        FROM profiles AS u
        WHERE u.id = p_user_id
    );
END
$$;

GRANT EXECUTE ON FUNCTION get_profile(uuid) TO function_trader;
