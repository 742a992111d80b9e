SET LOCAL ROLE trading_procedures;

-- Removes idempotency keys past their expiry, at most `limit` of them; a key answers until it is removed.
-- request {version: 1, limit} -> {purged}
CREATE OR REPLACE FUNCTION purge_expired_keys(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_purged bigint;
BEGIN
    PERFORM check_request_version(request);
    DELETE FROM idempotency_keys AS k
    USING (
        SELECT e.user_id, e.account_id, e.idempotency_key FROM idempotency_keys AS e
        WHERE e.expires_at < statement_timestamp()
        LIMIT (request ->> 'limit')::bigint
    ) AS expired
    WHERE k.user_id = expired.user_id AND k.account_id = expired.account_id
        AND k.idempotency_key = expired.idempotency_key;
    GET DIAGNOSTICS v_purged = ROW_COUNT;
    RETURN jsonb_build_object('purged', v_purged);
END
$$;

GRANT EXECUTE ON FUNCTION purge_expired_keys(jsonb) TO function_relay;
