SET LOCAL ROLE trading_readers;

-- An account with its worth now, decimals as text: the named one, else the user's only one (TR001 when there is none).
-- margin_level is percent, NULL while no margin is used. `sequence` is the account's last event.
CREATE OR REPLACE FUNCTION get_account(p_user_id uuid, p_account_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account_id uuid;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    v_account_id := resolve_account(p_user_id, p_account_id);
    RETURN (
        SELECT jsonb_build_object(
            'id', a.id,
            'user_id', a.user_id,
            'currency', a.currency,
            'kind', a.kind,
            'leverage', number_form(a.leverage),
            'position_mode', a.position_mode,
            'trading_state', a.trading_state,
            'sequence', a.last_sequence,
            'balance', money_form(v.balance, a.currency),
            'unrealized_pnl', money_form(v.unrealized_pnl, a.currency),
            'equity', money_form(v.equity, a.currency),
            'margin_used', money_form(v.margin_used, a.currency),
            'hedged_margin_credit', money_form(v.hedged_margin_credit, a.currency),
            'free_margin', money_form(v.free_margin, a.currency),
            'margin_level', round(v.margin_level, 2)::text,
            'open_positions', v.open_positions,
            'created_at', utc_text(a.created_at)
        )
        FROM accounts AS a
        CROSS JOIN LATERAL account_valuation(a.user_id, a.id) AS v
        WHERE a.user_id = p_user_id AND a.id = v_account_id
    );
END
$$;

GRANT EXECUTE ON FUNCTION get_account(uuid, uuid) TO function_trader;
