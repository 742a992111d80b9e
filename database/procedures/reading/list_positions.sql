SET LOCAL ROLE trading_readers;

-- A user's open positions, oldest first, marked at the newest quotes.
CREATE OR REPLACE FUNCTION list_positions(p_user_id uuid, p_account_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    RETURN (
        SELECT coalesce(jsonb_agg(readable_position(p, v.current_price, v.unrealized_pnl) ORDER BY p.id), '[]')
        FROM accounts AS a
        CROSS JOIN LATERAL valued_positions(a.user_id, a.id) AS v
        INNER JOIN positions AS p ON p.user_id = a.user_id AND p.id = v.position_id
        WHERE a.user_id = p_user_id AND (p_account_id IS NULL OR a.id = p_account_id)
    );
END
$$;

-- A page of the user's closed positions, or with p_open of the open ones among them, newest first: {positions: [...],
-- next: id of the last one, or null at the end}. p_before: the `next` of the page before.
CREATE OR REPLACE FUNCTION page_positions(
    p_user_id uuid, p_account_id uuid, p_open boolean, p_before uuid, p_limit integer
) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_rows jsonb;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    -- One more than asked for, to see whether there is a next page.
    SELECT coalesce(jsonb_agg(
        readable_position(o.row, v.current_price, v.unrealized_pnl) ORDER BY (o.row).id DESC
    ), '[]') INTO v_rows
    FROM (
        SELECT p AS row
        FROM positions AS p
        WHERE p.user_id = p_user_id
            AND (p_before IS NULL OR p.id < p_before)
            AND (p_account_id IS NULL OR p.account_id = p_account_id)
            AND (p_open OR p.status = 'closed')
        ORDER BY p.id DESC
        LIMIT p_limit + 1
    ) AS o
    LEFT JOIN (
        SELECT w.position_id, w.current_price, w.unrealized_pnl
        FROM accounts AS a
        CROSS JOIN LATERAL valued_positions(a.user_id, a.id) AS w
        WHERE p_open AND a.user_id = p_user_id
    ) AS v ON v.position_id = (o.row).id;
    IF jsonb_array_length(v_rows) <= p_limit THEN
        RETURN jsonb_build_object('positions', v_rows, 'next', NULL);
    END IF;
    RETURN jsonb_build_object('positions', v_rows - p_limit, 'next', v_rows -> (p_limit - 1) -> 'id');
END
$$;

GRANT EXECUTE ON FUNCTION list_positions(uuid, uuid) TO function_trader;
GRANT EXECUTE ON FUNCTION page_positions(uuid, uuid, boolean, uuid, integer) TO function_trader;
