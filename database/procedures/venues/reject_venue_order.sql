SET LOCAL ROLE trading_procedures;

-- Ends an order at its venue's word: refused, or ended there with a rest that will not fill. An order that has fills,
-- or was canceled here before, is canceled and keeps them; what was reserved for the rest is free again.
--
-- request {version: 1, user_id, order_id, status: 'rejected' | 'canceled', code, reason, venue_order_id?,
--   retry_attempt?, request_id?}
-- -> {outcome: 'ended' | 'known', status, sequence}; `known`: it had ended before, and nothing changes.
-- Raises TR001 no such order, TR006 a value out of its bounds, TR013 an order that never went to a venue.
CREATE OR REPLACE FUNCTION reject_venue_order(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_account accounts;
    v_order orders;
    v_route venue_routes;
    v_at timestamptz;
BEGIN
    PERFORM check_request_version(request);
    IF request ->> 'status' IS NULL OR request ->> 'status' NOT IN ('rejected', 'canceled') THEN
        PERFORM refuse_value('status', request ->> 'status', 'rejected or canceled');
    END IF;
    IF request ->> 'code' IS NULL OR request ->> 'reason' IS NULL THEN
        PERFORM refuse_value('reason', request ->> 'reason', 'given with its code');
    END IF;
    v_account := lock_account_of_order(request);
    v_at := clock_timestamp();
    SELECT * INTO STRICT v_order FROM orders
    WHERE user_id = v_account.user_id AND id = (request ->> 'order_id')::uuid FOR NO KEY UPDATE;
    v_route := lock_route(v_order);
    IF v_route.state = 'done' THEN
        RETURN jsonb_build_object('outcome', 'known', 'status', v_order.status, 'sequence', NULL);
    END IF;
    RETURN end_venue_order(request, v_account, v_order, v_route, v_at);
END
$$;

-- The order, its route, the account's heads, audit and event of an end.
CREATE OR REPLACE FUNCTION end_venue_order(
    request jsonb, p_account accounts, p_order orders, p_route venue_routes, p_at timestamptz
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_order orders := p_order;
    v_head bytea;
BEGIN
    v_order.status := CASE p_order.status WHEN 'pending_new' THEN request ->> 'status' ELSE 'canceled' END;
    v_order.leaves_quantity := 0;
    v_order.failure_code := request ->> 'code';
    v_order.failure_reason := request ->> 'reason';
    v_order.venue_order_id := coalesce(request ->> 'venue_order_id', p_order.venue_order_id);
    UPDATE orders SET
        status = v_order.status,
        leaves_quantity = 0,
        failure_code = v_order.failure_code,
        failure_reason = v_order.failure_reason,
        venue_order_id = v_order.venue_order_id,
        version = version + 1,
        updated_at = p_at
    WHERE user_id = v_order.user_id AND id = v_order.id;
    UPDATE venue_routes SET state = 'done', margin_reserved = 0, updated_at = p_at
    WHERE user_id = v_order.user_id AND order_id = v_order.id;
    v_head := append_audit(p_account, v_order.id, ARRAY[ROW(
        CASE v_order.status WHEN 'rejected' THEN 'REJECTED' ELSE 'CANCELED' END, v_order.status,
        jsonb_strip_nulls(jsonb_build_object(
            'venue', p_route.venue, 'code', request ->> 'code', 'venue_order_id', v_order.venue_order_id,
            'filled_quantity', v_order.filled_quantity
        )), request ->> 'reason', (request ->> 'retry_attempt')::integer
    )::audit_entry], p_at);
    UPDATE accounts SET
        margin_reserved = margin_reserved - p_route.margin_reserved,
        last_sequence = last_sequence + 1,
        audit_version = audit_version + 1,
        audit_head = v_head,
        updated_at = p_at
    WHERE user_id = p_account.user_id AND id = p_account.id;
    PERFORM append_event(
        p_account, p_account.last_sequence + 1, 'order.' || v_order.status,
        jsonb_build_object('orders', jsonb_build_array(routed_order_fact(v_order))),
        coalesce(request ->> 'request_id', v_order.request_id), p_at
    );
    RETURN jsonb_build_object(
        'outcome', 'ended', 'status', v_order.status, 'sequence', p_account.last_sequence + 1
    );
END
$$;

GRANT EXECUTE ON FUNCTION reject_venue_order(jsonb) TO function_router;
