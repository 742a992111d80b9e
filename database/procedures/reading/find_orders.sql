SET LOCAL ROLE trading_readers;

-- A page of a user's orders, newest first: {orders: [...], next: id of the last one, or null at the end}.
-- Each filter that is NULL does not narrow; p_from <= created_at < p_to. p_before: the `next` of the page before. The
-- key makes pages stable while orders come in.
--
-- Times and the caller's own id become bounds on the key, which the index finds: an id begins with the time at which
-- the order's transaction made it, moments after created_at, and created_at decides.
CREATE OR REPLACE FUNCTION find_orders(
    p_user_id uuid, p_account_id uuid, p_statuses text[], p_symbol text, p_side text, p_order_type text,
    p_from timestamptz, p_to timestamptz, p_client_order_id text, p_before uuid, p_limit integer
) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    c_apart_max CONSTANT interval := '1 minute';
    -- No id is older than the epoch that it counts from.
    c_epoch CONSTANT timestamptz := '1970-01-01T00:01:00Z';
    c_last CONSTANT timestamptz := '9999-12-31T00:00:00Z';
    v_lowest uuid := uuidv7_floor(greatest(coalesce(p_from, c_epoch), c_epoch) - c_apart_max);
    v_highest uuid := uuidv7_floor(greatest(coalesce(p_to, c_last), c_epoch) + c_apart_max);
    v_among uuid [];
    v_rows jsonb;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    IF p_client_order_id IS NOT NULL THEN
        -- One in each account at most.
        SELECT coalesce(array_agg(c.order_id ORDER BY c.order_id), '{}') INTO v_among
        FROM accounts AS a
        INNER JOIN client_order_ids AS c
            ON c.user_id = a.user_id AND c.account_id = a.id AND c.client_order_id = p_client_order_id
        WHERE a.user_id = p_user_id;
    ELSIF p_statuses <@ ARRAY['pending_new', 'new', 'triggered', 'partially_filled'] THEN
        -- Few beside those that are closed, and written out so that their own index serves.
        SELECT coalesce(array_agg(o.id ORDER BY o.id), '{}') INTO v_among
        FROM orders AS o
        WHERE o.user_id = p_user_id AND o.status IN ('pending_new', 'new', 'triggered', 'partially_filled');
    END IF;
    IF v_among = '{}' THEN
        RETURN jsonb_build_object('orders', '[]'::jsonb, 'next', NULL);
    END IF;
    -- v_among is NULL where all orders are looked through; greatest and least pass that over.
    v_lowest := greatest(v_lowest, v_among[1]);
    v_highest := least(v_highest, v_among[cardinality(v_among)]);
    -- One more than asked for, to see whether there is a next page.
    SELECT coalesce(jsonb_agg(readable_order(o.row) ORDER BY (o.row).id DESC), '[]') INTO v_rows
    FROM (
        SELECT o AS row
        FROM orders AS o
        WHERE o.user_id = p_user_id AND o.id BETWEEN v_lowest AND v_highest
            AND (p_before IS NULL OR o.id < p_before)
            AND (p_account_id IS NULL OR o.account_id = p_account_id)
            AND (p_statuses IS NULL OR o.status = ANY (p_statuses))
            AND (p_symbol IS NULL OR o.symbol = p_symbol)
            AND (p_side IS NULL OR o.side = p_side)
            AND (p_order_type IS NULL OR o.order_type = p_order_type)
            AND (p_from IS NULL OR o.created_at >= p_from)
            AND (p_to IS NULL OR o.created_at < p_to)
            AND (p_client_order_id IS NULL OR o.client_order_id = p_client_order_id)
        ORDER BY o.id DESC
        LIMIT p_limit + 1
    ) AS o;
    IF jsonb_array_length(v_rows) <= p_limit THEN
        RETURN jsonb_build_object('orders', v_rows, 'next', NULL);
    END IF;
    RETURN jsonb_build_object('orders', v_rows - p_limit, 'next', v_rows -> (p_limit - 1) -> 'id');
END
$$;

GRANT EXECUTE ON FUNCTION find_orders(
    uuid, uuid, text[], text, text, text, timestamptz, timestamptz, text, uuid, integer
) TO function_trader;
