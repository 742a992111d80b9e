SET LOCAL ROLE trading_readers;

-- A page of an account's ledger, newest first: {entries: [...], next: the entry_number of the last one, or null at the
-- end}; amounts are signed, decimals as text. The named account, else the user's only one (TR001 when there is none).
-- p_before: the `next` of the page before.
CREATE OR REPLACE FUNCTION list_ledger_entries(
    p_user_id uuid, p_account_id uuid, p_before bigint, p_limit integer
) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account_id uuid;
    v_rows jsonb;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    v_account_id := resolve_account(p_user_id, p_account_id);
    -- One more than asked for, to see whether there is a next page.
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'id', e.id,
        'account_id', e.account_id,
        'entry_number', e.entry_number,
        'entry_type', e.entry_type,
        'amount', money_form(e.amount, e.currency),
        'balance', money_form(e.balance_after, e.currency),
        'currency', e.currency,
        'reason', e.reason,
        'order_id', e.order_id,
        'position_id', e.position_id,
        'created_at', utc_text(e.created_at)
    ) ORDER BY e.entry_number DESC), '[]') INTO v_rows
    FROM (
        SELECT * FROM ledger_entries AS l
        WHERE l.user_id = p_user_id AND l.account_id = v_account_id
            AND (p_before IS NULL OR l.entry_number < p_before)
        ORDER BY l.entry_number DESC
        LIMIT p_limit + 1
    ) AS e;
    IF jsonb_array_length(v_rows) <= p_limit THEN
        RETURN jsonb_build_object('entries', v_rows, 'next', NULL);
    END IF;
    RETURN jsonb_build_object('entries', v_rows - p_limit, 'next', v_rows -> (p_limit - 1) -> 'entry_number');
END
$$;

GRANT EXECUTE ON FUNCTION list_ledger_entries(uuid, uuid, bigint, integer) TO function_trader, function_operator;
