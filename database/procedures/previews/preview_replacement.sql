SET LOCAL ROLE trading_readers;

-- The order that replace_order would make of an order of the user, as a request of place_order with account_id, for a
-- preview of it; nothing is written.
-- p_request {order_id, order_version?, and what changes, as in replace_order}
-- Raises TR001 no such order, TR006 nothing would be left of it, TR009 and TR010 as replace_order.
CREATE OR REPLACE FUNCTION preview_replacement(p_user_id uuid, p_request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_order_id uuid := (p_request ->> 'order_id')::uuid;
    v_order orders;
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    PERFORM account_of_order(p_user_id, v_order_id);
    SELECT * INTO STRICT v_order FROM orders AS o WHERE o.user_id = p_user_id AND o.id = v_order_id;
    PERFORM check_replaceable(p_request, v_order);
    RETURN replacing_order(p_request, v_order) || jsonb_build_object('account_id', v_order.account_id);
END
$$;

GRANT EXECUTE ON FUNCTION preview_replacement(uuid, jsonb) TO function_trader;
