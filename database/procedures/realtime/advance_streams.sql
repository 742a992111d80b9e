SET LOCAL ROLE trading_procedures;

-- Record what was delivered under leases, give the leases back, and forget connections that are gone.
--
-- request: {version: 1, holder: uuid, publish_retry_ms, post_retry_ms, post_retry_ms_max,
--           streams: [{account_id, fencing, pushed_sequence: n or null, publish_failed,
--                      cursors: [{connection_id, subscription, sent_sequence, failed}]}],
--           gone: [connection_id]}
-- answer: {lost: [account_id], behind: [account_id]}
--   lost: another relay took the account over, so nothing was recorded and its events go out again, as they did
--   behind: there is more to deliver right now
CREATE OR REPLACE FUNCTION advance_streams(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_accounts uuid[];
    v_held uuid[];
BEGIN
    PERFORM check_request_version(request);

    v_accounts := ARRAY(SELECT (s ->> 'account_id')::uuid FROM jsonb_array_elements(request -> 'streams') s);
    PERFORM FROM event_streams WHERE account_id = ANY (v_accounts) ORDER BY account_id FOR UPDATE;

    -- An expired lease still counts while nobody else has taken one: the fencing number tells.
    WITH delivered AS (
        SELECT d.* FROM jsonb_to_recordset(request -> 'streams')
            AS d (account_id uuid, fencing bigint, pushed_sequence bigint, publish_failed boolean)
    ), held AS (
        UPDATE event_streams s
        SET pushed_sequence = greatest(s.pushed_sequence, d.pushed_sequence),
            retry_at = CASE
                WHEN d.publish_failed
                    THEN clock_timestamp() + (request ->> 'publish_retry_ms')::integer * interval '1 millisecond'
                WHEN d.pushed_sequence IS NOT NULL THEN NULL
                ELSE s.retry_at
            END,
            lease_holder = NULL,
            lease_expires_at = clock_timestamp()
        FROM delivered d
        WHERE s.account_id = d.account_id
          AND s.lease_holder = (request ->> 'holder')::uuid AND s.lease_fencing = d.fencing
        RETURNING s.account_id
    )
    SELECT coalesce(array_agg(account_id), '{}') INTO v_held FROM held;

    -- Connections before their cursors, as everywhere: whoever leaves is forgotten by $disconnect at the same time.
    PERFORM drop_connections(jsonb_build_object('version', 1, 'connection_ids', request -> 'gone'));
    PERFORM advance_cursors(request, v_held);

    RETURN jsonb_build_object(
        'lost', to_jsonb(ARRAY(SELECT unnest(v_accounts) EXCEPT SELECT unnest(v_held))),
        'behind', to_jsonb(accounts_behind(v_held))
    );
END
$$;

-- Move the cursors of the connections of `p_accounts`; used by advance_streams alone.
CREATE OR REPLACE FUNCTION advance_cursors(request jsonb, p_accounts uuid[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    -- Connections first and in key order, as everywhere that locks several of these rows.
    PERFORM FROM connection_streams c
    WHERE c.account_id = ANY (p_accounts)
      AND c.connection_id IN (
          SELECT k ->> 'connection_id' FROM jsonb_array_elements(request -> 'streams') s,
              jsonb_array_elements(s -> 'cursors') k
      )
    ORDER BY c.connection_id, c.account_id FOR UPDATE;

    -- A cursor that was subscribed anew since the claim has another subscription number, and stays where it was put.
    UPDATE connection_streams c
    SET sent_sequence = k.sent_sequence,
        failed_attempts = CASE WHEN k.failed THEN c.failed_attempts + 1 ELSE 0 END,
        waiting = k.failed,
        retry_at = CASE WHEN k.failed THEN clock_timestamp() + interval '1 millisecond' * least(
            (request ->> 'post_retry_ms')::integer * 2 ^ least(c.failed_attempts, 16),
            (request ->> 'post_retry_ms_max')::integer
        ) END
    FROM jsonb_array_elements(request -> 'streams') s,
        jsonb_to_recordset(s -> 'cursors')
            AS k (connection_id text, subscription bigint, sent_sequence bigint, failed boolean)
    WHERE c.account_id = (s ->> 'account_id')::uuid
      AND c.account_id = ANY (p_accounts)
      AND c.connection_id = k.connection_id
      AND c.subscription = k.subscription;
END
$$;

GRANT EXECUTE ON FUNCTION advance_streams(jsonb) TO function_relay;
