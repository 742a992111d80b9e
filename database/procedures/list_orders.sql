-- A page of a user's orders, newest first: {orders: [...], next: id of the last one, or null at the end}.
-- p_statuses NULL: all. p_before: the `next` of the page before. The key makes pages stable while orders come in.
CREATE OR REPLACE FUNCTION list_orders(
    p_user_id uuid, p_account_id uuid, p_statuses text[], p_before uuid, p_limit integer
) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_rows jsonb;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    -- One more than asked for, to see whether there is a next page.
    SELECT coalesce(jsonb_agg(readable_order(o.row) ORDER BY (o.row).id DESC), '[]') INTO v_rows
    FROM (
        SELECT o AS row
        FROM orders AS o
        WHERE o.user_id = p_user_id
            AND (p_account_id IS NULL OR o.account_id = p_account_id)
            AND (p_statuses IS NULL OR o.status = ANY (p_statuses))
            AND (p_before IS NULL OR o.id < p_before)
        ORDER BY o.id DESC
        LIMIT p_limit + 1
    ) AS o;
    IF jsonb_array_length(v_rows) <= p_limit THEN
        RETURN jsonb_build_object('orders', v_rows, 'next', NULL);
    END IF;
    RETURN jsonb_build_object('orders', v_rows - p_limit, 'next', v_rows -> (p_limit - 1) -> 'id');
END
$$;

ALTER FUNCTION list_orders(uuid, uuid, text[], uuid, integer) OWNER TO trading_readers;
REVOKE ALL ON FUNCTION list_orders(uuid, uuid, text[], uuid, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION list_orders(uuid, uuid, text[], uuid, integer) TO function_trader;
