SET LOCAL ROLE trading_readers;

-- What happened to an order of a user, in the order of the chain; NULL when the user has no such order.
CREATE OR REPLACE FUNCTION get_order_audit(p_user_id uuid, p_order_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('app.user_id', p_user_id::text, true);
    IF NOT EXISTS (SELECT FROM orders WHERE user_id = p_user_id AND id = p_order_id) THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'id', l.id,
            'order_id', l.order_id,
            'user_id', l.user_id,
            'action', l.action,
            'status', l.status,
            'reason', l.reason,
            'error_code', l.details ->> 'error_code',
            'retry_attempt', l.retry_attempt,
            'created_at', utc_text(l.created_at)
        ) ORDER BY l.version), '[]')
        FROM order_audit_log AS l
        WHERE l.user_id = p_user_id AND l.order_id = p_order_id
    );
END
$$;

GRANT EXECUTE ON FUNCTION get_order_audit(uuid, uuid) TO function_trader;

SET LOCAL ROLE trading_procedures;

-- Whose order it is, for those who may read anybody's; NULL for none. Only the key's second column is known, so this
-- looks once for each user: for compliance, never on the path of an order.
CREATE OR REPLACE FUNCTION get_order_owner(p_order_id uuid) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT user_id FROM orders WHERE id = p_order_id
$$;

GRANT EXECUTE ON FUNCTION get_order_owner(uuid) TO function_trader;
