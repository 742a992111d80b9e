SET LOCAL ROLE trading_procedures;

-- The registry of WebSocket connections. Each answer carries a `status` word that the handler turns into a frame.

-- A connection that was accepted. request: {version: 1, connection_id, protocol or null, source_ip or null}
CREATE OR REPLACE FUNCTION register_connection(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM check_request_version(request);
    INSERT INTO connections (connection_id, protocol, source_ip)
    VALUES (request ->> 'connection_id', request ->> 'protocol', (request ->> 'source_ip')::inet)
    ON CONFLICT (connection_id) DO NOTHING;
    RETURN '{"status": "registered"}';
END
$$;

-- Bind a connection to the user of a verified token, or extend it by a newer token of the same user.
--
-- request: {version: 1, connection_id, user_id, role, expires_at, connections_max}
-- answer:  {status: authenticated | unknown | other_user | unknown_user | too_many}
CREATE OR REPLACE FUNCTION authenticate_connection(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_user uuid := (request ->> 'user_id')::uuid;
    v_connection connections;
BEGIN
    PERFORM check_request_version(request);
    SELECT * INTO v_connection FROM connections WHERE connection_id = request ->> 'connection_id' FOR UPDATE;
    IF NOT found THEN
        RETURN '{"status": "unknown"}';
    ELSIF v_connection.user_id <> v_user THEN
        RETURN '{"status": "other_user"}';
    ELSIF NOT EXISTS (SELECT FROM profiles WHERE id = v_user) THEN
        RETURN '{"status": "unknown_user"}';
    -- Callers that race here may pass by a few: the limit bounds the fan-out, nothing else rests on it.
    ELSIF v_connection.user_id IS NULL
        AND (SELECT count(*) FROM connections WHERE user_id = v_user) >= (request ->> 'connections_max')::integer THEN
        RETURN '{"status": "too_many"}';
    END IF;
    UPDATE connections
    SET user_id = v_user,
        role = request ->> 'role',
        token_expires_at = (request ->> 'expires_at')::timestamptz,
        authenticated_at = clock_timestamp(),
        last_seen_at = clock_timestamp()
    WHERE connection_id = v_connection.connection_id;
    RETURN '{"status": "authenticated"}';
END
$$;

-- What is known of a connection; a sign of life of it as well. request: {version: 1, connection_id}
-- answer: {status: unknown | unauthenticated | expired | ready, acknowledged, protocol, user_id,
--          accounts: [{account_id, sequence}]}
CREATE OR REPLACE FUNCTION touch_connection(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_connection connections;
BEGIN
    UPDATE connections SET last_seen_at = clock_timestamp()
    WHERE connection_id = request ->> 'connection_id'
    RETURNING * INTO v_connection;
    IF NOT found THEN
        RETURN '{"status": "unknown"}';
    END IF;
    RETURN jsonb_build_object(
        'status', CASE
            WHEN v_connection.user_id IS NULL THEN 'unauthenticated'
            WHEN v_connection.token_expires_at <= clock_timestamp() THEN 'expired'
            ELSE 'ready'
        END,
        'acknowledged', v_connection.acknowledged_at IS NOT NULL,
        'protocol', v_connection.protocol,
        'user_id', v_connection.user_id,
        'accounts', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('account_id', a.id, 'sequence', a.last_sequence)
                ORDER BY a.id), '[]')
            FROM accounts a WHERE a.user_id = v_connection.user_id
        )
    );
END
$$;

-- The connection was told that it is authenticated. request: {version: 1, connection_id}
CREATE OR REPLACE FUNCTION acknowledge_connection(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE connections SET acknowledged_at = clock_timestamp()
    WHERE connection_id = request ->> 'connection_id' AND acknowledged_at IS NULL;
    RETURN '{"status": "acknowledged"}';
END
$$;

-- Forget connections. request: {version: 1, connection_ids: [text]}; answer: {dropped: n}
CREATE OR REPLACE FUNCTION drop_connections(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_ids text[] := ARRAY(SELECT jsonb_array_elements_text(request -> 'connection_ids'));
    v_dropped integer;
BEGIN
    PERFORM FROM connections WHERE connection_id = ANY (v_ids) ORDER BY connection_id FOR UPDATE;
    DELETE FROM connections WHERE connection_id = ANY (v_ids);
    GET DIAGNOSTICS v_dropped = ROW_COUNT;
    RETURN jsonb_build_object('dropped', v_dropped);
END
$$;

-- Forget a connection that has shown no token. request: {version: 1, connection_id}
-- answer: {status: authenticated | dropped}   dropped: also when it was not known any more
CREATE OR REPLACE FUNCTION drop_unauthenticated_connection(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    -- The predicate stands in the DELETE, so a token that arrives at this moment is not lost.
    DELETE FROM connections WHERE connection_id = request ->> 'connection_id' AND user_id IS NULL;
    RETURN jsonb_build_object('status', CASE
        WHEN EXISTS (SELECT FROM connections WHERE connection_id = request ->> 'connection_id') THEN 'authenticated'
        ELSE 'dropped'
    END);
END
$$;

-- Connections to be closed by the sweep; those of blocked addresses first, which may only listen and so meet no gate.
--
-- request: {version: 1, limit, unauthenticated_seconds, age_seconds_max}
-- answer:  [{connection_id, reason: blocked | unauthenticated | expired | aged}]
CREATE OR REPLACE FUNCTION list_expired_connections(request jsonb) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(jsonb_agg(to_jsonb(found)), '[]')
    FROM (
        SELECT c.connection_id, 'blocked' AS reason
        FROM blocked_addresses() AS b
        INNER JOIN connections AS c ON blockable_address(host(c.source_ip)) = b.address
        UNION ALL
        SELECT connection_id, 'unauthenticated' FROM connections
        WHERE user_id IS NULL
          AND connected_at < clock_timestamp() - (request ->> 'unauthenticated_seconds')::integer * interval '1 second'
        UNION ALL
        SELECT connection_id, 'expired' FROM connections
        WHERE user_id IS NOT NULL AND token_expires_at <= clock_timestamp()
        UNION ALL
        SELECT connection_id, 'aged' FROM connections
        WHERE user_id IS NOT NULL AND token_expires_at > clock_timestamp()
          AND connected_at < clock_timestamp() - (request ->> 'age_seconds_max')::integer * interval '1 second'
        LIMIT (request ->> 'limit')::integer
    ) found
$$;

-- Who wants prices. request: {version: 1, limit}; answer: [{connection_id, symbols}], no symbols meaning every symbol
CREATE OR REPLACE FUNCTION list_market_data_connections(request jsonb) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(jsonb_agg(to_jsonb(found)), '[]')
    FROM (
        SELECT connection_id, symbols FROM connections
        WHERE 'market_data' = ANY (channels) AND token_expires_at > clock_timestamp()
        ORDER BY connection_id
        LIMIT (request ->> 'limit')::integer
    ) found
$$;

GRANT EXECUTE ON FUNCTION register_connection(jsonb) TO function_relay;
GRANT EXECUTE ON FUNCTION authenticate_connection(jsonb) TO function_relay;
GRANT EXECUTE ON FUNCTION touch_connection(jsonb) TO function_relay;
GRANT EXECUTE ON FUNCTION acknowledge_connection(jsonb) TO function_relay;
GRANT EXECUTE ON FUNCTION drop_connections(jsonb) TO function_relay, function_prices;
GRANT EXECUTE ON FUNCTION drop_unauthenticated_connection(jsonb) TO function_relay;
GRANT EXECUTE ON FUNCTION list_expired_connections(jsonb) TO function_relay;
GRANT EXECUTE ON FUNCTION list_market_data_connections(jsonb) TO function_prices;
