SET LOCAL ROLE trading_readers;

-- find_orders as the last release called it.
CREATE OR REPLACE FUNCTION list_orders(
    p_user_id uuid, p_account_id uuid, p_statuses text[], p_before uuid, p_limit integer
) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT find_orders(
        p_user_id, p_account_id, p_statuses, NULL, NULL, NULL, NULL, NULL, NULL, p_before, p_limit
    )
$$;

GRANT EXECUTE ON FUNCTION list_orders(uuid, uuid, text[], uuid, integer) TO function_trader;
