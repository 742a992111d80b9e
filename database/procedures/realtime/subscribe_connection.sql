SET LOCAL ROLE trading_procedures;

-- Add channels and symbols to a connection and place its cursors.
--
-- request: {version: 1, connection_id, channels: [text], symbols: [text], symbols_max, hold_ms,
--           since: n or absent, account_id: uuid or absent (all accounts of the user)}
-- answer:  {status: subscribed | unknown | unauthenticated | expired | unknown_symbols | too_many_symbols |
--                   unknown_account | account_needed | since_ahead (with since, and sequence, the account's last),
--           symbols (unknown ones, or all that are subscribed), channels, acknowledged,
--           prices_stale: whether it has to be told of prices that are (price_outages),
--           accounts: [{account_id, sequence}]}   sequence: the next frame is of the event after it
-- Cursors are held for hold_ms, so that the answer reaches the client first; release_connection ends that.
CREATE OR REPLACE FUNCTION subscribe_connection(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_connection connections;
    v_symbols text[] := ARRAY(SELECT jsonb_array_elements_text(request -> 'symbols'));
    v_unknown text[];
    v_accounts integer;
    v_since bigint := (request ->> 'since')::bigint;
    v_last bigint;
BEGIN
    PERFORM check_request_version(request);
    SELECT * INTO v_connection FROM connections WHERE connection_id = request ->> 'connection_id' FOR UPDATE;
    IF NOT found THEN
        RETURN '{"status": "unknown"}';
    ELSIF v_connection.user_id IS NULL THEN
        RETURN '{"status": "unauthenticated"}';
    ELSIF v_connection.token_expires_at <= clock_timestamp() THEN
        RETURN '{"status": "expired"}';
    END IF;

    v_unknown := ARRAY(SELECT unnest(v_symbols) EXCEPT SELECT i.symbol FROM instruments i);
    IF cardinality(v_unknown) > 0 THEN
        RETURN jsonb_build_object('status', 'unknown_symbols', 'symbols', to_jsonb(v_unknown));
    END IF;
    v_symbols := ARRAY(SELECT unnest(v_connection.symbols) UNION SELECT unnest(v_symbols) ORDER BY 1);
    IF cardinality(v_symbols) > (request ->> 'symbols_max')::integer THEN
        RETURN '{"status": "too_many_symbols"}';
    END IF;
    SELECT count(*), max(a.last_sequence) INTO v_accounts, v_last FROM accounts a
    WHERE a.user_id = v_connection.user_id
      AND (request ->> 'account_id' IS NULL OR a.id = (request ->> 'account_id')::uuid);
    IF v_accounts = 0 AND request ->> 'account_id' IS NOT NULL THEN
        RETURN '{"status": "unknown_account"}';
    ELSIF v_accounts > 1 AND v_since IS NOT NULL THEN
        RETURN '{"status": "account_needed"}';
    -- Nobody can have seen it, unless the database was restored since.
    ELSIF v_since > v_last THEN
        RETURN jsonb_build_object('status', 'since_ahead', 'since', v_since, 'sequence', v_last);
    END IF;

    UPDATE connections
    SET channels = ARRAY(
            SELECT unnest(v_connection.channels) UNION SELECT jsonb_array_elements_text(request -> 'channels') ORDER BY 1
        ),
        symbols = v_symbols,
        last_seen_at = clock_timestamp()
    WHERE connection_id = v_connection.connection_id
    RETURNING * INTO v_connection;

    RETURN jsonb_build_object(
        'status', 'subscribed',
        'channels', to_jsonb(v_connection.channels),
        'symbols', to_jsonb(v_connection.symbols),
        'acknowledged', v_connection.acknowledged_at IS NOT NULL,
        'prices_stale', 'market_data' = ANY (v_connection.channels)
            AND EXISTS (SELECT FROM price_outages WHERE left_at IS NULL),
        'accounts', place_cursors(request, v_connection.user_id)
    );
END
$$;

-- Put the connection's cursors of `p_user`'s accounts at `since`; without it a new cursor starts at the account's last
-- event and an old one stays. Used by subscribe_connection alone.
CREATE OR REPLACE FUNCTION place_cursors(request jsonb, p_user uuid) RETURNS jsonb
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH placed AS (
        INSERT INTO connection_streams AS c (connection_id, user_id, account_id, sent_sequence, retry_at)
        SELECT
            request ->> 'connection_id', a.user_id, a.id,
            coalesce((request ->> 'since')::bigint, a.last_sequence),
            clock_timestamp() + (request ->> 'hold_ms')::integer * interval '1 millisecond'
        FROM accounts a
        WHERE a.user_id = p_user
          AND (request ->> 'account_id' IS NULL OR a.id = (request ->> 'account_id')::uuid)
        ORDER BY a.id
        ON CONFLICT (connection_id, account_id) DO UPDATE
        SET sent_sequence = CASE
                WHEN request ->> 'since' IS NULL THEN c.sent_sequence
                ELSE excluded.sent_sequence
            END,
            subscription = c.subscription + 1,
            failed_attempts = 0,
            retry_at = excluded.retry_at
        RETURNING c.account_id, c.sent_sequence
    )
    SELECT coalesce(jsonb_agg(jsonb_build_object('account_id', account_id, 'sequence', sent_sequence)
        ORDER BY account_id), '[]') FROM placed
$$;

-- The answer to a subscription is sent: let the relay go on. request: {version: 1, connection_id}
-- answer: [account_id], those that have something to catch up with
CREATE OR REPLACE FUNCTION release_connection(request jsonb) RETURNS jsonb
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    -- In key order, as the relay locks them.
    WITH held AS MATERIALIZED (
        SELECT connection_id, account_id FROM connection_streams
        WHERE connection_id = request ->> 'connection_id'
        ORDER BY account_id FOR NO KEY UPDATE
    ), released AS (
        UPDATE connection_streams c
        SET retry_at = NULL, waiting = c.sent_sequence < a.last_sequence
        FROM held h, accounts a
        WHERE c.connection_id = h.connection_id AND c.account_id = h.account_id
          AND a.user_id = c.user_id AND a.id = c.account_id
        RETURNING c.account_id, c.waiting
    )
    SELECT coalesce(jsonb_agg(account_id), '[]') FROM released WHERE waiting
$$;

-- Take channels and symbols away; without both, all of them. With the last channel go the cursors.
--
-- request: {version: 1, connection_id, channels: [text], symbols: [text]}
-- answer:  {status: unsubscribed | unknown | unauthenticated | expired, channels, symbols, acknowledged}
CREATE OR REPLACE FUNCTION unsubscribe_connection(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_connection connections;
    v_channels text[] := ARRAY(SELECT jsonb_array_elements_text(request -> 'channels'));
    v_symbols text[] := ARRAY(SELECT jsonb_array_elements_text(request -> 'symbols'));
    v_all boolean := cardinality(v_channels) = 0 AND cardinality(v_symbols) = 0;
BEGIN
    PERFORM check_request_version(request);
    SELECT * INTO v_connection FROM connections WHERE connection_id = request ->> 'connection_id' FOR UPDATE;
    IF NOT found THEN
        RETURN '{"status": "unknown"}';
    ELSIF v_connection.user_id IS NULL THEN
        RETURN '{"status": "unauthenticated"}';
    ELSIF v_connection.token_expires_at <= clock_timestamp() THEN
        RETURN '{"status": "expired"}';
    END IF;

    UPDATE connections c
    SET channels = CASE WHEN v_all THEN '{}' ELSE ARRAY(
            SELECT unnest(c.channels) EXCEPT SELECT unnest(v_channels) ORDER BY 1
        ) END,
        symbols = CASE WHEN v_all THEN '{}' ELSE ARRAY(
            SELECT unnest(c.symbols) EXCEPT SELECT unnest(v_symbols) ORDER BY 1
        ) END,
        last_seen_at = clock_timestamp()
    WHERE connection_id = v_connection.connection_id
    RETURNING * INTO v_connection;
    -- Without the last symbol, market_data would come to mean every symbol.
    IF cardinality(v_symbols) > 0 AND cardinality(v_connection.symbols) = 0 THEN
        UPDATE connections c SET channels = array_remove(c.channels, 'market_data')
        WHERE connection_id = v_connection.connection_id
        RETURNING * INTO v_connection;
    END IF;
    -- Who comes back to prices is told anew how they stand.
    UPDATE connections SET stale_told = '{}', stale_claimed_until = NULL
    WHERE connection_id = v_connection.connection_id AND 'market_data' <> ALL (channels) AND stale_told <> '{}';
    IF cardinality(v_connection.channels) = 0 THEN
        PERFORM FROM connection_streams WHERE connection_id = v_connection.connection_id
        ORDER BY account_id FOR UPDATE;
        DELETE FROM connection_streams WHERE connection_id = v_connection.connection_id;
    END IF;

    RETURN jsonb_build_object(
        'status', 'unsubscribed',
        'channels', to_jsonb(v_connection.channels),
        'symbols', to_jsonb(v_connection.symbols),
        'acknowledged', v_connection.acknowledged_at IS NOT NULL
    );
END
$$;

GRANT EXECUTE ON FUNCTION subscribe_connection(jsonb) TO function_relay;
GRANT EXECUTE ON FUNCTION release_connection(jsonb) TO function_relay;
GRANT EXECUTE ON FUNCTION unsubscribe_connection(jsonb) TO function_relay;
