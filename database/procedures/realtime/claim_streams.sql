SET LOCAL ROLE trading_procedures;

-- Those of `p_accounts` that have something to deliver now: unpublished events, or a connection whose cursor is behind.
-- Reads only, and locks nothing.
CREATE OR REPLACE FUNCTION accounts_behind(p_accounts uuid[]) RETURNS uuid[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT ARRAY(
        SELECT a.id
        FROM accounts a
        LEFT JOIN event_streams s ON s.account_id = a.id
        WHERE a.id = ANY (p_accounts)
          AND a.last_sequence > coalesce(s.pushed_sequence, 0)
          AND (s.retry_at IS NULL OR s.retry_at <= clock_timestamp())
        UNION
        SELECT c.account_id
        FROM connection_streams c
        JOIN connections n ON n.connection_id = c.connection_id
        JOIN accounts a ON a.user_id = c.user_id AND a.id = c.account_id
        WHERE c.account_id = ANY (p_accounts)
          AND c.sent_sequence < a.last_sequence
          AND (c.retry_at IS NULL OR c.retry_at <= clock_timestamp())
          AND n.token_expires_at > clock_timestamp()
    )
$$;

-- Take a lease on up to `limit` accounts that have something to deliver.
--
-- request: {version: 1, holder: uuid, limit, lease_ms, account_ids: [uuid], recent_ms: integer or null}
-- Looked at are account_ids and, with recent_ms, the accounts with an event that young or a waiting connection.
-- answer: {streams: [{user_id, account_id, fencing, pushed_sequence, last_sequence, publish,
--                     connections: [{connection_id, sent_sequence, subscription, failed_attempts, channels}]}],
--          busy: [account_id]}   busy: something to deliver, but not leased to this caller now
CREATE OR REPLACE FUNCTION claim_streams(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_accounts uuid[] := ARRAY(SELECT jsonb_array_elements_text(request -> 'account_ids')::uuid);
    v_behind uuid[];
    v_leased uuid[];
BEGIN
    PERFORM check_request_version(request);

    IF request ->> 'recent_ms' IS NOT NULL THEN
        v_accounts := v_accounts || ARRAY(
            SELECT e.account_id FROM events e
            WHERE e.created_at > clock_timestamp() - (request ->> 'recent_ms')::integer * interval '1 millisecond'
            UNION
            SELECT c.account_id FROM connection_streams c WHERE c.waiting
        );
    END IF;
    v_behind := accounts_behind(v_accounts);
    IF cardinality(v_behind) = 0 THEN
        RETURN '{"streams": [], "busy": []}';
    END IF;

    -- Most accounts have their row; the first event of an account makes it.
    INSERT INTO event_streams (user_id, account_id)
    SELECT a.user_id, a.id FROM accounts a
    WHERE a.id = ANY (v_behind) AND NOT EXISTS (SELECT FROM event_streams s WHERE s.account_id = a.id)
    ORDER BY a.id
    ON CONFLICT (account_id) DO NOTHING;

    -- The longest unserved first. A row that another relay has locked is being leased: it is busy, not waited for.
    WITH free AS (
        SELECT s.account_id FROM event_streams s
        WHERE s.account_id = ANY (v_behind)
          AND (s.lease_expires_at IS NULL OR s.lease_expires_at <= clock_timestamp())
        ORDER BY s.lease_expires_at NULLS FIRST
        LIMIT (request ->> 'limit')::integer
        FOR UPDATE SKIP LOCKED
    ), leased AS (
        UPDATE event_streams s
        SET lease_holder = (request ->> 'holder')::uuid,
            lease_fencing = s.lease_fencing + 1,
            lease_expires_at = clock_timestamp() + (request ->> 'lease_ms')::integer * interval '1 millisecond'
        FROM free WHERE s.account_id = free.account_id
        RETURNING s.account_id
    )
    SELECT coalesce(array_agg(account_id), '{}') INTO v_leased FROM leased;

    -- Read again now that the lease is ours: another relay may have moved the cursors a moment ago.
    RETURN jsonb_build_object(
        'streams', leased_streams(v_leased),
        'busy', to_jsonb(ARRAY(SELECT unnest(v_behind) EXCEPT SELECT unnest(v_leased)))
    );
END
$$;

-- What the holder of a lease needs to know of each of `p_accounts`; used by claim_streams alone.
CREATE OR REPLACE FUNCTION leased_streams(p_accounts uuid[]) RETURNS jsonb
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'user_id', s.user_id,
        'account_id', s.account_id,
        'fencing', s.lease_fencing,
        'pushed_sequence', s.pushed_sequence,
        'last_sequence', a.last_sequence,
        'publish', a.last_sequence > s.pushed_sequence AND (s.retry_at IS NULL OR s.retry_at <= clock_timestamp()),
        'connections', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'connection_id', c.connection_id,
                'sent_sequence', c.sent_sequence,
                'subscription', c.subscription,
                'failed_attempts', c.failed_attempts,
                'channels', n.channels
            )), '[]')
            FROM connection_streams c
            JOIN connections n ON n.connection_id = c.connection_id
            WHERE c.account_id = s.account_id
              AND c.sent_sequence < a.last_sequence
              AND (c.retry_at IS NULL OR c.retry_at <= clock_timestamp())
              AND n.token_expires_at > clock_timestamp()
        )
    )), '[]')
    FROM event_streams s
    JOIN accounts a ON a.user_id = s.user_id AND a.id = s.account_id
    WHERE s.account_id = ANY (p_accounts)
$$;

-- The sweep's question, over all accounts: which have something to deliver now?
--
-- request: {version: 1, limit}; answer: [account_id]
CREATE OR REPLACE FUNCTION list_accounts_behind(request jsonb) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(jsonb_agg(found.account_id), '[]')
    FROM (
        SELECT a.id AS account_id
        FROM accounts a
        LEFT JOIN event_streams s ON s.account_id = a.id
        WHERE a.last_sequence > coalesce(s.pushed_sequence, 0)
          AND (s.retry_at IS NULL OR s.retry_at <= clock_timestamp())
        UNION
        SELECT c.account_id
        FROM connection_streams c
        JOIN connections n ON n.connection_id = c.connection_id
        JOIN accounts a ON a.user_id = c.user_id AND a.id = c.account_id
        WHERE c.sent_sequence < a.last_sequence
          AND (c.retry_at IS NULL OR c.retry_at <= clock_timestamp())
          AND n.token_expires_at > clock_timestamp()
        LIMIT (request ->> 'limit')::integer
    ) found
$$;

GRANT EXECUTE ON FUNCTION claim_streams(jsonb) TO function_relay;
GRANT EXECUTE ON FUNCTION list_accounts_behind(jsonb) TO function_relay;
